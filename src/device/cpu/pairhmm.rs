//! Penalties of many reads on many haplotypes at once, a job a vector lane.
//!
//! Jobs of one band width go together; every step of the recurrence is then the same for all lanes,
//! deletions too. A lane whose read is shorter keeps its penalty.

mod group;
mod words;

use crate::kernel::pairhmm::{BasePenalties, Batch, Job, NEVER, ReadPart, Rows, width};

use group::Group;

/// Memory of many jobs; kept from batch to batch.
#[derive(Debug)]
pub struct Lanes {
    groups: Groups,
    tables: ReadTables,
    rows: Rows,
}

/// Vectors of one kind of processor.
#[derive(Debug)]
enum Groups {
    #[cfg(target_arch = "x86_64")]
    Bits512(Group<words::Avx512, 32>),
    #[cfg(target_arch = "x86_64")]
    Bits256(Group<words::Avx2, 16>),
    Bits128(Group<words::Any, 8>),
}

impl Groups {
    /// All that this processor can do, widest vectors first.
    fn all() -> impl Iterator<Item = Self> {
        let plain = std::iter::once_with(|| Self::Bits128(Group::plain()));
        #[cfg(target_arch = "x86_64")]
        let plain = {
            let wide = Group::avx512().map(Self::Bits512);
            let half = Group::avx2().map(Self::Bits256);
            wide.into_iter().chain(half).chain(plain)
        };
        plain
    }
}

impl Default for Lanes {
    fn default() -> Self {
        let groups = Groups::all().next().expect("vectors of 128 bits are on every processor");
        Self { groups, tables: ReadTables::default(), rows: Rows::default() }
    }
}

/// The penalty of every job, as [`Batch::scalar`].
pub fn pairhmm(batch: &Batch<'_>, lanes: &mut Lanes) -> Vec<i32> {
    let mut results = vec![0; batch.jobs.len()];
    let haplotypes: Vec<bool> = batch
        .haplotypes
        .iter()
        .map(|haplotype| {
            let mut gaps = haplotype.gap_open.iter().chain(haplotype.gap_extend);
            gaps.all(|gap| (0..=NEVER).contains(gap))
        })
        .collect();
    // Whether sums stay within 16 bits, and there is something to sum.
    let fits = |job: &Job| {
        let read = batch.reads[job.read];
        let whole = read.bases.len() == read.qualities.len();
        !read.bases.is_empty() && whole && haplotypes[job.haplotype]
    };
    let (mut order, alone): (Vec<usize>, Vec<usize>) =
        (0..batch.jobs.len()).partition(|&job| fits(&batch.jobs[job]));
    for job in alone {
        results[job] = batch.scalar(job, &mut lanes.rows);
    }
    lanes.tables.fill(batch.reads, batch.penalties);
    let shape = |&job: &usize| {
        let Job { read, diagonals, .. } = batch.jobs[job];
        (width(diagonals), batch.reads[read].bases.len(), job)
    };
    order.sort_unstable_by_key(shape);
    let alike = order.chunk_by(|a, b| shape(a).0 == shape(b).0);
    let tables = &lanes.tables;
    for jobs in alike {
        match &mut lanes.groups {
            #[cfg(target_arch = "x86_64")]
            Groups::Bits512(group) => group.run_all(batch, tables, jobs, &mut results),
            #[cfg(target_arch = "x86_64")]
            Groups::Bits256(group) => group.run_all(batch, tables, jobs, &mut results),
            Groups::Bits128(group) => group.run_all(batch, tables, jobs, &mut results),
        }
    }
    results
}

/// Penalties of all bases of the reads of a batch.
#[derive(Debug, Default)]
struct ReadTables {
    agree: Vec<i16>,
    differ: Vec<i16>,
    /// Where each read begins, and where the last ends.
    begins: Vec<usize>,
}

