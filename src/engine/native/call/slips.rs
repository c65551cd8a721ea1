//! How often this sample's reads slip in short tandem repeats, learnt from the reads themselves.
//!
//! The rate depends on how the library was made: reads of an amplified one slip ten times as often
//! as those of one that was not. So the reads over the repeats of a part of the genome are counted
//! before anything is called, and the rate of each kind of repeat is fitted to the counts, sites
//! that differ from the reference themselves told apart by how many of their reads do.
//! Method: expectation-maximization over three kinds of sites (as the reference, one copy
//! differs, both do); reads of a site slip with a rate of its own around the common one (beta
//! distribution), since repeats of the same length are not all alike.

use std::collections::BTreeMap;

use super::evidence::{Evidence, Kind};
use super::repeat::{for_each_tract, indel_prior};

/// Penalty in Phred of opening a gap in a homopolymer, by its length from 0, where nothing was
/// learnt. About the error rates that Albers et al. 2011 ("Dindel") give for Illumina reads.
const HOMOPOLYMER_OPEN: &[i32] =
    &[45, 45, 45, 45, 44, 43, 41, 39, 36, 33, 30, 28, 26, 24, 22, 21, 20, 19, 18, 17, 16];
/// The same for units of two bases, by number of units.
const PAIR_OPEN: &[i32] = &[45, 45, 45, 44, 42, 40, 37, 34, 32, 30, 28, 27, 26, 25, 24, 23, 22];
/// The same for longer units.
const LONG_OPEN: &[i32] = &[45, 45, 45, 43, 41, 38, 36, 34, 32, 31, 30, 29, 28];
const USUAL: [&[i32]; 3] = [HOMOPOLYMER_OPEN, PAIR_OPEN, LONG_OPEN];
/// Fewest units of a tract that is looked at, by kind.
const UNITS_MIN: [usize; 3] = [5, 3, 3];

/// Bounds of the penalties in Phred.
const OPEN_MIN: i32 = 6;
const OPEN_MAX: i32 = 45;
/// Aligned bases that a read has on both sides of a tract that it counts for.
const FLANK_BASES: u32 = 12;
/// Reads of one site that count.
const READS_MAX: u8 = 60;
/// Sites with fewer reads say nothing.
const READS_MIN: u8 = 4;
/// How many reads the usual rate of a kind of repeat is worth.
const USUAL_READS: f64 = 60.0;
/// How many slips the usual rates of all repeats of one unit length are worth.
const USUAL_SLIPS: f64 = 2.0;
/// How many sites the usual share of sites that differ is worth.
const USUAL_SITES: f64 = 20.0;
/// Usual share of the variance between sites: 0 if all sites of a kind were alike, 1 if each
/// slipped always or never. And what it is worth, as expected variance of reads.
const DISPERSION: f64 = 0.03;
const USUAL_VARIANCE: f64 = 2000.0;
const ROUNDS: usize = 12;
/// How many slips it is worth that they go either way alike.
const USUAL_WAYS: f64 = 10.0;
/// Sites with a greater share of slipped reads may differ from the reference.
const SLIPPED_SHARE_MAX: f64 = 0.2;
/// What a second slip of a read costs, in Phred, that only brings back what the first one moved.
const SECOND_SLIP: i32 = 6;
/// Slips of one unit more or less, of all one way; of each further unit, of those of one less.
const ONE_UNIT_SHARE: f64 = 0.8;
const FURTHER_UNIT_SHARE: f64 = 0.2;

/// What is known of one kind of repeat.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Habit {
    /// Share of reads that slip, either way.
    rate: f64,
    /// Share of sites whose length differs from the reference in one copy or both.
    differs: f64,
}

impl Habit {
    fn usual(kind: usize, units: usize) -> Self {
        let table = USUAL[kind];
        let open = table[units.min(table.len() - 1)];
        let prior = indel_prior((units * (kind + 1), kind + 1));
        Self { rate: 2.0 * probability(open), differs: probability(prior) }
    }
}

