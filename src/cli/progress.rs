//! Progress on standard error: a line that moves on a terminal, otherwise a line a minute.

use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam::channel::{Sender, bounded};

use super::output::watched;
use crate::base::clock::Stopwatch;
use crate::base::{BitRate, ByteCount};
use crate::flow::{Meters, StageReport, limiting_stage};

/// When to show progress.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum When {
    /// On a terminal a line that moves, otherwise a line a minute.
    Auto,
    /// A line that moves, wherever it goes.
    Always,
    /// Not at all.
    Never,
}

/// Shows progress until it is dropped.
pub struct Progress {
    stop: Option<Sender<()>>,
    shower: Option<JoinHandle<()>>,
}

impl Progress {
    /// Starts showing how `meters` move.
    pub fn start(verb: &'static str, meters: &Meters, when: When, quiet: bool) -> Self {
        if quiet || when == When::Never {
            return Self { stop: None, shower: None };
        }
        let moving = when == When::Always || watched();
        let every = Duration::from_millis(if moving { 500 } else { 60_000 });
        let (stop, stopped) = bounded::<()>(0);
        let meters = meters.clone();
        let shower = std::thread::spawn(move || {
            let watch = Stopwatch::start();
            while stopped.recv_timeout(every).is_err_and(|error| error.is_timeout()) {
                let line = describe(verb, &meters.snapshot(), watch.elapsed());
                if moving {
                    eprint!("\r\x1b[2K{line}");
                } else {
                    eprintln!("{line}");
                }
            }
            if moving {
                eprint!("\r\x1b[2K");
            }
        });
        Self { stop: Some(stop), shower: Some(shower) }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(shower) = self.shower.take() {
            // A shower that died has nothing more to show.
            let _ = shower.join();
        }
    }
}

/// One line: how much went through the first stage, how fast, and what limits.
pub fn describe(verb: &str, stages: &[StageReport], elapsed: Duration) -> String {
    let first = stages.first().map_or(0, |stage| stage.bytes_out.max(stage.bytes_in));
    let rate = BitRate::of(ByteCount(first), elapsed.as_secs_f64());
    let limit = limiting_stage(stages).map_or("-", |stage| stage.stage.as_str());
    let seconds = elapsed.as_secs();
    format!("{verb}: {seconds} s, {} at {rate}, limited by '{limit}'", ByteCount(first))
}
