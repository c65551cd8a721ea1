//! One block of key or random bytes: its header, its states, its file.
//!
//! ```text
//! offset  bytes  integers little-endian
//!      0      8  "dsgdblk1"
//!      8      4  length of the description
//!     12         the description, JSON
//!   2016     32  digest of the bytes before it
//!   2048     64  first state record
//!   3072     64  second state record
//!   4096         the bytes
//! ```
//!
//! The description never changes. A state record is a sequence number, a state, a position and a
//! checksum; the newer sound one counts, and writes alternate, so that a crash leaves the state
//! before. Nothing in the file is computed from the bytes: a digest would tell something about them.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::File;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::base::{ByteCount, SiteId};

use super::super::pad::wipe;
use super::super::{Class, Error, KeyRange, Kind, Source, StreamId, UNIT_BYTES};

/// Bytes before the key.
pub const HEADER_BYTES: usize = 4096;

/// Most bytes of one block.
pub const BLOCK_BYTES_MAX: u64 = 64 << 20;

const MAGIC: [u8; 8] = *b"dsgdblk1";
const DIGEST_AT: usize = 2016;
const STATES_AT: [u64; 2] = [2048, 3072];
const STATE_BYTES: usize = 64;
const NO_POSITION: u64 = u64::MAX;

/// What names a block at both ends: 16 bytes, drawn by whoever made the block.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BlockId(pub [u8; 16]);

impl BlockId {
    /// A new identifier, never drawn before.
    pub fn fresh() -> Result<Self, Error> {
        let mut id = [0; 16];
        getrandom::fill(&mut id)
            .map_err(|source| Error::Random { name: "os".into(), source: source.into() })?;
        Ok(Self(id))
    }
}

impl fmt::Display for BlockId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for BlockId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for BlockId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let plain = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if text.len() != 32 || !text.bytes().all(plain) {
            return Err(IdError);
        }
        u128::from_str_radix(text, 16).map(|id| Self(id.to_be_bytes())).map_err(|_| IdError)
    }
}

impl TryFrom<String> for BlockId {
    type Error = IdError;

    fn try_from(text: String) -> Result<Self, IdError> {
        text.parse()
    }
}

impl From<BlockId> for String {
    fn from(id: BlockId) -> String {
        id.to_string()
    }
}

/// A text that names no block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a block is named by 32 hexadecimal digits")]
pub struct IdError;

/// What a block may be used for at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It is here; whether the other end has the same is not known yet.
    Pending,
    /// Both ends have it.
    Ready,
    /// A part of it is used.
    Active,
    /// All of it is used and wiped.
    Spent,
    /// It was given up and wiped: the ends differed, or one of them lost it.
    Lost,
}

impl State {
    const ALL: [State; 5] =
        [State::Pending, State::Ready, State::Active, State::Spent, State::Lost];

    fn code(self) -> u8 {
        1 + self as u8
    }

    fn from_code(code: u8) -> Option<Self> {
        State::ALL.into_iter().find(|state| state.code() == code)
    }

    /// Whether sessions may take keys from it.
    pub fn is_usable(self) -> bool {
        matches!(self, State::Ready | State::Active)
    }
}

/// What is known about a block from its making on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Description {
    /// Its name at both ends.
    pub id: BlockId,
    /// Key, or random numbers of one site.
    pub kind: Kind,
    /// What made it.
    pub source: Source,
    /// How strong it is.
    pub class: Class,
    /// Distance from uniform as a power of two, where the maker states one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epsilon_log2: Option<i32>,
    /// The direction it is for; random numbers have their own site at both ends.
    pub stream: StreamId,
    /// Units of 16 bytes.
    pub units: u64,
    /// When it was put here, since 1970.
    pub created: Duration,
    /// The sites it was made for.
    pub known_to: BTreeSet<SiteId>,
    /// Relays that had all of it.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub seen_by: BTreeSet<SiteId>,
    /// For a sum of parts that went different ways: who had each part.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts_seen_by: Vec<BTreeSet<SiteId>>,
}

impl Description {
    /// Key of `bytes` bytes for `stream` that nobody but its two ends has.
    pub fn key(id: BlockId, stream: StreamId, source: Source, class: Class) -> Self {
        let known_to = [stream.sender.clone(), stream.receiver.clone()].into();
        Self {
            id,
            kind: Kind::Key,
            source,
            class,
            epsilon_log2: None,
            stream,
            units: 0,
            created: Duration::ZERO,
            known_to,
            seen_by: BTreeSet::new(),
            parts_seen_by: Vec::new(),
        }
    }

