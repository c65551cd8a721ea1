//! Banded affine-gap alignment of a read to a reference window, ends free to be clipped.
//!
//! A state is (`i` query bases used, diagonal `d`): `i + d` target bases lie before it. A match or
//! mismatch keeps the diagonal, an insertion goes to `d - 1`, a deletion to `d + 1`. An alignment
//! may start in any state: free when `i` is 0, at the price of a clip otherwise; its end likewise.
//! Source: Gotoh 1982, "An improved algorithm for matching biological sequences"; the scores and
//! the price of a clip are those of Li 2013, arXiv:1303.3997.

/// Points of an alignment; penalties are positive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scores {
    /// Two equal bases.
    pub matched: i16,
    /// Two different bases, or one that is not A, C, G or T.
    pub mismatch: i16,
    /// A gap, besides its length.
    pub gap_open: i16,
    /// Each base of a gap.
    pub gap_extend: i16,
    /// Each end at which query bases are left out.
    pub clip: i16,
}

impl Default for Scores {
    fn default() -> Self {
        Self { matched: 1, mismatch: 4, gap_open: 6, gap_extend: 1, clip: 5 }
    }
}

/// What a run of alignment columns holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Query base against target base, equal or not.
    Match,
    /// Query base against nothing.
    Insertion,
    /// Target base against nothing.
    Deletion,
}

/// A query and the window it is aligned to: one of a batch.
#[derive(Clone, Copy, Debug)]
pub struct Pair<'a> {
    /// Base codes, 0 to 3 for A, C, G, T; others are unknown.
    pub query: &'a [u8],
    /// Likewise.
    pub target: &'a [u8],
}

/// The best alignment of a query to a window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Points.
    pub score: i32,
    /// First query base used.
    pub query_start: usize,
    /// One past the last query base used.
    pub query_end: usize,
    /// First target base used.
    pub target_start: usize,
    /// The columns from left to right; neighbours differ in their step.
    pub runs: Vec<(Step, u32)>,
}

/// The best scores of all states: row `i` has one entry per diagonal.
#[derive(Debug, Default)]
pub struct Matrix {
    /// Rows after each other, `width` entries each.
    pub cells: Vec<i16>,
    /// Number of diagonals.
    pub width: usize,
}

/// Longest query: scores stay within 16 bits.
pub const QUERY_BASES_MAX: usize = 4096;

/// Fewer points than any alignment can have, with room to subtract from.
pub const NEVER: i16 = -20_000;

/// Aligns `query` to `target`; both hold base codes, 0 to 3 for A, C, G, T.
///
/// The band is all that the window allows: `target.len() - query.len() + 1` diagonals. Of equally
/// good alignments the one that reaches furthest right wins, then the lowest diagonal, then gaps
/// as far left as they can be. `None` when the query is empty or too long, or the window shorter.
pub fn scalar(
    query: &[u8],
    target: &[u8],
    scores: &Scores,
    matrix: &mut Matrix,
) -> Option<Placement> {
    width(query, target)?;
    fill(query, target, scores, matrix);
    Some(trace(query, target, scores, matrix))
}

/// Number of diagonals of the band, when the lengths allow an alignment.
pub fn width(query: &[u8], target: &[u8]) -> Option<usize> {
    let fits = (1..=QUERY_BASES_MAX).contains(&query.len()) && target.len() >= query.len();
    fits.then(|| target.len() - query.len() + 1)
}

/// Computes the best score of every state: the part that other forms of this kernel replace.
pub fn fill(query: &[u8], target: &[u8], scores: &Scores, matrix: &mut Matrix) {
    let width = target.len() - query.len() + 1;
    let open = scores.gap_open + scores.gap_extend;
    matrix.width = width;
    matrix.cells.clear();
    matrix.cells.resize((query.len() + 1) * width, 0);
    let mut insertions = vec![NEVER; width + 1];
    for (row, &base) in (1..).zip(query) {
        let (above, here) = matrix.cells[(row - 1) * width..].split_at_mut(width);
        let mut deletion = NEVER;
        for d in 0..width {
            let from_above = if d + 1 < width { above[d + 1] } else { NEVER };
            let insertion = (from_above - open).max(insertions[d + 1] - scores.gap_extend);
            insertions[d] = insertion;
            let best = (above[d] + points(base, target[row - 1 + d], scores))
                .max(insertion)
                .max(deletion)
                .max(-scores.clip);
            here[d] = best;
            deletion = (best - open).max(deletion - scores.gap_extend);
        }
    }
}

