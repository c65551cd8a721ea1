//! From places to aligned reads: flags, clips and mate fields as SAM has them.
//!
//! Where the two mates of a proper pair read through their template and agree on it base by base,
//! what lies beyond its ends is adapter, no part of the sample: it is cut off, as a trimmer would
//! have done before mapping. Where they do not agree it is only clipped.

use super::aligned::AlignedRead;
use super::extend::{Hit, SOFT_CLIP, span, trim};
use super::map::{CODES, Placed};
use super::packed::PackedGenome;
use crate::genome::{Layout, ReadBatch};

/// SAM flag: the template has two reads.
pub const PAIRED: u16 = 0x1;
/// SAM flag: the mates lie as expected.
pub const PROPER: u16 = 0x2;
/// SAM flag: this read has no place.
pub const UNMAPPED: u16 = 0x4;
/// SAM flag: the mate has no place.
pub const MATE_UNMAPPED: u16 = 0x8;
/// SAM flag: the bases are the reverse complement of those sequenced.
pub const REVERSE: u16 = 0x10;
/// SAM flag: the same of the mate.
pub const MATE_REVERSE: u16 = 0x20;
/// SAM flag: first read of its template.
pub const FIRST: u16 = 0x40;
/// SAM flag: last read of its template.
pub const LAST: u16 = 0x80;
/// SAM flag: a copy of another template.
pub const DUPLICATE: u16 = 0x400;

/// Contig and position of what has none.
pub const NOWHERE: u32 = u32::MAX;

/// Largest base quality that is kept; higher ones count as this.
pub const QUALITY_MAX: u8 = 62;

/// A read's alignment on its contig.
struct Laid {
    contig: u32,
    position: u32,
    cigar: Vec<u32>,
    reverse: bool,
    quality: u8,
}

impl Laid {
    /// Takes `count` clipped bases off the end that was sequenced last; whether that was done.
    fn cut(&mut self, count: u32) -> bool {
        let op = if self.reverse { self.cigar.first_mut() } else { self.cigar.last_mut() };
        let Some(op) = op.filter(|op| count > 0 && **op & 15 == SOFT_CLIP && **op >> 4 >= count)
        else {
            return false;
        };
        *op -= count << 4;
        self.cigar.retain(|op| op >> 4 > 0);
        true
    }
}

/// Turns the places of a template into its aligned reads, first read first.
pub fn aligned(
    genome: &PackedGenome,
    batch: &ReadBatch,
    template: usize,
    placed: &Placed,
    mut take: impl FnMut(usize, AlignedRead),
) {
    let per_template = if batch.layout == Layout::Paired { 2 } else { 1 };
    let first = template * per_template;
    let count = per_template.min(batch.len() - first);
    let mut laid = [0, 1].map(|mate| {
        let place = placed.reads[mate].as_ref()?;
        let limits = ends_of_template(placed, mate);
        let length = batch.bases(first + mate).len() as u32;
        lay(genome, &place.hit, length, limits, place.quality)
    });
    let cut = if count == 2 { adapters(batch, first, placed) } else { [0; 2] };
    for mate in 0..count {
        let whole = laid[mate].as_mut().is_none_or(|laid| !laid.cut(cut[mate]));
        let paired = count == 2;
        let other = laid[1 - mate].as_ref().filter(|_| paired);
        let own = laid[mate].as_ref();
        let mut read = unplaced(batch, template, first + mate);
        if !whole {
            read.bases.truncate(read.bases.len() - cut[mate] as usize);
            read.qualities.truncate(read.bases.len());
        }
        set_flags(&mut read, own, other, paired.then_some(mate), placed.proper);
        set_place(&mut read, own, other, mate);
        if own.is_some_and(|laid| laid.reverse) {
            reverse_complement(&mut read);
        }
        take(first + mate, read);
    }
}

/// Where a proper pair's template begins and ends: bases beyond are not of the sample.
fn ends_of_template(placed: &Placed, mate: usize) -> (u32, u32) {
    let (Some(own), Some(other)) = (&placed.reads[mate], &placed.reads[1 - mate]) else {
        return (0, u32::MAX);
    };
    match (placed.proper, own.hit.reverse) {
        (false, _) => (0, u32::MAX),
        (true, false) => (0, other.hit.end),
        (true, true) => (other.hit.start, u32::MAX),
    }
}

/// Bases that the two mates of a proper pair agree on at least; of a hundred at most so many differ.
const AGREED_BASES_MIN: usize = 20;
const DIFFERENT_PERCENT_MAX: usize = 10;

