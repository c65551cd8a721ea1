//! A run goes on when its devices do not: lost at any call, by any number of workers, or out of memory.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use super::*;
use crate::device::Device;
use crate::device::assign::Opener;
use crate::device::conformance::check_queue;
use crate::device::conformance::double::{Double, Given};
use crate::device::table::Resident;
use crate::kernel::lookup;
use crate::kernel::ungapped::GenomeWord;

/// A device of little memory, which is lost after a number of calls, in the middle of its work.
#[derive(Clone)]
struct Weak {
    /// The largest pieces that a queue may have.
    room_bytes: usize,
    /// Calls that work.
    calls: Arc<AtomicUsize>,
    /// Calls after which memory is lacking in the middle of one, if there are any.
    memory_calls: Arc<AtomicUsize>,
    /// Cards left, each lost after as many calls as the first.
    cards: Arc<AtomicUsize>,
    calls_a_card: usize,
    /// The largest table.
    table_bytes: u64,
    /// What a run may plan with.
    free: u64,
    /// Whether it gives wrong results without an error.
    lies: bool,
    fails_at_tables: bool,
}

const NEVER: usize = usize::MAX / 2;

impl Weak {
    fn new() -> Self {
        let calls = || Arc::new(AtomicUsize::new(NEVER));
        Self {
            room_bytes: 1 << 30,
            calls: calls(),
            memory_calls: calls(),
            cards: Arc::new(AtomicUsize::new(1)),
            calls_a_card: 0,
            table_bytes: u64::MAX,
            free: u64::MAX,
            lies: false,
            fails_at_tables: false,
        }
    }

    fn lost_after(calls: usize) -> Self {
        let weak = Self::new();
        weak.calls.store(calls, Ordering::SeqCst);
        weak
    }

    fn assign(&self, workers: usize) -> Arc<Assignment> {
        Assignment::everything_on(Box::new(self.clone()), workers)
    }
}

impl Device for Weak {
    fn name(&self) -> &'static str {
        "weak"
    }

    fn model(&self) -> String {
        "for tests".into()
    }

    fn queue(&self, piece_bytes: usize) -> Result<Box<dyn Queue>, Error> {
        if piece_bytes > self.room_bytes {
            return Err(Error::NoMemory { device: "weak", piece_bytes });
        }
        let queue = open("cpu")?.queue(piece_bytes)?;
        let of = self.clone();
        let hook = move |_: Kernel, given: Given<'_>| of.call(piece_bytes, given);
        Ok(Box::new(Double { queue, hook }))
    }

    fn survives(&self) -> bool {
        self.cards.load(Ordering::SeqCst) > 0
    }

    fn room(&self, wanted: u64) -> u64 {
        wanted.min(self.free)
    }

    fn table(&self, parts: &[&[u32]]) -> Result<Resident, Error> {
        if self.fails_at_tables {
            self.cards.store(0, Ordering::SeqCst);
            return Err(Error::failed("weak", "take a table")("it was lost"));
        }
        let bytes = parts.iter().map(|part| 4 * part.len()).sum::<usize>();
        if bytes as u64 > self.table_bytes {
            return Err(Error::NoMemory { device: "weak", piece_bytes: bytes });
        }
        Ok(Arc::new(parts.concat()))
    }
}

impl Weak {
    /// After the last call that works the data is spoilt, as a device would leave it.
    fn call(&self, piece_bytes: usize, given: Given<'_>) -> Result<(), Error> {
        let less = |calls: &AtomicUsize| {
            calls.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1))
        };
        let outcome = match (less(&self.calls), less(&self.memory_calls)) {
            (Err(_), _) => {
                let one = |cards: usize| cards.checked_sub(1);
                let _ = self.cards.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one);
                self.calls.store(self.calls_a_card, Ordering::SeqCst);
                Err(Error::failed("weak", "go on")("it was lost"))
            }
            (_, Err(_)) if piece_bytes > 100_000 => {
                Err(Error::NoMemory { device: "weak", piece_bytes })
            }
            _ if self.lies => Ok(()),
            _ => return Ok(()),
        };
        if let Given::Bytes(data, _) = given {
            data.fill(0xdd);
        }
        outcome
    }
}

#[test]
fn a_device_lost_at_any_call_changes_no_byte() {
    let weak = Weak::new();
    assert_eq!(check_queue(&weak, &mut weak.assign(1).queue().unwrap()), Ok(()));
    let all = NEVER - weak.calls.load(Ordering::SeqCst);
    // Among the columns, among stripes, at each kernel over jobs, and at sealing and opening.
    for calls in (0..all - 25).step_by(6).chain(all - 25..all) {
        let weak = Weak::lost_after(calls);
        let run = weak.assign(1);
        let mut steady = run.queue().unwrap();
        assert_eq!((check_queue(&weak, &mut steady), calls), (Ok(()), calls));
        assert!(Kernel::ALL.iter().all(|kernel| run.on_cpu(*kernel)));
        assert_eq!(run.notices(), ["device 'weak' failed to go on: it was lost; the CPU goes on"]);
    }
}

