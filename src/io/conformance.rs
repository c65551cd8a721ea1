//! The suite that every disk passes, the simulated one included, and the proof that it can fail.

use std::collections::HashSet;
use std::path::Path;

use crate::base::{Chunk, Pool};

use super::sim::{Random, SimMedium};
use super::{Completion, DISKS, Disk, Mode, Op, Preference, Ticket};

/// What is checked, and on failure what was wrong.
type Check = Result<(), String>;

const BLOCK: usize = 4096;

/// Operations in flight of the disks under test.
const DEPTH: usize = 4;

/// Runs the whole suite. `make` gives an empty disk, open for reading and writing.
fn suite(make: &mut dyn FnMut() -> Box<dyn Disk>) -> Check {
    reads_what_was_written(&mut *make())?;
    chunks_come_back_as_they_went(&mut *make())?;
    the_end_is_where_it_is(&mut *make())?;
    every_operation_completes_once(&mut *make())?;
    agrees_with_a_plain_array(&mut *make())
}

fn expect(good: bool, what: &str) -> Check {
    if good { Ok(()) } else { Err(what.into()) }
}

fn block(byte: u8, seq: u64) -> Chunk {
    Chunk::from_bytes(seq, &[byte; BLOCK])
}

fn outcome(done: Option<Completion>) -> Result<(Ticket, Option<Chunk>, usize), String> {
    let done = done.ok_or("a completion is missing")?;
    Ok((done.ticket, done.chunk, done.result.map_err(|error| error.to_string())?))
}

fn reads_what_was_written(disk: &mut dyn Disk) -> Check {
    expect(disk.wait().is_none(), "an idle disk has no completion")?;
    for number in 0..10u8 {
        let ticket = disk.submit(Op::Write {
            chunk: block(number, 0),
            offset: u64::from(number) * BLOCK as u64,
        });
        expect(outcome(disk.wait())?.0 == ticket, "the ticket names the operation")?;
    }
    disk.submit(Op::Sync);
    expect(outcome(disk.wait())?.1.is_none(), "a sync has no chunk")?;
    for number in (0..10u8).rev() {
        let bytes = super::read_at(disk, u64::from(number) * BLOCK as u64, BLOCK)
            .map_err(|error| error.to_string())?;
        expect(bytes.len() == BLOCK, "a read in the middle is whole")?;
        expect(bytes.iter().all(|byte| *byte == number), "a read gives what was written")?;
    }
    Ok(())
}

fn chunks_come_back_as_they_went(disk: &mut dyn Disk) -> Check {
    let pool = Pool::new(1, BLOCK);
    let mut chunk = pool.take();
    chunk.set_len(BLOCK);
    chunk.fill(5);
    chunk.set_seq(77);
    chunk.mark_secret();
    let memory = chunk.spare().as_ptr();
    disk.submit(Op::Write { chunk, offset: 0 });
    let (_, chunk, count) = outcome(disk.wait())?;
    let chunk = chunk.ok_or("a write's chunk comes back")?;
    expect(count == BLOCK && chunk.len() == BLOCK, "a write is whole")?;
    disk.submit(Op::Read { chunk, offset: 0, len: BLOCK });
    let (_, chunk, count) = outcome(disk.wait())?;
    let mut chunk = chunk.ok_or("a read's chunk comes back")?;
    expect(count == chunk.len(), "a read's chunk is as long as the result says")?;
    expect(chunk.seq() == 77 && chunk.is_secret(), "number and secrecy stay")?;
    expect(chunk.spare().as_ptr() == memory, "the chunk that went in comes out")?;
    drop(chunk);
    expect(pool.available() == 1, "no chunk is kept")
}

