//! What one session of a sender may use now: the reservation in use, and the one after it.
//!
//! Pure: no disk, no clock, no key. [`super::Sender`] gives it durable reservations and the peer's
//! countersignatures.

use super::KeyRange;

/// Units that stay in a reservation for control frames, so that the next one can always be asked
/// for and the peer always be answered.
pub const CONTROL_UNITS: u64 = 32;

/// A session's keys, by position.
///
/// A reservation goes through: [`ask`](Self::ask), when it is durable here; [`sign`](Self::sign),
/// when the peer has it durably, too; [`take`](Self::take). One at a time is on its way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Allowance {
    current: KeyRange,
    next: u64,
    asked: Option<KeyRange>,
    signed: Option<KeyRange>,
}

/// Keys that were taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// The keys.
    pub range: KeyRange,
    /// What is left over of a reservation that is not used any more.
    pub left_over: KeyRange,
}

impl Allowance {
    /// The reservation in use.
    pub fn current(&self) -> KeyRange {
        self.current
    }

    /// What of it was not used yet.
    pub fn rest(&self) -> KeyRange {
        KeyRange::between(self.next, self.current.end())
    }

    /// The reservation that the peer has not countersigned yet.
    pub fn asked(&self) -> Option<KeyRange> {
        self.asked
    }

    /// The reservation that comes next.
    pub fn signed(&self) -> Option<KeyRange> {
        self.signed
    }

    /// The peer is asked for `reservation`, which is durable here. Gives back one that was signed
    /// and never used.
    pub fn ask(&mut self, reservation: KeyRange) -> Option<KeyRange> {
        self.asked = Some(reservation);
        self.signed.take()
    }

    /// The peer has made the reservation durable; false if it is not the one it was asked for.
    #[must_use]
    pub fn sign(&mut self, reservation: KeyRange) -> bool {
        let expected = self.asked == Some(reservation);
        if expected {
            self.signed = self.asked.take();
        }
        expected
    }

    /// Uses `units` units in one piece and leaves `kept` in the reservation; `None` when there are
    /// not as many.
    pub fn take(&mut self, units: u64, kept: u64) -> Option<Taken> {
        let mut left_over = KeyRange::between(0, 0);
        if self.rest().units < units + kept {
            let signed = self.signed.take_if(|signed| signed.units >= units + kept)?;
            left_over = self.rest();
            (self.current, self.next) = (signed, signed.position);
        }
        let range = KeyRange { position: self.next, units };
        self.next = range.end();
        Some(Taken { range, left_over })
    }

    /// Uses nothing below `unit` any more; gives back what that leaves over.
    pub fn skip_to(&mut self, unit: u64) -> KeyRange {
        let skipped = KeyRange::between(self.next, unit.min(self.current.end()));
        self.next = self.next.max(unit.min(self.current.end()));
        skipped
    }

    /// Everything that is not used yet; nothing is, from now on.
    pub fn give_up(&mut self) -> Vec<KeyRange> {
        let unused = [Some(self.rest()), self.asked.take(), self.signed.take()];
        self.next = self.current.end();
        unused.into_iter().flatten().filter(|range| range.units > 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(position: u64, units: u64) -> KeyRange {
        KeyRange { position, units }
    }

    #[test]
    fn nothing_is_used_that_was_not_countersigned() {
        let mut allowance = Allowance::default();
        assert_eq!(allowance.take(1, 0), None);
        assert_eq!(allowance.ask(range(10, 5)), None);
        assert_eq!(allowance.take(1, 0), None, "asked for is not enough");
        assert!(!allowance.sign(range(10, 6)), "another than was asked for");
        assert_eq!(allowance.take(1, 0), None);
        assert!(allowance.sign(range(10, 5)));
        assert!(!allowance.sign(range(10, 5)), "once");
        assert_eq!(allowance.take(3, 2).unwrap().range, range(10, 3));
        assert_eq!(allowance.take(1, 2), None, "kept for control");
        assert_eq!(allowance.take(1, 0).unwrap().range, range(13, 1));
        assert_eq!(allowance.ask(range(40, 9)), None);
        assert!(allowance.sign(range(40, 9)));
        let taken = allowance.take(2, 0).unwrap();
        assert_eq!((taken.range, taken.left_over), (range(40, 2), range(14, 1)));
        assert_eq!(allowance.ask(range(60, 1)), None);
        assert_eq!(allowance.give_up(), [range(42, 7), range(60, 1)]);
        assert_eq!(allowance.take(1, 0), None);
    }

    #[test]
    fn a_reservation_too_small_is_given_back() {
        let mut allowance = Allowance::default();
        allowance.ask(range(0, 4));
        assert!(allowance.sign(range(0, 4)));
        assert_eq!(allowance.take(5, 0), None);
        assert_eq!(allowance.ask(range(4, 5)), Some(range(0, 4)));
        assert!(allowance.sign(range(4, 5)));
        assert_eq!(allowance.take(5, 0).unwrap().range, range(4, 5));
    }
}
