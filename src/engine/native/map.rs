//! Mapping: reads in, each read's place out.
//!
//! Reads are taken in small groups, and each step is a pass over the arrays of a group: encode,
//! take seeds, find buckets, touch entries, vote, lay without gaps, align with gaps. The passes
//! whose cost is memory latency do nothing else, so that many accesses are under way at once; those
//! that compute are kernels ([`ungapped`](crate::kernel::ungapped), [`align`](crate::kernel::align))
//! over jobs that do not depend on each other, so that a device can take them.

use std::ops::Range;
use std::sync::Arc;

use super::candidate::{Ballot, Candidate};
use super::extend::{Bench, Hit, ReadView};
use super::index::{Index, Table};
use super::insert::InsertModel;
use super::packed::{PackedGenome, READ_BASES_MAX, ReadWord, WORDS_MAX, pack_read};
use super::pair::{PairChoice, choose_pair, choose_single, score_min, template_length};
use super::seed::{Seed, seeds};
use crate::device::cpu;
use crate::genome::reference::base_code;
use crate::genome::{Layout, ReadBatch};
use crate::kernel::align::Scores;
use crate::kernel::ungapped::{Job, Segment};

/// Maps reads to the reference of an index.
pub struct Mapper {
    index: Arc<Index>,
    scores: Scores,
}

/// A read's chosen place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Where it lies.
    pub hit: Hit,
    /// MAPQ.
    pub quality: u8,
}

/// The places of a template's reads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placed {
    /// First and second read; a single read is the first.
    pub reads: [Option<Place>; 2],
    /// Whether they lie as the two ends of one template.
    pub proper: bool,
}

/// The code of every letter.
pub const CODES: [u8; 256] = {
    let mut codes = [4; 256];
    let mut letter = 0;
    while letter < 256 {
        codes[letter] = base_code(letter as u8);
        letter += 1;
    }
    codes
};

/// Reads that pass through the steps together.
const GROUP_READS: usize = 64;

/// Distance of the seeds that are looked up first, in bases.
const SPARSE_BASES: usize = 14;

/// Points that a place may lose which settles a read without its other seeds: two mismatches.
const CLEAR_POINTS: i32 = 10;

/// Doubtful hits of a read that are aligned with gaps.
const REFINED_MAX: usize = 16;

/// Places of one mate around which the other is looked for.
const ANCHORS_MAX: usize = 4;

/// Reads shorter than this are not looked for around their mate.
const RESCUED_BASES_MIN: usize = 25;

/// The arrays of a group; kept by a worker from group to group.
#[derive(Default)]
pub struct Workspace {
    codes: Vec<u8>,
    words: Vec<ReadWord>,
    /// Of each read the seeds that are looked up first, then the others.
    seeds: Vec<Seed>,
    later: Vec<Seed>,
    buckets: Vec<(u32, u32)>,
    /// Ends of each read in `codes`, `words` and `seeds`.
    ends: Vec<[usize; 3]>,
    /// How many of each read's seeds are looked up first.
    firsts: Vec<usize>,
    /// Reads whose places are not clear yet.
    open: Vec<usize>,
    candidates: Vec<Candidate>,
    /// End in `candidates` of each open read.
    candidate_ends: Vec<usize>,
    /// Share of seeds left out of each read, in 256ths.
    left_out: Vec<u32>,
    hits: Vec<Vec<Hit>>,
    ballot: Ballot,
    bench: Bench,
    rescued: Vec<Hit>,
    jobs: Vec<Job>,
    segments: Vec<Segment>,
}

impl Workspace {
    fn encode(&mut self, batch: &ReadBatch, reads: Range<usize>) {
        self.codes.clear();
        self.words.clear();
        self.seeds.clear();
        self.ends.clear();
        self.firsts.clear();
        for read in reads {
            let bases = batch.bases(read);
            let first = self.codes.len();
            let mut looked_up_first = 0;
            if bases.len() <= READ_BASES_MAX {
                self.codes.extend(bases.iter().map(|&letter| CODES[usize::from(letter)]));
                pack_read(&self.codes[first..], &mut self.words);
                looked_up_first = self.take_seeds(first);
            }
            self.firsts.push(looked_up_first);
            self.ends.push([self.codes.len(), self.words.len(), self.seeds.len()]);
        }
    }

