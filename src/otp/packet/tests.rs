//! Packets over memory: what is sealed is opened, once, in any order, and nothing else is.

use proptest::prelude::*;

use super::*;
use crate::key::{KeyRange, StreamId};
use crate::otp::Spend;
use crate::otp::memory::MemoryStream;

const FLOW: u16 = 7;

fn stream() -> MemoryStream {
    let id = StreamId { sender: "a".parse().unwrap(), receiver: "b".parse().unwrap() };
    MemoryStream::new(id, 5, 1 << 20, 1 << 20)
}

/// Both ends of a flow, with `blocks` of `units`.
fn pair(shape: Shape, blocks: usize, units: u64) -> (PacketSealer, PacketOpener, MemoryStream) {
    pair_within(shape, blocks, units, 1 << 22)
}

fn pair_within(
    shape: Shape,
    blocks: usize,
    units: u64,
    window: u64,
) -> (PacketSealer, PacketOpener, MemoryStream) {
    let stream = stream();
    let (mut sealer, mut opener) = (PacketSealer::new(shape), PacketOpener::new(shape, window));
    for number in 0..blocks as u64 {
        let lease = stream.clone().take((units * UNIT_BYTES) as usize).unwrap();
        let range = lease.range();
        let first =
            if shape.cipher == Cipher::Otp { range.position } else { number * PACKETS_PER_KEY };
        let twin =
            crate::key::KeyLease::new(range, crate::base::Chunk::from_bytes(0, lease.bytes()));
        sealer.add(Grant { lease, first });
        opener.add(Grant { lease: twin, first });
    }
    (sealer, opener, stream)
}

fn shapes() -> Vec<Shape> {
    let mut shapes = Vec::new();
    for cipher in Cipher::ALL {
        for headers in [Headers::Clear, Headers::Hidden] {
            shapes.push(Shape::within(1470, headers, cipher, FLOW).unwrap());
        }
    }
    shapes
}

fn sealed(sealer: &mut PacketSealer, channel: u16, text: &[u8]) -> Option<Vec<u8>> {
    let mut packet = vec![0xee; sealer.shape().packet_bytes(text.len())];
    packet[HEAD_BYTES..][..text.len()].copy_from_slice(text);
    let head =
        Head { kind: Kind::Data, channel, payload_bytes: text.len() as u16, offset: 0x0102_0304 };
    sealer.seal(&head, &mut packet).unwrap().then_some(packet)
}

#[test]
fn the_overhead_is_the_documented_one() {
    let clear = Shape::within(1470, Headers::Clear, Cipher::Otp, 0).unwrap();
    let hidden = Shape::within(1454, Headers::Hidden, Cipher::Otp, 0).unwrap();
    assert_eq!((clear.unit_bytes, clear.packet_bytes_max()), (1424, 1464));
    assert_eq!((hidden.unit_bytes, hidden.packet_bytes_max()), (1408, 1448));
    let per_byte = |shape: &Shape| {
        let unit = usize::from(shape.unit_bytes);
        (shape.key_units(unit) * UNIT_BYTES) as f64 / unit as f64
    };
    assert!(per_byte(&clear) < 1.012 && per_byte(&hidden) < 1.023);
    for headers in [Headers::Clear, Headers::Hidden] {
        let record = Shape::within(usize::MAX, headers, Cipher::Otp, 0).unwrap();
        assert_eq!(usize::from(record.unit_bytes), UNIT_BYTES_MAX);
        assert!(per_byte(&record) < 1.0005);
    }
    assert!(Shape::within(HEAD_BYTES + TAG_BYTES + 15, Headers::Clear, Cipher::Otp, 0).is_none());
}

#[test]
fn what_is_sealed_is_opened_in_any_order_and_only_once() {
    for shape in shapes() {
        let (mut sealer, mut opener, _) = pair(shape, 3, 2000);
        let texts: Vec<Vec<u8>> = (0..40).map(|n| vec![n as u8; n * 36]).collect();
        let mut packets: Vec<_> =
            texts.iter().map(|text| sealed(&mut sealer, 3, text).unwrap()).collect();
        let copies = packets.clone();
        for (n, packet) in packets.iter_mut().enumerate().rev() {
            let (head, payload) = opener.open(packet).unwrap();
            assert_eq!((head.channel, head.offset), (3, 0x0102_0304));
            assert!(payload == texts[n], "{shape:?} {n}");
        }
        assert_eq!(opener.refusals().reordered, 39);
        if shape.cipher != Cipher::Plain {
            for mut packet in copies {
                assert!(matches!(
                    opener.open(&mut packet),
                    Err(Dropped::Repeated | Dropped::NoKey)
                ));
            }
            assert_eq!(opener.traffic().frames, 40);
        }
    }
}

#[test]
fn the_ciphertext_is_the_plaintext_and_the_key_and_nothing_else() {
    for shape in shapes().into_iter().filter(|shape| shape.cipher == Cipher::Otp) {
        let (mut sealer, _, stream) = pair(shape, 1, 300);
        let packet = sealed(&mut sealer, 1, b"ACGTACGT").unwrap();
        let position = shape.position(&packet).unwrap();
        assert_eq!(position, 1, "the first unit is the hash key");
        let units = shape.key_units(8);
        let key = stream.bytes(KeyRange { position, units });
        let hidden = shape.headers.clear_bytes()..packet.len() - TAG_BYTES;
        let plain: Vec<u8> = packet[hidden].iter().zip(&key[16..]).map(|(a, b)| a ^ b).collect();
        let payload = &plain[HEAD_BYTES - shape.headers.clear_bytes()..];
        assert_eq!(&payload[..8], b"ACGTACGT");
        assert!(payload[8..].iter().all(|byte| *byte == 0));
    }
}

