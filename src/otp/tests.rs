//! Two sessions in memory, honest and under attack.

use proptest::prelude::*;

use crate::base::{Chunk, Fault, Faulty, SiteId};
use crate::key::{KeyRange, StreamId, UNIT_BYTES};

use super::handshake::{Keys, Role};
use super::memory::MemoryStream;
use super::*;

/// Two sites and the key streams between them.
struct World {
    forth: MemoryStream,
    back: MemoryStream,
    limits: Limits,
    nonces: u8,
}

fn site(name: &str) -> SiteId {
    name.parse().unwrap()
}

impl World {
    fn new(units: u64) -> Self {
        let stream = |from, to, seed| {
            let id = StreamId { sender: site(from), receiver: site(to) };
            MemoryStream::new(id, seed, units, 1000)
        };
        Self {
            forth: stream("hospital", "tommo", 1),
            back: stream("tommo", "hospital", 2),
            limits: Limits::default(),
            nonces: 0,
        }
    }

    fn greetings(&mut self) -> [Hello; 2] {
        [
            ("hospital", "tommo", &self.forth, &self.back),
            ("tommo", "hospital", &self.back, &self.forth),
        ]
        .map(|(from, to, spend, follow)| {
            self.nonces += 1;
            Hello {
                cipher: Cipher::Otp,
                from: site(from),
                to: site(to),
                nonce: [self.nonces; 16],
                sender_mark: Spend::mark(spend),
                follower_mark: Follow::mark(follow),
                greetings: follow.greetings(),
            }
        })
    }

    /// Both ends after the greetings; the dialer got what `twist` made of the listener's.
    fn ends(&mut self, twist: impl Fn(&mut Hello)) -> Result<[Handshake; 2], Error> {
        let [dialer, listener] = self.greetings();
        let mut heard = listener.clone();
        twist(&mut heard);
        let (forth, back) = (self.forth.clone(), self.back.clone());
        let keys: Keys = (Box::new(forth.clone()), Box::new(back.clone()));
        let one = Handshake::new(Role::Dialer, &dialer, &heard, keys, self.limits)?;
        let keys: Keys = (Box::new(back), Box::new(forth));
        let two = Handshake::new(Role::Listener, &listener, &dialer, keys, self.limits)?;
        Ok([one, two])
    }

    fn connect(&mut self) -> Result<[Session; 2], Error> {
        let [dialer, listener] = self.ends(|_| ())?;
        prove(dialer, listener)
    }
}

/// The openings, and the first control frames.
fn prove(mut one: Handshake, mut two: Handshake) -> Result<[Session; 2], Error> {
    let opening = one.prove()?;
    two.verify(&opening.header, &opening.tag)?;
    let opening = two.prove()?;
    one.verify(&opening.header, &opening.tag)?;
    let (mut one, mut two) = (one.finish()?, two.finish()?);
    talk(&mut one, &mut two);
    Ok([one, two])
}

/// Carries control frames both ways until there are none.
fn talk(one: &mut Session, two: &mut Session) {
    let carry = |from: &mut Session, to: &mut Session| {
        let mut carried = false;
        while let Some(ControlFrame { envelope, payload }) = from.control().unwrap() {
            let frame = [&envelope.header[..], &payload, &envelope.tag].concat();
            assert_eq!(opened(to, &frame).unwrap().0, Received::Control);
            carried = true;
        }
        carried
    };
    while carry(one, two) | carry(two, one) {}
}

/// A DATA frame as it would lie on the wire.
fn sealed(session: &mut Session, kind: u16, payload: &[u8]) -> Vec<u8> {
    let mut payload = payload.to_vec();
    let envelope = session.seal(kind, &mut payload).unwrap();
    [&envelope.header[..], &payload, &envelope.tag].concat()
}

/// Opens a frame that lies on the wire.
fn opened(session: &mut Session, frame: &[u8]) -> Result<(Received, Chunk), Error> {
    let cut = || Error::Malformed { sequence: 0, what: "the wire ended" };
    let (header, rest) = frame.split_first_chunk().ok_or_else(cut)?;
    let header = session.expect(header)?;
    let (payload, rest) = rest.split_at_checked(header.ciphertext_bytes()).ok_or_else(cut)?;
    let tag = rest.first_chunk().ok_or_else(cut)?;
    let mut payload = Chunk::from_bytes(0, payload);
    let received = session.open(&header, &mut payload, tag)?;
    Ok((received, payload))
}

