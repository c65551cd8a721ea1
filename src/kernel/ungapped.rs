//! Extension without gaps: a read laid on the reference, its mismatches, and its best stretch between them.
//!
//! Reference and read are bit planes, so 64 bases are compared by a few XORs, counted by one
//! population count. A job names a read and the position that it is laid at; its result does not depend
//! on other jobs. A read base that is unknown, or laid on an unknown one, differs. Of the stretches the
//! one with most points wins: a point a match, the price of a mismatch for each within, the price of a
//! clip for each end that is left out (Li 2013, arXiv:1303.3997); of equal ones the first, except that a
//! stretch to the read's end wins over equal ones before it.

use bytemuck::{Pod, Zeroable};

use super::align::Scores;
use super::pack::{ReadWord, WORD_BASES};

/// 64 bases of a reference, the first in bit 0.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct GenomeWord {
    /// Bit 0 of each base's code.
    pub low: u64,
    /// Bit 1 of each base's code.
    pub high: u64,
    /// Which bases are unknown.
    pub unknown: u64,
}

impl ReadWord {
    /// Its bases as those of a reference: where it holds none, they are known.
    pub fn bases(&self) -> GenomeWord {
        GenomeWord { low: self.low, high: self.high, unknown: self.unknown }
    }
}

/// Number of mismatches of a read that reaches over the end of the reference.
pub const OUTSIDE: u32 = u32::MAX;

/// One read at one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Job {
    /// First word of the read.
    pub first: u32,
    /// Bases of the read: it has as many words as they need.
    pub length: u32,
    /// Position in the reference of the read's first base.
    pub position: u32,
}

/// The best stretch of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Points.
    pub score: i32,
    /// First base of the read within the stretch.
    pub start: u32,
    /// One past the last.
    pub end: u32,
    /// Whether mismatches stand close to each other or to the read's end, as they do behind a gap.
    pub crowded: bool,
}

/// Longest read, in words.
pub const WORDS_MAX: usize = 16;

/// Mismatches closer than this to each other may be the mark of a gap.
const SUSPICIOUS_BASES: u32 = 12;

/// Marks the places where a read, laid at `position`, differs, a word of marks for each word of it; gives
/// their number.
///
/// Unknown bases of either side differ from everything. The reference must reach one word beyond the
/// read's last; else every bit is marked and the number is [`OUTSIDE`].
///
/// # Panics
/// When `marks` has not as many words as the read.
#[inline(always)]
pub fn mismatches(
    genome: &[GenomeWord],
    read: &[ReadWord],
    position: u32,
    marks: &mut [u64],
) -> u32 {
    assert_eq!(marks.len(), read.len(), "a word of marks for each word of the read");
    let (first, shift) = (position as usize / WORD_BASES, position % 64);
    let Some(words) = genome.get(first..first + read.len() + 1) else {
        marks.fill(u64::MAX);
        return OUTSIDE;
    };
    let mut count = 0;
    for ((read, pair), mark) in read.iter().zip(words.windows(2)).zip(marks) {
        let join = |a: u64, b: u64| (a >> shift) | ((b << 1) << (63 - shift));
        let low = join(pair[0].low, pair[1].low) ^ read.low;
        let high = join(pair[0].high, pair[1].high) ^ read.high;
        let unknown = join(pair[0].unknown, pair[1].unknown) | read.unknown;
        *mark = (low | high | unknown) & read.valid;
        count += mark.count_ones();
    }
    count
}

/// Does all jobs, one after the other.
///
/// # Panics
/// When `reads` has not the words of a job, or a job has more than [`WORDS_MAX`].
#[inline(always)]
pub fn scalar(
    genome: &[GenomeWord],
    reads: &[ReadWord],
    jobs: &[Job],
    scores: &Scores,
    out: &mut Vec<Segment>,
) {
    out.clear();
    out.extend(jobs.iter().map(|job| {
        let words = job.length.div_ceil(64) as usize;
        let read = &reads[job.first as usize..job.first as usize + words];
        let mut marks = [0; WORDS_MAX];
        let marks = &mut marks[..words];
        mismatches(genome, read, job.position, marks);
        best_segment(marks, job.length, scores)
    }));
}

