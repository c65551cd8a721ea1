//! Reads that pass through the steps of mapping together, as arrays, up to their hits without gaps.
//!
//! Each step is a pass: encode, take seeds, look them up, vote, lay. Looking up and laying are kernels
//! over jobs that do not depend on each other; what is left has its memory accesses under way at once.

use std::ops::Range;

use super::candidate::{Ballot, Candidate};
use super::extend::{Hit, ReadView};
use super::map::{CODES, Mapper};
use super::packed::{READ_BASES_MAX, ReadWord, pack_read};
use super::seed::{Seed, seeds};
use crate::device::{Error, Queue};
use crate::genome::ReadBatch;
use crate::kernel::ungapped::Job;

/// Distance of the seeds that are looked up first, in bases.
const SPARSE_BASES: usize = 14;

/// Points that a place may lose which settles a read without its other seeds: two mismatches.
const CLEAR_POINTS: i32 = 10;

/// Reads whose entries are touched before the first of them votes.
const TOUCHED_READS: usize = 64;

/// The arrays of a group; kept by a worker from group to group.
#[derive(Default)]
pub struct Group {
    codes: Vec<u8>,
    words: Vec<ReadWord>,
    /// Ends of each read in `codes` and `words`.
    ends: Vec<[usize; 2]>,
    /// Share of seeds left out of each read, in 256ths.
    left_out: Vec<u32>,
    hits: Vec<Vec<Hit>>,
    tile: Tile,
}

/// The arrays of the reads of a group that are looked up together.
#[derive(Default)]
struct Tile {
    /// Number of the first read within the group.
    first: usize,
    /// Of each read the seeds that are looked up first, then the others.
    seeds: Vec<Seed>,
    later: Vec<Seed>,
    /// End of each read in `seeds`, and how many of its seeds are looked up first.
    ends: Vec<(usize, usize)>,
    hashes: Vec<u64>,
    /// First entry of each seed, and how many it has.
    found: Vec<(u32, u32)>,
    /// Reads whose places are not clear yet, by their number in the group.
    open: Vec<usize>,
    candidates: Vec<Candidate>,
    /// End in `candidates` of each open read.
    candidate_ends: Vec<usize>,
    ballot: Ballot,
    jobs: Vec<Job>,
}

/// Which seeds of a read a pass looks up.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    First,
    Others,
}

impl Group {
    /// Forgets all reads.
    pub fn clear(&mut self) {
        self.codes.clear();
        self.words.clear();
        self.ends.clear();
        self.left_out.clear();
    }

    /// Number of reads.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// The bit planes of all reads.
    pub fn words(&self) -> &[ReadWord] {
        &self.words
    }

    /// Bases of a read.
    pub fn length(&self, read: usize) -> usize {
        self.range(read, 0).len()
    }

    /// Share of a read's seeds that were too common to look at, in 256ths.
    pub fn left_out(&self, read: usize) -> u32 {
        self.left_out[read]
    }

    /// The hits of a read.
    pub fn hits(&self, read: usize) -> &[Hit] {
        &self.hits[read]
    }

    /// The hits of each read.
    pub fn all_hits(&mut self) -> &mut [Vec<Hit>] {
        &mut self.hits[..self.ends.len()]
    }

