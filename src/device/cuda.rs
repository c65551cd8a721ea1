//! NVIDIA cards: `kernels/<kernel>.cu`, compiled for the card in the machine when it is first used.
//!
//! The driver and its compiler (NVRTC) are looked for at run time, so the program builds and starts
//! anywhere. This **never ran on a card**. What runs are the kernels' text on CPUs
//! (`tests/kernel_forms.rs`), and this host side with the true compiler against a driver simulated on
//! the CPU (`kernels/shim/driver.cpp`): right results are known, speed is not.
#![allow(unsafe_code)]

use std::sync::{Arc, OnceLock};

use cudarc::driver::{
    CudaContext, CudaFunction, CudaSlice, CudaStream, LaunchConfig, PinnedHostSlice, PushKernelArg,
};
use cudarc::nvrtc::Ptx;

use super::lane::{COLUMNS, Lane, Lanes, VECTOR_BYTES, Work, stride};
use super::{Device, Error, Queue};

const NAME: &str = "cuda";
/// Threads of one block.
const BLOCK: u32 = 256;
/// The kernels, each after what all of them need.
const SOURCES: [(&str, &str); 2] = [
    (
        "share",
        concat!(include_str!("../../kernels/dsgd.cuh"), include_str!("../../kernels/share.cu")),
    ),
    (
        "xor_pad",
        concat!(include_str!("../../kernels/dsgd.cuh"), include_str!("../../kernels/xor.cu")),
    ),
];

/// The first card, with its compiled kernels.
#[derive(Clone)]
struct Card {
    model: String,
    context: Arc<CudaContext>,
    share: CudaFunction,
    xor: CudaFunction,
}

/// Opens the first card; the kernels are compiled once a process.
pub(super) fn open() -> Result<Box<dyn Device>, Error> {
    static CARD: OnceLock<Result<Card, String>> = OnceLock::new();
    match CARD.get_or_init(Card::find) {
        Ok(card) => Ok(Box::new(card.clone())),
        Err(reason) => Err(Error::absent(NAME, reason)),
    }
}

impl Card {
    /// The error is the reason why there is none.
    fn find() -> Result<Self, String> {
        // SAFETY: looks for a library and runs what the library runs when loaded: NVIDIA's driver,
        // which the operator installed.
        if !unsafe { cudarc::driver::sys::is_culib_present() } {
            return Err("the driver (libcuda) is not installed".into());
        }
        if CudaContext::device_count().map_err(|error| error.to_string())? == 0 {
            return Err("the driver finds no card".into());
        }
        let [share, xor] = compile()?;
        Self::load(share, xor).map_err(|error| error.to_string())
    }

    fn load(share: Ptx, xor: Ptx) -> Result<Self, cudarc::driver::DriverError> {
        let context = CudaContext::new(0)?;
        Ok(Self {
            model: context.name()?,
            share: context.load_module(share)?.load_function(SOURCES[0].0)?,
            xor: context.load_module(xor)?.load_function(SOURCES[1].0)?,
            context,
        })
    }
}

/// Compiles [`SOURCES`]; the error is the reason why that cannot be done.
fn compile() -> Result<[Ptx; 2], String> {
    // SAFETY: as above, for NVIDIA's compiler.
    if !unsafe { cudarc::nvrtc::sys::is_culib_present() } {
        return Err("the run-time compiler (libnvrtc) is not installed".into());
    }
    let ptx = |(name, source): (&str, &str)| {
        cudarc::nvrtc::compile_ptx(source).map_err(|error| format!("kernel {name}: {error}"))
    };
    Ok([ptx(SOURCES[0])?, ptx(SOURCES[1])?])
}

impl Device for Card {
    fn name(&self) -> &'static str {
        NAME
    }

    fn model(&self) -> String {
        self.model.clone()
    }

    fn queue(&self, piece_bytes: usize) -> Result<Box<dyn Queue>, Error> {
        // A column's vectors, and with them the grid, are counted in 32 bits.
        let column_bytes = stride(piece_bytes.clamp(1, 1 << 30));
        let lanes = [CardLane::new(self, column_bytes)?, CardLane::new(self, column_bytes)?];
        Ok(Box::new(Lanes::new(lanes, column_bytes)))
    }
}

