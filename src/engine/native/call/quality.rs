//! What base qualities are worth in this sample, learnt from the reads themselves.
//!
//! Sequencers round qualities and flatter them. Where nearly all reads are as the reference the
//! others are errors, whatever variants the sample has elsewhere; so no list of known variants is
//! needed. Each reported quality is given the rate of its own errors.
//! Source: the idea of GATK's base quality score recalibration (DePristo et al. 2011, "A framework
//! for variation discovery and genotyping using next-generation DNA sequencing data"), by reported
//! quality alone.

use super::evidence::{Evidence, Kind};

/// Qualities that are told apart; higher ones count as the last.
const COUNT: usize = 64;
/// Positions with a greater share of differing reads, as a divisor of the depth, may be variants.
const SHARE_DIVISOR: u32 = 10;
/// How many errors the reported quality is worth.
const REPORTED_ERRORS: f64 = 10.0;
/// MAPQ of a read whose place is sure enough to call its differences errors.
const MAPPING_QUALITY_MIN: u8 = 50;
const QUALITY_MAX: f64 = 50.0;

/// Quality to use for each reported one, in Phred.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Qualities([u8; COUNT]);

impl Default for Qualities {
    fn default() -> Self {
        Self(std::array::from_fn(|quality| quality as u8))
    }
}

impl Qualities {
    /// The quality that a reported one is worth.
    #[inline]
    pub(super) fn of(&self, reported: u8) -> u8 {
        self.0[usize::from(reported).min(COUNT - 1)]
    }

    /// What a tally speaks for; where it says nothing, the reported qualities.
    pub fn learn(tally: &QualityTally) -> Self {
        Self(std::array::from_fn(|quality| {
            let [bases, errors] = tally.0[quality].map(|count| count as f64);
            let reported = 10f64.powf(-(quality as f64) / 10.0);
            let rate = (errors + REPORTED_ERRORS) / (bases + REPORTED_ERRORS / reported);
            (-10.0 * rate.log10()).round().clamp(0.0, QUALITY_MAX.max(quality as f64)) as u8
        }))
    }
}

/// Bases and errors by reported quality.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QualityTally([[u64; 2]; COUNT]);

impl Default for QualityTally {
    fn default() -> Self {
        Self([[0; 2]; COUNT])
    }
}

impl QualityTally {
    /// Adds the counts of another part of the genome.
    pub fn merge(&mut self, other: &Self) {
        for (ours, theirs) in self.0.iter_mut().zip(other.0) {
            *ours = [ours[0] + theirs[0], ours[1] + theirs[1]];
        }
    }

    /// Counts the bases of reads that were not joined with their mates, in `[start, end)`.
    pub(super) fn of(reads: &[Evidence], reference: &[u8], start: u32, end: u32) -> Self {
        let mut depth = vec![[0u32; 2]; (end - start) as usize];
        let sure = || reads.iter().filter(|read| read.mapping_quality >= MAPPING_QUALITY_MIN);
        for read in sure() {
            each_base(read, reference, start, end, |at, differs, _| {
                depth[at][0] += 1;
                depth[at][1] += u32::from(differs);
            });
        }
        let mut tally = Self::default();
        for read in sure() {
            each_base(read, reference, start, end, |at, differs, quality| {
                let [all, differing] = depth[at];
                if differing <= (all / SHARE_DIVISOR).max(1) && all > 3 {
                    let counts = &mut tally.0[usize::from(quality).min(COUNT - 1)];
                    counts[0] += 1;
                    counts[1] += u64::from(differs);
                }
            });
        }
        tally
    }
}

/// Calls `take(position - start, differs, quality)` for the bases of a read without gaps that have
/// a quality and lie on a known base.
fn each_base(
    read: &Evidence,
    reference: &[u8],
    start: u32,
    end: u32,
    mut take: impl FnMut(usize, bool, u8),
) {
    if read.runs.iter().any(|run| matches!(run.kind, Kind::Insertion | Kind::Deletion)) {
        return;
    }
    for run in read.placed().filter(|run| run.kind == Kind::Match) {
        let from = run.reference.max(start);
        let to = (run.reference + run.length).min(end);
        for on in from..to {
            let at = (run.read + on - run.reference) as usize;
            let (base, quality, other) =
                (read.bases[at], read.qualities[at], reference[on as usize]);
            if quality > 0 && base.max(other) < 4 {
                take((on - start) as usize, base != other, quality);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_learnt_leaves_qualities_as_reported() {
        assert_eq!(Qualities::learn(&QualityTally::default()), Qualities::default());
    }

    #[test]
    fn qualities_become_what_their_errors_say() {
        let mut tally = QualityTally::default();
        tally.0[37] = [1_000_000, 600];
        tally.0[11] = [100_000, 6_000];
        tally.0[20] = [30, 0];
        let learnt = Qualities::learn(&tally);
        assert_eq!([37, 11, 20, 30].map(|quality| learnt.of(quality)), [32, 12, 20, 30]);
        assert_eq!(learnt.of(200), 63);
    }
}
