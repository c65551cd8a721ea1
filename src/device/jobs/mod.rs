//! Jobs as words for a device: many small tasks that know nothing of each other, a thread each.
//!
//! A launch lies in a lane's memory as words of 32 bits, lowest byte first:
//!
//! ```text
//! header | an entry for each job | data that entries point into | results | scratch
//! ```
//!
//! The header's first word is the number of words of a result. Scratch is not copied; word `i` of
//! thread `t` is word `i * threads + t`, so that neighbouring threads touch neighbouring words. What is
//! shared between the threads of a block holds rows of the kernels' states, as many words a thread as the
//! longest needs. What no
//! launch can hold, and what a device gives up, is done by the CPU: the results are the same.

use std::collections::HashMap;

use super::Error;
use super::lane::{Function, Lane, Launch};
use super::table::Resident;

pub(super) mod align;
pub(super) mod align_pairs;
pub(super) mod lookup;
pub(super) mod pack;
pub(super) mod pairhmm;
pub(super) mod ungapped;

/// Most threads of one launch: WebGPU starts no more workgroups than 65,535, of 32 threads at least.
const THREADS_MAX: usize = 65_535 * 32;

/// Longest row of states that the threads of a block keep in what they share, in words; longer ones are
/// scratch. WebGPU has 16 KiB for 32 threads.
const ROW_MAX: usize = 128;

/// Memory that a thread needs besides what is copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Need {
    scratch_words: usize,
    shared_words: usize,
}

impl Need {
    /// A row of so many words.
    fn of_row(words: usize) -> Self {
        match words <= ROW_MAX {
            true => Self { scratch_words: 0, shared_words: words },
            false => Self { scratch_words: words, shared_words: 0 },
        }
    }

    /// With so many words of scratch more.
    fn and(self, scratch_words: usize) -> Self {
        Self { scratch_words: self.scratch_words + scratch_words, ..self }
    }

    /// Enough for either.
    fn max(self, other: Self) -> Self {
        Self {
            scratch_words: self.scratch_words.max(other.scratch_words),
            shared_words: self.shared_words.max(other.shared_words),
        }
    }
}

/// Many jobs of one kernel.
pub(super) trait Jobs {
    /// What a job gives.
    type Output;
    /// The kernel.
    const FUNCTION: Function;
    /// Words before the entries.
    const HEADER_WORDS: usize;
    /// Words of an entry.
    const ENTRY_WORDS: usize;
    /// Threads that do a job; each has an entry and a result.
    const THREADS: usize = 1;

    /// How many there are.
    fn count(&self) -> usize;

    /// Words of a thread's result.
    fn result_words(&self) -> usize;

    /// How long a job takes. Those that take as long as each other go to neighbouring threads.
    fn weight(&self, _job: usize) -> usize {
        0
    }

    /// The part of the table that a job needs.
    fn part(&self, _job: usize) -> usize {
        0
    }

    /// A part of the table that the kernel reads.
    fn table(&self, _part: usize) -> Option<&Resident> {
        None
    }

    /// The header from its second word on, of a launch over that part.
    fn header(&self, part: usize) -> Vec<u32>;

    /// Adds one job to a batch and tells what its threads need; `None`, and nothing added, when only
    /// the CPU can do it.
    fn add(&self, job: usize, batch: &mut Batch) -> Option<Need>;

    /// The result from its words; `None` when the device gave it up.
    fn result(&self, job: usize, words: &[u32]) -> Option<Self::Output>;

    /// Does one job on the CPU.
    fn on_cpu(&self, job: usize) -> Self::Output;
}

/// Jobs of one launch.
#[derive(Default)]
pub(super) struct Batch {
    jobs: Vec<usize>,
    entries: Vec<u32>,
    data: Vec<u32>,
    /// Where data that several jobs use was put, by the name that the jobs give it.
    placed: HashMap<(usize, usize), u32>,
    need: Need,
    /// Of the table.
    part: usize,
    /// The launch, and its words up to the results.
    sealed: Option<(Launch, Vec<u32>)>,
}

impl Batch {
    /// Adds words of data once for each `name`; gives where they begin.
    pub(super) fn place(&mut self, name: (usize, usize), words: impl Iterator<Item = u32>) -> u32 {
        *self.placed.entry(name).or_insert_with(|| {
            let at = self.data.len() as u32;
            self.data.extend(words);
            at
        })
    }

