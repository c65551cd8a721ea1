//! The memory of the keeper: seeds by body and sub-block, in pages that reach no file.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{BodyId, SEED_BYTES, SUB_BLOCK_UNITS, Seed, Seeds, sub_blocks};
use crate::device::cpu::secret_pages::{Guard, SecretPages};
use crate::key::{Error, KeyRange};

/// Bytes of memory that are mapped at once.
const REGION_BYTES: usize = 64 << 10;
const SLOTS_PER_REGION: usize = REGION_BYTES / SEED_BYTES;
/// Most seeds: key of 2 TiB.
const SEEDS_MAX: usize = 2 << 20;

/// Seeds in the memory of this process.
#[derive(Default)]
pub struct Vault(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    regions: Vec<SecretPages>,
    free: Vec<Slot>,
    bodies: BTreeMap<BodyId, Seeded>,
}

/// Where a seed lies: region and place in it.
type Slot = (usize, usize);

/// The seeds of one body.
struct Seeded {
    units: u64,
    blocks: Vec<Block>,
}

enum Block {
    /// Not given yet.
    Absent,
    /// The seed, and which units of the sub-block are spent: ranges, ascending and apart.
    Here(Slot, Vec<(u64, u64)>),
    /// Spent.
    Gone,
}

impl Vault {
    /// The weakest guard of any page, once there is one.
    pub fn guard(&self) -> Option<Guard> {
        self.lock().regions.iter().map(SecretPages::guard).min()
    }

    /// How many seeds there are.
    pub fn len(&self) -> usize {
        let inner = self.lock();
        inner.regions.len() * SLOTS_PER_REGION - inner.free.len()
    }

    /// Whether there is no seed.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why the vault refuses: what a client is told.
pub(super) const REFUSALS: [&str; 6] = [
    "has no room for more seeds",
    "has no memory for more seeds",
    "was given seeds that its body has no place for",
    "knows another body of this name",
    "has another seed there",
    "had a seed there, which was spent",
];

fn refused(index: usize) -> Error {
    Error::Keeper { what: REFUSALS[index], source: None }
}

impl Inner {
    fn slot(&self, (region, place): Slot) -> &[u8] {
        &self.regions[region][place * SEED_BYTES..][..SEED_BYTES]
    }

    fn slot_mut(&mut self, (region, place): Slot) -> &mut [u8] {
        &mut self.regions[region][place * SEED_BYTES..][..SEED_BYTES]
    }

    fn keep(&mut self, seed: &Seed) -> Result<Slot, Error> {
        if self.free.is_empty() {
            if (self.regions.len() + 1) * SLOTS_PER_REGION > SEEDS_MAX {
                return Err(refused(0));
            }
            let pages = SecretPages::new(REGION_BYTES)
                .map_err(|source| Error::Keeper { what: REFUSALS[1], source: Some(source) })?;
            let region = self.regions.len();
            self.regions.push(pages);
            self.free.extend((0..SLOTS_PER_REGION).rev().map(|place| (region, place)));
        }
        let slot = self.free.pop().ok_or_else(|| refused(0))?;
        self.slot_mut(slot).copy_from_slice(seed.bytes());
        Ok(slot)
    }

    fn destroy(&mut self, slot: Slot) {
        crate::base::chunk::wipe(self.slot_mut(slot));
        self.free.push(slot);
    }
}

impl Seeds for Vault {
    fn put(&self, body: BodyId, units: u64, first: u64, seeds: &[Seed]) -> Result<(), Error> {
        let count = usize::try_from(sub_blocks(units)).unwrap_or(usize::MAX);
        let first = usize::try_from(first).unwrap_or(usize::MAX);
        let fits = first.checked_add(seeds.len()).is_some_and(|end| end <= count);
        if count > SEEDS_MAX || !fits {
            return Err(refused(2));
        }
        let inner = &mut *self.lock();
        let new = || Seeded { units, blocks: (0..count).map(|_| Block::Absent).collect() };
        if inner.bodies.entry(body).or_insert_with(new).units != units {
            return Err(refused(3));
        }
        for (at, seed) in (first..).zip(seeds) {
            match inner.bodies[&body].blocks[at] {
                Block::Absent => {
                    let slot = inner.keep(seed)?;
                    let seeded = inner.bodies.get_mut(&body).expect("made above");
                    seeded.blocks[at] = Block::Here(slot, Vec::new());
                }
                Block::Here(slot, _) if seed.is(inner.slot(slot)) => {}
                Block::Here(..) => return Err(refused(4)),
                Block::Gone => return Err(refused(5)),
            }
        }
        Ok(())
    }

    fn fetch(&self, body: BodyId, first: u64, count: usize) -> Result<Vec<Option<Seed>>, Error> {
        let inner = &mut *self.lock();
        let slot = |at: u64| match inner.bodies.get(&body)?.blocks.get(usize::try_from(at).ok()?)? {
            Block::Here(slot, _) => Some(*slot),
            Block::Absent | Block::Gone => None,
        };
        let slots: Vec<_> = (0..count.min(super::SEEDS_MAX) as u64)
            .map(|offset| slot(first.checked_add(offset)?))
            .collect();
        Ok(slots.into_iter().map(|slot| slot.map(|slot| Seed::of(inner.slot(slot)))).collect())
    }

