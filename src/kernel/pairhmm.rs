//! How well a haplotype explains a read: the most probable path of a pair hidden Markov model.
//!
//! Everything is a penalty: minus a logarithm of a probability, in integers of [`PER_PHRED`] to the
//! Phred, so that every device gives the same numbers. The read may start and end anywhere on the
//! haplotype at no cost; a gap costs what the haplotype's bases say, since slips are frequent in
//! repeats. The best path stands for the sum over all paths; the gap costs are calibrated for that.
//! Source: Durbin et al. 1998, "Biological sequence analysis", section 4.2 (the Viterbi algorithm
//! of pair HMMs).

/// Units of penalty to one Phred.
pub const PER_PHRED: i32 = 32;

/// Largest quality that makes a difference.
pub const QUALITY_MAX: u8 = 60;

/// A haplotype base beyond its ends: differs from every base.
const OUTSIDE: u8 = 5;

/// Penalty of a path that does not exist.
const NEVER: i32 = i32::MAX / 4;

/// A part of a read, as the model sees it.
#[derive(Clone, Copy, Debug)]
pub struct ReadPart<'a> {
    /// Base codes 0 to 4; 4 agrees with nothing and says nothing.
    pub bases: &'a [u8],
    /// Phred qualities, as many as bases; 0 says nothing.
    pub qualities: &'a [u8],
}

/// A haplotype with the cost of gaps along it.
#[derive(Clone, Copy, Debug)]
pub struct HaplotypePart<'a> {
    /// Base codes 0 to 4.
    pub bases: &'a [u8],
    /// Penalty of opening a gap before or at each base; as many as bases.
    pub gap_open: &'a [i32],
    /// Penalty of each further base of a gap; as many as bases.
    pub gap_extend: &'a [i32],
}

/// Penalties of an agreeing and a differing base by quality.
#[derive(Clone, Debug)]
pub struct BasePenalties {
    agree: [i32; QUALITY_MAX as usize + 1],
    differ: [i32; QUALITY_MAX as usize + 1],
}

impl Default for BasePenalties {
    fn default() -> Self {
        let mut penalties =
            Self { agree: [0; QUALITY_MAX as usize + 1], differ: [0; QUALITY_MAX as usize + 1] };
        for quality in 1..=QUALITY_MAX {
            let error = 10f64.powf(-f64::from(quality) / 10.0).min(0.75);
            let penalty = |p: f64| (-10.0 * p.log10() * f64::from(PER_PHRED)).round() as i32;
            penalties.agree[usize::from(quality)] = penalty(1.0 - error);
            penalties.differ[usize::from(quality)] = penalty(error / 3.0);
        }
        penalties
    }
}

impl BasePenalties {
    /// Penalty of reading `base` with `quality` from a haplotype that has `from`.
    #[inline]
    pub fn of(&self, base: u8, quality: u8, from: u8) -> i32 {
        let quality = usize::from(quality.min(QUALITY_MAX));
        if base == from || base > 3 { self.agree[quality] } else { self.differ[quality] }
    }
}

/// Penalty of the read on one diagonal, without any gap. Stops above `limit` with a larger number.
///
/// The read's first base lies on the haplotype's base `offset`. Bases that hang over an end of the
/// haplotype cost as much as differing ones.
pub fn ungapped(
    read: ReadPart<'_>,
    haplotype: &[u8],
    offset: i32,
    penalties: &BasePenalties,
    limit: i32,
) -> i32 {
    let mut sum = 0;
    for (at, (&base, &quality)) in read.bases.iter().zip(read.qualities).enumerate() {
        let from = usize::try_from(offset + at as i32).ok().and_then(|on| haplotype.get(on));
        sum += penalties.of(base, quality, from.copied().unwrap_or(OUTSIDE));
        if sum > limit {
            return sum;
        }
    }
    sum
}

/// Rows of the recurrence, kept between reads.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    matched: Vec<i32>,
    inserted: Vec<i32>,
}