/// A stream with memory for one piece on both sides of the bus.
struct CardLane {
    card: Card,
    stream: Arc<CudaStream>,
    /// Locked in memory, so that copies run beside the other lane's work. Not to be touched between
    /// a start and the next synchronisation of `stream`.
    host: PinnedHostSlice<u8>,
    columns: CudaSlice<u8>,
    stride: usize,
}

impl CardLane {
    fn new(card: &Card, column_bytes: usize) -> Result<Self, Error> {
        let failed = "take memory";
        let bytes = COLUMNS * column_bytes;
        let stream = card.context.new_stream().map_err(Error::failed(NAME, failed))?;
        // SAFETY: the memory is filled with zeros before anything else sees it.
        let mut host = unsafe { card.context.alloc_pinned_with_flags(bytes, 0) }
            .map_err(Error::failed(NAME, failed))?;
        host.as_mut_slice().map_err(Error::failed(NAME, failed))?.fill(0);
        let columns = stream.alloc_zeros(bytes).map_err(Error::failed(NAME, failed))?;
        Ok(Self { card: card.clone(), stream, host, columns, stride: 0 })
    }

    /// Queues the copy to the card, the kernel and the copy back.
    fn submit(&mut self, work: Work) -> Result<(), cudarc::driver::DriverError> {
        let vectors = (self.stride / VECTOR_BYTES) as u32;
        let (function, rows) = match work {
            Work::Xor => (&self.card.xor, 0),
            Work::Share { rows, .. } => (&self.card.share, rows),
        };
        let outputs = work.outputs() as u32;
        let (up, down) = (work.inputs() * self.stride, work.outputs() * self.stride);
        let host = self.host.as_mut_slice()?;
        self.stream.memcpy_htod(&host[..up], &mut self.columns.slice_mut(..up))?;
        let grid = LaunchConfig {
            grid_dim: (vectors.div_ceil(BLOCK), 1, 1),
            block_dim: (BLOCK, 1, 1),
            shared_mem_bytes: 0,
        };
        let mut launch = self.stream.launch_builder(function);
        launch.arg(&mut self.columns).arg(&vectors).arg(&outputs).arg(&rows);
        // SAFETY: the arguments are those of the kernels' declarations, and the kernels stay below
        // `stride` vectors in each of the columns that `work` has: all lie inside `columns`.
        unsafe { launch.launch(grid) }?;
        self.stream.memcpy_dtoh(&self.columns.slice(..down), &mut host[..down])
    }
}

impl Lane for CardLane {
    fn start<'a>(
        &mut self,
        work: Work,
        bytes: usize,
        inputs: impl Iterator<Item = &'a [u8]>,
    ) -> Result<(), Error> {
        // Nothing is on its way, unless an error cut the last job short.
        self.stream.synchronize().map_err(Error::failed(NAME, "start work"))?;
        self.stride = stride(bytes);
        let host = self.host.as_mut_slice().map_err(Error::failed(NAME, "start work"))?;
        for (column, input) in host.chunks_mut(self.stride).zip(inputs) {
            column[..bytes].copy_from_slice(input);
        }
        self.submit(work).map_err(Error::failed(NAME, "start work"))
    }

    fn finish<'a>(&mut self, outputs: impl Iterator<Item = &'a mut [u8]>) -> Result<(), Error> {
        self.stream.synchronize().map_err(Error::failed(NAME, "finish work"))?;
        let host = self.host.as_slice().map_err(Error::failed(NAME, "finish work"))?;
        for (column, result) in outputs.zip(host.chunks(self.stride)) {
            column.copy_from_slice(&result[..column.len()]);
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
        let _ = self.stream.memset_zeros(&mut self.columns);
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
                for (ptx, (name, _)) in kernels.iter().zip(SOURCES) {
                    assert!(ptx.to_src().contains(&format!(".entry {name}")), "{name}");
                }
            }
            Err(reason) if reason.contains("not installed") => eprintln!("skipped: {reason}"),
            Err(reason) => panic!("{reason}"),
        }
    }
}
