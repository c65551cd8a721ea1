//! How fast a device does each kernel, how near that is to what bounds it, and which device a kernel
//! should go to.
//!
//! What bounds a kernel is measured too, in the same rounds and by as many threads: for kernels over bytes
//! a plain copy, for the others the rate of the instructions or of the memory accesses that they consist
//! of. A kernel and a copy are compared by the bytes that they *move*: a copy of `n` bytes reads `n` and
//! writes `n`, an XOR in place reads `2n` and writes `n`, a split reads `2n` and writes `2n`. The rates
//! themselves count bytes of the secret, of the data under the pad, or of the copy, each once.
//!
//! Every job of a device begins and ends in this machine's memory, so bytes cannot go faster through any
//! device than they can be copied there.

mod inputs;
mod limits;
mod rounds;
#[cfg(test)]
mod tests;
mod work;

use std::time::Duration;

use serde::Serialize;

use self::inputs::Inputs;
use self::work::{STEPS, Step, Work};
use super::{Device, Error, Kernel, Rate};

/// What a rate counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Unit {
    /// Bytes of secret or data, in 10^9 a second.
    #[serde(rename = "GB/s")]
    Gigabytes,
    /// States of a band, in 10^9 a second.
    #[serde(rename = "GCUPS")]
    GigaCells,
    /// Reads, places or seeds, in 10^6 a second.
    #[serde(rename = "M/s")]
    Millions,
    /// Operations, in 10^9 a second.
    #[serde(rename = "G/s")]
    Billions,
}

impl Unit {
    /// As it is written behind a number.
    pub fn name(self) -> &'static str {
        match self {
            Unit::Gigabytes => "GB/s",
            Unit::GigaCells => "GCUPS",
            Unit::Millions => "M/s",
            Unit::Billions => "G/s",
        }
    }

    fn scale(self) -> f64 {
        if self == Unit::Millions { 1e-6 } else { 1e-9 }
    }
}

/// How fast a device does a kernel.
#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    /// The kernel, or `copy` for this machine's memory.
    pub kernel: &'static str,
    /// The device's name.
    pub device: &'static str,
    /// Threads that worked at the same time, each with a queue and with data of its own.
    pub workers: usize,
    /// In units of `unit`, all workers together: the best of all runs.
    pub rate: f64,
    /// The median of all runs.
    pub median: f64,
    /// What `rate` counts.
    pub unit: Unit,
    /// How many runs there were.
    pub runs: u32,
    /// What bounds it, where that was measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<Limit>,
}

/// What bounds a kernel, measured by as many threads in the same rounds.
#[derive(Clone, Debug, Serialize)]
pub struct Limit {
    /// What was measured.
    pub name: &'static str,
    /// Its best rate, in units of `unit`; of a copy the bytes moved, read and written.
    pub rate: f64,
    /// What `rate` counts.
    pub unit: Unit,
    /// How much of it one unit of the kernel's rate takes.
    pub needs: f64,
    /// The part of the limit that the kernel reaches, best against best.
    pub share: f64,
    /// Likewise, median against median.
    pub share_of_medians: f64,
}

/// How much is worked in one run of a measurement.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Bytes of each text in memory, over all workers; 4 MiB for each worker if that is more.
    pub bytes: usize,
    /// Jobs of a batch, over all workers; 2000 for each worker if that is more.
    pub jobs: usize,
    /// The rounds go on until this time has passed for each kernel.
    pub time: Duration,
    /// Whether the limits are measured too.
    pub limits: bool,
}

impl Effort {
    /// Enough to choose a device: some tenths of a second for all kernels.
    pub const SHORT: Effort =
        Effort { bytes: 4 << 20, jobs: 2000, time: Duration::from_millis(20), limits: false };

    /// Enough for a figure that means something: beyond the caches, some seconds for all kernels.
    pub const LONG: Effort =
        Effort { bytes: 256 << 20, jobs: 50_000, time: Duration::from_millis(500), limits: true };

    /// What each of `workers` has to do. Only the CPU's memory is so fast that its caches are in the way.
    fn of_one(&self, device: &dyn Device, workers: usize) -> Self {
        let all_bytes = if device.name() == "cpu" { self.bytes } else { self.bytes.div_ceil(4) };
        let bytes = (all_bytes / workers).max(all_bytes.min(4 << 20)).next_multiple_of(2);
        let jobs = (self.jobs / workers).max(self.jobs.min(2000));
        Self { bytes, jobs, ..*self }
    }
}

