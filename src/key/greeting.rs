//! Keys that only greetings are authenticated with: apart from all others, and safe if a site is
//! set back.
//!
//! The first keyed message of a call cannot be checked against anything that the peer said: whoever
//! speaks first trusts his own record, and that may have been set back without his knowing. With an
//! ordinary key, the same key would then make two different tags. So
//!
//! - greetings have *ranges* of their own, [`KEYS`] keys of [`KEY_UNITS`] units, which both ends
//!   have recorded before and which no payload ever uses, whatever record is set back;
//! - each key is used once in every course of events, and still hides everything if it is used
//!   [`USES_MAX`] times, by as many restored snapshots ([`crate::otp::opening`] has the reason).
//!
//! A new range is agreed on in a session, long before the last one is used up. The very first lies
//! at the beginning of the stream, where either end finds it by itself; the same holds after an
//! operator gave up all earlier keys at both ends. Either end holds the newest range and the one
//! that the session was opened with in which the newest was agreed on, so that they always have one
//! in common, whenever one of them crashes.

use super::KeyRange;

/// Keys in one range.
pub const KEYS: u32 = 128;
/// Units of one key.
pub const KEY_UNITS: u64 = 16;
/// Units of one range.
pub const RANGE_UNITS: u64 = KEYS as u64 * KEY_UNITS;
/// How many different messages one key may authenticate.
pub const USES_MAX: u32 = 14;
/// Ranges that an end holds.
pub const RANGES_MAX: usize = 2;
/// With fewer keys left than this, a session agrees on a new range.
pub const KEYS_LOW: u32 = KEYS / 2;

/// The range that begins at `start`.
pub fn range_at(start: u64) -> KeyRange {
    KeyRange { position: start, units: RANGE_UNITS }
}

/// The key number `slot` of the range that begins at `start`; `None` when there is none.
pub fn key_at(start: u64, slot: u32) -> Option<KeyRange> {
    range_at(start).is_sound().then_some(())?;
    (slot < KEYS)
        .then(|| KeyRange { position: start + u64::from(slot) * KEY_UNITS, units: KEY_UNITS })
}

/// Where the first range of a stream lies: at the first place at or after `position` that has room.
pub fn first_range(ready: &[KeyRange], position: u64) -> Option<KeyRange> {
    let left = super::source::from_position(ready, position);
    left.iter().find(|range| range.units >= RANGE_UNITS).map(|range| range_at(range.position))
}

/// One range, as an end remembers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GreetingKeys {
    /// First unit.
    pub start: u64,
    /// Bit `n`: the sender used key `n`. A follower keeps no account: what it accepts is bound to
    /// its own fresh number.
    pub used: u128,
}

impl GreetingKeys {
    /// An unused range.
    pub fn at(start: u64) -> Self {
        Self { start, used: 0 }
    }

    /// Keys that are left.
    pub fn left(&self) -> u32 {
        self.used.count_zeros()
    }

    /// Uses the first key that is left.
    pub fn take(&mut self) -> Option<u32> {
        let slot = self.used.trailing_ones();
        (slot < KEYS).then(|| {
            self.used |= 1 << slot;
            slot
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_taken_once() {
        let mut keys = GreetingKeys::at(64);
        let taken: Vec<u32> = std::iter::from_fn(|| keys.take()).collect();
        assert_eq!(taken, (0..KEYS).collect::<Vec<_>>());
        assert_eq!(keys.left(), 0);
        let ranges: Vec<_> = taken.iter().map(|slot| key_at(64, *slot).unwrap()).collect();
        assert!(ranges.windows(2).all(|pair| pair[0].end() == pair[1].position));
        assert_eq!(ranges[127].end(), range_at(64).end());
        assert!(key_at(64, KEYS).is_none() && key_at(u64::MAX - 5, 0).is_none());
    }

    #[test]
    fn the_first_range_is_where_there_is_room() {
        let ready = [KeyRange { position: 0, units: 100 }, KeyRange { position: 500, units: 9000 }];
        assert_eq!(first_range(&ready, 0).unwrap().position, 500);
        assert_eq!(first_range(&ready, 600).unwrap().position, 600);
        assert_eq!(first_range(&ready, 8000), None);
    }
}