fn phred(probability: f64) -> f64 {
    -10.0 * probability.max(1e-9).log10()
}

fn probability(phred: i32) -> f64 {
    10f64.powf(-f64::from(phred) / 10.0)
}

/// How often reads slip, by kind of repeat.
#[derive(Clone, Debug, PartialEq)]
pub struct Slips {
    /// By kind of unit and number of units.
    habits: [Vec<Habit>; 3],
    /// Share of the slips that make a tract longer, by kind of unit.
    longer: [f64; 3],
    dispersion: f64,
}

impl Default for Slips {
    fn default() -> Self {
        let habits = [0, 1, 2]
            .map(|kind| (0..USUAL[kind].len()).map(|units| Habit::usual(kind, units)).collect());
        Self { habits, longer: [0.5; 3], dispersion: DISPERSION }
    }
}

/// Index of the kind of a unit: of one base, of two, longer.
fn kind_of(unit: usize) -> usize {
    unit.clamp(1, 3) - 1
}

impl Slips {
    fn habit(&self, unit: usize, units: usize) -> Habit {
        let table = &self.habits[kind_of(unit)];
        table[units.min(table.len() - 1)]
    }

    /// Penalty in Phred of a slip in a tract of so many units, the way that is rarer: what the
    /// frequent way has more of is weighed with the balance of the alleles.
    pub(super) fn open(&self, unit: usize, units: usize) -> i32 {
        let longer = self.longer[kind_of(unit)];
        let rate = self.habit(unit, units).rate * longer.min(1.0 - longer);
        (phred(rate).round() as i32).clamp(OPEN_MIN, OPEN_MAX)
    }

    /// How improbable it is, in Phred, that many reads show a substitution that joins two runs of
    /// its base to one of `run` bases: two slips, one in each way, look the same.
    pub(super) fn joined_run(&self, run: usize) -> i32 {
        let usual = HOMOPOLYMER_OPEN[run.min(HOMOPOLYMER_OPEN.len() - 1)];
        SECOND_SLIP + self.open(1, run).max(usual)
    }

    /// Prior in Phred against a copy that differs in a tract of so many bases and this unit.
    pub(super) fn differs(&self, (bases, unit): (usize, usize)) -> i32 {
        let usual = indel_prior((bases, unit));
        let phred = -10.0 * self.habit(unit, bases / unit).differs.log10();
        if bases / unit < UNITS_MIN[kind_of(unit)] {
            usual
        } else {
            (phred.round() as i32).min(usual)
        }
    }

    /// How much more probable it is, in Phred, that the rarer reads are of a copy of their own than
    /// that they slipped by `change` bases in a tract of so many bases and this unit. `None` where
    /// a slip makes no such change.
    pub(super) fn copy_over_slip(
        &self,
        (bases, unit): (usize, usize),
        change: i64,
        [common, rare]: [usize; 2],
    ) -> Option<f64> {
        let length = change.unsigned_abs() as usize;
        let units = (length / unit) as i32;
        let repeats = bases / unit >= UNITS_MIN[kind_of(unit)];
        if !repeats || units == 0 || !length.is_multiple_of(unit) {
            return None;
        }
        let longer = self.longer[kind_of(unit)];
        let one_way = if change > 0 { longer } else { 1.0 - longer };
        let share = ONE_UNIT_SHARE * FURTHER_UNIT_SHARE.powi(units.min(5) - 1);
        let rate = self.habit(unit, bases / unit).rate * one_way * share;
        let all = common + rare;
        let slipped = BetaBinomial::new(rate, self.dispersion, all).log10(all, rare);
        let copy = -(all as f64) * 2f64.log10();
        Some(10.0 * (copy - slipped))
    }

