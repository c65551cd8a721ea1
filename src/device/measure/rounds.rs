//! Every step in turn, by all workers at the same time, again and again: what slows the machine down for a
//! while slows a kernel and its limit down alike.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Barrier, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use super::inputs::Inputs;
use super::work::{Step, Work};
use crate::base::clock::Stopwatch;
use crate::device::{Device, Error};

/// Rounds that are made in any case.
const ROUNDS_MIN: usize = 2;

/// Seconds of every run of every step, from when the first worker began to when the last one was done.
///
/// A first round, to warm up, is not told. Errors: the first one that a worker had.
pub(super) fn run(
    device: &dyn Device,
    inputs: &Inputs,
    steps: &[Step],
    workers: usize,
) -> Result<Vec<Vec<f64>>, Error> {
    let together = Together {
        device: device.name(),
        barrier: Barrier::new(workers),
        go_on: AtomicBool::new(true),
        failure: Mutex::new(None),
    };
    let times = thread::scope(|scope| {
        let others: Vec<_> = (1..workers)
            .map(|_| scope.spawn(|| together.worker(device, inputs, steps, false)))
            .collect();
        let times = together.worker(device, inputs, steps, true);
        others.into_iter().for_each(|other| drop(other.join()));
        times
    });
    let failure = together.failure.into_inner().unwrap_or_else(PoisonError::into_inner);
    failure.map_or(Ok(times), Err)
}

/// What the workers of a measurement have in common.
struct Together {
    device: &'static str,
    barrier: Barrier,
    go_on: AtomicBool,
    failure: Mutex<Option<Error>>,
}

impl Together {
    fn worker(
        &self,
        device: &dyn Device,
        inputs: &Inputs,
        steps: &[Step],
        leads: bool,
    ) -> Vec<Vec<f64>> {
        let mut times = vec![Vec::new(); steps.len()];
        let jobs = inputs.jobs();
        let Some((mut work, _)) = self.at_once(|| Work::new(device, inputs, &jobs)) else {
            return times;
        };
        let all = Stopwatch::start();
        for round in 0.. {
            for (step, times) in steps.iter().zip(&mut times) {
                let Some(((), time)) = self.at_once(|| work.run(*step)) else { return Vec::new() };
                if round > 0 {
                    times.push(time.as_secs_f64());
                }
            }
            let enough = all.elapsed() >= inputs.effort.time * steps.len() as u32;
            if leads && round >= ROUNDS_MIN && enough {
                self.go_on.store(false, Ordering::Relaxed);
            }
            // The barrier orders this store before every load behind it.
            self.barrier.wait();
            if !self.go_on.load(Ordering::Relaxed) {
                break;
            }
        }
        times
    }

    /// Does `work` in every worker at the same time, and gives how long it took for all of them; nothing when
    /// it failed in one of them, in every worker alike.
    fn at_once<T>(&self, work: impl FnOnce() -> Result<T, Error>) -> Option<(T, Duration)> {
        self.barrier.wait();
        let watch = Stopwatch::start();
        let done = catch_unwind(AssertUnwindSafe(work))
            .unwrap_or_else(|_| Err(Error::failed(self.device, "measure a kernel")("it panicked")));
        let done = done.map_err(|error| {
            self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        });
        self.barrier.wait();
        let time = watch.elapsed();
        // No worker can fail at the next step before all have been here: it begins with a barrier.
        let failed = self.failure.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        done.ok().filter(|_| !failed).map(|done| (done, time))
    }
}