#[test]
fn what_is_sealed_is_opened_in_both_directions() {
    let [mut one, mut two] = World::new(1000).connect().unwrap();
    assert_eq!((one.peer(), two.peer()), (&site("tommo"), &site("hospital")));
    for (kind, text) in [(1, "ACGT"), (2, ""), (0xffef, "0123456789abcdef")] {
        let frame = sealed(&mut one, kind, text.as_bytes());
        let (received, payload) = opened(&mut two, &frame).unwrap();
        assert_eq!((received, &payload[..]), (Received::Message { kind }, text.as_bytes()));
        assert!(payload.is_secret());
        let frame = sealed(&mut two, kind, text.as_bytes());
        assert_eq!(&opened(&mut one, &frame).unwrap().1[..], text.as_bytes());
    }
    assert!(matches!(one.seal(0xfff0, &mut []), Err(Error::Kind { .. })));
    let end = one.seal_end().unwrap();
    let frame = [&end.header[..], &end.tag].concat();
    assert_eq!(opened(&mut two, &frame).unwrap().0, Received::End);
    assert!(matches!(one.seal(0, &mut []), Err(Error::Closed)));
    assert!(matches!(two.expect(&end.header), Err(Error::Closed)));
    assert!(two.seal(0, &mut []).is_ok(), "the other direction stays open");
}

#[test]
fn the_ciphertext_is_the_plaintext_and_the_key_and_nothing_else() {
    let mut world = World::new(1000);
    let [mut one, _] = world.connect().unwrap();
    let frame = sealed(&mut one, 7, b"thirty-three bytes of some genome");
    let range = *world.forth.taken().last().unwrap();
    assert_eq!(range.units, 1 + 3);
    let key = world.forth.bytes(range);
    let xored: Vec<u8> =
        b"thirty-three bytes of some genome".iter().zip(&key[16..]).map(|(a, b)| a ^ b).collect();
    assert_eq!(&frame[48..48 + 33], xored);
}

#[test]
fn key_accounting_is_exact() {
    let mut world = World::new(100_000);
    let [mut one, mut two] = world.connect().unwrap();
    let sizes = [0u64, 1, 15, 16, 17, 4096, 100_001];
    for size in sizes {
        let frame = sealed(&mut one, 0, &vec![9; size as usize]);
        opened(&mut two, &frame).unwrap();
    }
    let proof = 16 + 16;
    let expected: u64 =
        proof + sizes.iter().map(|size| 16 + size.next_multiple_of(16)).sum::<u64>();
    let taken: u64 = world.forth.taken().iter().map(|range| range.units * UNIT_BYTES).sum();
    let (sent, received) = (one.statistics().sent, two.statistics().received);
    assert_eq!((taken, sent.key_bytes, received.key_bytes), (expected, expected, expected));
    assert_eq!(sent.payload_bytes, sizes.iter().sum::<u64>());
    assert_eq!((sent.frames, two.statistics().sent.frames), (8, 1));
}

/// How many single-bit changes of a small frame a receiver lets through.
fn flips_accepted(trusts_blindly: bool) -> usize {
    let frame_bits = (48 + 5 + 16) * 8;
    (0..frame_bits)
        .filter(|bit| {
            let mut world = World::new(100);
            let [mut one, mut two] = world.connect().unwrap();
            two.receiving(|opener| {
                opener.trusts_blindly = trusts_blindly;
                Ok(())
            })
            .unwrap();
            let mut frame = sealed(&mut one, 3, b"ACGTN");
            frame[bit / 8] ^= 1 << (bit % 8);
            let before = Follow::mark(&world.forth);
            let result = opened(&mut two, &frame);
            if let Err(error) = &result {
                assert!(matches!(error.fault(), Fault::Integrity | Fault::Data | Fault::TryAgain));
                assert_eq!(Follow::mark(&world.forth), before, "failure consumes no key");
                let again = opened(&mut two, &sealed(&mut one, 3, b"ACGTN"));
                assert!(again.is_err(), "nothing is delivered after a failure");
            }
            result.is_ok()
        })
        .count()
}

#[test]
fn every_flipped_bit_is_refused() {
    assert_eq!(flips_accepted(false), 0);
}

#[test]
fn a_receiver_that_checks_no_tag_would_be_caught() {
    assert!(flips_accepted(true) > 5 * 8);
}

