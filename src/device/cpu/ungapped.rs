//! Mismatch counts with the processor's own population count.
#![allow(unsafe_code)]

use crate::kernel::ungapped::{GenomeWord, Laid, Mismatches, scalar};

/// Marks where each read differs, as [`scalar`] does.
pub fn ungapped(genome: &[GenomeWord], laid: &[Laid<'_>]) -> Vec<Mismatches> {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "popcnt,avx2,bmi2")]
        fn popcnt(genome: &[GenomeWord], laid: &[Laid<'_>]) -> Vec<Mismatches> {
            one_by_one(genome, laid)
        }
        let has = [
            is_x86_feature_detected!("popcnt"),
            is_x86_feature_detected!("avx2"),
            is_x86_feature_detected!("bmi2"),
        ];
        if has == [true; 3] {
            // SAFETY: the processor has these instructions, as asked just now.
            return unsafe { popcnt(genome, laid) };
        }
    }
    one_by_one(genome, laid)
}

#[inline(always)]
fn one_by_one(genome: &[GenomeWord], laid: &[Laid<'_>]) -> Vec<Mismatches> {
    let compare = |laid: &Laid<'_>| {
        let mut marks = vec![0; laid.read.len()];
        let count = scalar(genome, *laid, &mut marks);
        Mismatches { count, marks }
    };
    laid.iter().map(compare).collect()
}
