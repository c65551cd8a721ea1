//! Sequences side by side: one vector for each position, one sequence in each lane of it.
#![allow(unsafe_code)]

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

/// A sequence, and which of its positions comes first; what lies outside it is filled.
pub(super) type Part<'a, S> = (&'a [S], isize);

/// Writes position `p` of part `l` to lane `l` of row `p`, with `filler` where the sequence has none.
///
/// There are at most `LANES` parts.
#[inline(always)]
pub(super) fn transpose_bytes<T, const LANES: usize>(
    parts: &[Part<'_, u8>],
    filler: u8,
    convert: impl Fn(u8) -> T,
    rows: &mut [[T; LANES]],
) {
    const SIDE: usize = 16;
    for first in (0..LANES).step_by(SIDE) {
        for (block, rows) in rows.chunks_mut(SIDE).enumerate() {
            let mut values = [[filler; SIDE]; SIDE];
            for (values, part) in values.iter_mut().zip(parts.iter().skip(first)) {
                copy_chunk(part, block * SIDE, values);
            }
            bytes::turn(&mut values);
            for (row, values) in rows.iter_mut().zip(&values) {
                for lane in 0..SIDE.min(LANES - first) {
                    row[first + lane] = convert(values[lane]);
                }
            }
        }
    }
}

/// As [`transpose_bytes`], of bytes or words to words. `LANES` is a multiple of eight.
#[inline(always)]
pub(super) fn transpose_words<S: Copy + Into<i16>, const LANES: usize>(
    parts: &[Part<'_, S>],
    filler: S,
    rows: &mut [[i16; LANES]],
) {
    let mut spare = [[0; LANES]; 8];
    for first in (0..LANES).step_by(8) {
        for (block, rows) in rows.chunks_mut(8).enumerate() {
            let mut values = [[filler.into(); 8]; 8];
            for (values, part) in values.iter_mut().zip(parts.iter().skip(first)) {
                let mut chunk = [filler; 8];
                copy_chunk(part, block * 8, &mut chunk);
                for at in 0..8 {
                    values[at] = chunk[at].into();
                }
            }
            match rows.as_mut_array() {
                Some(rows) => words::turn(&values, first, rows),
                None => {
                    words::turn(&values, first, &mut spare);
                    for (row, values) in rows.iter_mut().zip(&spare) {
                        row[first..first + 8].copy_from_slice(&values[first..first + 8]);
                    }
                }
            }
        }
    }
}

/// Copies what the part has from `position` on.
#[inline(always)]
fn copy_chunk<S: Copy, const SIDE: usize>(
    (sequence, begin): &Part<'_, S>,
    position: usize,
    chunk: &mut [S; SIDE],
) {
    let from = begin + position as isize;
    let begin = usize::try_from(from).unwrap_or(0).min(sequence.len());
    let before = usize::try_from(-from).unwrap_or(0).min(SIDE);
    match sequence[begin..].first_chunk() {
        Some(whole) if before == 0 => *chunk = *whole,
        _ => {
            let count = (SIDE - before).min(sequence.len() - begin);
            chunk[before..before + count].copy_from_slice(&sequence[begin..begin + count]);
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod bytes {
    //! With instructions that every processor of this kind has.
    use std::arch::x86_64::*;

    /// Makes columns of rows.
    #[inline(always)]
    pub(super) fn turn(values: &mut [[u8; 16]; 16]) {
        // SAFETY: SSE2 is there, and each load has as many values as a vector.
        let load = |row: usize| unsafe { _mm_loadu_si128(values[row].as_ptr().cast()) };
        let four = |row: usize| [load(row), load(row + 1), load(row + 2), load(row + 3)];
        let mut quarters = [four(0), four(4), four(8), four(12)];
        for _ in 0..4 {
            let [a, b, c, d] = quarters;
            let ([a, b], [c, d]) = (interleave(a, c), interleave(b, d));
            quarters = [a, b, c, d];
        }
        for (to, column) in values.iter_mut().zip(quarters.as_flattened()) {
            // SAFETY: as above, of a store.
            unsafe { _mm_storeu_si128(to.as_mut_ptr().cast(), *column) };
        }
    }

    /// The values of each vector in turn with those of its like among the others.
    #[inline(always)]
    fn interleave(one: [__m128i; 4], other: [__m128i; 4]) -> [[__m128i; 4]; 2] {
        // SAFETY: SSE2 is there.
        let low = |at: usize| unsafe { _mm_unpacklo_epi8(one[at], other[at]) };
        // SAFETY: as above.
        let high = |at: usize| unsafe { _mm_unpackhi_epi8(one[at], other[at]) };
        [[low(0), high(0), low(1), high(1)], [low(2), high(2), low(3), high(3)]]
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod bytes {
    //! As the compiler makes it.

    /// Makes columns of rows.
    #[inline(always)]
    pub(super) fn turn(values: &mut [[u8; 16]; 16]) {
        for _ in 0..4 {
            let from = *values;
            for row in 0..8 {
                for at in 0..8 {
                    values[2 * row][2 * at] = from[row][at];
                    values[2 * row][2 * at + 1] = from[row + 8][at];
                    values[2 * row + 1][2 * at] = from[row][8 + at];
                    values[2 * row + 1][2 * at + 1] = from[row + 8][8 + at];
                }
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod words {
    //! With instructions that every processor of this kind has.
    use std::arch::x86_64::*;

    /// Writes column `p` of the values to row `p`, from lane `first` on.
    #[inline(always)]
    pub(super) fn turn<const LANES: usize>(
        values: &[[i16; 8]; 8],
        first: usize,
        rows: &mut [[i16; LANES]; 8],
    ) {
        // SAFETY: SSE2 is there, and each load has as many values as a vector.
        let load = |row: usize| unsafe { _mm_loadu_si128(values[row].as_ptr().cast()) };
        let [a, b] =
            interleave([load(0), load(1), load(2), load(3)], [load(4), load(5), load(6), load(7)]);
        let [a, b] = interleave(a, b);
        let [a, b] = interleave(a, b);
        for (to, column) in rows.iter_mut().zip([a, b].as_flattened()) {
            let to: &mut [i16] = &mut to[first..first + 8];
            // SAFETY: as above, of a store.
            unsafe { _mm_storeu_si128(to.as_mut_ptr().cast(), *column) };
        }
    }

    /// The values of each vector in turn with those of its like among the others.
    #[inline(always)]
    fn interleave(one: [__m128i; 4], other: [__m128i; 4]) -> [[__m128i; 4]; 2] {
        // SAFETY: SSE2 is there.
        let low = |at: usize| unsafe { _mm_unpacklo_epi16(one[at], other[at]) };
        // SAFETY: as above.
        let high = |at: usize| unsafe { _mm_unpackhi_epi16(one[at], other[at]) };
        [[low(0), high(0), low(1), high(1)], [low(2), high(2), low(3), high(3)]]
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod words {
    //! As the compiler makes it.

    /// Writes column `p` of the values to row `p`, from lane `first` on.
    #[inline(always)]
    pub(super) fn turn<const LANES: usize>(
        values: &[[i16; 8]; 8],
        first: usize,
        rows: &mut [[i16; LANES]; 8],
    ) {
        for (row, to) in rows.iter_mut().enumerate() {
            for (value, to) in values.iter().zip(&mut to[first..first + 8]) {
                *to = value[row];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_in_its_row_and_lane() {
        let lengths: Vec<usize> = (0..29).map(|lane| lane * 7 % 60).collect();
        let value = |lane: usize, at: usize| (lane * 31 + at * 5) as u8;
        let bytes: Vec<Vec<u8>> = lengths
            .iter()
            .enumerate()
            .map(|(lane, &length)| (0..length).map(|at| value(lane, at)).collect())
            .collect();
        let words: Vec<Vec<i16>> = bytes
            .iter()
            .map(|all| all.iter().map(|&byte| 300 - i16::from(byte)).collect())
            .collect();
        let begin = |lane: usize| (lane * 5 % 17) as isize - 9;
        let byte_parts: Vec<Part<'_, u8>> =
            bytes.iter().enumerate().map(|(lane, all)| (&all[..], begin(lane))).collect();
        let word_parts: Vec<Part<'_, i16>> =
            words.iter().enumerate().map(|(lane, all)| (&all[..], begin(lane))).collect();
        for length in [0, 1, 16, 45, 64] {
            let (mut turned, mut few) = (vec![[7_u32; 32]; length], vec![[7_u32; 8]; length]);
            transpose_bytes(&byte_parts, 99, |byte| 300 - u32::from(byte), &mut turned);
            transpose_bytes(&byte_parts[..5], 99, u32::from, &mut few);
            let (mut wide, mut widened) = (vec![[7_i16; 40]; length], vec![[7_i16; 8]; length]);
            transpose_words(&word_parts, 201, &mut wide);
            transpose_words(&byte_parts[..8], 99, &mut widened);
            for position in 0..length {
                for lane in 0..32 {
                    let at = usize::try_from(position as isize + begin(lane));
                    let known = at.ok().and_then(|at| bytes.get(lane)?.get(at));
                    let want = known.copied().unwrap_or(99);
                    assert_eq!(turned[position][lane], 300 - u32::from(want));
                    assert_eq!(wide[position][lane], 300 - i16::from(want));
                    if lane < 8 {
                        assert_eq!(widened[position][lane], i16::from(want));
                        let want = if lane < 5 { want } else { 99 };
                        assert_eq!(few[position][lane], u32::from(want));
                    }
                }
            }
        }
    }
}