    fn spend(&self, body: BodyId, units: KeyRange) -> Result<(), Error> {
        let inner = &mut *self.lock();
        let Some(seeded) = inner.bodies.get_mut(&body) else { return Ok(()) };
        let end = units.end().min(seeded.units);
        let mut spent = Vec::new();
        for number in units.position / SUB_BLOCK_UNITS..sub_blocks(end) {
            let start = number * SUB_BLOCK_UNITS;
            let length = SUB_BLOCK_UNITS.min(seeded.units - start);
            let block = &mut seeded.blocks[number as usize];
            let Block::Here(slot, ranges) = block else { continue };
            let from = units.position.max(start) - start;
            add_range(ranges, (from, end.min(start + length) - start));
            if ranges[..] == [(0, length)] {
                spent.push(*slot);
                *block = Block::Gone;
            }
        }
        if seeded.blocks.iter().all(|block| matches!(block, Block::Gone)) {
            inner.bodies.remove(&body);
        }
        spent.into_iter().for_each(|slot| inner.destroy(slot));
        Ok(())
    }

    fn present(&self, body: BodyId) -> Result<Vec<KeyRange>, Error> {
        let inner = self.lock();
        let mut ranges: Vec<KeyRange> = Vec::new();
        let blocks = inner.bodies.get(&body).map_or(&[][..], |seeded| &seeded.blocks);
        for (number, block) in (0..).zip(blocks) {
            if !matches!(block, Block::Here(..)) {
                continue;
            }
            match ranges.last_mut() {
                Some(last) if last.end() == number => last.units += 1,
                _ => ranges.push(KeyRange { position: number, units: 1 }),
            }
        }
        Ok(ranges)
    }
}

/// Adds a range to ranges that are ascending and apart.
fn add_range(ranges: &mut Vec<(u64, u64)>, (start, end): (u64, u64)) {
    if start >= end {
        return;
    }
    let first = ranges.partition_point(|range| range.1 < start);
    let last = ranges.partition_point(|range| range.0 <= end);
    let (mut start, mut end) = (start, end);
    for range in &ranges[first..last] {
        (start, end) = (start.min(range.0), end.max(range.1));
    }
    ranges.splice(first..last, [(start, end)]);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BODY: BodyId = BodyId([7; 17]);

    fn seed(byte: u8) -> Seed {
        Seed::of(&[byte; SEED_BYTES])
    }

    fn filled(units: u64) -> Vault {
        let vault = Vault::default();
        let seeds: Vec<_> = (0..sub_blocks(units)).map(|n| seed(n as u8 + 1)).collect();
        vault.put(BODY, units, 0, &seeds).unwrap();
        vault
    }

    #[test]
    fn what_was_put_is_fetched_until_all_of_it_is_spent() {
        let vault = filled(2 * SUB_BLOCK_UNITS + 5);
        assert_eq!(vault.len(), 3);
        let fetched = vault.fetch(BODY, 1, 5).unwrap();
        assert!(fetched[0].as_ref().unwrap().is(&[2; SEED_BYTES]));
        assert!(fetched[1].is_some() && fetched[2].is_none() && fetched.len() == 5);
        vault.spend(BODY, KeyRange { position: 10, units: SUB_BLOCK_UNITS }).unwrap();
        assert_eq!(vault.len(), 3, "each of the two has a part left");
        vault.spend(BODY, KeyRange { position: 0, units: 10 }).unwrap();
        let left = KeyRange { position: 1, units: 2 };
        assert_eq!((vault.len(), vault.present(BODY).unwrap()), (2, vec![left]));
        assert!(vault.fetch(BODY, 0, 1).unwrap()[0].is_none());
        assert!(vault.put(BODY, 2 * SUB_BLOCK_UNITS + 5, 0, &[seed(1)]).is_err(), "never again");
        vault.spend(BODY, KeyRange { position: 2 * SUB_BLOCK_UNITS, units: 5 }).unwrap();
        vault.spend(BODY, KeyRange { position: 0, units: u64::MAX }).unwrap();
        assert!(vault.is_empty() && vault.present(BODY).unwrap().is_empty());
    }

    #[test]
    fn a_spent_seed_is_gone_from_its_pages() {
        let vault = filled(SUB_BLOCK_UNITS);
        let pages = |vault: &Vault| vault.lock().regions[0].contains(&1);
        assert!(pages(&vault));
        vault.spend(BODY, KeyRange { position: 0, units: SUB_BLOCK_UNITS }).unwrap();
        assert!(!pages(&vault));
    }

    #[test]
    fn contradictions_are_refused_and_repetitions_are_not() {
        let vault = filled(SUB_BLOCK_UNITS);
        vault.put(BODY, SUB_BLOCK_UNITS, 0, &[seed(1)]).unwrap();
        assert!(vault.put(BODY, SUB_BLOCK_UNITS, 0, &[seed(2)]).is_err());
        assert!(vault.put(BODY, SUB_BLOCK_UNITS, 1, &[seed(2)]).is_err());
        assert!(vault.put(BODY, SUB_BLOCK_UNITS + 1, 0, &[seed(1)]).is_err());
        assert!(vault.put(BodyId([1; 17]), u64::MAX, 0, &[]).is_err());
    }

    proptest! {
        #[test]
        fn spent_ranges_agree_with_a_table(
            pieces in proptest::collection::vec((0u64..60, 0u64..20), 0..30),
        ) {
            let (mut ranges, mut table) = (Vec::new(), [false; 80]);
            for (start, length) in pieces {
                add_range(&mut ranges, (start, start + length));
                table[start as usize..(start + length) as usize].fill(true);
            }
            let covered = |unit: u64| ranges.iter().any(|(a, b)| (*a..*b).contains(&unit));
            prop_assert!((0..80).all(|unit| covered(unit) == table[unit as usize]));
            prop_assert!(ranges.windows(2).all(|pair| pair[0].1 < pair[1].0));
        }
    }
}
