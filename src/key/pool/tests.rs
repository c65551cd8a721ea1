//! Pools under every order of events, damage and crashes.

use std::time::Duration;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::key::{KeyStore, LinkSettings};

fn site(name: &str) -> SiteId {
    name.parse().unwrap()
}

fn stream(sender: &str, receiver: &str) -> StreamId {
    StreamId { sender: site(sender), receiver: site(receiver) }
}

fn clock() -> Clock {
    Clock::simulated(Duration::from_secs(1_800_000_000))
}

fn pool(folder: &Path, name: &str, peer: &str) -> Pool {
    Pool::open(&super::folder(&folder.join(name), &site(peer)), site(name), clock()).unwrap()
}

/// The pools of both ends of the link between a and b.
fn pair() -> (TempDir, Pool, Pool) {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (pool(folder.path(), "a", "b"), pool(folder.path(), "b", "a"));
    (folder, a, b)
}

fn description(sender: &str, receiver: &str) -> Description {
    let id = BlockId::fresh().unwrap();
    Description::key(id, stream(sender, receiver), Source::Qkd, Class::InformationTheoretic)
}

fn bytes(seed: u8, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut bytes);
    bytes
}

fn store(folder: &TempDir, name: &str, peer: &str) -> KeyStore {
    let links = [LinkSettings::pooled(site(peer))];
    KeyStore::open(site(name), &folder.path().join(name), &links, clock()).unwrap()
}

/// Puts a block into both pools and agrees on it.
fn agreed(a: &Pool, b: &Pool, key: &[u8]) -> BlockId {
    let block = description("a", "b");
    let position = a.append(block.clone(), key).unwrap().position;
    b.append(block.clone(), key).unwrap();
    b.promote(block.id, position).unwrap();
    a.promote(block.id, None).unwrap();
    block.id
}

#[test]
fn only_the_sender_gives_positions_and_both_ends_have_the_same() {
    let (_folder, a, b) = pair();
    let (first, second) = (description("a", "b"), description("a", "b"));
    // They arrive in another order at the other end.
    assert_eq!(a.append(first.clone(), &bytes(1, 160)).unwrap().position, Some(0));
    assert_eq!(a.append(second.clone(), &bytes(2, 64)).unwrap().position, Some(10));
    assert_eq!(b.append(second.clone(), &bytes(2, 64)).unwrap().position, None);
    b.append(first.clone(), &bytes(1, 160)).unwrap();

    assert!(b.promote(second.id, None).is_err(), "nobody said where");
    assert!(a.promote(first.id, Some(3)).is_err(), "not where it lies");
    b.promote(second.id, Some(10)).unwrap();
    assert!(b.promote(first.id, Some(5)).is_err(), "over the other one");
    assert_eq!(b.block(first.id).unwrap().state, State::Pending);
    b.promote(first.id, Some(0)).unwrap();
    b.promote(first.id, Some(0)).expect("again changes nothing");
    let ranges = |pool: &Pool| pool.blocks().unwrap().iter().map(Block::range).collect::<Vec<_>>();
    a.promote(first.id, None).unwrap();
    a.promote(second.id, None).unwrap();
    assert_eq!(ranges(&a), ranges(&b));
}

