//! Compressed bytes from anybody: no panic, and the same text or error in pieces of any size.

#![no_main]

#[path = "../checks/inflate.rs"]
mod check;

libfuzzer_sys::fuzz_target!(|input: (u8, &[u8])| {
    check::check(input);
});
