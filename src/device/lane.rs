//! Cuts work into pieces for a device with memory of its own, and keeps two of them on their way.
//!
//! A piece is a few columns of bytes, each a vector of words to the device: both halves of a stripe,
//! both halves of the random bytes. Secret sharing is linear over GF(2), so one device kernel does
//! all of it: every output column is the sum of those input columns that a row of four bits names.
//! The rows are read off the scalar twin, which stays the only definition of the scheme.

use std::ops::Range;

use crate::base::ShareLetter;
use crate::kernel::otp::{BLOCK_BYTES, Pad};
use crate::kernel::share as twin;
use crate::kernel::{align, pack, pairhmm, ungapped};

use super::jobs::{self, Jobs};
pub(super) use super::launch::{Ability, FUNCTIONS, Function, Launch};
use super::sealing::{Powers, Sealing};
use super::table::{Genome, SeedTable};
use super::{Error, Queue, ToCombine, ToSplit};

/// Columns of the largest piece.
pub(super) const COLUMNS: usize = 4;
/// Columns that a lane of a card has besides, for the scratch of jobs: it is not copied, and a card works
/// well on many jobs at once.
#[cfg(feature = "cuda")]
pub(super) const SCRATCH_COLUMNS: usize = 24;
/// Columns begin at multiples of this: one vector of words of a device.
pub(super) const VECTOR_BYTES: usize = 16;

/// What to do with the columns of a piece, in place.
#[derive(Clone, Copy, Debug)]
enum Work {
    /// Column 0 becomes the sum of columns 0 and 1: `xor.cu`, `xor.wgsl`.
    Xor,
    /// Column `o < outputs` becomes the sum of the columns that bits `4 * o ..` of `rows` name:
    /// `share.cu`, `share.wgsl`.
    Share { rows: u32, outputs: u32 },
}

impl Work {
    fn split() -> Self {
        let (mut secret_to_a, random, mut b) = ([1, 2], [4, 8], [0; 2]);
        twin::split(&mut secret_to_a, &random, &mut b);
        Self::share(&[secret_to_a[0], secret_to_a[1], b[0], b[1]])
    }

    fn combine(by: impl FnOnce(&mut [u8], &[u8])) -> Self {
        let (mut first, second) = ([1, 2], [4, 8]);
        by(&mut first, &second);
        Self::share(&first)
    }

    fn share(rows: &[u8]) -> Self {
        let packed = rows.iter().rev().fold(0, |packed, row| packed << COLUMNS | u32::from(*row));
        Work::Share { rows: packed, outputs: rows.len() as u32 }
    }

    /// The start of this work on columns of `stride` bytes.
    fn launch(self, stride: usize) -> Launch {
        let vectors = (stride / VECTOR_BYTES) as u32;
        let (function, inputs, outputs, rows) = match self {
            Work::Xor => (Function::Xor, 2, 1, 0),
            Work::Share { rows, outputs } => (Function::Share, COLUMNS, outputs, rows),
        };
        Launch {
            function,
            threads: vectors,
            numbers: [vectors, outputs, rows],
            up: inputs * stride,
            down: 0..outputs as usize * stride,
            table: None,
            shared_words: 0,
        }
    }
}

/// Where the next column of a piece begins, in bytes, when columns have `bytes` each.
pub(super) fn stride(bytes: usize) -> usize {
    bytes.next_multiple_of(VECTOR_BYTES)
}

/// Memory on a device, with room for one piece or one batch of jobs.
pub(super) trait Lane: Send {
    /// Copies the inputs to the offsets named with them, all below `launch.up`, and starts the work.
    fn start<'a>(
        &mut self,
        launch: &Launch,
        inputs: impl Iterator<Item = (usize, &'a [u8])>,
    ) -> Result<(), Error>;

    /// Waits for what was started and copies its results back, from the offsets named with them,
    /// which count from the beginning of `launch.down`.
    fn finish<'a>(
        &mut self,
        outputs: impl Iterator<Item = (usize, &'a mut [u8])>,
    ) -> Result<(), Error>;
}

/// A queue over two lanes: while one computes, the other is filled or emptied.
pub(super) struct Lanes<L> {
    lanes: [L; 2],
    column_bytes: usize,
    /// What a lane has for the scratch of jobs besides its columns.
    scratch_bytes: usize,
    ability: Ability,
}

/// Columns of a piece are at least so long, if there is as much: shorter ones would wait for the bus.
const PIECE_BYTES_MIN: usize = 512 << 10;

