//! Which device does which kernel in a run, and what became of it.
//!
//! One [`Assignment`] serves all workers of a run, or of a daemon. It plans the devices' memory before
//! the start: the queues of all workers take at most half of what a device says a run may have
//! ([`Device::room`]), and never more than [`QUEUES_BYTES_MAX`]; tables take what is left. What does not fit
//! is done by the CPU, with a notice; so is everything of a device that was lost, from then on and by
//! every worker. The results are the same bytes whoever does the work.
//!
//! An assignment never gets a lost device back: tables and queues would be of one that is gone. A daemon takes
//! another for its next job ([`Assignment::renewed`]), in which the device is opened anew.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::card::Held;
use super::measure::{Choice, Effort, choose, measure_fitting};
use super::setting::Setting;
use super::steady::Steady;
use super::table::{Genome, SeedTable, Shared};
use super::{BACKENDS, Device, Error, Kernel, Queue, open};
use crate::base::fault::with_causes;
use crate::kernel::ungapped::GenomeWord;
pub(crate) use used::Opener;
use used::Used;

#[cfg(test)]
pub(crate) mod tests;
mod used;

/// Pieces of a queue, if memory suffices.
const PIECE_BYTES: usize = 4 << 20;
/// Smallest pieces that are asked for.
const PIECE_BYTES_MIN: usize = 64 << 10;
/// What the queues of a run take of a device's memory at most.
pub const QUEUES_BYTES_MAX: u64 = 8 << 30;
/// How long a device that failed is left alone before it is tried again.
const REST: Duration = Duration::from_secs(30);

/// A device, and how it is opened again if that can be.
type Opened = (Box<dyn Device>, Option<Arc<Opener>>);

/// Which device does each kernel, for all workers of a run.
pub struct Assignment {
    /// Those in use besides the CPU.
    devices: Vec<Arc<Used>>,
    /// For each of [`Kernel::ALL`] the place of its device in `devices`; `None` is the CPU.
    places: [Option<usize>; Kernel::ALL.len()],
    /// A bit for each kernel that the CPU has taken over because a table did not fit.
    withdrawn: AtomicU32,
    choices: Vec<Choice>,
    notices: Mutex<Vec<String>>,
}

/// The device that does a kernel, in a report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelDevice {
    /// Name of the kernel.
    pub kernel: String,
    /// Name of the device.
    pub device: String,
    /// Why it was chosen, and what the hardware calls itself.
    pub reason: String,
}

impl Assignment {
    /// Everything on the CPU, without a look at other devices.
    pub fn cpu() -> Arc<Self> {
        Self::cpu_because("it was asked for")
    }

    /// What `setting` says, for as many worker threads.
    ///
    /// `auto` opens every device, measures shortly all kernels on those that are not a simulation on this
    /// machine's processor, with as many queues at a time as there are workers, and takes the fastest; the
    /// CPU where the gain is below a twentieth. Where there is only the CPU nothing is measured.
    ///
    /// Errors: those of opening a device that is named. `auto` has none: it tells in the notices.
    pub fn choose(setting: &Setting, workers: usize) -> Result<Arc<Self>, Error> {
        match setting {
            Setting::Auto => Ok(Self::fastest(workers)),
            Setting::Named { device: "cpu", cards } if cards.is_empty() => Ok(Self::cpu()),
            Setting::Named { device, cards } => {
                let (name, cards) = (*device, cards.clone());
                let named = move || match cards.is_empty() {
                    true => open(name),
                    false => open(name)?.only(&cards),
                };
                Self::everything_opened_by(Opener { open: Box::new(named), rest: REST }, workers)
            }
        }
    }

    /// Every kernel that the device has on it. Once lost, it is not opened again.
    pub fn everything_on(device: Box<dyn Device>, workers: usize) -> Arc<Self> {
        Self::everything(device, None, workers)
    }

    /// Every kernel that the device has on it; it is opened now, and again when it was lost.
    pub(crate) fn everything_opened_by(opener: Opener, workers: usize) -> Result<Arc<Self>, Error> {
        Ok(Self::everything((opener.open)()?, Some(Arc::new(opener)), workers))
    }

    fn everything(
        device: Box<dyn Device>,
        opener: Option<Arc<Opener>>,
        workers: usize,
    ) -> Arc<Self> {
        let choice = |kernel: Kernel| match device.has(kernel) {
            true => Choice::new(kernel, device.name(), "it was asked for"),
            false => Choice::new(kernel, "cpu", format!("{} does not have it", device.name())),
        };
        let choices = Kernel::ALL.into_iter().map(choice).collect();
        Self::new(vec![(device, opener)], choices, workers, Vec::new())
    }