fn the_end_is_where_it_is(disk: &mut dyn Disk) -> Check {
    let text = |error: std::io::Error| error.to_string();
    super::write_at(disk, Chunk::from_bytes(0, &[1; 3 * BLOCK]), 0).map_err(text)?;
    expect(disk.size().map_err(text)? == 3 * BLOCK as u64, "the size is the end of the writes")?;
    let count = |disk: &mut dyn Disk, offset| {
        super::read_at(disk, offset, 2 * BLOCK).map(|chunk| chunk.len()).map_err(text)
    };
    expect(count(disk, 2 * BLOCK as u64)? == BLOCK, "a read across the end is short")?;
    expect(count(disk, 3 * BLOCK as u64)? == 0, "a read at the end is empty")?;
    expect(count(disk, 9 * BLOCK as u64)? == 0, "a read behind the end is empty")
}

fn every_operation_completes_once(disk: &mut dyn Disk) -> Check {
    let mut open = HashSet::new();
    for number in 0..5 * DEPTH as u64 {
        let ticket =
            disk.submit(Op::Write { chunk: block(1, number), offset: number * BLOCK as u64 });
        expect(open.insert(ticket), "tickets are distinct")?;
        if let Some(done) = disk.poll() {
            expect(open.remove(&outcome(Some(done))?.0), "a completion has its operation")?;
        }
    }
    while let Some(done) = disk.wait() {
        expect(open.remove(&outcome(Some(done))?.0), "a completion has its operation")?;
    }
    expect(open.is_empty() && disk.poll().is_none(), "every operation completes")
}

/// Rounds of writes to distinct places, all in flight together, then of reads.
fn agrees_with_a_plain_array(disk: &mut dyn Disk) -> Check {
    const BLOCKS: usize = 24;
    let (mut random, mut model) = (Random(11), vec![0u8; BLOCKS * BLOCK]);
    super::write_at(disk, Chunk::from_bytes(0, &model), 0).map_err(|error| error.to_string())?;
    for _ in 0..20 {
        let mut place = 0;
        while place < BLOCKS {
            let blocks = (1 + random.below(5)).min(BLOCKS - place);
            if random.chance(0.5) {
                let byte = random.next() as u8;
                let bytes = &mut model[place * BLOCK..(place + blocks) * BLOCK];
                bytes.fill(byte);
                let chunk = Chunk::from_bytes(0, bytes);
                disk.submit(Op::Write { chunk, offset: (place * BLOCK) as u64 });
            }
            place += blocks;
        }
        while let Some(done) = disk.wait() {
            outcome(Some(done))?;
        }
        for number in 0..DEPTH as u64 {
            let start = random.below(BLOCKS) * BLOCK;
            let len = BLOCK * (1 + random.below(BLOCKS - start / BLOCK));
            let mut chunk = Chunk::with_capacity(len);
            chunk.set_seq(start as u64 + number % 2);
            disk.submit(Op::Read { chunk, offset: start as u64, len });
        }
        while let Some(done) = disk.wait() {
            let chunk = outcome(Some(done))?.1.ok_or("a read's chunk comes back")?;
            let start = chunk.seq() as usize / BLOCK * BLOCK;
            expect(chunk[..] == model[start..start + chunk.len()], "reads agree with the model")?;
        }
    }
    Ok(())
}

fn on_file(open: super::OpenDisk, direct: bool, pool: Option<&Pool>) -> Check {
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let mut number = 0;
    suite(&mut || {
        number += 1;
        let path = folder.path().join(number.to_string());
        let preference = Preference { direct, depth: DEPTH, pool, ..Preference::default() };
        open(&path, Mode::Create, &preference).expect("a new file opens")
    })
}

#[test]
fn every_disk_passes() {
    for (name, open) in DISKS {
        let pool = Pool::new(2, BLOCK);
        for (direct, pool) in [(false, None), (true, None), (true, Some(&pool))] {
            match on_file(*open, direct, pool) {
                Ok(()) => {}
                Err(error) => panic!("{name}, direct {direct}: {error}"),
            }
        }
    }
    for seed in 0..20 {
        suite(&mut || Box::new(SimMedium::new(1 << 20, seed).open(DEPTH))).unwrap();
    }
}

