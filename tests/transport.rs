//! The transports: what goes in comes out, once, whatever the network does; keys are never used
//! twice; and what an observer of the way can see.

#![allow(clippy::unwrap_used)] // Helpers of tests, which clippy does not take for tests.

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use dsgd::base::{BitRate, ByteCount, Clock, Fault, Faulty, SiteId};
use dsgd::key::ledger::{self, Role};
use dsgd::key::{KeyStore, LinkSettings, SimulatedLink};
use dsgd::net::flow::{
    self, Accepted, Carrier, Claimer, DatagramReceiver, DatagramSender, Destination, Granter,
    Offer, Queued, RecordReceiver, RecordSender, Tally,
};
use dsgd::net::sim::{Faults, SimulatedLink as Network};
use dsgd::net::udp::Udp;
use dsgd::net::{Connection, Listener, Settings, dial};
use dsgd::otp::Cipher;
use dsgd::otp::packet::{
    Dropped, Grant, HEAD_BYTES, Head, Headers, Kind, PACKETS_PER_KEY, PacketOpener, PacketSealer,
    Shape,
};

const PATIENCE: Duration = Duration::from_secs(20);

fn site(name: &str) -> SiteId {
    name.parse().unwrap()
}

/// Two sites with a simulated link between them.
struct World {
    _folder: tempfile::TempDir,
    one: KeyStore,
    two: KeyStore,
}

impl World {
    fn new(stock: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = Clock::simulated(Duration::from_secs(1_000_000));
        let file = folder.path().join("link.json");
        let sites = [site("one"), site("two")];
        SimulatedLink::create(&file, sites, BitRate(0), ByteCount(stock), &clock).unwrap();
        let store = |name: &str, peer: &str| {
            let links = [LinkSettings::simulated(site(peer), &file)];
            KeyStore::open(site(name), &folder.path().join(name), &links, clock.clone()).unwrap()
        };
        let (one, two) = (store("one", "two"), store("two", "one"));
        Self { _folder: folder, one, two }
    }

    /// The oracle over what both ends recorded of the stream from `one` to `two`.
    fn check(&self) -> ledger::Summary {
        let sent = self.one.ledger(&site("two"), Role::Sender).unwrap();
        let came = self.two.ledger(&site("one"), Role::Follower).unwrap();
        ledger::check(&sent, &came).unwrap()
    }

    /// A proven connection.
    fn connect(&self, settings: &Settings) -> (Connection, Connection) {
        let listener = Listener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_address().to_string();
        thread::scope(|scope| {
            let called = scope.spawn(|| listener.accept().unwrap().handshake(&self.two, settings));
            let one = dial(&address, &site("two"), &self.one, settings).unwrap();
            (one, called.join().unwrap().unwrap())
        })
    }

    /// Both ends of a flow's control.
    fn control(&self, shape: Shape, settings: &Settings) -> (Granter, Claimer) {
        let (mut one, mut two) = self.connect(settings);
        let offer =
            Offer { purpose: "test".into(), carrier: Carrier::Udp, shape, streams: 1, token: None };
        thread::scope(|scope| {
            scope.spawn(|| {
                assert_eq!(flow::offered(&mut two).unwrap(), offer);
                let accepted = Accepted { port: 9, token: 7, buffer_bytes: 0 };
                flow::accept(&mut two, accepted).unwrap();
            });
            assert_eq!(flow::request(&mut one, &offer).unwrap().token, 7);
        });
        let spend = Box::new(self.one.sender(&site("two")).unwrap());
        let follow = Box::new(self.two.follower(&site("one")).unwrap());
        let granter = Granter::start(one, spend, shape, settings.clone()).unwrap();
        (granter, Claimer::start(two, follow, shape).unwrap())
    }
}

fn patient() -> Settings {
    Settings { key_wait: Duration::ZERO, deadline: PATIENCE, ..Settings::default() }
}

fn shape(carrier: Carrier, headers: Headers, cipher: Cipher) -> Shape {
    let mtu = if carrier == Carrier::Udp { 1470 } else { usize::MAX };
    Shape::within(mtu, headers, cipher, 77).unwrap()
}

/// The payload of a numbered packet: not two are the same.
fn payload(number: u64, bytes: usize) -> Vec<u8> {
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    })
    .take(bytes)
    .collect()
}

/// Both ends of a flow without sockets, with blocks from the real key stores of both sites.
struct Pair {
    sealer: PacketSealer,
    opener: PacketOpener,
}

