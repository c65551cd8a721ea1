//! Reads laid on a reference as words: `ungapped.cu`, `ungapped.wgsl`.

use crate::device::lane::Function;
use crate::device::table::{Genome, Resident};
use crate::kernel::align::Scores;
use crate::kernel::pack::{ReadWord, WORD_BASES};
use crate::kernel::ungapped::{Job, Segment, WORDS_MAX, scalar};

use super::{Batch, Jobs, Need};

/// Reads to be laid.
pub(in crate::device) struct Extensions<'a> {
    pub(in crate::device) genome: &'a Genome,
    pub(in crate::device) reads: &'a [ReadWord],
    pub(in crate::device) jobs: &'a [Job],
    pub(in crate::device) scores: &'a Scores,
}

impl Jobs for Extensions<'_> {
    type Output = Segment;
    const FUNCTION: Function = Function::Ungapped;
    const HEADER_WORDS: usize = 8;
    const ENTRY_WORDS: usize = 4;

    fn count(&self) -> usize {
        self.jobs.len()
    }

    fn result_words(&self) -> usize {
        4
    }

    fn part(&self, job: usize) -> usize {
        self.genome.part_of(self.jobs[job].position)
    }

    fn header(&self, part: usize) -> Vec<u32> {
        let Scores { matched, mismatch, clip, .. } = *self.scores;
        let scores = [matched, mismatch, clip].map(|score| i32::from(score) as u32);
        let words = self.genome.words().len() as u32;
        [&[words], &scores[..], &[self.genome.part(part).1 as u32]].concat()
    }

    fn table(&self, part: usize) -> Option<&Resident> {
        Some(self.genome.part(part).0)
    }

    fn add(&self, job: usize, batch: &mut Batch) -> Option<Need> {
        let Job { first, length, position } = self.jobs[job];
        let count = (length as usize).div_ceil(WORD_BASES);
        assert!(count <= WORDS_MAX, "a read has no more words");
        let words = &self.reads[first as usize..first as usize + count];
        // Several places of one read share its words.
        let words: &[u32] = bytemuck::cast_slice(words);
        let at = batch.place((first as usize, count), words.iter().copied());
        batch.enter(&[at, length, position, 0]);
        Some(Need::default())
    }

    fn result(&self, _: usize, words: &[u32]) -> Option<Segment> {
        let &[score, start, end, crowded] = words.first_chunk()?;
        Some(Segment { score: score as i32, start, end, crowded: crowded != 0 })
    }

    fn on_cpu(&self, job: usize) -> Segment {
        let mut segments = Vec::new();
        let job = std::slice::from_ref(&self.jobs[job]);
        scalar(self.genome.words(), self.reads, job, self.scores, &mut segments);
        segments[0]
    }
}