#[test]
fn blocks_are_used_wiped_and_retired_and_positions_never_come_again() {
    let (folder, a, b) = pair();
    let id = agreed(&a, &b, &bytes(1, 8192));
    let path = a.path(id);
    let mut sender = store(&folder, "a", "b").sender(&site("b")).unwrap();
    let mut follower = store(&folder, "b", "a").follower(&site("a")).unwrap();
    let lease = sender.take(4096).unwrap();
    assert!(lease.bytes() == &bytes(1, 8192)[..4096]);
    assert!(follower.fetch(lease.range()).unwrap().bytes() == lease.bytes());
    follower.accept(lease.range(), sender.reservation()).unwrap();
    for pool in [&a, &b] {
        assert_eq!(pool.block(id).unwrap().state, State::Active);
        let file = fs::read(pool.path(id)).unwrap();
        assert!(file[HEADER_BYTES..HEADER_BYTES + 4096].iter().all(|byte| *byte == 0));
        assert!(file[HEADER_BYTES + 4096..] == bytes(1, 8192)[4096..]);
    }
    assert_eq!(a.remaining(&stream("a", "b"), sender.mark()).unwrap(), ByteCount(4096));
    let rest = sender.take(4096).unwrap();
    follower.accept(rest.range(), sender.reservation()).unwrap();
    drop((sender, follower));

    // The next opening without sessions finds that the block is used up.
    let level = || store(&folder, "a", "b").level(&site("b")).unwrap().outgoing;
    assert_eq!((level().remaining, level().spent), (ByteCount(0), ByteCount(8192)));
    assert_eq!(a.block(id).unwrap().state, State::Spent);
    assert_eq!(fs::metadata(&path).unwrap().len(), HEADER_BYTES as u64);
    drop(store(&folder, "b", "a").follower(&site("a")).unwrap());
    let next = agreed(&a, &b, &bytes(2, 32));
    assert_eq!(a.block(next).unwrap().position, Some(512), "after everything there was");
    assert_eq!(level().remaining, ByteCount(32));
    a.retire(&stream("a", "b"), 512, &[]).unwrap();
    assert!(!path.exists(), "another block remembers the position");
    let lease = store(&folder, "a", "b").sender(&site("b")).unwrap().take(32).unwrap();
    assert!(lease.bytes() == bytes(2, 32));
}

#[test]
fn a_block_with_keys_that_are_held_stays_whole() {
    let (_folder, a, b) = pair();
    let ids = [agreed(&a, &b, &bytes(1, 64)), agreed(&a, &b, &bytes(2, 64))];
    a.retire(&stream("a", "b"), 8, &[KeyRange { position: 3, units: 1 }]).unwrap();
    assert_eq!(a.block(ids[0]).unwrap().state, State::Ready);
    assert_eq!(a.block(ids[1]).unwrap().state, State::Spent);
    a.retire(&stream("a", "b"), 8, &[]).unwrap();
    assert!(a.block(ids[0]).is_err(), "forgotten, since another has the highest position");
}

#[test]
fn a_session_takes_keys_that_arrive_while_it_waits() {
    let (folder, a, b) = pair();
    let mut sender = store(&folder, "a", "b").sender(&site("b")).unwrap();
    let mut follower = store(&folder, "b", "a").follower(&site("a")).unwrap();
    assert!(matches!(sender.take(16), Err(Error::Exhausted { .. })));
    agreed(&a, &b, &bytes(1, 48));
    agreed(&a, &b, &bytes(2, 48));
    let lease = sender.take(96).unwrap();
    assert!(lease.bytes() == [bytes(1, 48), bytes(2, 48)].concat(), "over the border of blocks");
    assert!(follower.fetch(lease.range()).unwrap().bytes() == lease.bytes());
}

#[test]
fn a_pad_that_was_carried_is_ready_at_both_ends_and_agreed_blocks_come_after_it() {
    let (folder, a, b) = pair();
    let blocks = |pool: &Pool| pool.blocks().unwrap().len();
    let mut random = crate::key::random::OperatingSystem::new(site("a"));
    let sites = [site("a"), site("b")];
    let made =
        crate::key::pad::generate(sites, ByteCount(8192), &mut random, folder.path(), &clock());
    let [for_a, for_b] = made.unwrap();
    let key = fs::read(&for_a).unwrap()[crate::key::pad::HEADER_BYTES..].to_vec();
    let copy = folder.path().join("copy");
    fs::copy(&for_a, &copy).unwrap();
    assert!(a.import_pad(&site("c"), &for_a).is_err(), "for another link");
    a.import_pad(&site("b"), &for_a).unwrap();
    b.import_pad(&site("a"), &for_b).unwrap();
    assert!(!for_a.exists());
    assert_eq!((blocks(&a), blocks(&b)), (2, 2));
    assert!(a.import_pad(&site("b"), &copy).is_err(), "twice");
    agreed(&a, &b, &bytes(1, 64));
    let mut sender = store(&folder, "a", "b").sender(&site("b")).unwrap();
    let mut follower = store(&folder, "b", "a").follower(&site("a")).unwrap();
    let lease = sender.take(4096).unwrap();
    assert!(lease.bytes() == &key[..4096]);
    assert!(follower.fetch(lease.range()).unwrap().bytes() == lease.bytes());
    assert!(sender.take(64).unwrap().bytes() == bytes(1, 64));
    let mut back = store(&folder, "b", "a").sender(&site("a")).unwrap();
    assert!(back.take(4096).unwrap().bytes() == &key[4096..]);
}

