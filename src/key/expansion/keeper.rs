//! The keeper: a small process whose memory is the only place of the seeds, so that they outlive the
//! processes that use them.
//!
//! It answers on a Unix socket in the site's state folder, processes of its own user only, which the
//! kernel vouches for (`SO_PEERCRED`). A request is a header, and for [`Seeds::put`] the seeds:
//!
//! ```text
//! offset  bytes  integers little-endian
//!      0      1  1 put, 2 fetch, 3 spend, 4 present
//!      1     17  the body
//!     18      8  put: units of the body; spend: first unit; fetch: first sub-block
//!     26      8  put: first sub-block; spend: units
//!     34      4  put, fetch: sub-blocks
//! ```
//!
//! An answer is a byte (0, or 1 + the index of a refusal), a count of 4 bytes, and so many items: fetch, a
//! byte that says whether there is a seed, and 48 bytes; present, two numbers of 8 bytes. When the keeper
//! ends, every seed is gone.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use zeroize::Zeroizing;

use super::vault::REFUSALS;
use super::{BodyId, SEED_BYTES, SEEDS_MAX, Seed, Seeds, Vault};
use crate::key::{Error, KeyRange};

const HEADER_BYTES: usize = 38;
const PUT: u8 = 1;
const FETCH: u8 = 2;
const SPEND: u8 = 3;
const PRESENT: u8 = 4;
/// Most ranges in an answer.
const RANGES_MAX: usize = 1 << 20;
/// Bytes of a fetched seed: whether it is there, and itself.
const FETCHED_BYTES: usize = 1 + SEED_BYTES;
/// Connections that are served at once.
const CONNECTIONS_MAX: usize = 256;
/// How long a client waits for the keeper, whose answers take microseconds.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where the keeper of a site listens.
pub fn socket(state: &Path) -> PathBuf {
    state.join("keeper.socket")
}

fn failed(what: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Keeper { what, source: Some(source) }
}

/// The keeper's side.
pub struct Keeper {
    listener: UnixListener,
    path: PathBuf,
    vault: Arc<Vault>,
    closed: Arc<AtomicBool>,
    /// Locked while this keeper lives: there is one in a state folder.
    _alone: File,
}

/// Ends a keeper from another thread.
pub struct Closer {
    path: PathBuf,
    closed: Arc<AtomicBool>,
}

impl Closer {
    /// Ends it; what it holds is wiped when it is dropped.
    pub fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        // Wakes it, if it still listens.
        let _ = UnixStream::connect(&self.path);
    }
}

impl Keeper {
    /// Begins to listen in the state folder, with nothing to keep.
    ///
    /// Errors: [`Error::Keeper`] when another one runs there.
    pub fn bind(state: &Path) -> Result<Self, Error> {
        let failed_to_listen = || failed("cannot listen in the state folder");
        let private = DirBuilder::new().recursive(true).mode(0o700).create(state);
        private.map_err(failed_to_listen())?;
        let path = socket(state);
        let mut options = File::options();
        let lock = options.create(true).append(true).mode(0o600).open(path.with_extension("lock"));
        let alone = lock.map_err(failed_to_listen())?;
        let occupied = || Error::Keeper { what: "runs here already", source: None };
        alone.try_lock().map_err(|_| occupied())?;
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed_to_listen()(error));
            }
            _ => {}
        }
        let listener = UnixListener::bind(&path).map_err(failed_to_listen())?;
        let own = fs::set_permissions(&path, fs::Permissions::from_mode(0o600));
        own.map_err(failed_to_listen())?;
        Ok(Self { listener, path, vault: Arc::default(), closed: Arc::default(), _alone: alone })
    }

    /// What ends it.
    pub fn closer(&self) -> Closer {
        Closer { path: self.path.clone(), closed: Arc::clone(&self.closed) }
    }

    /// What it keeps.
    pub fn vault(&self) -> &Arc<Vault> {
        &self.vault
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Answers until it is [closed](Closer::close).
    ///
    /// Errors: the system's, when no connection can be accepted any more.
    pub fn serve(&self) -> Result<(), Error> {
        let connections = Arc::new(AtomicUsize::new(0));
        loop {
            let (stream, _) = self.listener.accept().map_err(failed("cannot listen any more"))?;
            if self.closed.load(Ordering::SeqCst) {
                // Leaves nothing that a client would wait at.
                let _ = fs::remove_file(&self.path);
                return Ok(());
            }
            if !is_own(&stream) || connections.load(Ordering::SeqCst) >= CONNECTIONS_MAX {
                continue;
            }
            connections.fetch_add(1, Ordering::SeqCst);
            let (vault, open) = (Arc::clone(&self.vault), Arc::clone(&connections));
            let work = move || {
                // The client sees its connection end.
                let _ = answer_all(stream, &vault);
                open.fetch_sub(1, Ordering::SeqCst);
            };
            if thread::Builder::new().name("keeper".into()).spawn(work).is_err() {
                connections.fetch_sub(1, Ordering::SeqCst);
            }
        }
    }
}

