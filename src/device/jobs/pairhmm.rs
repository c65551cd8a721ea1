//! Reads on haplotypes as words: `pairhmm.cu`, `pairhmm.wgsl`, `hls/pairhmm`.

use crate::device::lane::Function;
use crate::kernel::pairhmm::{
    Batch as Wanted, HaplotypePart, Job, LIMIT_MAX, NEVER, OUTSIDE, QUALITY_MAX, ReadPart, Rows,
    width,
};

use super::{Batch, Jobs, pair};

/// The penalties that are wanted.
pub(in crate::device) struct Penalties<'a> {
    pub(in crate::device) batch: &'a Wanted<'a>,
}

/// Two bases a word: code below, quality above.
fn read_words(read: ReadPart<'_>) -> impl Iterator<Item = u32> + '_ {
    let base =
        |(base, quality): (&u8, &u8)| u32::from(*base) | u32::from(*quality.min(&QUALITY_MAX)) << 8;
    let twos = read.bases.chunks(2).zip(read.qualities.chunks(2));
    twos.map(move |(bases, qualities)| {
        bases.iter().zip(qualities).map(base).rev().fold(0, |word, base| word << 16 | base)
    })
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
    const RESULT_WORDS: usize = 1;

    fn count(&self) -> usize {
        self.batch.jobs.len()
    }

    fn header(&self) -> Vec<u32> {
        self.batch.penalties.by_quality().map(|(agree, differ)| pair(agree, differ)).collect()
    }

    fn add(&self, job: usize, batch: &mut Batch) -> Option<usize> {
        let Job { read, haplotype, diagonals, limit } = self.batch.jobs[job];
        let (part, model) = (self.batch.reads[read], self.batch.haplotypes[haplotype]);
        if part.bases.is_empty() || part.bases.len() != part.qualities.len() || !fits(model) {
            return None;
        }
        let read_at = batch.place(2 * read, read_words(part));
        let haplotype_at = batch.place(2 * haplotype + 1, haplotype_words(model));
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
        Some(width)
    }

    fn result(&self, _: usize, words: &[u32]) -> Option<i32> {
        Some(words[0] as i32)
    }

    fn on_cpu(&self, job: usize) -> i32 {
        self.batch.scalar(job, &mut Rows::default())
    }
}
