//! What a sender authenticates its greetings with, and how it comes by new keys for that.

use super::greeting::{KEYS_LOW, RANGE_UNITS, first_range, key_at, range_at};
use super::journal::Turn;
use super::ledger::Purpose;
use super::sender::{RESERVATION_BYTES_MIN, Wish, exhausted, pick};
use super::{Error, KeyLease, KeyRange, Sender, UNIT_BYTES};

/// Bytes of key that only control may use, of every stream that sessions spend: with this much they
/// can still be opened, asked and answered when payload has used up all the rest.
pub const CONTROL_FLOOR_BYTES: u64 = 64 << 10;

/// What a session's opening message is made with.
pub struct Greeting {
    /// Where the range of greeting keys begins.
    pub start: u64,
    /// Which of its keys this is.
    pub slot: u32,
    /// The key.
    pub key: KeyLease,
    /// The first reservation of the session, which the message asks for.
    pub reservation: KeyRange,
}

/// A session's part in the agreement on the next range of greeting keys.
#[derive(Default)]
pub(super) struct Greetings {
    /// The range that this session was opened with.
    opened_with: Option<u64>,
    /// Whether few keys of it are left.
    few: bool,
    /// The range that the peer was asked for. Nobody else asks meanwhile.
    asked: Option<(KeyRange, Turn)>,
}

impl Sender {
    /// Takes a greeting key of a range that the peer `held` at its beginning, and reserves keys for
    /// the session, both durably. From now on the peer has to countersign.
    ///
    /// Errors: [`Error::NoGreeting`] when there is none in common; [`Error::Exhausted`].
    pub fn greet(&mut self, held: &[u64]) -> Result<Greeting, Error> {
        self.countersigned = true;
        let ready = self.source.ready(self.journal.stream())?;
        self.found(&ready)?;
        let units = RESERVATION_BYTES_MIN / UNIT_BYTES;
        let (mut key, mut reserved) = (None, None);
        self.journal.record(Purpose::Session, |mark| {
            let none = || Error::NoGreeting { stream: self.stream().clone() };
            let (start, slot) = mark.take_greeting(held).ok_or_else(none)?;
            let left = mark.greetings().iter().find(|keys| keys.start == start);
            key = Some((start, slot, left.is_none_or(|keys| keys.left() < KEYS_LOW)));
            let picked = pick(mark, &ready, Wish { units, wanted: units, floor: 0 });
            let picked = picked.map_err(|left| self.out_of_key(units, left))?;
            reserved = Some(picked);
            Ok(Some(picked.range))
        })?;
        let ((start, slot, few), reserved) =
            key.zip(reserved).expect("both are set where the record is");
        self.abandon(reserved.skipped);
        for unused in self.allowance.give_up() {
            self.abandon(unused);
        }
        self.allowance.ask(reserved.range);
        self.greetings = Greetings { opened_with: Some(start), few, asked: None };
        let range = key_at(start, slot).expect("slots are within their range");
        let mut chunk = self.chunks.take(range.bytes() as usize);
        chunk.mark_secret();
        self.source.read(self.journal.stream(), range, &mut chunk)?;
        self.source.erase(self.journal.stream(), range)?;
        let key = KeyLease::new(range, chunk);
        Ok(Greeting { start, slot, key, reservation: reserved.range })
    }

    /// A stream that has never greeted takes its first range where the peer will look for it.
    fn found(&self, ready: &[KeyRange]) -> Result<(), Error> {
        if !self.journal.load_usable()?.greetings().is_empty() {
            return Ok(());
        }
        self.journal
            .record(Purpose::Greeting, |mark| {
                if !mark.greetings().is_empty() {
                    return Ok(None);
                }
                let range = first_range(ready, mark.position());
                let range = range.ok_or_else(|| self.out_of_key(RANGE_UNITS, 0))?;
                mark.raise(range.end());
                mark.hold_greeting(range.position, None);
                Ok(Some(range))
            })
            .map(drop)
    }

    /// A new range of greeting keys, durable here, that the peer is to hold from now on; none while
    /// there are enough, or another session asks for one.
    pub fn ask_greeting(&mut self) -> Option<KeyRange> {
        if !std::mem::take(&mut self.greetings.few) {
            return None;
        }
        let turn = self.journal.turn_to_ask()?;
        let ready = self.source.ready(self.journal.stream()).ok()?;
        let mut range = None;
        // Without key for it the next session tries.
        self.journal
            .record(Purpose::Greeting, |mark| {
                let wish = Wish { units: RANGE_UNITS, wanted: RANGE_UNITS, floor: 0 };
                let picked = pick(mark, &ready, wish);
                let picked = picked.map_err(|left| self.out_of_key(RANGE_UNITS, left))?;
                range = Some(picked.range);
                Ok(range)
            })
            .ok()?;
        self.greetings.asked = range.map(|range| (range, turn));
        range
    }

    /// The peer holds the new range: so does this site. False if it is not what it was asked for.
    pub fn sign_greeting(&mut self, range: KeyRange) -> Result<bool, Error> {
        let asked = self.greetings.asked.take_if(|(asked, _)| *asked == range);
        let Some((range, _turn)) = asked else { return Ok(false) };
        let kept = self.greetings.opened_with;
        let none = KeyRange { units: 0, ..range };
        self.journal.record(Purpose::Greeting, |mark| {
            let dropped = mark.greetings().iter().map(|keys| keys.start);
            let dropped: Vec<u64> = dropped.filter(|start| Some(*start) != kept).collect();
            mark.hold_greeting(range.position, kept);
            dropped.into_iter().for_each(|start| self.abandon(range_at(start)));
            Ok(Some(none))
        })?;
        Ok(true)
    }

    fn out_of_key(&self, needed: u64, left: u64) -> Error {
        exhausted(&self.stream().receiver, needed, left, self.source.rate())
    }
}
