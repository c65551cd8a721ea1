//! FASTQ from anybody: no panic, and the same reads or error however the bytes are handed over.

#![no_main]

#[path = "../checks/fastq.rs"]
mod check;

libfuzzer_sys::fuzz_target!(|input: (u8, bool, &[u8])| {
    check::check(input);
});
