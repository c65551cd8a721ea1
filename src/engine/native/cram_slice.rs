//! Reads as the data series of CRAM slices (CRAM format specification 3.1, sections 8.4 to 10).
//!
//! Every series stands in an external block of its own. Mates are written each for itself
//! ("detached"), names and qualities are kept, the read group is a field, and `MD` and `NM` are left
//! to the reader, who finds them by the reference. Where the reference has no A, C, G or T the
//! read's base is written out, and the slice carries no digest of its stretch of the reference: the
//! file may have a IUPAC code where the engine knows only that the base is unknown.

use md5::{Digest, Md5};

use super::aligned::AlignedRead;
use super::cram_block::{BlockWriter, Content, itf8, raw_block};
use super::extend::{DELETION, INSERTION, MATCH, SOFT_CLIP, span};
use super::place::{MATE_REVERSE, MATE_UNMAPPED, PAIRED, UNMAPPED};
use crate::genome::Reference;
use crate::genome::reference::BASE_LETTERS;

/// Most records of a slice.
const RECORDS_MAX: usize = 10_000;

/// How the values of a series stand in its block.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Numbers or bytes, one after the other.
    Plain,
    /// Texts, each with a zero behind it.
    Text,
}

/// A data series; its number is that of its block.
#[derive(Clone, Copy)]
enum Series {
    Flags = 1,
    CramFlags,
    Length,
    Position,
    ReadGroup,
    Name,
    MateFlags,
    MateContig,
    MatePosition,
    TemplateLength,
    TagLine,
    Features,
    FeatureCode,
    FeaturePosition,
    Substitution,
    Insertion,
    SoftClip,
    Deletion,
    Quality,
    Base,
    BaseQuality,
}

/// Keys of the series in the order of their numbers.
const KEYS: [(&[u8; 2], Kind); 21] = [
    (b"BF", Kind::Plain),
    (b"CF", Kind::Plain),
    (b"RL", Kind::Plain),
    (b"AP", Kind::Plain),
    (b"RG", Kind::Plain),
    (b"RN", Kind::Text),
    (b"MF", Kind::Plain),
    (b"NS", Kind::Plain),
    (b"NP", Kind::Plain),
    (b"TS", Kind::Plain),
    (b"TL", Kind::Plain),
    (b"FN", Kind::Plain),
    (b"FC", Kind::Plain),
    (b"FP", Kind::Plain),
    (b"BS", Kind::Plain),
    (b"IN", Kind::Text),
    (b"SC", Kind::Text),
    (b"DL", Kind::Plain),
    (b"MQ", Kind::Plain),
    (b"BA", Kind::Plain),
    (b"QS", Kind::Plain),
];

/// Qualities stand as an array.
const QUALITIES_KEPT: i32 = 1;
/// The mate is told by itself.
const DETACHED: i32 = 2;

const EXTERNAL: i32 = 1;
const BYTE_ARRAY_STOP: i32 = 5;

/// The records of a slice, encoded; only where they stand in the file is open.
#[derive(Debug, Default)]
pub struct Slice {
    /// Index of the contig; -1 for reads that lie nowhere.
    pub contig: i32,
    /// First base, counted from 1; 0 without a contig.
    pub start: i32,
    /// Bases from the first to the last one.
    pub span: i32,
    /// Records.
    pub records: u32,
    /// Bases of all records.
    pub bases: u64,
    /// MD5 of the reference below; zeros where it has unknown bases.
    pub digest: [u8; 16],
    /// The block that tells the encodings.
    pub header: Vec<u8>,
    /// Numbers of the external blocks.
    pub ids: Vec<i32>,
    /// The core block and the external blocks.
    pub blocks: Vec<u8>,
}

/// Encodes reads into slices.
pub struct SliceWriter<'a> {
    reference: &'a Reference,
    /// Number of read groups of the file.
    groups: usize,
    blocks: BlockWriter,
}

impl<'a> SliceWriter<'a> {
    /// A writer for reads of `groups` read groups on a reference.
    pub fn new(reference: &'a Reference, groups: usize) -> Self {
        Self { reference, groups, blocks: BlockWriter::default() }
    }

    /// The slices of the reads of one contig, or of reads that lie nowhere, in order.
    pub fn slices(&mut self, reads: &[(AlignedRead, Vec<u8>)]) -> Vec<Slice> {
        reads.chunks(RECORDS_MAX).map(|reads| self.slice(reads)).collect()
    }

    fn slice(&mut self, reads: &[(AlignedRead, Vec<u8>)]) -> Slice {
        let first = &reads[0].0;
        let contig = self.reference.contigs.get(first.contig as usize);
        let bases = contig.map_or(&[][..], |contig| &contig.bases);
        let end =
            |(read, _): &(AlignedRead, _)| read.position.wrapping_add(span(&read.cigar).max(1));
        let end = reads.iter().map(end).max().unwrap_or(0);
        let mut slice = Slice { contig: -1, records: reads.len() as u32, ..Slice::default() };
        if contig.is_some() {
            slice.contig = first.contig as i32;
            slice.start = first.position as i32 + 1;
            slice.span = (end - first.position) as i32;
            slice.digest = digest(&bases[first.position as usize..(end as usize).min(bases.len())]);
        }
        let mut columns = Columns::default();
        let mut before = first.position;
        for (read, name) in reads {
            slice.bases += read.bases.len() as u64;
            let group = if usize::from(read.read_group) < self.groups {
                read.read_group.into()
            } else {
                -1
            };
            columns.add(read, name, group, read.position.wrapping_sub(before), bases);
            before = read.position;
        }
        self.finish(&columns, &mut slice);
        slice
    }

