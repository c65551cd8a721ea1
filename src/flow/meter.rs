//! What each stage did and what it waited for.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The counters of one stage. Times of parallel workers add up.
#[derive(Debug)]
pub struct Meter {
    name: &'static str,
    workers: u64,
    items_out: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    busy: AtomicU64,
    starved: AtomicU64,
    blocked: AtomicU64,
}

/// A snapshot of a stage's counters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StageReport {
    /// The stage's name.
    pub stage: String,
    /// Threads that share the work.
    pub workers: u64,
    /// Items given on.
    pub items_out: u64,
    /// Payload bytes taken.
    pub bytes_in: u64,
    /// Payload bytes given on.
    pub bytes_out: u64,
    /// Seconds of work, over all workers.
    pub busy_seconds: f64,
    /// Seconds of waiting for input.
    pub starved_seconds: f64,
    /// Seconds of waiting for room downstream.
    pub blocked_seconds: f64,
}

impl Meter {
    /// Counts input.
    pub fn came_in(&self, bytes: u64) {
        self.bytes_in.fetch_add(bytes, Relaxed);
    }

    /// Counts one item of output.
    pub fn came_out(&self, bytes: u64) {
        self.items_out.fetch_add(1, Relaxed);
        self.bytes_out.fetch_add(bytes, Relaxed);
    }

    /// Counts time at work.
    pub fn busy(&self, time: Duration) {
        add(&self.busy, time);
    }

    /// Counts time without input.
    pub fn starved(&self, time: Duration) {
        add(&self.starved, time);
    }

    /// Time without input so far.
    pub fn starvation(&self) -> Duration {
        Duration::from_nanos(self.starved.load(Relaxed))
    }

    /// Counts time without room for output.
    pub fn blocked(&self, time: Duration) {
        add(&self.blocked, time);
    }

    fn report(&self) -> StageReport {
        let seconds = |counter: &AtomicU64| counter.load(Relaxed) as f64 / 1e9;
        StageReport {
            stage: self.name.into(),
            workers: self.workers,
            items_out: self.items_out.load(Relaxed),
            bytes_in: self.bytes_in.load(Relaxed),
            bytes_out: self.bytes_out.load(Relaxed),
            busy_seconds: seconds(&self.busy),
            starved_seconds: seconds(&self.starved),
            blocked_seconds: seconds(&self.blocked),
        }
    }
}

fn add(counter: &AtomicU64, time: Duration) {
    counter.fetch_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX), Relaxed);
}

/// The meters of a run, in the order in which the stages were put together. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Meters(Arc<Mutex<Vec<Arc<Meter>>>>);

impl Meters {
    /// Adds a stage that `workers` threads share.
    pub fn add(&self, name: &'static str, workers: usize) -> Arc<Meter> {
        let meter = Arc::new(Meter {
            name,
            workers: workers as u64,
            items_out: AtomicU64::default(),
            bytes_in: AtomicU64::default(),
            bytes_out: AtomicU64::default(),
            busy: AtomicU64::default(),
            starved: AtomicU64::default(),
            blocked: AtomicU64::default(),
        });
        self.lock().push(meter.clone());
        meter
    }

    /// What every stage did so far; stages of one name (lanes, mates) are added up.
    pub fn snapshot(&self) -> Vec<StageReport> {
        let mut reports: Vec<StageReport> = Vec::new();
        for report in self.lock().iter().map(|meter| meter.report()) {
            match reports.iter_mut().find(|earlier| earlier.stage == report.stage) {
                Some(earlier) => earlier.absorb(&report),
                None => reports.push(report),
            }
        }
        reports
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Meter>>> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl StageReport {
    fn absorb(&mut self, other: &StageReport) {
        self.workers += other.workers;
        self.items_out += other.items_out;
        self.bytes_in += other.bytes_in;
        self.bytes_out += other.bytes_out;
        self.busy_seconds += other.busy_seconds;
        self.starved_seconds += other.starved_seconds;
        self.blocked_seconds += other.blocked_seconds;
    }
}

/// The stage whose workers were at work most of the time: making any other faster gains nothing.
pub fn limiting_stage(reports: &[StageReport]) -> Option<&StageReport> {
    let load = |report: &StageReport| report.busy_seconds / report.workers.max(1) as f64;
    reports.iter().max_by(|a, b| load(a).total_cmp(&load(b)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limiting_stage_is_the_busiest_per_worker() {
        let meters = Meters::default();
        meters.add("wide", 4).busy(Duration::from_secs(8));
        meters.add("narrow", 1).busy(Duration::from_secs(3));
        let reports = meters.snapshot();
        assert_eq!(limiting_stage(&reports).map(|report| report.stage.as_str()), Some("narrow"));
    }

    #[test]
    fn stages_of_one_name_are_added_up() {
        let meters = Meters::default();
        meters.add("read", 1).came_out(5);
        meters.add("read", 1).came_out(6);
        let reports = meters.snapshot();
        assert_eq!((reports.len(), reports[0].bytes_out, reports[0].workers), (1, 11, 2));
    }
}
