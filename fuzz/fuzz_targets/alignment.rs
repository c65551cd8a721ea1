//! BAM and CRAM from anybody: no panic.

#![no_main]

#[path = "../checks/alignment.rs"]
mod check;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    check::check(input);
});
