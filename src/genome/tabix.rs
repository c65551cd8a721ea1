//! The tabix index of a coordinate-ordered VCF (tabix specification, "The Tabix index file format").

use std::collections::BTreeMap;

use super::bgzf::{self, VirtualOffset};

/// Longest contig that a tabix index can hold, in bases.
pub const CONTIG_BASES_MAX: u64 = 1 << 29;

const WINDOW_BITS: u32 = 14;
/// The bin that holds no records but the counts htslib shows in `bcftools index --stats`.
const COUNTS_BIN: u32 = 37_450;

/// Collects the records of a file in their order and gives its index.
#[derive(Default)]
pub struct Builder {
    contigs: Vec<Contig>,
}

#[derive(Default)]
struct Contig {
    name: String,
    bins: BTreeMap<u32, Vec<(VirtualOffset, VirtualOffset)>>,
    windows: Vec<VirtualOffset>,
    records: u64,
    first: VirtualOffset,
    last: VirtualOffset,
}

impl Builder {
    /// Adds a record on `contig` over the 0-based bases `[start, end)`, whose text lies in the
    /// file from `from` up to `to`. Records of a contig follow each other in coordinate order.
    pub fn push(
        &mut self,
        contig: &str,
        (start, end): (u32, u32),
        (from, to): (VirtualOffset, VirtualOffset),
    ) {
        if self.contigs.last().is_none_or(|last| last.name != contig) {
            self.contigs.push(Contig { name: contig.into(), first: from, ..Contig::default() });
        }
        let contig = self.contigs.last_mut().expect("one was just added");
        contig.add(start, end.max(start + 1), from, to);
    }

    /// Moves all places `bytes` further into the file, for records that were written before the
    /// header above them.
    pub fn shift(&mut self, bytes: u64) {
        let move_on = |offset: &mut VirtualOffset| offset.0 += bytes << 16;
        for contig in &mut self.contigs {
            contig.bins.values_mut().flatten().for_each(|(from, to)| {
                move_on(from);
                move_on(to);
            });
            contig.windows.iter_mut().for_each(move_on);
            move_on(&mut contig.first);
            move_on(&mut contig.last);
        }
    }

    /// The content of the `.tbi` file.
    pub fn finish(self) -> Vec<u8> {
        let mut text = b"TBI\x01".to_vec();
        let mut word = |value: u32| text.extend_from_slice(&value.to_le_bytes());
        word(self.contigs.len() as u32);
        // Preset 2 is VCF; columns of name, begin and end; the comment letter; lines to skip.
        [2, 1, 2, 0, u32::from(b'#'), 0].into_iter().for_each(&mut word);
        let names: Vec<u8> = self
            .contigs
            .iter()
            .flat_map(|contig| [contig.name.as_bytes(), &[0]].concat())
            .collect();
        word(names.len() as u32);
        text.extend_from_slice(&names);
        self.contigs.iter().for_each(|contig| contig.write(&mut text));
        bgzf::compress(&text, bgzf::DEFAULT_LEVEL)
    }
}

impl Contig {
    fn add(&mut self, start: u32, end: u32, from: VirtualOffset, to: VirtualOffset) {
        let chunks = self.bins.entry(bin_of(start, end)).or_default();
        match chunks.last_mut() {
            // Two runs in one block are read together anyway.
            Some(last) if from.block() <= last.1.block() => last.1 = to,
            _ => chunks.push((from, to)),
        }
        let last_window = ((end - 1) >> WINDOW_BITS) as usize;
        // A window that no record touches begins where the next record after it does.
        while self.windows.len() <= last_window {
            self.windows.push(from);
        }
        self.records += 1;
        self.last = to;
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&(self.bins.len() as u32 + 1).to_le_bytes());
        for (bin, chunks) in &self.bins {
            out.extend_from_slice(&bin.to_le_bytes());
            out.extend_from_slice(&(chunks.len() as u32).to_le_bytes());
            for (from, to) in chunks {
                out.extend_from_slice(&from.0.to_le_bytes());
                out.extend_from_slice(&to.0.to_le_bytes());
            }
        }
        out.extend_from_slice(&COUNTS_BIN.to_le_bytes());
        out.extend_from_slice(&2u32.to_le_bytes());
        for value in [self.first.0, self.last.0, self.records, 0] {
            out.extend_from_slice(&value.to_le_bytes());
        }
        out.extend_from_slice(&(self.windows.len() as u32).to_le_bytes());
        for window in &self.windows {
            out.extend_from_slice(&window.0.to_le_bytes());
        }
    }
}

/// The smallest bin that holds `[start, end)` (SAM specification, section 5.3, `reg2bin`).
fn bin_of(start: u32, end: u32) -> u32 {
    let last = end - 1;
    for level in (1..=5u32).rev() {
        let shift = WINDOW_BITS + 3 * (5 - level);
        if start >> shift == last >> shift {
            return ((1 << (3 * level)) - 1) / 7 + (start >> shift);
        }
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bins_are_those_of_the_specification() {
        assert_eq!(bin_of(0, 1), 4681);
        assert_eq!(bin_of(16_383, 16_384), 4681);
        assert_eq!(bin_of(16_383, 16_385), 585);
        assert_eq!(bin_of(0, 1 << 29), 0);
        assert_eq!(bin_of((1 << 29) - 1, 1 << 29), 37_448);
    }

    #[test]
    fn another_reader_finds_the_records() {
        use noodles::core::region::Interval;
        use noodles::csi::BinningIndex;
        let mut builder = Builder::default();
        let at = |block, within| VirtualOffset::new(block, within);
        builder.push("a", (100, 101), (at(200, 0), at(200, 50)));
        builder.push("a", (1_000_000, 1_000_300), (at(200, 50), at(900, 10)));
        builder.push("b", (5, 5), (at(900, 10), at(900, 60)));
        let file = builder.finish();
        let index = noodles::tabix::io::Reader::new(&file[..]).read_index().unwrap();
        let header = index.header().unwrap();
        assert_eq!(header.reference_sequence_names().len(), 2);
        let interval: Interval = "1000001-1000010".parse().unwrap();
        let chunks = index.query(0, interval).unwrap();
        assert_eq!(chunks.len(), 1);
        assert_eq!(u64::from(chunks[0].start()), at(200, 50).0);
    }
}
