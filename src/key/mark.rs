//! The mark of one stream end: up to where its keys are reserved or claimed, in two slots.
//!
//! A slot is 4 KiB: magic, version, number of gaps, sequence number, position, suspicion, ranges of
//! greeting keys, the gaps, and a digest over all of it and the name of the stream end. Writes alternate between the slots. The
//! ledger entry number `n - 1` belongs to the mark with sequence number `n`. Both are written
//! together and synced before any key below the new position is used, so that a crash at any point
//! leaves the slot of the write before, and at most one entry that the mark does not know: its
//! keys are then given up. More entries than that mean that the mark was set back.
//!
//! The mark of a sender is a position alone. A follower also keeps the gaps below it: reservations
//! of sessions that run at the same time reach it in any order.

use std::io;

use super::KeyRange;
use super::greeting::{self, GreetingKeys};
use super::ledger::{Entry, Purpose, RECORD_BYTES, Record, Role};

/// Bytes of one slot: the unit that disks promise least badly to write whole.
pub const SLOT_BYTES: usize = 4096;

/// Most gaps that are remembered; the lowest are given up first, which only loses key.
pub const GAPS_MAX: usize = 240;

const MAGIC: [u8; 8] = *b"dsgdmark";
const VERSION: u32 = 2;
const SUSPICION_AT: usize = 32;
const GREETINGS_AT: usize = 40;
const GREETING_BYTES: usize = 24;
const GAPS_AT: usize = 96;
const DIGEST_AT: usize = SLOT_BYTES - 32;

/// The bytes of one slot.
pub type Slot = Box<[u8; SLOT_BYTES]>;

/// Where the slots and the ledger are kept: a file, or memory that loses and tears writes under
/// test. Until [`sync`](Self::sync) returns, any part of anything written may be lost.
pub trait MarkMedium {
    /// Reads slot 0 or 1; zeros where nothing was ever written.
    fn read_slot(&mut self, slot: usize) -> io::Result<Slot>;
    /// Writes slot 0 or 1.
    fn write_slot(&mut self, slot: usize, bytes: &Slot) -> io::Result<()>;
    /// Reads the ledger from the entry `index` to its end: whole entries, zeros where nothing was
    /// ever written.
    fn read_entries(&mut self, index: u64) -> io::Result<Vec<u8>>;
    /// Writes the entry `index`.
    fn write_entry(&mut self, index: u64, bytes: &[u8; RECORD_BYTES]) -> io::Result<()>;
    /// Makes everything written durable.
    fn sync(&mut self) -> io::Result<()>;
}

/// Why a mark could not be read.
#[derive(Debug)]
pub enum LoadError {
    /// The medium failed.
    Medium(io::Error),
    /// What it holds cannot come from a crash; says what contradicts what.
    Contradiction(&'static str),
}

impl From<io::Error> for LoadError {
    fn from(error: io::Error) -> Self {
        Self::Medium(error)
    }
}

/// Why a change was not made durable.
#[derive(Debug)]
pub enum UpdateError<E> {
    /// The mark could not be read.
    Load(LoadError),
    /// The change was refused; nothing has changed.
    Change(E),
    /// The mark or its entry could not be written: what was to be spent is given up.
    Commit(io::Error),
}

/// Why a stream end is not to be used any more, until an operator gave up its keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suspicion {
    /// The peer knows of keys in use that this record has never heard of.
    Behind,
    /// The peer has, as used, keys that this record takes for fresh.
    Refused,
    /// The record is gone, though there was one.
    Removed,
}

impl Suspicion {
    const ALL: [(u32, Suspicion); 3] =
        [(1, Suspicion::Behind), (2, Suspicion::Refused), (3, Suspicion::Removed)];

    /// What contradicts what.
    pub fn reason(self) -> &'static str {
        match self {
            Suspicion::Behind => {
                "the peer has a higher mark than this site, whose state was set back"
            }
            Suspicion::Refused => {
                "the peer has keys as used that are fresh by this site's record, which was set back"
            }
            Suspicion::Removed => "its record was removed",
        }
    }

    fn code(suspicion: Option<Suspicion>) -> u32 {
        let known = Self::ALL.iter().find(|(_, known)| Some(*known) == suspicion);
        known.map_or(0, |(code, _)| *code)
    }
}

