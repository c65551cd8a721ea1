//! The alignments as CRAM 3 (CRAM format specification, version 3.1), against the index's
//! reference.
//!
//! The records are the same for any number of threads; the bytes are not, since the library that
//! writes them orders the blocks of a slice by chance. It also writes the read group both as a
//! field and as a tag, so that samtools shows `RG` twice.

use std::io::{self, Write};
use std::sync::Arc;

use noodles::fasta::repository::Adapter;
use noodles::fasta::{self, record::Definition};
use noodles::sam::alignment::io::Write as _;
use noodles::{bam, cram, sam};

use super::Native;
use super::index::Index;
use super::place::NOWHERE;
use crate::engine::CallRequest;
use crate::genome::reference::BASE_LETTERS;

/// Writes one CRAM.
pub struct CramWriter<W: Write> {
    inner: cram::io::Writer<W>,
    header: sam::Header,
    contigs: fasta::Repository,
    contig: u32,
}

/// The reference of an index as the writer wants it, a contig at a time.
struct Contigs {
    index: Arc<Index>,
    names: Vec<String>,
}

impl Adapter for Contigs {
    fn get(&mut self, name: &[u8]) -> Option<io::Result<fasta::Record>> {
        let number = self.names.iter().position(|known| known.as_bytes() == name)?;
        let genome = self.index.genome();
        let mut codes = Vec::with_capacity(genome.length(number) as usize);
        genome.unpack(genome.starts()[number], genome.length(number) as usize, &mut codes);
        for code in &mut codes {
            *code = BASE_LETTERS[usize::from(*code).min(4)];
        }
        Some(Ok(fasta::Record::new(Definition::new(name, None), codes.into())))
    }
}

impl<W: Write> CramWriter<W> {
    /// Writes the header, given as that of a BAM. Errors: the output's.
    pub fn new(
        engine: &Native,
        request: &CallRequest<'_>,
        header: &[u8],
        out: W,
    ) -> io::Result<Self> {
        let names = request.reference.contigs.iter().map(|contig| contig.name.clone()).collect();
        let contigs = fasta::Repository::new(Contigs { index: engine.index.clone(), names });
        let header = bam::io::Reader::from(header).read_header()?;
        let mut inner = cram::io::writer::Builder::default()
            .set_reference_sequence_repository(contigs.clone())
            .build_from_writer(out);
        inner.write_header(&header)?;
        contigs.clear();
        Ok(Self { inner, header, contigs, contig: NOWHERE })
    }

    /// Writes the records of one bin, encoded as those of a BAM. Errors: the output's.
    pub fn add(&mut self, records: &[u8]) -> io::Result<()> {
        let first = records
            .get(4..8)
            .map_or(NOWHERE, |bytes| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]));
        if first != self.contig {
            // Records of the contig before may wait still; it is then unpacked once more.
            self.contigs.clear();
            self.contig = first;
        }
        let mut reader = bam::io::Reader::from(records);
        let mut record = bam::Record::default();
        while reader.read_record(&mut record)? > 0 {
            self.inner.write_alignment_record(&self.header, &record)?;
        }
        Ok(())
    }

    /// Writes what is left. Errors: the output's.
    pub fn finish(mut self) -> io::Result<()> {
        self.inner.try_finish(&self.header)?;
        self.inner.get_mut().flush()
    }
}
