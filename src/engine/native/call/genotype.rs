//! The genotype of a window: which haplotypes the sample has, and what that says of each site.

use std::sync::LazyLock;

use super::bias::{strand_bias, strands};
use super::haplotype::{Event, Haplotype, Stretch};
use super::likelihood::Testimony;
use super::phase::{WEIGHT_MAX, WEIGHT_MIN, Witness};
use super::repeat::{indel_prior, tract_at};
use super::slips::Slips;
use crate::kernel::pairhmm::PER_PHRED;

/// Prior against a heterozygous substitution, in Phred: one base in a thousand.
const SUBSTITUTION_PRIOR: i32 = 30;
/// Homozygous sites are half as frequent as heterozygous ones.
const HOMOZYGOUS_PRIOR: i32 = 3;

/// How improbable it is, in Phred, that errors alone make many reads show a substitution.
const SUBSTITUTION_ARTEFACT: i32 = 50;
/// The same of a gap for any other cause than a slip.
const GAP_ARTEFACT: i32 = 42;
const GAP_ARTEFACT_PER_BASE: i32 = 6;

/// Strand bias in Phred that true alleles often have.
const BIAS_BY_CHANCE: f64 = 5.0;

const FAR: i64 = i64::MAX / 4;

/// Penalty of a base or a read that comes from either of two haplotypes.
struct Sum {
    /// What the smaller penalty loses, by the difference to the greater.
    gain: Vec<i32>,
    half: i32,
}

static SUM: LazyLock<Sum> = LazyLock::new(|| {
    let scale = f64::from(PER_PHRED) * 10.0;
    let gain = (0..24 * PER_PHRED)
        .map(|difference| {
            ((1.0 + 10f64.powf(-f64::from(difference) / scale)).log10() * scale).round() as i32
        })
        .collect();
    Sum { gain, half: (2f64.log10() * scale).round() as i32 }
});

impl Sum {
    #[inline]
    fn either(&self, a: i32, b: i32) -> i32 {
        let gain = self.gain.get(a.abs_diff(b) as usize).copied().unwrap_or(0);
        a.min(b) + self.half - gain
    }
}

/// What a window's genotype is found from.
#[derive(Clone, Copy)]
pub(super) struct Case<'a> {
    pub(super) stretch: Stretch<'a>,
    pub(super) haplotypes: &'a [Haplotype],
    pub(super) testimonies: &'a [Testimony],
    pub(super) slips: &'a Slips,
    pub(super) ploidy: u8,
}

/// One or two haplotypes and what they cost.
#[derive(Clone, Copy, Debug)]
struct Pair {
    haplotypes: [usize; 2],
    /// Of the reads.
    reads: i64,
    /// Of the events.
    prior: i64,
}

/// A site's allele on a haplotype.
const REFERENCE_ALLELE: usize = 0;
const OTHER_ALLELE: usize = usize::MAX;

/// A called site before it becomes a record.
#[derive(Clone, Debug)]
pub(super) struct Site {
    /// The alternative alleles.
    pub(super) events: Vec<Event>,
    /// Allele of each copy, 0 the reference; ascending.
    pub(super) genotype: Vec<u8>,
    /// Penalty of no alternative allele at all, beyond the best.
    pub(super) quality: i64,
    /// Penalty of the second best genotype beyond the best.
    pub(super) genotype_quality: i64,
    /// Penalties of the genotypes in VCF order, the least is 0.
    pub(super) likelihoods: Vec<i64>,
    /// Index of the allele of each testimony, where one is clearly better.
    pub(super) alleles: Vec<Option<usize>>,
    /// What a template says of the phase of a heterozygous site.
    pub(super) witnesses: Vec<Witness>,
    /// Whether it is an indel in a repeat where slips are frequent.
    pub(super) slippery: bool,
    /// Whether the quality is what the balance of the alleles leaves.
    pub(super) unbalanced: bool,
}

