//! Keys that wait for the applications that may fetch them.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::identity::SaeId;
use super::message::NamedKey;
use super::name::KeyId;
use super::refusal::{Refusal, text};
use crate::base::{Clock, Secret};

/// Most slaves of one key.
pub const SLAVES_MAX: usize = 32;

/// Who may have a key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Group {
    /// Who asked for it.
    pub master: SaeId,
    /// Who may fetch it, each once; at most [`SLAVES_MAX`].
    pub slaves: Vec<SaeId>,
}

/// How much is held at most.
#[derive(Clone, Copy, Debug)]
pub struct HeldLimits {
    /// Keys.
    pub keys: usize,
    /// Bytes of all keys together.
    pub bytes: usize,
    /// How long a key waits.
    pub lifetime: Duration,
}

/// Keys that wait. What is fetched by the last of its slaves, and what waits too long, is wiped.
pub struct HeldKeys {
    inner: Mutex<Inner>,
    limits: HeldLimits,
    clock: Clock,
}

#[derive(Default)]
struct Inner {
    keys: HashMap<KeyId, Held>,
    /// In the order in which they expire; fetched ones may be among them.
    expiry: VecDeque<(Duration, KeyId)>,
    bytes: usize,
}

struct Held {
    bytes: Secret<Box<[u8]>>,
    group: Arc<Group>,
    /// A bit for each slave that has fetched it.
    fetched: u32,
    expires: Duration,
}

/// Why keys are not taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotHeld {
    /// There is no room.
    Full,
    /// A name is there already.
    Repeated,
}

impl HeldKeys {
    /// Holds nothing yet.
    pub fn new(limits: HeldLimits, clock: Clock) -> Self {
        Self { inner: Mutex::default(), limits, clock }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keys that wait now.
    pub fn count(&self) -> usize {
        self.lock().keys.len()
    }

    /// Takes in all of `keys` for the slaves of `group`, or none.
    pub fn hold(&self, keys: Vec<NamedKey>, group: &Arc<Group>) -> Result<(), NotHeld> {
        let now = self.clock.since_epoch();
        let mut inner = self.lock();
        inner.expire(now);
        let bytes = keys.iter().map(|key| key.bytes.expose().len()).sum::<usize>();
        if inner.keys.len() + keys.len() > self.limits.keys
            || inner.bytes + bytes > self.limits.bytes
        {
            return Err(NotHeld::Full);
        }
        if keys.iter().any(|key| inner.keys.contains_key(&key.id)) {
            return Err(NotHeld::Repeated);
        }
        let expires = now + self.limits.lifetime;
        inner.bytes += bytes;
        for NamedKey { id, bytes } in keys {
            inner.expiry.push_back((expires, id));
            let group = Arc::clone(group);
            inner.keys.insert(id, Held { bytes, group, fetched: 0, expires });
        }
        Ok(())
    }

    /// Gives `slave` the keys that `master` shares with it: all of them, or none.
    ///
    /// Errors: 400 when one is not there or `slave` has had it; 401 when one is there and `slave` was
    /// not named for it (ETSI GS QKD 014, clause 5.4).
    pub fn fetch(
        &self,
        slave: &SaeId,
        master: &SaeId,
        ids: &[KeyId],
    ) -> Result<Vec<NamedKey>, Refusal> {
        let now = self.clock.since_epoch();
        let mut inner = self.lock();
        inner.expire(now);
        let missing = || Refusal::bad(text::NOT_FOUND);
        let mut places = Vec::with_capacity(ids.len());
        for id in ids {
            let held = inner.keys.get(id).ok_or_else(missing)?;
            let place = held.group.slaves.iter().position(|named| named == slave);
            let place = place.ok_or(Refusal::Unauthorized)?;
            if held.group.master != *master || held.fetched >> place & 1 == 1 {
                return Err(missing());
            }
            places.push(place);
        }
        Ok(ids.iter().zip(places).filter_map(|(id, place)| inner.take(*id, place)).collect())
    }
}

impl Inner {
    /// The key for the slave at `place`: a copy, unless nobody else is to have it.
    fn take(&mut self, id: KeyId, place: usize) -> Option<NamedKey> {
        let held = self.keys.get_mut(&id)?;
        held.fetched |= 1 << place;
        if held.fetched.count_ones() as usize == held.group.slaves.len() {
            let held = self.keys.remove(&id)?;
            self.bytes -= held.bytes.expose().len();
            return Some(NamedKey { id, bytes: held.bytes });
        }
        Some(NamedKey { id, bytes: Secret::new(held.bytes.expose().clone()) })
    }

