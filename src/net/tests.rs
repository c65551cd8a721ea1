//! Two sites over real sockets, and strangers who call.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::base::{BitRate, ByteCount, Chunk, Clock, Fault, Faulty, SiteId};
use crate::key::{Floors, KeyStore, LinkSettings, Priority, SimulatedLink};
use crate::otp::hello::{HELLO_BYTES, Hello};
use crate::otp::{self, Refusal, Statistics};

use super::*;

fn site(name: &str) -> SiteId {
    name.parse().unwrap()
}

/// Two sites with a simulated link between them.
struct World {
    _folder: tempfile::TempDir,
    hospital: KeyStore,
    tommo: KeyStore,
    clock: Clock,
}

impl World {
    /// `stock` bytes of key for both directions together, `rate` more as the clock is moved.
    fn new(stock: u64, rate: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = Clock::simulated(Duration::from_secs(1_000_000));
        let file = folder.path().join("link.json");
        let sites = [site("hospital"), site("tommo")];
        let (rate, stock) = (BitRate(rate), ByteCount(stock));
        SimulatedLink::create(&file, sites, rate, stock, &clock).unwrap();
        let store = |name: &str, peer: &str| {
            let links = [LinkSettings::simulated(site(peer), &file)];
            KeyStore::open(site(name), &folder.path().join(name), &links, clock.clone()).unwrap()
        };
        let (hospital, tommo) = (store("hospital", "tommo"), store("tommo", "hospital"));
        Self { _folder: folder, hospital, tommo, clock }
    }

    /// The hospital calls; both ends of the connection.
    fn connect(&self, settings: &Settings) -> (Connection, Connection) {
        self.connect_as(settings, settings)
    }

    /// The same, with settings for either end.
    fn connect_as(&self, calling: &Settings, called: &Settings) -> (Connection, Connection) {
        let listener = Listener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_address().to_string();
        thread::scope(|scope| {
            let called = scope.spawn(|| listener.accept().unwrap().handshake(&self.tommo, called));
            let one = dial(&address, &site("tommo"), &self.hospital, calling).unwrap();
            (one, called.join().unwrap().unwrap())
        })
    }

    /// What the called site says when `stranger` has had the connection.
    fn called_by(&self, settings: &Settings, stranger: impl FnOnce(TcpStream) + Send) -> Error {
        let listener = Listener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_address();
        thread::scope(|scope| {
            scope.spawn(move || stranger(TcpStream::connect(address).unwrap()));
            let called = listener.accept().unwrap().handshake(&self.tommo, settings);
            called.and_then(|mut connection| connection.receive().map(drop)).unwrap_err()
        })
    }
}

fn quick() -> Settings {
    Settings {
        key_wait: Duration::ZERO,
        deadline: Duration::from_millis(300),
        idle: Duration::from_secs(20),
        ..Settings::default()
    }
}

/// Longer than any answer takes, however busy the machine.
fn patient() -> Settings {
    Settings { deadline: Duration::from_secs(20), ..quick() }
}

#[test]
fn messages_of_every_size_cross_in_both_directions() {
    let world = World::new(64 << 20, 0);
    for settings in [patient(), Settings { cipher: Cipher::Plain, ..patient() }] {
        let (mut one, mut two) = world.connect(&settings);
        assert_eq!((one.peer(), two.peer()), (&site("tommo"), &site("hospital")));
        thread::scope(|scope| {
            scope.spawn(|| {
                while let Some(message) = two.receive().unwrap() {
                    two.send_chunk(message.kind + 1, message.payload).unwrap();
                }
                two.close().unwrap();
            });
            for size in [0usize, 1, 16, 65_537, 1 << 20, otp::PAYLOAD_BYTES_MAX, 5] {
                let text: Vec<u8> = (0..size).map(|n| (n * 7 / 3) as u8).collect();
                one.send(size as u16, &text).unwrap();
                let message = one.receive().unwrap().unwrap();
                assert_eq!(message.kind, (size as u16).wrapping_add(1));
                assert!(message.payload[..] == text[..], "{size} bytes");
            }
            let Statistics { sent, received } = one.statistics();
            match settings.cipher {
                Cipher::Plain => assert_eq!(sent, received),
                // An end may have asked for a signature that has not come yet.
                _ => assert!(sent.payload_bytes.abs_diff(received.payload_bytes) <= 64),
            }
            one.close().unwrap();
        });
    }
}

