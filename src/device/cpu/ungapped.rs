//! Laying reads without gaps, with the processor's own instructions for counting and finding bits.
#![allow(unsafe_code)]

use crate::kernel::align::Scores;
use crate::kernel::pack::ReadWord;
use crate::kernel::ungapped::{GenomeWord, Job, Segment, scalar};

/// As [`kernel::ungapped::scalar`](crate::kernel::ungapped::scalar).
pub fn ungapped(
    genome: &[GenomeWord],
    reads: &[ReadWord],
    jobs: &[Job],
    scores: &Scores,
    out: &mut Vec<Segment>,
) {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "popcnt,bmi1,bmi2")]
        fn bits(g: &[GenomeWord], r: &[ReadWord], j: &[Job], s: &Scores, out: &mut Vec<Segment>) {
            scalar(g, r, j, s, out);
        }
        let has = |detected: [bool; 3]| detected.iter().all(|&one| one);
        if has([
            is_x86_feature_detected!("popcnt"),
            is_x86_feature_detected!("bmi1"),
            is_x86_feature_detected!("bmi2"),
        ]) {
            // SAFETY: the processor has these instructions, as asked just now.
            return unsafe { bits(genome, reads, jobs, scores, out) };
        }
    }
    scalar(genome, reads, jobs, scores, out);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    prop_compose! {
        fn word()(low: u64, high: u64, unknown: u64) -> GenomeWord {
            GenomeWord { low, high, unknown: unknown & low & high }
        }
    }

    proptest! {
        #[test]
        fn every_segment_is_that_of_the_twin(
            genome in proptest::collection::vec(word(), 1..40),
            places in proptest::collection::vec((0u32..2600, 1u32..1025, any::<bool>()), 0..30),
        ) {
            let mut reads = Vec::new();
            let mut jobs = Vec::new();
            for (position, length, alike) in places {
                let first = reads.len() as u32;
                for word in 0..length.div_ceil(64) {
                    let there = genome.get((position / 64 + word) as usize);
                    let GenomeWord { low, high, unknown } =
                        there.copied().filter(|_| alike).unwrap_or_default();
                    let left = length - word * 64;
                    let valid = if left < 64 { (1 << left) - 1 } else { u64::MAX };
                    reads.push(ReadWord { low, high, unknown, valid });
                }
                jobs.push(Job { first, length, position: position / 64 * 64 + position % 2 });
            }
            let scores = Scores::default();
            let (mut own, mut expected) = (Vec::new(), Vec::new());
            ungapped(&genome, &reads, &jobs, &scores, &mut own);
            scalar(&genome, &reads, &jobs, &scores, &mut expected);
            prop_assert_eq!(own, expected);
        }
    }
}
