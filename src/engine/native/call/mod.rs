//! Calling: from ordered reads of one region to its variants.

use super::AlignedRead;
use crate::genome::{Reference, Variant};

/// Settings of the caller that change its answers; part of the provenance.
#[derive(Clone, Debug, PartialEq)]
pub struct CallSettings {
    /// Copies of each contig: 1 or 2.
    pub ploidy: u8,
}

/// Calls the variants whose position lies in `[start, end)` of `contig`.
///
/// `reads` are all reads that overlap the region widened by [`MARGIN`] bases on both sides, in
/// coordinate order, duplicates marked. The answer for a position depends on nothing else, so that
/// any cut of the genome into regions gives the same variants.
pub fn call_region(
    _reference: &Reference,
    _contig: u32,
    _start: u32,
    _end: u32,
    _reads: &[AlignedRead],
    _settings: &CallSettings,
) -> Vec<Variant> {
    Vec::new()
}

/// Bases beyond a region's ends that its calls may depend on.
pub const MARGIN: u32 = 1000;
