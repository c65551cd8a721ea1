//! NVIDIA cards: `kernels/<kernel>.cu`, compiled for the card in the machine when it is first used.
//!
//! The driver and its compiler (NVRTC) are looked for at run time, so the program builds and starts
//! anywhere. Which cards there are, `CUDA_VISIBLE_DEVICES` says to the driver; which of them are used,
//! `cuda::cards` says. This **never ran on a card**. What runs are the kernels' text on CPUs
//! (`device::conformance`), and this host side with the true compiler against a driver simulated on
//! the CPU (`kernels/shim/driver.cpp`): right results are known, speed is not.
#![allow(unsafe_code)]

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cudarc::driver::sys::CUresult;
use cudarc::driver::{
    CudaSlice, CudaStream, DriverError, LaunchConfig, PinnedHostSlice, PushKernelArg,
};

use super::card::CardState;
use super::lane::{Ability, COLUMNS, FUNCTIONS, Lane, Lanes, Launch, SCRATCH_COLUMNS, stride};
use super::table::Resident;
use super::{Device, Error, Queue, Rate};
use cards::{Card, Cards, Working};

mod cache;
mod cards;
mod compile;
mod rates;

const NAME: &str = "cuda";
/// A kernel's text, after what all kernels need.
macro_rules! source {
    ($file:literal) => {
        concat!(
            include_str!("../../kernels/dsgd.cuh"),
            include_str!(concat!("../../kernels/", $file, ".cu"))
        )
    };
}

/// The kernels, in the order of [`FUNCTIONS`].
const SOURCES: [&str; FUNCTIONS.len()] = [
    source!("xor"),
    source!("share"),
    source!("otp"),
    source!("align"),
    source!("pairhmm"),
    source!("pack"),
    source!("ungapped"),
    source!("lookup"),
];

/// Opens all cards: found once a process, and again when one of them has failed.
pub(super) fn open() -> Result<Box<dyn Device>, Error> {
    static CARDS: Mutex<Option<Arc<Cards>>> = Mutex::new(None);
    let mut known = CARDS.lock().unwrap_or_else(PoisonError::into_inner);
    if known.as_ref().is_some_and(|cards| cards.has_failed()) {
        // First of all: a card's context, and its failure, stay while anything is left of it.
        *known = None;
    }
    if known.is_none() {
        *known = Some(Cards::find().map_err(|reason| Error::absent(NAME, reason))?);
    }
    let cards = known.as_ref().map(Arc::clone).expect("they were found");
    Ok(Box::new(cards))
}

impl Device for Arc<Cards> {
    fn name(&self) -> &'static str {
        NAME
    }

    fn model(&self) -> String {
        self.models()
    }

    /// Queues go to the cards in turn.
    fn queue(&self, piece_bytes: usize) -> Result<Box<dyn Queue>, Error> {
        let working = self.working();
        let card = self.next(&working)?;
        // A column's vectors, and with them the grid, are counted in 32 bits.
        let column_bytes = stride(piece_bytes.clamp(1, 1 << 30));
        let lane = || {
            let lane = CardLane::new(card, &working, column_bytes);
            lane.map_err(|error| card.failed("take memory", error, no_memory(piece_bytes)))
        };
        let lanes = [lane()?, lane()?];
        let lanes = Lanes::new(lanes, column_bytes, Ability::CUDA);
        Ok(Box::new(lanes.with_scratch(SCRATCH_COLUMNS * column_bytes)))
    }

    /// Every card in use has the table: any of them may get the next queue.
    fn table(&self, parts: &[&[u32]]) -> Result<Resident, Error> {
        let working = self.working();
        let table_bytes = parts.iter().map(|part| size_of_val(*part)).sum();
        let mut slices = Vec::new();
        for card in self.in_use(&working) {
            let lacks = Error::NoTable { device: NAME, table_bytes };
            let slice = upload(card, parts);
            slices.push((
                card.number,
                slice.map_err(|error| card.failed("take a table", error, lacks))?,
            ));
        }
        Ok(Arc::new(Table { slices, _working: working }))
    }

    fn queue_bytes(&self, piece_bytes: usize) -> u64 {
        2 * ((COLUMNS + SCRATCH_COLUMNS) * piece_bytes) as u64
    }

    fn is_simulated(&self) -> bool {
        self.are_simulated()
    }

    fn room(&self, wanted: u64) -> u64 {
        self.least_room().min(wanted)
    }

    fn cards(&self) -> Vec<CardState> {
        self.states()
    }

    fn rates(&self, bytes: usize, time: Duration) -> Result<Vec<Rate>, Error> {
        let working = self.working();
        let card = self.next(&working)?;
        let rates = rates::measure(card, bytes, time);
        rates.map_err(|error| card.failed("measure a card", error, no_memory(bytes / COLUMNS)))
    }

    fn survives(&self) -> bool {
        let working = self.working();
        self.in_use(&working).next().is_some()
    }

    fn only(&self, cards: &[usize]) -> Result<Box<dyn Device>, Error> {
        Ok(Box::new(Arc::new(self.subset(cards)?)))
    }
}