/// The sites of the best genotype whose events lie in `[start, end)`.
pub(super) fn sites(case: Case<'_>, range: std::ops::Range<u32>) -> Vec<Site> {
    let pairs = pairs(case);
    let cost = |pair: &Pair| pair.reads + pair.prior;
    let Some(best) = pairs.iter().min_by_key(|pair| cost(pair)).copied() else {
        return Vec::new();
    };
    let mut events: Vec<&Event> = best
        .haplotypes
        .iter()
        .flat_map(|&at| &case.haplotypes[at].events)
        .filter(|event| range.contains(&event.position))
        .collect();
    events.sort();
    events.dedup();
    let mut sites = Vec::new();
    for group in events.chunk_by(|a, b| a.position == b.position && a.is_indel() == b.is_indel()) {
        let group: Vec<Event> = group.iter().map(|&event| event.clone()).collect();
        sites.push(site(case, group, &pairs, best));
    }
    sites
}

fn pairs(case: Case<'_>) -> Vec<Pair> {
    let Case { haplotypes, testimonies, ploidy, .. } = case;
    let sum = &*SUM;
    let mut pairs = Vec::with_capacity(haplotypes.len() * (haplotypes.len() + 1) / 2);
    for first in 0..haplotypes.len() {
        for second in first..haplotypes.len() {
            if ploidy == 1 && first != second {
                continue;
            }
            let reads = testimonies
                .iter()
                .map(|testimony| {
                    let (a, b) = (testimony.penalties[first], testimony.penalties[second]);
                    i64::from(if first == second { a } else { sum.either(a, b) })
                })
                .sum();
            let prior = prior(case, &haplotypes[first], &haplotypes[second]);
            pairs.push(Pair { haplotypes: [first, second], reads, prior });
        }
    }
    pairs
}

fn prior(case: Case<'_>, first: &Haplotype, second: &Haplotype) -> i64 {
    let mut sum = 0;
    for event in &first.events {
        let both = second.events.contains(event);
        sum += event_prior(case, event) + if both { HOMOZYGOUS_PRIOR } else { 0 };
    }
    for event in &second.events {
        if !first.events.contains(event) {
            sum += event_prior(case, event);
        }
    }
    i64::from(sum * PER_PHRED)
}

fn event_prior(case: Case<'_>, event: &Event) -> i32 {
    let Case { stretch, slips, .. } = case;
    if event.is_indel() {
        slips.differs(tract_at(stretch.bases, (event.position - stretch.start) as usize))
    } else {
        SUBSTITUTION_PRIOR
    }
}

fn site(case: Case<'_>, events: Vec<Event>, pairs: &[Pair], best: Pair) -> Site {
    let Case { stretch, haplotypes, testimonies, ploidy, .. } = case;
    let alleles: Vec<usize> =
        haplotypes.iter().map(|haplotype| allele_of(haplotype, &events)).collect();
    let count = events.len() + 1;
    let called = genotype_of(&best, &alleles);
    let (mut without, mut second) = (FAR, FAR);
    for pair in pairs {
        let (genotype, cost) = (genotype_of(pair, &alleles), pair.reads + pair.prior);
        if genotype == (REFERENCE_ALLELE, REFERENCE_ALLELE) {
            without = without.min(cost);
        }
        if genotype != called {
            second = second.min(cost);
        }
    }
    let lowest = best.reads + best.prior;
    let likelihoods = likelihoods(case, &events, &alleles, pairs);
    let genotype =
        if ploidy == 1 { vec![called.0 as u8] } else { vec![called.0 as u8, called.1 as u8] };
    let seen: Vec<Option<(usize, i32)>> = testimonies
        .iter()
        .map(|testimony| allele_of_testimony(testimony, &alleles, count, best, &events))
        .collect();
    let alleles = seen.iter().map(|seen| seen.map(|(allele, _)| allele)).collect();
    let slippery = events.iter().any(|event| is_slippery(stretch, event));
    let mut site = Site {
        events,
        genotype,
        quality: without - lowest,
        genotype_quality: second - lowest,
        likelihoods,
        alleles,
        witnesses: Vec::new(),
        slippery,
        unbalanced: false,
    };
    weigh_balance(case, &mut site);
    site.witnesses = witnesses(testimonies, &seen, &site);
    site
}