/// Whether the process at the other end belongs to this user.
fn is_own(stream: &UnixStream) -> bool {
    let user = rustix::process::geteuid();
    rustix::net::sockopt::socket_peercred(stream).is_ok_and(|peer| peer.uid == user)
}

fn answer_all(mut stream: UnixStream, vault: &Vault) -> io::Result<()> {
    let mut header = [0; HEADER_BYTES];
    loop {
        stream.read_exact(&mut header)?;
        let request = Request::decode(&header).ok_or(io::ErrorKind::InvalidData)?;
        let mut seeds = Zeroizing::new(vec![0; request.payload_bytes()].into_boxed_slice());
        stream.read_exact(&mut seeds)?;
        let answer = match request.answer(vault, &seeds) {
            Ok(answer) => answer,
            Err(error) => refusal(&error),
        };
        stream.write_all(&answer)?;
    }
}

/// A request without its payload.
struct Request {
    operation: u8,
    body: BodyId,
    first: u64,
    second: u64,
    count: usize,
}

impl Request {
    fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0] = self.operation;
        bytes[1..18].copy_from_slice(&self.body.0);
        bytes[18..26].copy_from_slice(&self.first.to_le_bytes());
        bytes[26..34].copy_from_slice(&self.second.to_le_bytes());
        bytes[34..].copy_from_slice(&(self.count as u32).to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8; HEADER_BYTES]) -> Option<Self> {
        let long = |at: usize| Some(u64::from_le_bytes(bytes[at..at + 8].try_into().ok()?));
        let request = Self {
            operation: bytes[0],
            body: BodyId(bytes[1..18].try_into().ok()?),
            first: long(18)?,
            second: long(26)?,
            count: u32::from_le_bytes(bytes[34..].try_into().ok()?) as usize,
        };
        let known = (PUT..=PRESENT).contains(&request.operation);
        let bounded = request.count <= SEEDS_MAX;
        let sums = request.first.checked_add(request.second).is_some();
        (known && bounded && sums).then_some(request)
    }

    fn payload_bytes(&self) -> usize {
        if self.operation == PUT { self.count * SEED_BYTES } else { 0 }
    }

    fn answer(&self, vault: &Vault, seeds: &[u8]) -> Result<Zeroizing<Vec<u8>>, Error> {
        match self.operation {
            PUT => {
                let seeds: Vec<_> = seeds.chunks_exact(SEED_BYTES).map(Seed::of).collect();
                vault.put(self.body, self.first, self.second, &seeds)?;
                Ok(answer(0, 0, 0))
            }
            FETCH => {
                let seeds = vault.fetch(self.body, self.first, self.count)?;
                let mut answer = answer(0, seeds.len(), FETCHED_BYTES);
                for seed in &seeds {
                    answer.push(u8::from(seed.is_some()));
                    answer.extend(seed.as_ref().map_or(&[0; SEED_BYTES][..], Seed::bytes));
                }
                Ok(answer)
            }
            SPEND => {
                let units = KeyRange { position: self.first, units: self.second };
                vault.spend(self.body, units)?;
                Ok(answer(0, 0, 0))
            }
            _ => {
                let ranges = vault.present(self.body)?;
                let ranges = &ranges[..ranges.len().min(RANGES_MAX)];
                let mut answer = answer(0, ranges.len(), 16);
                for range in ranges {
                    answer.extend(range.position.to_le_bytes());
                    answer.extend(range.units.to_le_bytes());
                }
                Ok(answer)
            }
        }
    }
}