/// Which keys of a stream are spent, as this end knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    sequence: u64,
    position: u64,
    gaps: Vec<KeyRange>,
    /// The newest first.
    greetings: Vec<GreetingKeys>,
    suspicion: Option<Suspicion>,
}

impl Mark {
    /// How often it was changed.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// The ranges of greeting keys that it holds, the newest first.
    pub fn greetings(&self) -> &[GreetingKeys] {
        &self.greetings
    }

    /// Uses a greeting key of a range that the peer holds too; which, and of the range that begins
    /// where. A peer that holds none has never been called: it finds the first range by itself.
    pub fn take_greeting(&mut self, held: &[u64]) -> Option<(u64, u32)> {
        let common = |keys: &&mut GreetingKeys| held.is_empty() || held.contains(&keys.start);
        self.greetings
            .iter_mut()
            .filter(common)
            .find_map(|keys| keys.take().map(|slot| (keys.start, slot)))
    }

    /// Holds the range at `start`, and beside it only the one that begins at `kept`.
    pub fn hold_greeting(&mut self, start: u64, kept: Option<u64>) {
        self.greetings.retain(|keys| Some(keys.start) == kept && keys.start != start);
        self.greetings.insert(0, GreetingKeys::at(start));
        self.greetings.truncate(greeting::RANGES_MAX);
    }

    /// Why the stream is not to be used, if it is not.
    pub fn suspicion(&self) -> Option<Suspicion> {
        self.suspicion
    }

    /// From now on the stream is not to be used.
    pub fn suspect(&mut self, suspicion: Suspicion) {
        self.suspicion = Some(suspicion);
    }

    /// The first unit that was never reserved or claimed.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Whether no unit of `range` was ever reserved or claimed.
    pub fn is_free(&self, range: &KeyRange) -> bool {
        range.position >= self.position || self.gaps.iter().any(|gap| gap.contains(range))
    }

    /// Moves the position to `position`, if it is lower; what was skipped is spent.
    pub fn raise(&mut self, position: u64) {
        self.position = self.position.max(position);
    }

    /// Gives up every unit below `position`, and with them greeting keys and suspicion.
    pub fn forget_below(&mut self, position: u64) {
        self.raise(position);
        self.greetings.clear();
        self.suspicion = None;
        let rest =
            self.gaps.iter().map(|gap| KeyRange::between(gap.position.max(position), gap.end()));
        self.gaps = rest.filter(|gap| gap.units > 0).collect();
    }

    /// Takes `range` out of the free units; false, and nothing changed, if part of it is not free.
    #[must_use]
    pub fn claim(&mut self, range: &KeyRange) -> bool {
        if range.position >= self.position {
            self.gaps.push(KeyRange::between(self.position, range.position));
            self.position = range.end();
        } else {
            let Some(at) = self.gaps.iter().position(|gap| gap.contains(range)) else {
                return false;
            };
            let gap = self.gaps[at];
            let parts = [
                KeyRange::between(gap.position, range.position),
                KeyRange::between(range.end(), gap.end()),
            ];
            self.gaps.splice(at..=at, parts);
        }
        self.gaps.retain(|gap| gap.units > 0);
        self.gaps.drain(..self.gaps.len().saturating_sub(GAPS_MAX));
        true
    }

