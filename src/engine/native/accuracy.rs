//! Accuracy and speed of mapping on the simulated benchmark genome; run by hand:
//! `DSGD_SIM=folder cargo test --release --lib native::accuracy -- --ignored --nocapture`, where
//! the folder is what `sim_120mb/make.sh` of the test data has made.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use super::aligned::AlignedRead;
use super::extend::SOFT_CLIP;
use super::insert::InsertModel;
use super::place::{REVERSE, UNMAPPED, aligned};
use super::simulate::mapper;
use super::{Assignment, Index, Native};
use crate::base::Chunk;
use crate::base::clock::Stopwatch;
use crate::engine::{CallRequest, Engine};
use crate::flow::{Flow, Meters};
use crate::genome::lanes::{Input, Lane, reads};
use crate::genome::reads::ReadRange;
use crate::genome::{Layout, ReadBatch, Reference};

const BATCH_TEMPLATES: usize = 4096;

fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

fn folder() -> Option<PathBuf> {
    let folder = std::env::var_os("DSGD_SIM").map(PathBuf::from);
    if folder.is_none() {
        say("skipped: DSGD_SIM names no folder");
    }
    folder
}

/// Processor time of this thread.
fn processor_time() -> Duration {
    duration(ClockId::ThreadCPUTime)
}

fn duration(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// The first templates of two FASTQ files of four-line records.
fn batches(folder: &Path, set: &str, templates: usize) -> Vec<ReadBatch> {
    let open = |mate| std::fs::read(folder.join(format!("{set}_{mate}.fq"))).unwrap();
    let texts = [open(1), open(2)];
    let mut lines = [0, 1].map(|mate| texts[mate].split(|&byte| byte == b'\n'));
    let mut batches = Vec::new();
    'all: for seq in 0..templates.div_ceil(BATCH_TEMPLATES) {
        let mut batch = ReadBatch {
            seq: seq as u64,
            layout: Layout::Paired,
            read_group: 0,
            first_template: (seq * BATCH_TEMPLATES) as u64,
            text: Vec::new(),
            reads: Vec::new(),
        };
        for _ in 0..BATCH_TEMPLATES.min(templates - seq * BATCH_TEMPLATES) {
            for lines in &mut lines {
                let mut put = |line: Option<&[u8]>| {
                    let start = batch.text.len() as u32;
                    batch.text.extend_from_slice(line.unwrap_or(&[]));
                    start..batch.text.len() as u32
                };
                let name = put(lines.next().and_then(|line| line.get(1..)));
                let bases = put(lines.next());
                lines.next();
                let qualities = put(lines.next());
                if name.is_empty() {
                    batches.push(batch);
                    break 'all;
                }
                batch.reads.push(ReadRange { name, bases, qualities });
            }
        }
        batches.push(batch);
    }
    batches
}

#[derive(Default)]
struct Tally {
    reads: u64,
    correct: u64,
    sure: u64,
    sure_wrong: u64,
    /// Of these, reads whose first aligned base is where it came from: what was clipped is adapter.
    sure_clipped: u64,
    some: u64,
    some_wrong: u64,
    junk: u64,
    junk_sure: u64,
    mapped: u64,
}

impl Tally {
    fn add(&mut self, read: &AlignedRead, truth: Option<(u32, i64)>) {
        let mapped = read.flags & UNMAPPED == 0;
        let Some((contig, position)) = truth else {
            self.junk += 1;
            self.junk_sure += u64::from(mapped && read.mapping_quality >= 20);
            return;
        };
        let correct = mapped && is_right(read, contig, position);
        self.reads += 1;
        self.mapped += u64::from(mapped);
        self.correct += u64::from(correct);
        if mapped && read.mapping_quality >= 20 {
            self.sure += 1;
            self.sure_wrong += u64::from(!correct);
            let exact = read.contig == contig && i64::from(read.position) == position;
            self.sure_clipped += u64::from(!correct && exact);
        }
        if mapped && read.mapping_quality >= 1 {
            self.some += 1;
            self.some_wrong += u64::from(!correct);
        }
    }

    fn say(&self) {
        let percent = |part: u64, whole: u64| 100.0 * part as f64 / whole.max(1) as f64;
        say(&format!(
            "{} reads: mapped {:.3} %, correct {:.3} %, MAPQ>=20 {:.3} % with error {:.4} % ({} reads, \
             {} of them for their clipped adapter alone), MAPQ>=1 error {:.4} %; {} contaminants, {} with MAPQ>=20",
            self.reads,
            percent(self.mapped, self.reads),
            percent(self.correct, self.reads),
            percent(self.sure, self.reads),
            percent(self.sure_wrong, self.sure),
            self.sure_wrong,
            self.sure_clipped,
            percent(self.some_wrong, self.some),
            self.junk,
            self.junk_sure
        ));
    }
}

/// Right contig, and the start with clips undone within 50 bases.
fn is_right(read: &AlignedRead, contig: u32, position: i64) -> bool {
    let clip = read.cigar.first().map_or(0, |op| if op & 15 == SOFT_CLIP { op >> 4 } else { 0 });
    let start = i64::from(read.position) - i64::from(clip);
    read.contig == contig && (start - position).abs() <= 50
}

/// Contig and 0-based start of a read, from its name.
fn truth(name: &[u8], last: bool, contigs: &HashMap<&str, u32>) -> Option<(u32, i64)> {
    let text = std::str::from_utf8(name).ok()?;
    let fields: Vec<&str> = text.split(':').collect();
    let contig = *contigs.get(fields.get(2)?)?;
    Some((contig, fields.get(if last { 4 } else { 3 })?.parse::<i64>().ok()? - 1))
}