#[test]
fn dropped_repeated_swapped_and_cut_frames_are_refused() {
    let start = || {
        let [mut one, two] = World::new(1000).connect().unwrap();
        let frames = [b"first", b"secnd", b"third"].map(|text| sealed(&mut one, 0, text));
        (two, frames)
    };
    let (mut two, [_, second, _]) = start();
    let error = opened(&mut two, &second).err().unwrap();
    assert!(matches!(error, Error::OutOfOrder { expected: 1, found: 2 }), "dropped or swapped");

    let (mut two, [first, second, _]) = start();
    opened(&mut two, &first).unwrap();
    let error = opened(&mut two, &first).err().unwrap();
    assert!(matches!(error, Error::OutOfOrder { expected: 2, found: 1 }), "repeated");
    assert!(matches!(opened(&mut two, &second), Err(Error::Closed)));

    let (mut two, [first, ..]) = start();
    let header = two.expect(first[..48].try_into().unwrap()).unwrap();
    let tag = first[53..].try_into().unwrap();
    let mut cut = Chunk::from_bytes(0, &first[48..52]);
    assert!(matches!(two.open(&header, &mut cut, tag), Err(Error::Malformed { .. })));
}

#[test]
fn a_recorded_session_cannot_be_played_again() {
    let mut world = World::new(1000);
    (world.forth, world.back) = (world.forth.asking(), world.back.asking());
    let [dialer_hello, listener_hello] = world.greetings();
    let ends = |world: &World, listener_hello: &Hello| {
        let keys: Keys = (Box::new(world.back.clone()), Box::new(world.forth.clone()));
        Handshake::new(Role::Listener, listener_hello, &dialer_hello, keys, world.limits).unwrap()
    };
    let keys: Keys = (Box::new(world.forth.clone()), Box::new(world.back.clone()));
    let mut dialer =
        Handshake::new(Role::Dialer, &dialer_hello, &listener_hello, keys, world.limits).unwrap();
    let recorded = dialer.prove().unwrap();
    let mut listener = ends(&world, &listener_hello);
    listener.verify(&recorded.header, &recorded.tag).unwrap();

    // The same greeting and opening again, to a listener with a new nonce and to one without.
    let fresh = Hello { nonce: [99; 16], ..listener_hello.clone() };
    let mut again = ends(&world, &fresh);
    let error = again.verify(&recorded.header, &recorded.tag).unwrap_err();
    assert_eq!(error.fault(), Fault::Integrity);
    assert!(again.finish().is_err());
    let mut again = ends(&world, &listener_hello);
    again.verify(&recorded.header, &recorded.tag).unwrap();
    again.prove().unwrap();
    let error = again.finish().err().unwrap();
    assert!(matches!(error, Error::Refused { reason: Refusal::SetBack, .. }));
}

#[test]
fn a_proof_answers_the_nonce_of_this_session() {
    let mut world = World::new(1000);
    let [mut one, _] = world.ends(|_| ()).unwrap();
    let [_, mut two] = world.ends(|_| ()).unwrap();
    let proof = one.prove().unwrap();
    assert!(matches!(two.verify(&proof.header, &proof.tag), Err(Error::Tag { sequence: 0 })));
    assert_eq!(Follow::mark(&world.forth), 0);
}

#[test]
fn without_key_nothing_is_sent_and_with_more_key_it_goes_on() {
    let mut world = World::new(2 + 2);
    let [mut one, mut two] = world.connect().unwrap();
    let frame = sealed(&mut one, 0, b"ACGT");
    opened(&mut two, &frame).unwrap();
    let mut payload = *b"ACGT";
    let error = one.seal(0, &mut payload).unwrap_err();
    assert!(error.is_exhaustion());
    assert_eq!((error.fault(), &payload), (Fault::TryAgain, b"ACGT"));
    assert!(one.seal_keyed(0, 100).is_err_and(|error| error.is_exhaustion()));
    world.forth.grow(100);
    let frame = sealed(&mut one, 0, b"ACGT");
    assert_eq!(&opened(&mut two, &frame).unwrap().1[..], b"ACGT");
}

#[test]
fn keyed_frames_give_both_ends_the_same_pad_and_send_none_of_it() {
    let mut world = World::new(10_000);
    let [mut one, mut two] = world.connect().unwrap();
    for bytes in [0usize, 1, 16, 33, 5000] {
        let (envelope, pad) = one.seal_keyed(9, bytes).unwrap();
        let range = *world.forth.taken().last().unwrap();
        assert_eq!(&pad[..], &world.forth.bytes(range)[16..16 + bytes]);
        let frame = [&envelope.header[..], &envelope.tag].concat();
        let (received, same) = opened(&mut two, &frame).unwrap();
        assert_eq!((received, &same[..]), (Received::Message { kind: 9 }, &pad[..]));
        assert!(pad.is_secret() && same.is_secret());
    }
    assert_eq!(two.statistics().received.payload_bytes, 5050);
}