#[test]
fn blocks_that_are_given_up_leave_a_hole() {
    let (folder, a, b) = pair();
    let lost = description("a", "b");
    a.append(lost.clone(), &bytes(1, 64)).unwrap();
    b.append(lost.clone(), &bytes(3, 64)).unwrap();
    agreed(&a, &b, &bytes(2, 64));
    for pool in [&a, &b] {
        pool.lose(lost.id).unwrap();
        pool.lose(lost.id).expect("again changes nothing");
        assert_eq!(pool.block(lost.id).unwrap().state, State::Lost);
        assert!(pool.promote(lost.id, Some(0)).is_err());
        assert_eq!(fs::metadata(pool.path(lost.id)).unwrap().len(), HEADER_BYTES as u64);
        let stock = pool.stock(&stream("a", "b"), 0).unwrap();
        assert_eq!((stock.remaining, stock.lost), (ByteCount(64), ByteCount(64)));
    }
    let lease = store(&folder, "a", "b").sender(&site("b")).unwrap().take(64).unwrap();
    assert_eq!(lease.range(), KeyRange { position: 4, units: 4 });
}

#[test]
fn what_does_not_belong_here_is_refused() {
    let (_folder, a, _b) = pair();
    assert!(a.append(description("b", "c"), &bytes(1, 16)).is_err(), "between others");
    assert!(a.append(description("a", "b"), &bytes(1, 15)).is_err(), "no whole unit");
    assert!(a.append(description("a", "b"), &[]).is_err(), "nothing");
    let mut random = Description { kind: Kind::Random, ..description("a", "b") };
    assert!(a.append(random.clone(), &bytes(1, 16)).is_err(), "random numbers of two sites");
    random = Description::random(random.id, &site("a"), Source::Device, random.class);
    a.append(random.clone(), &bytes(1, 16)).unwrap();
    assert!(a.append(random, &bytes(1, 16)).is_err(), "twice");

    let ends = [site("a"), site("b")];
    let terms = |known: &[SiteId], class| {
        Terms::new(Source::Qkd, class, known.iter().cloned().collect(), BitRate(8))
    };
    a.set_terms(&terms(&ends, Class::InformationTheoretic)).unwrap();
    let seen = Description { seen_by: [site("c")].into(), ..description("a", "b") };
    let weak = Description { class: Class::Computational, ..description("a", "b") };
    assert!(a.append(seen.clone(), &bytes(1, 16)).is_err(), "a relay knows it");
    assert!(a.append(weak.clone(), &bytes(1, 16)).is_err(), "too weak");
    a.set_terms(&terms(&[site("c")], Class::Computational)).unwrap();
    a.append(seen, &bytes(1, 16)).unwrap();
    a.append(weak, &bytes(1, 16)).unwrap();
}

#[test]
fn a_session_gets_nothing_that_is_worth_less_than_it_was_told() {
    let (folder, a, b) = pair();
    let ends = [site("a"), site("b")];
    let terms = |known: &[SiteId]| {
        let known = known.iter().cloned().collect();
        Terms::new(Source::Qkd, Class::InformationTheoretic, known, BitRate(8))
    };
    a.set_terms(&terms(&ends)).unwrap();
    let mut sender = store(&folder, "a", "b").sender(&site("b")).unwrap();
    assert!(sender.provenance().may_share_with(&site("a"), &site("b")));
    a.set_terms(&terms(&[site("c")])).unwrap();
    let seen = Description { seen_by: [site("c")].into(), ..description("a", "b") };
    a.append(seen.clone(), &bytes(1, 16)).unwrap();
    a.promote(seen.id, None).unwrap();
    assert!(matches!(sender.take(16), Err(Error::Exhausted { .. })));
    drop(sender);
    let mut sender = store(&folder, "a", "b").sender(&site("b")).unwrap();
    assert!(!sender.provenance().may_share_with(&site("a"), &site("b")));
    sender.take(16).unwrap();
    drop(b);
}