    /// Takes the seeds of the read whose codes begin at `first`; gives how many go first.
    fn take_seeds(&mut self, first: usize) -> usize {
        let codes = &self.codes[first..];
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
        count
    }

    fn range(&self, read: usize, array: usize) -> Range<usize> {
        let start = if read == 0 { 0 } else { self.ends[read - 1][array] };
        start..self.ends[read][array]
    }

    /// Finds the hits of all reads: by their first seeds, and by all where that is not clear.
    fn find(&mut self, index: &Index, scores: &Scores) {
        let reads = self.ends.len();
        self.hits.resize_with(reads.max(self.hits.len()), Vec::new);
        self.left_out.clear();
        self.left_out.resize(reads, 0);
        self.buckets.clear();
        self.buckets.resize(self.seeds.len(), (0, 0));
        self.open.clear();
        self.open.extend(0..reads);
        self.pass(index, scores, |work, read| 0..work.firsts[read]);
        let mut open = std::mem::take(&mut self.open);
        open.retain(|&read| !self.is_clear(read, index.genome()));
        self.open = open;
        self.pass(index, scores, |work, read| work.firsts[read]..work.range(read, 2).len());
    }

    /// Looks up some more seeds of the open reads and extends what all looked up so far vote for.
    fn pass(
        &mut self,
        index: &Index,
        scores: &Scores,
        more: impl Fn(&Self, usize) -> Range<usize>,
    ) {
        let table = index.table();
        for number in 0..self.open.len() {
            let read = self.open[number];
            let (start, more) = (self.range(read, 2).start, more(self, read));
            let range = start + more.start..start + more.end;
            for (bucket, seed) in self.buckets[range.clone()].iter_mut().zip(&self.seeds[range]) {
                *bucket = table.bucket(seed.hash);
            }
        }
        let mut touched = 0;
        for &read in &self.open {
            let (start, more) = (self.range(read, 2).start, more(self, read));
            let buckets = &self.buckets[start + more.start..start + more.end];
            touched = buckets.iter().fold(touched, |sum, bucket| sum ^ table.touch(bucket.0));
        }
        std::hint::black_box(touched);
        self.vote(&table, |work, read| more(work, read).end);
        self.extend(index, scores);
    }

    fn vote(&mut self, table: &Table<'_>, looked_up: impl Fn(&Self, usize) -> usize) {
        self.candidates.clear();
        self.candidate_ends.clear();
        for &read in &self.open {
            let length = self.range(read, 0).len();
            let start = self.range(read, 2).start;
            let range = start..start + looked_up(self, read);
            if !range.is_empty() {
                let (seeds, buckets) = (&self.seeds[range.clone()], &self.buckets[range.clone()]);
                let (found, left_out) = self.ballot.count(table, seeds, buckets, length);
                self.candidates.extend_from_slice(found);
                self.left_out[read] = (left_out * 256 / range.len()) as u32;
            }
            self.candidate_ends.push(self.candidates.len());
        }
    }

    /// Lays the open reads on all their candidates.
    fn extend(&mut self, index: &Index, scores: &Scores) {
        let mut jobs = std::mem::take(&mut self.jobs);
        jobs.clear();
        let mut first = 0;
        for (&read, &end) in self.open.iter().zip(&self.candidate_ends) {
            let (words, length) = (self.range(read, 1), self.range(read, 0).len() as u32);
            for candidate in &self.candidates[first..end] {
                jobs.push(Job {
                    first: oriented(&words, candidate.reverse),
                    length,
                    position: candidate.diagonal,
                });
            }
            first = end;
        }
        let genome = index.genome().words();
        cpu::ungapped::ungapped(genome, &self.words, &jobs, scores, &mut self.segments);
        let mut done = jobs.iter().zip(&self.segments).zip(&self.candidates);
        first = 0;
        for (&read, &end) in self.open.iter().zip(&self.candidate_ends) {
            self.hits[read].clear();
            let own = done.by_ref().take(end - first).map(|((job, segment), candidate)| {
                Hit::ungapped(candidate, job.length, segment, scores)
            });
            self.hits[read].extend(own);
            first = end;
        }
        self.jobs = jobs;
    }

