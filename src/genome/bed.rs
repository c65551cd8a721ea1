//! BED in: lines of contig, start and end, 0-based and half-open.

use std::io::{BufRead, BufReader, Read};

use super::inflate::InflateReader;
use super::region::{Region, Regions};
use crate::base::{Fault, Faulty};

/// Why a BED file was refused. Lines count from 1.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file could not be read.
    #[error("reading BED")]
    Read(#[source] std::io::Error),
    /// A line is not a region.
    #[error("line {line}: {what}")]
    Line {
        /// The line.
        line: u64,
        /// What is wrong.
        what: &'static str,
    },
}

impl Faulty for Error {
    fn fault(&self) -> Fault {
        match self {
            Error::Read(error) => Fault::of_io(error),
            Error::Line { .. } => Fault::Data,
        }
    }
}

/// Reads BED, plain or compressed. Comments, `track` and `browser` lines and columns after the
/// third are passed over; regions of no bases hold nothing.
pub fn read(reader: impl Read) -> Result<Regions, Error> {
    let lines = BufReader::new(InflateReader::new(reader, "BED")).lines();
    let mut regions = Vec::new();
    for (line, text) in (1..).zip(lines) {
        let text = text.map_err(Error::Read)?;
        if let Some(region) = parse(&text).map_err(|what| Error::Line { line, what })? {
            regions.push(region);
        }
    }
    Ok(regions.into_iter().collect())
}

fn parse(text: &str) -> Result<Option<Region>, &'static str> {
    let mut columns = text.split_ascii_whitespace();
    let contig = match columns.next() {
        None | Some("track" | "browser") => return Ok(None),
        Some(first) if first.starts_with('#') => return Ok(None),
        Some(contig) => contig,
    };
    let mut number = || columns.next().and_then(|column| column.parse::<u32>().ok());
    let start = number().ok_or("the start is not a number")?;
    let end = number().ok_or("the end is not a number")?;
    if start > end {
        return Err("the region ends before it starts");
    }
    Ok(Some(Region { contig: contig.into(), start, end }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_are_read_and_the_rest_passed_over() {
        let text =
            "#c\ntrack name=x\nbrowser y\n\nchr1\t10\t20\tname\t0\t+\r\nchr1 15 30\nchr2\t5\t5\n";
        let regions = read(text.as_bytes()).unwrap();
        assert_eq!(regions.on("chr1"), [(10, 30)]);
        assert_eq!(regions.bases(), 20);
        assert!(read(&b""[..]).unwrap().is_empty());
    }

    #[test]
    fn wrong_lines_are_named() {
        for (text, message) in [
            ("a\t1\t2\na\tx\t2\n", "line 2: the start is not a number"),
            ("a\t1\n", "line 1: the end is not a number"),
            ("a\t-1\t3\n", "line 1: the start is not a number"),
            ("\na\t5\t3\n", "line 2: the region ends before it starts"),
        ] {
            assert_eq!(read(text.as_bytes()).unwrap_err().to_string(), message);
        }
    }
}
