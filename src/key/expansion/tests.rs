//! Fig. 5 on pads: both ends agree, what is spent is gone, what is lost is skipped or refused.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

use super::keeper::Keeper;
use super::*;
use crate::base::{ByteCount, Clock, SiteId};
use crate::kernel::keystream;
use crate::key::random::OperatingSystem;
use crate::key::{AtRest, Follower, KeyStore, LinkSettings, Sender, pad, preshared};

const HEADER: usize = pad::HEADER_BYTES;
/// Units of each direction: two sub-blocks and a part of one.
const UNITS: u64 = 2 * SUB_BLOCK_UNITS + 100;

fn site(end: usize) -> SiteId {
    ["a", "b"][end].parse().unwrap()
}

/// Two sites with keepers, and the pads that are carried to them.
struct World {
    folder: TempDir,
    carried: [PathBuf; 2],
    whole: Vec<u8>,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let carried = make(folder.path(), 0);
        let whole = fs::read(&carried[0]).unwrap();
        Self { folder, carried, whole }
    }

    fn state(&self, end: usize) -> PathBuf {
        self.folder.path().join(["state-a", "state-b"][end])
    }

    fn import(&self, end: usize) -> Result<(), Error> {
        self.import_file(end, &self.carried[end])
    }

    fn import_file(&self, end: usize, file: &Path) -> Result<(), Error> {
        preshared::import(&site(end), &self.state(end), &site(1 - end), file).map(drop)
    }

    fn store(&self, end: usize) -> Result<KeyStore, Error> {
        let links = [LinkSettings::preshared(site(1 - end))];
        KeyStore::open(site(end), &self.state(end), &links, clock())
    }

    fn sender(&self) -> Sender {
        self.store(0).unwrap().sender(&site(1)).unwrap()
    }

    fn follower(&self) -> Follower {
        self.store(1).unwrap().follower(&site(0)).unwrap()
    }

    fn imported(&self, end: usize) -> Vec<u8> {
        let pads = self.state(end).join("keys").join(site(1 - end).as_str()).join("pads");
        let mut files: Vec<_> = fs::read_dir(pads).unwrap().map(|f| f.unwrap().path()).collect();
        files.sort();
        fs::read(&files[0]).unwrap()
    }

    /// Both keepers run while the work is done.
    fn kept(&self, work: impl FnOnce([&Keeper; 2])) {
        let keepers = [0, 1].map(|end| Keeper::bind(&self.state(end)).unwrap());
        thread::scope(|scope| {
            let served = [0, 1].map(|end| {
                let keeper = &keepers[end];
                scope.spawn(move || keeper.serve())
            });
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                work([&keepers[0], &keepers[1]]);
            }));
            keepers.iter().for_each(|keeper| keeper.closer().close());
            served.into_iter().for_each(|served| served.join().unwrap().unwrap());
            done.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        });
    }

    /// The first direction's K4, from K0 by the twin.
    fn expected(&self) -> Vec<u8> {
        let length = (UNITS * UNIT_BYTES) as usize;
        let mut key = self.whole[HEADER..HEADER + length].to_vec();
        let seeds = &self.whole[HEADER + 2 * length..];
        for (block, seed) in key.chunks_mut(SUB_BLOCK_BYTES as usize).zip(seeds.chunks(SEED_BYTES))
        {
            let counter = u128::from_be_bytes(seed[32..].try_into().unwrap());
            keystream::apply(seed[..32].try_into().unwrap(), counter, block);
        }
        key
    }
}

fn clock() -> Clock {
    Clock::simulated(Duration::from_secs(1_795_000_000))
}

/// Pads are numbered by the second.
fn make(folder: &Path, seconds_later: u64) -> [PathBuf; 2] {
    let mut random = OperatingSystem::new(site(0));
    let (sites, bytes) = ([site(0), site(1)], ByteCount(2 * UNITS * UNIT_BYTES));
    let clock = clock();
    clock.advance(Duration::from_secs(seconds_later));
    pad::generate_for(Some(Method::Fig5), sites, bytes, &mut random, folder, &clock).unwrap()
}

