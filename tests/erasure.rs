//! Used key is nowhere any more: a process uses key, and its memory and the files of its site are read
//! byte by byte for what it used.
//!
//! The process is this program itself, run once more with a variable set; so the key that is looked for is
//! not in the memory that is read because of the looking.

#![allow(clippy::unwrap_used)]

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use dsgd::base::{ByteCount, Clock, SiteId};
use dsgd::device::cpu::otp::{Hash, HashKey, xor};
use dsgd::kernel::keystream;
use dsgd::key::expansion::keeper::Keeper;
use dsgd::key::expansion::{Method, SEED_BYTES, SUB_BLOCK_BYTES};
use dsgd::key::random::OperatingSystem;
use dsgd::key::{KeyStore, LinkSettings, pad, preshared};

/// Set in the process that uses key, to the folder of its sites.
const FOLDER: &str = "DSGD_ERASURE_TEST_FOLDER";
const HEADER: usize = pad::HEADER_BYTES;
/// Key of each direction: two sub-blocks and a half.
const KEY: usize = 5 << 19;
/// Used of it: one sub-block and a part of the next.
const USED: usize = (1 << 20) + (200 << 10);
/// Bytes of a piece that is recognised wherever it lies: every 32 bytes of key have a whole one.
const PIECE: usize = 16;

fn site(end: usize) -> SiteId {
    ["a", "b"][end].parse().unwrap()
}

fn clock() -> Clock {
    Clock::simulated(Duration::from_secs(1_795_000_000))
}

fn state(folder: &Path, end: usize) -> PathBuf {
    folder.join(["state-a", "state-b"][end])
}

/// Pieces of secrets, to be found again.
struct Wanted {
    pieces: HashSet<[u8; PIECE]>,
    /// Whether any piece has these first two bytes.
    first: Vec<bool>,
}

impl Wanted {
    fn new(secrets: &[&[u8]]) -> Self {
        let pieces: HashSet<[u8; PIECE]> = secrets
            .iter()
            .flat_map(|secret| secret.chunks_exact(PIECE))
            .map(|piece| piece.try_into().unwrap())
            .collect();
        let mut first = vec![false; 1 << 24];
        pieces.iter().for_each(|piece| first[front(piece)] = true);
        Self { pieces, first }
    }

    /// How many pieces are in `bytes`, at whatever offset.
    fn count(&self, bytes: &[u8]) -> usize {
        let windows = bytes.windows(PIECE).filter(|window| self.first[front(window)]);
        windows.filter(|window| self.pieces.contains(*window)).count()
    }
}

fn front(bytes: &[u8]) -> usize {
    usize::from(bytes[0]) | usize::from(bytes[1]) << 8 | usize::from(bytes[2]) << 16
}

/// Every readable byte of the process, mapping by mapping.
fn count_in_memory(process: &Child, wanted: &[&Wanted]) -> Vec<usize> {
    let folder = PathBuf::from(format!("/proc/{}", process.id()));
    let memory = File::open(folder.join("mem")).unwrap();
    let mut counts = vec![0; wanted.len()];
    for line in fs::read_to_string(folder.join("maps")).unwrap().lines() {
        let mut words = line.split_whitespace();
        let (range, permissions) = (words.next().unwrap(), words.next().unwrap());
        if !permissions.starts_with('r') || line.ends_with("[vvar]") {
            continue;
        }
        let (start, end) = range.split_once('-').unwrap();
        let [start, end] = [start, end].map(|n| u64::from_str_radix(n, 16).unwrap());
        let mut bytes = vec![0; (end - start) as usize];
        // Pages that even this reading cannot have are those of the keeper.
        if memory.read_exact_at(&mut bytes, start).is_ok() {
            counts
                .iter_mut()
                .zip(wanted)
                .for_each(|(count, wanted)| *count += wanted.count(&bytes));
        }
    }
    counts
}

fn count_in_files(folder: &Path, wanted: &Wanted) -> usize {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let count = |entry: fs::DirEntry| match entry.file_type().unwrap() {
        kind if kind.is_dir() => count_in_files(&entry.path(), wanted),
        kind if kind.is_file() => wanted.count(&fs::read(entry.path()).unwrap()),
        _ => 0,
    };
    entries.map(count).sum()
}

/// What of one pad is looked for: its first direction is used.
struct Secrets {
    used: Vec<u8>,
    used_seed: Vec<u8>,
    left: Vec<u8>,
    held: Vec<u8>,
}

