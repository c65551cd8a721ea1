//! An index file from anybody: no panic, and none that was changed is taken.

#![no_main]

#[path = "../checks/index.rs"]
mod check;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let _ = check::check(input);
});
