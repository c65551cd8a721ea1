//! BAM and CRAM from anybody: no panic.

use std::sync::Arc;

use dsgd::genome::Reference;
use dsgd::genome::alignment::AlignmentReads;

/// Reads a file as BAM and as CRAM.
pub fn check(file: &[u8]) {
    let count = |reads: AlignmentReads<'_>| reads.waiting_bytes_max(1 << 20).count();
    let _ = AlignmentReads::bam(file, "fuzz").map(count);
    let _ = AlignmentReads::cram(file, "fuzz", Arc::new(Reference::default())).map(count);
}