impl Pair {
    fn new(world: &World, shape: Shape, blocks: u64, block_bytes: usize) -> Self {
        let mut sender = world.one.sender(&site("two")).unwrap();
        let mut follower = world.two.follower(&site("one")).unwrap();
        let mut pair = Self {
            sealer: PacketSealer::new(shape),
            opener: PacketOpener::new(shape, flow::WINDOW),
        };
        for number in 0..blocks {
            let bytes = if shape.cipher == Cipher::Otp { block_bytes } else { 32 };
            let lease = sender.take(bytes).unwrap();
            let range = lease.range();
            let twin = follower.fetch(range).unwrap();
            follower.accept(range, sender.reservation()).unwrap();
            let first = match shape.cipher {
                Cipher::Otp => range.position,
                _ => number * PACKETS_PER_KEY,
            };
            pair.sealer.add(Grant { lease, first });
            pair.opener.add(Grant { lease: twin, first });
        }
        pair
    }

    fn seal(&mut self, number: u64, bytes: usize) -> Option<Vec<u8>> {
        let mut packet = vec![0; self.sealer.shape().packet_bytes(bytes)];
        packet[HEAD_BYTES..][..bytes].copy_from_slice(&payload(number, bytes));
        let head =
            Head { kind: Kind::Data, channel: 5, payload_bytes: bytes as u16, offset: number };
        self.sealer.seal(&head, &mut packet).unwrap().then_some(packet)
    }
}

#[test]
fn whatever_the_network_does_packets_arrive_once_and_whole_or_not_at_all() {
    let harms = [
        Faults { drop: 100, ..Faults::default() },
        Faults { duplicate: 200, reorder: 200, ..Faults::default() },
        Faults { flip: 100, truncate: 50, ..Faults::default() },
        Faults { partition: 10, delay: 200, ..Faults::default() },
        Faults {
            drop: 30,
            flip: 30,
            duplicate: 30,
            reorder: 30,
            partition: 3,
            ..Faults::default()
        },
    ];
    for cipher in [Cipher::Otp, Cipher::Aes256Gcm] {
        for headers in [Headers::Clear, Headers::Hidden] {
            for (seed, faults) in harms.iter().enumerate() {
                let world = World::new(64 << 20);
                let shape = shape(Carrier::Udp, headers, cipher);
                let mut pair = Pair::new(&world, shape, 4, 300_000);
                let mut network = Network::new(seed as u64 + 1, *faults);
                let (mut sent, mut delivered) = (0, BTreeSet::new());
                let mut recorded = Vec::new();
                while sent < 500 {
                    let bytes = (sent as usize * 37) % 1400;
                    let Some(packet) = pair.seal(sent, bytes) else { break };
                    recorded.push(packet.clone());
                    network.send(packet);
                    sent += 1;
                }
                assert!(sent > 400);
                while network.is_busy() {
                    let Some(mut packet) = network.receive() else { continue };
                    if let Ok((head, bytes)) = pair.opener.open(&mut packet) {
                        assert!(delivered.insert(head.offset), "delivered twice");
                        assert!(bytes == payload(head.offset, (head.offset as usize * 37) % 1400));
                        assert_eq!(head.channel, 5);
                    }
                }
                assert!(network.harm() > 0);
                let lost = sent as usize - delivered.len();
                assert!(lost as u32 <= network.harm(), "more lost than the network harmed");
                assert!(faults.drop + faults.flip + faults.partition == 0 || lost > 0);
                // Everything once more, as an attacker who recorded it would.
                for (number, packet) in recorded.iter_mut().enumerate() {
                    let again = pair.opener.open(packet).map(|(head, _)| head.offset);
                    match again {
                        Ok(number) => assert!(delivered.insert(number), "a repetition got through"),
                        Err(Dropped::Repeated | Dropped::NoKey) => {
                            assert!(delivered.contains(&(number as u64)));
                        }
                        Err(other) => panic!("{other:?}"),
                    }
                }
                assert_eq!(
                    delivered.len() as u64,
                    sent,
                    "the key of what was lost was still there"
                );
                let summary = world.check();
                assert!(summary.claimed_units <= summary.reserved_units);
            }
        }
    }
}