    fn encode(&self, label: &str) -> Slot {
        let mut slot: Slot = Box::new([0; SLOT_BYTES]);
        slot[..8].copy_from_slice(&MAGIC);
        slot[8..12].copy_from_slice(&VERSION.to_le_bytes());
        slot[12..16].copy_from_slice(&(self.gaps.len() as u32).to_le_bytes());
        slot[16..24].copy_from_slice(&self.sequence.to_le_bytes());
        slot[24..32].copy_from_slice(&self.position.to_le_bytes());
        let suspicion = Suspicion::code(self.suspicion);
        slot[SUSPICION_AT..SUSPICION_AT + 4].copy_from_slice(&suspicion.to_le_bytes());
        slot[SUSPICION_AT + 4] = self.greetings.len() as u8;
        let places = slot[GREETINGS_AT..GAPS_AT].chunks_exact_mut(GREETING_BYTES);
        for (keys, bytes) in self.greetings.iter().zip(places) {
            bytes[..8].copy_from_slice(&keys.start.to_le_bytes());
            bytes[8..].copy_from_slice(&keys.used.to_le_bytes());
        }
        for (gap, bytes) in self.gaps.iter().zip(slot[GAPS_AT..DIGEST_AT].chunks_exact_mut(16)) {
            bytes[..8].copy_from_slice(&gap.position.to_le_bytes());
            bytes[8..].copy_from_slice(&gap.units.to_le_bytes());
        }
        let digest = digest(&slot, label);
        slot[DIGEST_AT..].copy_from_slice(&digest);
        slot
    }

    fn decode(slot: &Slot, label: &str) -> Option<Self> {
        let sound = slot[..8] == MAGIC
            && slot[8..12] == VERSION.to_le_bytes()
            && slot[DIGEST_AT..] == digest(slot, label);
        let count = u32::from_le_bytes(slot[12..16].try_into().ok()?) as usize;
        let code = u32::from_le_bytes(slot[SUSPICION_AT..SUSPICION_AT + 4].try_into().ok()?);
        let held = usize::from(slot[SUSPICION_AT + 4]);
        if !sound || count > GAPS_MAX || held > greeting::RANGES_MAX {
            return None;
        }
        let greetings = slot[GREETINGS_AT..GAPS_AT].chunks_exact(GREETING_BYTES).take(held);
        let gaps = slot[GAPS_AT..DIGEST_AT].chunks_exact(16).take(count);
        Some(Self {
            sequence: word(&slot[16..24]),
            position: word(&slot[24..32]),
            suspicion: Suspicion::ALL.iter().find(|(known, _)| *known == code).map(|(_, s)| *s),
            greetings: greetings
                .map(|keys| GreetingKeys {
                    start: word(&keys[..8]),
                    used: u128::from_le_bytes(keys[8..].try_into().expect("16 bytes")),
                })
                .collect(),
            gaps: gaps
                .map(|gap| KeyRange { position: word(&gap[..8]), units: word(&gap[8..]) })
                .collect(),
        })
    }
}

/// Reads the mark. `label` names the stream end, so that the slots of another one are not taken
/// for its own.
pub fn load(medium: &mut dyn MarkMedium, label: &str) -> Result<Mark, LoadError> {
    let mut mark = load_slots(medium, label)?
        .ok_or(LoadError::Contradiction("both copies of its mark are damaged"))?;
    give_up_unknown(medium, &mut mark)?;
    Ok(mark)
}

/// Reads the mark in order to change it: what [`load`] gave up is first made durable.
pub fn settle(medium: &mut dyn MarkMedium, label: &str) -> Result<Mark, LoadError> {
    let mut mark = load_slots(medium, label)?
        .ok_or(LoadError::Contradiction("both copies of its mark are damaged"))?;
    if give_up_unknown(medium, &mut mark)? {
        store(medium, label, &mut mark)?;
    }
    Ok(mark)
}

/// Changes the mark as `change` says and makes it durable, together with the entry that `change`
/// gives; without one, nothing has changed. Nobody else may have the medium meanwhile.
pub fn update<E>(
    medium: &mut dyn MarkMedium,
    label: &str,
    change: impl FnOnce(&mut Mark) -> Result<Option<Record>, E>,
) -> Result<Mark, UpdateError<E>> {
    let mut mark = settle(medium, label).map_err(UpdateError::Load)?;
    if let Some(record) = change(&mut mark).map_err(UpdateError::Change)? {
        commit(medium, label, &mut mark, &record).map_err(UpdateError::Commit)?;
    }
    Ok(mark)
}