/// The columns of a whole stripe: inputs are `in_place` and `read`, outputs `in_place` and `written`.
struct Columns<'a> {
    in_place: Vec<&'a mut [u8]>,
    read: Vec<&'a [u8]>,
    written: Vec<&'a mut [u8]>,
}

impl Columns<'_> {
    fn len(&self) -> usize {
        self.in_place[0].len()
    }
}

/// A part of a stripe's columns, and where it begins in those of its piece.
struct Part {
    stripe: usize,
    range: Range<usize>,
    at: usize,
}

/// Cuts the columns of stripes of these lengths, laid after each other, into pieces.
fn pieces(lengths: &[usize], column_bytes: usize) -> Vec<Vec<Part>> {
    let mut pieces = vec![Vec::new()];
    let mut filled = 0;
    for (stripe, &length) in lengths.iter().enumerate() {
        let mut begin = 0;
        while begin < length {
            if filled == column_bytes {
                pieces.push(Vec::new());
                filled = 0;
            }
            let end = length.min(begin + column_bytes - filled);
            let last = pieces.last_mut().expect("there is always one");
            last.push(Part { stripe, range: begin..end, at: filled });
            filled += end - begin;
            begin = end;
        }
    }
    pieces.retain(|piece| !piece.is_empty());
    pieces
}

/// Bytes of a column of a piece.
fn bytes_of(piece: &[Part]) -> usize {
    piece.last().map_or(0, |part| part.at + part.range.len())
}

impl<L: Lane> Lanes<L> {
    /// `lanes` have room for columns of `column_bytes`.
    pub(super) fn new(lanes: [L; 2], column_bytes: usize, ability: Ability) -> Self {
        Self { lanes, column_bytes, scratch_bytes: 0, ability }
    }

    /// For lanes that have so much more memory, which is not copied.
    #[cfg(feature = "cuda")]
    pub(super) fn with_scratch(self, scratch_bytes: usize) -> Self {
        Self { scratch_bytes, ..self }
    }