    /// Everything on the CPU, with the reason for reports.
    pub fn cpu_because(reason: &str) -> Arc<Self> {
        let choice = |kernel| Choice::new(kernel, "cpu", reason);
        Self::new(Vec::new(), Kernel::ALL.into_iter().map(choice).collect(), 1, Vec::new())
    }

    fn fastest(workers: usize) -> Arc<Self> {
        let (mut devices, mut reasons) = (Vec::new(), Vec::new());
        for (name, open) in BACKENDS.iter().filter(|(name, _)| !["cpu", "fpga-sim"].contains(name))
        {
            if *name == "wgpu" && !has_graphics() {
                reasons.push(format!("{name}: this machine has no graphics card"));
                continue;
            }
            match open() {
                Ok(device) if device.is_simulated() => {
                    reasons.push(format!("{name} ({}) is this processor", device.model()));
                }
                Ok(device) => {
                    let opener = Opener { open: Box::new(*open), rest: REST };
                    devices.push((device, Some(Arc::new(opener))));
                }
                Err(error) => reasons.push(with_causes(&error)),
            }
        }
        if devices.is_empty() {
            return Self::cpu_because(&reasons.join("; "));
        }
        Self::fastest_of(devices, workers)
    }

    /// The fastest of the CPU and these devices for each kernel.
    fn fastest_of(devices: Vec<Opened>, workers: usize) -> Arc<Self> {
        let mut notices = Vec::new();
        let cpu = open("cpu").expect("the CPU is always there");
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let mut figures = Vec::new();
        for device in std::iter::once(&cpu).chain(devices.iter().map(|(device, _)| device)) {
            match measure_fitting(device.as_ref(), Effort::SHORT, workers.clamp(1, cores)) {
                Ok(measured) => {
                    figures.extend(measured.into_iter().filter(|figure| {
                        Kernel::ALL
                            .iter()
                            .any(|kernel| kernel.name() == figure.kernel && device.has(*kernel))
                    }));
                }
                Err(error) => notices.push(format!("{}; it is not used", with_causes(&error))),
            }
        }
        Self::new(devices, choose(&figures), workers, notices)
    }

    fn new(
        devices: Vec<Opened>,
        mut choices: Vec<Choice>,
        workers: usize,
        mut notices: Vec<String>,
    ) -> Arc<Self> {
        let is_used =
            |device: &dyn Device| choices.iter().any(|choice| choice.device == device.name());
        let mut used = Vec::new();
        for (device, opener) in devices.into_iter().filter(|(device, _)| is_used(device.as_ref())) {
            notices.extend(crowded(device.as_ref()));
            used.push(Arc::new(Used::plan(device, opener, workers.max(1))));
        }
        let devices = used;
        for used in &devices {
            let own = choices.iter_mut().filter(|choice| choice.device == used.name);
            own.for_each(|choice| choice.reason += &format!("; {}", used.model));
        }
        let place = |kernel: Kernel| {
            let choice = choices.iter().find(|choice| choice.kernel == kernel.name())?;
            devices.iter().position(|used| used.name == choice.device)
        };
        let places = Kernel::ALL.map(place);
        let (withdrawn, notices) = (AtomicU32::new(0), Mutex::new(notices));
        Arc::new(Self { devices, places, withdrawn, choices, notices })
    }

    /// The same with what was lost opened anew, for the next job; `None` when there is nothing that was lost, or
    /// none of it is back.
    ///
    /// A device is tried half a minute after it failed at the earliest, and is back when all its kernels give right
    /// results. That is told; that it is still lost is not. This takes as long as opening it and a short check.
    pub fn renewed(&self) -> Option<Arc<Self>> {
        let (mut devices, mut choices) = (self.devices.clone(), self.choices.clone());
        let (mut notices, mut withdrawn) = (Vec::new(), self.withdrawn.load(Ordering::Relaxed));
        for (place, used) in devices.iter_mut().enumerate() {
            let Some(again) = used.again() else { continue };
            let answers = "gives right results again: it is used again";
            notices.push(format!("device '{}' ({}) {answers}", again.name, again.model));
            notices.extend(again.device().and_then(|device| crowded(device.as_ref())));
            for choice in choices.iter_mut().filter(|choice| choice.device == again.name) {
                let before = choice.reason.strip_suffix(&used.model);
                choice.reason = before.unwrap_or(&choice.reason).to_owned() + &again.model;
            }
            let own = self.places.iter().enumerate().filter(|(_, of)| **of == Some(place));
            own.for_each(|(kernel, _)| withdrawn &= !(1 << kernel));
            *used = Arc::new(again);
        }
        let (withdrawn, places) = (AtomicU32::new(withdrawn), self.places);
        let renewed = |notices| Self { devices, places, withdrawn, choices, notices };
        (!notices.is_empty()).then(|| Arc::new(renewed(Mutex::new(notices))))
    }