#[test]
fn what_crosses_the_wire_is_not_the_payload() {
    let world = World::new(1 << 20, 0);
    let listener = Listener::bind("127.0.0.1:0").unwrap();
    let tap = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let tapped = Mutex::new(Vec::new());
    let address = tap.local_addr().unwrap().to_string();
    thread::scope(|scope| {
        scope.spawn(|| {
            let (mut from, to) = (tap.accept().unwrap().0, listener.local_address());
            let (mut to, mut back) = (TcpStream::connect(to).unwrap(), from.try_clone().unwrap());
            let mut answers = to.try_clone().unwrap();
            thread::spawn(move || std::io::copy(&mut answers, &mut back));
            let mut buffer = [0; 4096];
            while let Ok(bytes @ 1..) = from.read(&mut buffer) {
                tapped.lock().unwrap().extend_from_slice(&buffer[..bytes]);
                to.write_all(&buffer[..bytes]).unwrap();
            }
        });
        scope.spawn(|| {
            let incoming = listener.accept().unwrap();
            let mut two = incoming.handshake(&world.tommo, &patient()).unwrap();
            assert_eq!(&two.receive().unwrap().unwrap().payload[..], [b'A'; 1000]);
            assert_eq!(two.receive().unwrap().unwrap().payload.len(), 1000);
            assert!(two.receive().unwrap().is_none());
        });
        let mut one = dial(&address, &site("tommo"), &world.hospital, &patient()).unwrap();
        one.send(1, &[b'A'; 1000]).unwrap();
        one.send_keyed(2, 1000).unwrap();
        one.close().unwrap();
    });
    let tapped = tapped.into_inner().unwrap();
    assert!(!tapped.windows(8).any(|bytes| bytes == b"AAAAAAAA"));
    let frames = 5 * (48 + 16) + 1000;
    assert_eq!(tapped.len(), HELLO_BYTES + frames, "opening, proof, data, keyed without pad, end");
}

#[test]
fn keyed_payloads_are_the_same_at_both_ends() {
    let world = World::new(8 << 20, 0);
    let (mut one, mut two) = world.connect(&patient());
    thread::scope(|scope| {
        let received = scope.spawn(|| two.receive().unwrap().unwrap());
        let pad = one.send_keyed(5, 1 << 20).unwrap();
        let message = received.join().unwrap();
        assert_eq!(message.kind, 5);
        assert!(message.payload[..] == pad[..]);
    });
    let (proof, asking, answering) = (32, 32, 32);
    let without = one.statistics().sent.key_bytes - (proof + asking + 16 + (1 << 20));
    assert!([0, answering].contains(&without), "the other end may have asked in the meantime");

    let plain = Settings { cipher: Cipher::Plain, ..patient() };
    let (mut one, _two) = world.connect(&plain);
    let error = one.send_keyed(5, 10).err().unwrap();
    assert!(matches!(error, Error::Unsupported { .. }));
}

#[test]
fn several_connections_share_a_link_and_no_key() {
    let world = World::new(64 << 20, 0);
    let mut pairs: Vec<_> = (0..3).map(|_| world.connect(&patient())).collect();
    let mut pads = Vec::new();
    for round in 0..4 {
        for (one, two) in pairs.iter_mut().rev() {
            one.send(round, b"interleaved").unwrap();
            pads.push(one.send_keyed(0, 64).unwrap().to_vec());
            assert_eq!(&two.receive().unwrap().unwrap().payload[..], b"interleaved");
            assert_eq!(two.receive().unwrap().unwrap().payload[..], pads.last().unwrap()[..]);
        }
    }
    pads.sort();
    pads.dedup();
    assert_eq!(pads.len(), 12);
}

#[test]
fn without_keys_sending_waits_and_then_fails() {
    let world = World::new(2 * 36 * 1024, 8 * 40960);
    let (mut one, _two) = world.connect(&patient());
    let error = one.send(1, &[0; 10_000]).unwrap_err();
    assert_eq!(error.fault(), Fault::TryAgain);
    assert!(error.hint().unwrap().contains("key rate"));

    let world = World::new(2 * 36 * 1024, 8 * 40960);
    let (waits, clock) = (Arc::new(AtomicU32::new(0)), world.clock.clone());
    let counted = Arc::clone(&waits);
    let on_wait = move |wait: &KeyWait| {
        assert_eq!((wait.peer.as_str(), wait.needed.0), ("tommo", 16 + 10_000 + 512));
        counted.fetch_add(1, Ordering::SeqCst);
        clock.advance(Duration::from_secs(10));
    };
    let on_wait: Option<OnWait> = Some(Arc::new(on_wait));
    let settings = Settings { on_wait, key_wait: Duration::from_secs(60), ..patient() };
    let (mut one, mut two) = world.connect(&settings);
    thread::scope(|scope| {
        scope.spawn(|| one.send(1, &[7; 10_000]).unwrap());
        assert_eq!(&two.receive().unwrap().unwrap().payload[..], [7; 10_000]);
    });
    assert!(waits.load(Ordering::SeqCst) > 0);
}

