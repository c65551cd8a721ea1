use std::collections::HashSet;

use proptest::prelude::*;

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

/// Two slots in memory that crash at the n-th operation.
#[derive(Clone)]
struct Disk {
    durable: [Slot; 2],
    pending: Option<(usize, Slot)>,
    operations_left: usize,
    fate: Fate,
    /// Whether `sync` only says that it did.
    lies: bool,
}

impl Disk {
    fn new(lies: bool) -> Self {
        let blank = || Box::new([0; SLOT_BYTES]);
        Self {
            durable: [blank(), blank()],
            pending: None,
            operations_left: usize::MAX,
            fate: Fate::Whole,
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

    fn restart(&mut self) {
        if let Some((slot, bytes)) = self.pending.take() {
            let arrived = match self.fate {
                Fate::Lost => 0..0,
                Fate::Whole => 0..SLOT_BYTES,
                Fate::Head(count) => 0..count,
                Fate::Tail(count) => SLOT_BYTES - count..SLOT_BYTES,
            };
            self.durable[slot][arrived.clone()].copy_from_slice(&bytes[arrived]);
        }
        self.operations_left = usize::MAX;
    }
}

impl MarkMedium for Disk {
    fn read_slot(&mut self, slot: usize) -> io::Result<Slot> {
        Ok(match &self.pending {
            Some((pending, bytes)) if *pending == slot => bytes.clone(),
            _ => self.durable[slot].clone(),
        })
    }

    fn write_slot(&mut self, slot: usize, bytes: &Slot) -> io::Result<()> {
        self.step()?;
        if let Some((slot, bytes)) = self.pending.take() {
            assert!(self.lies, "a second write before the sync of the first");
            self.durable[slot] = bytes;
        }
        self.pending = Some((slot, bytes.clone()));
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.step()?;
        if !self.lies
            && let Some((slot, bytes)) = self.pending.take()
        {
            self.durable[slot] = bytes;
        }
        Ok(())
    }
}

/// One life of a sender: it reserves and uses keys until the disk crashes.
#[derive(Clone, Copy, Debug)]
struct Life {
    operations: usize,
    fate: Fate,
    /// Units of each reservation, and how many of them are used.
    reservation: u64,
    used: u64,
}

/// Where a restarted sender goes on.
type Resume = fn(&Mark) -> u64;

/// Runs the lives on one disk; false when a unit was used twice.
fn never_twice(mut disk: Disk, lives: &[Life], resume: Resume) -> bool {
    let mut used = HashSet::new();
    for life in lives {
        disk.restart();
        (disk.operations_left, disk.fate) = (life.operations, life.fate);
        let mark = load(&mut disk, LABEL).unwrap();
        let mut next = resume(&mark.expect("a crash never spoils both slots"));
        for _ in 0..4 {
            let mut mark = load(&mut disk, LABEL).unwrap().unwrap();
            mark.raise(next + life.reservation);
            if store(&mut disk, LABEL, &mut mark).is_err() {
                break;
            }
            if !(next..next + life.used.min(life.reservation)).all(|unit| used.insert(unit)) {
                return false;
            }
            next += life.reservation;
        }
    }
    true
}

const FATES: [Fate; 8] = [
    Fate::Lost,
    Fate::Whole,
    Fate::Head(20),
    Fate::Head(28),
    Fate::Head(512),
    Fate::Head(4080),
    Fate::Tail(512),
    Fate::Tail(4070),
];

/// Every crash point and fate of three lives, then one that meets no crash.
fn every_schedule(disk: &Disk, resume: Resume) -> bool {
    let crashes: Vec<_> = (0..=6)
        .flat_map(|operations| FATES.map(|fate| (operations, fate)))
        .map(|(operations, fate)| Life { operations, fate, reservation: 4, used: 3 })
        .collect();
    let calm = Life { operations: 100, fate: Fate::Whole, reservation: 3, used: 3 };
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
    let mut mark = Mark::default();
    for position in [10, 20] {
        mark.raise(position);
        store(&mut disk, LABEL, &mut mark).unwrap();
    }
    assert_eq!(load(&mut disk, "b->a sent.mark").unwrap(), None, "another stream's");
    disk.durable[0][30] ^= 1;
    assert_eq!(load(&mut disk, LABEL).unwrap().unwrap().position(), 10);
    disk.durable[1][30] ^= 1;
    assert_eq!(load(&mut disk, LABEL).unwrap(), None);
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
            (0usize..10, fates(), 1u64..20, 0u64..20).prop_map(
                |(operations, fate, reservation, used)| Life { operations, fate, reservation, used }
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
