//! NVIDIA cards: `kernels/<kernel>.cu`, compiled for the card in the machine when it is first used.
//!
//! The driver and its compiler (NVRTC) are looked for at run time, so the program builds and starts
//! anywhere. This **never ran on a card**. What runs are the kernels' text on CPUs
//! (`device::conformance`), and this host side with the true compiler against a driver simulated on
//! the CPU (`kernels/shim/driver.cpp`): right results are known, speed is not.
#![allow(unsafe_code)]

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use cudarc::driver::sys::CUresult;
use cudarc::driver::{
    CudaContext, CudaFunction, CudaSlice, CudaStream, DriverError, LaunchConfig, PinnedHostSlice,
    PushKernelArg,
};
use cudarc::nvrtc::Ptx;

use super::lane::{Ability, COLUMNS, FUNCTIONS, Lane, Lanes, Launch, stride};
use super::table::Resident;
use super::{Device, Error, Queue};

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

/// A card with its compiled kernels.
#[derive(Clone)]
struct Card {
    /// Its place among the cards of this machine.
    number: usize,
    context: Arc<CudaContext>,
    /// In the order of [`FUNCTIONS`].
    functions: Vec<CudaFunction>,
}

/// All cards of this machine.
struct Cards {
    model: String,
    cards: Vec<Card>,
    /// Which card gets the next queue.
    turn: AtomicUsize,
}

/// Opens all cards; the kernels are compiled once a process.
pub(super) fn open() -> Result<Box<dyn Device>, Error> {
    static CARDS: OnceLock<Result<Arc<Cards>, String>> = OnceLock::new();
    match CARDS.get_or_init(Cards::find) {
        Ok(cards) => Ok(Box::new(Arc::clone(cards))),
        Err(reason) => Err(Error::absent(NAME, reason)),
    }
}

impl Cards {
    /// The error is the reason why there is none.
    fn find() -> Result<Arc<Self>, String> {
        // SAFETY: looks for a library and runs what the library runs when loaded: NVIDIA's driver,
        // which the operator installed.
        if !unsafe { cudarc::driver::sys::is_culib_present() } {
            return Err("the driver (libcuda) is not installed".into());
        }
        let count = CudaContext::device_count().map_err(|error| error.to_string())?;
        let count = usize::try_from(count).unwrap_or(0);
        if count == 0 {
            return Err("the driver finds no card".into());
        }
        let kernels = compile()?;
        let cards: Result<Vec<_>, _> = (0..count).map(|at| Card::load(at, &kernels)).collect();
        let cards = cards.map_err(|error| error.to_string())?;
        let name = cards[0].context.name().map_err(|error| error.to_string())?;
        let model = if count == 1 { name } else { format!("{count} cards, the first: {name}") };
        Ok(Arc::new(Self { model, cards, turn: AtomicUsize::new(0) }))
    }
}

impl Card {
    fn load(number: usize, kernels: &[Ptx]) -> Result<Self, DriverError> {
        let context = CudaContext::new(number)?;
        let load = |(ptx, name): (&Ptx, _)| context.load_module(ptx.clone())?.load_function(name);
        let functions = kernels.iter().zip(FUNCTIONS).map(load).collect::<Result<_, _>>()?;
        Ok(Self { number, functions, context })
    }
}

/// Compiles [`SOURCES`]; the error is the reason why that cannot be done.
fn compile() -> Result<Vec<Ptx>, String> {
    // SAFETY: as above, for NVIDIA's compiler.
    if !unsafe { cudarc::nvrtc::sys::is_culib_present() } {
        return Err("the run-time compiler (libnvrtc) is not installed".into());
    }
    let ptx = |(name, source): (&str, &str)| {
        cudarc::nvrtc::compile_ptx(source).map_err(|error| format!("kernel {name}: {error}"))
    };
    FUNCTIONS.into_iter().zip(SOURCES).map(ptx).collect()
}

