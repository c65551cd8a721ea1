//! Counting of quality figures while reads pass by.

use super::AlignedRead;
use super::extend::{DELETION, INSERTION, MATCH, SOFT_CLIP};
use super::place::{DUPLICATE, FIRST, LAST, MATE_UNMAPPED, PAIRED, PROPER, UNMAPPED};
use crate::engine::metrics::{ReadMetrics, RegionMetrics};
use crate::genome::Reference;

const Q30: u8 = 30;

/// MAPQ that counts as confident for mates on different contigs.
const CONFIDENT: u8 = 10;

impl ReadMetrics {
    /// Counts a read as it comes from the mapper, `adapter` bases cut off: what does not depend on
    /// other reads.
    pub fn add(&mut self, read: &AlignedRead, adapter: usize) {
        let flag = |flag: u16| read.flags & flag != 0;
        let mate = &mut self.mates[usize::from(flag(LAST))];
        mate.reads += 1;
        mate.adapter_reads += u64::from(adapter > 0);
        mate.adapter_bases += adapter as u64;
        mate.bases += read.bases.len() as u64;
        let good = read.qualities.iter().filter(|&&quality| quality >= Q30).count();
        mate.q30_bases += good as u64;
        let paired = flag(PAIRED);
        self.paired += u64::from(paired);
        if flag(UNMAPPED) {
            return;
        }
        mate.mapped += 1;
        let gap = |op: &u32| matches!(op & 15, INSERTION | DELETION);
        mate.gapped += u64::from(read.cigar.iter().any(gap));
        self.mapping_quality[usize::from(read.mapping_quality / 10).min(4)] += 1;
        if !paired {
            return;
        }
        let both = !flag(MATE_UNMAPPED);
        self.both_mapped += u64::from(both);
        self.singletons += u64::from(!both);
        self.properly_paired += u64::from(flag(PROPER));
        let elsewhere = both && read.mate_contig != read.contig;
        self.mate_elsewhere += u64::from(elsewhere);
        let confident = elsewhere && read.mapping_quality >= CONFIDENT;
        self.mate_elsewhere_confident += u64::from(confident);
        if flag(PROPER) && flag(FIRST) {
            self.add_template(read.template_length.unsigned_abs());
        }
    }
}

/// Counts the reads of a region `[start, end)`: `reads` are all that overlap it, and may be more.
///
/// Depth counts aligned bases of reads that are no duplicates. Where mates overlap, the one that
/// begins first is counted up to where the other begins.
pub fn region(
    reference: &Reference,
    contig: u32,
    start: u32,
    end: u32,
    reads: &[AlignedRead],
) -> RegionMetrics {
    let mut metrics = RegionMetrics { contig: contig as usize, ..RegionMetrics::default() };
    let bases = reference.contigs.get(contig as usize).map_or(&[][..], |contig| &contig.bases);
    let mut steps = vec![0i32; (end - start) as usize + 1];
    for read in reads {
        let duplicate = read.flags & DUPLICATE != 0;
        let stop = if duplicate { 0 } else { counted_end(read) };
        let begins_here = (start..end).contains(&read.position);
        let number = usize::from(read.read_group);
        if metrics.groups.len() <= number {
            metrics.groups.resize_with(number + 1, ReadMetrics::default);
        }
        let group = &mut metrics.groups[number];
        group.duplicates += u64::from(begins_here && duplicate);
        let mate = &mut group.mates[usize::from(read.flags & LAST != 0)];
        let (mut at, mut of_read) = (read.position, 0usize);
        for &op in &read.cigar {
            let length = op >> 4;
            match op & 15 {
                MATCH => {
                    let (from, to) = (at.max(start), (at + length).min(end).min(stop));
                    if from < to {
                        steps[(from - start) as usize] += 1;
                        steps[(to - start) as usize] -= 1;
                    }
                    if begins_here {
                        mate.aligned_bases += u64::from(length);
                        let there = bases.get(at as usize..(at + length) as usize);
                        let here = read.bases.get(of_read..of_read + length as usize);
                        let pairs = there.unwrap_or(&[]).iter().zip(here.unwrap_or(&[]));
                        mate.mismatched_bases += pairs.filter(|(a, b)| a != b).count() as u64;
                    }
                    (at, of_read) = (at + length, of_read + length as usize);
                }
                INSERTION => of_read += length as usize,
                DELETION => at += length,
                SOFT_CLIP => {
                    mate.clipped_bases += u64::from(begins_here) * u64::from(length);
                    of_read += length as usize;
                }
                _ => {}
            }
        }
    }
    tally(&steps, &mut metrics);
    metrics
}

/// Where the counting of a read's depth ends.
fn counted_end(read: &AlignedRead) -> u32 {
    let mate_lies_here = read.flags & PAIRED != 0
        && read.flags & MATE_UNMAPPED == 0
        && read.mate_contig == read.contig;
    let begins_first = read.position < read.mate_position
        || read.position == read.mate_position && read.flags & LAST == 0;
    if mate_lies_here && begins_first { read.mate_position } else { u32::MAX }
}

fn tally(steps: &[i32], metrics: &mut RegionMetrics) {
    let places = &steps[..steps.len() - 1];
    let (mut depth, mut least, mut most) = (0i64, i64::MAX, 0);
    for &step in places {
        depth += i64::from(step);
        (least, most) = (least.min(depth), most.max(depth));
        metrics.bases += depth as u64;
        metrics.counts.add(depth as usize, 1);
    }
    metrics.bounds = if places.is_empty() { (0, 0) } else { (least as u64, most as u64) };
}