/// A table on every card in use.
struct Table {
    /// Each with the card's number.
    slices: Vec<(usize, CudaSlice<u32>)>,
    /// Queues of the time in which this table is there go to no other cards.
    _working: Arc<Working>,
}

impl Table {
    fn on(&self, card: &Card) -> Option<&CudaSlice<u32>> {
        self.slices.iter().find(|(number, _)| *number == card.number).map(|(_, slice)| slice)
    }
}

fn no_memory(piece_bytes: usize) -> Error {
    Error::NoMemory { device: NAME, piece_bytes }
}

impl Card {
    /// What an error of the driver means: `lacks` where memory is short; a card that fails is not used again.
    fn failed(&self, step: &'static str, error: DriverError, lacks: Error) -> Error {
        if error.0 == CUresult::CUDA_ERROR_OUT_OF_MEMORY {
            return lacks;
        }
        self.lose();
        Error::failed(NAME, step)(error)
    }
}

/// The words of all parts after each other.
fn upload(card: &Card, parts: &[&[u32]]) -> Result<CudaSlice<u32>, DriverError> {
    let stream = card.context.new_stream()?;
    let words = parts.iter().map(|part| part.len()).sum::<usize>().max(1);
    let mut table = stream.alloc_zeros(words)?;
    let mut at = 0;
    for part in parts.iter().filter(|part| !part.is_empty()) {
        stream.memcpy_htod(*part, &mut table.slice_mut(at..at + part.len()))?;
        at += part.len();
    }
    stream.synchronize()?;
    Ok(table)
}

/// A stream with memory for one piece or batch on both sides of the bus.
struct CardLane {
    card: Card,
    _working: Arc<Working>,
    stream: Arc<CudaStream>,
    /// Locked in memory, so that copies run beside the other lane's work. Not to be touched between
    /// a start and the next synchronisation of `stream`.
    host: PinnedHostSlice<u8>,
    memory: CudaSlice<u8>,
    /// Where the results of the work on its way lie.
    down: Range<usize>,
}

impl CardLane {
    fn new(card: &Card, working: &Arc<Working>, column_bytes: usize) -> Result<Self, DriverError> {
        let (bytes, scratch_bytes) = (COLUMNS * column_bytes, SCRATCH_COLUMNS * column_bytes);
        let stream = card.context.new_stream()?;
        // SAFETY: the memory is filled with zeros before anything else sees it.
        let mut host = unsafe { card.context.alloc_pinned_with_flags(bytes, 0) }?;
        host.as_mut_slice()?.fill(0);
        let memory = stream.alloc_zeros(bytes + scratch_bytes)?;
        let (card, _working) = (card.clone(), Arc::clone(working));
        Ok(Self { card, _working, stream, host, memory, down: 0..0 })
    }

    fn failed(&self, step: &'static str, error: DriverError) -> Error {
        self.card.failed(step, error, no_memory(self.host.len() / COLUMNS))
    }

    /// Copies the inputs to where the card's copy reads them.
    fn fill<'a>(
        &mut self,
        inputs: impl Iterator<Item = (usize, &'a [u8])>,
    ) -> Result<(), DriverError> {
        // Nothing is on its way, unless an error cut the last job short.
        self.stream.synchronize()?;
        let host = self.host.as_mut_slice()?;
        for (at, input) in inputs {
            host[at..at + input.len()].copy_from_slice(input);
        }
        Ok(())
    }