#[test]
fn every_flipped_bit_is_refused_and_costs_no_key() {
    for shape in shapes().into_iter().filter(|shape| shape.cipher != Cipher::Plain) {
        let small = Shape { unit_bytes: 32, ..shape };
        let (mut sealer, mut opener, _) = pair(small, 1, 100);
        let packet = sealed(&mut sealer, 9, b"a payload of 24 bytes...").unwrap();
        for bit in 0..packet.len() * 8 {
            let mut forged = packet.clone();
            forged[bit / 8] ^= 1 << (bit % 8);
            assert!(opener.open(&mut forged).is_err(), "bit {bit}");
        }
        assert_eq!(opener.traffic().key_bytes, 0);
        assert!(opener.open(&mut packet.clone()).is_ok(), "the true one still finds its key");
    }
}

#[test]
fn hidden_packets_are_of_one_size_and_show_nothing_but_their_position() {
    for cipher in [Cipher::Otp, Cipher::Aes256Gcm] {
        let shape = Shape::within(200, Headers::Hidden, cipher, 0xabcd).unwrap();
        let (mut sealer, _, _) = pair(shape, 1, 1000);
        let sizes = [0usize, 1, 77, 160];
        let packets: Vec<_> =
            sizes.iter().map(|n| sealed(&mut sealer, 0xbeef, &vec![b'A'; *n]).unwrap()).collect();
        for packet in &packets {
            assert_eq!(packet.len(), shape.packet_bytes_max());
            assert_eq!(packet[..2], [0x12, 0]);
            let shows = |what: &[u8]| packet[8..].windows(what.len()).any(|at| at == what);
            assert!(!shows(&[0xef, 0xbe]) && !shows(&[0xcd, 0xab]) && !shows(b"AAA"));
            assert!(!shows(&[0; 6]), "the padding is encrypted, too");
        }
    }
}

#[test]
fn without_a_block_nothing_is_sealed_and_late_packets_find_no_key() {
    let shape = Shape::within(200, Headers::Clear, Cipher::Otp, FLOW).unwrap();
    let mut sealer = PacketSealer::new(shape);
    assert!(sealed(&mut sealer, 0, b"text").is_none());

    let (mut sealer, mut opener, _) = pair_within(shape, 3, 100, 50);
    let late = sealed(&mut sealer, 0, &[1; 160]).unwrap();
    let mut last = None;
    while let Some(packet) = sealed(&mut sealer, 0, &[1; 160]) {
        last = Some(packet);
    }
    assert_eq!(opener.held_bytes(), 300 * UNIT_BYTES);
    opener.open(&mut last.unwrap()).unwrap();
    assert_eq!(opener.held_bytes(), 100 * UNIT_BYTES, "older blocks are wiped");
    assert_eq!(opener.open(&mut late.clone()), Err(Dropped::NoKey));
}

#[test]
fn aes_takes_a_key_of_32_bytes_and_says_so() {
    let shape = Shape::within(1470, Headers::Clear, Cipher::Aes256Gcm, FLOW).unwrap();
    let (mut sealer, _, _) = pair(shape, 1, 2);
    (0..1000).for_each(|_| assert!(sealed(&mut sealer, 0, &[7; 1424]).is_some()));
    assert_eq!(sealer.traffic().key_bytes, 32);
}

#[test]
fn what_does_not_fit_is_an_error() {
    let shape = Shape::within(100, Headers::Clear, Cipher::Otp, FLOW).unwrap();
    let (mut sealer, _, _) = pair(shape, 1, 100);
    let head = Head { kind: Kind::Data, channel: 0, payload_bytes: 49, offset: 0 };
    assert!(sealer.seal(&head, &mut [0; 24 + 49 + 16]).is_err());
    let head = Head { payload_bytes: 8, ..head };
    assert!(sealer.seal(&head, &mut [0; 24 + 9 + 16]).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_sizes_round_trip_and_the_accounts_agree(
        which in 0usize..6,
        sizes in proptest::collection::vec(0usize..1424, 1..60),
    ) {
        let shape = shapes()[which];
        let (mut sealer, mut opener, _) = pair(shape, 4, 1700);
        for size in sizes {
            let size = size.min(shape.unit_bytes.into());
            let Some(mut packet) = sealed(&mut sealer, 1, &vec![3; size]) else { break };
            let (_, payload) = opener.open(&mut packet).unwrap();
            prop_assert!(payload == vec![3; size]);
        }
        let (sent, came) = (sealer.traffic(), opener.traffic());
        prop_assert_eq!((sent.frames, sent.payload_bytes), (came.frames, came.payload_bytes));
        prop_assert!(sent.key_bytes >= came.key_bytes);
    }

    #[test]
    fn noise_is_refused(
        which in 0usize..6,
        noise in proptest::collection::vec(any::<u8>(), 0..1600),
        form: bool,
    ) {
        let shape = shapes()[which];
        let (_, mut opener, _) = pair(shape, 1, 1700);
        let mut noise = noise;
        if form && noise.len() > 8 {
            noise[..8].copy_from_slice(&[shape.headers.form(), 0, 1, 0, 0, 0, 0, 0]);
        }
        if shape.cipher != Cipher::Plain {
            prop_assert!(opener.open(&mut noise).is_err());
            prop_assert_eq!(opener.traffic().key_bytes, 0);
        } else {
            let _ = opener.open(&mut noise);
        }
    }
}