/// Runs a flow over UDP with `count` packets of `bytes`, past `meddle`, which gets each datagram and
/// says what goes on; gives what was delivered, and both ends' count.
fn over_udp(
    shape: Shape,
    count: u64,
    bytes: impl Fn(u64) -> usize + Sync,
    meddle: impl Fn(Vec<u8>) -> Vec<Vec<u8>> + Sync,
) -> (Vec<(u64, Vec<u8>)>, Tally) {
    let world = World::new(256 << 20);
    let (granter, claimer) = world.control(shape, &patient());
    let local = "127.0.0.1:0".parse::<SocketAddr>().unwrap();
    let (out, way, back) = (
        Arc::new(Udp::bind(local).unwrap()),
        UdpSocket::bind(local).unwrap(),
        Udp::bind(local).unwrap(),
    );
    let (entry, exit) = (way.local_addr().unwrap(), back.local_address());
    way.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let (over, arrived) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut delivered = Vec::new();
    let tally = thread::scope(|scope| {
        scope.spawn(|| {
            let mut buffer = [0; 65_536];
            while !over.load(Ordering::SeqCst) {
                let Ok(length) = way.recv(&mut buffer) else { continue };
                for datagram in meddle(buffer[..length].to_vec()) {
                    way.send_to(&datagram, exit).unwrap();
                }
                arrived.fetch_add(1, Ordering::SeqCst);
            }
        });
        let sending = scope.spawn(|| {
            let to = Destination::known(entry);
            let mut sender = DatagramSender::new(out, to, shape, granter.blocks());
            for number in 0..count {
                let bytes = bytes(number);
                let queued = sender.put((Kind::Data, 5), bytes, PATIENCE, |place| {
                    place.copy_from_slice(&payload(number, bytes));
                });
                assert_eq!(queued.unwrap(), Queued::Yes);
                sender.flush().unwrap();
                // No faster than the way takes them.
                while arrived.load(Ordering::SeqCst) + 20 < number {
                    thread::sleep(Duration::from_micros(100));
                }
            }
            let sent = sender.traffic().into();
            drop(sender);
            granter.finish(Tally { sent, ..Tally::default() })
        });
        let (from, blocks) = (Destination::default(), claimer.blocks());
        let mut receiver = DatagramReceiver::new(Arc::new(back), from.clone(), shape, blocks);
        let mut finished = false;
        loop {
            let any = receiver.receive(Duration::from_millis(100), |head, bytes| {
                delivered.push((head.offset, bytes.to_vec()));
            });
            if !any.unwrap() && finished {
                break;
            }
            finished = finished || claimer.finished().is_some();
        }
        assert_eq!(from.address(), Some(entry), "where the peer is was learnt");
        let mut tally = Tally::default();
        tally.add_delivered(receiver.opener().traffic(), receiver.opener().refusals());
        claimer.finish(tally).unwrap();
        over.store(true, Ordering::SeqCst);
        sending.join().unwrap().unwrap()
    });
    let summary = world.check();
    assert!(shape.cipher == Cipher::Plain || summary.claims > 0);
    (delivered, tally)
}

#[test]
fn datagrams_cross_in_every_mode() {
    for cipher in Cipher::ALL {
        for headers in [Headers::Clear, Headers::Hidden] {
            let shape = shape(Carrier::Udp, headers, cipher);
            let bytes = |number: u64| (number as usize * 131) % 1409;
            let (delivered, tally) = over_udp(shape, 300, bytes, |datagram| vec![datagram]);
            assert_eq!(delivered.len(), 300, "{cipher} {headers:?}");
            for (number, got) in &delivered {
                assert!(*got == payload(*number, bytes(*number)));
            }
            assert_eq!((tally.sent.packets, tally.delivered.packets), (300, 300));
            assert_eq!((tally.refused, tally.loss()), (0, 0.0));
            match cipher {
                Cipher::Otp => assert!(tally.sent.key_bytes > tally.sent.payload_bytes),
                Cipher::Plain => assert_eq!(tally.sent.key_bytes, 0),
                _ => assert_eq!(tally.sent.key_bytes, 32),
            }
        }
    }
}

#[test]
fn who_repeats_and_changes_datagrams_on_the_way_gains_nothing() {
    let shape = shape(Carrier::Udp, Headers::Hidden, Cipher::Otp);
    let seen = AtomicU64::new(0);
    let (delivered, tally) = over_udp(
        shape,
        100,
        |_| 700,
        |datagram| {
            let mut forged = datagram.clone();
            let at = seen.fetch_add(1, Ordering::SeqCst) as usize % datagram.len();
            forged[at] ^= 0x10;
            vec![forged, datagram.clone(), datagram]
        },
    );
    let numbers: BTreeSet<u64> = delivered.iter().map(|(number, _)| *number).collect();
    assert_eq!((delivered.len(), numbers.len()), (100, 100));
    assert!(delivered.iter().all(|(number, bytes)| *bytes == payload(*number, 700)));
    assert_eq!(tally.refused, 200);
}

