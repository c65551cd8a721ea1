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
pub const OUTSIDE: u8 = 5;

/// Penalty of a path that does not exist. Twice it still is a 16-bit number, so that a sum needs
/// no care before it is brought down to this again.
pub const NEVER: i16 = i16::MAX / 2;

/// Cells that are computed together: a band has a multiple of them.
pub const LANES: usize = 8;

/// Greatest penalty that is told from no path at all.
pub const LIMIT_MAX: i32 = NEVER as i32;

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
    pub gap_open: &'a [i16],
    /// Penalty of each further base of a gap; as many as bases.
    pub gap_extend: &'a [i16],
}

/// Penalties of an agreeing and a differing base by quality.
#[derive(Clone, Debug)]
pub struct BasePenalties {
    agree: [i16; QUALITY_MAX as usize + 1],
    differ: [i16; QUALITY_MAX as usize + 1],
}

impl Default for BasePenalties {
    fn default() -> Self {
        let mut penalties =
            Self { agree: [0; QUALITY_MAX as usize + 1], differ: [0; QUALITY_MAX as usize + 1] };
        for quality in 1..=QUALITY_MAX {
            let error = 10f64.powf(-f64::from(quality) / 10.0).min(0.75);
            let penalty = |p: f64| (-10.0 * p.log10() * f64::from(PER_PHRED)).round() as i16;
            penalties.agree[usize::from(quality)] = penalty(1.0 - error);
            penalties.differ[usize::from(quality)] = penalty(error / 3.0);
        }
        penalties
    }
}

impl BasePenalties {
    /// Penalties of an agreeing and a differing base of each quality.
    pub fn by_quality(&self) -> impl Iterator<Item = (i16, i16)> + '_ {
        self.agree.iter().copied().zip(self.differ.iter().copied())
    }

    /// Penalties of an agreeing and a differing base of one quality.
    #[inline]
    pub fn pair(&self, quality: u8) -> [i16; 2] {
        let quality = usize::from(quality.min(QUALITY_MAX));
        [self.agree[quality], self.differ[quality]]
    }

    /// Penalty of reading `base` with `quality` from a haplotype that has `from`.
    #[inline]
    pub fn of(&self, base: u8, quality: u8, from: u8) -> i32 {
        let quality = usize::from(quality.min(QUALITY_MAX));
        let penalties = if base == from || base > 3 { &self.agree } else { &self.differ };
        i32::from(penalties[quality])
    }
}

/// Which read on which haplotype, and what [`banded`] is told besides.
#[derive(Clone, Copy, Debug)]
pub struct Job {
    /// Number of the read in its batch.
    pub read: usize,
    /// Number of the haplotype in its batch.
    pub haplotype: usize,
    /// First and last diagonal of the band.
    pub diagonals: (i32, i32),
    /// Greatest penalty that is told from no path at all.
    pub limit: i32,
}

/// Many reads on many haplotypes.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// What [`Job::read`] counts.
    pub reads: &'a [ReadPart<'a>],
    /// What [`Job::haplotype`] counts.
    pub haplotypes: &'a [HaplotypePart<'a>],
    /// What is wanted: one penalty each.
    pub jobs: &'a [Job],
    /// For all of them.
    pub penalties: &'a BasePenalties,
}

impl Batch<'_> {
    /// The penalty of one job.
    pub fn scalar(&self, job: usize, rows: &mut Rows) -> i32 {
        let Job { read, haplotype, diagonals: (first, last), limit } = self.jobs[job];
        let (read, haplotype) = (self.reads[read], self.haplotypes[haplotype]);
        banded(read, haplotype, first..=last, self.penalties, limit, rows)
    }
}

/// Number of diagonals of a band from its first and last: at least as many, a multiple of [`LANES`].
pub fn width((first, last): (i32, i32)) -> usize {
    usize::try_from(last - first + 1).unwrap_or(0).next_multiple_of(LANES)
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

/// Memory of the recurrence, kept between reads.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    /// The haplotype as far as the band reaches, with [`OUTSIDE`] beyond its ends.
    bases: Vec<u8>,
    gap_open: Vec<i16>,
    gap_extend: Vec<i16>,
    /// Best of all states, of the last row and of this one, with a border at the end.
    all: [Vec<i16>; 2],
    /// Best that ends in an insertion, likewise.
    inserted: [Vec<i16>; 2],
    /// Best that ends in a pair of bases, of this row.
    matched: Vec<i16>,
}

impl Rows {
    fn lay_out(&mut self, haplotype: HaplotypePart<'_>, low: i32, length: usize, width: usize) {
        self.bases.clear();
        self.gap_open.clear();
        self.gap_extend.clear();
        let before = (usize::try_from(-low).unwrap_or(0)).min(length);
        let from = (usize::try_from(low).unwrap_or(0)).min(haplotype.bases.len());
        let to = (from + length - before).min(haplotype.bases.len());
        self.bases.resize(before, OUTSIDE);
        self.bases.extend_from_slice(&haplotype.bases[from..to]);
        self.bases.resize(length, OUTSIDE);
        for (laid_out, given) in
            [(&mut self.gap_open, haplotype.gap_open), (&mut self.gap_extend, haplotype.gap_extend)]
        {
            laid_out.resize(before, NEVER);
            laid_out.extend_from_slice(&given[from..to]);
            laid_out.resize(length, NEVER);
        }
        self.matched.clear();
        self.matched.resize(width, NEVER);
        for row in &mut self.all {
            row.clear();
            row.resize(width, 0);
            row.push(NEVER);
        }
        for row in &mut self.inserted {
            row.clear();
            row.resize(width + 1, NEVER);
        }
    }
}

