//! Thread boundaries: bounded channels that keep the order and count the waiting.

use std::sync::Arc;
use std::thread::Scope;

use crossbeam::channel::{Receiver, Sender, bounded};

use super::{Flow, Meter, Result, Weigh};
use crate::base::clock::Stopwatch;

impl<'a, T: Weigh + Send + 'a> Flow<'a, T> {
    /// Runs everything up to here on a thread of its own, at most `depth` items ahead.
    ///
    /// The thread ends when the input does, at an error, or when nobody pulls any more.
    pub fn on_thread<'scope>(self, scope: &'scope Scope<'scope, '_>, depth: usize) -> Flow<'a, T>
    where
        'a: 'scope,
    {
        let (sender, receiver) = bounded(depth.max(1));
        let (meters, last) = (self.meters.clone(), self.last.clone());
        let meter = last.clone();
        scope.spawn(move || {
            for item in self {
                if !send_counted(&sender, item, &meter) {
                    break;
                }
            }
        });
        Flow::new(Box::new(receiver.into_iter()), meters, last, true)
    }

    /// Applies `work` on `workers` threads and gives the results in the order of the input.
    pub fn map_parallel<'scope, U, F>(
        self,
        scope: &'scope Scope<'scope, '_>,
        name: &'static str,
        workers: usize,
        work: F,
    ) -> Flow<'a, U>
    where
        'a: 'scope,
        U: Weigh + Send + 'a,
        F: Fn(T) -> Result<U> + Send + Sync + 'a,
    {
        let workers = workers.max(1);
        let meters = self.meters.clone();
        let meter = meters.add(name, workers);
        let (jobs, queue) = bounded::<Job<T, U>>(workers);
        let (promises, results) = bounded(2 * workers);
        let upstream = self.last.clone();
        scope.spawn(move || hand_out(self, &jobs, &promises, &upstream));
        let work = Arc::new(work);
        for _ in 0..workers {
            let (queue, work, meter) = (queue.clone(), work.clone(), meter.clone());
            scope.spawn(move || run_jobs(&queue, &*work, &meter));
        }
        let ordered = results.into_iter().map_while(|promise: Receiver<_>| promise.recv().ok());
        Flow::new(Box::new(ordered), meters, meter, true)
    }
}

/// An item and where its result is expected.
type Job<T, U> = (T, Sender<Result<U>>);

fn hand_out<T: Send, U>(
    input: Flow<'_, T>,
    jobs: &Sender<Job<T, U>>,
    promises: &Sender<Receiver<Result<U>>>,
    upstream: &Meter,
) {
    for item in input {
        let (result, promise) = bounded(1);
        if !send_counted(promises, promise, upstream) {
            return;
        }
        match item {
            Ok(item) => {
                if !send_counted(jobs, (item, result), upstream) {
                    return;
                }
            }
            Err(error) => {
                // The promise is in line already; the consumer meets the error in its order.
                let _ = result.send(Err(error));
                return;
            }
        }
    }
}

fn run_jobs<T: Weigh, U: Weigh>(
    queue: &Receiver<Job<T, U>>,
    work: &(dyn Fn(T) -> Result<U> + '_),
    meter: &Meter,
) {
    loop {
        let waiting = Stopwatch::start();
        let Ok((item, promise)) = queue.recv() else { return };
        meter.starved(waiting.elapsed());
        meter.came_in(item.weight());
        let working = Stopwatch::start();
        let result = work(item);
        meter.busy(working.elapsed());
        if let Ok(result) = &result {
            meter.came_out(result.weight());
        }
        // Nobody waits for the result when the flow was dropped or met an earlier error.
        let _ = promise.send(result);
    }
}

/// Sends and counts the waiting; `false` when nobody receives any more.
fn send_counted<T>(sender: &Sender<T>, item: T, meter: &Meter) -> bool {
    let waiting = Stopwatch::start();
    let sent = sender.send(item).is_ok();
    meter.blocked(waiting.elapsed());
    sent
}
