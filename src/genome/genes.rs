//! Genes by name: a table of where they lie, and lists of names resolved to regions.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};

use super::inflate::InflateReader;
use super::region::{Region, Regions};
use crate::base::{Fault, Faulty};

/// How a gene table is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Columns gene, contig, start and end, 0-based and half-open as in BED, tab-separated; a
    /// first line whose start is no number is a header.
    Tsv,
    /// GFF3: features whose type ends with `gene`, under their `Name`, `gene`, `gene_name` and `ID`.
    Gff3,
    /// GTF: features of type `gene`, under their `gene_name` and `gene_id`.
    Gtf,
}

/// Why genes could not be resolved. Lines count from 1.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The table could not be read.
    #[error("reading the gene table")]
    Read(#[source] std::io::Error),
    /// A line of the table is malformed.
    #[error("line {line}: {what}")]
    Line {
        /// The line.
        line: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// A gene that the table does not hold.
    #[error("gene '{gene}' is not in the gene table")]
    Unknown {
        /// The gene.
        gene: String,
        /// The most similar name in the table.
        nearest: Option<String>,
    },
}

impl Faulty for Error {
    fn fault(&self) -> Fault {
        match self {
            Error::Read(error) => Fault::of_io(error),
            _ => Fault::Data,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Error::Unknown { nearest: Some(nearest), .. } => {
                Some(format!("did you mean '{nearest}'?"))
            }
            _ => None,
        }
    }
}

impl Layout {
    /// The layout that a file of this name has, compressed or not.
    pub fn of_name(name: &str) -> Layout {
        let name = name.to_ascii_lowercase();
        let name = name.strip_suffix(".gz").unwrap_or(&name);
        match name.rsplit('.').next() {
            Some("gff" | "gff3") => Layout::Gff3,
            Some("gtf") => Layout::Gtf,
            _ => Layout::Tsv,
        }
    }
}

/// Where genes lie. A gene may lie in several places, as on both sex chromosomes.
#[derive(Clone, Debug, Default)]
pub struct GeneTable {
    places: BTreeMap<String, Vec<Region>>,
}

impl GeneTable {
    /// Reads a table, plain or compressed.
    pub fn read(reader: impl Read, layout: Layout) -> Result<Self, Error> {
        let lines = BufReader::new(InflateReader::new(reader, "gene table")).lines();
        let mut table = Self::default();
        for (line, text) in (1..).zip(lines) {
            let text = text.map_err(Error::Read)?;
            if text.starts_with('#') || text.trim().is_empty() {
                continue;
            }
            let columns: Vec<&str> = text.trim_end().split('\t').collect();
            let added = match layout {
                Layout::Tsv => table.add_tsv(&columns, line == 1),
                Layout::Gff3 | Layout::Gtf => table.add_feature(&columns, layout),
            };
            added.map_err(|what| Error::Line { line, what })?;
        }
        Ok(table)
    }

    /// Number of names.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// All places of the genes called `names`.
    ///
    /// Errors: [`Error::Unknown`] for the first that is not in the table.
    pub fn resolve<'n>(&self, names: impl IntoIterator<Item = &'n str>) -> Result<Regions, Error> {
        let mut regions = Vec::new();
        for name in names {
            let places = self.places.get(name).ok_or_else(|| Error::Unknown {
                gene: name.chars().take(80).collect(),
                nearest: self.nearest(name),
            })?;
            regions.extend_from_slice(places);
        }
        Ok(regions.into_iter().collect())
    }

    fn add(&mut self, name: &str, region: &Region) {
        let places = self.places.entry(name.into()).or_default();
        if !places.contains(region) {
            places.push(region.clone());
        }
    }

    fn add_tsv(&mut self, columns: &[&str], first: bool) -> Result<(), &'static str> {
        let &[gene, contig, start, end, ..] = columns else { return Err("fewer than 4 columns") };
        let (Ok(start), Ok(end)) = (start.parse(), end.parse()) else {
            return if first { Ok(()) } else { Err("start and end are not numbers") };
        };
        if start >= end {
            return Err("the gene ends before it starts");
        }
        self.add(gene, &Region { contig: contig.into(), start, end });
        Ok(())
    }

    fn add_feature(&mut self, columns: &[&str], layout: Layout) -> Result<(), &'static str> {
        let &[contig, _, kind, start, end, _, _, _, attributes, ..] = columns else {
            return Err("fewer than 9 columns");
        };
        if !kind.ends_with("gene") {
            return Ok(());
        }
        // Positions count from 1 and include the end.
        let start = start.parse::<u32>().ok().and_then(|start| start.checked_sub(1));
        let (Some(start), Ok(end)) = (start, end.parse::<u32>()) else {
            return Err("start and end are not numbers");
        };
        if start >= end {
            return Err("the gene ends before it starts");
        }
        let region = Region { contig: contig.into(), start, end };
        for attribute in attributes.split(';') {
            let attribute = attribute.trim();
            let separator = if layout == Layout::Gff3 { '=' } else { ' ' };
            let Some((key, value)) = attribute.split_once(separator) else { continue };
            let value = value.trim().trim_matches('"');
            match key {
                "Name" | "gene" | "gene_name" | "gene_id" => self.add(value, &region),
                "ID" => self.add(value.strip_prefix("gene:").unwrap_or(value), &region),
                _ => {}
            }
        }
        Ok(())
    }

    /// The name that the fewest changes of a letter lead to, if those are few.
    fn nearest(&self, name: &str) -> Option<String> {
        let wanted: Vec<char> = name.to_uppercase().chars().take(80).collect();
        let far = wanted.len().div_ceil(2);
        let distance = |known: &String| {
            let known: Vec<char> = known.to_uppercase().chars().take(80).collect();
            edits(&wanted, &known)
        };
        let scored = self.places.keys().map(|known| (distance(known), known));
        scored.min().filter(|(edits, _)| *edits <= far).map(|(_, known)| known.clone())
    }
}