/// Queues that keep a card busy: more only take its memory.
const QUEUES_MAX: usize = 4;

/// Measures every kernel of a device on one queue, and this machine's memory beside it.
///
/// Errors: those of the device; a kernel that panics is one that failed.
pub fn measure(device: &dyn Device, effort: Effort) -> Result<Vec<Figure>, Error> {
    measure_together(device, effort, 1)
}

/// Measures every kernel of a device on as many queues at the same time, each in a thread of its own.
///
/// Errors: as for [`measure`].
pub fn measure_together(
    device: &dyn Device,
    effort: Effort,
    workers: usize,
) -> Result<Vec<Figure>, Error> {
    let workers = workers.max(1);
    let effort = effort.of_one(device, workers);
    let inputs = Inputs::new(device, effort)?;
    let steps = steps_of(device, effort);
    let times = rounds::run(device, &inputs, &steps, workers)?;
    let measured: Vec<Measured> = steps
        .iter()
        .zip(times)
        .map(|(step, times)| Measured::new(*step, &effort, workers, times))
        .collect();
    Ok(figures(device, &measured, workers))
}

/// Likewise by as many of `workers` as keep the device busy, and fewer where it has not the memory for their
/// queues.
///
/// Errors: as for [`measure`].
pub fn measure_fitting(
    device: &dyn Device,
    effort: Effort,
    workers: usize,
) -> Result<Vec<Figure>, Error> {
    let mut workers = if device.name() == "cpu" { workers } else { workers.min(QUEUES_MAX) };
    loop {
        match measure_together(device, effort, workers) {
            Err(Error::NoMemory { .. }) if workers > 1 => workers /= 2,
            measured => return measured,
        }
    }
}

/// What bounds a card, and kernels over what is in its memory already, beside the copy there.
///
/// Errors: those of the device.
pub fn measure_card(device: &dyn Device, effort: Effort) -> Result<Vec<Figure>, Error> {
    let mut rates = device.rates(effort.bytes, effort.time)?;
    rates.iter_mut().for_each(|rate| rate.seconds.sort_by(f64::total_cmp));
    let speed = |rate: &Rate, at: usize| {
        let seconds = rate.seconds.get(at).copied().unwrap_or(f64::INFINITY);
        Unit::Gigabytes.scale() * rate.bytes / seconds.max(1e-9)
    };
    let both = |rate: &Rate| (speed(rate, 0), speed(rate, rate.seconds.len() / 2));
    let copy = rates.iter().find(|rate| rate.name == Rate::CARD_COPY);
    let limit = |of: &Rate| {
        let copy = copy.filter(|copy| ![copy.name, Rate::LINK].contains(&of.name))?;
        let ((best, median), (bound, middle)) = (both(of), both(copy));
        Some(Limit {
            name: copy.name,
            rate: copy.moves * bound,
            unit: Unit::Gigabytes,
            needs: of.moves,
            share: of.moves * best / (copy.moves * bound),
            share_of_medians: of.moves * median / (copy.moves * middle),
        })
    };
    let figure = |of: &Rate| Figure {
        kernel: of.name,
        device: device.name(),
        workers: 1,
        rate: both(of).0,
        median: both(of).1,
        unit: Unit::Gigabytes,
        runs: of.seconds.len() as u32,
        limit: limit(of),
    };
    Ok(rates.iter().map(figure).collect())
}

/// Puts kernels over bytes beside the link of their card, if that was measured ([`measure_card`]), and not beside
/// this machine's memory: what a copy reads and writes, a queue takes to the card and back.
pub fn beside_link(figures: &mut [Figure], card: &[Figure]) {
    let Some(link) = card.iter().find(|figure| figure.kernel == Rate::LINK) else { return };
    for figure in figures {
        let (rate, median) = (figure.rate, figure.median);
        let bytes = figure.unit == Unit::Gigabytes;
        if let Some(limit) = figure.limit.as_mut().filter(|_| bytes) {
            limit.share = limit.needs * rate / link.rate;
            limit.share_of_medians = limit.needs * median / link.median;
            (limit.name, limit.rate) = (link.kernel, link.rate);
        }
    }
}

/// One thing that is measured, for a harness that takes the time by itself.
pub struct Turn<'a> {
    /// The kernel, the copy, or what bounds kernels.
    pub name: &'static str,
    /// What a run does: bytes that are moved, read and written, or cells, reads, seeds or operations.
    pub amount: f64,
    /// Whether `amount` is bytes.
    pub bytes: bool,
    /// Does it once.
    pub run: &'a mut dyn FnMut() -> Result<(), Error>,
}