    fn finish(&mut self, columns: &Columns, slice: &mut Slice) {
        let used = || (1..).zip(&columns.0).filter(|(_, column)| !column.is_empty());
        let ids: Vec<i32> = used().map(|(id, _)| id).collect();
        raw_block(Content::Core, 0, &[], &mut slice.blocks);
        for (id, column) in used() {
            self.blocks.add(Content::External, id, column, &mut slice.blocks);
        }
        self.blocks.add(Content::CompressionHeader, 0, &encodings(&ids), &mut slice.header);
        slice.ids = ids;
    }
}

/// MD5 of a stretch of the reference.
fn digest(codes: &[u8]) -> [u8; 16] {
    if codes.iter().any(|&code| code > 3) {
        return [0; 16];
    }
    let letters: Vec<u8> = codes.iter().map(|&code| letter(code)).collect();
    Md5::digest(&letters).into()
}

fn letter(code: u8) -> u8 {
    BASE_LETTERS[usize::from(code).min(4)]
}

/// The content of the compression header when these series are there.
fn encodings(ids: &[i32]) -> Vec<u8> {
    let mut out = Vec::new();
    // Names are kept, positions are differences, the reference is needed; the codes of
    // substitutions are in alphabetical order; one line of tags, which is empty.
    let kept = b"\x05RN\x01AP\x01RR\x01SM\x1b\x1b\x1b\x1b\x1bTD\x01\x00";
    itf8(kept.len() as i32, &mut out);
    out.extend(kept);
    let mut series = Vec::new();
    itf8(ids.len() as i32, &mut series);
    for &id in ids {
        let (key, kind) = KEYS[id as usize - 1];
        let (codec, text) =
            if kind == Kind::Text { (BYTE_ARRAY_STOP, true) } else { (EXTERNAL, false) };
        let mut parameters = if text { vec![0] } else { Vec::new() };
        itf8(id, &mut parameters);
        series.extend(key);
        itf8(codec, &mut series);
        itf8(parameters.len() as i32, &mut series);
        series.extend(parameters);
    }
    itf8(series.len() as i32, &mut out);
    out.extend(series);
    // No tags.
    out.extend([1, 0]);
    out
}

/// The values of each series.
#[derive(Default)]
struct Columns([Vec<u8>; KEYS.len()]);

impl Columns {
    fn of(&mut self, series: Series) -> &mut Vec<u8> {
        &mut self.0[series as usize - 1]
    }

    fn number(&mut self, series: Series, number: i32) {
        itf8(number, self.of(series));
    }

    fn add(&mut self, read: &AlignedRead, name: &[u8], group: i32, step: u32, contig: &[u8]) {
        let paired = read.flags & PAIRED != 0;
        self.number(Series::Flags, i32::from(read.flags));
        let detached = if paired { DETACHED } else { 0 };
        self.number(Series::CramFlags, QUALITIES_KEPT | detached);
        self.number(Series::Length, read.bases.len() as i32);
        self.number(Series::Position, step as i32);
        self.number(Series::ReadGroup, group);
        let name = if name.is_empty() { b"*" } else { name };
        self.of(Series::Name).extend_from_slice(name);
        self.of(Series::Name).push(0);
        if paired {
            let mate = |flag: u16, bit: i32| if read.flags & flag != 0 { bit } else { 0 };
            self.number(Series::MateFlags, mate(MATE_REVERSE, 1) | mate(MATE_UNMAPPED, 2));
            self.number(Series::MateContig, read.mate_contig as i32);
            self.number(Series::MatePosition, read.mate_position.wrapping_add(1) as i32);
            self.number(Series::TemplateLength, read.template_length);
        }
        self.number(Series::TagLine, 0);
        if read.flags & UNMAPPED != 0 {
            self.of(Series::Base).extend(read.bases.iter().map(|&base| letter(base)));
        } else {
            self.add_features(read, contig);
            self.number(Series::Quality, i32::from(read.mapping_quality));
        }
        self.of(Series::BaseQuality).extend_from_slice(&read.qualities);
    }

    fn add_features(&mut self, read: &AlignedRead, contig: &[u8]) {
        let (mut query, mut at) = (0, read.position as usize);
        let (mut count, mut before) = (0, 0);
        let mut feature = |columns: &mut Self, code: u8, query: usize| {
            count += 1;
            columns.of(Series::FeatureCode).push(code);
            columns.number(Series::FeaturePosition, (query + 1 - before) as i32);
            before = query + 1;
        };
        for &op in &read.cigar {
            let (length, code) = ((op >> 4) as usize, op & 15);
            match code {
                MATCH => {
                    for (step, &known) in contig[at..at + length].iter().enumerate() {
                        let base = read.bases[query + step];
                        if known > 3 {
                            feature(self, b'B', query + step);
                            self.of(Series::Base).push(letter(base));
                            self.of(Series::BaseQuality).push(read.qualities[query + step]);
                        } else if base != known {
                            feature(self, b'X', query + step);
                            let number = if base < known { base } else { base - 1 };
                            self.of(Series::Substitution).push(number);
                        }
                    }
                    at += length;
                }
                DELETION => {
                    feature(self, b'D', query);
                    self.number(Series::Deletion, length as i32);
                    at += length;
                }
                INSERTION | SOFT_CLIP => {
                    let insertion = code == INSERTION;
                    feature(self, if insertion { b'I' } else { b'S' }, query);
                    let series = if insertion { Series::Insertion } else { Series::SoftClip };
                    let bases = &read.bases[query..query + length];
                    self.of(series).extend(bases.iter().map(|&base| letter(base)));
                    self.of(series).push(0);
                }
                _ => {}
            }
            query += if code == DELETION { 0 } else { length };
        }
        self.number(Series::Features, count);
    }
}