    /// Whether more seeds would say nothing new: a place that nearly matches has been found, and
    /// places that are about as good share most seeds with it.
    fn is_clear(&self, read: usize, genome: &PackedGenome) -> bool {
        let length = self.range(read, 0).len() as i32;
        let seeds = self.range(read, 2).len();
        let good =
            |hit: &Hit| hit.score >= length - CLEAR_POINTS && !genome.is_alternate(hit.position());
        seeds == self.firsts[read] || (self.left_out[read] == 0 && self.hits[read].iter().any(good))
    }

    fn view(&self, read: usize) -> ReadView<'_> {
        ReadView {
            codes: &self.codes[self.range(read, 0)],
            words: &self.words[self.range(read, 1)],
        }
    }

    /// Aligns the doubtful hits of all reads with gaps.
    fn refine(&mut self, index: &Index, scores: &Scores) {
        let mut bench = std::mem::take(&mut self.bench);
        bench.clear();
        for read in 0..self.ends.len() {
            let mut hits = std::mem::take(&mut self.hits[read]);
            self.add_doubtful(read, &mut hits, index, scores, &mut bench);
            self.hits[read] = hits;
        }
        bench.run(scores);
        bench.apply(&mut self.hits);
        self.bench = bench;
        let genome = index.genome();
        for read in 0..self.ends.len() {
            drop_repeated(&mut self.hits[read]);
            if genome.has_alternates() {
                let length = self.range(read, 0).len();
                drop_alternates(&mut self.hits[read], length, genome);
            }
        }
    }

    fn add_doubtful(
        &self,
        read: usize,
        hits: &mut [Hit],
        index: &Index,
        scores: &Scores,
        bench: &mut Bench,
    ) {
        let view = self.view(read);
        let best = hits.iter().map(|hit| hit.score).max().unwrap_or(0);
        // Beside a place without a gap that is as good, one that needs a gap can only be second.
        let gapped = view.codes.len() as i32 - i32::from(scores.gap_open + scores.gap_extend);
        let bar = if best >= gapped { best - 40 } else { i32::MIN };
        let mut left = REFINED_MAX;
        for number in 0..hits.len() {
            let (before, [hit, ..]) = hits.split_at_mut(number) else { break };
            if left == 0 || !hit.doubtful || hit.score < bar {
                continue;
            }
            // Two diagonals of one group: the first one's window holds the other's, too.
            let same = |other: &Hit| {
                other.reverse == hit.reverse
                    && other.diagonals == hit.diagonals
                    && other.diagonals.0 != other.diagonals.1
                    && !other.doubtful
            };
            if before.iter().any(same) {
                continue;
            }
            hit.doubtful = false;
            left -= 1;
            bench.add(index.genome(), &view, (read, number), hit);
        }
    }
}

/// First word of a read's one or other orientation.
fn oriented(words: &Range<usize>, reverse: bool) -> u32 {
    (words.start + if reverse { words.len() / 2 } else { 0 }) as u32
}

/// Drops the hits on alternate contigs of a read that has a place on another: they are the same
/// place again, and say nothing against it.
fn drop_alternates(hits: &mut Vec<Hit>, length: usize, genome: &PackedGenome) {
    let primary =
        |hit: &Hit| hit.score >= score_min(length) && !genome.is_alternate(hit.position());
    if hits.iter().any(primary) {
        hits.retain(|hit| !genome.is_alternate(hit.position()));
    }
}

fn is_repeated(a: &Hit, b: &Hit) -> bool {
    a.reverse == b.reverse && (a.start == b.start || a.end == b.end)
}

/// Keeps one of several hits that came to lie at the same place.
fn drop_repeated(hits: &mut Vec<Hit>) {
    if hits.len() > 1 && hits.iter().any(|hit| hit.runs.is_some()) {
        let mut kept: Vec<Hit> = Vec::with_capacity(hits.len());
        for hit in hits.drain(..) {
            match kept.iter_mut().find(|other| is_repeated(other, &hit)) {
                Some(other) if other.score < hit.score => *other = hit,
                Some(_) => {}
                None => kept.push(hit),
            }
        }
        *hits = kept;
    }
}