#[test]
fn two_jobs_are_not_promised_the_same_key() {
    let world = World::new(2 << 20, 0);
    let (mut one, _two) = world.connect(&patient());
    let (mut other, _another) = world.connect(&patient());
    one.expect_to_send(6, 100_000).unwrap();
    let error = other.expect_to_send(6, 100_000).unwrap_err();
    assert_eq!(error.fault(), Fault::TryAgain);
    other.expect_to_send(2, 100_000).unwrap();
    drop(one);
    other.expect_to_send(6, 100_000).unwrap();
}

#[test]
fn bulk_leaves_key_to_what_is_more_important_and_control_never_starves() {
    let floors = Floors { restore: ByteCount(300_000), ..Floors::default() };
    let world = World::new(2 << 20, 0);
    let settings = Settings { floors, ..patient() };
    let (mut one, mut two) = world.connect(&settings);
    let error = one.expect_to_send(7, 100_000).unwrap_err();
    assert_eq!(error.fault(), Fault::TryAgain);
    thread::scope(|scope| {
        scope.spawn(|| while two.receive().is_ok_and(|message| message.is_some()) {});
        while one.send(1, &[1; 10_000]).is_ok() {}
        let left = world.hospital.level(&site("tommo")).unwrap().outgoing.remaining.0;
        assert!((364_000..400_000).contains(&left), "{left}");
        one.prioritise(Priority::Restore);
        for _ in 0..20 {
            one.send(1, &[1; 10_000]).unwrap();
        }
        while one.send(1, &[1; 10_000]).is_ok() {}
        drop(one);
    });
    let (mut three, mut four) = world.connect(&settings);
    three.send(1, b"a few words").unwrap();
    assert!(four.receive().unwrap().is_some());
}

#[test]
fn a_conference_without_key_goes_mute_and_nothing_is_sent() {
    let world = World::new(2 * 200 * 1024, 8 * 40960);
    let (mut one, mut two) = world.connect(&patient());
    thread::scope(|scope| {
        let heard = scope.spawn(|| {
            let mut heard = 0;
            while two.receive().unwrap().is_some() {
                heard += 1;
            }
            heard
        });
        let mut sent = 0;
        while one.send_or_mute(1, &[3; 2000]).unwrap() == Outcome::Sent {
            sent += 1;
        }
        let frames = one.statistics().sent.frames;
        assert_eq!(one.send_or_mute(1, &[3; 2000]).unwrap(), Outcome::Muted);
        assert_eq!(one.statistics().sent.frames, frames);
        world.clock.advance(Duration::from_secs(10));
        assert_eq!(one.send_or_mute(1, &[3; 2000]).unwrap(), Outcome::Sent, "it speaks again");
        one.close().unwrap();
        assert!(sent > 10);
        assert_eq!(heard.join().unwrap(), sent + 1);
    });
}

#[test]
fn a_site_that_just_leaves_is_told_from_one_that_is_done() {
    let world = World::new(1 << 20, 0);
    let (mut one, mut two) = world.connect(&patient());
    one.send(1, b"first").unwrap();
    drop(one);
    assert!(two.receive().unwrap().is_some());
    let error = two.receive().err().unwrap();
    assert!(matches!(&error, Error::CutOff { address } if address.contains("127.0.0.1")));
    assert_eq!(error.fault(), Fault::Unavailable);
}