    /// What a tally speaks for; where it says nothing, the usual rates.
    pub fn learn(tally: &SlipTally) -> Self {
        let mut slips = Self::default();
        for _ in 0..2 {
            let mut spread = Spread::default();
            for kind in 0..USUAL.len() {
                slips.learn_kind(kind, tally, &mut spread);
            }
            slips.dispersion = spread.dispersion();
        }
        slips.longer = tally
            .ways
            .map(|[longer, all]| (longer as f64 + USUAL_WAYS / 2.0) / (all as f64 + USUAL_WAYS));
        slips
    }

    fn learn_kind(&mut self, kind: usize, tally: &SlipTally, spread: &mut Spread) {
        let classes = UNITS_MIN[kind]..USUAL[kind].len();
        let (mut seen, mut expected) = (USUAL_SLIPS, USUAL_SLIPS);
        for units in classes.clone() {
            let usual = Habit::usual(kind, units);
            let fitted = tally.classes[kind][units].fit(usual, self.dispersion);
            seen += fitted.slipped;
            expected += fitted.reads * usual.rate;
        }
        for units in classes {
            let mut usual = Habit::usual(kind, units);
            usual.rate = (usual.rate * seen / expected).clamp(2.0 * probability(OPEN_MAX), 0.4);
            let class = &tally.classes[kind][units];
            let fitted = class.fit(usual, self.dispersion);
            class.spread(&fitted, self.dispersion, spread);
            self.habits[kind][units] = fitted.habit;
        }
    }
}

/// Sites of one class: how many have so many reads, of which so many slipped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Class(BTreeMap<(u8, u8), u32>);

/// What was fitted to a class.
struct Fitted {
    habit: Habit,
    /// Reads of sites that are as the reference, and those of them that slipped.
    reads: f64,
    slipped: f64,
}

impl Class {
    fn fit(&self, usual: Habit, dispersion: f64) -> Fitted {
        let mut fitted = Fitted { habit: usual, reads: 0.0, slipped: 0.0 };
        let sites: f64 = self.0.values().map(|&sites| f64::from(sites)).sum();
        for _ in 0..ROUNDS {
            let (mut reads_sum, mut slipped_sum, mut same) = (0.0, 0.0, 0.0);
            let weigh = fitted.habit.weights(dispersion);
            for (&(reads, slipped), &sites) in &self.0 {
                let weight = f64::from(sites) * weigh(reads, slipped);
                reads_sum += weight * f64::from(reads);
                slipped_sum += weight * f64::from(slipped);
                same += weight;
            }
            (fitted.reads, fitted.slipped) = (reads_sum, slipped_sum);
            fitted.habit = Habit {
                rate: (slipped_sum + usual.rate * USUAL_READS) / (reads_sum + USUAL_READS),
                differs: (sites - same + usual.differs * USUAL_SITES) / (sites + USUAL_SITES),
            };
        }
        fitted
    }

    fn spread(&self, fitted: &Fitted, dispersion: f64, spread: &mut Spread) {
        let weigh = fitted.habit.weights(dispersion);
        let rate = fitted.habit.rate;
        for (&(reads, slipped), &sites) in &self.0 {
            let weight = f64::from(sites) * weigh(reads, slipped);
            let (reads, slipped) = (f64::from(reads), f64::from(slipped));
            let by_chance = reads * rate * (1.0 - rate);
            spread.beyond += weight * ((slipped - reads * rate).powi(2) - by_chance);
            spread.most += weight * by_chance * (reads - 1.0);
        }
    }
}

impl Habit {
    /// How probable it is that a site with so many reads and slipped ones is as the reference.
    fn weights(self, dispersion: f64) -> impl Fn(u8, u8) -> f64 {
        let slipping = BetaBinomial::new(self.rate, dispersion, usize::from(READS_MAX));
        move |reads, slipped| {
            let (all, some) = (usize::from(reads), usize::from(slipped));
            let power = |log: f64| 10f64.powf(log);
            let one = self.differs * 2.0 / 3.0 * 0.5f64.powi(i32::from(reads));
            let both = self.differs / 3.0 * power(slipping.log10(all, all - some));
            let none = (1.0 - self.differs) * power(slipping.log10(all, some));
            none / (none + one + both).max(f64::MIN_POSITIVE)
        }
    }
}

