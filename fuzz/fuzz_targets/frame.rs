//! Greetings, frames and packets from anybody: no panic, nothing delivered, no key consumed.

#![no_main]

use dsgd::otp::memory::MemoryStream;
use dsgd::otp::packet::{Grant, Headers, PacketOpener, Shape};
use dsgd::otp::{Cipher, Follow, Header, Hello, Spend};
use dsgd::key::StreamId;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Some(header) = bytes.first_chunk() {
        let _ = Header::decode(header).map(|header| header.encode());
    }
    if let Some(hello) = bytes.first_chunk() {
        let _ = Hello::decode(hello);
    }
    let id = StreamId {
        sender: "a".parse().expect("a name"),
        receiver: "b".parse().expect("a name"),
    };
    for headers in [Headers::Clear, Headers::Hidden] {
        for cipher in [Cipher::Otp, Cipher::Aes256Gcm] {
            let shape = Shape::within(200, headers, cipher, 0).expect("there is room");
            if let Some(head) = bytes.first_chunk() {
                let _ = shape.record_bytes(head);
            }
            let mut stream = MemoryStream::new(id.clone(), 1, 1000, 1000);
            let range = stream.take(16 * 64).expect("there is key").range();
            let lease = stream.fetch(range).expect("there is key");
            let mut opener = PacketOpener::new(shape, 1 << 20);
            opener.add(Grant { lease, first: range.position });
            let mut packet = bytes.to_vec();
            assert!(opener.open(&mut packet).is_err());
            assert_eq!(opener.traffic().key_bytes, 0);
        }
    }
});
