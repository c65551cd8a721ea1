//! Banded affine-gap alignment, a row of diagonals at a time.
//!
//! Within a row only deletions depend on their neighbour. Their recurrence is a running maximum
//! (Gotoh's, with each state's score raised by its diagonal's gap extension), which is found in
//! log2(width) steps over whole rows; the rest of a row is independent and the compiler vectorises
//! it. The matrix is that of the scalar twin, cell for cell.
#![allow(unsafe_code)]

use crate::kernel::align::{Matrix, NEVER, Placement, Scores, scalar, trace, width};

use super::scores_fit;

/// Rows are worked in multiples of this many diagonals.
const LANES: usize = 32;

/// By how much scores can be raised without leaving 16 bits.
const RAISED_MAX: usize = 10_000;

/// Memory of the rows; kept from alignment to alignment.
#[derive(Debug, Default)]
pub struct Rows {
    target: Vec<i16>,
    above: Vec<i16>,
    here: Vec<i16>,
    insertions: Vec<i16>,
    scan: Vec<i16>,
    next: Vec<i16>,
}

/// As [`kernel::align::scalar`](crate::kernel::align::scalar).
pub fn align(
    query: &[u8],
    target: &[u8],
    scores: &Scores,
    matrix: &mut Matrix,
    rows: &mut Rows,
) -> Option<Placement> {
    let width = width(query, target)?;
    // Scores are raised by their diagonal's extension on the way.
    let raised = width.next_multiple_of(LANES) * usize::from(scores.gap_extend.unsigned_abs());
    if !scores_fit(scores, query.len()) || raised > RAISED_MAX {
        return scalar(query, target, scores, matrix);
    }
    fill(query, target, scores, matrix, rows);
    Some(trace(query, target, scores, matrix))
}

/// As [`kernel::align::fill`](crate::kernel::align::fill).
pub fn fill(query: &[u8], target: &[u8], scores: &Scores, matrix: &mut Matrix, rows: &mut Rows) {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
        fn avx512(q: &[u8], t: &[u8], s: &Scores, m: &mut Matrix, r: &mut Rows) {
            fill_by_rows(q, t, s, m, r);
        }
        #[target_feature(enable = "avx2")]
        fn avx2(q: &[u8], t: &[u8], s: &Scores, m: &mut Matrix, r: &mut Rows) {
            fill_by_rows(q, t, s, m, r);
        }
        if crate::device::cpu::has_avx512() {
            // SAFETY: the processor has these instructions, as asked just now.
            return unsafe { avx512(query, target, scores, matrix, rows) };
        }
        if is_x86_feature_detected!("avx2") {
            // SAFETY: the processor has these instructions, as asked just now.
            return unsafe { avx2(query, target, scores, matrix, rows) };
        }
    }
    fill_by_rows(query, target, scores, matrix, rows);
}

#[inline(always)]
fn fill_by_rows(
    query: &[u8],
    target: &[u8],
    scores: &Scores,
    matrix: &mut Matrix,
    rows: &mut Rows,
) {
    let width = target.len() - query.len() + 1;
    let padded = width.next_multiple_of(LANES);
    rows.prepare(target, padded);
    matrix.width = width;
    matrix.cells.clear();
    matrix.cells.reserve((query.len() + 1) * width);
    matrix.cells.resize(width, 0);
    rows.above[..width].fill(0);
    for (row, &base) in query.iter().enumerate() {
        // A query base that is unknown equals nothing; unknown target bases are -2.
        let base = if base < 4 { i16::from(base) } else { -1 };
        rows.states_without_deletions(row, base, padded, scores);
        rows.running_maximum(padded);
        rows.add_deletions(padded, scores);
        matrix.cells.extend_from_slice(&rows.here[..width]);
        // Diagonals beyond the band lead nowhere.
        rows.here[width..].fill(NEVER);
        rows.insertions[width..].fill(NEVER);
        std::mem::swap(&mut rows.above, &mut rows.here);
    }
}

impl Rows {
    fn prepare(&mut self, target: &[u8], padded: usize) {
        self.target.clear();
        let code = |&base: &u8| if base < 4 { i16::from(base) } else { -2 };
        self.target.extend(target.iter().map(code));
        self.target.resize(target.len() + padded, -2);
        for row in [&mut self.above, &mut self.here, &mut self.insertions] {
            row.clear();
            row.resize(padded + 1, NEVER);
        }
        // The running maximum looks back as far as a row is wide.
        for row in [&mut self.scan, &mut self.next] {
            row.clear();
            row.resize(2 * padded, NEVER);
        }
    }

