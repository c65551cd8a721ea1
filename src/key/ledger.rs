//! What was reserved and claimed, entry by entry, and the oracle that no key was used twice.
//!
//! An entry is 64 bytes and ends in a checksum. The ledger stands in the file of the mark, behind
//! its two slots, and each entry is written and synced together with the mark.

use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::mark::SLOT_BYTES;
use super::{Error, KeyRange};

/// Bytes of one entry.
pub const RECORD_BYTES: usize = 64;

/// Where the first entry begins in the file.
pub const LEDGER_AT: usize = 2 * SLOT_BYTES;

const MAGIC: [u8; 4] = *b"dkl1";
const CHECKSUM_AT: usize = RECORD_BYTES - 16;

/// Which end of the stream an entry is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// The end that encrypts.
    Sender,
    /// The end that decrypts.
    Follower,
}

/// Why the keys of an entry are spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Purpose {
    /// A session uses them.
    Session,
    /// The operator declared them lost.
    Lost,
    /// Greetings are authenticated with them, and nothing else.
    Greeting,
    /// None are: the stream was found to be set back.
    Suspicion,
}

impl Purpose {
    const ALL: [Purpose; 4] =
        [Purpose::Session, Purpose::Lost, Purpose::Greeting, Purpose::Suspicion];
}

/// One reservation or claim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Record {
    /// The keys.
    pub range: KeyRange,
    /// Which end.
    pub role: Role,
    /// What for.
    pub purpose: Purpose,
    /// A number drawn for each session.
    pub session: u64,
    /// When, since 1970.
    pub time: Duration,
}

impl Record {
    pub(crate) fn encode(&self) -> [u8; RECORD_BYTES] {
        let mut bytes = [0; RECORD_BYTES];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4] = u8::from(self.role == Role::Follower);
        bytes[5] = Purpose::ALL.iter().position(|known| *known == self.purpose).unwrap_or(0) as u8;
        let time = u64::try_from(self.time.as_nanos()).unwrap_or(u64::MAX);
        let words = [self.range.position, self.range.units, self.session, time];
        for (word, out) in words.iter().zip(bytes[8..40].chunks_exact_mut(8)) {
            out.copy_from_slice(&word.to_le_bytes());
        }
        let checksum = blake3::hash(&bytes[..CHECKSUM_AT]);
        bytes[CHECKSUM_AT..].copy_from_slice(&checksum.as_bytes()[..16]);
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let checksum = blake3::hash(bytes.get(..CHECKSUM_AT)?);
        if bytes[..4] != MAGIC || bytes[CHECKSUM_AT..] != checksum.as_bytes()[..16] {
            return None;
        }
        let word = |at: usize| Some(u64::from_le_bytes(bytes[at..at + 8].try_into().ok()?));
        Some(Self {
            range: KeyRange { position: word(8)?, units: word(16)? },
            role: if bytes[4] == 0 { Role::Sender } else { Role::Follower },
            purpose: *Purpose::ALL.get(usize::from(bytes[5]))?,
            session: word(24)?,
            time: Duration::from_nanos(word(32)?),
        })
    }
}

/// What stands in the place of one entry.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// Nothing.
    Blank,
    /// An entry.
    Sound(Record),
    /// Something else.
    Torn,
}

impl Entry {
    /// The entry that `bytes` begin with; blank when they are too short.
    pub(crate) fn first(bytes: &[u8]) -> Self {
        let bytes = bytes.get(..RECORD_BYTES).unwrap_or(&[]);
        match Record::decode(bytes) {
            Some(record) => Entry::Sound(record),
            None if bytes.iter().all(|byte| *byte == 0) => Entry::Blank,
            None => Entry::Torn,
        }
    }
}

/// Reads a whole ledger from the file of a stream end. An entry that a crash tore is left out when
/// nothing follows; damage before others is an error.
pub fn read(path: &Path) -> Result<Vec<Record>, Error> {
    let bytes =
        std::fs::read(path).map_err(|source| Error::Ledger { path: path.into(), source })?;
    parse(&bytes).map_err(|index| Error::LedgerDamaged { path: path.into(), index })
}

/// The entries in the content of such a file; the number of the damaged one, if one is.
pub(crate) fn parse(file: &[u8]) -> Result<Vec<Record>, usize> {
    let entries = file.get(LEDGER_AT..).unwrap_or(&[]).chunks_exact(RECORD_BYTES).map(Entry::first);
    let mut records = Vec::new();
    let mut torn = None;
    for (index, entry) in entries.enumerate() {
        match (entry, torn) {
            (Entry::Blank, _) => {}
            (Entry::Torn, None) => torn = Some(index),
            (_, Some(index)) => return Err(index),
            (Entry::Sound(record), None) => records.push(record),
        }
    }
    Ok(records)
}

/// What the two ledgers of a stream add up to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Summary {
    /// How often the sender reserved.
    pub reservations: usize,
    /// Units it reserved.
    pub reserved_units: u64,
    /// How many reservations the follower claimed.
    pub claims: usize,
    /// Units it claimed.
    pub claimed_units: u64,
}