    /// Does the work on the columns of all stripes; two pieces are on their way at a time.
    fn run(&mut self, work: Work, stripes: &mut [Columns<'_>]) -> Result<(), Error> {
        let lengths: Vec<usize> = stripes.iter().map(Columns::len).collect();
        let quarter = lengths.iter().sum::<usize>().div_ceil(4).max(PIECE_BYTES_MIN);
        let mut on_their_way = [const { None::<Vec<Part>> }; 2];
        let mut turn = 0;
        for piece in pieces(&lengths, quarter.min(self.column_bytes)) {
            let lane = &mut self.lanes[turn];
            if let Some(done) = on_their_way[turn].take() {
                Self::finish(lane, stripes, &done)?;
            }
            let stride = stride(bytes_of(&piece));
            let inputs = piece.iter().flat_map(|part| {
                let columns = &stripes[part.stripe];
                let in_place = columns.in_place.iter().map(|column| &**column);
                let all = in_place.chain(columns.read.iter().copied()).enumerate();
                all.map(move |(at, column)| (at * stride + part.at, &column[part.range.clone()]))
            });
            lane.start(&work.launch(stride), inputs)?;
            on_their_way[turn] = Some(piece);
            turn = 1 - turn;
        }
        for turn in [turn, 1 - turn] {
            if let Some(done) = on_their_way[turn].take() {
                Self::finish(&mut self.lanes[turn], stripes, &done)?;
            }
        }
        Ok(())
    }

    /// Seals or opens a whole message; gives the hash of its ciphertext.
    fn pad_and_hash(
        &mut self,
        data: &mut [u8],
        pad: Pad<'_>,
        key: &[u8; BLOCK_BYTES],
        opens: bool,
    ) -> Result<[u8; BLOCK_BYTES], Error> {
        let pad = pad.slice(0..data.len());
        let (ability, room) = (self.ability.sealing, COLUMNS * self.column_bytes);
        let mut powers = Powers::new(key);
        let mut hash = [0; BLOCK_BYTES];
        let mut on_their_way = [const { None::<(&mut [u8], Sealing)> }; 2];
        let mut pieces = data.chunks_mut(self.column_bytes);
        let (mut turn, mut begin) = (0, 0);
        loop {
            if let Some((piece, sealing)) = on_their_way[turn].take() {
                let sums = sealing.finish(&mut self.lanes[turn], piece)?;
                hash = powers.extend(hash, &sums, sealing.blocks);
            }
            match pieces.next() {
                Some(piece) => {
                    let sealing = Sealing::of(piece.len(), ability);
                    let own = (pad.slice(begin..begin + piece.len()), &powers.of(sealing.lanes));
                    let lane = &mut self.lanes[turn];
                    sealing.start(lane, (ability, room), piece, own, opens)?;
                    begin += piece.len();
                    on_their_way[turn] = Some((piece, sealing));
                }
                None if on_their_way[1 - turn].is_none() => return Ok(hash),
                None => {}
            }
            turn = 1 - turn;
        }
    }

    /// Runs all jobs, a launch after the other; those that no launch can hold are done by the CPU.
    fn run_jobs<J: Jobs>(&mut self, jobs: &J) -> Result<Vec<J::Output>, Error> {
        if !self.ability.functions.contains(&J::FUNCTION) {
            return Ok((0..jobs.count()).map(|job| jobs.on_cpu(job)).collect());
        }
        let mut batches =
            jobs::Batches::new(jobs, COLUMNS * self.column_bytes / 4, self.scratch_bytes / 4);
        let mut results: Vec<Option<J::Output>> =
            std::iter::repeat_with(|| None).take(jobs.count()).collect();
        let mut on_their_way = [const { None::<jobs::Batch> }; 2];
        let mut turn = 0;
        loop {
            let batch = batches.next();
            if let Some(done) = on_their_way[turn].take() {
                done.finish(jobs, &mut self.lanes[turn], &mut results)?;
            }
            match batch {
                Some(batch) => {
                    batch.start(&mut self.lanes[turn])?;
                    on_their_way[turn] = Some(batch);
                }
                None if on_their_way[1 - turn].is_none() => break,
                None => {}
            }
            turn = 1 - turn;
        }
        let by_hand = results.into_iter().enumerate();
        Ok(by_hand.map(|(job, result)| result.unwrap_or_else(|| jobs.on_cpu(job))).collect())
    }

    fn finish(lane: &mut L, stripes: &mut [Columns<'_>], piece: &[Part]) -> Result<(), Error> {
        let stride = stride(bytes_of(piece));
        let mut parts = piece.iter().peekable();
        let stripes = stripes.iter_mut().enumerate().filter_map(|(stripe, columns)| {
            parts.next_if(|part| part.stripe == stripe).map(|part| (part, columns))
        });
        let outputs = stripes.flat_map(|(part, columns)| {
            let outputs = columns.in_place.iter_mut().chain(columns.written.iter_mut());
            outputs
                .enumerate()
                .map(move |(at, column)| (at * stride + part.at, &mut column[part.range.clone()]))
        });
        lane.finish(outputs)
    }

    fn combine(&mut self, work: Work, stripes: &mut [ToCombine<'_>]) -> Result<(), Error> {
        let columns = stripes.iter_mut().map(|stripe| {
            let half = half_of(&[stripe.first.len(), stripe.second.len()]);
            let (x1, x2) = stripe.first.split_at_mut(half);
            let (y1, y2) = stripe.second.split_at(half);
            Columns { in_place: vec![x1, x2], read: vec![y1, y2], written: vec![] }
        });
        self.run(work, &mut columns.collect::<Vec<_>>())
    }
}

impl<L: Lane> Queue for Lanes<L> {
    fn split(&mut self, secret_to_a: &mut [u8], random: &[u8], b: &mut [u8]) -> Result<(), Error> {
        self.split_each(&mut [ToSplit { secret_to_a, random, b }])
    }

    fn restore(
        &mut self,
        first: &mut [u8],
        second: &[u8],
        letters: (ShareLetter, ShareLetter),
    ) -> Result<(), Error> {
        self.restore_each(&mut [ToCombine { first, second }], letters)
    }

    fn rebuild(
        &mut self,
        first: &mut [u8],
        second: &[u8],
        letters: (ShareLetter, ShareLetter),
    ) -> Result<(), Error> {
        self.rebuild_each(&mut [ToCombine { first, second }], letters)
    }

    fn split_each(&mut self, stripes: &mut [ToSplit<'_>]) -> Result<(), Error> {
        let columns = stripes.iter_mut().map(|stripe| {
            let half = half_of(&[stripe.secret_to_a.len(), stripe.random.len(), stripe.b.len()]);
            let (s1, s2) = stripe.secret_to_a.split_at_mut(half);
            let (r1, r2) = stripe.random.split_at(half);
            let (b1, b2) = stripe.b.split_at_mut(half);
            Columns { in_place: vec![s1, s2], read: vec![r1, r2], written: vec![b1, b2] }
        });
        self.run(Work::split(), &mut columns.collect::<Vec<_>>())
    }

    fn restore_each(
        &mut self,
        stripes: &mut [ToCombine<'_>],
        letters: (ShareLetter, ShareLetter),
    ) -> Result<(), Error> {
        self.combine(Work::combine(|first, second| twin::restore(first, second, letters)), stripes)
    }

    fn rebuild_each(
        &mut self,
        stripes: &mut [ToCombine<'_>],
        letters: (ShareLetter, ShareLetter),
    ) -> Result<(), Error> {
        self.combine(Work::combine(|first, second| twin::rebuild(first, second, letters)), stripes)
    }

    fn xor(&mut self, data: &mut [u8], pad: &[u8]) -> Result<(), Error> {
        let pad = &pad[..data.len()];
        let columns = Columns { in_place: vec![data], read: vec![pad], written: vec![] };
        self.run(Work::Xor, &mut [columns])
    }

    fn seal(
        &mut self,
        data: &mut [u8],
        pad: Pad<'_>,
        key: &[u8; BLOCK_BYTES],
    ) -> Result<[u8; BLOCK_BYTES], Error> {
        self.pad_and_hash(data, pad, key, false)
    }

    fn open(
        &mut self,
        data: &mut [u8],
        pad: Pad<'_>,
        key: &[u8; BLOCK_BYTES],
    ) -> Result<[u8; BLOCK_BYTES], Error> {
        self.pad_and_hash(data, pad, key, true)
    }

    fn align(
        &mut self,
        pairs: &[align::Pair<'_>],
        scores: &align::Scores,
    ) -> Result<Vec<Option<align::Placement>>, Error> {
        let alignments = jobs::align::Alignments { pairs, scores };
        if !self.ability.aligns_two {
            return self.run_jobs(&alignments);
        }
        let paired = jobs::align_pairs::Paired::new(alignments);
        let groups = self.run_jobs(&paired)?;
        Ok(paired.in_order(groups))
    }

    fn pairhmm(&mut self, batch: &pairhmm::Batch<'_>) -> Result<Vec<i32>, Error> {
        self.run_jobs(&jobs::pairhmm::Penalties { batch })
    }

    fn pack(&mut self, reads: &[pack::Read<'_>]) -> Result<Vec<pack::Packed>, Error> {
        self.run_jobs(&jobs::pack::Reads::new(reads))
    }

    fn ungapped(
        &mut self,
        genome: &Genome,
        reads: &[pack::ReadWord],
        jobs: &[ungapped::Job],
        scores: &align::Scores,
    ) -> Result<Vec<ungapped::Segment>, Error> {
        self.run_jobs(&jobs::ungapped::Extensions { genome, reads, jobs, scores })
    }

    fn lookup(&mut self, table: &SeedTable, hashes: &[u64]) -> Result<Vec<(u32, u32)>, Error> {
        self.run_jobs(&jobs::lookup::Lookups { table, hashes })
    }
}

fn half_of(lengths: &[usize]) -> usize {
    let length = lengths[0];
    assert!(lengths.iter().all(|other| *other == length), "shares of one stripe have one length");
    assert!(length.is_multiple_of(2), "a stripe has two halves");
    length / 2
}

#[cfg(test)]
pub(super) mod host;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stripes_fill_pieces_and_are_cut_where_one_is_full() {
        let cut = |lengths: &[usize], column_bytes| -> Vec<Vec<(usize, Range<usize>, usize)>> {
            let part = |part: &Part| (part.stripe, part.range.clone(), part.at);
            pieces(lengths, column_bytes).iter().map(|one| one.iter().map(part).collect()).collect()
        };
        assert!(cut(&[], 8).is_empty() && cut(&[0, 0], 8).is_empty());
        let first = vec![(0, 0..5, 0), (2, 0..3, 5)];
        assert_eq!(cut(&[5, 0, 12], 8), [first, vec![(2, 3..11, 0)], vec![(2, 11..12, 0)]]);
        assert_eq!(cut(&[8, 8], 8), [[(0, 0..8, 0)], [(1, 0..8, 0)]]);
    }

    #[test]
    fn rows_are_those_of_the_paper() {
        // A1 = s1 r1, A2 = s2 r1 r2, B1 = s1 r1 r2, B2 = s2 r2; bit 0 is s1, bit 3 is r2.
        let Work::Share { rows, outputs } = Work::split() else { panic!("sharing") };
        assert_eq!((rows, outputs), (0b1010_1101_1110_0101, 4));
    }
}