/// Levenshtein distance.
fn edits(a: &[char], b: &[char]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    const TSV: &str = "gene\tchrom\tstart\tend\nBRCA1\tchr17\t100\t200\nBRCA2\tchr13\t5\t9\n\
                       SHOX\tchrX\t1\t2\nSHOX\tchrY\t1\t2\n";

    #[test]
    fn names_become_all_their_places() {
        let table = GeneTable::read(TSV.as_bytes(), Layout::Tsv).unwrap();
        assert_eq!(table.len(), 3);
        let regions = table.resolve(["BRCA1", "SHOX"]).unwrap();
        assert_eq!(regions.on("chr17"), [(100, 200)]);
        assert_eq!((regions.on("chrX"), regions.on("chrY")), (&[(1, 2)][..], &[(1, 2)][..]));
        assert!(regions.on("chr13").is_empty());
    }

    #[test]
    fn an_unknown_gene_is_an_error_that_names_the_nearest() {
        let table = GeneTable::read(TSV.as_bytes(), Layout::Tsv).unwrap();
        for (name, hint) in
            [("BRCA3", Some("BRCA1")), ("brca2", Some("BRCA2")), ("ZZZZZZZZZ", None), ("", None)]
        {
            let error = table.resolve(["SHOX", name]).unwrap_err();
            assert_eq!(error.hint(), hint.map(|hint| format!("did you mean '{hint}'?")), "{name}");
        }
    }

    #[test]
    fn gff_and_gtf_count_from_one() {
        let gff = "##gff-version 3\nchr1\ts\tgene\t11\t20\t.\t+\t.\tID=gene:ENSG1;Name=ABC\n\
                   chr1\ts\texon\t11\t12\t.\t+\t.\tName=EXON\n";
        let gtf = "chr1\ts\tgene\t11\t20\t.\t+\t.\tgene_id \"ENSG1\"; gene_name \"ABC\";\n";
        for (text, name) in [(gff, "a.gff3.gz"), (gtf, "b.gtf")] {
            let table = GeneTable::read(text.as_bytes(), Layout::of_name(name)).unwrap();
            for gene in ["ABC", "ENSG1"] {
                assert_eq!(table.resolve([gene]).unwrap().on("chr1"), [(10, 20)]);
            }
            assert!(table.resolve(["EXON"]).is_err());
        }
        let error = GeneTable::read("A\tchr1\t1\t2\nB\tchr1\tx\t2\n".as_bytes(), Layout::Tsv);
        assert_eq!(error.unwrap_err().to_string(), "line 2: start and end are not numbers");
    }
}