#[test]
fn registered_and_other_chunks_both_work() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x");
    let pool = Pool::new(3, BLOCK);
    let file = super::open_file(&path, Mode::Create, true).unwrap();
    drop(file);
    let preference = Preference { pool: Some(&pool), ..Preference::default() };
    let mut disk = super::uring::open(&path, Mode::Write, &preference).unwrap();
    assert_eq!(pool.available(), 3);
    super::write_at(&mut *disk, block(9, 0), 0).unwrap();
    let mut chunk = pool.take();
    chunk.set_len(BLOCK);
    chunk.fill(8);
    super::write_at(&mut *disk, chunk, BLOCK as u64).unwrap();
    disk.submit(Op::Read { chunk: pool.take(), offset: 0, len: BLOCK });
    let chunk = disk.wait().unwrap().chunk.unwrap();
    assert!(chunk.iter().all(|byte| *byte == 9));
    assert!(super::read_at(&mut *disk, BLOCK as u64, BLOCK).unwrap().iter().all(|b| *b == 8));
}

#[test]
fn a_write_that_is_not_allowed_fails_and_gives_its_chunk_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x");
    std::fs::write(&path, [0; BLOCK]).unwrap();
    for (name, open) in DISKS {
        let mut disk = open(&path, Mode::Read, &Preference::default()).unwrap();
        disk.submit(Op::Write { chunk: block(1, 3), offset: 0 });
        let done = disk.wait().unwrap();
        assert!(done.result.is_err(), "{name}");
        assert_eq!(done.chunk.unwrap().seq(), 3);
    }
}

/// A disk with one defect.
struct Broken {
    disk: Box<dyn Disk>,
    defect: Defect,
    completions: u64,
}

#[derive(Clone, Copy, Debug)]
enum Defect {
    FlipsABit,
    LosesACompletion,
    ForgetsTheNumber,
    MisplacesAWrite,
    IgnoresTheEnd,
}

impl Disk for Broken {
    fn submit(&mut self, op: Op) -> Ticket {
        let op = match (op, self.defect) {
            (Op::Write { chunk, offset }, Defect::MisplacesAWrite) if offset == 5 * 4096 => {
                Op::Write { chunk, offset: offset - 4096 }
            }
            (op, _) => op,
        };
        self.disk.submit(op)
    }

    fn wait(&mut self) -> Option<Completion> {
        let mut done = self.disk.wait()?;
        self.completions += 1;
        match (self.defect, &mut done.chunk) {
            (Defect::FlipsABit, Some(chunk)) if self.completions == 14 => chunk[100] ^= 4,
            (Defect::ForgetsTheNumber, Some(chunk)) => chunk.set_seq(0),
            (Defect::IgnoresTheEnd, Some(chunk)) if chunk.is_empty() => chunk.set_len(4096),
            (Defect::LosesACompletion, _) if self.completions == 15 => return self.disk.wait(),
            _ => {}
        }
        Some(done)
    }

    fn poll(&mut self) -> Option<Completion> {
        None
    }

    fn alignment(&self) -> usize {
        self.disk.alignment()
    }

    fn size(&mut self) -> Result<u64, std::io::Error> {
        self.disk.size()
    }
}

#[test]
fn a_broken_disk_is_caught() {
    use Defect::{FlipsABit, ForgetsTheNumber, IgnoresTheEnd, LosesACompletion, MisplacesAWrite};
    for defect in [FlipsABit, LosesACompletion, ForgetsTheNumber, MisplacesAWrite, IgnoresTheEnd] {
        let outcome = suite(&mut || {
            let disk = Box::new(SimMedium::new(1 << 20, 1).open(DEPTH));
            Box::new(Broken { disk, defect, completions: 0 })
        });
        assert!(outcome.is_err(), "{defect:?} went unnoticed");
    }
}

/// The suite must not go green because a name is missing.
#[test]
fn the_registry_names_what_can_be_asked_for() {
    let names: Vec<_> = DISKS.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["uring", "blocking"]);
    assert!(DISKS.iter().all(|(_, open)| {
        open(Path::new("/nowhere/x"), Mode::Read, &Preference::default()).is_err()
    }));
}