/// Adapter bases at the end of each mate; none where the mates do not bear each other out.
fn adapters(batch: &ReadBatch, first: usize, placed: &Placed) -> [u32; 2] {
    let [Some(one), Some(two)] = &placed.reads else { return [0; 2] };
    let beyond = |own: &Hit, other: &Hit| match own.reverse {
        false => own.end.saturating_sub(other.end),
        true => other.start.saturating_sub(own.start),
    };
    let cut = [beyond(&one.hit, &two.hit), beyond(&two.hit, &one.hit)];
    if !placed.proper || cut == [0; 2] {
        return [0; 2];
    }
    let reads = [batch.bases(first), batch.bases(first + 1)];
    let inside = [0, 1].map(|mate| reads[mate].len().saturating_sub(cut[mate] as usize));
    // A mate that is not cut ends within the template or where it ends.
    let length = match cut {
        [0, _] => inside[1],
        [_, 0] => inside[0],
        _ if inside[0] == inside[1] => inside[0],
        _ => return [0; 2],
    };
    let known = |mate: usize, at: usize| {
        reads[mate].get(at).map_or(4, |&letter| CODES[usize::from(letter)])
    };
    let both = length.saturating_sub(reads[1].len())..length.min(reads[0].len());
    let pairs = both.clone().map(|at| (known(0, at), known(1, length - 1 - at)));
    let different = pairs.filter(|(a, b)| a + b != 3).count();
    let agreed =
        both.len() >= AGREED_BASES_MIN && different * 100 <= both.len() * DIFFERENT_PERCENT_MAX;
    if agreed { cut } else { [0; 2] }
}

fn lay(
    genome: &PackedGenome,
    hit: &Hit,
    length: u32,
    limits: (u32, u32),
    quality: u8,
) -> Option<Laid> {
    let cigar = hit.cigar(length);
    // The middle lies on the contig even when an end reaches beyond it.
    let contig = genome.contig_of(hit.position().saturating_add(span(&cigar) / 2));
    let start = *genome.starts().get(contig)?;
    let (low, high) = (start.max(limits.0), (start + genome.length(contig)).min(limits.1));
    let (position, cigar) = trim(hit.position(), &cigar, low, high)?;
    let position = position - start;
    Some(Laid { contig: contig as u32, position, cigar, reverse: hit.reverse, quality })
}

fn unplaced(batch: &ReadBatch, template: usize, read: usize) -> AlignedRead {
    let bases: Vec<u8> =
        batch.bases(read).iter().map(|&letter| CODES[usize::from(letter)]).collect();
    let quality = |&letter: &u8| letter.saturating_sub(b'!').min(QUALITY_MAX);
    let mut qualities: Vec<u8> = batch.qualities(read).iter().map(quality).collect();
    qualities.resize(bases.len(), 0);
    AlignedRead {
        template: batch.first_template + template as u64,
        flags: UNMAPPED,
        contig: NOWHERE,
        position: NOWHERE,
        mapping_quality: 0,
        cigar: Vec::new(),
        bases,
        qualities,
        mate_contig: NOWHERE,
        mate_position: NOWHERE,
        template_length: 0,
        read_group: batch.read_group,
    }
}

fn set_flags(
    read: &mut AlignedRead,
    own: Option<&Laid>,
    other: Option<&Laid>,
    mate: Option<usize>,
    proper: bool,
) {
    let when = |condition: bool, flag: u16| if condition { flag } else { 0 };
    read.flags = when(own.is_none(), UNMAPPED) | when(own.is_some_and(|o| o.reverse), REVERSE);
    if let Some(mate) = mate {
        read.flags |= PAIRED
            | [FIRST, LAST][mate]
            | when(other.is_none(), MATE_UNMAPPED)
            | when(other.is_some_and(|other| other.reverse), MATE_REVERSE)
            | when(proper && own.is_some() && other.is_some(), PROPER);
    }
}

fn set_place(read: &mut AlignedRead, own: Option<&Laid>, other: Option<&Laid>, mate: usize) {
    // A read without a place stands beside its mate (SAM specification, section 2).
    if let Some(beside) = own.or(other) {
        (read.contig, read.position) = (beside.contig, beside.position);
    }
    if let Some(beside) = other.or(own.filter(|_| read.flags & PAIRED != 0)) {
        (read.mate_contig, read.mate_position) = (beside.contig, beside.position);
    }
    let Some(own) = own else { return };
    read.mapping_quality = own.quality;
    read.cigar.clone_from(&own.cigar);
    if let Some(other) = other.filter(|other| other.contig == own.contig) {
        let ends = [own, other].map(|laid| laid.position + span(&laid.cigar));
        let length = ends[0].max(ends[1]) - own.position.min(other.position);
        let leftmost = (own.position, mate) < (other.position, 1 - mate);
        read.template_length = if leftmost { length as i32 } else { -(length as i32) };
    }
}

fn reverse_complement(read: &mut AlignedRead) {
    read.bases.reverse();
    for base in &mut read.bases {
        *base = if *base < 4 { 3 - *base } else { 4 };
    }
    read.qualities.reverse();
}