    /// A read.
    pub fn view(&self, read: usize) -> ReadView<'_> {
        ReadView {
            codes: &self.codes[self.range(read, 0)],
            words: &self.words[self.range(read, 1)],
        }
    }

    /// The job that lays a read on a candidate.
    pub fn job(&self, read: usize, candidate: &Candidate) -> Job {
        let words = self.range(read, 1);
        let first = words.start + if candidate.reverse { words.len() / 2 } else { 0 };
        let (first, length) = (first as u32, self.length(read) as u32);
        Job { first, length, position: candidate.diagonal }
    }

    fn range(&self, read: usize, array: usize) -> Range<usize> {
        let start = if read == 0 { 0 } else { self.ends[read - 1][array] };
        start..self.ends[read][array]
    }

    /// Adds reads of a batch and finds their hits: by their first seeds, and by all where that is not
    /// clear. Errors: the device's.
    pub fn add(
        &mut self,
        batch: &ReadBatch,
        reads: Range<usize>,
        mapper: &Mapper,
        queue: &mut dyn Queue,
    ) -> Result<(), Error> {
        let first = self.len();
        self.encode(batch, reads);
        let end = self.len();
        self.hits.resize_with(end.max(self.hits.len()), Vec::new);
        self.left_out.resize(end, 0);
        self.tile.open.extend(first..end);
        self.pass(mapper, queue, Part::First)?;
        let mut open = std::mem::take(&mut self.tile.open);
        open.retain(|&read| !self.is_clear(read, mapper));
        self.tile.open = open;
        self.pass(mapper, queue, Part::Others)
    }

    fn encode(&mut self, batch: &ReadBatch, reads: Range<usize>) {
        self.tile.begin(self.ends.len());
        for read in reads {
            let bases = batch.bases(read);
            let first = self.codes.len();
            if bases.len() <= READ_BASES_MAX {
                self.codes.extend(bases.iter().map(|&letter| CODES[usize::from(letter)]));
                pack_read(&self.codes[first..], &mut self.words);
            }
            self.tile.take_seeds(&self.codes[first..]);
            self.ends.push([self.codes.len(), self.words.len()]);
        }
        self.tile.found.resize(self.tile.seeds.len(), (0, 0));
    }

    /// Looks up some more seeds of the open reads and lays the reads on what all looked up so far vote
    /// for.
    fn pass(&mut self, mapper: &Mapper, queue: &mut dyn Queue, part: Part) -> Result<(), Error> {
        self.tile.look_up(mapper, queue, part)?;
        self.vote(mapper.index().seeds().entries, part);
        self.lay(mapper, queue)
    }

    fn vote(&mut self, entries: &[u64], part: Part) {
        self.tile.candidates.clear();
        self.tile.candidate_ends.clear();
        let open = std::mem::take(&mut self.tile.open);
        for reads in open.chunks(TOUCHED_READS) {
            self.tile.touch(entries, reads, part);
            for &read in reads {
                let length = self.length(read);
                let tile = &mut self.tile;
                let range = tile.range(read).start..tile.part(read, part).end;
                if !range.is_empty() {
                    let (seeds, found) = (&tile.seeds[range.clone()], &tile.found[range.clone()]);
                    let (found, left_out) = tile.ballot.count(entries, seeds, found, length);
                    tile.candidates.extend_from_slice(found);
                    self.left_out[read] = (left_out * 256 / range.len()) as u32;
                }
                tile.candidate_ends.push(tile.candidates.len());
            }
        }
        self.tile.open = open;
    }

    /// Lays the open reads on all their candidates.
    fn lay(&mut self, mapper: &Mapper, queue: &mut dyn Queue) -> Result<(), Error> {
        let mut jobs = std::mem::take(&mut self.tile.jobs);
        jobs.clear();
        for (read, candidates) in self.tile.laid() {
            jobs.extend(candidates.iter().map(|candidate| self.job(read, candidate)));
        }
        let segments = mapper.offload().lay(queue, &self.words, &jobs, mapper.scores())?;
        let mut done = jobs.iter().zip(&segments);
        let (hits, scores) = (&mut self.hits, mapper.scores());
        for (read, candidates) in self.tile.laid() {
            hits[read].clear();
            hits[read].extend(candidates.iter().zip(done.by_ref()).map(
                |(candidate, (job, segment))| Hit::ungapped(candidate, job.length, segment, scores),
            ));
        }
        self.tile.jobs = jobs;
        Ok(())
    }

    /// Whether more seeds would say nothing new: a place that nearly matches has been found, and
    /// places that are about as good share most seeds with it.
    fn is_clear(&self, read: usize, mapper: &Mapper) -> bool {
        let length = self.length(read) as i32;
        let genome = mapper.index().genome();
        let good =
            |hit: &Hit| hit.score >= length - CLEAR_POINTS && !genome.is_alternate(hit.position());
        self.tile.part(read, Part::Others).is_empty()
            || (self.left_out[read] == 0 && self.hits[read].iter().any(good))
    }
}

impl Tile {
    fn begin(&mut self, first: usize) {
        self.first = first;
        self.seeds.clear();
        self.ends.clear();
        self.found.clear();
        self.open.clear();
    }

    /// Takes the seeds of the next read.
    fn take_seeds(&mut self, codes: &[u8]) {
        let (taken, later) = (&mut self.seeds, &mut self.later);
        let before = taken.len();
        // Too short reads have few seeds, and all are needed.
        let spacing = if codes.len() < 2 * SPARSE_BASES { 0 } else { SPARSE_BASES };
        let mut next = 0;
        seeds(codes, |seed| {
            if seed.offset as usize >= next {
                next = seed.offset as usize + spacing;
                taken.push(seed);
            } else {
                later.push(seed);
            }
        });
        let count = taken.len() - before;
        taken.append(later);
        self.ends.push((taken.len(), count));
    }

    /// The seeds of a read.
    fn range(&self, read: usize) -> Range<usize> {
        let read = read - self.first;
        let start = if read == 0 { 0 } else { self.ends[read - 1].0 };
        start..self.ends[read].0
    }

    /// Those that a pass looks up.
    fn part(&self, read: usize, part: Part) -> Range<usize> {
        let Range { start, end } = self.range(read);
        let middle = start + self.ends[read - self.first].1;
        if part == Part::First { start..middle } else { middle..end }
    }

    fn look_up(&mut self, mapper: &Mapper, queue: &mut dyn Queue, part: Part) -> Result<(), Error> {
        let mut hashes = std::mem::take(&mut self.hashes);
        hashes.clear();
        for &read in &self.open {
            hashes.extend(self.seeds[self.part(read, part)].iter().map(|seed| seed.hash));
        }
        let found = mapper.offload().look_up(queue, &hashes)?;
        let mut rest = &found[..];
        for &read in &self.open {
            let range = self.part(read, part);
            let (own, behind) = rest.split_at(range.len());
            self.found[range].copy_from_slice(own);
            rest = behind;
        }
        self.hashes = hashes;
        Ok(())
    }

    /// Touches the entries of some reads early, so that they are there when they are needed.
    fn touch(&self, entries: &[u64], reads: &[usize], part: Part) {
        let found = reads.iter().flat_map(|&read| &self.found[self.part(read, part)]);
        let touched = found
            .fold(0, |sum, &(first, _)| sum ^ entries.get(first as usize).copied().unwrap_or(0));
        std::hint::black_box(touched);
    }

    /// The open reads with their candidates.
    fn laid(&self) -> impl Iterator<Item = (usize, &[Candidate])> {
        let mut first = 0;
        self.open.iter().zip(&self.candidate_ends).map(move |(&read, &end)| {
            let own = &self.candidates[first..end];
            first = end;
            (read, own)
        })
    }
}