    /// Adds words of data; gives where they begin.
    pub(super) fn append(&mut self, words: impl Iterator<Item = u32>) -> u32 {
        let at = self.data.len() as u32;
        self.data.extend(words);
        at
    }

    /// Adds a job's entry.
    pub(super) fn enter(&mut self, entry: &[u32]) {
        self.entries.extend_from_slice(entry);
    }

    /// Where results and scratch begin and where all ends, in words.
    fn bounds<J: Jobs>(&self, jobs: &J) -> [usize; 3] {
        let threads = self.jobs.len() * J::THREADS;
        let given = J::HEADER_WORDS + threads * J::ENTRY_WORDS + self.data.len();
        let output_at = given.next_multiple_of(4);
        let scratch_at = (output_at + threads * jobs.result_words()).next_multiple_of(4);
        [output_at, scratch_at, scratch_at + threads * self.need.scratch_words]
    }

    fn seal<J: Jobs>(&mut self, jobs: &J) {
        let [output_at, scratch_at, _] = self.bounds(jobs);
        let mut words = Vec::with_capacity(output_at);
        words.push(jobs.result_words() as u32);
        words.extend(jobs.header(self.part));
        words.resize(J::HEADER_WORDS, 0);
        words.append(&mut self.entries);
        words.append(&mut self.data);
        words.resize(output_at, 0);
        let count = (self.jobs.len() * J::THREADS) as u32;
        let launch = Launch {
            function: J::FUNCTION,
            threads: count,
            numbers: [count, output_at as u32, scratch_at as u32],
            up: 4 * output_at,
            down: 4 * output_at..4 * scratch_at,
            table: jobs.table(self.part).cloned(),
            shared_words: self.need.shared_words,
        };
        self.sealed = Some((launch, words));
    }

    /// Starts the launch.
    pub(super) fn start<L: Lane>(&self, lane: &mut L) -> Result<(), Error> {
        let (launch, words) = self.sealed.as_ref().expect("batches come out sealed");
        lane.start(launch, std::iter::once((0, bytemuck::cast_slice(words))))
    }

    /// Waits for the launch and takes its results.
    pub(super) fn finish<J: Jobs, L: Lane>(
        self,
        jobs: &J,
        lane: &mut L,
        results: &mut [Option<J::Output>],
    ) -> Result<(), Error> {
        let each = J::THREADS * jobs.result_words();
        let mut words = vec![0_u32; self.jobs.len() * each];
        lane.finish(std::iter::once((0, bytemuck::cast_slice_mut(&mut words))))?;
        for (job, words) in self.jobs.into_iter().zip(words.chunks_exact(each.max(1))) {
            results[job] = jobs.result(job, words);
        }
        Ok(())
    }
}

/// Cuts jobs into batches that a lane has room for, in order.
pub(super) struct Batches<'a, J> {
    jobs: &'a J,
    /// By the part of the table that they need, then by their weight.
    order: Vec<(usize, usize)>,
    next: usize,
    /// Words that are copied, and besides these words of scratch.
    room_words: usize,
    scratch_words: usize,
}

impl<'a, J: Jobs> Batches<'a, J> {
    /// For lanes that copy `room_words` and have `scratch_words` more.
    pub(super) fn new(jobs: &'a J, room_words: usize, scratch_words: usize) -> Self {
        let mut order: Vec<_> = (0..jobs.count()).map(|job| (jobs.part(job), job)).collect();
        order.sort_by_cached_key(|&(part, job)| (part, jobs.weight(job)));
        Self { jobs, order, next: 0, room_words, scratch_words }
    }

    /// Adds the next job, unless it does not fit any more. Jobs that never fit are left out.
    fn extend(&mut self, batch: &mut Batch) -> bool {
        let (entries, data, before) = (batch.entries.len(), batch.data.len(), batch.need);
        let (part, job) = self.order[self.next];
        if batch.jobs.is_empty() {
            batch.part = part;
        } else if batch.part != part {
            return false;
        }
        let Some(need) = self.jobs.add(job, batch) else {
            self.next += 1;
            return true;
        };
        batch.jobs.push(job);
        batch.need = before.max(need);
        let [_, copied, all] = batch.bounds(self.jobs);
        if batch.jobs.len() * J::THREADS <= THREADS_MAX
            && copied <= self.room_words
            && all <= self.room_words + self.scratch_words
        {
            self.next += 1;
            return true;
        }
        batch.jobs.pop();
        batch.entries.truncate(entries);
        batch.data.truncate(data);
        batch.placed.retain(|_, at| (*at as usize) < data);
        batch.need = before;
        let never_fits = batch.jobs.is_empty();
        self.next += usize::from(never_fits);
        never_fits
    }
}

