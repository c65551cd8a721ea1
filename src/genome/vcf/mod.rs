//! VCF 4.3 text: the header, records out as BGZF with their index, and calls in.

mod confidence;
mod read;
mod write;

use std::io;

pub use confidence::{Block, BlockWriter, NON_REFERENCE};
pub use read::read_variants;
pub use write::{VcfSummary, VcfWriter};

use super::reference::Reference;
use super::tabix;
use crate::base::{Fault, Faulty};

/// Why a VCF could not be written or read. Lines count from 1.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The output could not be written.
    #[error("writing VCF")]
    Write(#[source] io::Error),
    /// The input could not be read.
    #[error("reading VCF")]
    Read(#[source] io::Error),
    /// A name that would break the file's columns or lines.
    #[error("{what} '{text}' cannot stand in a VCF header")]
    BadName {
        /// What it is.
        what: &'static str,
        /// The name.
        text: String,
    },
    /// A tabix index reaches 512 Mbp.
    #[error("contig '{contig}' of {bases} bases is too long for a tabix index")]
    ContigTooLong {
        /// The contig.
        contig: String,
        /// Its length.
        bases: u64,
    },
    /// The caller gave records out of coordinate order.
    #[error("record {record} at {contig}:{position} lies before the one written last")]
    OutOfOrder {
        /// Number of the record, from 1.
        record: u64,
        /// Contig.
        contig: String,
        /// Position, from 1.
        position: u64,
    },
    /// A record uses a name that the header does not declare.
    #[error("record {record}: {kind} {name} is not declared in the header")]
    Undeclared {
        /// Number of the record, from 1.
        record: u64,
        /// `FILTER` or `INFO`.
        kind: &'static str,
        /// The name.
        name: String,
    },
    /// The record's contig is not in the reference.
    #[error("record {record}: the reference has no contig {contig}")]
    NoSuchContig {
        /// Number of the record, from 1.
        record: u64,
        /// Contig index or name.
        contig: String,
    },
    /// A line that is not VCF.
    #[error("line {line}: {what}")]
    Malformed {
        /// The line.
        line: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// The file was made from another reference.
    #[error("line {line}: REF at {contig}:{position} is not what the reference holds there")]
    OtherReference {
        /// The line.
        line: u64,
        /// Contig.
        contig: String,
        /// Position, from 1.
        position: u64,
    },
}

impl Faulty for Error {
    fn fault(&self) -> Fault {
        match self {
            Error::Write(_) => Fault::Disk,
            Error::Read(error) => Fault::of_io(error),
            Error::OutOfOrder { .. } | Error::Undeclared { .. } => Fault::Bug,
            _ => Fault::Data,
        }
    }
}

/// A FILTER, INFO or FORMAT line (VCF 4.3, section 1.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Declaration {
    /// `ID`.
    pub id: &'static str,
    /// `Number`; unused for FILTER.
    pub number: &'static str,
    /// `Type`; unused for FILTER.
    pub kind: &'static str,
    /// `Description`, without quotes.
    pub description: &'static str,
}

const fn declare(
    id: &'static str,
    number: &'static str,
    kind: &'static str,
    description: &'static str,
) -> Declaration {
    Declaration { id, number, kind, description }
}

/// Filters that dsgd's engines may set.
pub const FILTERS: &[Declaration] = &[
    declare("PASS", "", "", "All filters passed"),
    declare("LowQual", "", "", "Low quality"),
    declare("LowDepth", "", "", "Few reads inform the site"),
    declare("LowGQ", "", "", "Low genotype quality"),
    declare("LowMQ", "", "", "Low mapping quality of the reads"),
    declare("LowAF", "", "", "Small fraction of reads with the alternate allele"),
    declare("StrandBias", "", "", "Alternate allele on one strand only"),
    declare("HighDepth", "", "", "Far more reads than elsewhere"),
    declare("ReadPosition", "", "", "Alternate allele near the ends of reads only"),
];

/// INFO keys that dsgd's engines may set.
pub const INFORMATION: &[Declaration] = &[
    declare("DP", "1", "Integer", "Reads that inform the site"),
    declare("AC", "A", "Integer", "Alleles called, for each ALT"),
    declare("AF", "A", "Float", "Fraction of the called alleles, for each ALT"),
    declare("AN", "1", "Integer", "Alleles called"),
    declare("MQ", "1", "Float", "Root mean square of the mapping qualities"),
    declare("QD", "1", "Float", "Quality by depth of the reads that carry an alternate"),
    declare("FS", "1", "Float", "Phred-scaled p-value of Fisher's test of strand bias"),
    declare("SOR", "1", "Float", "Symmetric odds ratio of strand bias"),
    declare("SB", "4", "Integer", "REF forward, REF reverse, ALT forward, ALT reverse reads"),
    declare("BaseQRankSum", "1", "Float", "Z score of base qualities, ALT against REF"),
    declare("MQRankSum", "1", "Float", "Z score of mapping qualities, ALT against REF"),
    declare("ReadPosRankSum", "1", "Float", "Z score of positions in the read, ALT against REF"),
];

/// Genotype fields in the order they are written.
pub const FORMATS: &[Declaration] = &[
    declare("GT", "1", "String", "Genotype"),
    declare("DP", "1", "Integer", "Reads that inform the site"),
    declare("AD", "R", "Integer", "Reads for each allele"),
    declare("GQ", "1", "Integer", "Genotype quality"),
    declare("PL", "G", "Integer", "Phred-scaled likelihoods of the genotypes"),
    declare("PS", "1", "Integer", "Phase set"),
];

/// What stands above the records.
#[derive(Clone, Debug)]
pub struct VcfHeader {
    /// Sample name.
    pub sample: String,
    /// Names and lengths of the contigs, in the order of the records.
    pub contigs: Vec<(String, u64)>,
    /// `##key=value` lines, such as `source` and `dsgdCommandLine`, in this order.
    pub lines: Vec<(String, String)>,
    /// Filters that records may name.
    pub filters: Vec<Declaration>,
    /// INFO keys that records may use.
    pub information: Vec<Declaration>,
    /// Whether there are reference blocks.
    pub blocks: bool,
}

impl VcfHeader {
    /// A header with the contigs of `reference` and the declarations of this module.
    pub fn new(sample: impl Into<String>, reference: &Reference) -> Self {
        let contigs = &reference.contigs;
        Self {
            sample: sample.into(),
            contigs: contigs.iter().map(|c| (c.name.clone(), c.bases.len() as u64)).collect(),
            lines: Vec::new(),
            filters: FILTERS.to_vec(),
            information: INFORMATION.to_vec(),
            blocks: false,
        }
    }

    /// Adds the line `##key=value`.
    pub fn with_line(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.lines.push((key.into(), value.into()));
        self
    }

    /// Declares what reference blocks use.
    pub fn with_blocks(mut self) -> Self {
        self.information.push(confidence::BLOCK_INFORMATION);
        self.blocks = true;
        self
    }

    /// The header's text, up to and with the `#CHROM` line.
    pub fn text(&self) -> Result<String, Error> {
        use std::fmt::Write;
        self.check()?;
        let mut text = String::from("##fileformat=VCFv4.3\n");
        // Writing to a string does not fail.
        for (key, value) in &self.lines {
            let _ = writeln!(text, "##{key}={value}");
        }
        for Declaration { id, description, .. } in &self.filters {
            let _ = writeln!(text, "##FILTER=<ID={id},Description=\"{description}\">");
        }
        let mut formats = FORMATS.to_vec();
        if self.blocks {
            text.push_str(confidence::BLOCK_LINES);
            formats.push(confidence::BLOCK_FORMAT);
        }
        for (class, list) in [("INFO", &self.information), ("FORMAT", &formats)] {
            for Declaration { id, number, kind, description } in list {
                let _ = writeln!(
                    text,
                    "##{class}=<ID={id},Number={number},Type={kind},Description=\"{description}\">"
                );
            }
        }
        for (name, bases) in &self.contigs {
            let _ = writeln!(text, "##contig=<ID={name},length={bases}>");
        }
        let columns = "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT";
        let _ = writeln!(text, "{columns}\t{}", self.sample);
        Ok(text)
    }

    fn check(&self) -> Result<(), Error> {
        let refuse =
            |what, text: &str| Err(Error::BadName { what, text: text.chars().take(80).collect() });
        if self.sample.is_empty() || self.sample.contains(char::is_control) {
            return refuse("sample name", &self.sample);
        }
        for (key, value) in &self.lines {
            if key.is_empty() || key.contains(['=', '<']) || key.contains(char::is_whitespace) {
                return refuse("header key", key);
            }
            if value.contains(char::is_control) {
                return refuse("header value", value);
            }
        }
        for (name, bases) in &self.contigs {
            if name.is_empty() || name.contains(|c: char| c.is_whitespace() || "<>,".contains(c)) {
                return refuse("contig name", name);
            }
            if *bases > tabix::CONTIG_BASES_MAX {
                return Err(Error::ContigTooLong { contig: name.clone(), bases: *bases });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::genome::inflate::InflateReader;
    use crate::genome::reference::{BASE_LETTERS, Contig};
    use crate::genome::variant::Variant;

    fn reference() -> Reference {
        let bases = |len: usize| (0..len).map(|at| (at % 4) as u8).collect();
        let contig = |name: &str, len| Contig { name: name.into(), bases: bases(len) };
        Reference { contigs: vec![contig("chr1", 200_000), contig("chr2", 5000)] }
    }

    fn variant(contig: u32, position: u32) -> Variant {
        Variant {
            contig,
            position,
            reference: vec![BASE_LETTERS[position as usize % 4]],
            alternates: vec![b"N".to_vec(), b"GTT".to_vec()],
            quality: 50.25,
            filters: Vec::new(),
            genotype: vec![0, 2],
            phase_set: None,
            depth: 31,
            allele_depths: vec![15, 0, 16],
            genotype_quality: 99,
            likelihoods: vec![500, 0, 400, 10, 20, 30],
            information: "MQ=60.0;FS=0.5".into(),
        }
    }

    fn write(variants: &[Variant]) -> (Vec<u8>, VcfSummary) {
        let reference = reference();
        let header = VcfHeader::new("HG002", &reference).with_line("source", "dsgd");
        let mut file = Vec::new();
        let mut writer = VcfWriter::new(&mut file, header, 6).unwrap();
        variants.iter().for_each(|variant| writer.write(variant, &reference).unwrap());
        let summary = writer.finish().unwrap();
        (file, summary)
    }

    #[test]
    fn what_is_written_is_read_back() {
        let mut variants: Vec<Variant> = (0..5000).map(|at| variant(0, at * 40)).collect();
        variants[1] = Variant {
            filters: vec!["LowQual", "StrandBias"],
            phase_set: Some(41),
            quality: 7.0,
            ..variants[1].clone()
        };
        variants[2] = Variant {
            genotype: vec![],
            alternates: vec![],
            allele_depths: vec![],
            likelihoods: vec![],
            information: String::new(),
            ..variants[2].clone()
        };
        variants.push(variant(1, 10));
        let (file, summary) = write(&variants);
        assert_eq!(read_variants(&file[..], &reference()).unwrap(), variants);
        let mut text = String::new();
        InflateReader::new(&file[..], "x").read_to_string(&mut text).unwrap();
        assert_eq!((summary.records, summary.text_bytes), (5001, text.len() as u64));
        let line = text.lines().find(|line| line.starts_with("chr1\t41\t")).unwrap();
        let end =
            "DP=31;MQ=60.0;FS=0.5\tGT:DP:AD:GQ:PL:PS\t0|2:31:15,0,16:99:500,0,400,10,20,30:41";
        assert_eq!(line, format!("chr1\t41\t.\tA\tN,GTT\t7\tLowQual;StrandBias\t{end}"));
        assert!(text.contains("\t./.:31:.:99:.\n"));
    }

    #[test]
    fn the_index_leads_to_the_records() {
        use noodles::vcf;
        let variants: Vec<Variant> = (0..5000).map(|at| variant(0, at * 40)).collect();
        let (file, summary) = write(&variants);
        let index = noodles::tabix::io::Reader::new(&summary.tabix[..]).read_index().unwrap();
        let mut reader = vcf::io::IndexedReader::new(io::Cursor::new(file), index);
        let header = reader.read_header().unwrap();
        for (region, count) in
            [("chr1:100001-104000", 100), ("chr1:1-1", 1), ("chr1:199999-200000", 0)]
        {
            let found = reader.query(&header, &region.parse().unwrap()).unwrap();
            assert_eq!(found.records().count(), count, "{region}");
        }
    }

    #[test]
    fn mistakes_of_the_caller_are_errors() {
        let reference = reference();
        let header = VcfHeader::new("HG002", &reference);
        let mut writer = VcfWriter::new(Vec::new(), header.clone(), 1).unwrap();
        writer.write(&variant(1, 10), &reference).unwrap();
        let earlier = writer.write(&variant(0, 10), &reference);
        assert!(matches!(earlier, Err(Error::OutOfOrder { record: 2, .. })));
        let strange = Variant { information: "XX=1".into(), ..variant(1, 20) };
        assert!(matches!(writer.write(&strange, &reference), Err(Error::Undeclared { .. })));
        assert!(writer.write(&variant(9, 20), &reference).is_err());
        for sample in ["", "a\tb", "a\nb"] {
            let header = VcfHeader { sample: sample.into(), ..header.clone() };
            assert!(VcfWriter::new(Vec::new(), header, 1).is_err());
        }
        let header = header.with_line("source", "x\n##fake=1");
        assert!(VcfWriter::new(Vec::new(), header, 1).is_err());
    }

    #[test]
    fn wrong_input_is_refused_with_its_line() {
        let head = "##fileformat=VCFv4.2\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n";
        let cases = [
            ("chr1\t5\t.\tA\n", "line 3: fewer than 8 columns"),
            ("chr1\t0\t.\tA\tC\t.\t.\t.\n", "line 3: POS is not a number from 1"),
            ("chr1\t1\t.\tA\tC\tx\t.\t.\n", "line 3: QUAL is not a number"),
            (
                "chr1\t1\t.\tC\tA\t.\t.\t.\n",
                "line 3: REF at chr1:1 is not what the reference holds there",
            ),
            ("chr9\t1\t.\tC\tA\t.\t.\t.\n", "record 3: the reference has no contig chr9"),
            (
                "chr1\t1\t.\tA\tC\t.\t.\t.\tGT\t0/2\n",
                "line 3: GT names an allele that is not there",
            ),
        ];
        for (line, message) in cases {
            let error = read_variants(format!("{head}{line}").as_bytes(), &reference());
            assert_eq!(error.unwrap_err().to_string(), message);
        }
        assert!(read_variants(&b""[..], &reference()).is_err());
        assert_eq!(read_variants(head.as_bytes(), &reference()).unwrap(), []);
    }
}
