//! A VCF from anybody through the disclosure filter: no panic, and no record outside the right.

#![no_main]

#[path = "../checks/filter.rs"]
mod check;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    check::check(input);
});