    /// Whether a device was lost.
    pub fn has_lost(&self) -> bool {
        self.devices.iter().any(|used| used.is_lost())
    }

    /// A queue for one worker: every kernel goes to its device, and to the CPU where that fails.
    ///
    /// Errors: none that a machine has today; those of the CPU's queue.
    pub fn queue(self: &Arc<Self>) -> Result<Steady, Error> {
        Steady::new(Arc::clone(self))
    }

    /// Whether the CPU does this kernel, from the start or by now: a caller may then do it in place, without a
    /// queue.
    pub fn on_cpu(&self, kernel: Kernel) -> bool {
        self.device_of(kernel).is_none()
    }

    /// Puts a reference where the kernel over it is done.
    ///
    /// Errors: those of the CPU. On a device it may fail: the CPU takes the kernel over, with a notice.
    pub fn genome(&self, words: Shared<GenomeWord>) -> Result<Genome, Error> {
        let bytes = size_of_val((*words).as_ref()) as u64;
        if let Some((place, device)) = self.device_for_table(Kernel::Ungapped, bytes) {
            match Genome::load(device.as_ref(), Arc::clone(&words)) {
                Ok(genome) => return Ok(genome),
                Err(error) => self.table_failed(Kernel::Ungapped, place, &error),
            }
        }
        Genome::load(open("cpu")?.as_ref(), words)
    }

    /// Puts an index of seeds where look-ups are done; the numbers are those of [`SeedTable::load`].
    ///
    /// Errors: as for [`genome`](Self::genome).
    ///
    /// # Panics
    /// As [`SeedTable::load`].
    pub fn seeds(
        &self,
        buckets: Shared<u32>,
        entries: Shared<u64>,
        bits: (u32, u32),
    ) -> Result<SeedTable, Error> {
        let bytes = size_of_val((*buckets).as_ref()) + size_of_val((*entries).as_ref());
        let bytes = bytes as u64;
        if let Some((place, device)) = self.device_for_table(Kernel::Lookup, bytes) {
            let (buckets, entries) = (Arc::clone(&buckets), Arc::clone(&entries));
            match SeedTable::load(device.as_ref(), buckets, entries, bits) {
                Ok(table) => return Ok(table),
                Err(error) => self.table_failed(Kernel::Lookup, place, &error),
            }
        }
        SeedTable::load(open("cpu")?.as_ref(), buckets, entries, bits)
    }

    /// Which device was chosen for each of these kernels, and why, for a report.
    pub fn described(&self, kernels: &[Kernel]) -> Vec<KernelDevice> {
        let wanted = |choice: &&Choice| kernels.iter().any(|one| one.name() == choice.kernel);
        let described = |choice: &Choice| KernelDevice {
            kernel: choice.kernel.into(),
            device: choice.device.into(),
            reason: choice.reason.clone(),
        };
        self.choices.iter().filter(wanted).map(described).collect()
    }

    /// Which device was chosen for each kernel, and why.
    pub fn choices(&self) -> Vec<Choice> {
        self.choices.clone()
    }