/// The beginning of an answer, with room for its items: a vector that grew would leave seeds behind.
fn answer(status: u8, count: usize, item_bytes: usize) -> Zeroizing<Vec<u8>> {
    let mut answer = Zeroizing::new(Vec::with_capacity(5 + count * item_bytes));
    answer.push(status);
    answer.extend((count as u32).to_le_bytes());
    answer
}

fn refusal(error: &Error) -> Zeroizing<Vec<u8>> {
    let known = |text: &&str| matches!(error, Error::Keeper { what, .. } if what == text);
    let index = REFUSALS.iter().position(known).unwrap_or(REFUSALS.len());
    answer(1 + index as u8, 0, 0)
}

/// A process's line to the keeper.
pub struct Client(Mutex<UnixStream>);

impl Client {
    /// Calls the keeper at `path`.
    pub fn connect(path: &Path) -> Result<Self, Error> {
        let absent = || failed("does not run in the state folder of this site");
        let stream = UnixStream::connect(path).map_err(absent())?;
        if !is_own(&stream) {
            return Err(Error::Keeper { what: "belongs to another user", source: None });
        }
        stream.set_read_timeout(Some(PATIENCE)).map_err(absent())?;
        stream.set_write_timeout(Some(PATIENCE)).map_err(absent())?;
        Ok(Self(Mutex::new(stream)))
    }

    fn ask(
        &self,
        request: &Request,
        payload: &[u8],
        item_bytes: usize,
        items_max: usize,
    ) -> Result<Zeroizing<Box<[u8]>>, Error> {
        let mut stream = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let exchange = |stream: &mut UnixStream| {
            stream.write_all(&request.encode())?;
            stream.write_all(payload)?;
            let mut front = [0; 5];
            stream.read_exact(&mut front)?;
            let count = u32::from_le_bytes([front[1], front[2], front[3], front[4]]) as usize;
            if count > items_max {
                return Err(io::ErrorKind::InvalidData.into());
            }
            let mut items = Zeroizing::new(vec![0; count * item_bytes].into_boxed_slice());
            stream.read_exact(&mut items)?;
            Ok((front[0], items))
        };
        let (status, items) = exchange(&mut stream).map_err(failed("went away"))?;
        match status {
            0 => Ok(items),
            code => {
                let what = REFUSALS.get(usize::from(code) - 1).unwrap_or(&"failed");
                Err(Error::Keeper { what, source: None })
            }
        }
    }
}

impl Seeds for Client {
    fn put(&self, body: BodyId, units: u64, first: u64, seeds: &[Seed]) -> Result<(), Error> {
        for (index, piece) in seeds.chunks(SEEDS_MAX).enumerate() {
            let bytes = piece.iter().flat_map(Seed::bytes).copied();
            let mut payload = Zeroizing::new(Vec::with_capacity(piece.len() * SEED_BYTES));
            payload.extend(bytes);
            let second = first + (index * SEEDS_MAX) as u64;
            let count = piece.len();
            let request = Request { operation: PUT, body, first: units, second, count };
            self.ask(&request, &payload, 0, 0)?;
        }
        Ok(())
    }