/// An inner IPv4 packet: TCP from 10.77.1.2:50001 to 10.77.1.3:443, with a text in it.
fn inner_packet(text: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 0, 0x12, 0x34, 0x40, 0, 64, 6, 0, 0];
    packet.extend([10, 77, 1, 2, 10, 77, 1, 3]);
    packet.extend([0xc3, 0x51, 0x01, 0xbb]);
    packet.extend([0x0a; 16]);
    packet.extend(text);
    let bytes = packet.len() as u16;
    packet[2..4].copy_from_slice(&bytes.to_be_bytes());
    packet
}

#[test]
fn a_capture_shows_sizes_and_channels_with_clear_headers_and_only_a_position_with_hidden_ones() {
    let texts = [&b"GET /chr17 HTTP/1.1"[..], b"x", b"a longer text that is not to be seen at all"];
    let inner = |number: u64| inner_packet(texts[number as usize % 3]);
    for headers in [Headers::Clear, Headers::Hidden] {
        let shape = shape(Carrier::Udp, headers, Cipher::Otp);
        let world = World::new(16 << 20);
        let mut pair = Pair::new(&world, shape, 1, 100_000);
        let captured: Vec<Vec<u8>> = (0..30)
            .map(|number| {
                let text = inner(number);
                let mut packet = vec![0; shape.packet_bytes(text.len())];
                packet[HEAD_BYTES..][..text.len()].copy_from_slice(&text);
                let payload_bytes = text.len() as u16;
                let head = Head { kind: Kind::Data, channel: 0x5aa5, payload_bytes, offset: 9 };
                assert!(pair.sealer.seal(&head, &mut packet).unwrap());
                packet
            })
            .collect();
        let shows = |what: &[u8]| {
            captured.iter().any(|packet| packet.windows(what.len()).any(|at| at == what))
        };
        // What few bytes may show by chance somewhere, but not at the same place of every packet.
        let always_shows = |what: &[u8]| {
            let shortest = captured.iter().map(Vec::len).min().unwrap();
            (0..shortest - what.len())
                .any(|at| captured.iter().all(|packet| packet[at..].starts_with(what)))
        };
        // Inner addresses, ports, protocol and text: in neither mode.
        for secret in [&[10, 77, 1, 2][..], &[0xc3, 0x51, 0x01, 0xbb], b"chr17", b"longer"] {
            assert!(!shows(secret), "{headers:?}");
        }
        assert!(!always_shows(&[0x45, 0, 0]), "{headers:?}");
        let sizes: BTreeSet<usize> = captured.iter().map(Vec::len).collect();
        match headers {
            Headers::Clear => {
                assert_eq!(sizes.len(), 3, "the length of each payload can be read off");
                assert!(always_shows(&[0xa5, 0x5a]), "and so can the channel");
            }
            Headers::Hidden => {
                assert_eq!(sizes, BTreeSet::from([shape.packet_bytes_max()]));
                assert!(!always_shows(&[0xa5, 0x5a]));
                // Position apart, nothing is the same in any two.
                let mut blocks = BTreeSet::new();
                for packet in &captured {
                    assert!(
                        packet[8..].chunks_exact(16).all(|block| blocks.insert(block.to_vec()))
                    );
                }
            }
        }
    }
}