#[inline]
fn points(query: u8, target: u8, scores: &Scores) -> i16 {
    if query == target && query < 4 { scores.matched } else { -scores.mismatch }
}

/// Follows the best alignment back through a filled matrix.
pub fn trace(query: &[u8], target: &[u8], scores: &Scores, matrix: &Matrix) -> Placement {
    let width = matrix.width;
    let at = |row: usize, d: usize| i32::from(matrix.cells[row * width + d]);
    let (score, query_end, mut d) = best_end(query.len(), scores, matrix);
    let mut row = query_end;
    let mut runs: Vec<(Step, u32)> = Vec::new();
    let mut add = |step, count: usize| match runs.last_mut() {
        Some(last) if last.0 == step => last.1 += count as u32,
        _ => runs.push((step, count as u32)),
    };
    loop {
        let here = at(row, d);
        if row == 0 {
            break;
        }
        let matched = i32::from(points(query[row - 1], target[row - 1 + d], scores));
        if at(row - 1, d) + matched == here {
            row -= 1;
            add(Step::Match, 1);
        } else if here == -i32::from(scores.clip) {
            break;
        } else {
            let gap = |count: usize| {
                i32::from(scores.gap_open) + count as i32 * i32::from(scores.gap_extend)
            };
            if let Some(count) = (1..=d).find(|&count| at(row, d - count) - gap(count) == here) {
                d -= count;
                add(Step::Deletion, count);
                continue;
            }
            let most = row.min(width - 1 - d);
            let count = (1..=most)
                .find(|&count| at(row - count, d + count) - gap(count) == here)
                .expect("every score has a state that it came from");
            row -= count;
            d += count;
            add(Step::Insertion, count);
        }
    }
    runs.reverse();
    Placement { score, query_start: row, query_end, target_start: row + d, runs }
}