impl<J: Jobs> Iterator for Batches<'_, J> {
    type Item = Batch;

    fn next(&mut self) -> Option<Batch> {
        let mut batch = Batch::default();
        while self.next < self.order.len() && self.extend(&mut batch) {}
        batch.seal(self.jobs);
        (!batch.jobs.is_empty()).then_some(batch)
    }
}

/// Base codes, eight a word; what is not A, C, G or T becomes 4.
pub(super) fn nibbles(codes: &[u8]) -> impl Iterator<Item = u32> + '_ {
    codes
        .chunks(8)
        .map(|eight| eight.iter().rev().fold(0, |word, &code| word << 4 | u32::from(code.min(4))))
}

/// Bases of a read, two a word: code below, quality above, eight bits each.
pub(super) fn bases<'a>(codes: &'a [u8], qualities: &'a [u8]) -> impl Iterator<Item = u32> + 'a {
    let base = |(code, quality): (&u8, &u8)| u32::from(*code) | u32::from(*quality) << 8;
    codes.chunks(2).zip(qualities.chunks(2)).map(move |(codes, qualities)| {
        codes.iter().zip(qualities).map(base).rev().fold(0, |word, base| word << 16 | base)
    })
}

/// Two signed numbers of 16 bits in one word, the first below.
pub(super) fn pair(low: i16, high: i16) -> u32 {
    u32::from(low as u16) | u32::from(high as u16) << 16
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each job is a number, takes as many words of data, and gives itself.
    struct Numbers(Vec<usize>);

    impl Jobs for Numbers {
        type Output = usize;
        const FUNCTION: Function = Function::Align;
        const HEADER_WORDS: usize = 3;
        const ENTRY_WORDS: usize = 1;

        fn count(&self) -> usize {
            self.0.len()
        }

        fn result_words(&self) -> usize {
            2
        }

        fn header(&self, _part: usize) -> Vec<u32> {
            vec![7]
        }

        fn add(&self, job: usize, batch: &mut Batch) -> Option<Need> {
            let number = self.0[job];
            if number == 13 {
                return None;
            }
            let at = batch.place((0, number), (0..number).map(|word| word as u32));
            batch.enter(&[at]);
            Some(Need::default().and(number / 2))
        }

        fn result(&self, _: usize, words: &[u32]) -> Option<usize> {
            Some(words[0] as usize)
        }

        fn on_cpu(&self, job: usize) -> usize {
            self.0[job]
        }
    }

    proptest::proptest! {
        #[test]
        fn batches_hold_every_job_once_in_order_and_fit(
            numbers in proptest::collection::vec(0usize..40, 0..60), room in 30usize..120,
            more in 0usize..50,
        ) {
            let jobs = Numbers(numbers.clone());
            let mut seen = Vec::new();
            for batch in Batches::new(&jobs, room, more) {
                let (launch, words) = batch.sealed.as_ref().unwrap();
                let scratch = batch.jobs.iter().map(|&job| numbers[job] / 2).max().unwrap();
                let scratch_at = launch.numbers[2] as usize;
                proptest::prop_assert!(scratch_at <= room);
                proptest::prop_assert!(scratch_at + scratch * batch.jobs.len() <= room + more);
                proptest::prop_assert_eq!(&words[..3], &[2, 7, 0]);
                let data = &words[3 + batch.jobs.len()..];
                for (&job, &at) in batch.jobs.iter().zip(&words[3..]) {
                    let words = &data[at as usize..at as usize + numbers[job]];
                    let own = words.iter().enumerate().all(|(at, &word)| word as usize == at);
                    proptest::prop_assert!(own);
                }
                seen.extend(&batch.jobs);
            }
            proptest::prop_assert!(seen.is_sorted());
            for (job, &number) in numbers.iter().enumerate() {
                // Header, entry and data, results, scratch, each on a multiple of four words.
                let copied = ((4 + number).next_multiple_of(4) + 2).next_multiple_of(4);
                let fits = copied <= room && copied + number / 2 <= room + more;
                proptest::prop_assert_eq!(seen.contains(&job), number != 13 && fits);
            }
        }
    }
}
