//! Phase sets: heterozygous sites whose alleles the same templates carry.
//!
//! Each site comes with what templates say of it. A site joins the set whose templates say most,
//! if they are several and agree; else it begins a set. Sets of one site are no sets. All is
//! decided in coordinate order from sums, so that it depends on no cut of the genome.

use std::collections::{HashMap, VecDeque};

use crate::genome::Variant;

/// Sites further apart than this are not of one set unless others lie between them.
const REACH_BASES: u32 = 1000;
/// Least weight in Phred with which a template tells alleles apart, and most that it counts.
pub(super) const WEIGHT_MIN: u8 = 10;
pub(super) const WEIGHT_MAX: u8 = 40;
/// Templates and weight that join a site to a set.
const TEMPLATES_MIN: u32 = 2;
const SUM_MIN: u32 = 50;
/// What speaks against is less than the weight that speaks for it by this factor.
const AGREE_FACTOR: u32 = 6;
/// Number of templates in a set above which those far behind are forgotten.
const TEMPLATES_MAX: usize = 1 << 12;

/// What a template says of a site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Witness {
    /// Number of the template.
    pub template: u64,
    /// The allele that it has.
    pub allele: u8,
    /// How sure that is, in Phred.
    pub weight: u8,
}

struct Set {
    contig: u32,
    /// Positions of its first and last site.
    first: u32,
    last: u32,
    sites: u32,
    /// Number of its first site among all items.
    first_item: u64,
    /// Of each template, for the first haplotype if positive, and where it was seen last.
    templates: HashMap<u64, (i32, u32)>,
}

struct Item<T> {
    item: T,
    /// Number of its set, while that is not known to have two sites.
    waits_for: Option<u64>,
}

/// Takes items in coordinate order and gives them back in the same order, with the phase set.
pub(super) struct Phaser<T> {
    waiting: VecDeque<Item<T>>,
    /// Number of the first one waiting.
    first_item: u64,
    /// By number of the set, which is that of its first item.
    sets: Vec<Set>,
}

/// What may be phased.
pub(super) trait Phased {
    /// The variant, if it is one.
    fn variant(&mut self) -> Option<&mut Variant>;
}

impl<T: Phased> Phaser<T> {
    pub(super) fn new() -> Self {
        Self { waiting: VecDeque::new(), first_item: 0, sets: Vec::new() }
    }

    /// Takes the next item, which lies at `place`: contig and position. `witnesses` is empty for
    /// what is not to be phased.
    pub(super) fn add(&mut self, item: T, place: (u32, u32), witnesses: &[Witness]) {
        let (contig, position) = place;
        self.sets.retain(|set| set.contig == contig && set.last + REACH_BASES >= position);
        let number = self.first_item + self.waiting.len() as u64;
        self.waiting.push_back(Item { item, waits_for: None });
        if witnesses.is_empty() {
            return;
        }
        let Some(variant) = self.waiting.back_mut().and_then(|last| last.item.variant()) else {
            return;
        };
        let &[first, second] = &variant.genotype[..] else { return };
        let votes = |set: &Set| set.votes(witnesses, first);
        let best =
            self.sets.iter_mut().map(|set| (votes(set), set)).filter(|(votes, _)| votes.join());
        let Some((votes, set)) = best.max_by_key(|(votes, set)| (votes.weight(), set.first_item))
        else {
            let mut set = Set::new(place, number);
            set.learn(witnesses, first, second, position);
            self.sets.push(set);
            if let Some(last) = self.waiting.back_mut() {
                last.waits_for = Some(number);
            }
            return;
        };
        let (first, second) = if votes.swapped() { (second, first) } else { (first, second) };
        variant.genotype = vec![first, second];
        variant.phase_set = Some(set.first + 1);
        set.learn(witnesses, first, second, position);
        (set.last, set.sites) = (position, set.sites + 1);
        if set.sites == 2 {
            let at = (set.first_item - self.first_item) as usize;
            let phase_set = Some(set.first + 1);
            if let Some(waiting) = self.waiting.get_mut(at) {
                waiting.waits_for = None;
                if let Some(variant) = waiting.item.variant() {
                    variant.phase_set = phase_set;
                }
            }
        }
    }

    /// The next item whose phase is settled.
    pub(super) fn next(&mut self) -> Option<T> {
        let front = self.waiting.front()?;
        let open = |number: u64| self.sets.iter().any(|set| set.first_item == number);
        if front.waits_for.is_some_and(open) {
            return None;
        }
        self.first_item += 1;
        self.waiting.pop_front().map(|front| front.item)
    }