fn best_end(length: usize, scores: &Scores, matrix: &Matrix) -> (i32, usize, usize) {
    let mut best = (i32::MIN, 0, 0);
    for row in (0..=length).rev() {
        let clip = if row == length { 0 } else { i32::from(scores.clip) };
        let cells = &matrix.cells[row * matrix.width..(row + 1) * matrix.width];
        let top = cells.iter().copied().max().map_or(i32::MIN, i32::from);
        if top - clip > best.0 {
            let d = cells.iter().position(|&cell| i32::from(cell) == top).unwrap_or(0);
            best = (top - clip, row, d);
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Points of a placement, counted column by column.
    fn recount(query: &[u8], target: &[u8], scores: &Scores, placement: &Placement) -> i32 {
        let (mut q, mut t) = (placement.query_start, placement.target_start);
        let mut total = 0;
        if q > 0 {
            total -= i32::from(scores.clip);
        }
        for &(step, count) in &placement.runs {
            let gap = i32::from(scores.gap_open) + count as i32 * i32::from(scores.gap_extend);
            match step {
                Step::Match => {
                    for _ in 0..count {
                        total += i32::from(points(query[q], target[t], scores));
                        (q, t) = (q + 1, t + 1);
                    }
                }
                Step::Insertion => {
                    total -= gap;
                    q += count as usize;
                }
                Step::Deletion => {
                    total -= gap;
                    t += count as usize;
                }
            }
        }
        assert_eq!(q, placement.query_end);
        if q < query.len() { total - i32::from(scores.clip) } else { total }
    }

    /// Gotoh's recurrences over the whole rectangle, restricted to the band's states.
    fn plain_gotoh(query: &[u8], target: &[u8], scores: &Scores) -> i32 {
        let (rows, columns) = (query.len(), target.len());
        let never = -1_000_000;
        let open = i32::from(scores.gap_open + scores.gap_extend);
        let extend = i32::from(scores.gap_extend);
        let mut h = vec![vec![never; columns + 1]; rows + 1];
        let (mut e, mut f) = (h.clone(), h.clone());
        let mut best = never;
        for i in 0..=rows {
            for j in i..=(columns - (rows - i)) {
                let start = if i == 0 { 0 } else { -i32::from(scores.clip) };
                let mut here = start;
                if i > 0 && j > 0 {
                    let matched = points(query[i - 1], target[j - 1], scores);
                    here = here.max(h[i - 1][j - 1] + i32::from(matched));
                }
                if i > 0 {
                    e[i][j] = (h[i - 1][j] - open).max(e[i - 1][j] - extend);
                }
                if j > 0 {
                    f[i][j] = (h[i][j - 1] - open).max(f[i][j - 1] - extend);
                }
                h[i][j] = here.max(e[i][j]).max(f[i][j]);
                let clip = if i == rows { 0 } else { i32::from(scores.clip) };
                best = best.max(h[i][j] - clip);
            }
        }
        best
    }

    fn related() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
        let bases = |range| proptest::collection::vec(0u8..5, range);
        (bases(40..90), 0usize..12, 0usize..10, 0usize..10, bases(0..6)).prop_map(
            |(target, start, gap, width, inserted)| {
                let middle = (start + 12).min(target.len());
                let after = (middle + gap).min(target.len());
                let mut query = target[start..middle].to_vec();
                query.extend(&inserted);
                query.extend(&target[after..target.len().saturating_sub(width).max(after)]);
                query.truncate(target.len());
                (query, target)
            },
        )
    }

    proptest! {
        #[test]
        fn the_score_is_that_of_plain_gotoh_and_of_its_own_columns((query, target) in related()) {
            let scores = Scores::default();
            let placement = scalar(&query, &target, &scores, &mut Matrix::default()).unwrap();
            prop_assert_eq!(placement.score, plain_gotoh(&query, &target, &scores));
            if placement.score > 0 {
                prop_assert_eq!(placement.score, recount(&query, &target, &scores, &placement));
            }
        }
    }

    fn codes(text: &str) -> Vec<u8> {
        text.bytes()
            .map(|letter| b"ACGT".iter().position(|&b| b == letter).unwrap() as u8)
            .collect()
    }

    #[test]
    fn a_deletion_in_a_repeat_is_placed_leftmost() {
        let target = codes("GATTACAGGCTTTTTTTTGACCTAGGATCCAAGT");
        let query = codes("GATTACAGGCTTTTTGACCTAGGATCCAAGT");
        let placement =
            scalar(&query, &target, &Scores::default(), &mut Matrix::default()).unwrap();
        use Step::{Deletion, Match};
        assert_eq!(placement.runs, [(Match, 10), (Deletion, 3), (Match, 21)]);
        assert_eq!((placement.score, placement.target_start), (31 - 9, 0));
    }

    #[test]
    fn foreign_ends_are_clipped() {
        let target = codes("GATTACAGGCATCGTTGACCTAGGATCCAAGTAC");
        let query = codes("TTTTTTTTCATCGTTGACCTAGGATCCA");
        let placement =
            scalar(&query, &target, &Scores::default(), &mut Matrix::default()).unwrap();
        assert_eq!((placement.query_start, placement.query_end), (8, 28));
        assert_eq!((placement.score, placement.target_start), (15, 9));
    }

    #[test]
    fn lengths_that_allow_no_alignment_are_refused() {
        let scores = Scores::default();
        let mut matrix = Matrix::default();
        assert!(scalar(&[], &[0], &scores, &mut matrix).is_none());
        assert!(scalar(&[0, 1], &[0], &scores, &mut matrix).is_none());
        assert!(scalar(&[0; 5000], &[0; 5000], &scores, &mut matrix).is_none());
    }
}
