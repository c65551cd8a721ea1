//! BAM and CRAM from anybody: no panic.

#![no_main]

use std::sync::Arc;

use dsgd::genome::Reference;
use dsgd::genome::alignment::AlignmentReads;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|file: &[u8]| {
    let count = |reads: AlignmentReads<'_>| reads.waiting_bytes_max(1 << 20).count();
    let _ = AlignmentReads::bam(file, "fuzz").map(count);
    let _ = AlignmentReads::cram(file, "fuzz", Arc::new(Reference::default())).map(count);
});