#[test]
fn strangers_are_refused_with_a_reason() {
    let world = World::new(1 << 20, 0);
    let error = world.called_by(&patient(), |mut stream| {
        stream.write_all(&[b'G'; 4096]).unwrap();
    });
    assert!(matches!(&error, Error::Session { source: otp::Error::Foreign { .. }, .. }));
    assert_eq!(error.fault(), Fault::Data);

    let told = Mutex::new(None);
    let greet = |from: &str, to: &str, cipher: Cipher| Hello {
        cipher,
        from: site(from),
        to: site(to),
        nonce: [0; 16],
        sender_mark: 0,
        follower_mark: 0,
        greetings: Vec::new(),
    };
    for (hello, expected) in [
        (greet("mallory", "tommo", Cipher::Otp), Refusal::UnknownPeer),
        (greet("hospital", "elsewhere", Cipher::Otp), Refusal::NotAddressed),
        (greet("hospital", "tommo", Cipher::Plain), Refusal::Cipher),
    ] {
        let error = world.called_by(&patient(), |mut stream| {
            stream.write_all(&hello.encode()).unwrap();
            let mut answer = [0; HELLO_BYTES];
            stream.read_exact(&mut answer).unwrap();
            *told.lock().unwrap() = Hello::decode(&answer).err();
        });
        assert_eq!(error.fault(), Fault::Refused, "{error}");
        let told = told.lock().unwrap().take();
        assert!(matches!(told, Some(otp::Error::RefusedByPeer { reason }) if reason == expected));
    }
    assert_eq!(world.tommo.level(&site("hospital")).unwrap().outgoing.spent.0, 0);
}

#[test]
fn a_caller_without_the_keys_gets_nothing_and_costs_nothing() {
    let (world, other) = (World::new(1 << 20, 0), World::new(1 << 20, 0));
    let listener = Listener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_address().to_string();
    thread::scope(|scope| {
        // Same names, other keys.
        scope.spawn(|| {
            assert!(dial(&address, &site("tommo"), &other.hospital, &patient()).is_err());
        });
        let called = listener.accept().unwrap().handshake(&world.tommo, &patient());
        assert_eq!(called.err().unwrap().fault(), Fault::Integrity);
    });
    let level = world.tommo.level(&site("hospital")).unwrap();
    assert_eq!((level.outgoing.spent.0, level.incoming.spent.0), (0, 0));
}

#[test]
fn slow_and_lying_peers_are_given_up() {
    let world = World::new(4 << 20, 0);
    let error = world.called_by(&quick(), |mut stream| {
        for byte in [0u8; 40] {
            if stream.write_all(&[byte]).is_err() {
                break;
            }
            thread::sleep(Duration::from_millis(25));
        }
        // It would go on for ever; the other end has long gone.
    });
    assert!(matches!(&error, Error::Slow { .. }), "{error}");
    assert_eq!(error.fault(), Fault::Unavailable);

    let error = world.called_by(&quick(), drop);
    assert_eq!(error.fault(), Fault::Unavailable);

    // After an honest beginning: a header that announces 4 GiB.
    let (one, mut two) = world.connect(&patient());
    let mut raw = one.clone_stream();
    let mut header = [0; 48];
    header[..5].copy_from_slice(b"DSG\x01\x02");
    header[12..16].copy_from_slice(&u32::MAX.to_le_bytes());
    header[16] = 1;
    raw.write_all(&header).unwrap();
    let error = two.receive().err().unwrap();
    assert!(matches!(&error, Error::Session { source: otp::Error::TooLong { .. }, .. }), "{error}");
}

#[test]
fn unknown_and_silent_addresses_are_unavailable() {
    let world = World::new(1 << 20, 0);
    let listener = Listener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_address().to_string();
    drop(listener);
    let error = dial(&address, &site("tommo"), &world.hospital, &quick()).err().unwrap();
    assert_eq!(error.fault(), Fault::Unavailable);
    assert!(error.to_string().contains(&address));
    let error = dial(&address, &site("mars"), &world.hospital, &quick()).err().unwrap();
    assert!(matches!(error.fault(), Fault::Unavailable | Fault::Config));
}

#[test]
fn a_closed_listener_wakes_up() {
    let listener = Listener::bind("0.0.0.0:0").unwrap();
    let closer = listener.closer();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| listener.accept().err().unwrap());
        closer.close();
        assert!(matches!(waiting.join().unwrap(), Error::ListenerClosed { .. }));
    });
    assert!(listener.accept().is_err());
}

#[test]
fn chunks_are_received_into_recycled_memory() {
    let world = World::new(64 << 20, 0);
    let (mut one, mut two) = world.connect(&Settings { chunks: 1, ..patient() });
    thread::scope(|scope| {
        scope.spawn(|| {
            for seq in 0..8 {
                one.send_chunk(seq, Chunk::from_bytes(0, &[seq as u8; 1 << 20])).unwrap();
            }
        });
        // More held at once than there are chunks: no waiting, memory of their own.
        let held: Vec<_> = (0..8).map(|_| two.receive().unwrap().unwrap()).collect();
        assert!(held.iter().all(|message| message.payload[77] == message.kind as u8));
        assert!(
            held.iter().all(|message| (message.payload.as_ptr() as usize).is_multiple_of(4096))
        );
    });
}

