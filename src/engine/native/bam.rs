//! Records and header of BAM (SAM specification, section 4.2), before compression.

use md5::{Digest, Md5};

use super::aligned::AlignedRead;
use super::extend::span;
use super::index_build::in_parallel;
use super::mismatch::describe;
use super::packed::is_alternate;
use super::place::{NOWHERE, UNMAPPED};
use crate::engine::CallRequest;
use crate::genome::Reference;
use crate::genome::reference::{BASE_LETTERS, Contig};

/// Turns reads into BAM records.
pub struct Encoder<'a> {
    reference: &'a Reference,
    /// The `RG` tag of each read group.
    tags: Vec<Vec<u8>>,
}

impl<'a> Encoder<'a> {
    /// An encoder for the reads of a request.
    pub fn new(request: &CallRequest<'a>) -> Self {
        let tag = |id: &String| [b"RGZ", id.as_bytes(), b"\0"].concat();
        let tags = request.read_groups.iter().map(|group| tag(&group.id)).collect();
        Self { reference: request.reference, tags }
    }

    /// Appends one read with its length before it.
    pub fn add(&self, read: &AlignedRead, name: &[u8], record: &mut Vec<u8>) {
        let before = record.len();
        record.extend([0; 4]);
        let name = if name.is_empty() { b"*" } else { name };
        let end = read.position.saturating_add(span(&read.cigar).max(1));
        let bin = if read.contig == NOWHERE { 4680 } else { bin_of(read.position, end) };
        record.extend(place(read.contig));
        record.extend(place(read.position));
        record.extend([name.len() as u8 + 1, read.mapping_quality]);
        record.extend(bin.to_le_bytes());
        record.extend((read.cigar.len() as u16).to_le_bytes());
        record.extend(read.flags.to_le_bytes());
        record.extend((read.bases.len() as u32).to_le_bytes());
        record.extend(place(read.mate_contig));
        record.extend(place(read.mate_position));
        record.extend(read.template_length.to_le_bytes());
        record.extend_from_slice(name);
        record.push(0);
        record.extend(read.cigar.iter().flat_map(|op| op.to_le_bytes()));
        let nibble = |base: &u8| [1u8, 2, 4, 8, 15][usize::from(*base).min(4)];
        record.extend(
            read.bases.chunks(2).map(|two| nibble(&two[0]) << 4 | two.get(1).map_or(0, nibble)),
        );
        record.extend_from_slice(&read.qualities);
        self.add_tags(read, record);
        let bytes = (record.len() - before - 4) as u32;
        record[before..before + 4].copy_from_slice(&bytes.to_le_bytes());
    }

    /// `MD`, `NM` and `RG`, in the order in which readers of CRAM give them.
    fn add_tags(&self, read: &AlignedRead, record: &mut Vec<u8>) {
        let contig = self.reference.contigs.get(read.contig as usize);
        if let Some(contig) = contig.filter(|_| read.flags & UNMAPPED == 0) {
            record.extend(b"MDZ");
            let distance = describe(read, &contig.bases, record);
            record.extend(b"\0NMI");
            record.extend(distance.to_le_bytes());
        }
        if let Some(tag) = self.tags.get(usize::from(read.read_group)) {
            record.extend_from_slice(tag);
        }
    }
}

/// Header of a BAM, before compression.
pub fn header(request: &CallRequest<'_>, version: &str) -> Vec<u8> {
    header_bytes(request.reference, &header_text(request, version, &[]))
}

fn place(number: u32) -> [u8; 4] {
    // Both "nowhere" and the format's -1 have all bits set.
    number.to_le_bytes()
}

fn header_bytes(reference: &Reference, text: &str) -> Vec<u8> {
    let mut out = b"BAM\x01".to_vec();
    out.extend((text.len() as u32).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
    out.extend((reference.contigs.len() as u32).to_le_bytes());
    for contig in &reference.contigs {
        out.extend((contig.name.len() as u32 + 1).to_le_bytes());
        out.extend_from_slice(contig.name.as_bytes());
        out.push(0);
        out.extend((contig.bases.len() as u32).to_le_bytes());
    }
    out
}

/// MD5 of each contig's bases as letters, for `M5` of the header, which CRAM wants. Where the FASTA
/// file has a IUPAC code the engine knows an N.
pub fn contig_digests(reference: &Reference, threads: usize) -> Vec<String> {
    let mut digests = vec![String::new(); reference.contigs.len()];
    let jobs = reference.contigs.iter().zip(&mut digests).collect();
    in_parallel(threads, jobs, |(contig, digest): (&Contig, &mut String)| {
        let mut hasher = Md5::new();
        for codes in contig.bases.chunks(1 << 16) {
            let letter = |&code: &u8| BASE_LETTERS[usize::from(code).min(4)];
            hasher.update(codes.iter().map(letter).collect::<Vec<u8>>());
        }
        *digest = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    });
    digests
}

/// The text of a header; `digests` of the contigs, where they are wanted.
pub fn header_text(request: &CallRequest<'_>, version: &str, digests: &[String]) -> String {
    use std::fmt::Write;
    let mut text = String::from("@HD\tVN:1.6\tSO:coordinate\n");
    // Writing to a String cannot fail.
    for (number, contig) in request.reference.contigs.iter().enumerate() {
        let _ = write!(text, "@SQ\tSN:{}\tLN:{}", contig.name, contig.bases.len());
        if is_alternate(&contig.name) {
            text.push_str("\tAH:*");
        }
        if let Some(digest) = digests.get(number) {
            let _ = write!(text, "\tM5:{digest}");
        }
        text.push('\n');
    }
    for group in &request.read_groups {
        let _ = write!(text, "@RG\tID:{}", group.id);
        let fields = [
            ("SM", &group.sample),
            ("LB", &group.library),
            ("PU", &group.unit),
            ("PL", &group.platform),
        ];
        for (key, value) in fields.into_iter().filter(|(_, value)| !value.is_empty()) {
            let _ = write!(text, "\t{key}:{value}");
        }
        text.push('\n');
    }
    let command = request.command_line.replace(['\t', '\n'], " ");
    let _ = writeln!(text, "@PG\tID:dsgd\tPN:dsgd\tVN:{version}\tCL:{command}");
    text
}

/// The bin of `[start, end)` in the UCSC scheme (SAM specification, section 5.3).
fn bin_of(start: u32, end: u32) -> u16 {
    let last = end.saturating_sub(1);
    for (shift, offset) in [(14, 4681), (17, 585), (20, 73), (23, 9), (26, 1)] {
        if start >> shift == last >> shift {
            return (offset + (start >> shift)) as u16;
        }
    }
    0
}