/// The best stretch between the marked places of a read.
#[inline(always)]
pub fn best_segment(marks: &[u64], length: u32, scores: &Scores) -> Segment {
    let (clip, drop) = (i32::from(scores.clip), i32::from(scores.mismatch));
    let mut best = (i32::MIN, 0, 0);
    let (mut points, mut start, mut behind) = (0, 0, 0u32);
    let mut crowded = false;
    for (word, &mark) in (0u32..).zip(marks) {
        let mut mark = mark;
        while mark != 0 {
            let at = word * 64 + mark.trailing_zeros();
            mark &= mark - 1;
            if at >= length {
                break;
            }
            crowded |= at - behind < SUSPICIOUS_BASES && behind > 0;
            points += (at - behind) as i32 * i32::from(scores.matched);
            if points - clip > best.0 {
                best = (points - clip, start, at);
            }
            points -= drop;
            if points < -clip {
                (points, start) = (-clip, at + 1);
            }
            behind = at + 1;
        }
    }
    crowded |= behind > 0 && length - behind < SUSPICIOUS_BASES / 2;
    points += (length - behind) as i32 * i32::from(scores.matched);
    if points >= best.0 {
        best = (points, start, length);
    }
    Segment { score: best.0, start: best.1, end: best.2, crowded }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::pack::{Read, scalar as pack};
    use proptest::prelude::*;

    fn planes(codes: &[u8]) -> Vec<ReadWord> {
        pack(Read { codes, qualities: &vec![0; codes.len()] }).forward
    }

    fn genome(codes: &[u8]) -> Vec<GenomeWord> {
        let word =
            |word: &ReadWord| GenomeWord { unknown: word.unknown | !word.valid, ..word.bases() };
        planes(codes).iter().map(word).collect()
    }

    proptest! {
        #[test]
        fn the_marks_are_those_of_a_plain_comparison(
            codes in proptest::collection::vec(0u8..6, 260..600),
            start in 0usize..200, length in 1usize..190,
            changed in proptest::collection::vec((0usize..190, 0u8..5), 0..8),
        ) {
            let mut read = codes[start..(start + length).min(codes.len())].to_vec();
            for (at, code) in changed {
                let at = at % read.len();
                read[at] = code;
            }
            let differ = |at: usize| {
                let (read, from) = (read[at], codes[start + at]);
                read > 3 || from > 3 || read != from
            };
            let packed = planes(&read);
            let words = genome(&codes);
            let mut marks = vec![0; packed.len()];
            let count = mismatches(&words, &packed, start as u32, &mut marks);
            if start / 64 + marks.len() + 1 > words.len() {
                prop_assert_eq!((count, marks[0]), (OUTSIDE, u64::MAX));
                return Ok(());
            }
            let places: Vec<usize> = (0..read.len()).filter(|&at| differ(at)).collect();
            let marked = |at: &usize| marks[at / 64] >> (at % 64) & 1 == 1;
            prop_assert_eq!(count as usize, places.len());
            prop_assert_eq!((0..64 * marks.len()).filter(marked).collect::<Vec<_>>(), places);
        }
    }

    /// The best points of all stretches, each counted base by base.
    fn plain(read: &[u8], place: &[u8], scores: &Scores) -> i32 {
        let mut best = i32::MIN;
        for start in 0..=read.len() {
            let mut points = if start > 0 { -i32::from(scores.clip) } else { 0 };
            for end in start..=read.len() {
                let clip = if end < read.len() { i32::from(scores.clip) } else { 0 };
                best = best.max(points - clip);
                if end < read.len() {
                    let same = read[end] == place[end] && read[end] < 4;
                    points += i32::from(if same { scores.matched } else { -scores.mismatch });
                }
            }
        }
        best
    }

    proptest! {
        #[test]
        fn the_score_is_that_of_the_best_stretch(
            genome in proptest::collection::vec(0u8..5, 300..500),
            at in 0usize..200, length in 1usize..90,
            changes in proptest::collection::vec((0usize..90, 0u8..5), 0..8),
        ) {
            let mut read = genome[at..at + length].to_vec();
            for (place, base) in changes {
                read[place % length] = base;
            }
            let mut words = self::genome(&genome);
            words.push(GenomeWord::default());
            let job = Job { first: 0, length: length as u32, position: at as u32 };
            let (scores, mut out) = (Scores::default(), Vec::new());
            scalar(&words, &planes(&read), &[job], &scores, &mut out);
            let best = plain(&read, &genome[at..], &scores);
            prop_assert_eq!(out[0].score, best);
            let Segment { start, end, .. } = out[0];
            let (start, end) = (start as usize, end as usize);
            let inside = plain(&read[start..end], &genome[at + start..], &scores);
            let clips = i32::from(start > 0) + i32::from(end < length);
            prop_assert_eq!(inside - clips * i32::from(scores.clip), best);
        }
    }

    #[test]
    fn everything_differs_outside_of_the_reference() {
        let job = Job { first: 0, length: 70, position: 640 };
        let (scores, mut out) = (Scores::default(), Vec::new());
        scalar(&[GenomeWord::default(); 5], &planes(&[0; 70]), &[job], &scores, &mut out);
        assert!(out[0].score < 0 && out[0].crowded, "{out:?}");
    }
}
