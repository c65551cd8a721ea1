//! Reads on haplotypes as words: `pairhmm.cu`, `pairhmm.wgsl`, `hls/pairhmm`.

use crate::device::lane::Function;
use crate::kernel::pairhmm::{
    Batch as Wanted, HaplotypePart, Job, LIMIT_MAX, NEVER, OUTSIDE, QUALITY_MAX, Rows, width,
};

use super::{Batch, Jobs, Need, bases, pair};

/// The penalties that are wanted.
pub(in crate::device) struct Penalties<'a> {
    pub(in crate::device) batch: &'a Wanted<'a>,
}

/// A base a word: its code, the opening of a gap in 14 bits, its extension in 14.
fn haplotype_words(haplotype: HaplotypePart<'_>) -> impl Iterator<Item = u32> + '_ {
    let gaps = haplotype.gap_open.iter().zip(haplotype.gap_extend);
    haplotype.bases.iter().zip(gaps).map(|(&base, (&open, &extend))| {
        u32::from(base.min(OUTSIDE)) | u32::from(open as u16) << 3 | u32::from(extend as u16) << 17
    })
}

fn fits(haplotype: HaplotypePart<'_>) -> bool {
    let gaps = haplotype.gap_open.iter().chain(haplotype.gap_extend);
    gaps.copied().all(|gap| (0..=NEVER).contains(&gap))
}

impl Jobs for Penalties<'_> {
    type Output = i32;
    const FUNCTION: Function = Function::Pairhmm;
    const HEADER_WORDS: usize = 64;
    const ENTRY_WORDS: usize = 8;

    fn count(&self) -> usize {
        self.batch.jobs.len()
    }

    fn result_words(&self) -> usize {
        1
    }

    fn weight(&self, job: usize) -> usize {
        let Job { read, diagonals, .. } = self.batch.jobs[job];
        self.batch.reads[read].bases.len() << 32 | width(diagonals)
    }

    fn header(&self, _part: usize) -> Vec<u32> {
        self.batch.penalties.by_quality().map(|(agree, differ)| pair(agree, differ)).collect()
    }

    fn add(&self, job: usize, batch: &mut Batch) -> Option<Need> {
        let Job { read, haplotype, diagonals, limit } = self.batch.jobs[job];
        let (part, model) = (self.batch.reads[read], self.batch.haplotypes[haplotype]);
        if part.bases.is_empty() || part.bases.len() != part.qualities.len() || !fits(model) {
            return None;
        }
        let qualities: Vec<u8> = part.qualities.iter().map(|&q| q.min(QUALITY_MAX)).collect();
        let read_at = batch.place((0, read), bases(part.bases, &qualities));
        let haplotype_at = batch.place((1, haplotype), haplotype_words(model));
        let width = width(diagonals);
        batch.enter(&[
            read_at,
            part.bases.len() as u32,
            haplotype_at,
            model.bases.len() as u32,
            diagonals.0 as u32,
            width as u32,
            limit.min(LIMIT_MAX) as u32,
            0,
        ]);
        Some(Need::of_row(width))
    }

    fn result(&self, _: usize, words: &[u32]) -> Option<i32> {
        // What an array gives for a band that is wider.
        Some(words[0] as i32).filter(|&penalty| penalty != i32::MIN)
    }

    fn on_cpu(&self, job: usize) -> i32 {
        self.batch.scalar(job, &mut Rows::default())
    }
}