#[test]
fn a_device_lost_under_many_workers_changes_no_byte_and_is_told_once() {
    let (workers, calls) = (4, 200);
    let weak = Weak::lost_after(calls);
    let run = weak.assign(workers);
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                let mut steady = run.queue().unwrap();
                assert_eq!(check_queue(&weak, &mut steady), Ok(()));
            });
        }
    });
    assert_eq!(weak.calls.load(Ordering::SeqCst), 0, "it was lost in the middle");
    assert_eq!(run.notices().len(), 1);
    // A worker that comes later does not ask it.
    assert_eq!(check_queue(&weak, &mut run.queue().unwrap()), Ok(()));
    assert_eq!(run.notices().len(), 1);
}

#[test]
fn a_lost_card_leaves_the_work_to_the_others() {
    for (cards, spare) in [(2, false), (20, true)] {
        let weak = Weak { calls_a_card: 10, ..Weak::lost_after(10) };
        weak.cards.store(cards, Ordering::SeqCst);
        let run = weak.assign(1);
        assert_eq!(check_queue(&weak, &mut run.queue().unwrap()), Ok(()));
        let left = weak.cards.load(Ordering::SeqCst);
        assert_eq!((left > 0, !run.on_cpu(Kernel::Align)), (spare, spare));
        assert_eq!(run.notices().len(), cards - left);
        let cpu = run.notices().iter().filter(|notice| notice.contains("the CPU")).count();
        assert_eq!(cpu, usize::from(!spare));
    }
}

#[test]
fn memory_is_asked_for_by_halves() {
    for (room_bytes, notices) in [(1 << 30, 0), (300 << 10, 0), (64 << 10, 0), (1000, 1)] {
        let weak = Weak { room_bytes, ..Weak::new() };
        let run = weak.assign(1);
        assert_eq!(check_queue(&weak, &mut run.queue().unwrap()), Ok(()));
        assert_eq!(run.notices().len(), notices, "{room_bytes}");
        let used = weak.calls.load(Ordering::SeqCst) < NEVER;
        assert_eq!(used, notices == 0, "{room_bytes}");
    }
}

#[test]
fn memory_that_lacks_in_the_middle_halves_the_pieces_and_changes_no_byte() {
    for calls in [0, 5, 70, 92] {
        let weak = Weak::new();
        weak.memory_calls.store(calls, Ordering::SeqCst);
        let run = weak.assign(1);
        assert_eq!(check_queue(&weak, &mut run.queue().unwrap()), Ok(()));
        assert!(run.notices().is_empty(), "smaller pieces were enough");
        assert!(!run.on_cpu(Kernel::Align));
    }
}

#[test]
fn a_table_that_does_not_fit_is_looked_up_by_the_cpu() {
    for (table_bytes, fits) in [(u64::MAX, true), (4, false)] {
        let weak = Weak { table_bytes, ..Weak::new() };
        let run = weak.assign(1);
        // Three seeds of four bits in buckets of their highest two.
        let entries = [1, 3, 2].map(|rest: u64| rest << 33);
        let seeds = run.seeds(Arc::new([0, 2, 2, 3, 3]), Arc::new(entries), (4, 2)).unwrap();
        let found = run.queue().unwrap().lookup(&seeds, &[1, 2, 3, 10]).unwrap();
        assert_eq!(found, [1, 2, 3, 10].map(|hash| lookup::scalar(seeds.seeds(), hash)));
        let words = [GenomeWord { low: 1, high: 2, unknown: 0 }];
        assert_eq!(run.genome(Arc::new(words)).unwrap().words(), &words);
        let on_cpu = Kernel::ALL.into_iter().filter(|kernel| run.on_cpu(*kernel));
        let expected: &[Kernel] = if fits { &[] } else { &[Kernel::Ungapped, Kernel::Lookup] };
        assert_eq!(on_cpu.collect::<Vec<_>>(), expected);
        assert_eq!(run.notices().len(), expected.len());
        assert_eq!(weak.calls.load(Ordering::SeqCst), NEVER - usize::from(fits));
    }
}

#[test]
fn tables_and_queues_are_planned_together() {
    // Room for two queues of the smallest pieces and for a table of 96 bytes beside them.
    let queues = 2 * 8 * (64 << 10);
    for (free, fits) in [(queues + 96, true), (queues + 95, false)] {
        let run = Weak { free, ..Weak::new() }.assign(2);
        let genome = run.genome(Arc::new(vec![GenomeWord::default(); 4])).unwrap();
        assert_eq!(size_of_val(genome.words()), 96);
        assert_eq!(run.on_cpu(Kernel::Ungapped), !fits);
    }
}