/// What templates say of the phase of a heterozygous site. A template whose mates lie on both
/// sides of the site says nothing of its own.
fn witnesses(
    testimonies: &[Testimony],
    seen: &[Option<(usize, i32)>],
    site: &Site,
) -> Vec<Witness> {
    let heterozygous = matches!(site.genotype[..], [a, b] if a != b);
    let (Some(first), Some(end)) = (site.events.first(), site.events.iter().map(Event::end).max())
    else {
        return Vec::new();
    };
    let says = |(testimony, seen): (&Testimony, &Option<(usize, i32)>)| {
        let (allele, margin) = (*seen)?;
        let allele = u8::try_from(allele).ok().filter(|allele| site.genotype.contains(allele))?;
        let covered = testimony.parts.iter().any(|part| part.0 <= first.position && part.1 >= end);
        let weight = (margin / PER_PHRED).min(i32::from(WEIGHT_MAX)) as u8;
        let template = testimony.template;
        (covered && weight >= WEIGHT_MIN).then_some(Witness { template, allele, weight })
    };
    if !heterozygous {
        return Vec::new();
    }
    testimonies.iter().zip(seen).filter_map(says).collect()
}

/// Weighs a heterozygous genotype against the suspicion that its rarer allele is an error that
/// many reads share: their number would then be anything, not about a half.
fn weigh_balance(case: Case<'_>, site: &mut Site) {
    let Case { stretch, testimonies, slips, .. } = case;
    let &[a, b] = &site.genotype[..] else { return };
    if a == b || usize::from(b) > site.events.len() {
        return;
    }
    let depth =
        |allele: u8| site.alleles.iter().filter(|seen| **seen == Some(usize::from(allele))).count();
    let (common, rare) = if depth(a) >= depth(b) { (a, b) } else { (b, a) };
    let change = |allele: u8| {
        let event = allele.checked_sub(1).and_then(|at| site.events.get(usize::from(at)));
        event.map_or(0, |event| event.inserted.len() as i64 - i64::from(event.removed))
    };
    let depths = [depth(common), depth(rare)];
    let bias = strand_bias(&strands(testimonies, &site.alleles, site.events.len() + 1));
    // In repeats the suspicion is too strong already for what chance does to the strands.
    let bias = if site.slippery { 0.0 } else { (bias - BIAS_BY_CHANCE).max(0.0) };
    let change = change(rare) - change(common);
    let indel = site.events.iter().any(Event::is_indel);
    let artefact = if indel {
        GAP_ARTEFACT + GAP_ARTEFACT_PER_BASE * change.unsigned_abs().clamp(1, 5) as i32
    } else {
        let runs = site.events.iter().map(|event| joined_run(stretch, event));
        SUBSTITUTION_ARTEFACT.min(slips.joined_run(runs.max().unwrap_or(0)))
    };
    let mut margin =
        i64::from(artefact * PER_PHRED) - unbalance(depths) - (bias * f64::from(PER_PHRED)) as i64;
    if indel {
        let event = &site.events[usize::from(rare.max(common).max(1)) - 1];
        let tract = tract_at(stretch.bases, (event.position - stretch.start) as usize);
        if let Some(over) = slips.copy_over_slip(tract, change, depths) {
            let prior = if rare == 0 { 0 } else { slips.differs(tract) };
            let over = (over * f64::from(PER_PHRED)) as i64 - i64::from(prior * PER_PHRED);
            margin = margin.min(over);
        }
    }
    site.genotype_quality = site.genotype_quality.min(margin.abs());
    if common == 0 {
        site.unbalanced = margin < site.quality;
        site.quality = site.quality.min(margin);
    } else if margin < 0 {
        site.genotype = vec![common; 2];
    }
}

/// Length of the run of equal bases that a substitution makes of those on both sides of it; 0 where
/// it joins none.
fn joined_run(stretch: Stretch<'_>, event: &Event) -> usize {
    let &[base] = &event.inserted[..] else { return 0 };
    let at = (event.position - stretch.start) as usize;
    let same = |other: &&u8| **other == base;
    let before = stretch.bases[..at].iter().rev().take_while(same).count();
    let after = stretch.bases[at + 1..].iter().take_while(same).count();
    if before.min(after) == 0 { 0 } else { before + 1 + after }
}