/// Shows `visit` all that is measured on one queue of a device, each behind what bounds it.
///
/// Errors: the device's, when it has not the memory.
pub fn each(
    device: &dyn Device,
    effort: Effort,
    mut visit: impl FnMut(Turn<'_>),
) -> Result<(), Error> {
    let effort = effort.of_one(device, 1);
    let inputs = Inputs::new(device, effort)?;
    let jobs = inputs.jobs();
    let mut work = Work::new(device, &inputs, &jobs)?;
    for step in steps_of(device, effort) {
        let bytes = step.unit() == Unit::Gigabytes;
        let moved = if bytes { step.moves() } else { 1.0 };
        let run = &mut || work.run(step);
        visit(Turn { name: step.name(), amount: moved * step.amount(&effort), bytes, run });
    }
    Ok(())
}

fn steps_of(device: &dyn Device, effort: Effort) -> Vec<Step> {
    let wanted = |step: &Step| match step {
        Step::Copy => true,
        Step::Kernel(kernel) => device.has(*kernel),
        Step::Limit(_) => effort.limits && device.name() == "cpu",
        Step::Expanded | Step::Keystream | Step::ChaCha20 => device.name() == "cpu",
    };
    STEPS.into_iter().filter(wanted).collect()
}

/// What the runs of one step gave.
struct Measured {
    step: Step,
    rate: f64,
    median: f64,
    runs: u32,
}

impl Measured {
    fn new(step: Step, effort: &Effort, workers: usize, mut seconds: Vec<f64>) -> Self {
        seconds.sort_by(f64::total_cmp);
        let amount = step.unit().scale() * step.amount(effort) * workers as f64;
        let rate = |at: usize| amount / seconds.get(at).copied().unwrap_or(f64::INFINITY).max(1e-9);
        let (rate, median) = (rate(0), rate(seconds.len() / 2));
        Self { step, rate, median, runs: seconds.len() as u32 }
    }
}

fn figures(device: &dyn Device, measured: &[Measured], workers: usize) -> Vec<Figure> {
    let limit = |of: &Measured| {
        let (bound, needs) = of.step.limit()?;
        let bound = measured.iter().find(|measured| measured.step == bound)?;
        let moved = if bound.step == Step::Copy { bound.step.moves() } else { 1.0 };
        let scale = bound.step.unit().scale() / of.step.unit().scale() * needs / moved;
        Some(Limit {
            name: bound.step.name(),
            rate: moved * bound.rate,
            unit: bound.step.unit(),
            needs,
            share: scale * of.rate / bound.rate,
            share_of_medians: scale * of.median / bound.median,
        })
    };
    let figure = |of: &Measured| Figure {
        kernel: of.step.name(),
        device: device.name(),
        workers,
        rate: of.rate,
        median: of.median,
        unit: of.step.unit(),
        runs: of.runs,
        limit: limit(of),
    };
    let limits = |of: &&Measured| !matches!(of.step, Step::Limit(_));
    measured.iter().filter(limits).map(figure).collect()
}

/// Which device does a kernel, and why.
#[derive(Clone, Debug, Serialize)]
pub struct Choice {
    /// The kernel.
    pub kernel: &'static str,
    /// The fastest device.
    pub device: &'static str,
    /// The rates that were compared.
    pub reason: String,
}

/// The fastest device of each kernel, each device by as many workers as suit it best; of two that differ by
/// less than a twentieth the one named first.
pub fn choose(figures: &[Figure]) -> Vec<Choice> {
    let choice = |kernel: Kernel| {
        let mut devices: Vec<&Figure> = Vec::new();
        for figure in figures.iter().filter(|figure| figure.kernel == kernel.name()) {
            match devices.iter_mut().find(|known| known.device == figure.device) {
                Some(known) if known.rate >= figure.rate => {}
                Some(known) => *known = figure,
                None => devices.push(figure),
            }
        }
        let first = *devices.first()?;
        let better = |best: &Figure, other: &Figure| other.rate > 1.05 * best.rate;
        let best = devices
            .iter()
            .fold(first, |best, other| if better(best, other) { other } else { best });
        let rates: Vec<String> = devices
            .iter()
            .map(|figure| format!("{} {:.2} {}", figure.device, figure.rate, figure.unit.name()))
            .collect();
        Some(Choice { kernel: kernel.name(), device: best.device, reason: rates.join(", ") })
    };
    Kernel::ALL.into_iter().filter_map(choice).collect()
}
