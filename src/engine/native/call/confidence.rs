//! How sure it is that the sample is as the reference where no variant is called.

use super::evidence::{Evidence, Kind};
use crate::genome::Variant;
use crate::genome::vcf::Block;

/// Quality in Phred with which a gap speaks against the reference.
const GAP_QUALITY: u32 = 20;
/// Phred penalty of a base that comes from either of two alleles, in hundredths.
const HALF_HUNDREDTHS: u32 = 301;

/// Sums over the bases of a region.
struct Sums {
    depth: Vec<u32>,
    /// Qualities of bases that are as the reference.
    same: Vec<u32>,
    /// Qualities of those that are not.
    differing: Vec<u32>,
}

/// Blocks of the bases in `[start, end)` that `variants` do not cover; `copies` says the ploidy of
/// each stretch. The first `apart` bases come one by one, since a deletion of the region before
/// may cover them.
pub(super) fn blocks(
    evidence: &[Evidence],
    contig: u32,
    bases: &[u8],
    (start, end): (u32, u32),
    apart: u32,
    variants: &[Variant],
    copies: &[(u32, u32, u8)],
) -> Vec<Block> {
    if evidence.is_empty() && variants.is_empty() {
        return empty_blocks(contig, (start, end), apart, copies);
    }
    let sums = Sums::of(evidence, bases, start, end);
    let mut blocks: Vec<Block> = Vec::new();
    let mut next_variant = variants.iter().peekable();
    let mut covered = start;
    for &(from, to, ploidy) in copies {
        for at in from.max(start)..to.min(end) {
            while let Some(variant) = next_variant.next_if(|variant| variant.position <= at) {
                covered = covered.max(variant.position + variant.reference.len() as u32);
            }
            if at < covered {
                continue;
            }
            let block = sums.block(contig, at, at - start, ploidy);
            let single = at - start < apart;
            if single || !blocks.last_mut().is_some_and(|last| last.join(&block)) {
                blocks.push(block);
            }
        }
    }
    blocks
}

/// The blocks of a region without reads: what [`blocks`] would join of its bases.
fn empty_blocks(
    contig: u32,
    (start, end): (u32, u32),
    apart: u32,
    copies: &[(u32, u32, u8)],
) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    for &(from, to, ploidy) in copies {
        let (from, to) = (from.max(start), to.min(end));
        let block = |at| Block::of_base(contig, at, ploidy, 0, [0; 3]);
        // The last base that comes alone takes in what follows.
        let joined = from.max(start.saturating_add(apart.saturating_sub(1)));
        blocks.extend((from..to.min(joined)).map(block));
        if joined < to {
            blocks.push(Block { end: to, ..block(joined) });
        }
    }
    blocks
}

impl Sums {
    fn of(evidence: &[Evidence], reference: &[u8], start: u32, end: u32) -> Self {
        let zeros = || vec![0; (end - start) as usize];
        let mut sums = Self { depth: zeros(), same: zeros(), differing: zeros() };
        for read in evidence.iter().filter(|read| read.end > start && read.start < end) {
            for run in read.placed() {
                let from = run.reference.max(start);
                match run.kind {
                    Kind::Match => {
                        let to = (run.reference + run.length).min(end);
                        if from < to {
                            let at = (run.read + from - run.reference) as usize;
                            let reference = &reference[from as usize..to as usize];
                            sums.add_match(read, at, reference, (from - start) as usize);
                        }
                    }
                    Kind::Deletion => {
                        for at in from..(run.reference + run.length).min(end) {
                            sums.depth[(at - start) as usize] += 1;
                            sums.differing[(at - start) as usize] += GAP_QUALITY;
                        }
                    }
                    // It stands behind the base before it.
                    Kind::Insertion if (start + 1..=end).contains(&run.reference) => {
                        sums.differing[(run.reference - 1 - start) as usize] += GAP_QUALITY;
                    }
                    Kind::Insertion | Kind::Clip => {}
                }
            }
        }
        sums
    }

    /// Adds aligned bases of a read from its base `at` on, at `on` of the region.
    fn add_match(&mut self, read: &Evidence, at: usize, reference: &[u8], on: usize) {
        let length = reference.len();
        let bases = read.bases[at..at + length].iter().zip(&read.qualities[at..at + length]);
        let sums = self.depth[on..on + length]
            .iter_mut()
            .zip(&mut self.same[on..on + length])
            .zip(&mut self.differing[on..on + length]);
        for (((&base, &quality), &reference), ((depth, same), differing)) in
            bases.zip(reference).zip(sums)
        {
            // Where the reference has no base, no read says anything.
            let quality = if reference > 3 { 0 } else { u32::from(quality) };
            let is_same = u32::from(base == reference);
            *depth += u32::from(quality > 0);
            *same += quality * is_same;
            *differing += quality * (1 - is_same);
        }
    }

    fn block(&self, contig: u32, position: u32, at: u32, ploidy: u8) -> Block {
        let at = at as usize;
        let depth = self.depth[at];
        let (as_reference, as_other) = (self.differing[at], self.same[at]);
        let penalties = if ploidy == 1 {
            [as_reference, as_other, 0]
        } else {
            let mixed = (u64::from(depth) * u64::from(HALF_HUNDREDTHS) / 100) as u32;
            [as_reference, mixed, as_other]
        };
        Block::of_base(contig, position, ploidy, depth, penalties)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_without_reads_has_the_blocks_that_its_bases_would_join_to() {
        let copies = [(0, 40, 2), (40, 70, 1), (70, 200, 2)];
        for range in [(0, 200), (10, 60), (35, 45), (100, 180)] {
            for apart in [0, 20, 500] {
                let sums = Sums::of(&[], &[0; 200], range.0, range.1);
                let mut joined: Vec<Block> = Vec::new();
                for &(from, to, ploidy) in &copies {
                    for at in from.max(range.0)..to.min(range.1) {
                        let block = sums.block(7, at, at - range.0, ploidy);
                        let single = at - range.0 < apart;
                        if single || !joined.last_mut().is_some_and(|last| last.join(&block)) {
                            joined.push(block);
                        }
                    }
                }
                let whole = blocks(&[], 7, &[0; 200], range, apart, &[], &copies);
                assert_eq!(whole, joined, "{range:?} {apart}");
            }
        }
    }
}