    fn fetch(&self, body: BodyId, first: u64, count: usize) -> Result<Vec<Option<Seed>>, Error> {
        let request = Request { operation: FETCH, body, first, second: 0, count };
        let items = self.ask(&request, &[], FETCHED_BYTES, count)?;
        if items.len() != count * FETCHED_BYTES {
            return Err(Error::Keeper { what: "answered something else", source: None });
        }
        let items = items.chunks_exact(FETCHED_BYTES);
        Ok(items.map(|item| (item[0] == 1).then(|| Seed::of(&item[1..]))).collect())
    }

    fn spend(&self, body: BodyId, units: KeyRange) -> Result<(), Error> {
        let (first, second) = (units.position, units.units);
        self.ask(&Request { operation: SPEND, body, first, second, count: 0 }, &[], 0, 0)?;
        Ok(())
    }

    fn present(&self, body: BodyId) -> Result<Vec<KeyRange>, Error> {
        let request = Request { operation: PRESENT, body, first: 0, second: 0, count: 0 };
        let items = self.ask(&request, &[], 16, RANGES_MAX)?;
        let long =
            |bytes: &[u8]| bytes.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        let range = |item: &[u8]| KeyRange { position: long(&item[..8]), units: long(&item[8..]) };
        Ok(items.chunks_exact(16).map(range).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{SUB_BLOCK_UNITS, sub_blocks};
    use super::*;

    const BODY: BodyId = BodyId([3; 17]);

    fn serving(state: &Path, work: impl FnOnce(&Keeper)) {
        let keeper = Keeper::bind(state).unwrap();
        thread::scope(|scope| {
            let served = scope.spawn(|| keeper.serve());
            work(&keeper);
            keeper.closer().close();
            served.join().unwrap().unwrap();
        });
    }

    #[test]
    fn a_client_sees_what_the_vault_has() {
        let state = tempfile::tempdir().unwrap();
        serving(state.path(), |keeper| {
            let units = 1500 * SUB_BLOCK_UNITS;
            let seed = |n: u64| Seed::of(&[n as u8; SEED_BYTES]);
            let seeds: Vec<_> = (0..sub_blocks(units)).map(seed).collect();
            let client = Client::connect(keeper.path()).unwrap();
            client.put(BODY, units, 0, &seeds).unwrap();
            let other = Client::connect(keeper.path()).unwrap();
            let fetched = other.fetch(BODY, 1499, 2).unwrap();
            assert!(fetched[0].as_ref().unwrap().is(&[1499u64 as u8; SEED_BYTES]));
            assert!(fetched[1].is_none());
            other
                .spend(BODY, KeyRange { position: SUB_BLOCK_UNITS, units: SUB_BLOCK_UNITS })
                .unwrap();
            let ranges = client.present(BODY).unwrap();
            let range = |position, units| KeyRange { position, units };
            assert_eq!(ranges, [range(0, 1), range(2, 1498)]);
            let again = client.put(BODY, units, 1, &seeds[1..2]).err().unwrap();
            assert!(matches!(again, Error::Keeper { what, .. } if what.contains("spent")));
            assert_eq!(keeper.vault().len(), 1499);
            assert!(Keeper::bind(state.path()).is_err(), "one in a state folder");
        });
        assert!(Client::connect(&socket(state.path())).is_err());
        drop(Keeper::bind(state.path()).unwrap());
    }

    #[test]
    fn nonsense_ends_the_connection_and_nothing_else() {
        let state = tempfile::tempdir().unwrap();
        serving(state.path(), |keeper| {
            let good = Request { operation: FETCH, body: BODY, first: 0, second: 0, count: 1 };
            for (at, value) in [(0, 0), (0, 5), (36, 1), (37, 0xff)] {
                let mut bytes = good.encode();
                bytes[at] = value;
                let mut stream = UnixStream::connect(keeper.path()).unwrap();
                stream.write_all(&bytes).unwrap();
                assert!(matches!(stream.read(&mut [0; 5]), Ok(0) | Err(_)), "{at} {value}");
            }
            let client = Client::connect(keeper.path()).unwrap();
            assert!(client.fetch(BODY, u64::MAX, 3).unwrap().iter().all(Option::is_none));
        });
    }
}
