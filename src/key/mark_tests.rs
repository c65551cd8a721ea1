//! The mark under crashes at every point, with writes that are lost and torn.

use std::collections::HashSet;
use std::ops::Range;
use std::time::Duration;

use proptest::prelude::*;

use super::super::ledger::{LEDGER_AT, Purpose};
use super::*;

const LABEL: &str = "a->b sent.mark";

/// What a crash does to a write that was not synced.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Lost,
    Whole,
    /// Only the first bytes arrived.
    Head(usize),
    /// Only the last bytes arrived.
    Tail(usize),
}

impl Fate {
    fn arrived(self, length: usize) -> Range<usize> {
        match self {
            Fate::Lost => 0..0,
            Fate::Whole => 0..length,
            Fate::Head(count) => 0..count.min(length),
            Fate::Tail(count) => length.saturating_sub(count)..length,
        }
    }
}

/// Slots and a ledger in memory that crash at the n-th operation.
#[derive(Clone)]
struct Disk {
    /// What survives, and what a running program sees.
    durable: Vec<u8>,
    seen: Vec<u8>,
    /// Where and how long the writes are that were not synced.
    pending: Vec<Range<usize>>,
    operations_left: usize,
    /// Of the slot and of the ledger entry.
    fates: (Fate, Fate),
    /// Whether `sync` only says that it did.
    lies: bool,
}

impl Disk {
    fn new(lies: bool) -> Self {
        let blank = vec![0; LEDGER_AT + 64 * RECORD_BYTES];
        Self {
            durable: blank.clone(),
            seen: blank,
            pending: Vec::new(),
            operations_left: usize::MAX,
            fates: (Fate::Whole, Fate::Whole),
            lies,
        }
    }

    fn step(&mut self) -> io::Result<()> {
        if self.operations_left == 0 {
            return Err(io::Error::other("crashed"));
        }
        self.operations_left -= 1;
        Ok(())
    }

    fn write(&mut self, at: usize, bytes: &[u8]) -> io::Result<()> {
        self.step()?;
        let place = at..at + bytes.len();
        self.seen[place.clone()].copy_from_slice(bytes);
        self.pending.push(place);
        Ok(())
    }

    fn restart(&mut self) {
        for place in std::mem::take(&mut self.pending) {
            let fate = if place.start < LEDGER_AT { self.fates.0 } else { self.fates.1 };
            let arrived = fate.arrived(place.len());
            let arrived = place.start + arrived.start..place.start + arrived.end;
            self.durable[arrived.clone()].copy_from_slice(&self.seen[arrived]);
        }
        self.seen.clone_from(&self.durable);
        self.operations_left = usize::MAX;
    }
}

impl MarkMedium for Disk {
    fn read_slot(&mut self, slot: usize) -> io::Result<Slot> {
        let bytes = self.seen[slot * SLOT_BYTES..][..SLOT_BYTES].to_vec();
        Ok(bytes.into_boxed_slice().try_into().unwrap())
    }

    fn write_slot(&mut self, slot: usize, bytes: &Slot) -> io::Result<()> {
        self.write(slot * SLOT_BYTES, &bytes[..])
    }

    fn read_entries(&mut self, index: u64) -> io::Result<Vec<u8>> {
        Ok(self.seen[LEDGER_AT + index as usize * RECORD_BYTES..].to_vec())
    }