impl Mapper {
    /// A mapper over an index.
    pub fn new(index: Arc<Index>) -> Self {
        Self { index, scores: Scores::default() }
    }

    /// The index.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// Places the first `templates` templates of a batch; `take` gets each with its number within
    /// the batch, in order.
    pub fn place(
        &self,
        batch: &ReadBatch,
        templates: usize,
        model: &InsertModel,
        work: &mut Workspace,
        mut take: impl FnMut(usize, Placed),
    ) {
        let per_template = reads_per_template(batch.layout);
        let salt = |template: usize| batch.first_template.wrapping_add(template as u64);
        self.groups(batch, templates, work, |work, first, count| {
            work.refine(&self.index, &self.scores);
            for number in 0..count {
                let read = number * per_template;
                let placed = if per_template == 2 && read + 1 < work.ends.len() {
                    self.place_pair(work, read, model, salt(first + number))
                } else {
                    self.place_single(work, read, salt(first + number))
                };
                take(first + number, placed);
            }
        });
    }

    /// Lengths of the templates whose two ends lie surely and face each other.
    pub fn template_lengths(&self, batch: &ReadBatch, templates: usize, lengths: &mut Vec<u32>) {
        if batch.layout == Layout::Single {
            return;
        }
        let mut work = Workspace::default();
        self.groups(batch, templates, &mut work, |work, _, count| {
            for number in 0..count.min(work.ends.len() / 2) {
                let sure = [0, 1].map(|mate| {
                    let hits = &work.hits[2 * number + mate];
                    let length = work.range(2 * number + mate, 0).len();
                    choose_single(hits, length, 0, 0)
                        .filter(|choice| choice.quality >= 40)
                        .map(|choice| &hits[choice.hit])
                });
                if let [Some(first), Some(second)] = sure {
                    let length = template_length(first, second);
                    lengths.extend(length.and_then(|length| u32::try_from(length).ok()));
                }
            }
        });
    }

    /// Passes a batch through the steps up to hits, a group at a time: `each` gets the number of
    /// the group's first template and how many there are.
    fn groups(
        &self,
        batch: &ReadBatch,
        templates: usize,
        work: &mut Workspace,
        mut each: impl FnMut(&mut Workspace, usize, usize),
    ) {
        let per_template = reads_per_template(batch.layout);
        let templates = templates.min(batch.len().div_ceil(per_template));
        let group = GROUP_READS / per_template;
        for first in (0..templates).step_by(group) {
            let count = group.min(templates - first);
            let end = ((first + count) * per_template).min(batch.len());
            work.encode(batch, first * per_template..end);
            work.find(&self.index, &self.scores);
            each(work, first, count);
        }
    }

    fn place_single(&self, work: &mut Workspace, read: usize, salt: u64) -> Placed {
        let (length, left_out) = (work.range(read, 0).len(), work.left_out[read]);
        let choice = choose_single(&work.hits[read], length, salt, left_out);
        let place = choice.map(|choice| Place {
            hit: work.hits[read][choice.hit].clone(),
            quality: choice.quality,
        });
        Placed { reads: [place, None], proper: false }
    }

    fn place_pair(
        &self,
        work: &mut Workspace,
        read: usize,
        model: &InsertModel,
        salt: u64,
    ) -> Placed {
        let mut choice = self.choose(work, read, model, salt);
        if !choice.proper {
            let found = [0, 1].map(|mate| self.rescue(work, read + mate, read + 1 - mate, model));
            if found[0] || found[1] {
                choice = self.choose(work, read, model, salt);
            }
        }
        let place = |mate: usize| {
            choice.mates[mate].map(|choice| Place {
                hit: work.hits[read + mate][choice.hit].clone(),
                quality: choice.quality,
            })
        };
        Placed { reads: [place(0), place(1)], proper: choice.proper }
    }