/// Says how long `work` took, on the clock and on all processors, and the memory's peak so far.
fn timed<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let (watch, start) = (Stopwatch::start(), duration(ClockId::ProcessCPUTime));
    let result = work();
    let used = duration(ClockId::ProcessCPUTime) - start;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find(|line| line.starts_with("VmHWM")).unwrap_or_default();
    let wall = watch.elapsed();
    say(&format!("{what}: {wall:.2?}, {used:.2?} of processor time, {peak}"));
    result
}

fn input<'a>(path: &Path) -> Input<'a> {
    let mut file = std::fs::File::open(path).unwrap();
    let chunks = std::iter::from_fn(move || {
        let mut bytes = vec![0; 1 << 20];
        let count = file.read(&mut bytes).unwrap();
        (count > 0).then(|| Ok(Chunk::from_bytes(0, &bytes[..count])))
    });
    let file = path.display().to_string();
    Input { file, bytes: Flow::source(&Meters::default(), "file", chunks) }
}

#[test]
#[ignore = "needs the benchmark genome"]
fn the_whole_engine_takes_its_time() {
    let Some(folder) = folder() else { return };
    let fasta = std::fs::File::open(folder.join("hsim.fa")).unwrap();
    let reference = timed("reference", || Reference::read_fasta(fasta).unwrap());
    let index = timed("index", || Arc::new(Index::build(&reference, 2).unwrap()));
    let engine = Native::new(index, Assignment::cpu()).unwrap();
    let set = std::env::var("DSGD_SIM_SET").unwrap_or("r1m".into());
    let [one, two] = [1, 2].map(|mate| input(&folder.join(format!("{set}_{mate}.fq"))));
    let request = CallRequest { threads: 2, ..CallRequest::new(&reference) };
    let meters = Meters::default();
    let reads = Flow::source(&meters, "reads", reads(vec![(0, Lane::Pair(one, two))]));
    let mut vcf = Vec::new();
    let report = timed("call", || engine.call(&request, reads, &meters, &mut vcf, None).unwrap());
    say(&format!(
        "{} reads, {} mapped, {} duplicates, {} records",
        report.reads, report.mapped, report.duplicates, report.records
    ));
    for stage in meters.snapshot() {
        say(&format!("{stage:?}"));
    }
    if let Some(path) = std::env::var_os("DSGD_CALLS") {
        std::fs::write(path, &vcf).unwrap();
    }
}

#[test]
#[ignore = "needs the benchmark genome"]
fn reads_map_where_they_came_from() {
    let Some(folder) = folder() else { return };
    let number = |name: &str, or: usize| std::env::var(name).map_or(or, |n| n.parse().unwrap());
    let fasta = std::fs::File::open(folder.join("hsim.fa")).unwrap();
    let reference = Reference::read_fasta(fasta).unwrap();
    let watch = Stopwatch::start();
    let index = Index::build(&reference, 2).unwrap();
    say(&format!(
        "index: {:.2} s, {} entries",
        watch.elapsed().as_secs_f64(),
        index.entries.all().len()
    ));
    let set = std::env::var("DSGD_SIM_SET").unwrap_or("r1m".into());
    let batches = batches(&folder, &set, number("DSGD_SIM_TEMPLATES", 200_000));
    let mapper = mapper(index);
    let mut lengths = Vec::new();
    mapper.template_lengths(&batches[0], BATCH_TEMPLATES, &mut lengths).unwrap();
    let model = InsertModel::learn(lengths);
    say(&format!("insert size {:.1} +- {:.1}, <= {}", model.mean, model.deviation, model.high));
    let contigs = reference.indexes();
    let mut work = mapper.workspace().unwrap();
    let (mut all, mut human, mut time) = (Tally::default(), Tally::default(), Duration::ZERO);
    let mut log =
        std::env::var("DSGD_SIM_LOG").ok().map(|path| std::fs::File::create(path).unwrap());
    for batch in &batches {
        let mut reads = Vec::with_capacity(batch.len());
        let start = processor_time();
        let take = |template, placed| {
            aligned(mapper.index().genome(), batch, template, &placed, |index, read| {
                reads.push((index, read));
            });
        };
        mapper.place(batch, &model, &mut work, take).unwrap();
        time += processor_time() - start;
        for (index, read) in &reads {
            let truth = truth(batch.name(*index), index % 2 == 1, &contigs);
            all.add(read, truth);
            let real = |contig: u32| reference.contigs[contig as usize].name.starts_with("g3");
            if truth.is_some_and(|truth| real(truth.0)) {
                human.add(read, truth);
            }
            if let (Some(log), Some((contig, position))) = (&mut log, truth) {
                let wrong = !is_right(read, contig, position);
                let line = format!(
                    "{} {} {} {}:{}{} {} {:?}\n",
                    String::from_utf8_lossy(batch.name(*index)),
                    index % 2 + 1,
                    if wrong { "wrong" } else { "right" },
                    reference.contigs.get(read.contig as usize).map_or("*", |c| &c.name),
                    read.position + 1,
                    if read.flags & REVERSE != 0 { '-' } else { '+' },
                    read.mapping_quality,
                    read.cigar.iter().map(|op| (op >> 4, op & 15)).collect::<Vec<_>>(),
                );
                if wrong || read.mapping_quality < 20 {
                    log.write_all(line.as_bytes()).unwrap();
                }
            }
        }
    }
    all.say();
    human.say();
    let reads: usize = batches.iter().map(ReadBatch::len).sum();
    let seconds = time.as_secs_f64();
    say(&format!("{seconds:.2} processor seconds, {:.0} reads/s a thread", reads as f64 / seconds));
}
