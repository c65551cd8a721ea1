//! The header that comes in, and the one that leaves: written anew, with nothing but what the
//! records that leave need.

use std::fmt::Write;

use super::record::FORMATS;
use super::right::Permit;

const FIXED: &str = "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO";

/// What is needed of the header that came in.
pub(super) struct Header {
    version: String,
    /// Class, ID and whole line of each structured declaration.
    declared: Vec<(String, String, String)>,
    sample: Option<String>,
    /// Number of its lines.
    pub(super) lines: u64,
}

impl Header {
    /// Reads a header, `#CHROM` line included.
    ///
    /// Errors: the line, from 1, and what is wrong with it.
    pub(super) fn parse(text: &[u8]) -> Result<Self, (u64, &'static str)> {
        let text = std::str::from_utf8(text).map_err(|_| (1, "the header is not UTF-8 text"))?;
        let mut header = Self {
            version: String::new(),
            declared: Vec::new(),
            sample: None,
            lines: text.lines().count() as u64,
        };
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim_end_matches('\r');
            if number == 1 {
                let version = line.strip_prefix("##fileformat=VCFv");
                let plain = |c: char| c.is_ascii_digit() || c == '.';
                let version = version.filter(|version| version.chars().all(plain));
                header.version = version.ok_or((1, "the file is not VCF"))?.into();
            } else if line.starts_with("##") {
                header.declared.extend(declaration(line));
            } else {
                header.sample = sample(line).map_err(|what| (number, what))?;
            }
        }
        Ok(header)
    }

    /// Columns that every record has.
    pub(super) fn columns(&self) -> usize {
        if self.sample.is_some() { 10 } else { 8 }
    }

    /// The header for what leaves under `permit`.
    pub(super) fn for_output(&self, permit: &Permit, kept: u64, removed: u64) -> String {
        let mut text = format!("##fileformat=VCFv{}\n", self.version);
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "##dsgdRight=<ID={},Digest={},Kept={kept},Removed={removed}>",
            permit.right,
            permit.digest()
        );
        for (class, id, line) in &self.declared {
            let leaves = match class.as_str() {
                "FILTER" => permit.filter.iter().any(|name| name == "*" || name == id),
                "INFO" => permit.information.contains(id),
                "FORMAT" => FORMATS.contains(&id.as_str()),
                _ => false,
            };
            if leaves {
                let _ = writeln!(text, "{line}");
            }
            if class == "contig" && self.contig_permitted(permit, id) {
                let length = attribute(line, "length").filter(|text| text.parse::<u64>().is_ok());
                let length = length.map_or_else(String::new, |text| format!(",length={text}"));
                let _ = writeln!(text, "##contig=<ID={id}{length}>");
            }
        }
        text += FIXED;
        if let Some(sample) = &self.sample {
            text += "\tFORMAT\t";
            text += permit.pseudonym.as_ref().unwrap_or(sample);
        }
        text.push('\n');
        text
    }

    fn contig_permitted(&self, permit: &Permit, contig: &str) -> bool {
        permit.extent.as_ref().is_none_or(|regions| !regions.on(contig).is_empty())
    }
}

/// `##class=<ID=…>`.
fn declaration(line: &str) -> Option<(String, String, String)> {
    let (class, rest) = line.strip_prefix("##")?.split_once("=<")?;
    let rest = rest.strip_suffix('>')?;
    let id = attribute(rest, "ID")?;
    Some((class.into(), id.into(), line.into()))
}

/// The value of `key` among `key=value` pairs that stand before any quoted text.
fn attribute<'t>(text: &'t str, key: &str) -> Option<&'t str> {
    let text = text.split('"').next()?;
    let pairs = text.split(['<', ',', '>']);
    pairs
        .filter_map(|pair| pair.split_once('='))
        .find(|(found, _)| *found == key)
        .map(|pair| pair.1)
}

fn sample(line: &str) -> Result<Option<String>, &'static str> {
    let rest = line.strip_prefix(FIXED).ok_or("the columns are not those of VCF")?;
    let columns: Vec<&str> = rest.split('\t').skip(1).collect();
    match columns[..] {
        [] if rest.is_empty() => Ok(None),
        ["FORMAT", name] if !name.is_empty() => Ok(Some(name.into())),
        ["FORMAT", _, ..] => Err("there must be one sample in the file"),
        _ => Err("the columns are not those of VCF"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disclosure::Right;

    #[test]
    fn only_what_is_needed_leaves() {
        let text = "##fileformat=VCFv4.3\n##source=secret\n##reference=/home/x.fa\n\
            ##INFO=<ID=DP,Number=1,Type=Integer,Description=\"a, ID=b\">\n\
            ##INFO=<ID=XX,Number=1,Type=Integer,Description=\"x\">\n\
            ##FORMAT=<ID=GT,Number=1,Type=String,Description=\"g\">\n\
            ##FORMAT=<ID=PS,Number=1,Type=Integer,Description=\"p\">\n\
            ##FILTER=<ID=PASS,Description=\"\">\n##FILTER=<ID=Low,Description=\"l\">\n\
            ##contig=<ID=c,length=500,assembly=hidden>\n##contig=<ID=d,length=5>\n\
            #CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\tTaro\n";
        let header = Header::parse(text.as_bytes()).unwrap();
        assert_eq!((header.columns(), header.lines), (10, 12));
        let right = "id='r'\nuser='u'\npurpose='p'\nregions=['c:1-9']\npseudonym='P1'";
        let permit = toml::from_str::<Right>(right).unwrap().resolve().unwrap();
        let digest = permit.digest();
        let expected = format!(
            "##fileformat=VCFv4.3\n##dsgdRight=<ID=r,Digest={digest},Kept=3,Removed=4>\n\
            ##INFO=<ID=DP,Number=1,Type=Integer,Description=\"a, ID=b\">\n\
            ##FORMAT=<ID=GT,Number=1,Type=String,Description=\"g\">\n\
            ##FILTER=<ID=PASS,Description=\"\">\n##contig=<ID=c,length=500>\n\
            #CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\tP1\n"
        );
        assert_eq!(header.for_output(&permit, 3, 4), expected);
    }

    #[test]
    fn other_files_are_refused() {
        let columns = "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO";
        for (text, line) in [
            (String::from("hello\n"), 1),
            (format!("##fileformat=VCFv4.3\n{columns}\tFORMAT\ta\tb\n"), 2),
            (format!("##fileformat=VCFv4.3\n{columns}\tFORMAT\n"), 2),
            (String::from("##fileformat=VCFv4.3\n##x=y\n#CHROM\n"), 3),
        ] {
            assert_eq!(Header::parse(text.as_bytes()).err().map(|error| error.0), Some(line));
        }
    }
}
