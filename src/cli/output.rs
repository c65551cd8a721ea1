//! The only writer to standard output: text for people, or one JSON document.

use std::cell::RefCell;
use std::io::{self, ErrorKind, IsTerminal, Write};

use serde::Serialize;
use serde_json::json;

use crate::base::Faulty;

/// Version of the JSON documents.
const SCHEMA: u32 = 1;

/// Standard output.
pub struct Output {
    json: bool,
    failure: RefCell<Option<io::Error>>,
}

impl Output {
    /// An output that prints JSON, or text.
    pub fn new(json: bool) -> Self {
        Self { json, failure: RefCell::new(None) }
    }

    /// Whether it prints JSON.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// Prints the result of a verb: `data` as JSON, or what `human` makes of it.
    pub fn result<T: Serialize>(&self, verb: &str, data: &T, human: impl FnOnce() -> String) {
        if self.json {
            let document = json!({"schema": SCHEMA, "command": verb, "ok": true, "data": data});
            self.text(&format!("{document:#}\n"));
        } else {
            self.text(&human());
        }
    }

    /// Prints text as it is. A reader that went away is no error; other failures are kept for
    /// [`finish`](Self::finish).
    pub fn text(&self, text: &str) {
        let mut out = io::stdout();
        let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
        if let Err(error) = written
            && error.kind() != ErrorKind::BrokenPipe
        {
            self.failure.borrow_mut().get_or_insert(error);
        }
    }

    /// Ends with what went wrong in printing, if anything did.
    pub fn finish(&self) -> io::Result<()> {
        self.failure.borrow_mut().take().map_or(Ok(()), Err)
    }

    /// Prints why a verb failed: to standard error, and as JSON where that was asked for.
    pub fn error(&self, error: &dyn Faulty) {
        let mut causes = Vec::new();
        let mut cause = error.source();
        while let Some(error) = cause {
            let text = error.to_string().trim_end().to_owned();
            // Transparent wrappers say the same again.
            if causes.last() != Some(&text) {
                causes.push(text);
            }
            cause = error.source();
        }
        let (message, hint, code) = (error.to_string(), error.hint(), error.fault().exit_code());
        self.refusal(&json!({"message": message, "causes": causes, "help": hint, "exit": code}));
        eprintln!("error: {message}");
        causes.iter().for_each(|cause| eprintln!("  caused by: {cause}"));
        if let Some(hint) = hint {
            eprintln!("  hint: {hint}");
        }
    }

    /// Prints an error as JSON, where that was asked for.
    pub fn refusal(&self, error: &serde_json::Value) {
        if self.json {
            let document = json!({"schema": SCHEMA, "ok": false, "error": error});
            self.text(&format!("{document:#}\n"));
        }
    }
}

/// A table with aligned columns; the first is text, the others are numbers or text to the right.
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these column heads.
    pub fn new<const N: usize>(heads: [&str; N]) -> Self {
        Self { rows: vec![heads.iter().map(|head| (*head).to_owned()).collect()] }
    }

    /// Adds a row.
    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.into());
    }

    /// The table as text, two spaces between columns, a line under the heads.
    pub fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            self.rows
                .iter()
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for (number, row) in self.rows.iter().enumerate() {
            let mut line = String::new();
            for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
                let gap = " ".repeat(width - cell.chars().count());
                match column {
                    0 => line = format!("{cell}{gap}"),
                    _ => line = format!("{line}  {gap}{cell}"),
                }
            }
            text += line.trim_end();
            text.push('\n');
            if number == 0 {
                let total = widths.iter().sum::<usize>() + 2 * columns.saturating_sub(1);
                text += &"-".repeat(total);
                text.push('\n');
            }
        }
        text
    }
}

/// Whether a person watches standard error.
pub fn watched() -> bool {
    io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let mut table = Table::new(["stage", "bytes"]);
        table.row(["read".into(), "5".into()]);
        table.row(["compress".into(), "12345".into()]);
        let expected = "stage     bytes\n---------------\nread          5\ncompress  12345\n";
        assert_eq!(table.render(), expected);
    }
}