impl ReadTables {
    fn fill(&mut self, reads: &[ReadPart<'_>], penalties: &BasePenalties) {
        self.agree.clear();
        self.differ.clear();
        self.begins.clear();
        self.begins.push(0);
        let mut table = [[0; 2]; 256];
        for (pair, quality) in table.iter_mut().zip(0..=u8::MAX) {
            *pair = penalties.pair(quality);
        }
        for read in reads {
            for (&base, &quality) in read.bases.iter().zip(read.qualities) {
                let [agree, differ] = table[usize::from(quality)];
                self.agree.push(agree);
                self.differ.push(if base > 3 { agree } else { differ });
            }
            self.begins.push(self.agree.len());
        }
    }

    /// Of one read: penalties of agreeing, and of differing.
    fn of(&self, read: usize) -> [&[i16]; 2] {
        let bases = self.begins[read]..self.begins[read + 1];
        [&self.agree[bases.clone()], &self.differ[bases]]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::pairhmm::{HaplotypePart, LIMIT_MAX};
    use proptest::collection::vec;
    use proptest::prelude::*;

    /// Compares every form with the twin, with memory that other jobs have used.
    fn compare(batch: &Batch<'_>) -> Result<(), TestCaseError> {
        let mut rows = Rows::default();
        let want: Vec<i32> =
            (0..batch.jobs.len()).map(|job| batch.scalar(job, &mut rows)).collect();
        for groups in Groups::all() {
            let mut lanes = Lanes { groups, ..Lanes::default() };
            let turned: Vec<Job> = batch.jobs.iter().rev().copied().collect();
            let other = pairhmm(&Batch { jobs: &turned, ..*batch }, &mut lanes);
            prop_assert!(other.iter().rev().eq(&want), "{:?}", want);
            prop_assert_eq!(&pairhmm(batch, &mut lanes), &want);
        }
        Ok(())
    }

    /// Bases with two penalties each, or of which the first is a quality.
    type Model = Vec<(u8, i16, i16)>;

    fn model(length: std::ops::Range<usize>, most: i16) -> impl Strategy<Value = Model> {
        vec((0u8..5, 0..most, 0..most), length)
    }

    fn compare_all(
        haplotypes: &[Model],
        reads: &[Model],
        jobs: &[Job],
    ) -> Result<(), TestCaseError> {
        let columns = |model: &Model| {
            let (bases, gaps): (Vec<u8>, Vec<_>) =
                model.iter().map(|&(base, open, extend)| (base, (open, extend))).unzip();
            let (open, extend): (Vec<i16>, Vec<i16>) = gaps.into_iter().unzip();
            (bases, open, extend)
        };
        let haplotypes: Vec<_> = haplotypes.iter().map(columns).collect();
        let haplotypes: Vec<_> = haplotypes
            .iter()
            .map(|(bases, gap_open, gap_extend)| HaplotypePart { bases, gap_open, gap_extend })
            .collect();
        let reads: Vec<(Vec<u8>, Vec<u8>)> = reads
            .iter()
            .map(|read| read.iter().map(|&(base, quality, _)| (base, quality as u8)).unzip())
            .collect();
        let reads: Vec<_> =
            reads.iter().map(|(bases, qualities)| ReadPart { bases, qualities }).collect();
        let penalties = &BasePenalties::default();
        compare(&Batch { reads: &reads, haplotypes: &haplotypes, jobs, penalties })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        #[test]
        fn many_jobs_have_the_penalties_of_the_twin(
            haplotypes in vec(model(0..150, 1500), 1..5),
            reads in vec(model(0..130, 70), 1..9),
            jobs in vec((0usize..99, 0usize..99, -70i32..90, -2i32..70, 0usize..5), 0..90),
            related in any::<bool>(),
        ) {
            let mut reads = reads;
            if related {
                for (at, read) in reads.iter_mut().enumerate() {
                    let haplotype = &haplotypes[at % haplotypes.len()];
                    for (base, from) in read.iter_mut().zip(haplotype.iter().skip(at)) {
                        base.0 = if base.1 == 3 { base.0 } else { from.0 };
                    }
                }
            }
            let jobs: Vec<Job> = jobs
                .into_iter()
                .map(|(read, haplotype, first, width, limit)| Job {
                    read: read % reads.len(),
                    haplotype: haplotype % haplotypes.len(),
                    diagonals: (first, first + width),
                    limit: [LIMIT_MAX, 1 << 20, 2000, 0, -5][limit],
                })
                .collect();
            compare_all(&haplotypes, &reads, &jobs)?;
        }
    }

    fn job(read: usize, haplotype: usize) -> Job {
        Job { read, haplotype, diagonals: (-9, 14), limit: LIMIT_MAX }
    }

    #[test]
    fn groups_that_are_not_full_hold_what_they_have() {
        let model: Model = (0..40).map(|at| ((at * at / 3 % 4) as u8, 900, 100)).collect();
        let reads: Vec<Model> = (1..34).map(|length| model[3..3 + length].to_vec()).collect();
        for count in [1, 7, 8, 9, 15, 16, 17, 31, 32, 33] {
            let jobs: Vec<Job> = (0..count).map(|read| job(read, 0)).collect();
            compare_all(std::slice::from_ref(&model), &reads, &jobs).unwrap();
        }
    }

    #[test]
    fn the_greatest_penalties_stay_within_their_numbers() {
        // Nothing agrees, at the highest quality; gaps cost nothing, or more than any path.
        let reads: Vec<Model> = vec![vec![(0, 60, 0); 300], vec![(4, 60, 0); 300]];
        let gaps = [(NEVER, NEVER), (0, NEVER), (NEVER, 0), (0, 0), (2073, NEVER), (-1, 0)];
        let haplotypes: Vec<Model> =
            gaps.iter().map(|&(open, extend)| vec![(1, open, extend); 280]).collect();
        let jobs: Vec<Job> = (0..12).map(|at| job(at % 2, at / 2)).collect();
        compare_all(&haplotypes, &reads, &jobs).unwrap();
    }
}
