//! Greetings, openings, frames and packets from anybody: no panic, what is read is what was sent,
//! nothing is delivered and no key consumed.

#![no_main]

use dsgd::key::StreamId;
use dsgd::otp::memory::MemoryStream;
use dsgd::otp::opening::Opening;
use dsgd::otp::packet::{Grant, Headers, PacketOpener, Shape};
use dsgd::otp::{Cipher, Follow, HEADER_BYTES, HELLO_BYTES, Header, Hello, Spend};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Some(header) = bytes.first_chunk::<HEADER_BYTES>() {
        if let Ok(read) = Header::decode(header) {
            assert_eq!(read.encode(), *header);
            assert!(read.key_range().end() >= read.position);
            let _ = (read.ciphertext_bytes(), read.reservation());
        }
        if let Ok(read) = Opening::decode(header) {
            assert_eq!(read.encode(), *header);
        }
    }
    if let Some(hello) = bytes.first_chunk::<HELLO_BYTES>()
        && let Ok(read) = Hello::decode(hello)
    {
        assert_eq!(read.encode(), *hello);
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