fn is_slippery(stretch: Stretch<'_>, event: &Event) -> bool {
    let tract = tract_at(stretch.bases, (event.position - stretch.start) as usize);
    event.is_indel() && indel_prior(tract) < indel_prior((1, 1))
}

/// Penalty of the counts at one half each, beyond that at the share they have.
fn unbalance([common, rare]: [usize; 2]) -> i64 {
    let all = (common + rare) as f64;
    let term = |count: usize| {
        if count == 0 { 0.0 } else { count as f64 * (2.0 * count as f64 / all).log10() }
    };
    ((term(common) + term(rare)) * 10.0 * f64::from(PER_PHRED)).round() as i64
}

/// Alleles of the two haplotypes, the smaller first.
fn genotype_of(pair: &Pair, alleles: &[usize]) -> (usize, usize) {
    let [a, b] = pair.haplotypes.map(|at| alleles[at]);
    (a.min(b), a.max(b))
}

/// The least penalty of each genotype in VCF order, without what the site adds to the prior.
fn likelihoods(case: Case<'_>, events: &[Event], alleles: &[usize], pairs: &[Pair]) -> Vec<i64> {
    let ploidy = case.ploidy;
    let count = events.len() + 1;
    let mut likelihoods = vec![FAR; if ploidy == 1 { count } else { count * (count + 1) / 2 }];
    for pair in pairs {
        let (a, b) = genotype_of(pair, alleles);
        if b < count {
            let cost = pair.reads + pair.prior - own_prior(case, events, a, b);
            let index = if ploidy == 1 { a } else { b * (b + 1) / 2 + a };
            likelihoods[index] = likelihoods[index].min(cost);
        }
    }
    let least = likelihoods.iter().copied().min().unwrap_or(0);
    likelihoods.iter_mut().for_each(|likelihood| *likelihood -= least);
    likelihoods
}

fn allele_of(haplotype: &Haplotype, events: &[Event]) -> usize {
    let here = haplotype.events.iter().find(|event| {
        event.position == events[0].position && event.is_indel() == events[0].is_indel()
    });
    match here {
        None => REFERENCE_ALLELE,
        Some(event) => {
            events.iter().position(|known| known == event).map_or(OTHER_ALLELE, |at| at + 1)
        }
    }
}

/// What the site itself adds to the prior of a genotype.
fn own_prior(case: Case<'_>, events: &[Event], a: usize, b: usize) -> i64 {
    let of = |allele: usize| {
        if allele == 0 { 0 } else { event_prior(case, &events[allele - 1]) }
    };
    let sum = if a == b && a > 0 { of(a) + HOMOZYGOUS_PRIOR } else { of(a) + of(b) };
    i64::from(sum * PER_PHRED)
}

/// The allele that a template clearly has, and by how much; `None` when it does not cover the site.
fn allele_of_testimony(
    testimony: &Testimony,
    alleles: &[usize],
    count: usize,
    best: Pair,
    events: &[Event],
) -> Option<(usize, i32)> {
    let end = events.iter().map(Event::end).max()?;
    if testimony.start > events[0].position || testimony.end < end {
        return None;
    }
    let mut penalties = vec![i32::MAX; count];
    for (allele, least) in penalties.iter_mut().enumerate() {
        let called = best.haplotypes.iter().filter(|&&at| alleles[at] == allele);
        let penalty = called.map(|&at| testimony.penalties[at]).min().or_else(|| {
            let any = alleles.iter().zip(&testimony.penalties);
            any.filter(|&(&of, _)| of == allele).map(|(_, &penalty)| penalty).min()
        });
        *least = penalty.unwrap_or(i32::MAX);
    }
    let (at, &least) = penalties.iter().enumerate().min_by_key(|&(_, &penalty)| penalty)?;
    let others = penalties.iter().enumerate().filter(|&(other, _)| other != at);
    let margin = others.map(|(_, penalty)| penalty.saturating_sub(least)).min()?;
    (margin > PER_PHRED).then_some((at, margin))
}