/// Sums that say how much sites of one kind differ from each other.
#[derive(Default)]
struct Spread {
    /// Variance beyond that of chance.
    beyond: f64,
    /// What it would be if each site slipped always or never.
    most: f64,
}

impl Spread {
    fn dispersion(&self) -> f64 {
        let share = (self.beyond + DISPERSION * USUAL_VARIANCE) / (self.most + USUAL_VARIANCE);
        share.clamp(0.005, 0.2)
    }
}

/// A beta-binomial distribution, without the number of ways to choose the reads.
struct BetaBinomial {
    /// Logarithms of the products of (a + i), of (b + i) and of (a + b + i), i below the index.
    rising: [Vec<f64>; 3],
}

impl BetaBinomial {
    fn new(mean: f64, dispersion: f64, most: usize) -> Self {
        let whole = 1.0 / dispersion - 1.0;
        let rising = [mean * whole, (1.0 - mean) * whole, whole].map(|from| {
            let mut sum = 0.0;
            let mut all = vec![sum];
            for at in 0..most {
                sum += (from + at as f64).log10();
                all.push(sum);
            }
            all
        });
        Self { rising }
    }

    fn log10(&self, all: usize, some: usize) -> f64 {
        let [successes, failures, whole] = &self.rising;
        successes[some] + failures[all - some] - whole[all]
    }
}

/// Counts of reads over the repeats of a part of the genome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlipTally {
    classes: [Vec<Class>; 3],
    /// By kind: slips that make a tract longer, and all.
    ways: [[u64; 2]; 3],
}

impl Default for SlipTally {
    fn default() -> Self {
        let classes = USUAL.map(|table| vec![Class::default(); table.len()]);
        Self { classes, ways: [[0; 2]; 3] }
    }
}

/// A tract with its counts.
struct Tract {
    start: u32,
    end: u32,
    unit: usize,
    reads: u8,
    slipped: u8,
    longer: u8,
}

impl SlipTally {
    /// Adds the counts of another part of the genome.
    pub fn merge(&mut self, other: &Self) {
        let others = other.classes.iter().flatten();
        for (class, other) in self.classes.iter_mut().flatten().zip(others) {
            for (&counts, &sites) in &other.0 {
                *class.0.entry(counts).or_default() += sites;
            }
        }
        for (ways, other) in self.ways.iter_mut().zip(other.ways) {
            *ways = [ways[0] + other[0], ways[1] + other[1]];
        }
    }

    /// Counts the reads over tracts that lie in `[start, end)` of a contig with these bases.
    pub(super) fn of(evidence: &[Evidence], bases: &[u8], start: u32, end: u32) -> Self {
        let mut tracts: Vec<Tract> = Vec::new();
        for_each_tract(&bases[start as usize..end as usize], |unit, from, to| {
            let whole = from > 0 && to < (end - start) as usize;
            if whole && (to - from) / unit >= UNITS_MIN[kind_of(unit)] {
                let (start, end) = (start + from as u32, start + to as u32);
                tracts.push(Tract { start, end, unit, reads: 0, slipped: 0, longer: 0 });
            }
        });
        tracts.sort_by_key(|tract| (tract.start, tract.end, tract.unit));
        for read in evidence {
            count(read, &mut tracts);
        }
        let mut tally = Self::default();
        for tract in tracts.iter().filter(|tract| tract.reads >= READS_MIN) {
            let classes = &mut tally.classes[kind_of(tract.unit)];
            let units = ((tract.end - tract.start) as usize / tract.unit).min(classes.len() - 1);
            *classes[units].0.entry((tract.reads, tract.slipped)).or_default() += 1;
            if f64::from(tract.slipped) <= SLIPPED_SHARE_MAX * f64::from(tract.reads) {
                let ways = &mut tally.ways[kind_of(tract.unit)];
                ways[0] += u64::from(tract.longer);
                ways[1] += u64::from(tract.slipped);
            }
        }
        tally
    }
}