    /// What the operator should know, in the order in which it happened: devices that were lost or are back, memory
    /// that did not suffice.
    pub fn notices(&self) -> Vec<String> {
        self.notices.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The device that does a kernel now, by its place.
    pub(super) fn device_of(&self, kernel: Kernel) -> Option<usize> {
        let place = self.places[kernel as usize]?;
        let withdrawn = self.withdrawn.load(Ordering::Relaxed) >> kernel as u32 & 1 == 1;
        (!withdrawn && !self.devices[place].is_lost()).then_some(place)
    }

    /// How many devices there are besides the CPU.
    pub(super) fn device_count(&self) -> usize {
        self.devices.len()
    }

    /// Opens a queue on a device, with smaller pieces if memory does not suffice.
    ///
    /// Gives their size, too.
    pub(super) fn open_queue(&self, place: usize) -> Result<(Box<dyn Queue>, usize), Error> {
        let used = &self.devices[place];
        loop {
            let piece_bytes = used.piece_bytes.load(Ordering::Relaxed);
            match used.queue(piece_bytes) {
                Err(error @ Error::NoMemory { .. }) => {
                    if !self.halve(place, piece_bytes) {
                        return Err(error);
                    }
                }
                opened => {
                    let queue = opened?;
                    used.queues_open.fetch_add(1, Ordering::Relaxed);
                    return Ok((queue, piece_bytes));
                }
            }
        }
    }

    /// Counts a queue that was opened as closed.
    pub(super) fn close_queue(&self, place: usize) {
        self.devices[place].queues_open.fetch_sub(1, Ordering::Relaxed);
    }

    /// Makes the pieces of a device's queues smaller than `piece_bytes`, unless they are so already; false
    /// when they cannot be smaller.
    pub(super) fn halve(&self, place: usize, piece_bytes: usize) -> bool {
        let half = piece_bytes / 2;
        half >= PIECE_BYTES_MIN && {
            self.devices[place].piece_bytes.fetch_min(half, Ordering::Relaxed);
            true
        }
    }

    /// What follows from a device's failure: its other cards go on, or it is given up for the run. Whether a
    /// new queue may be opened.
    pub(super) fn goes_on(&self, place: usize, error: &Error) -> bool {
        let used = &self.devices[place];
        // Not held on to: it is dropped where it is given up.
        let goes_on = used.device().is_some_and(|device| device.survives());
        if goes_on {
            self.tell(format!("{}; another card goes on", with_causes(error)));
        } else if used.lose() {
            self.tell(format!("{}; the CPU goes on", with_causes(error)));
        }
        goes_on
    }

    /// Says that a worker goes on without a device for lack of its memory; told once.
    pub(super) fn lacks_memory(&self, place: usize, error: &Error) {
        if !self.devices[place].lacked_memory.swap(true, Ordering::Relaxed) {
            self.tell(format!("{}; the CPU does a part of the work", with_causes(error)));
        }
    }

    fn tell(&self, notice: String) {
        self.notices.lock().unwrap_or_else(PoisonError::into_inner).push(notice);
    }

    /// The device that a table of `bytes` is to be put on, and its place, if there is one and it fits beside the
    /// queues to come.
    fn device_for_table(&self, kernel: Kernel, bytes: u64) -> Option<(usize, Arc<dyn Device>)> {
        let place = self.device_of(kernel)?;
        let used = &self.devices[place];
        let device = used.device()?;
        let (wanted, queues, room) = used.room_beside(device.as_ref(), bytes);
        if room >= wanted {
            return Some((place, device));
        }
        self.withdraw(
            kernel,
            &format!(
                "a table of {bytes} bytes and {queues} queues take {wanted} bytes of device \
                 '{}', which has {room} for this run",
                used.name
            ),
        );
        None
    }

    /// What follows from an error of putting a table on a device: the CPU takes the kernel over, and, where the
    /// device failed, all that it does.
    fn table_failed(&self, kernel: Kernel, place: usize, error: &Error) {
        if matches!(error, Error::NoMemory { .. } | Error::NoTable { .. })
            || self.goes_on(place, error)
        {
            self.withdraw(kernel, &with_causes(error));
        }
    }

    /// Gives a kernel to the CPU for the rest of the run.
    fn withdraw(&self, kernel: Kernel, reason: &str) {
        let bit = 1 << kernel as u32;
        if self.withdrawn.fetch_or(bit, Ordering::Relaxed) & bit == 0 {
            self.tell(format!("{} is done by the CPU: {reason}", kernel.name()));
        }
    }
}

/// What to say where every card is another job's already.
fn crowded(device: &dyn Device) -> Option<String> {
    let cards = device.cards();
    let crowded = !cards.is_empty()
        && cards.iter().filter_map(|card| card.held).all(|held| held == Held::Elsewhere);
    let notice = "is used by another job: this one shares it, and plans with half as much memory";
    crowded.then(|| format!("every card of device '{}' {notice}", device.name()))
}

impl Choice {
    fn new(kernel: Kernel, device: &'static str, reason: impl Into<String>) -> Self {
        Self { kernel: kernel.name(), device, reason: reason.into() }
    }
}

/// Whether the kernel shows a card that a Vulkan driver could be for. Without one there are but drivers in
/// software, and loading them takes longer than to ask.
fn has_graphics() -> bool {
    let nodes = std::fs::read_dir("/dev/dri").into_iter().flatten().flatten();
    nodes.into_iter().any(|node| node.file_name().to_string_lossy().starts_with("renderD"))
        || ["/dev/nvidiactl", "/dev/dxg"].iter().any(|path| std::path::Path::new(path).exists())
}