    fn expire(&mut self, now: Duration) {
        // What was fetched leaves its entry behind; there are never many more of these than keys.
        while let Some((expires, id)) = self.expiry.front().copied() {
            let gone = self.keys.get(&id).is_none_or(|held| held.expires != expires);
            if !gone && expires > now {
                break;
            }
            self.expiry.pop_front();
            if !gone && let Some(held) = self.keys.remove(&id) {
                self.bytes -= held.bytes.expose().len();
            }
        }
        if self.expiry.len() > 2 * self.keys.len() + 1024 {
            let keys = &self.keys;
            self.expiry.retain(|(_, id)| keys.contains_key(id));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u8) -> KeyId {
        KeyId::from_bytes([number; 16])
    }

    fn key(number: u8) -> NamedKey {
        NamedKey { id: id(number), bytes: Secret::new(vec![number; 32].into()) }
    }

    fn sae(name: &str) -> SaeId {
        name.parse().unwrap()
    }

    fn group(slaves: &[&str]) -> Arc<Group> {
        Arc::new(Group { master: sae("m"), slaves: slaves.iter().map(|name| sae(name)).collect() })
    }

    fn held(keys: usize) -> (HeldKeys, Clock) {
        let clock = Clock::simulated(Duration::from_secs(1000));
        let limits = HeldLimits { keys, bytes: 1000, lifetime: Duration::from_secs(60) };
        (HeldKeys::new(limits, clock.clone()), clock)
    }

    fn fetch(held: &HeldKeys, slave: &str, ids: &[u8]) -> Result<Vec<Vec<u8>>, Refusal> {
        let ids: Vec<_> = ids.iter().map(|number| id(*number)).collect();
        let keys = held.fetch(&sae(slave), &sae("m"), &ids)?;
        Ok(keys.iter().map(|key| key.bytes.expose().to_vec()).collect())
    }

    #[test]
    fn each_slave_fetches_once_and_the_last_one_empties() {
        let (held, _) = held(10);
        held.hold(vec![key(1), key(2)], &group(&["x", "y"])).unwrap();
        assert_eq!(fetch(&held, "z", &[1]), Err(Refusal::Unauthorized));
        assert_eq!(fetch(&held, "x", &[2, 1]), Ok(vec![vec![2; 32], vec![1; 32]]));
        let missing = Err(Refusal::bad(text::NOT_FOUND));
        assert_eq!(fetch(&held, "x", &[1]), missing);
        assert_eq!(held.count(), 2);
        assert_eq!(fetch(&held, "y", &[1, 3]), missing, "all or none");
        assert_eq!(fetch(&held, "y", &[1]), Ok(vec![vec![1; 32]]));
        assert_eq!((held.count(), fetch(&held, "z", &[1])), (1, missing.clone()));
        assert_eq!(
            held.fetch(&sae("y"), &sae("other"), &[id(2)]).map(|_| ()),
            Err(Refusal::bad(text::NOT_FOUND))
        );
        assert_eq!(fetch(&held, "y", &[2]), Ok(vec![vec![2; 32]]));
        assert_eq!((held.count(), held.lock().bytes), (0, 0));
    }

    #[test]
    fn there_is_a_bound_and_what_waits_too_long_makes_room() {
        let (held, clock) = held(2);
        held.hold(vec![key(1), key(2)], &group(&["x"])).unwrap();
        assert_eq!(held.hold(vec![key(3)], &group(&["x"])), Err(NotHeld::Full));
        clock.advance(Duration::from_secs(61));
        assert_eq!(held.hold(vec![key(3)], &group(&["x"])), Ok(()));
        assert_eq!(held.hold(vec![key(3)], &group(&["x"])), Err(NotHeld::Repeated));
        assert_eq!(fetch(&held, "x", &[1]), Err(Refusal::bad(text::NOT_FOUND)));
        assert_eq!(fetch(&held, "x", &[3]), Ok(vec![vec![3; 32]]));
    }

    #[test]
    fn what_was_fetched_is_forgotten() {
        let (held, _) = held(5);
        for _ in 0..5000 {
            held.hold(vec![key(1)], &group(&["x"])).unwrap();
            fetch(&held, "x", &[1]).unwrap();
        }
        assert!(held.lock().expiry.len() < 2000);
    }
}