impl Secrets {
    fn of(pad: &[u8], expanded: bool) -> Self {
        let stored = &pad[HEADER..HEADER + KEY];
        let mut key = stored.to_vec();
        let seeds = &pad[HEADER + 2 * KEY..];
        for (block, seed) in key.chunks_mut(SUB_BLOCK_BYTES as usize).zip(seeds.chunks(SEED_BYTES))
        {
            let counter = u128::from_be_bytes(seed[32..].try_into().unwrap());
            keystream::apply(seed[..32].try_into().unwrap(), counter, block);
        }
        assert_eq!(expanded, key != stored);
        let mut used = stored[..USED].to_vec();
        used.extend(&key[..USED]);
        Self {
            used,
            used_seed: seeds.get(..32).unwrap_or_default().to_vec(),
            left: stored[USED + 4096..].to_vec(),
            held: key[USED..USED + 4096].to_vec(),
        }
    }
}

fn check(expansion: Option<Method>) {
    let folder = tempfile::tempdir().unwrap();
    let mut random = OperatingSystem::new(site(0));
    let (sites, bytes) = ([site(0), site(1)], ByteCount(2 * KEY as u64));
    let files =
        pad::generate_for(expansion, sites, bytes, &mut random, folder.path(), &clock()).unwrap();
    let whole = fs::read(&files[0]).unwrap();
    let secrets = Secrets::of(&whole, expansion.is_some());

    let mut process = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "the_process_that_uses_key", "--ignored", "--nocapture"])
        .env(FOLDER, folder.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("used")), "it did its work");

    let [used, seed, held, left] =
        [&secrets.used, &secrets.used_seed, &secrets.held, &secrets.left]
            .map(|s| Wanted::new(&[s]));
    let counts = count_in_memory(&process, &[&used, &seed, &held]);
    let in_files = [&used, &seed, &left].map(|wanted| count_in_files(folder.path(), wanted));
    process.stdin.take().unwrap().write_all(b"\n").unwrap();
    assert!(process.wait().unwrap().success());

    assert!(counts[2] >= 4096 / PIECE, "key in use is found: the reading can find something");
    assert_eq!(counts[..2], [0, 0], "used key and its seed are in no memory");
    assert_eq!(in_files[2], 2 * (secrets.left.len() / PIECE), "unused key is in both files");
    assert_eq!(in_files[..2], [0, 0], "used key and its seed are in no file");
}

#[test]
fn used_key_is_in_no_memory_and_in_no_file() {
    check(None);
}

#[test]
fn used_key_its_stored_part_and_its_seed_are_nowhere() {
    check(Some(Method::Fig5));
}

/// Started by the tests above: uses key in all the ways there are, and waits to be looked at.
#[test]
#[ignore = "a part of the other tests"]
fn the_process_that_uses_key() {
    let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from) else { return };
    let keepers = [0, 1].map(|end| Keeper::bind(&state(&folder, end)).unwrap());
    std::thread::scope(|scope| {
        let served = keepers.each_ref().map(|keeper| scope.spawn(|| keeper.serve().unwrap()));
        let held = use_key(&folder);
        println!("used");
        std::io::stdout().flush().unwrap();
        std::io::stdin().read_exact(&mut [0]).unwrap();
        drop(held);
        keepers.iter().for_each(|keeper| keeper.closer().close());
        served.into_iter().for_each(|served| served.join().unwrap());
    });
}

fn use_key(folder: &Path) -> impl Sized + use<> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "pad"))
        .collect();
    files.sort();
    let stores = [0, 1].map(|end| {
        preshared::import(&site(end), &state(folder, end), &site(1 - end), &files[end]).unwrap();
        let links = [LinkSettings::preshared(site(1 - end))];
        KeyStore::open(site(end), &state(folder, end), &links, clock()).unwrap()
    });
    let mut sender = stores[0].sender(&site(1)).unwrap();
    let mut follower = stores[1].follower(&site(0)).unwrap();
    sender.expect(ByteCount((USED + 4096) as u64));
    let mut data = vec![0x5a; 64 << 10];
    let hash_key = HashKey::new(&[7; 16]);
    let mut left = USED;
    for turn in 0.. {
        let bytes = left.min([65_536, 48, 16_384, 40_000][turn % 4]);
        let lease = sender.take(bytes).unwrap();
        let other = follower.fetch(lease.range()).unwrap();
        let mut hash = Hash::new(&hash_key);
        hash.seal(&mut data[..bytes], lease.pad().slice(0..bytes));
        xor(&mut data[..bytes], other.pad().slice(0..bytes));
        assert!(data.iter().all(|byte| *byte == 0x5a));
        follower.accept(lease.range(), sender.reservation()).unwrap();
        if turn % 3 == 0 {
            // Worked out in memory, and freed.
            assert!(lease.bytes() == other.bytes());
            drop(lease.into_chunk());
        }
        left -= bytes;
        if left == 0 {
            break;
        }
    }
    let held = sender.take(4096).unwrap();
    assert!(held.bytes().len() == 4096);
    // The sessions are still open, as those of a daemon are.
    (held, sender, follower, stores)
}