#[test]
fn aes_is_used_where_both_ends_say_so_and_is_called_computational() {
    let world = World::new(64 << 20, 0);
    let aes = Settings { cipher: Cipher::Aes256Gcm, ..patient() };
    let permitting = Settings { permit_aes: true, ..patient() };
    for listening in [&aes, &permitting] {
        let (mut one, mut two) = world.connect_as(&aes, listening);
        assert_eq!((one.cipher(), two.cipher()), (Cipher::Aes256Gcm, Cipher::Aes256Gcm));
        let before = one.statistics().sent.key_bytes;
        for size in [0usize, 1, 70_000, 1 << 20] {
            let text: Vec<u8> = (0..size).map(|n| (n * 5 / 3) as u8).collect();
            one.send(3, &text).unwrap();
            let message = two.receive().unwrap().unwrap();
            assert!(message.kind == 3 && message.payload[..] == text[..]);
            two.send(4, &text).unwrap();
            assert!(one.receive().unwrap().unwrap().payload[..] == text[..]);
        }
        assert_eq!(one.statistics().sent.key_bytes - before, 32, "one key for all of it");
        // The session's own frames and pads that are payload are still of the pad.
        let pad = one.send_keyed(9, 1000).unwrap();
        assert!(two.receive().unwrap().unwrap().payload[..] == pad[..]);
        assert_eq!(one.statistics().sent.key_bytes - before, 32 + 16 + 1008);
        let traffic = Traffic::default();
        drop(one.counted_in(traffic.clone()));
        let carried = traffic.by_peer()[&site("tommo")];
        assert!(carried.computational_bytes > 1 << 20);
    }
}

#[test]
fn nothing_chooses_aes_by_itself() {
    let world = World::new(64 << 20, 0);
    let aes = Settings { cipher: Cipher::Aes256Gcm, ..patient() };
    let permitting = Settings { permit_aes: true, ..patient() };
    // Who asks for the pad gets the pad, whatever else would be permitted.
    for listening in [&aes, &permitting, &patient()] {
        let (mut one, mut two) = world.connect_as(&patient(), listening);
        one.send(1, &[7; 500]).unwrap();
        two.receive().unwrap().unwrap();
        assert_eq!((one.cipher(), two.cipher()), (Cipher::Otp, Cipher::Otp));
        assert!(one.statistics().sent.key_bytes > 500);
    }
    // Who asks for it without leave is refused.
    let listener = Listener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_address().to_string();
    thread::scope(|scope| {
        scope.spawn(|| listener.accept().unwrap().handshake(&world.tommo, &patient()).err());
        let error = dial(&address, &site("tommo"), &world.hospital, &aes).err().unwrap();
        assert_eq!(error.fault(), Fault::Refused, "{error}");
    });
    // Nor when the keys run out: it waits, and then it fails.
    let world = World::new(2 * 36 * 1024, 0);
    let (mut one, _two) = world.connect_as(&patient(), &permitting);
    assert_eq!(one.send(1, &[0; 10_000]).unwrap_err().fault(), Fault::TryAgain);
    assert_eq!(one.cipher(), Cipher::Otp);
}

#[test]
fn a_changed_frame_under_aes_ends_the_session() {
    let world = World::new(64 << 20, 0);
    let aes = Settings { cipher: Cipher::Aes256Gcm, ..patient() };
    for at in [0, 5, 12, 24, 48, 60, 48 + 100] {
        let (mut one, mut two) = world.connect_as(&aes, &aes);
        one.send(1, &[7; 100]).unwrap();
        two.receive().unwrap().unwrap();
        let mut payload = vec![7; 100];
        let mut frame = one.sealed_frame(1, &mut payload);
        frame[at] ^= 4;
        let mut raw = one.clone_stream();
        raw.write_all(&frame).unwrap();
        // Enough for whatever length the header may announce now.
        raw.write_all(&[0; 4096]).unwrap();
        let error = two.receive().err().unwrap();
        assert!(matches!(error.fault(), Fault::Integrity | Fault::Data), "byte {at}: {error}");
        assert!(two.receive().is_err());
    }
}