    /// Random numbers of `site` alone.
    pub fn random(id: BlockId, site: &SiteId, source: Source, class: Class) -> Self {
        let stream = StreamId { sender: site.clone(), receiver: site.clone() };
        Self { kind: Kind::Random, ..Self::key(id, stream, source, class) }
    }

    /// Everybody who has or had the bytes.
    pub fn everybody(&self) -> BTreeSet<SiteId> {
        self.known_to.union(&self.seen_by).cloned().collect()
    }

    fn encode(&self) -> Option<Box<[u8; HEADER_BYTES]>> {
        let text = serde_json::to_vec(self).ok()?;
        let mut page = Box::new([0; HEADER_BYTES]);
        page[..8].copy_from_slice(&MAGIC);
        page[8..12].copy_from_slice(&u32::try_from(text.len()).ok()?.to_le_bytes());
        page[12..DIGEST_AT].get_mut(..text.len())?.copy_from_slice(&text);
        let digest = blake3::hash(&page[..DIGEST_AT]);
        page[DIGEST_AT..DIGEST_AT + 32].copy_from_slice(digest.as_bytes());
        Some(page)
    }

    fn decode(page: &[u8; HEADER_BYTES]) -> Option<Self> {
        let length = u32::from_le_bytes(page[8..12].try_into().ok()?) as usize;
        let digest = blake3::hash(&page[..DIGEST_AT]);
        if page[..8] != MAGIC || page[DIGEST_AT..DIGEST_AT + 32] != digest.as_bytes()[..] {
            return None;
        }
        let description: Self = serde_json::from_slice(page[12..DIGEST_AT].get(..length)?).ok()?;
        let bytes = description.units.checked_mul(UNIT_BYTES)?;
        (1..=BLOCK_BYTES_MAX).contains(&bytes).then_some(description)
    }
}

/// A block as it is now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Block {
    /// What never changes.
    #[serde(flatten)]
    pub description: Description,
    /// What it may be used for.
    pub state: State,
    /// Its first unit in the stream, once the sender of the stream has given it one.
    pub position: Option<u64>,
}

impl Block {
    /// Its place in the stream, if it has one.
    pub fn range(&self) -> Option<KeyRange> {
        self.position.map(|position| KeyRange { position, units: self.description.units })
    }

    /// Its length.
    pub fn bytes(&self) -> ByteCount {
        ByteCount(self.description.units * UNIT_BYTES)
    }
}

#[derive(Clone, Copy)]
struct StateRecord {
    sequence: u64,
    state: State,
    position: Option<u64>,
}

impl StateRecord {
    fn encode(self, id: BlockId) -> [u8; STATE_BYTES] {
        let mut bytes = [0; STATE_BYTES];
        bytes[..8].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[8] = self.state.code();
        let position = self.position.unwrap_or(NO_POSITION);
        bytes[16..24].copy_from_slice(&position.to_le_bytes());
        bytes[24..40].copy_from_slice(&id.0);
        let checksum = blake3::hash(&bytes[..40]);
        bytes[48..].copy_from_slice(&checksum.as_bytes()[..16]);
        bytes
    }

    fn decode(bytes: &[u8; STATE_BYTES], id: BlockId) -> Option<Self> {
        let word = |at: usize| Some(u64::from_le_bytes(bytes[at..at + 8].try_into().ok()?));
        let position = word(16)?;
        let record = Self {
            sequence: word(0)?,
            state: State::from_code(bytes[8])?,
            position: (position != NO_POSITION).then_some(position),
        };
        (record.encode(id) == *bytes).then_some(record)
    }
}

/// A block's file that is open.
pub(super) struct BlockFile {
    pub(super) description: Description,
    path: PathBuf,
    file: File,
}

impl BlockFile {
    /// Writes a new block, pending, to `path`, where nothing is yet; durable but for the folder.
    pub(super) fn create(
        path: &Path,
        description: &Description,
        position: Option<u64>,
        bytes: &[u8],
    ) -> Result<(), Error> {
        let refused = |what| Error::Pool { path: path.into(), what };
        let mut page = description.encode().ok_or_else(|| refused("too many sites know it"))?;
        let record = StateRecord { sequence: 0, state: State::Pending, position };
        page[STATES_AT[0] as usize..][..STATE_BYTES]
            .copy_from_slice(&record.encode(description.id));
        let mut options = File::options();
        let created = options.write(true).create_new(true).mode(0o600).open(path);
        let file = created.map_err(failed(path))?;
        let written = file.write_all_at(&page[..], 0);
        let written = written.and_then(|()| file.write_all_at(bytes, HEADER_BYTES as u64));
        written.and_then(|()| file.sync_all()).map_err(failed(path))
    }

