//! Aligned reads packed into bytes, one after the other, until their bin is called.
//!
//! Layout, integers little-endian: template (8), contig, position, mate contig, mate position,
//! template length, bases (4 each), flags, read group, CIGAR operations (2 each), MAPQ, name bytes
//! (1 each), then the CIGAR, the bases with their qualities, and the name.
//!
//! Bases take one byte each (quality << 2 | code; 252 for an unknown base), or half a byte where
//! none is unknown and there are at most four qualities, which then stand before them. A read of
//! 150 bases takes about 120 bytes, or 195.

use super::aligned::AlignedRead;
use super::extend::{DELETION, MATCH};
use super::place::QUALITY_MAX;

const HEAD_BYTES: usize = 40;

/// An unknown base.
const UNKNOWN: u8 = (QUALITY_MAX + 1) << 2;

/// Quality of an unknown base.
const UNKNOWN_QUALITY: u8 = 2;

/// Appends a read, with its name when there is one (at most 254 bytes of it).
pub fn pack(read: &AlignedRead, name: &[u8], out: &mut Vec<u8>) {
    let name = &name[..name.len().min(254)];
    out.extend(read.template.to_le_bytes());
    for number in [read.contig, read.position, read.mate_contig, read.mate_position] {
        out.extend(number.to_le_bytes());
    }
    out.extend(read.template_length.to_le_bytes());
    out.extend((read.bases.len() as u32).to_le_bytes());
    out.extend(read.flags.to_le_bytes());
    out.extend(read.read_group.to_le_bytes());
    out.extend((read.cigar.len() as u16).to_le_bytes());
    out.extend([read.mapping_quality, name.len() as u8]);
    for op in &read.cigar {
        out.extend(op.to_le_bytes());
    }
    match palette(read) {
        Some(palette) => pack_halves(read, palette, out),
        None => {
            out.push(WHOLE);
            out.extend(read.bases.iter().zip(&read.qualities).map(|(&base, &quality)| {
                if base > 3 { UNKNOWN } else { quality.min(QUALITY_MAX) << 2 | base }
            }));
        }
    }
    out.extend_from_slice(name);
}

/// The qualities of a read of which half a byte a base says all.
fn palette(read: &AlignedRead) -> Option<[u8; 4]> {
    let mut seen = 0u64;
    for &quality in &read.qualities {
        seen |= 1 << quality.min(QUALITY_MAX);
    }
    if seen.count_ones() > 4 || read.bases.iter().any(|&base| base > 3) {
        return None;
    }
    let mut palette = [0; 4];
    for place in &mut palette {
        *place = seen.trailing_zeros() as u8 % 64;
        seen &= seen.wrapping_sub(1);
    }
    Some(palette)
}

fn pack_halves(read: &AlignedRead, palette: [u8; 4], out: &mut Vec<u8>) {
    out.push(HALVES);
    out.extend(palette);
    let mut places = [0u8; 64];
    for (place, quality) in (0..).zip(palette) {
        places[usize::from(quality)] = place << 2;
    }
    let half = |at: usize| {
        let quality = read.qualities[at].min(QUALITY_MAX);
        places[usize::from(quality)] | read.bases[at]
    };
    let count = read.bases.len();
    out.extend((0..count / 2).map(|pair| half(2 * pair) | half(2 * pair + 1) << 4));
    if count % 2 == 1 {
        out.push(half(count - 1));
    }
}

/// Before bases of a byte each.
const WHOLE: u8 = 0;

/// Before bases of half a byte each.
const HALVES: u8 = 1;

/// A packed read, looked at without unpacking it.
#[derive(Clone, Copy)]
pub struct Packed<'a> {
    head: &'a [u8; HEAD_BYTES],
    cigar: &'a [u8],
    bases: &'a [u8],
    halves: bool,
    name: &'a [u8],
}

impl<'a> Packed<'a> {
    /// The first read of `bytes` and what follows it; `None` at the end.
    pub fn split(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (head, rest) = bytes.split_first_chunk::<HEAD_BYTES>()?;
        let operations = u16::from_le_bytes([head[36], head[37]]);
        let (cigar, rest) = rest.split_at_checked(usize::from(operations) * 4)?;
        let (&form, rest) = rest.split_first()?;
        let count = number(head, 28) as usize;
        let bytes = if form == WHOLE { count } else { 4 + count.div_ceil(2) };
        let (bases, rest) = rest.split_at_checked(bytes)?;
        let (name, rest) = rest.split_at_checked(usize::from(head[39]))?;
        Some((Self { head, cigar, bases, halves: form == HALVES, name }, rest))
    }

