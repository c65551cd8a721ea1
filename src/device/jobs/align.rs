//! Alignments as words: `align.cu`, `align.wgsl`, `hls/align`.

use crate::device::cpu;
use crate::device::lane::Function;
use crate::kernel::align::{Matrix, Pair, Placement, Scores, Step, width};

use super::{Batch, Jobs, Need, nibbles};

/// Runs that a result has room for.
const RUNS_MAX: usize = 27;
/// Words of a result.
pub(super) const RESULT_WORDS: usize = 5 + RUNS_MAX;

/// Scores beyond these could leave 16 bits on the way.
const SCORE_MAX: i16 = 2000;

/// Pairs to be aligned.
pub(in crate::device) struct Alignments<'a> {
    pub(in crate::device) pairs: &'a [Pair<'a>],
    pub(in crate::device) scores: &'a Scores,
}

impl Alignments<'_> {
    /// Whether no score is negative or large.
    pub(super) fn scores_are_small(&self) -> bool {
        let Scores { matched, mismatch, gap_open, gap_extend, clip } = *self.scores;
        let all = [matched, mismatch, gap_open, gap_extend, clip];
        all.iter().all(|score| (0..=SCORE_MAX).contains(score))
    }

    fn scores_fit(&self, rows: usize) -> bool {
        self.scores_are_small() && rows * self.scores.matched as usize <= i16::MAX as usize
    }
}

impl Jobs for Alignments<'_> {
    type Output = Option<Placement>;
    const FUNCTION: Function = Function::Align;
    const HEADER_WORDS: usize = 8;
    const ENTRY_WORDS: usize = 4;

    fn count(&self) -> usize {
        self.pairs.len()
    }

    fn result_words(&self) -> usize {
        RESULT_WORDS
    }

    fn weight(&self, job: usize) -> usize {
        let Pair { query, target } = self.pairs[job];
        query.len() << 32 | target.len()
    }

    fn header(&self, _part: usize) -> Vec<u32> {
        let Scores { matched, mismatch, gap_open, gap_extend, clip } = *self.scores;
        [matched, mismatch, gap_open, gap_extend, clip].map(|score| i32::from(score) as u32).into()
    }

    fn add(&self, job: usize, batch: &mut Batch) -> Option<Need> {
        let Pair { query, target } = self.pairs[job];
        let width = width(query, target).filter(|_| self.scores_fit(query.len()))?;
        let query_at = batch.append(nibbles(query));
        let target_at = batch.append(nibbles(target));
        batch.enter(&[query_at, query.len() as u32, target_at, width as u32]);
        let directions = query.len() * width.div_ceil(8);
        Some(Need::of_row(width).and(directions))
    }

    fn result(&self, _: usize, words: &[u32]) -> Option<Self::Output> {
        let count = words[4] as usize;
        let runs = words[5..].get(..count)?.iter().rev();
        let step = |run: &u32| match run & 3 {
            0 => Step::Match,
            1 => Step::Insertion,
            _ => Step::Deletion,
        };
        Some(Some(Placement {
            score: words[0] as i32,
            query_start: words[1] as usize,
            query_end: words[2] as usize,
            target_start: words[3] as usize,
            runs: runs.map(|run| (step(run), run >> 2)).collect(),
        }))
    }

    fn on_cpu(&self, job: usize) -> Self::Output {
        let Pair { query, target } = self.pairs[job];
        let (matrix, rows) = (&mut Matrix::default(), &mut cpu::align::Rows::default());
        cpu::align::align(query, target, self.scores, matrix, rows)
    }
}