    fn choose(&self, work: &Workspace, read: usize, model: &InsertModel, salt: u64) -> PairChoice {
        let lengths = [work.range(read, 0).len(), work.range(read + 1, 0).len()];
        let left_out = [work.left_out[read], work.left_out[read + 1]];
        let hits = [&work.hits[read][..], &work.hits[read + 1][..]];
        choose_pair(hits, lengths, model, salt, left_out)
    }

    /// Looks for `lost` around the places of its mate; whether it was found.
    fn rescue(
        &self,
        work: &mut Workspace,
        anchor: usize,
        lost: usize,
        model: &InsertModel,
    ) -> bool {
        let length = work.range(lost, 0).len();
        if length < RESCUED_BASES_MIN {
            return false;
        }
        let enough = score_min(work.range(anchor, 0).len());
        let best = work.hits[anchor].iter().map(|hit| hit.score).max().unwrap_or(0);
        let view = ReadView {
            codes: &work.codes[work.range(lost, 0)],
            words: &work.words[work.range(lost, 1)],
        };
        work.rescued.clear();
        let good = |hit: &&Hit| hit.score >= enough && hit.score >= best - 10;
        for hit in work.hits[anchor].iter().filter(good).take(ANCHORS_MAX) {
            let (low, high) = window(hit, length as u32, model);
            for candidate in scan(&self.index, &view, !hit.reverse, low, high) {
                let job = Job {
                    first: oriented(&(0..view.words.len()), candidate.reverse),
                    length: length as u32,
                    position: candidate.diagonal,
                };
                let genome = self.index.genome().words();
                cpu::ungapped::ungapped(
                    genome,
                    view.words,
                    &[job],
                    &self.scores,
                    &mut work.segments,
                );
                let segment = &work.segments[0];
                let mut hit = Hit::ungapped(&candidate, job.length, segment, &self.scores);
                if hit.doubtful {
                    work.bench.refine(self.index.genome(), &view, &mut hit, &self.scores);
                }
                if hit.score >= score_min(length) {
                    work.rescued.push(hit);
                }
            }
        }
        let known = &mut work.hits[lost];
        let before = known.len();
        for hit in work.rescued.drain(..) {
            let same =
                |other: &Hit| other.reverse == hit.reverse && other.start.abs_diff(hit.start) <= 10;
            if !known.iter().any(same) {
                known.push(hit);
            }
        }
        known.len() > before
    }
}

fn reads_per_template(layout: Layout) -> usize {
    match layout {
        Layout::Single => 1,
        Layout::Paired => 2,
    }
}

/// First and last diagonal where the mate of `anchor` may begin.
fn window(anchor: &Hit, length: u32, model: &InsertModel) -> (u32, u32) {
    if anchor.reverse {
        (anchor.end.saturating_sub(model.high), anchor.end.saturating_sub(model.low))
    } else {
        let end = anchor.start.saturating_sub(length);
        (end.saturating_add(model.low), end.saturating_add(model.high))
    }
}

/// Compares a read at every diagonal of a window: the best as a whole and the best by one word,
/// which finds reads with a gap too.
fn scan(index: &Index, view: &ReadView<'_>, reverse: bool, low: u32, high: u32) -> Vec<Candidate> {
    let words = view.oriented(reverse);
    let mut marks = [0u64; WORDS_MAX];
    let marks = &mut marks[..words.len()];
    // A last word of a few bases would match by chance.
    let full = (view.codes.len() / 64).max(1);
    let (mut whole, mut part) = ((u32::MAX, 0), (u32::MAX, 0));
    for diagonal in low..=high {
        let count = index.genome().mismatches(words, diagonal, marks);
        whole = whole.min((count, diagonal));
        let least = marks[..full].iter().map(|mark| mark.count_ones()).min().unwrap_or(u32::MAX);
        part = part.min((least, diagonal));
    }
    let mut found = Vec::new();
    let limit = view.codes.len() as u32 / 5;
    let mut add = |diagonal: u32| {
        found.push(Candidate { reverse, diagonal, low: diagonal, high: diagonal, votes: 1 });
    };
    if whole.0 <= limit {
        add(whole.1);
    }
    if part.0 <= 5 && (part.1 != whole.1 || whole.0 > limit) {
        add(part.1);
    }
    found
}