    /// Scores of a row without deletions in `here`; raised by their diagonal in `scan`.
    #[inline(always)]
    fn states_without_deletions(&mut self, row: usize, base: i16, padded: usize, scores: &Scores) {
        let open = scores.gap_open + scores.gap_extend;
        let target = &self.target[row..row + padded];
        let (above, above_next) = (&self.above[..padded], &self.above[1..padded + 1]);
        let scan = &mut self.scan[padded..2 * padded];
        let here = &mut self.here[..padded];
        let insertions = &mut self.insertions[..padded + 1];
        for d in 0..padded {
            let points = if target[d] == base { scores.matched } else { -scores.mismatch };
            let insertion = (above_next[d] - open).max(insertions[d + 1] - scores.gap_extend);
            insertions[d] = insertion;
            let best = (above[d] + points).max(insertion).max(-scores.clip);
            here[d] = best;
            scan[d] = best + d as i16 * scores.gap_extend;
        }
    }

    /// Replaces each entry of `scan` by the maximum of itself and all before it.
    #[inline(always)]
    fn running_maximum(&mut self, padded: usize) {
        let mut step = 1;
        while step < padded {
            let (from, to) = (&self.scan[..2 * padded], &mut self.next[padded..2 * padded]);
            let (own, before) = (&from[padded..], &from[padded - step..2 * padded - step]);
            for d in 0..padded {
                to[d] = own[d].max(before[d]);
            }
            std::mem::swap(&mut self.scan, &mut self.next);
            step *= 2;
        }
    }

    #[inline(always)]
    fn add_deletions(&mut self, padded: usize, scores: &Scores) {
        let before = &self.scan[padded - 1..2 * padded - 1];
        let here = &mut self.here[..padded];
        for d in 0..padded {
            let deletion = before[d] - scores.gap_open - d as i16 * scores.gap_extend;
            here[d] = here[d].max(deletion);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::align as twin;
    use proptest::prelude::*;

    fn compare(query: &[u8], target: &[u8]) {
        let scores = Scores::default();
        let (mut own, mut expected) = (Matrix::default(), Matrix::default());
        let mut rows = Rows::default();
        // Memory that another alignment has used must not show.
        fill(&[1; 40], &[1; 90], &scores, &mut own, &mut rows);
        fill(query, target, &scores, &mut own, &mut rows);
        twin::fill(query, target, &scores, &mut expected);
        assert_eq!((own.width, &own.cells), (expected.width, &expected.cells));
        fill_by_rows(query, target, &scores, &mut own, &mut rows);
        assert_eq!(own.cells, expected.cells);
    }

    proptest! {
        #[test]
        fn every_cell_is_that_of_the_twin(
            target in proptest::collection::vec(0u8..5, 1..260),
            changes in proptest::collection::vec((0usize..260, 0u8..5, 0u8..3), 0..12),
            start in 0usize..80, end in 0usize..80,
        ) {
            let start = start.min(target.len() - 1);
            let end = target.len().saturating_sub(end).max(start + 1);
            let mut query = target[start..end].to_vec();
            for (at, base, kind) in changes {
                let at = at % query.len();
                match kind {
                    0 => query[at] = base,
                    1 if query.len() < target.len() => query.insert(at, base),
                    _ if query.len() > 1 => { query.remove(at); }
                    _ => {}
                }
            }
            compare(&query, &target);
        }
    }

    #[test]
    fn a_window_too_wide_for_16_bits_is_left_to_the_twin() {
        let target: Vec<u8> = (0..12_000u32).map(|i| (i * i / 7 % 4) as u8).collect();
        let (query, scores) = (&target[11_000..11_030], Scores::default());
        let (mut matrix, mut rows) = (Matrix::default(), Rows::default());
        let want = scalar(query, &target, &scores, &mut matrix);
        assert_eq!(align(query, &target, &scores, &mut matrix, &mut rows), want);
    }

    #[test]
    fn the_longest_query_is_that_of_the_twin() {
        let target: Vec<u8> = (0..4200u32).map(|i| (i * i / 7 % 4) as u8).collect();
        compare(&target[50..4146], &target);
    }
}