    /// Nothing more comes at all.
    pub(super) fn close(&mut self) {
        self.sets.clear();
    }
}

/// What a set's templates say of a site: templates and weights for its genotype as it stands, and
/// for the other order.
#[derive(Clone, Copy, Default)]
struct Votes {
    templates: [u32; 2],
    weights: [u32; 2],
}

impl Votes {
    fn swapped(&self) -> bool {
        self.weights[1] > self.weights[0]
    }

    fn weight(&self) -> u32 {
        self.weights[usize::from(self.swapped())]
    }

    fn join(&self) -> bool {
        let winner = usize::from(self.swapped());
        self.templates[winner] >= TEMPLATES_MIN
            && self.weights[winner] >= SUM_MIN
            && self.weights[1 - winner] * AGREE_FACTOR <= self.weights[winner]
    }
}

impl Set {
    fn new(place: (u32, u32), first_item: u64) -> Self {
        let (contig, first) = place;
        Self { contig, first, last: first, sites: 1, first_item, templates: HashMap::new() }
    }

    fn votes(&self, witnesses: &[Witness], first: u8) -> Votes {
        let mut votes = Votes::default();
        for witness in witnesses {
            let Some(&(known, _)) = self.templates.get(&witness.template) else { continue };
            let side = usize::from((known > 0) != (witness.allele == first));
            votes.templates[side] += u32::from(known != 0);
            votes.weights[side] += known.unsigned_abs().min(u32::from(witness.weight));
        }
        votes
    }

    fn learn(&mut self, witnesses: &[Witness], first: u8, second: u8, position: u32) {
        for witness in witnesses {
            let sign = i32::from(witness.allele == first) - i32::from(witness.allele == second);
            let known = self.templates.entry(witness.template).or_default();
            let limit = i32::from(WEIGHT_MAX);
            *known = ((known.0 + sign * i32::from(witness.weight)).clamp(-limit, limit), position);
        }
        if self.templates.len() > TEMPLATES_MAX {
            self.templates.retain(|_, known| known.1 + REACH_BASES >= position);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Phased for Variant {
        fn variant(&mut self) -> Option<&mut Variant> {
            Some(self)
        }
    }

    fn site(position: u32) -> Variant {
        Variant {
            contig: 0,
            position,
            reference: vec![b'A'],
            alternates: vec![vec![b'C']],
            quality: 50.0,
            filters: vec![],
            genotype: vec![0, 1],
            phase_set: None,
            depth: 20,
            allele_depths: vec![10, 10],
            genotype_quality: 50,
            likelihoods: vec![],
            information: String::new(),
        }
    }

    fn witnesses(templates: &[(u64, u8)]) -> Vec<Witness> {
        let witness = |&(template, allele)| Witness { template, allele, weight: 30 };
        templates.iter().map(witness).collect()
    }

    fn phased(sites: &[(u32, &[(u64, u8)])]) -> Vec<(u32, Vec<u8>, Option<u32>)> {
        let mut phaser = Phaser::new();
        let mut found = Vec::new();
        for &(position, templates) in sites {
            phaser.add(site(position), (0, position), &witnesses(templates));
            while let Some(site) = phaser.next() {
                found.push((site.position, site.genotype, site.phase_set));
            }
        }
        phaser.close();
        while let Some(site) = phaser.next() {
            found.push((site.position, site.genotype, site.phase_set));
        }
        found
    }

    #[test]
    fn templates_tie_sites_and_one_is_not_enough() {
        let found = phased(&[
            (10, &[(1, 0), (2, 0), (3, 1), (4, 1)]),
            (20, &[(1, 1), (2, 1), (3, 0), (9, 1)]),
            (30, &[(9, 0), (8, 1)]),
            (40, &[]),
            (900, &[(2, 1), (1, 1), (4, 0)]),
            (3000, &[(1, 0), (2, 0), (3, 0)]),
        ]);
        assert_eq!(
            found,
            [
                (10, vec![0, 1], Some(11)),
                (20, vec![1, 0], Some(11)),
                (30, vec![0, 1], None),
                (40, vec![0, 1], None),
                (900, vec![1, 0], Some(11)),
                (3000, vec![0, 1], None),
            ]
        );
    }

    #[test]
    fn templates_that_disagree_tie_nothing() {
        let found = phased(&[
            (10, &[(1, 0), (2, 0), (3, 1), (4, 1)]),
            (20, &[(1, 0), (2, 0), (3, 1), (4, 0)]),
        ]);
        assert!(found.iter().all(|site| site.2.is_none()));
    }
}
