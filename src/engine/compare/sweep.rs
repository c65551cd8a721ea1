//! The sweep along a contig that finds which records of two sets spell the same haplotypes.

use std::collections::HashMap;

use super::{Edit, Record};

/// How many ways are kept at once; more than this only in the densest repeats.
const WAYS_MAX: usize = 2048;

/// One haplotype of both sets: how far each has spelt, and what one has spelt more.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Strand {
    /// Next reference base of truth and of calls.
    next: [u32; 2],
    /// Set that has spelt more: 0 truth, 1 calls.
    leader: usize,
    /// What the leader has spelt more.
    lead: Vec<u8>,
}

impl Strand {
    fn at(position: u32) -> Self {
        Self { next: [position; 2], leader: 0, lead: Vec::new() }
    }

    fn agrees(&self) -> bool {
        self.next[0] == self.next[1] && self.lead.is_empty()
    }

    /// Spells one more base of `set`; false when the two sets differ.
    fn spell(&mut self, set: usize, base: u8) -> bool {
        if self.lead.is_empty() {
            self.leader = set;
        }
        if self.leader == set {
            self.lead.push(base);
            return true;
        }
        let expected = self.lead.remove(0);
        if self.lead.is_empty() {
            self.leader = 0;
        }
        expected == base
    }

    /// Spells the reference up to `position`, both sets in step; false when they differ.
    fn advance(&mut self, bases: &[u8], position: u32) -> bool {
        while self.next[0] < position || self.next[1] < position {
            if self.agrees() {
                self.next = [position; 2];
                return true;
            }
            // The set that has spelt less goes on, unless it is already there.
            let behind = if self.lead.is_empty() {
                usize::from(self.next[1] < self.next[0])
            } else {
                1 - self.leader
            };
            let set = if self.next[behind] < position { behind } else { 1 - behind };
            let base = bases.get(self.next[set] as usize).copied().unwrap_or(4);
            self.next[set] += 1;
            if !self.spell(set, base) {
                return false;
            }
        }
        true
    }

    fn apply(&mut self, set: usize, edit: &Edit, bases: &[u8]) -> bool {
        let Some((start, end, codes)) = edit else { return true };
        if self.next[set] > *start {
            return false;
        }
        while self.next[set] < *start {
            let base = bases.get(self.next[set] as usize).copied().unwrap_or(4);
            self.next[set] += 1;
            if !self.spell(set, base) {
                return false;
            }
        }
        self.next[set] = *end;
        codes.iter().all(|&code| self.spell(set, code))
    }
}

#[derive(Clone)]
struct Way {
    strands: [Strand; 2],
    /// Counted records taken, and all records taken.
    taken: (u32, u32),
    /// Last choice in the list of choices.
    choice: u32,
}

/// The sweep over one contig's records.
pub(super) struct Sweep<'a> {
    bases: &'a [u8],
    records: &'a [Record<'a>],
    ways: Vec<Way>,
    /// Taken records as linked lists: the record and the choice before.
    choices: Vec<(u32, u32)>,
}

const NO_CHOICE: u32 = u32::MAX;

impl<'a> Sweep<'a> {
    pub(super) fn new(bases: &'a [u8], records: &'a [Record<'a>]) -> Self {
        let strands = [Strand::at(0), Strand::at(0)];
        let ways = vec![Way { strands, taken: (0, 0), choice: NO_CHOICE }];
        Self { bases, records, ways, choices: Vec::new() }
    }

    /// Which records are in the best way.
    pub(super) fn run(mut self) -> Vec<bool> {
        for index in 0..self.records.len() {
            self.advance(self.records[index].start);
            self.branch(index);
        }
        self.advance(self.bases.len() as u32 + 1);
        let mut matched = vec![false; self.records.len()];
        let best = self.ways.iter().filter(|way| way.strands.iter().all(Strand::agrees));
        let mut choice = best.max_by_key(|way| way.taken).map_or(NO_CHOICE, |way| way.choice);
        while choice != NO_CHOICE {
            let (record, before) = self.choices[choice as usize];
            matched[record as usize] = true;
            choice = before;
        }
        matched
    }

    /// Brings every way to `position`; of ways that are then the same, keeps the best.
    fn advance(&mut self, position: u32) {
        let mut best: HashMap<[Strand; 2], usize> = HashMap::new();
        let mut kept: Vec<Way> = Vec::with_capacity(self.ways.len());
        for mut way in std::mem::take(&mut self.ways) {
            if !way.strands.iter_mut().all(|strand| strand.advance(self.bases, position)) {
                continue;
            }
            way.strands.sort();
            match best.get(&way.strands) {
                Some(&at) if kept[at].taken >= way.taken => {}
                Some(&at) => kept[at] = way,
                None => {
                    best.insert(way.strands.clone(), kept.len());
                    kept.push(way);
                }
            }
        }
        if kept.len() > WAYS_MAX {
            kept.sort_by_key(|way| std::cmp::Reverse(way.taken));
            // The way in agreement must stay, or a bad choice could end the sweep.
            let agreed = kept.iter().position(|way| way.strands.iter().all(Strand::agrees));
            if let Some(at) = agreed.filter(|&at| at >= WAYS_MAX) {
                kept.swap(at, WAYS_MAX - 1);
            }
            kept.truncate(WAYS_MAX);
        }
        self.ways = kept;
    }

    /// Adds the ways that take record `index`.
    fn branch(&mut self, index: usize) {
        let record = &self.records[index];
        let set = usize::from(!record.from_truth);
        let [first, second] = &record.edits;
        let orders = if first == second { 1 } else { 2 };
        for at in 0..self.ways.len() {
            for order in 0..orders {
                let mut way = self.ways[at].clone();
                let edits = if order == 0 { [first, second] } else { [second, first] };
                let fits = way
                    .strands
                    .iter_mut()
                    .zip(edits)
                    .all(|(strand, edit)| strand.apply(set, edit, self.bases));
                if fits {
                    way.taken.0 += u32::from(record.counted);
                    way.taken.1 += 1;
                    self.choices.push((index as u32, way.choice));
                    way.choice = self.choices.len() as u32 - 1;
                    self.ways.push(way);
                }
            }
        }
    }
}
