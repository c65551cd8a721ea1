//! FASTA, VCF, BED and gene tables from anybody: no panic.

#![no_main]

#[path = "../checks/tables.rs"]
mod check;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    check::check(input);
});
