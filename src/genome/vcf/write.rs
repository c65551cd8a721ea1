//! Records out: one line each, BGZF-compressed, with their tabix index.

use std::io::{self, Write};

use super::{Declaration, Error, VcfHeader};
use crate::genome::bgzf;
use crate::genome::reference::Reference;
use crate::genome::tabix;
use crate::genome::variant::Variant;

/// What was written.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct VcfSummary {
    /// Records.
    pub records: u64,
    /// Bytes of text before compression, the header's too.
    pub text_bytes: u64,
    /// The content of the `.tbi` file.
    pub tabix: Vec<u8>,
}

/// Writes one sample's calls as BGZF and collects their index.
pub struct VcfWriter<W: Write> {
    inner: bgzf::Writer<W>,
    header: VcfHeader,
    index: tabix::Builder,
    line: Vec<u8>,
    last: (u32, u32),
    records: u64,
    text_bytes: u64,
}

impl<W: Write> VcfWriter<W> {
    /// Writes the header. `level` is that of [`bgzf::Writer`].
    pub fn new(inner: W, header: VcfHeader, level: u8) -> Result<Self, Error> {
        let text = header.text()?;
        let mut inner = bgzf::Writer::new(inner, level);
        inner.write_all(text.as_bytes()).map_err(Error::Write)?;
        inner.end_block().map_err(Error::Write)?;
        Ok(Self {
            inner,
            header,
            index: tabix::Builder::default(),
            line: Vec::new(),
            last: (0, 0),
            records: 0,
            text_bytes: text.len() as u64,
        })
    }

    /// Writes one record; records come in the order of contig and position.
    pub fn write(&mut self, variant: &Variant, reference: &Reference) -> Result<(), Error> {
        self.check_declared(variant)?;
        let end = variant.position + variant.reference.len() as u32;
        let place = (variant.contig, variant.position);
        self.write_record(place, end, reference, |line, name| write_line(line, name, variant))
    }

    /// Writes the line that `fill` makes for a record at `place` that ends before `end`.
    pub(super) fn write_record(
        &mut self,
        place: (u32, u32),
        end: u32,
        reference: &Reference,
        fill: impl FnOnce(&mut Vec<u8>, &str) -> io::Result<()>,
    ) -> Result<(), Error> {
        self.records += 1;
        let record = self.records;
        let contig = reference.contigs.get(place.0 as usize);
        let contig =
            contig.ok_or_else(|| Error::NoSuchContig { record, contig: place.0.to_string() })?;
        if place < self.last {
            let (contig, position) = (contig.name.clone(), u64::from(place.1) + 1);
            return Err(Error::OutOfOrder { record, contig, position });
        }
        self.last = place;
        self.line.clear();
        fill(&mut self.line, &contig.name).map_err(Error::Write)?;
        let from = self.inner.position();
        self.inner.write_all(&self.line).map_err(Error::Write)?;
        self.index.push(&contig.name, (place.1, end), (from, self.inner.position()));
        self.text_bytes += self.line.len() as u64;
        Ok(())
    }

    fn check_declared(&self, variant: &Variant) -> Result<(), Error> {
        let record = self.records + 1;
        let known = |list: &[Declaration], name: &str| list.iter().any(|item| item.id == name);
        let undeclared = |kind, name: &str| Error::Undeclared { record, kind, name: name.into() };
        for name in &variant.filters {
            if !known(&self.header.filters, name) {
                return Err(undeclared("FILTER", name));
            }
        }
        for entry in variant.information.split(';').filter(|entry| !entry.is_empty()) {
            let key = entry.split('=').next().unwrap_or(entry);
            if !known(&self.header.information, key) {
                return Err(undeclared("INFO", key));
            }
        }
        Ok(())
    }

    /// Writes what is left and gives the counts and the index.
    pub fn finish(self) -> Result<VcfSummary, Error> {
        self.inner.finish().map_err(Error::Write)?;
        let (records, text_bytes) = (self.records, self.text_bytes);
        Ok(VcfSummary { records, text_bytes, tabix: self.index.finish() })
    }
}

/// Appends one record's line.
fn write_line(out: &mut Vec<u8>, contig: &str, variant: &Variant) -> io::Result<()> {
    let position = u64::from(variant.position) + 1;
    write!(out, "{contig}\t{position}\t.\t")?;
    out.extend_from_slice(&variant.reference);
    out.push(b'\t');
    write_list(out, &variant.alternates, b',', |out, allele| {
        out.extend_from_slice(allele);
        Ok(())
    })?;
    // Two decimals, without the zeros that say nothing.
    let quality = format!("{:.2}", variant.quality);
    write!(out, "\t{}\t", quality.trim_end_matches('0').trim_end_matches('.'))?;
    match &variant.filters[..] {
        [] => out.extend_from_slice(b"PASS"),
        filters => out.extend_from_slice(filters.join(";").as_bytes()),
    }
    write!(out, "\tDP={}", variant.depth)?;
    if !variant.information.is_empty() {
        write!(out, ";{}", variant.information)?;
    }
    let phased = if variant.phase_set.is_some() { ":PS" } else { "" };
    write!(out, "\tGT:DP:AD:GQ:PL{phased}\t")?;
    write_genotype(out, variant)?;
    write!(out, ":{}:", variant.depth)?;
    let number = |out: &mut Vec<u8>, value: &u32| write!(out, "{value}");
    write_list(out, &variant.allele_depths, b',', number)?;
    write!(out, ":{}:", variant.genotype_quality)?;
    write_list(out, &variant.likelihoods, b',', number)?;
    if let Some(phase_set) = variant.phase_set {
        write!(out, ":{phase_set}")?;
    }
    out.push(b'\n');
    Ok(())
}

fn write_genotype(out: &mut Vec<u8>, variant: &Variant) -> io::Result<()> {
    if variant.genotype.is_empty() {
        return out.write_all(b"./.");
    }
    let separator = if variant.phase_set.is_some() { b'|' } else { b'/' };
    write_list(out, &variant.genotype, separator, |out, allele| write!(out, "{allele}"))
}

/// Writes a list, or `.` if it is empty.
fn write_list<T>(
    out: &mut Vec<u8>,
    items: &[T],
    separator: u8,
    write: impl Fn(&mut Vec<u8>, &T) -> io::Result<()>,
) -> io::Result<()> {
    if items.is_empty() {
        out.push(b'.');
    }
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.push(separator);
        }
        write(out, item)?;
    }
    Ok(())
}
