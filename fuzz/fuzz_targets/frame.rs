//! Frame headers, greetings and openings from anybody: no panic, and what is read is what was sent.

#![no_main]

use dsgd::otp::opening::Opening;
use dsgd::otp::{HEADER_BYTES, HELLO_BYTES, Header, Hello};
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
});