    fn write_entry(&mut self, index: u64, bytes: &[u8; RECORD_BYTES]) -> io::Result<()> {
        self.write(LEDGER_AT + index as usize * RECORD_BYTES, bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.step()?;
        if !self.lies {
            self.pending.clear();
            self.durable.clone_from(&self.seen);
        }
        Ok(())
    }
}

fn record(position: u64, units: u64) -> Record {
    Record {
        range: KeyRange { position, units },
        role: Role::Sender,
        purpose: Purpose::Session,
        session: 1,
        time: Duration::ZERO,
    }
}

/// One life of a sender: it reserves and uses keys until the disk crashes.
#[derive(Clone, Copy, Debug)]
struct Life {
    operations: usize,
    fates: (Fate, Fate),
    /// Units of each reservation, and how many of them are used.
    reservation: u64,
    used: u64,
}

/// Where a restarted sender goes on.
type Resume = fn(&Mark) -> u64;

/// Runs the lives on one disk; false when a unit was used twice or a crash looked like fraud.
fn never_twice(mut disk: Disk, lives: &[Life], resume: Resume) -> bool {
    let mut used = HashSet::new();
    for life in lives {
        disk.restart();
        (disk.operations_left, disk.fates) = (life.operations, life.fates);
        for _ in 0..4 {
            let mut mark = match settle(&mut disk, LABEL) {
                Ok(mark) => mark,
                Err(LoadError::Medium(_)) => break,
                Err(LoadError::Contradiction(_)) => return false,
            };
            let next = resume(&mark);
            mark.raise(next + life.reservation);
            if commit(&mut disk, LABEL, &mut mark, &record(next, life.reservation)).is_err() {
                break;
            }
            if !(next..next + life.used.min(life.reservation)).all(|unit| used.insert(unit)) {
                return false;
            }
        }
    }
    true
}

const FATES: [(Fate, Fate); 12] = [
    (Fate::Lost, Fate::Lost),
    (Fate::Lost, Fate::Whole),
    (Fate::Lost, Fate::Head(20)),
    (Fate::Whole, Fate::Lost),
    (Fate::Whole, Fate::Whole),
    (Fate::Whole, Fate::Tail(30)),
    (Fate::Head(20), Fate::Whole),
    (Fate::Head(28), Fate::Lost),
    (Fate::Head(512), Fate::Whole),
    (Fate::Head(4080), Fate::Head(40)),
    (Fate::Tail(512), Fate::Whole),
    (Fate::Tail(4070), Fate::Lost),
];

/// Every crash point and fate of two lives, the first again, then one that meets no crash.
fn every_schedule(disk: &Disk, resume: Resume) -> bool {
    let crashes: Vec<_> = (0..=7)
        .flat_map(|operations| FATES.map(|fates| (operations, fates)))
        .map(|(operations, fates)| Life { operations, fates, reservation: 4, used: 3 })
        .collect();
    let calm = Life { operations: 100, fates: FATES[4], reservation: 3, used: 3 };
    crashes.iter().all(|first| {
        let lives = |second| [*first, second, *first, calm];
        crashes.iter().all(|second| never_twice(disk.clone(), &lives(*second), resume))
    })
}

#[test]
fn no_crash_makes_a_unit_be_used_twice() {
    assert!(every_schedule(&Disk::new(false), Mark::position));
}

#[test]
fn resuming_inside_a_reservation_is_caught() {
    assert!(!every_schedule(&Disk::new(false), |mark| mark.position().saturating_sub(2)));
}

#[test]
fn using_keys_before_the_mark_is_durable_is_caught() {
    assert!(!every_schedule(&Disk::new(true), Mark::position));
}

#[test]
fn one_damaged_slot_is_survived_and_two_are_not() {
    let mut disk = Disk::new(false);
    for position in [10, 20, 30] {
        let mut mark = settle(&mut disk, LABEL).unwrap();
        mark.raise(position);
        commit(&mut disk, LABEL, &mut mark, &record(position - 10, 10)).unwrap();
    }
    let contradicts =
        |disk: &mut Disk, label| matches!(load(disk, label), Err(LoadError::Contradiction(_)));
    assert!(contradicts(&mut disk.clone(), "b->a sent.mark"), "another stream's");
    let mut newest = disk.clone();
    newest.seen[SLOT_BYTES + 30] ^= 1;
    assert_eq!(load(&mut newest, LABEL).unwrap().position(), 30, "known from the ledger");
    disk.seen[30] ^= 1;
    assert_eq!(load(&mut disk, LABEL).unwrap().position(), 30);
    disk.seen[SLOT_BYTES + 30] ^= 1;
    assert!(contradicts(&mut disk, LABEL));
    assert_eq!(salvage(&mut disk, LABEL).unwrap().position(), 30);
}

#[test]
fn more_gaps_than_a_slot_holds_lose_key_and_nothing_else() {
    let mut mark = Mark::default();
    for index in 0..1000 {
        assert!(mark.claim(&KeyRange { position: 2 * index + 1, units: 1 }));
    }
    assert!(!mark.is_free(&KeyRange { position: 0, units: 1 }));
    assert!(mark.is_free(&KeyRange { position: 1998, units: 1 }));
    let slot = mark.encode(LABEL);
    assert_eq!(Mark::decode(&slot, LABEL), Some(mark));
}

fn fates() -> impl Strategy<Value = Fate> {
    prop_oneof![
        Just(Fate::Lost),
        Just(Fate::Whole),
        (0..SLOT_BYTES).prop_map(Fate::Head),
        (0..SLOT_BYTES).prop_map(Fate::Tail),
    ]
}

proptest! {
    #[test]
    fn no_schedule_of_crashes_makes_a_unit_be_used_twice(
        lives in prop::collection::vec(
            (0usize..12, (fates(), fates()), 1u64..20, 0u64..20).prop_map(
                |(operations, fates, reservation, used)| {
                    Life { operations, fates, reservation, used }
                }
            ),
            1..8,
        ),
    ) {
        prop_assert!(never_twice(Disk::new(false), &lives, Mark::position));
    }

    /// The model: a set of all claimed units.
    #[test]
    fn claims_agree_with_a_set_of_units(
        claims in prop::collection::vec((0u64..200, 1u64..20), 1..60),
    ) {
        let mut mark = Mark::default();
        let mut set = HashSet::new();
        for (position, units) in claims {
            let range = KeyRange { position, units };
            let free = (position..range.end()).all(|unit| !set.contains(&unit));
            // A range that reaches from a gap over the position is refused although it is free.
            let reaches_over = position < mark.position() && range.end() > mark.position();
            prop_assert_eq!(mark.is_free(&range), free && !reaches_over);
            let claimed = mark.claim(&range);
            prop_assert_eq!(claimed, free && !reaches_over);
            if claimed {
                set.extend(position..range.end());
            }
            prop_assert_eq!(Mark::decode(&mark.encode(LABEL), LABEL), Some(mark.clone()));
        }
    }
}