/// Counts a read for every tract that it spans.
fn count(read: &Evidence, tracts: &mut [Tract]) {
    let first = tracts.partition_point(|tract| tract.start < read.start + FLANK_BASES);
    for tract in &mut tracts[first..] {
        if tract.start + FLANK_BASES > read.end {
            break;
        }
        if tract.end + FLANK_BASES > read.end || tract.reads >= READS_MAX {
            continue;
        }
        let change: i64 = read
            .placed()
            .filter(|run| (tract.start..=tract.end).contains(&run.reference))
            .map(|run| match run.kind {
                Kind::Insertion => i64::from(run.length),
                Kind::Deletion => -i64::from(run.length),
                Kind::Match | Kind::Clip => 0,
            })
            .sum();
        // Other changes are none of slips.
        if change % (tract.unit as i64) == 0 {
            tract.reads += 1;
            tract.slipped += u8::from(change != 0);
            tract.longer += u8::from(change > 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tally of runs of `units` bases: `sites` of them, each with 30 reads.
    fn tally(units: usize, sites: &[(u8, u32)]) -> SlipTally {
        let mut tally = SlipTally::default();
        for &(slipped, count) in sites {
            tally.classes[0][units].0.insert((30, slipped), count);
        }
        tally
    }

    #[test]
    fn nothing_learnt_leaves_the_usual_penalties() {
        let learnt = Slips::learn(&SlipTally::default());
        for (units, &usual) in HOMOPOLYMER_OPEN.iter().enumerate() {
            assert!((learnt.open(1, units) - usual).abs() <= 1, "{units}");
        }
        assert_eq!(learnt.open(1, 1), 45);
    }

    #[test]
    fn rates_are_those_of_the_reads_and_sites_that_differ_are_told_apart() {
        // Three reads of thirty slip at most sites; at a tenth of them one copy differs.
        let slipping = tally(12, &[(1, 30), (3, 90), (5, 30), (15, 10), (16, 6)]);
        let learnt = Slips::learn(&slipping);
        let habit = learnt.habit(1, 12);
        assert!((0.09..0.12).contains(&habit.rate), "{habit:?}");
        assert!((0.07..0.11).contains(&habit.differs), "{habit:?}");
        // The same sites without any slip.
        let clean = Slips::learn(&tally(12, &[(0, 150), (15, 10), (16, 6)]));
        assert!(clean.open(1, 12) > learnt.open(1, 12) + 15);
        // What is a copy in one sample is a slip in the other.
        let over = |slips: &Slips| {
            let copy = slips.copy_over_slip((12, 1), 1, [23, 7]);
            copy.map(|copy| copy - f64::from(slips.differs((12, 1))))
        };
        assert!(over(&clean) > Some(30.0), "{:?}", over(&clean));
        assert!(over(&learnt) < Some(0.0), "{:?}", over(&learnt));
    }

    #[test]
    fn slips_of_one_way_say_little_of_the_other() {
        let mut tally = tally(10, &[(3, 100)]);
        tally.ways[0] = [290, 300];
        let learnt = Slips::learn(&tally);
        let over = |change| learnt.copy_over_slip((10, 1), change, [20, 10]);
        assert!(over(-1) > over(1).map(|longer| longer + 20.0), "{:?} {:?}", over(-1), over(1));
        assert_eq!(learnt.copy_over_slip((10, 2), 1, [20, 10]), None);
        assert_eq!(learnt.copy_over_slip((1, 1), 1, [20, 10]), None);
    }

    #[test]
    fn merged_tallies_are_those_of_both_parts() {
        let mut one = tally(8, &[(0, 5), (1, 2)]);
        one.ways[0] = [1, 2];
        let mut two = tally(8, &[(1, 3)]);
        two.merge(&one);
        assert_eq!(two.classes[0][8], tally(8, &[(0, 5), (1, 5)]).classes[0][8]);
        assert_eq!(two.ways[0], [1, 2]);
    }
}