#[cfg(test)]
mod tests {
    use super::super::simulate::{Random, reference_of};
    use super::*;
    use crate::engine::metrics::Metrics;

    fn read(position: u32, cigar: &[(u32, u32)], flags: u16, mate_position: u32) -> AlignedRead {
        let taken = cigar.iter().filter(|op| op.1 != DELETION).map(|op| op.0 as usize).sum();
        AlignedRead {
            template: 0,
            flags,
            contig: 0,
            position,
            mapping_quality: 60,
            cigar: cigar.iter().map(|&(length, code)| length << 4 | code).collect(),
            bases: vec![1; taken],
            qualities: vec![30; taken],
            mate_contig: if flags & PAIRED != 0 { 0 } else { u32::MAX },
            mate_position,
            template_length: 0,
            read_group: 0,
        }
    }

    #[test]
    fn depth_is_that_of_counting_base_by_base_however_the_contig_is_cut() {
        let reference = reference_of(&[vec![0; 2000]]);
        let mut random = Random::new(5);
        let mut depths = vec![0u64; 2000];
        let mut reads = Vec::new();
        for _ in 0..300 {
            let position = random.below(1850) as u32;
            let flags = if random.below(10) == 0 { DUPLICATE } else { 0 };
            reads.push(read(
                position,
                &[(5, SOFT_CLIP), (60, MATCH), (3, DELETION), (40, MATCH)],
                flags,
                0,
            ));
            let covered = (position..position + 60).chain(position + 63..position + 103);
            covered.filter(|_| flags == 0).for_each(|at| depths[at as usize] += 1);
        }
        for cuts in [vec![0, 2000], vec![0, 333, 1000, 1001, 2000]] {
            let mut metrics = Metrics::default();
            for cut in cuts.windows(2) {
                metrics.merge_region(&region(&reference, 0, cut[0], cut[1], &reads));
            }
            metrics.finish(&reference, None);
            let contig = &metrics.contigs[0];
            assert_eq!(contig.bases, depths.iter().sum::<u64>());
            assert_eq!(Some(&contig.maximum), depths.iter().max());
            assert_eq!(Some(&contig.minimum), depths.iter().min());
            for (depth, &count) in contig.counts.each().iter().enumerate() {
                assert_eq!(count as usize, depths.iter().filter(|&&d| d == depth as u64).count());
            }
            let mate = &metrics.total.mates[0];
            assert_eq!((mate.clipped_bases, mate.aligned_bases), (1500, 30_000));
            // The reads are of another base than the reference throughout.
            assert_eq!(mate.mismatched_bases, 30_000);
        }
    }

    #[test]
    fn overlapping_mates_count_once() {
        let reference = reference_of(&[vec![1; 300]]);
        let reads = [
            read(0, &[(100, MATCH)], PAIRED | FIRST, 60),
            read(60, &[(100, MATCH)], PAIRED | LAST, 0),
        ];
        let metrics = region(&reference, 0, 0, 300, &reads);
        assert_eq!((metrics.bases, metrics.bounds), (160, (0, 1)));
        assert_eq!(metrics.groups[0].mates[0].mismatched_bases, 0);
    }

    #[test]
    fn reads_are_counted_by_their_flags() {
        let mut reads = ReadMetrics::default();
        let mut first = read(0, &[(100, MATCH)], PAIRED | PROPER | FIRST, 200);
        first.template_length = 300;
        reads.add(&first, 0);
        let mut last =
            read(200, &[(50, MATCH), (2, INSERTION), (48, MATCH)], PAIRED | PROPER | LAST, 0);
        last.qualities[0] = 2;
        reads.add(&last, 7);
        reads.add(&read(0, &[(100, MATCH)], PAIRED | FIRST | MATE_UNMAPPED, 0), 0);
        reads.add(&read(0, &[(100, MATCH)], PAIRED | LAST | UNMAPPED, 0), 0);
        let mut far = read(0, &[(100, MATCH)], PAIRED | FIRST, 0);
        far.mate_contig = 1;
        reads.add(&far, 0);
        let mut metrics = Metrics::new([("a", "one"), ("b", "two")]);
        metrics.merge(0, &reads);
        metrics.merge(1, &reads);
        metrics.finish(&reference_of(&[vec![0; 10]]), None);
        let both = reads.both();
        assert_eq!((both.reads, both.mapped, both.gapped), (5, 4, 1));
        assert_eq!((both.bases, both.q30_bases), (500, 499));
        assert_eq!((both.adapter_reads, both.adapter_bases), (1, 7));
        assert_eq!((reads.both_mapped, reads.singletons, reads.properly_paired), (3, 1, 2));
        assert_eq!((reads.mate_elsewhere, reads.mate_elsewhere_confident), (1, 1));
        assert_eq!(reads.mapping_quality, [0, 0, 0, 0, 4]);
        assert_eq!((metrics.total.both().reads, metrics.groups[1].reads.both().reads), (10, 5));
        assert_eq!(
            (metrics.total.insert.median, metrics.groups[1].reads.insert.median),
            (300, 300)
        );
    }
}
