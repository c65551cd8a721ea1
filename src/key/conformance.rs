//! What every kind of link has to keep, run over all of [`SOURCES`]: never twice, not after a
//! restart, both ends agree, and the ledgers show it.

use std::path::PathBuf;
use std::time::Duration;

use tempfile::TempDir;

use super::journal::{link_folder, record_path};
use super::ledger::{self, Role, Summary};
use super::pool::BlockId;
use super::random::OperatingSystem;
use super::*;
use crate::base::{BitRate, ByteCount, Clock};

/// Bytes that each direction of the link has at first.
const STOCK_BYTES: u64 = 8 << 20;

const STATES: [&str; 2] = ["state-a", "state-b"];

/// Two sites and a link of some kind between them.
struct World {
    folder: TempDir,
    settings: [LinkSettings; 2],
    clock: Clock,
}

fn site(end: usize) -> SiteId {
    ["a", "b"][end].parse().unwrap()
}

impl World {
    fn new(kind: &str) -> Self {
        Self::sized(kind, STOCK_BYTES)
    }

    fn sized(kind: &str, stock_bytes: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = Clock::simulated(Duration::from_secs(1_800_000_000));
        let settings = match kind {
            sim::KIND => {
                let path = folder.path().join("link.json");
                let (rate, stock) = (BitRate(16_000_000), ByteCount(2 * stock_bytes));
                SimulatedLink::create(&path, [site(0), site(1)], rate, stock, &clock).unwrap();
                [site(1), site(0)].map(|peer| LinkSettings::simulated(peer, &path))
            }
            preshared::KIND => {
                let mut random = OperatingSystem::new(site(0));
                let (sites, bytes) = ([site(0), site(1)], ByteCount(2 * stock_bytes));
                let pads = pad::generate(sites, bytes, &mut random, folder.path(), &clock).unwrap();
                for (end, pad) in pads.iter().enumerate() {
                    let state = folder.path().join(STATES[end]);
                    preshared::import(&site(end), &state, &site(1 - end), pad).unwrap();
                }
                [site(1), site(0)].map(LinkSettings::preshared)
            }
            pool::KIND => {
                fill_pools(folder.path(), stock_bytes, &clock);
                [site(1), site(0)].map(LinkSettings::pooled)
            }
            other => panic!("no fixture for links of kind {other}"),
        };
        Self { folder, settings, clock }
    }

    fn state(&self, end: usize) -> PathBuf {
        self.folder.path().join(STATES[end])
    }

    fn store(&self, end: usize) -> KeyStore {
        let links = &self.settings[end..=end];
        KeyStore::open(site(end), &self.state(end), links, self.clock.clone()).unwrap()
    }

    fn sender(&self) -> Sender {
        self.store(0).sender(&site(1)).unwrap()
    }

    fn follower(&self) -> Follower {
        self.store(1).follower(&site(0)).unwrap()
    }

    /// The file of the mark and the ledger at one end of the stream from a to b.
    fn record(&self, end: usize) -> PathBuf {
        let role = [Role::Sender, Role::Follower][end];
        record_path(&link_folder(&self.state(end), &site(1 - end)), role)
    }

    /// Overwrites the two slots of the sender's mark.
    fn overwrite_slots(&self, bytes: &[u8]) {
        let mut file = std::fs::read(self.record(0)).unwrap();
        file[..2 * mark::SLOT_BYTES].copy_from_slice(bytes);
        std::fs::write(self.record(0), file).unwrap();
    }

    /// The verdict of the oracle on the stream from a to b.
    fn audit(&self) -> Summary {
        let sent = ledger::read(&self.record(0)).unwrap();
        ledger::check(&sent, &ledger::read(&self.record(1)).unwrap()).unwrap()
    }
}

/// Agreed blocks of odd sizes at both ends, and one that is not agreed on.
fn fill_pools(folder: &std::path::Path, stock_bytes: u64, clock: &Clock) {
    let pools = [0, 1].map(|end| {
        let folder = pool::folder(&folder.join(STATES[end]), &site(1 - end));
        Pool::open(&folder, site(end), clock.clone()).unwrap()
    });
    for end in [0, 1] {
        let stream = StreamId { sender: site(end), receiver: site(1 - end) };
        for bytes in [1600, stock_bytes / 2, stock_bytes / 2 - 1600, 4096] {
            let mut key = vec![0; bytes as usize];
            getrandom::fill(&mut key).unwrap();
            let (id, class) = (BlockId::fresh().unwrap(), Class::InformationTheoretic);
            let block = pool::Description::key(id, stream.clone(), Source::Qkd, class);
            let position = pools[end].append(block.clone(), &key).unwrap().position;
            pools[1 - end].append(block, &key).unwrap();
            if bytes != 4096 {
                pools.iter().for_each(|pool| drop(pool.promote(id, position).unwrap()));
            }
        }
    }
}