#[test]
fn both_ends_work_out_the_same_key_from_what_is_apart() {
    let world = World::new();
    let lengths = HEADER + 2 * (UNITS * UNIT_BYTES) as usize;
    assert_eq!(world.whole.len(), lengths + 2 * 3 * SEED_BYTES);
    world.kept(|keepers| {
        (0..2).for_each(|end| world.import(end).unwrap());
        assert!(world.carried.iter().all(|file| !file.exists()));
        assert_eq!(keepers[0].vault().len(), 6);
        assert!(world.imported(0) == world.whole[..lengths], "K1 and no K2");
        let expected = world.expected();
        let level = world.store(0).unwrap().level(&site(1)).unwrap();
        assert_eq!(level.at_rest, AtRest::Computational);
        let (mut sender, mut follower) = (world.sender(), world.follower());
        // Frames of all kinds, some of them over the end of a sub-block.
        for bytes in [16, 4000, 1 << 20, 65_536, 900_000, 50_000] {
            let lease = sender.take(bytes).unwrap();
            let at = ((lease.range().position << 30 >> 30) * UNIT_BYTES) as usize;
            assert!(lease.bytes() == &expected[at..at + lease.bytes().len()], "{bytes}");
            let other = follower.fetch(lease.range()).unwrap();
            assert!(other.bytes() == lease.bytes());
            follower.accept(lease.range(), sender.reservation()).unwrap();
        }
        for end in [0, 1] {
            assert_eq!(keepers[end].vault().len(), 5, "the first sub-block is spent");
        }
        drop((sender, follower));
        let left = world.imported(0)[HEADER..].iter().position(|byte| *byte != 0).unwrap();
        assert!(left >= 2_068_000, "K1 of what was spent is overwritten");
    });
}

#[test]
fn after_a_power_cut_the_sender_goes_on_behind_the_loss() {
    let world = World::new();
    world.kept(|_| (0..2).for_each(|end| world.import(end).unwrap()));
    let later = make(world.folder.path(), 5);
    world.kept(|_| {
        assert!(matches!(world.sender().take(16), Err(Error::Exhausted { .. })));
        let level = world.store(0).unwrap().level(&site(1)).unwrap();
        assert_eq!(level.outgoing.remaining, ByteCount(0));
        let lost = KeyRange { units: 4, ..first_of(&world) };
        let refused = world.follower().fetch(lost).err().unwrap();
        assert!(matches!(refused, Error::Lost { .. }), "{refused}");

        (0..2).for_each(|end| world.import_file(end, &later[end]).unwrap());
        let (mut sender, mut follower) = (world.sender(), world.follower());
        let lease = sender.take(4000).unwrap();
        assert!(lease.range().position > lost.end());
        assert!(follower.fetch(lease.range()).unwrap().bytes() == lease.bytes());
        follower.accept(lease.range(), sender.reservation()).unwrap();
        assert!(world.imported(0)[HEADER..HEADER + 4000].iter().all(|byte| *byte == 0), "skipped");
    });
}

/// The range of the pad that was imported first.
fn first_of(world: &World) -> KeyRange {
    let number = world.carried[0].file_name().unwrap().to_str().unwrap().to_owned();
    let number: u64 = number.split('-').nth(2).unwrap().parse().unwrap();
    KeyRange { position: number << 34, units: UNITS }
}

/// The JSON of a pad's header.
fn header_text(pad: &[u8]) -> &[u8] {
    let length = u32::from_le_bytes(pad[8..12].try_into().unwrap()) as usize;
    &pad[12..12 + length]
}

#[test]
fn without_a_keeper_nothing_is_imported_and_an_interrupted_import_goes_on() {
    let world = World::new();
    assert!(matches!(world.import(0), Err(Error::Keeper { .. })));
    assert!(fs::read(&world.carried[0]).unwrap() == world.whole, "left as it was");
    world.kept(|keepers| {
        // Killed after the seeds were cut off, and before the pad was moved.
        let (keys, seeds) = world.whole.split_at(world.whole.len() - 6 * SEED_BYTES);
        fs::write(&world.carried[0], keys).unwrap();
        assert!(matches!(world.import(0), Err(Error::Pad { .. })), "the keeper does not know it");
        let id: pad::PadHeader = serde_json::from_slice(header_text(keys)).unwrap();
        let id = u128::from_str_radix(&id.id, 16).unwrap();
        for (part, seeds) in [0, 1].into_iter().zip(seeds.chunks(3 * SEED_BYTES)) {
            let body = Body { id: BodyId::new(id, part), range: first_of(&world) };
            body.deposit(&**keepers[0].vault(), seeds).unwrap();
        }
        world.import(0).unwrap();
        assert_eq!(keepers[0].vault().len(), 6);
        world.import(1).unwrap();
        let mut sender = world.sender();
        let lease = sender.take(16).unwrap();
        assert!(world.follower().fetch(lease.range()).unwrap().bytes() == lease.bytes());
    });
    assert!(matches!(world.store(0), Err(Error::Keeper { .. })));
}