    /// Opens a block and checks its header.
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let file = File::options().read(true).write(true).open(path).map_err(failed(path))?;
        let mut page = Box::new([0; HEADER_BYTES]);
        file.read_exact_at(&mut page[..], 0).map_err(failed(path))?;
        let damaged = || Error::Pool { path: path.into(), what: "its header is damaged" };
        let description = Description::decode(&page).ok_or_else(damaged)?;
        Ok(Self { description, path: path.into(), file })
    }

    /// Opens a block whose header was read before and never changes.
    pub(super) fn reopen(path: &Path, description: Description) -> Result<Self, Error> {
        let file = File::options().read(true).write(true).open(path).map_err(failed(path))?;
        Ok(Self { description, path: path.into(), file })
    }

    /// The block as it is on the disk now.
    pub(super) fn block(&self) -> Result<Block, Error> {
        let StateRecord { state, position, .. } = self.record()?;
        let length = self.file.metadata().map_err(failed(&self.path))?.len();
        let ended = matches!(state, State::Spent | State::Lost);
        if !ended && length < offset(self.description.units) {
            return Err(Error::Pool { path: self.path.clone(), what: "it is truncated" });
        }
        Ok(Block { description: self.description.clone(), state, position })
    }

    fn record(&self) -> Result<StateRecord, Error> {
        let mut newest: Option<StateRecord> = None;
        for offset in STATES_AT {
            let mut bytes = [0; STATE_BYTES];
            self.file.read_exact_at(&mut bytes, offset).map_err(failed(&self.path))?;
            let record = StateRecord::decode(&bytes, self.description.id);
            newest = newest.into_iter().chain(record).max_by_key(|record| record.sequence);
        }
        newest.ok_or_else(|| Error::Pool { path: self.path.clone(), what: "its state is damaged" })
    }

    /// Records a state durably.
    pub(super) fn set(&self, state: State, position: Option<u64>) -> Result<(), Error> {
        let sequence = self.record()?.sequence + 1;
        let record = StateRecord { sequence, state, position }.encode(self.description.id);
        let written = self.file.write_all_at(&record, STATES_AT[(sequence % 2) as usize]);
        written.and_then(|()| self.file.sync_data()).map_err(failed(&self.path))
    }

    /// Reads from the unit `first` of the block on.
    ///
    /// Errors: when those bytes were wiped. A unit of zeros is a wiped one: by chance it comes once
    /// in 2^128 units.
    pub(super) fn read(&self, first: u64, out: &mut [u8]) -> Result<(), Error> {
        self.file.read_exact_at(out, offset(first)).map_err(failed(&self.path))?;
        let (start, end) = (&out[..16], &out[out.len() - 16..]);
        if [start, end].iter().any(|unit| unit.iter().all(|byte| *byte == 0)) {
            out.fill(0);
            return Err(Error::Pool { path: self.path.clone(), what: "its keys there were wiped" });
        }
        Ok(())
    }

    /// Overwrites units with zeros.
    pub(super) fn wipe(&self, first: u64, units: u64) -> Result<(), Error> {
        wipe(&self.file, offset(first), units * UNIT_BYTES).map_err(failed(&self.path))
    }

    /// Whether the unit holds zeros.
    pub(super) fn is_wiped(&self, unit: u64) -> Result<bool, Error> {
        let mut bytes = Zeroizing::new([0; UNIT_BYTES as usize]);
        self.file.read_exact_at(bytes.as_mut_slice(), offset(unit)).map_err(failed(&self.path))?;
        Ok(bytes.iter().all(|byte| *byte == 0))
    }

    /// Wipes all bytes, records the state, and gives the room back; only the header stays.
    pub(super) fn end(&self, state: State) -> Result<(), Error> {
        let bytes = self.file.metadata().map_err(failed(&self.path))?.len();
        let bytes = bytes.saturating_sub(HEADER_BYTES as u64);
        wipe(&self.file, HEADER_BYTES as u64, bytes)
            .and_then(|()| self.file.sync_data())
            .map_err(failed(&self.path))?;
        self.set(state, self.record()?.position)?;
        self.file.set_len(HEADER_BYTES as u64).map_err(failed(&self.path))
    }
}

fn offset(unit: u64) -> u64 {
    HEADER_BYTES as u64 + unit * UNIT_BYTES
}

pub(super) fn failed(path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    move |source| Error::PoolFile { path: path.into(), source }
}