fn for_every_source(check: impl Fn(&World)) {
    for (kind, _) in SOURCES {
        check(&World::new(kind));
    }
}

fn is_reused<T>(result: &Result<T, Error>) -> bool {
    matches!(result, Err(Error::Reused { .. }))
}

#[test]
fn both_ends_agree_and_nothing_is_handed_out_twice() {
    for_every_source(|world| {
        let (mut sender, mut follower) = (world.sender(), world.follower());
        let mut end = 0;
        for bytes in [1, 16, 17, 4096, 70_000, 1 << 20, 100, 300_000] {
            let lease = sender.take(bytes).unwrap();
            assert_eq!(lease.range().units, (bytes as u64).div_ceil(16));
            assert!(lease.range().position >= end);
            assert!(sender.reservation().contains(&lease.range()));
            end = lease.range().end();
            let key = follower.fetch(lease.range()).unwrap();
            assert!(key.bytes() == lease.bytes() && key.bytes().iter().any(|byte| *byte != 0));
            follower.accept(lease.range(), sender.reservation()).unwrap();
        }
        assert_eq!(sender.mark(), follower.mark());
        world.audit();
    });
}

#[test]
fn concurrent_senders_and_stores_never_overlap() {
    for_every_source(|world| {
        let store = world.store(0);
        let mut senders =
            [store.sender(&site(1)).unwrap(), store.sender(&site(1)).unwrap(), world.sender()];
        let mut followers = [world.follower(), world.follower(), world.follower()];
        let mut taken: Vec<KeyRange> = Vec::new();
        for round in 0..40 {
            // Followers hear of the reservations in another order than they were made in.
            for index in [2, 0, 1] {
                let lease = senders[index].take(1000 * (round + 1)).unwrap();
                assert!(taken.iter().all(|range| !range.overlaps(&lease.range())));
                taken.push(lease.range());
            }
            for index in 0..3 {
                let range = taken[taken.len() - 3 + (index + 1) % 3];
                let reservation = senders[index].reservation();
                followers[index].fetch(range).unwrap();
                followers[index].accept(range, reservation).unwrap();
            }
        }
        let summary = world.audit();
        assert_eq!(summary.claims, summary.reservations);
    });
}