/// Runs a flow over `streams` TCP connections, after `strangers` have called.
fn over_tcp(shape: Shape, streams: u16, count: u64, strangers: bool) -> (BTreeSet<u64>, Tally) {
    let world = World::new(512 << 20);
    let (granter, claimer) = world.control(shape, &patient());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let bytes = |number: u64| 60_000 + (number as usize * 77) % 5_000;
    let (granter, tally, numbers) = thread::scope(|scope| {
        let sending = scope.spawn(move || {
            if strangers {
                let mut noise = std::net::TcpStream::connect(address).unwrap();
                let _ = std::io::Write::write_all(&mut noise, &payload(1, 70_000));
            }
            let senders =
                RecordSender::connect(address, streams, shape, &granter.blocks()).unwrap();
            let traffics: Vec<_> = thread::scope(|scope| {
                let run = |(first, mut sender): (usize, RecordSender)| {
                    for number in (first as u64..count).step_by(streams.into()) {
                        let bytes = bytes(number);
                        let fill = |place: &mut [u8]| {
                            place[..8].copy_from_slice(&number.to_le_bytes());
                            place[8..].copy_from_slice(&payload(number, bytes - 8));
                        };
                        sender.put((Kind::Data, 5), bytes, PATIENCE, fill).unwrap();
                    }
                    sender.finish()
                };
                let threads: Vec<_> = senders
                    .into_iter()
                    .enumerate()
                    .map(|it| scope.spawn(move || run(it)))
                    .collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            let mut sent = flow::Count::default();
            traffics.into_iter().for_each(|traffic| sent += traffic.into());
            (granter, sent)
        });
        let receivers =
            RecordReceiver::accept(&listener, streams, shape, claimer.blocks(), PATIENCE).unwrap();
        let run = |mut receiver: RecordReceiver| {
            let mut numbers = Vec::new();
            while receiver
                .receive(|_, got| {
                    let number = u64::from_le_bytes(got[..8].try_into().unwrap());
                    assert!(got[8..] == payload(number, bytes(number) - 8));
                    numbers.push(number);
                })
                .unwrap()
            {}
            (numbers, receiver.opener().traffic(), receiver.opener().refusals())
        };
        let threads: Vec<_> =
            receivers.into_iter().map(|receiver| scope.spawn(move || run(receiver))).collect();
        let (mut tally, mut numbers) = (Tally::default(), BTreeSet::new());
        for thread in threads {
            let (some, traffic, refusals) = thread.join().unwrap();
            tally.add_delivered(traffic, refusals);
            some.into_iter().for_each(|number| assert!(numbers.insert(number), "twice"));
        }
        let (granter, sent) = sending.join().unwrap();
        tally.sent = sent;
        (granter, tally, numbers)
    });
    thread::scope(|scope| {
        scope.spawn(|| claimer.finish(tally).unwrap());
        assert_eq!(granter.finish(tally).unwrap(), tally);
    });
    world.check();
    (numbers, tally)
}

#[test]
fn records_cross_in_every_mode_over_one_and_several_connections() {
    for (cipher, headers, streams) in [
        (Cipher::Otp, Headers::Clear, 1),
        (Cipher::Otp, Headers::Hidden, 3),
        (Cipher::Otp, Headers::Clear, 4),
        (Cipher::Plain, Headers::Hidden, 1),
        (Cipher::Aes256Gcm, Headers::Clear, 2),
        (Cipher::Aes256Gcm, Headers::Hidden, 1),
    ] {
        let shape = shape(Carrier::Tcp, headers, cipher);
        let (numbers, tally) = over_tcp(shape, streams, 60, cipher == Cipher::Otp);
        assert!(numbers.iter().copied().eq(0..60), "{cipher} {headers:?}");
        // The covers that opened the connections are sent and not delivered.
        assert_eq!(tally.delivered.packets, 60);
        assert_eq!(tally.refused, 0);
    }
}

#[test]
fn without_keys_nothing_is_sent_and_no_other_cipher_takes_over() {
    let world = World::new(2 * 400_000);
    let settings = Settings { key_wait: Duration::from_millis(200), ..patient() };
    let shape = shape(Carrier::Udp, Headers::Clear, Cipher::Otp);
    let (granter, claimer) = world.control(shape, &settings);
    let way = UdpSocket::bind("127.0.0.1:0").unwrap();
    way.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let out = Arc::new(Udp::bind("127.0.0.1:0".parse().unwrap()).unwrap());
    let to = Destination::known(way.local_addr().unwrap());
    let mut sender = DatagramSender::new(out, to, shape, granter.blocks());
    let (mut sent, mut refused) = (0, 0);
    let mut arrived: Vec<Vec<u8>> = Vec::new();
    let mut buffer = [0; 2000];
    while refused < 3 {
        match sender.put((Kind::Data, 0), 1424, Duration::from_secs(2), |place| place.fill(b'A')) {
            Ok(Queued::Yes) => sent += 1,
            Ok(Queued::NoKey) => refused += 1,
            Err(error) => panic!("{error}"),
        }
        sender.flush().unwrap();
        if let Ok(length) = way.recv(&mut buffer) {
            arrived.push(buffer[..length].to_vec());
        }
    }
    assert!(sent > 50 && sent < 400_000 / 1424, "{sent}");
    assert_eq!(arrived.len(), sent, "not one without key");
    assert!(arrived.iter().all(|packet| !packet.windows(8).any(|at| at == b"AAAAAAAA")));
    let error = granter.finish(Tally::default()).err().unwrap();
    assert_eq!(error.fault(), Fault::TryAgain, "{error}");
    drop(claimer);
    world.check();
}

#[test]
fn a_peer_that_asks_for_a_cipher_that_is_not_permitted_is_known() {
    let set = |cipher| Settings { cipher, ..Settings::default() };
    for own in Cipher::ALL {
        for asked in Cipher::ALL {
            let expected = own == asked || (own == Cipher::Aes256Gcm && asked == Cipher::Otp);
            assert_eq!(set(own).permits(asked), expected, "{own} {asked}");
        }
    }
}