/// Penalty of the best path whose diagonals (haplotype base minus read base) are in `diagonals`,
/// widened at the end to a multiple of eight.
///
/// Returns at most `limit`, which is at most [`LIMIT_MAX`]; a read that fits nowhere gets `limit`.
/// Bases that hang over an end of the haplotype cost as much as differing ones.
pub fn banded(
    read: ReadPart<'_>,
    haplotype: HaplotypePart<'_>,
    diagonals: std::ops::RangeInclusive<i32>,
    penalties: &BasePenalties,
    limit: i32,
    rows: &mut Rows,
) -> i32 {
    let limit = limit.min(LIMIT_MAX);
    let low = *diagonals.start();
    let width = width((low, *diagonals.end()));
    rows.lay_out(haplotype, low, read.bases.len() + width, width);
    let mut best = 0;
    for (at, (&base, &quality)) in read.bases.iter().zip(read.qualities).enumerate() {
        let quality = usize::from(quality.min(QUALITY_MAX));
        let agree = penalties.agree[quality];
        let differ = if base > 3 { agree } else { penalties.differ[quality] };
        best = row(rows, at..at + width, base, agree, differ);
        if i32::from(best) >= limit {
            return limit;
        }
    }
    i32::from(best)
}

/// One row: the read's next base against `on` of the laid-out haplotype. Returns its best.
fn row(rows: &mut Rows, on: std::ops::Range<usize>, base: u8, agree: i16, differ: i16) -> i16 {
    let bases = &rows.bases[on.clone()];
    let (open, extend) = (&rows.gap_open[on.clone()], &rows.gap_extend[on]);
    let [all, next_all] = &mut rows.all;
    let [inserted, next_inserted] = &mut rows.inserted;
    pairs(all, bases, base, [agree, differ], &mut rows.matched);
    insertions(&all[1..], &inserted[1..], open, extend, next_inserted);
    let best = deletions(&rows.matched, next_inserted, open, extend, next_all);
    rows.all.swap(0, 1);
    rows.inserted.swap(0, 1);
    best
}

// Each step is a function of its own, so that the compiler knows that the slices do not overlap.

#[inline(never)]
fn pairs(all: &[i16], bases: &[u8], base: u8, [agree, differ]: [i16; 2], matched: &mut [i16]) {
    let more = differ - agree;
    for ((matched, &all), &from) in matched.iter_mut().zip(all).zip(bases) {
        *matched = (all + agree + more * i16::from(from != base)).min(NEVER);
    }
}

#[inline(never)]
fn insertions(all: &[i16], inserted: &[i16], open: &[i16], extend: &[i16], next: &mut [i16]) {
    let gaps = open.iter().zip(extend);
    for ((next, (&all, &inserted)), (&open, &extend)) in
        next.iter_mut().zip(all.iter().zip(inserted)).zip(gaps)
    {
        *next = (all + open).min(inserted + extend).min(NEVER);
    }
}

/// Deletions go along the row, one base after the other.
#[inline(never)]
fn deletions(
    matched: &[i16],
    inserted: &[i16],
    open: &[i16],
    extend: &[i16],
    all: &mut [i16],
) -> i16 {
    let never = i32::from(NEVER);
    let (mut before, mut deleted, mut best) = (never, never, never);
    let gaps = open.iter().zip(extend);
    for ((all, (&matched, &inserted)), (&open, &extend)) in
        all.iter_mut().zip(matched.iter().zip(inserted)).zip(gaps)
    {
        deleted = (before + i32::from(open)).min(deleted + i32::from(extend));
        before = i32::from(matched);
        let cell = before.min(i32::from(inserted)).min(deleted).min(never);
        best = best.min(cell);
        *all = cell as i16;
    }
    best as i16
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

    fn score(read: &str, haplotype: &str, open: i16) -> i32 {
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
        let ends = [OUTSIDE; 40];
        let padded = [&ends[..], haplotype, &ends[..]].concat();
        let best = |cell: [i32; 3]| cell[0].min(cell[1]).min(cell[2]);
        const FAR: i32 = i32::MAX / 4;
        let mut last = vec![[0, FAR, FAR]; padded.len() + 1];
        for (&base, &quality) in read.bases.iter().zip(read.qualities) {
            let mut next = vec![[FAR; 3]; padded.len() + 1];
            for (on, &from) in padded.iter().enumerate() {
                next[on + 1][0] = best(last[on]) + penalties.of(base, quality, from);
                if from != OUTSIDE {
                    next[on + 1][1] = (best(last[on + 1]) + open).min(last[on + 1][1] + extend);
                    next[on + 1][2] = (next[on][0] + open).min(next[on][2] + extend);
                }
            }
            last = next;
        }
        last[1..].iter().flatten().copied().min().unwrap_or(FAR)
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
            let got = banded(part, model, -35..=35, &penalties, LIMIT_MAX, &mut Rows::default());
            let ungapped = (-30..30)
                .map(|offset| ungapped(part, &haplotype, offset, &penalties, i32::MAX))
                .min()
                .unwrap_or(i32::MAX);
            proptest::prop_assert!(got <= ungapped.min(LIMIT_MAX));
            let full = full(part, &haplotype, 700, 90);
            proptest::prop_assert_eq!(got, full.min(LIMIT_MAX));
        }
    }
}
