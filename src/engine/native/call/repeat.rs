//! What short tandem repeats cost: sequencers slip in them, and so does evolution.

use super::slips::Slips;
use crate::kernel::pairhmm::PER_PHRED;

/// Longest repeated unit that is looked for.
const UNIT_MAX: usize = 6;

const EXTEND: i32 = 10;
/// Inside a repeat a gap of a whole unit is one slip.
const EXTEND_IN_REPEAT: i32 = 4;

/// Gap penalties along a sequence, in units of the pair HMM.
#[derive(Clone, Debug, Default)]
pub(super) struct GapPenalties {
    pub(super) open: Vec<i16>,
    pub(super) extend: Vec<i16>,
}

impl GapPenalties {
    /// Penalties for the bases of a haplotype.
    pub(super) fn of(bases: &[u8], slips: &Slips) -> Self {
        let mut open = vec![units(slips.open(1, 1)); bases.len() + 1];
        let mut extend = vec![units(EXTEND); bases.len() + 1];
        for_each_tract(bases, |unit, start, end| {
            let count = (end - start) / unit;
            let penalty = units(slips.open(unit, count));
            // The base after the tract too: there a gap before it is still one in the tract.
            for at in start..=end.min(bases.len()) {
                open[at] = open[at].min(penalty);
                if unit > 1 && count >= 3 {
                    extend[at] = extend[at].min(units(EXTEND_IN_REPEAT));
                }
            }
        });
        open.truncate(bases.len());
        extend.truncate(bases.len());
        Self { open, extend }
    }
}

fn units(phred: i32) -> i16 {
    (phred * PER_PHRED) as i16
}

/// Calls `found(unit, start, end)` for each maximal tract of at least two units.
pub(super) fn for_each_tract(bases: &[u8], mut found: impl FnMut(usize, usize, usize)) {
    for unit in 1..=UNIT_MAX.min(bases.len()) {
        let mut at = unit;
        while at < bases.len() {
            let start = at;
            while at < bases.len() && bases[at] == bases[at - unit] {
                at += 1;
            }
            if at - start >= unit && !has_shorter_unit(&bases[start - unit..start], unit) {
                found(unit, start - unit, at);
            }
            at += 1;
        }
    }
}

/// Whether the unit itself repeats a shorter one.
fn has_shorter_unit(unit_bases: &[u8], unit: usize) -> bool {
    (1..unit).any(|shorter| {
        unit.is_multiple_of(shorter)
            && (shorter..unit).all(|at| unit_bases[at] == unit_bases[at - shorter])
    })
}

/// The longest tract that contains base `at` or ends just before it: number of bases and the unit.
pub(super) fn tract_at(bases: &[u8], at: usize) -> (usize, usize) {
    let mut longest = (1, 1);
    for_each_tract(bases, |unit, start, end| {
        if start <= at && at <= end && end - start > longest.0 && (end - start) / unit >= 2 {
            longest = (end - start, unit);
        }
    });
    longest
}

/// Prior against a heterozygous insertion or deletion in Phred, by the tract that it lies in.
/// Outside of repeats one base in 8000 differs so.
pub(super) fn indel_prior(tract: (usize, usize)) -> i32 {
    let (bases, unit) = tract;
    let units = bases / unit;
    match (unit, units) {
        (1, 13..) => 24,
        (1, 10..) => 28,
        (1, 8..) | (2, 8..) => 31,
        (1, 6..) | (2, 5..) | (3.., 4..) => 35,
        _ => 39,
    }
}

/// Widens `[start, end)` until neither end lies in a tract of `reference`, by at most `most`.
pub(super) fn widen(reference: &[u8], start: u32, end: u32, most: u32) -> (u32, u32) {
    let low = start.saturating_sub(most) as usize;
    let high = (end.saturating_add(most) as usize).min(reference.len());
    let (mut first, mut last) = (start as usize - low, end as usize - low);
    for_each_tract(&reference[low..high], |unit, from, to| {
        if to - from >= (3 * unit).max(5) {
            if from < first && first < to + 2 {
                first = from.saturating_sub(3);
            }
            if from < last + 2 && last < to + 3 {
                last = (to + 3).min(high - low);
            }
        }
    });
    ((low + first) as u32, (low + last) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_cheap_in_long_repeats_only() {
        let mut bases = vec![0, 1, 2, 3, 1, 0];
        bases.extend([0; 11]);
        bases.extend([2, 1, 3, 2]);
        let penalties = GapPenalties::of(&bases, &Slips::default());
        assert_eq!(penalties.open[2], units(45));
        assert_eq!(penalties.open[9], units(26));
        assert_eq!(penalties.open[5], penalties.open[17]);
        assert_eq!(tract_at(&bases, 8), (12, 1));
        assert_eq!(tract_at(&bases, 3), (1, 1));
    }

    #[test]
    fn units_of_two_are_not_units_of_four() {
        let bases = [3, 0, 1, 0, 1, 0, 1, 0, 1, 2];
        let mut tracts = Vec::new();
        for_each_tract(&bases, |unit, start, end| tracts.push((unit, start, end)));
        assert_eq!(tracts, [(2, 1, 9)]);
        assert!(indel_prior((24, 2)) < indel_prior((4, 2)));
    }
}