/// Writes the mark over the older slot and its entry into the ledger; when this returns, both are
/// durable.
pub fn commit(
    medium: &mut dyn MarkMedium,
    label: &str,
    mark: &mut Mark,
    record: &Record,
) -> io::Result<()> {
    if let Some(index) = mark.sequence.checked_sub(1)
        && Entry::first(&medium.read_entries(index)?) == Entry::Torn
    {
        // A crash tore it after the mark had arrived; its keys were never used.
        medium.write_entry(index, &[0; RECORD_BYTES])?;
    }
    medium.write_entry(mark.sequence, &record.encode())?;
    store(medium, label, mark)
}

/// A mark to begin again with when no slot can be read, or the ledger contradicts it: behind
/// everything that either of them names.
pub fn salvage(medium: &mut dyn MarkMedium, label: &str) -> io::Result<Mark> {
    let mut mark = load_slots(medium, label)?.unwrap_or_default();
    for (index, bytes) in medium.read_entries(0)?.chunks_exact(RECORD_BYTES).enumerate() {
        if let Entry::Sound(record) = Entry::first(bytes) {
            mark.raise(record.range.end());
            mark.sequence = mark.sequence.max(index as u64 + 1);
        }
    }
    Ok(mark)
}

/// What a wrong program would do after a crash: go on `units` before the mark.
#[cfg(test)]
pub(crate) fn resume_inside(medium: &mut dyn MarkMedium, label: &str, units: u64) {
    if let Ok(mut mark) = settle(medium, label) {
        mark.position = mark.position.saturating_sub(units);
        let _ = store(medium, label, &mut mark);
    }
}

/// The newest sound slot; `None` when there is none, although something was written. The very
/// first write goes to slot 1; torn, it leaves slot 0 blank, and no key was used.
fn load_slots(medium: &mut dyn MarkMedium, label: &str) -> io::Result<Option<Mark>> {
    let slots = [medium.read_slot(0)?, medium.read_slot(1)?];
    let newest =
        slots.iter().filter_map(|slot| Mark::decode(slot, label)).max_by_key(|mark| mark.sequence);
    let untouched = slots[0].iter().all(|byte| *byte == 0);
    Ok(newest.or_else(|| untouched.then(Mark::default)))
}

/// Takes the keys of an entry that is newer than the mark out of the free ones; says whether there
/// was one.
fn give_up_unknown(medium: &mut dyn MarkMedium, mark: &mut Mark) -> Result<bool, LoadError> {
    let entries = medium.read_entries(mark.sequence)?;
    let Some((first, later)) = entries.split_at_checked(RECORD_BYTES) else { return Ok(false) };
    if later.iter().any(|byte| *byte != 0) {
        return Err(LoadError::Contradiction("its mark is behind its ledger"));
    }
    let Entry::Sound(record) = Entry::first(first) else { return Ok(false) };
    match record.role {
        _ if record.range.units == 0 => {}
        Role::Sender => mark.raise(record.range.end()),
        Role::Follower if mark.claim(&record.range) => {}
        Role::Follower => return Err(LoadError::Contradiction("its ledger claims a key twice")),
    }
    if record.purpose == Purpose::Greeting && mark.greetings.is_empty() && record.range.units > 0 {
        // The very first range lies where it lies: another would not be found by the peer.
        mark.hold_greeting(record.range.position, None);
    }
    Ok(true)
}

fn store(medium: &mut dyn MarkMedium, label: &str, mark: &mut Mark) -> io::Result<()> {
    mark.sequence += 1;
    medium.write_slot((mark.sequence % 2) as usize, &mark.encode(label))?;
    medium.sync()
}

fn digest(slot: &Slot, label: &str) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&slot[..DIGEST_AT]);
    hasher.update(label.as_bytes());
    *hasher.finalize().as_bytes()
}

fn word(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes.try_into().expect("callers cut 8 bytes"))
}

#[cfg(test)]
#[path = "mark_tests.rs"]
mod tests;