    /// Queues the copy to the card, the kernel and the copy back.
    fn submit(&mut self, launch: &Launch) -> Result<(), DriverError> {
        let function = &self.card.functions[launch.function as usize];
        let [first, second, third] = &launch.numbers;
        let host = self.host.as_mut_slice()?;
        self.stream.memcpy_htod(&host[..launch.up], &mut self.memory.slice_mut(..launch.up))?;
        let block = launch.function.block();
        let grid = LaunchConfig {
            grid_dim: (launch.threads.div_ceil(block), 1, 1),
            block_dim: (block, 1, 1),
            shared_mem_bytes: launch.shared_bytes(),
        };
        let mut builder = self.stream.launch_builder(function);
        builder.arg(&mut self.memory).arg(first).arg(second).arg(third);
        if let Some(table) = &launch.table {
            let table: &Table = table.downcast_ref().expect("a table of this device");
            let on_card = table.on(&self.card);
            builder.arg(on_card.ok_or(DriverError(CUresult::CUDA_ERROR_INVALID_HANDLE))?);
        }
        // SAFETY: the arguments are those of the kernels' declarations, `Lanes` makes no launch whose
        // columns, entries, results or scratch do not fit this lane's memory, and what kernels look up
        // in a table was checked to be in it when the table was made.
        unsafe { builder.launch(grid) }?;
        let down = launch.down.clone();
        self.stream.memcpy_dtoh(&self.memory.slice(down.clone()), &mut host[down])
    }
}

impl Lane for CardLane {
    fn start<'a>(
        &mut self,
        launch: &Launch,
        inputs: impl Iterator<Item = (usize, &'a [u8])>,
    ) -> Result<(), Error> {
        self.down = launch.down.clone();
        let started = self.fill(inputs).and_then(|()| self.submit(launch));
        started.map_err(|error| self.failed("start work", error))
    }

    fn finish<'a>(
        &mut self,
        outputs: impl Iterator<Item = (usize, &'a mut [u8])>,
    ) -> Result<(), Error> {
        let failed = |error| self.failed("finish work", error);
        self.stream.synchronize().map_err(failed)?;
        let host = self.host.as_slice().map_err(failed)?;
        let results = &host[self.down.clone()];
        for (at, output) in outputs {
            output.copy_from_slice(&results[at..at + output.len()]);
        }
        Ok(())
    }
}

/// Key bytes and genomes stay on neither side; and no copy outlives the memory it writes to.
impl Drop for CardLane {
    fn drop(&mut self) {
        let _ = self.stream.synchronize();
        if let Ok(host) = self.host.as_mut_slice() {
            host.fill(0);
        }
        let _ = self.stream.memset_zeros(&mut self.memory);
        let _ = self.stream.synchronize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Needs no card: where NVRTC is, the kernels' text is CUDA C++.
    #[test]
    fn the_kernels_compile_where_the_compiler_is() {
        let compiler = match compile::Compiler::find() {
            Ok(compiler) => compiler,
            Err(reason) => return eprintln!("skipped: {reason}"),
        };
        for capability in [(9, 0), (99, 9)] {
            let target = compiler.target(capability).unwrap();
            for (source, name) in SOURCES.iter().zip(FUNCTIONS) {
                let image = compiler.compile(source, &target).unwrap();
                let has_name = image.windows(name.len()).any(|part| part == name.as_bytes());
                assert!(has_name, "{name} for {capability:?}");
            }
        }
    }

    #[test]
    fn a_table_that_does_not_fit_is_named_with_its_length() {
        let device = match open() {
            Ok(device) if device.is_simulated() => device,
            _ => return eprintln!("skipped: no simulated CUDA driver"),
        };
        let part = vec![0; 1 << 20];
        let Err(error) = device.table(&vec![&part[..]; 1100]) else { panic!("4.6 GB of 4.3") };
        let said = "device 'cuda' has not the memory for a table of 4613734400 bytes";
        assert_eq!(error.to_string(), said);
        assert!(device.survives() && device.table(&[&part]).is_ok());
    }

    #[test]
    fn a_card_is_measured_without_the_way_to_it() {
        let Ok(device) = open() else { return eprintln!("skipped: no CUDA driver") };
        let rates = device.rates(1 << 16, Duration::ZERO).unwrap();
        assert_eq!(rates.len(), 4);
        for rate in rates {
            assert!(rate.seconds.len() >= 3, "{}", rate.name);
            let sound = |seconds: &f64| seconds.is_finite() && *seconds > 0.0;
            assert!(rate.seconds.iter().all(sound) && rate.bytes > 0.0, "{}", rate.name);
        }
    }
}