#[test]
fn threads_that_take_at_once_never_overlap() {
    for_every_source(|world| {
        let store = world.store(0);
        let taken: Vec<KeyRange> = std::thread::scope(|scope| {
            let take = || {
                let mut sender = store.sender(&site(1)).unwrap();
                (0..30).map(|_| sender.take(9000).unwrap().range()).collect::<Vec<_>>()
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(take)).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        for (index, range) in taken.iter().enumerate() {
            assert!(taken[..index].iter().all(|other| !other.overlaps(range)));
        }
    });
}

#[test]
fn a_follower_admits_nothing_twice() {
    for_every_source(|world| {
        let mut sender = world.sender();
        let first = sender.take(160).unwrap().range();
        let second = sender.take(160).unwrap().range();
        let reservation = sender.reservation();

        let mut follower = world.follower();
        follower.fetch(first).unwrap();
        follower.fetch(first).expect("a failed tag consumes nothing");
        follower.accept(first, reservation).unwrap();
        assert!(is_reused(&follower.fetch(first)));
        assert!(is_reused(&follower.accept(first, reservation)));
        let mut other = world.follower();
        assert!(is_reused(&other.fetch(second)), "reserved for the session that claimed it");
        assert!(is_reused(&other.accept(second, reservation)));
        follower.fetch(second).unwrap();
        follower.accept(second, reservation).unwrap();
        assert!(is_reused(&follower.accept(first, reservation)), "positions only increase");

        drop((follower, other));
        let mut later = world.follower();
        assert!(is_reused(&later.fetch(first)) && is_reused(&later.accept(first, reservation)));
        let straddling = KeyRange { position: reservation.position + 1, units: reservation.units };
        assert!(is_reused(&later.accept(KeyRange { units: 1, ..straddling }, straddling)));
        world.audit();
    });
}

#[test]
fn forged_ranges_are_refused() {
    for_every_source(|world| {
        let mut follower = world.follower();
        let forged = [(0, 0), (u64::MAX, 2), (5, u64::MAX), (0, 1 << 61), (0, 1 << 40)];
        for (position, units) in forged {
            let range = KeyRange { position, units };
            assert!(follower.fetch(range).is_err(), "{range}");
        }
        let reservation = KeyRange { position: u64::MAX - 10, units: 5 };
        let outside = KeyRange { position: u64::MAX - 11, units: 2 };
        assert!(matches!(follower.accept(outside, reservation), Err(Error::Unsound { .. })));
    });
}

#[test]
fn exhaustion_spends_nothing() {
    for_every_source(|world| {
        let mut sender = world.sender();
        sender.take(1000).unwrap();
        let before = sender.mark();
        let error = sender.take(2 * STOCK_BYTES as usize).err().unwrap();
        assert!(matches!(error, Error::Exhausted { .. }));
        assert_eq!(sender.mark(), before);
        sender.take(1000).unwrap();

        let level = || world.store(0).level(&site(1)).unwrap().outgoing;
        let rest = level().remaining.0 as usize;
        let mut last = world.sender();
        last.expect(ByteCount(rest as u64));
        last.take(rest - 64).unwrap();
        last.take(64).unwrap();
        assert!(matches!(last.take(1), Err(Error::Exhausted { .. })));
        assert_eq!((level().remaining.0, level().spent.0), (0, STOCK_BYTES));
    });
}

#[test]
fn a_restart_skips_what_was_reserved() {
    for_every_source(|world| {
        let mut sender = world.sender();
        sender.take(16).unwrap();
        let reservation = sender.reservation();
        drop(sender);
        let mut again = world.sender();
        assert_eq!(again.take(16).unwrap().range().position, reservation.end());
    });
}

#[test]
fn a_session_reserves_no_more_than_it_expects() {
    for_every_source(|world| {
        let mut sender = world.sender();
        sender.expect(ByteCount(48));
        let start = sender.take(16).unwrap().range().position;
        assert_eq!(sender.reservation().units, 3);
        sender.take(64).unwrap();
        assert_eq!(sender.reservation().units, 4, "more than was expected");
        assert_eq!(sender.mark(), start + 7);
    });
}

#[test]
fn a_sender_skips_to_the_mark_of_its_peer() {
    for_every_source(|world| {
        let mut sender = world.sender();
        sender.take(16).unwrap();
        let end = sender.reservation().end();
        sender.skip_to(end - 2).unwrap();
        assert_eq!(sender.take(16).unwrap().range().position, end - 2);
        sender.skip_to(end).unwrap();
        assert_eq!(sender.take(16).unwrap().range().position, end);
    });
}

#[test]
fn state_that_was_set_back_is_quarantined_until_declared_lost() {
    for_every_source(|world| {
        let mut sender = world.sender();
        sender.take(16).unwrap();
        let old = std::fs::read(world.record(0)).unwrap();
        let mut sender = world.sender();
        sender.take(16).unwrap();
        sender.take(1 << 20).unwrap();
        let mark = sender.mark();

        let quarantined =
            || matches!(world.store(0).sender(&site(1)), Err(Error::Quarantined { .. }));
        world.overwrite_slots(&old[..8192]);
        assert!(quarantined(), "behind the ledger");
        world.overwrite_slots(&[0; 8192]);
        assert!(quarantined(), "wiped");
        world.overwrite_slots(&[1; 8192]);
        assert!(quarantined(), "damaged");
        assert!(sender.take(1 << 20).is_err());

        assert_eq!(world.store(0).declare_lost(&site(1), Role::Sender, 5).unwrap(), mark);
        assert!(world.sender().take(16).unwrap().range().position >= mark);
        drop(world.follower());
        world.audit();
    });
}

#[test]
fn a_damaged_newest_mark_costs_nothing_but_itself() {
    for_every_source(|world| {
        drop(world.follower());
        for round in 1..6 {
            let mut sender = world.sender();
            let lease = sender.take(16).unwrap();
            let mut slots = std::fs::read(world.record(0)).unwrap();
            slots.truncate(2 * mark::SLOT_BYTES);
            let newest = |slot: usize| slots[slot * mark::SLOT_BYTES + 16..][..8].to_vec();
            let slot = usize::from(newest(1) > newest(0));
            slots[slot * mark::SLOT_BYTES + 24] ^= 1;
            world.overwrite_slots(&slots);
            assert!(world.sender().take(16).unwrap().range().position > lease.range().position);
            assert_eq!(world.audit().reservations, 2 * round);
        }
    });
}

#[test]
fn a_site_set_back_as_a_whole_is_noticed_by_the_mark_of_its_peer() {
    for_every_source(|world| {
        let (mut sender, mut follower) = (world.sender(), world.follower());
        let lease = sender.take(16).unwrap();
        follower.accept(lease.range(), sender.reservation()).unwrap();
        drop(sender);
        std::fs::remove_dir_all(world.state(0)).unwrap();
        let mut sender = world.sender();
        assert!(matches!(sender.skip_to(follower.mark()), Err(Error::Quarantined { .. })));

        std::fs::remove_dir_all(world.state(1)).unwrap();
        let mut follower = world.follower();
        follower.skip_to(lease.range().end());
        assert!(is_reused(&follower.fetch(lease.range())), "a repetition from before the session");
    });
}

#[test]
fn bulk_traffic_reserves_ahead_and_never_twice() {
    let world = World::sized(sim::KIND, 400 << 20);
    let (mut sender, mut follower) = (world.sender(), world.follower());
    let mut end = 0;
    for _ in 0..270 {
        let range = sender.take(1 << 20).unwrap().range();
        assert!(range.position >= end);
        end = range.end();
        follower.accept(range, sender.reservation()).unwrap();
    }
    drop(sender);
    let mut next = world.sender();
    assert!(next.take(16).unwrap().range().position >= end);
    let summary = world.audit();
    assert!(summary.reserved_units * UNIT_BYTES < 400 << 20);
    assert!(summary.reservations > summary.claims, "the one ahead was never used");
}

#[test]
fn random_sources_give_fresh_bytes_and_say_where_they_are_from() {
    let world = World::new(preshared::KIND);
    let recorded = world.folder.path().join("recorded");
    let mut noise = vec![0; 1 << 20];
    blake3::Hasher::new().finalize_xof().fill(&mut noise);
    std::fs::write(&recorded, noise).unwrap();
    for text in ["os".into(), "key-stream".into(), format!("device:{}", recorded.display())] {
        let settings: RandomSettings = text.parse().unwrap();
        let mut source = settings.open(&site(0), || Ok(world.sender())).unwrap();
        let (mut first, mut second) = (vec![0; 5000], vec![0; 5000]);
        source.fill(&mut first).unwrap();
        source.fill(&mut second).unwrap();
        assert!(first != second && [first, second].iter().flatten().any(|byte| *byte != 0));
        assert_eq!(source.provenance().kind, Kind::Random);
        assert!(source.provenance().may_share_with(&site(0), &site(1)));
    }
}

#[test]
fn the_peer_has_the_random_numbers_of_a_key_stream() {
    for_every_source(|world| {
        let mut source = random::KeyStream::new(world.sender());
        let mut follower = world.follower();
        let mut random = vec![0; (2 << 20) + 9];
        source.fill(&mut random).unwrap();
        let mut theirs = Vec::new();
        for used in source.take_uses() {
            theirs.extend_from_slice(follower.fetch(used.range).unwrap().bytes());
            follower.accept(used.range, used.reservation).unwrap();
        }
        assert!(theirs[..random.len()] == random[..]);
        world.audit();
    });
}

#[test]
fn an_unknown_kind_is_answered_with_those_that_exist() {
    let mut world = World::new(SOURCES[0].0);
    world.settings[0].kind = "etsi".into();
    let opened = KeyStore::open(site(0), &world.state(0), &world.settings[..1], Clock::system());
    assert!(opened.err().unwrap().to_string().contains(SOURCES[0].0));
    assert!(matches!(world.store(1).sender(&site(1)), Err(Error::UnknownPeer { .. })));
}

#[test]
fn the_wait_for_key_follows_from_the_rate() {
    let world = World::new(sim::KIND);
    let mut sender = world.sender();
    let needed = STOCK_BYTES + 2_000_000;
    let Err(Error::Exhausted { available, wait, .. }) = sender.take(needed as usize) else {
        panic!("there is not so much");
    };
    assert_eq!(available.0, STOCK_BYTES);
    assert_eq!(wait, Some(Duration::from_secs(2)), "8 Mbit/s in each direction");
    world.clock.advance(Duration::from_millis(1999));
    assert!(sender.take(needed as usize).is_err());
    world.clock.advance(Duration::from_millis(1));
    sender.take(needed as usize).unwrap();
}

#[test]
fn settings_are_read_as_they_are_written() {
    let read = toml::from_str::<LinkSettings>;
    let settings = read("peer = 'lsa'\nkind = 'sim'\nfile = '/etc/link.json'").unwrap();
    assert_eq!(
        settings,
        LinkSettings::simulated("lsa".parse().unwrap(), "/etc/link.json".as_ref())
    );
    assert!(read("peer = 'lsa'\nkind = 'sim'\nfiel = 'x'").is_err());
}