/// Penalty of the best path whose diagonals (haplotype base minus read base) are in `diagonals`.
///
/// Returns at most `limit`; a read that fits nowhere gets `limit`.
pub fn banded(
    read: ReadPart<'_>,
    haplotype: HaplotypePart<'_>,
    diagonals: std::ops::RangeInclusive<i32>,
    penalties: &BasePenalties,
    limit: i32,
    rows: &mut Rows,
) -> i32 {
    let low = *diagonals.start();
    let width = usize::try_from(diagonals.end() - low + 1).unwrap_or(0);
    // Index 0 and width + 1 are borders, so that neighbours need no test.
    rows.matched.clear();
    rows.matched.resize(width + 2, 0);
    rows.inserted.clear();
    rows.inserted.resize(width + 2, NEVER);
    (rows.matched[0], rows.matched[width + 1]) = (NEVER, NEVER);
    let length = haplotype.bases.len();
    for (at, (&base, &quality)) in read.bases.iter().zip(read.qualities).enumerate() {
        let mut deleted = NEVER;
        let mut before = NEVER;
        let mut best = NEVER;
        for band in 1..=width {
            let on = low + at as i32 + band as i32 - 1;
            let inside = usize::try_from(on).ok().filter(|&on| on < length);
            let from = inside.map_or(OUTSIDE, |on| haplotype.bases[on]);
            // `matched` of the last row holds the best of all three states there.
            let matched = rows.matched[band] + penalties.of(base, quality, from);
            let mut inserted = NEVER;
            if let Some(on) = inside {
                let (open, extend) = (haplotype.gap_open[on], haplotype.gap_extend[on]);
                inserted = (rows.matched[band + 1] + open)
                    .min(rows.inserted[band + 1] + extend)
                    .min(NEVER);
                deleted = (before + open).min(deleted + extend).min(NEVER);
            } else {
                deleted = NEVER;
            }
            before = matched;
            let all = matched.min(inserted).min(deleted);
            rows.matched[band] = all;
            rows.inserted[band] = inserted;
            best = best.min(all);
        }
        if best >= limit {
            return limit;
        }
    }
    let end = rows.matched[1..=width].iter().min();
    end.map_or(limit, |&best| best.min(limit))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codes(letters: &str) -> Vec<u8> {
        letters
            .bytes()
            .filter_map(|letter| b"ACGT".iter().position(|&known| known == letter))
            .map(|code| code as u8)
            .collect()
    }

    fn score(read: &str, haplotype: &str, open: i32) -> i32 {
        let (read, haplotype) = (codes(read), codes(haplotype));
        let qualities = vec![30; read.len()];
        let part = ReadPart { bases: &read, qualities: &qualities };
        let (gap_open, gap_extend) = (vec![open; haplotype.len()], vec![320; haplotype.len()]);
        let haplotype =
            HaplotypePart { bases: &haplotype, gap_open: &gap_open, gap_extend: &gap_extend };
        let penalties = BasePenalties::default();
        banded(part, haplotype, -8..=16, &penalties, 1 << 20, &mut Rows::default())
    }

    /// The whole recurrence without a band, as in the book, on a haplotype with open ends.
    fn full(read: ReadPart<'_>, haplotype: &[u8], open: i32, extend: i32) -> i32 {
        let penalties = BasePenalties::default();
        let ends = vec![OUTSIDE; 40];
        let padded = [&ends[..], haplotype, &ends[..]].concat();
        let best = |cell: [i32; 3]| cell[0].min(cell[1]).min(cell[2]);
        let mut last = vec![[0, NEVER, NEVER]; padded.len() + 1];
        for (&base, &quality) in read.bases.iter().zip(read.qualities) {
            let mut next = vec![[NEVER; 3]; padded.len() + 1];
            for (on, &from) in padded.iter().enumerate() {
                next[on + 1][0] = best(last[on]) + penalties.of(base, quality, from);
                if from != OUTSIDE {
                    next[on + 1][1] = (best(last[on + 1]) + open).min(last[on + 1][1] + extend);
                    next[on + 1][2] = (next[on][0] + open).min(next[on][2] + extend);
                }
            }
            last = next;
        }
        last[1..].iter().flatten().copied().min().unwrap_or(NEVER)
    }

    #[test]
    fn equal_sequences_cost_almost_nothing() {
        assert!(score("ACGTACGGT", "TTACGTACGGTCC", 1440) < 9);
    }

    #[test]
    fn one_difference_costs_its_quality() {
        let cost = score("ACGTACGGTACCA", "TTACGTACTGTACCACC", 1440);
        assert!((cost - (30 * 32 + 153)).abs() < 10, "{cost}");
    }

    #[test]
    fn a_gap_costs_its_opening_and_length() {
        let one = score("ACGTACGGTCATTGACCATT", "ACGTACGGTCAGTTGACCATT", 640);
        assert!((one - 640).abs() < 30, "{one}");
        let two = score("ACGTACGGTCATTGACCATT", "ACGTACGGTCAGGTTGACCATT", 640);
        assert!((two - 960).abs() < 30, "{two}");
        let inserted = score("ACGTACGGTCAGGTTGACCATT", "ACGTACGGTCATTGACCATT", 640);
        assert!((inserted - 960).abs() < 30, "{inserted}");
    }

    #[test]
    fn ungapped_stops_at_the_limit() {
        let (read, haplotype) = (codes("AAAAAAAA"), codes("CCCCCCCCCC"));
        let part = ReadPart { bases: &read, qualities: &[30; 8] };
        let penalties = BasePenalties::default();
        assert!(ungapped(part, &haplotype, 1, &penalties, 2000) < 3400);
        assert!(ungapped(part, &read, -2, &penalties, 1 << 20) > 2 * 30 * 32);
    }

    proptest::proptest! {
        #[test]
        fn a_wide_band_equals_the_whole_recurrence(
            haplotype in proptest::collection::vec(0u8..4, 6..30),
            read in proptest::collection::vec(0u8..5, 1..24),
            quality in 2u8..41,
        ) {
            let qualities = vec![quality; read.len()];
            let (gap_open, gap_extend) = (vec![700; haplotype.len()], vec![90; haplotype.len()]);
            let part = ReadPart { bases: &read, qualities: &qualities };
            let model = HaplotypePart {
                bases: &haplotype, gap_open: &gap_open, gap_extend: &gap_extend,
            };
            let penalties = BasePenalties::default();
            let got = banded(part, model, -35..=35, &penalties, NEVER, &mut Rows::default());
            let ungapped = (-30..30)
                .map(|offset| ungapped(part, &haplotype, offset, &penalties, NEVER))
                .min()
                .unwrap_or(NEVER);
            proptest::prop_assert!(got <= ungapped);
            let full = full(part, &haplotype, 700, 90);
            proptest::prop_assert_eq!(got, full);
        }
    }
}