#[test]
fn keyed_frames_notice_pads_that_differ() {
    let mut world = World::new(1000);
    let [mut one, mut two] = world.connect().unwrap();
    let (mut envelope, _) = one.seal_keyed(9, 64).unwrap();
    // Another length asks for other key under the same tag.
    envelope.header[12] = 63;
    let frame = [&envelope.header[..], &envelope.tag].concat();
    assert!(matches!(opened(&mut two, &frame), Err(Error::Tag { .. })));
}

#[test]
fn the_hash_key_is_changed_when_both_ends_say_so() {
    let mut world = World::new(1000);
    world.limits.frames_per_hash_key = 3;
    let [mut one, mut two] = world.connect().unwrap();
    let mut flagged = Vec::new();
    for number in 1..=8 {
        let frame = sealed(&mut one, 0, b"ACGT");
        if frame[5] == 1 {
            flagged.push(number);
        }
        opened(&mut two, &frame).unwrap();
    }
    assert_eq!(flagged, [3, 6]);
    assert_eq!(one.statistics().sent.key_bytes, 2 * 16 + 8 * 32 + 2 * 16);

    let (envelope, pad) = one.seal_keyed(0, 20).unwrap();
    assert_eq!(envelope.header[5], 1);
    let frame = [&envelope.header[..], &envelope.tag].concat();
    assert_eq!(&opened(&mut two, &frame).unwrap().1[..], &pad[..]);

    world.limits.frames_per_hash_key = 2;
    let [_, mut early] = world.connect().unwrap();
    early.receiving(|opener| opener.expect(&envelope.header).map(drop)).unwrap_err();
}

#[test]
fn the_hash_key_is_changed_after_so_many_bytes() {
    let mut world = World::new(1000);
    world.limits.bytes_per_hash_key = 100;
    let [mut one, mut two] = world.connect().unwrap();
    let flags: Vec<u8> = (0..5)
        .map(|_| {
            let frame = sealed(&mut one, 0, &[1; 60]);
            opened(&mut two, &frame).unwrap();
            frame[5]
        })
        .collect();
    assert_eq!(flags, [0, 0, 1, 0, 1]);
}

#[test]
fn wrong_names_and_ciphers_are_refused_before_any_key_is_used() {
    let mut world = World::new(1000);
    type Twist = fn(&mut Hello);
    let cases: [(Twist, Refusal); 3] = [
        (|hello| hello.to = site("elsewhere"), Refusal::NotAddressed),
        (|hello| hello.from = site("mallory"), Refusal::NotAddressed),
        (|hello| hello.cipher = Cipher::Plain, Refusal::Cipher),
    ];
    for (twist, expected) in cases {
        let error = world.ends(twist).err().unwrap();
        assert!(matches!(&error, Error::Refused { reason, .. } if *reason == expected));
        assert_eq!(error.fault(), Fault::Refused);
    }
    assert_eq!((world.forth.taken().len(), world.back.taken().len()), (0, 0));
}

#[test]
fn after_a_receivers_restart_nothing_old_is_accepted() {
    let mut world = World::new(10_000);
    let [mut one, mut two] = world.connect().unwrap();
    opened(&mut two, &sealed(&mut one, 0, b"before")).unwrap();
    world.forth.restart_receiver();
    assert!(opened(&mut two, &sealed(&mut one, 0, b"lost")).is_err());
}

#[test]
fn a_sender_that_was_set_back_is_found_out_before_it_uses_a_key() {
    for forth in [true, false] {
        let mut world = World::new(10_000);
        let [mut one, mut two] = world.connect().unwrap();
        opened(&mut two, &sealed(&mut one, 0, b"before")).unwrap();
        opened(&mut one, &sealed(&mut two, 0, b"before")).unwrap();
        let stream = if forth { &world.forth } else { &world.back };
        let before = stream.taken().len();
        stream.set_sender_back(0);
        let stream = stream.clone();
        let error = world.connect().err().unwrap();
        assert!(matches!(error, Error::Key(crate::key::Error::Quarantined { .. })), "{error}");
        assert_eq!(error.fault(), Fault::Integrity);
        assert_eq!(stream.taken().len(), before);
    }
}