    /// Position on the contig.
    pub fn position(&self) -> u32 {
        number(self.head, 12)
    }

    /// SAM flags.
    pub fn flags(&self) -> u16 {
        u16::from_le_bytes([self.head[32], self.head[33]])
    }

    /// Reference bases that the alignment spans.
    pub fn span(&self) -> u32 {
        self.operations().filter(|op| matches!(op & 15, MATCH | DELETION)).map(|op| op >> 4).sum()
    }

    /// The read's name; empty when it was not kept.
    pub fn name(&self) -> &'a [u8] {
        self.name
    }

    fn operations(&self) -> impl Iterator<Item = u32> {
        self.cigar.as_chunks::<4>().0.iter().map(|&bytes| u32::from_le_bytes(bytes))
    }

    /// The read as it was packed.
    pub fn unpack(&self) -> AlignedRead {
        let mut template = [0; 8];
        template.copy_from_slice(&self.head[..8]);
        let (bases, qualities) = self.unpack_bases();
        AlignedRead {
            template: u64::from_le_bytes(template),
            flags: self.flags(),
            contig: number(self.head, 8),
            position: self.position(),
            mapping_quality: self.head[38],
            cigar: self.operations().collect(),
            bases,
            qualities,
            mate_contig: number(self.head, 16),
            mate_position: number(self.head, 20),
            template_length: number(self.head, 24) as i32,
            read_group: u16::from_le_bytes([self.head[34], self.head[35]]),
        }
    }

    fn unpack_bases(&self) -> (Vec<u8>, Vec<u8>) {
        if !self.halves {
            let code = |&byte: &u8| if byte >= UNKNOWN { 4 } else { byte & 3 };
            let quality = |&byte: &u8| if byte >= UNKNOWN { UNKNOWN_QUALITY } else { byte >> 2 };
            let bases = self.bases.iter().map(code).collect();
            return (bases, self.bases.iter().map(quality).collect());
        }
        let count = number(self.head, 28) as usize;
        let (palette, packed) = self.bases.split_at(4);
        let (mut bases, mut qualities) = (vec![0; count + 1], vec![0; count + 1]);
        let pairs = bases.as_chunks_mut::<2>().0.iter_mut().zip(qualities.as_chunks_mut::<2>().0);
        for ((bases, qualities), &byte) in pairs.zip(packed) {
            *bases = [byte & 3, byte >> 4 & 3];
            *qualities = [palette[usize::from(byte >> 2 & 3)], palette[usize::from(byte >> 6)]];
        }
        bases.truncate(count);
        qualities.truncate(count);
        (bases, qualities)
    }
}

fn number(head: &[u8; HEAD_BYTES], at: usize) -> u32 {
    u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    prop_compose! {
        fn read()(
            template: u64, flags: u16, contig: u32, position: u32, mapping_quality: u8,
            mate_contig: u32, mate_position: u32, template_length: i32, read_group: u16,
            cigar in proptest::collection::vec(any::<u32>(), 0..5),
            bases in proptest::collection::vec((0u8..5, 0u8..=QUALITY_MAX), 0..300),
            few_qualities: bool,
        ) -> AlignedRead {
            let unknown_too = |&(base, quality): &(u8, u8)| {
                if few_qualities { (base % 4, quality / 16 * 15) } else { (base, quality) }
            };
            let bases: Vec<(u8, u8)> = bases.iter().map(unknown_too).collect();
            let quality = |&(base, quality): &(u8, u8)| if base > 3 { UNKNOWN_QUALITY } else { quality };
            AlignedRead {
                template, flags, contig, position, mapping_quality, cigar,
                bases: bases.iter().map(|pair| pair.0).collect(),
                qualities: bases.iter().map(quality).collect(),
                mate_contig, mate_position, template_length, read_group,
            }
        }
    }

    proptest! {
        #[test]
        fn what_was_packed_comes_back(
            reads in proptest::collection::vec((read(), "[a-z]{0,20}"), 0..5)
        ) {
            let mut bytes = Vec::new();
            for (read, name) in &reads {
                pack(read, name.as_bytes(), &mut bytes);
            }
            let mut rest = &bytes[..];
            for (read, name) in &reads {
                let (packed, behind) = Packed::split(rest).unwrap();
                prop_assert_eq!(&packed.unpack(), read);
                prop_assert_eq!(packed.name(), name.as_bytes());
                prop_assert_eq!(packed.position(), read.position);
                rest = behind;
            }
            prop_assert!(Packed::split(rest).is_none());
        }
    }
}
