//! Sequences side by side: one vector for each position, one sequence in each lane of it.

use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

use bytemuck::{Pod, Zeroable};

/// Memory of a cache line.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C, align(64))]
struct Line([u8; 64]);

/// Vectors that lie on borders of cache lines.
#[derive(Debug)]
pub(super) struct Vectors<T, const LANES: usize> {
    lines: Vec<Line>,
    of: PhantomData<T>,
}

impl<T, const LANES: usize> Default for Vectors<T, LANES> {
    fn default() -> Self {
        Self { lines: Vec::new(), of: PhantomData }
    }
}

impl<T: Pod, const LANES: usize> Vectors<T, LANES> {
    /// Has at least `count` vectors from now on; what they hold may be left from earlier use.
    pub(super) fn make_room(&mut self, count: usize) {
        let lines = (count * size_of::<[T; LANES]>()).div_ceil(size_of::<Line>());
        if self.lines.len() < lines {
            self.lines.resize(lines, Line([0; 64]));
        }
    }
}

impl<T: Pod, const LANES: usize> Deref for Vectors<T, LANES> {
    type Target = [[T; LANES]];

    #[inline(always)]
    fn deref(&self) -> &[[T; LANES]] {
        bytemuck::cast_slice(&self.lines)
    }
}

impl<T: Pod, const LANES: usize> DerefMut for Vectors<T, LANES> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [[T; LANES]] {
        bytemuck::cast_slice_mut(&mut self.lines)
    }
}

/// Positions and lanes of a block that is turned at once.
const SIDE: usize = 16;

/// Writes position `p` of sequence `l` to lane `l` of row `p`, with `filler` beyond the sequences' ends.
///
/// `LANES` is a multiple of sixteen; there are at most as many sequences.
#[inline(always)]
pub(super) fn transpose<S: Copy, T, const LANES: usize>(
    sequences: &[&[S]],
    filler: S,
    convert: impl Fn(S) -> T,
    rows: &mut [[T; LANES]],
) {
    const { assert!(LANES.is_multiple_of(SIDE)) };
    for first in (0..LANES).step_by(SIDE) {
        for (block, rows) in rows.chunks_mut(SIDE).enumerate() {
            let mut values = [[filler; SIDE]; SIDE];
            for (values, sequence) in values.iter_mut().zip(sequences.iter().skip(first)) {
                copy_part(sequence, block * SIDE, values);
            }
            let turned = turn(values);
            for (row, values) in rows.iter_mut().zip(&turned) {
                for lane in 0..SIDE {
                    row[first + lane] = convert(values[lane]);
                }
            }
        }
    }
}

/// Copies what the sequence has of `SIDE` values from `from` on.
#[inline(always)]
fn copy_part<S: Copy>(sequence: &[S], from: usize, values: &mut [S; SIDE]) {
    let rest = sequence.get(from..).unwrap_or(&[]);
    match rest.first_chunk() {
        Some(chunk) => *values = *chunk,
        None => values[..rest.len()].copy_from_slice(rest),
    }
}

/// Rows to columns: four rounds of interleaving the first half of all rows with the second.
#[inline(always)]
fn turn<S: Copy>(mut rows: [[S; SIDE]; SIDE]) -> [[S; SIDE]; SIDE] {
    const HALF: usize = SIDE / 2;
    for _ in 0..SIDE.ilog2() {
        let from = rows;
        for row in 0..HALF {
            for at in 0..HALF {
                rows[2 * row][2 * at] = from[row][at];
                rows[2 * row][2 * at + 1] = from[row + HALF][at];
                rows[2 * row + 1][2 * at] = from[row][HALF + at];
                rows[2 * row + 1][2 * at + 1] = from[row + HALF][HALF + at];
            }
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_in_its_row_and_lane() {
        let lengths: Vec<usize> = (0..29).map(|lane| lane * 7 % 60).collect();
        let sequences: Vec<Vec<u16>> = lengths
            .iter()
            .enumerate()
            .map(|(lane, &length)| (0..length).map(|at| (lane * 100 + at) as u16).collect())
            .collect();
        let slices: Vec<&[u16]> = sequences.iter().map(Vec::as_slice).collect();
        for length in [0, 1, 16, 45, 64] {
            let mut rows = vec![[7_u32; 32]; length];
            transpose(&slices, 9999, u32::from, &mut rows);
            for (position, row) in rows.iter().enumerate() {
                for (lane, &value) in row.iter().enumerate() {
                    let want = sequences.get(lane).and_then(|lane| lane.get(position));
                    assert_eq!(value, want.map_or(9999, |&value| u32::from(value)));
                }
            }
        }
    }
}