#[test]
fn a_crash_or_damage_at_any_byte_of_the_header_leaves_the_old_state_or_no_block() {
    let (_folder, a, b) = pair();
    let id = agreed(&a, &b, &bytes(1, 160));
    let path = a.path(id);
    let good = fs::read(&path).unwrap();
    for at in (0..HEADER_BYTES).step_by(7) {
        let mut bad = good.clone();
        bad[at] ^= 1;
        fs::write(&path, &bad).unwrap();
        match a.block(id) {
            // The state before the promotion.
            Ok(block) => assert!(at >= 2048, "{at}: {:?}", block.state),
            Err(Error::Pool { .. }) => assert!(at < 2048, "{at}"),
            Err(other) => panic!("{at}: {other}"),
        }
    }
    fs::write(&path, &good[..HEADER_BYTES - 1]).unwrap();
    assert!(a.block(id).is_err() && a.blocks().unwrap().is_empty());
    assert!(
        a.append(description("a", "b"), &bytes(2, 16)).is_err(),
        "no position is given out while one is unknown"
    );
    fs::write(&path, &good).unwrap();
    fs::write(path.with_extension("part"), bytes(9, 5000)).unwrap();
    a.append(description("a", "b"), &bytes(2, 16)).unwrap();
    assert!(!path.with_extension("part").exists(), "what a crash left is destroyed");
}

#[derive(Clone, Debug)]
enum Step {
    Append(bool, u8),
    Promote(usize),
    Lose(usize),
    Use(u8),
    Retire,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (any::<bool>(), 1..20u8).prop_map(|(own, units)| Step::Append(own, units)),
        (0..9usize).prop_map(Step::Promote),
        (0..9usize).prop_map(Step::Lose),
        (1..30u8).prop_map(Step::Use),
        Just(Step::Retire),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever happens in whatever order: blocks of a stream never overlap, what a session gets
    /// is what was appended there, and no position is handed out twice.
    #[test]
    fn any_history_keeps_blocks_apart(steps in proptest::collection::vec(step(), 1..40)) {
        let (folder, a, b) = pair();
        let keys = store(&folder, "a", "b");
        let mut known: Vec<(Description, Vec<u8>)> = Vec::new();
        let mut used: Vec<KeyRange> = Vec::new();
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Append(own, units) => {
                    let ends = if own { ("a", "b") } else { ("b", "a") };
                    let block = description(ends.0, ends.1);
                    let key = bytes(number as u8, usize::from(units) * 16);
                    a.append(block.clone(), &key).unwrap();
                    known.push((block, key));
                }
                Step::Promote(index) => {
                    let Some((block, _)) = known.get(index) else { continue };
                    // The other end names some place or other.
                    let _ = a.promote(block.id, (block.stream.sender == site("b")).then_some(7));
                }
                Step::Lose(index) => {
                    let Some((block, _)) = known.get(index) else { continue };
                    if a.block(block.id).is_ok_and(|block| block.state == State::Pending) {
                        a.lose(block.id).unwrap();
                    }
                }
                Step::Use(units) => {
                    let mut sender = keys.sender(&site("b")).unwrap();
                    sender.expect(ByteCount(u64::from(units) * 16));
                    let Ok(lease) = sender.take(usize::from(units) * 16) else { continue };
                    prop_assert!(used.iter().all(|range| !range.overlaps(&lease.range())));
                    used.push(lease.range());
                    for block in a.blocks().unwrap() {
                        let Some(range) = block.range() else { continue };
                        if block.description.stream == stream("a", "b")
                            && range.contains(&lease.range())
                        {
                            let id = block.description.id;
                            let (_, key) = known.iter().find(|(own, _)| own.id == id).unwrap();
                            let first = (lease.range().position - range.position) as usize * 16;
                            prop_assert!(lease.bytes() == &key[first..][..lease.bytes().len()]);
                        }
                    }
                }
                Step::Retire => {
                    let mark = used.iter().map(KeyRange::end).max().unwrap_or(0);
                    a.retire(&stream("a", "b"), mark, &[]).unwrap();
                }
            }
            let blocks = a.blocks().unwrap();
            for (index, block) in blocks.iter().enumerate() {
                for other in &blocks[..index] {
                    let apart = block.description.stream != other.description.stream
                        || match (block.range(), other.range()) {
                            (Some(one), Some(two)) => !one.overlaps(&two),
                            _ => true,
                        };
                    prop_assert!(apart);
                }
            }
        }
        drop(b);
    }
}