#[test]
fn keys_that_are_not_countersigned_seal_nothing() {
    let mut world = World::new(100_000);
    (world.forth, world.back) = (world.forth.asking(), world.back.asking());
    let [mut one, mut two] = world.connect().unwrap();
    for _ in 0..20 {
        let mut payload = vec![7; 3000];
        match one.seal(1, &mut payload) {
            Ok(envelope) => {
                let frame = [&envelope.header[..], &payload, &envelope.tag].concat();
                opened(&mut two, &frame).unwrap();
                continue;
            }
            Err(error) => assert!(error.awaits_peer(), "{error}"),
        }
        assert_eq!(payload, [7; 3000]);
        assert!(!one.awaits_peer());
        let ask = one.control().unwrap().unwrap();
        assert!(one.awaits_peer() && one.seal(1, &mut payload).is_err());
        assert!(one.control().unwrap().is_none(), "asked once");
        let frame = [&ask.envelope.header[..], &ask.payload, &ask.envelope.tag].concat();
        opened(&mut two, &frame).unwrap();
        let answer = two.control().unwrap().unwrap();
        assert!(one.seal(1, &mut payload).is_err(), "countersigned, and not heard of yet");
        let frame = [&answer.envelope.header[..], &answer.payload, &answer.envelope.tag].concat();
        opened(&mut one, &frame).unwrap();
        one.seal(1, &mut payload).unwrap();
        return;
    }
    panic!("a thousand units are never used up");
}

#[test]
fn a_peer_that_claims_its_keys_twice_is_told_and_stops() {
    let mut world = World::new(100_000);
    (world.forth, world.back) = (world.forth.asking(), world.back.asking());
    let [mut one, mut two] = world.connect().unwrap();
    world.forth.set_sender_back(0);
    let mut payload = vec![7; 30_000];
    assert!(one.seal(1, &mut payload).unwrap_err().awaits_peer());
    let ask = one.control().unwrap().unwrap();
    let frame = [&ask.envelope.header[..], &ask.payload, &ask.envelope.tag].concat();
    opened(&mut two, &frame).unwrap();
    let answer = two.control().unwrap().unwrap();
    let frame = [&answer.envelope.header[..], &answer.payload, &answer.envelope.tag].concat();
    let error = opened(&mut one, &frame).err().unwrap();
    assert!(matches!(error, Error::Key(crate::key::Error::Quarantined { .. })), "{error}");
    assert!(matches!(one.seal(1, &mut payload), Err(Error::Closed)));
}

#[test]
fn a_forged_mark_wastes_no_key() {
    let mut world = World::new(10_000);
    let [mut dialer, mut listener] = world.ends(|hello| hello.follower_mark = 5000).unwrap();
    assert!(listener.prove().is_err(), "the caller comes first");
    let opening = dialer.prove().unwrap();
    // The listener saw no forgery.
    assert!(matches!(listener.verify(&opening.header, &opening.tag), Err(Error::Tag { .. })));
    assert!(listener.prove().is_err() && dialer.finish().is_err());
    assert_eq!((Spend::mark(&world.forth), Spend::mark(&world.back)), (0, 0));
}

fn assert_disjoint(ranges: &[KeyRange]) {
    let mut sorted = ranges.to_vec();
    sorted.sort_by_key(|range| range.position);
    assert!(sorted.windows(2).all(|pair| pair[0].end() <= pair[1].position), "{sorted:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_size_round_trips(
        sizes in proptest::collection::vec(
            prop_oneof![Just(0usize), Just(1), Just(15), Just(16), Just(17), Just(1 << 20), 0usize..70_000],
            1..6,
        ),
        keyed: bool,
        seed: u8,
    ) {
        let mut world = World::new(1 << 22);
        let [mut one, mut two] = world.connect().unwrap();
        for size in sizes {
            if keyed {
                let (envelope, pad) = one.seal_keyed(1, size).unwrap();
                let frame = [&envelope.header[..], &envelope.tag].concat();
                prop_assert!(opened(&mut two, &frame).unwrap().1[..] == pad[..]);
            } else {
                let text: Vec<u8> = (0..size).map(|n| (n as u8).wrapping_mul(seed)).collect();
                let frame = sealed(&mut one, 1, &text);
                prop_assert!(opened(&mut two, &frame).unwrap().1[..] == text[..]);
            }
        }
        assert_disjoint(&world.forth.taken());
        prop_assert_eq!(one.statistics().sent, two.statistics().received);
    }

    #[test]
    fn noise_in_place_of_a_frame_is_refused(noise in proptest::collection::vec(any::<u8>(), 0..200)) {
        let [_, mut two] = World::new(1000).connect().unwrap();
        prop_assert!(opened(&mut two, &noise).is_err());
    }
}