/// What opens the device that is there at the time, and counts how often it was asked.
fn opener(rest: Duration) -> (Opener, Arc<Mutex<Option<Weak>>>, Arc<AtomicUsize>) {
    let (there, asked) = (Arc::new(Mutex::new(Some(Weak::lost_after(0)))), Arc::default());
    let (of, count) = (Arc::clone(&there), Arc::<AtomicUsize>::clone(&asked));
    let open = move || {
        count.fetch_add(1, Ordering::SeqCst);
        let device = of.lock().unwrap().clone().ok_or(Error::absent("weak", "it is gone"))?;
        Ok(Box::new(device) as Box<dyn Device>)
    };
    (Opener { open: Box::new(open), rest }, there, asked)
}

#[test]
fn a_device_that_was_lost_is_used_by_the_next_job_once_its_results_are_right() {
    let (opener, there, asked) = opener(Duration::ZERO);
    let asked = || asked.load(Ordering::SeqCst);
    let first = Assignment::everything_opened_by(opener, 1).unwrap();
    assert!(!first.has_lost() && first.renewed().is_none() && asked() == 1, "it was not lost");
    let lost = there.lock().unwrap().take().unwrap();
    assert_eq!(check_queue(&Weak::new(), &mut first.queue().unwrap()), Ok(()));
    assert!(first.has_lost() && first.notices().len() == 1);
    assert_eq!(Arc::strong_count(&lost.calls), 1, "nothing is left of it");

    let lies = Weak { lies: true, ..Weak::new() };
    for not_yet in [None, Some(Weak::lost_after(0)), Some(Weak::lost_after(40)), Some(lies)] {
        let before = asked();
        *there.lock().unwrap() = not_yet;
        assert!(first.renewed().is_none() && asked() == before + 1);
    }
    assert_eq!(first.notices().len(), 1, "nothing is said of it again");

    let whole = Weak::new();
    *there.lock().unwrap() = Some(whole.clone());
    let second = first.renewed().unwrap();
    let back = "device 'weak' (for tests) gives right results again: it is used again";
    assert_eq!(second.notices(), [back]);
    assert!(Kernel::ALL.iter().all(|kernel| first.on_cpu(*kernel) && !second.on_cpu(*kernel)));
    assert_eq!(second.choices()[0].reason, "it was asked for; for tests");
    let calls = whole.calls.load(Ordering::SeqCst);
    assert_eq!(check_queue(&whole, &mut second.queue().unwrap()), Ok(()));
    assert!(whole.calls.load(Ordering::SeqCst) < calls, "it does the work");
    assert!(second.renewed().is_none());

    whole.calls.store(0, Ordering::SeqCst);
    assert_eq!(check_queue(&Weak::new(), &mut second.queue().unwrap()), Ok(()));
    assert_eq!(second.notices().len(), 2);
    *there.lock().unwrap() = Some(Weak::new());
    assert_eq!(second.renewed().unwrap().notices(), [back]);
}

#[test]
fn a_device_that_failed_a_moment_ago_is_left_alone() {
    let (opener, there, asked) = opener(Duration::from_secs(3600));
    let run = Assignment::everything_opened_by(opener, 1).unwrap();
    assert_eq!(check_queue(&Weak::new(), &mut run.queue().unwrap()), Ok(()));
    *there.lock().unwrap() = Some(Weak::new());
    assert!(run.has_lost() && run.renewed().is_none());
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

#[test]
fn a_device_lost_while_it_takes_a_table_is_lost_and_its_tables_return_with_it() {
    let (opener, there, _) = opener(Duration::ZERO);
    *there.lock().unwrap() = Some(Weak { fails_at_tables: true, ..Weak::new() });
    let run = Assignment::everything_opened_by(opener, 1).unwrap();
    let genome = |run: &Assignment| run.genome(Arc::new([GenomeWord::default()])).unwrap();
    assert!(genome(&run).resident().is::<()>() && run.has_lost());
    assert!(run.on_cpu(Kernel::Align));
    assert_eq!(
        run.notices(),
        ["device 'weak' failed to take a table: it was lost; the CPU goes on"]
    );
    // One whose memory does not suffice keeps its other kernels; another's memory may.
    for (table_bytes, fits) in [(4, false), (u64::MAX, true)] {
        *there.lock().unwrap() = Some(Weak { table_bytes, ..Weak::new() });
        let Some(run) = run.renewed() else {
            assert!(!fits, "the check's own tables do not fit");
            continue;
        };
        assert_eq!((genome(&run).resident().is::<()>(), run.on_cpu(Kernel::Align)), (!fits, false));
    }
}