impl Device for Arc<Cards> {
    fn name(&self) -> &'static str {
        NAME
    }

    fn model(&self) -> String {
        self.model.clone()
    }

    /// Queues go to the cards in turn.
    fn queue(&self, piece_bytes: usize) -> Result<Box<dyn Queue>, Error> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let card = &self.cards[turn % self.cards.len()];
        // A column's vectors, and with them the grid, are counted in 32 bits.
        let column_bytes = stride(piece_bytes.clamp(1, 1 << 30));
        let lane =
            || CardLane::new(card, column_bytes).map_err(|error| no_memory(error, piece_bytes));
        let lanes = [lane()?, lane()?];
        Ok(Box::new(Lanes::new(lanes, column_bytes, Ability::ALL)))
    }

    /// Every card has the table: any of them may get the next queue.
    fn table(&self, parts: &[&[u32]]) -> Result<Resident, Error> {
        let tables: Result<Vec<_>, _> = self.cards.iter().map(|card| upload(card, parts)).collect();
        Ok(Arc::new(tables.map_err(Error::failed(NAME, "take a table"))?))
    }
}

/// The error of a queue that could not be opened.
fn no_memory(error: DriverError, piece_bytes: usize) -> Error {
    match error.0 {
        CUresult::CUDA_ERROR_OUT_OF_MEMORY => Error::NoMemory { device: NAME, piece_bytes },
        _ => Error::failed(NAME, "take memory")(error),
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
    stream: Arc<CudaStream>,
    /// Locked in memory, so that copies run beside the other lane's work. Not to be touched between
    /// a start and the next synchronisation of `stream`.
    host: PinnedHostSlice<u8>,
    memory: CudaSlice<u8>,
    /// Where the results of the work on its way lie.
    down: Range<usize>,
}

impl CardLane {
    fn new(card: &Card, column_bytes: usize) -> Result<Self, DriverError> {
        let bytes = COLUMNS * column_bytes;
        let stream = card.context.new_stream()?;
        // SAFETY: the memory is filled with zeros before anything else sees it.
        let mut host = unsafe { card.context.alloc_pinned_with_flags(bytes, 0) }?;
        host.as_mut_slice()?.fill(0);
        let memory = stream.alloc_zeros(bytes)?;
        Ok(Self { card: card.clone(), stream, host, memory, down: 0..0 })
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
            shared_mem_bytes: 0,
        };
        let mut builder = self.stream.launch_builder(function);
        builder.arg(&mut self.memory).arg(first).arg(second).arg(third);
        let table = launch.table.as_ref().map(|table| {
            let tables: &Vec<CudaSlice<u32>> =
                table.downcast_ref().expect("a table of this device");
            &tables[self.card.number]
        });
        if let Some(table) = table {
            builder.arg(table);
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
        // Nothing is on its way, unless an error cut the last job short.
        self.stream.synchronize().map_err(Error::failed(NAME, "start work"))?;
        let host = self.host.as_mut_slice().map_err(Error::failed(NAME, "start work"))?;
        for (at, input) in inputs {
            host[at..at + input.len()].copy_from_slice(input);
        }
        self.down = launch.down.clone();
        self.submit(launch).map_err(Error::failed(NAME, "start work"))
    }

    fn finish<'a>(
        &mut self,
        outputs: impl Iterator<Item = (usize, &'a mut [u8])>,
    ) -> Result<(), Error> {
        self.stream.synchronize().map_err(Error::failed(NAME, "finish work"))?;
        let host = self.host.as_slice().map_err(Error::failed(NAME, "finish work"))?;
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
        match compile() {
            Ok(kernels) => {
                for (ptx, name) in kernels.iter().zip(FUNCTIONS) {
                    assert!(ptx.to_src().contains(&format!(".entry {name}")), "{name}");
                }
            }
            Err(reason) if reason.contains("not installed") => eprintln!("skipped: {reason}"),
            Err(reason) => panic!("{reason}"),
        }
    }
}