/// What two ledgers of a stream must never say.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// An entry is in the ledger of the other end.
    #[error("the ledger of the {expected:?} has an entry of the other end at {range}")]
    Role {
        /// Whose ledger it is.
        expected: Role,
        /// The entry.
        range: KeyRange,
    },
    /// Two entries of one end share keys.
    #[error("the {role:?} spent {first} and {second}, which overlap")]
    Twice {
        /// Which end.
        role: Role,
        /// The entry at the lower position.
        first: KeyRange,
        /// The entry at the higher position.
        second: KeyRange,
    },
    /// The follower claimed what the sender never reserved.
    #[error("the follower claimed {claim}, which the sender did not reserve")]
    Unreserved {
        /// The claim.
        claim: KeyRange,
    },
}

/// Checks that no unit was reserved or claimed twice at either end, and that every claim lies
/// within one reservation.
pub fn check(sender: &[Record], follower: &[Record]) -> Result<Summary, Violation> {
    let reserved = disjoint(sender, Role::Sender)?;
    let claimed = disjoint(follower, Role::Follower)?;
    let sessions = follower.iter().filter(|record| record.purpose != Purpose::Lost);
    let sessions = sessions.filter(|record| record.range.units > 0);
    for claim in sessions.map(|record| record.range) {
        let before = reserved.partition_point(|range| range.position <= claim.position);
        if before == 0 || !reserved[before - 1].contains(&claim) {
            return Err(Violation::Unreserved { claim });
        }
    }
    let units = |ranges: &[KeyRange]| ranges.iter().map(|range| range.units).sum();
    Ok(Summary {
        reservations: reserved.len(),
        reserved_units: units(&reserved),
        claims: claimed.len(),
        claimed_units: units(&claimed),
    })
}

fn disjoint(records: &[Record], role: Role) -> Result<Vec<KeyRange>, Violation> {
    if let Some(record) = records.iter().find(|record| record.role != role) {
        return Err(Violation::Role { expected: role, range: record.range });
    }
    let mut ranges: Vec<_> =
        records.iter().map(|record| record.range).filter(|range| range.units > 0).collect();
    ranges.sort_by_key(|range| range.position);
    match ranges.windows(2).find(|pair| pair[0].overlaps(&pair[1])) {
        Some(pair) => Err(Violation::Twice { role, first: pair[0], second: pair[1] }),
        None => Ok(ranges),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(role: Role, position: u64, units: u64) -> Record {
        Record {
            range: KeyRange { position, units },
            role,
            purpose: Purpose::Session,
            session: 7,
            time: Duration::from_secs(position),
        }
    }

    #[test]
    fn a_torn_end_is_left_out_and_damage_before_others_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sent");
        let mut bytes = vec![0xff; LEDGER_AT];
        (0..3).for_each(|n| bytes.extend(record(Role::Sender, n, 1).encode()));
        bytes.extend([0; 5 * RECORD_BYTES + 7]);
        let count = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            read(&path).map(|records| records.len())
        };
        assert_eq!(count(&bytes).unwrap(), 3);
        bytes[LEDGER_AT + 2 * RECORD_BYTES + 9] ^= 1;
        assert_eq!(count(&bytes).unwrap(), 2);
        bytes[LEDGER_AT + RECORD_BYTES..][..RECORD_BYTES].fill(0);
        assert_eq!(count(&bytes).unwrap(), 1, "a place that a crash left blank");
        bytes[LEDGER_AT] ^= 1;
        assert!(matches!(count(&bytes), Err(Error::LedgerDamaged { index: 0, .. })));
        assert_eq!(count(b"short").unwrap(), 0);
    }

    #[test]
    fn the_oracle_accepts_what_is_right_and_catches_doctored_ledgers() {
        use Role::{Follower, Sender};
        let sender = [record(Sender, 0, 10), record(Sender, 20, 5), record(Sender, 10, 10)];
        let follower = [record(Follower, 10, 10), record(Follower, 0, 10)];
        let summary = check(&sender, &follower).unwrap();
        assert_eq!((summary.reserved_units, summary.claimed_units), (25, 20));

        let reserved_twice = [record(Sender, 0, 10), record(Sender, 9, 5)];
        assert!(matches!(check(&reserved_twice, &[]), Err(Violation::Twice { .. })));
        let claimed_twice = [record(Follower, 0, 10), record(Follower, 3, 1)];
        assert!(matches!(check(&sender, &claimed_twice), Err(Violation::Twice { .. })));
        let beyond = [record(Follower, 20, 6)];
        assert!(matches!(check(&sender, &beyond), Err(Violation::Unreserved { .. })));
        assert!(matches!(check(&[], &follower), Err(Violation::Unreserved { .. })));
        assert!(matches!(check(&follower, &[]), Err(Violation::Role { .. })));
    }
}
