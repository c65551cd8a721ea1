//! Machines that run kernels: the CPU, NVIDIA cards, whatever has a Vulkan driver, FPGA cards.
//!
//! Every device gives the same bits as the scalar twins in [`crate::kernel`]: which one is used never
//! changes a byte of output, only the time. A device that is not there, or that this program was
//! built without, is an [`Error::Absent`] with the reason; nothing here panics for lack of hardware.

use std::time::Duration;

use crate::base::{Fault, Faulty, ShareLetter};
use crate::kernel::otp::{BLOCK_BYTES, Pad};
use crate::kernel::{align, pack, pairhmm, ungapped};

pub mod assign;

#[cfg_attr(not(feature = "cuda"), expect(dead_code, reason = "only NVIDIA cards are locked"))]
pub mod card;
pub mod conformance;
pub mod cpu;

#[cfg(feature = "cuda")]
pub mod cuda;
mod jobs;
mod lane;
mod launch;
pub mod measure;
mod process;
mod sealing;
pub mod setting;
pub mod steady;
pub mod table;
#[cfg(feature = "wgpu")]
pub mod wgpu;
mod xrt;

/// A machine that runs kernels.
pub trait Device: Send + Sync {
    /// Its name in [`BACKENDS`].
    fn name(&self) -> &'static str;

    /// What the hardware calls itself, for reports.
    fn model(&self) -> String;

    /// Opens a queue for pieces of at most `piece_bytes` a half of a stripe (or a pad), and for
    /// batches of jobs that take four times as much with their results.
    ///
    /// All device memory is taken here ([`queue_bytes`](Self::queue_bytes)), and wiped when the queue is dropped.
    /// Longer inputs go in pieces; a device that cannot hold that much takes smaller ones.
    fn queue(&self, piece_bytes: usize) -> Result<Box<dyn Queue>, Error>;

    /// Device memory that a queue takes, in bytes: twice four pieces, and what jobs write for themselves.
    fn queue_bytes(&self, piece_bytes: usize) -> u64 {
        2 * lane::COLUMNS as u64 * piece_bytes as u64
    }

    /// Copies a table to the device: the words of all parts after each other. It stays there until
    /// the last [`Resident`] is dropped, and is used by queues of this device only.
    fn table(&self, parts: &[&[u32]]) -> Result<Resident, Error>;

    /// Bytes of the largest table; larger ones are given to it in parts.
    fn table_bytes_max(&self) -> usize {
        usize::MAX
    }

    /// Whether the device itself does this kernel; what it has not, its queues give to the CPU.
    fn has(&self, _kernel: Kernel) -> bool {
        true
    }

    /// Whether this is but a program on this machine's processor, which can win nothing.
    fn is_simulated(&self) -> bool {
        false
    }

    /// How many of the `wanted` bytes of its memory a run may plan with.
    fn room(&self, wanted: u64) -> u64 {
        wanted
    }

    /// Its cards, where a machine can have several.
    fn cards(&self) -> Vec<CardState> {
        Vec::new()
    }

    /// What bounds one of its cards, each measured for `time` on about `bytes` of its memory; nothing where that
    /// was not written for a device.
    ///
    /// Errors: the device's.
    fn rates(&self, _bytes: usize, _time: Duration) -> Result<Vec<Rate>, Error> {
        Ok(Vec::new())
    }

    /// Whether a new queue would work although one has failed: on another card.
    fn survives(&self) -> bool {
        false
    }

    /// The same device with only these of its cards, counted from 0.
    ///
    /// Errors: [`Error::Absent`] when there is no such card, or nothing to choose from.
    fn only(&self, _cards: &[usize]) -> Result<Box<dyn Device>, Error> {
        Err(Error::absent(self.name(), "its cards cannot be chosen"))
    }
}

/// How long a card takes for something that a job's way from and to this machine's memory hides.
#[derive(Clone, Debug)]
pub struct Rate {
    /// What was measured.
    pub name: &'static str,
    /// Bytes of the text of one run: of the secret, of the data, of what is copied.
    pub bytes: f64,
    /// Bytes read and written in the card's memory, or over the link, for each of them.
    pub moves: f64,
    /// Of every run.
    pub seconds: Vec<f64>,
}

impl Rate {
    /// Copies from the card's memory to the card's memory: what bounds kernels over bytes that are there.
    pub const CARD_COPY: &str = "copy on the card";
    /// Pinned memory to the card and back at the same time, bytes of both ways.
    pub const LINK: &str = "link, both ways";
}

/// What a method of [`Queue`] does; the names of both are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // The methods say it.
pub enum Kernel {
    Xor,
    Seal,
    Open,
    Split,
    Restore,
    Rebuild,
    Align,
    Pairhmm,
    Pack,
    Ungapped,
    Lookup,
}

impl Kernel {
    /// All of them.
    pub const ALL: [Kernel; 11] = [
        Kernel::Xor,
        Kernel::Seal,
        Kernel::Open,
        Kernel::Split,
        Kernel::Restore,
        Kernel::Rebuild,
        Kernel::Align,
        Kernel::Pairhmm,
        Kernel::Pack,
        Kernel::Ungapped,
        Kernel::Lookup,
    ];

    /// Its name in measurements and reports.
    pub fn name(self) -> &'static str {
        match self {
            Kernel::Xor => "xor",
            Kernel::Seal => "seal",
            Kernel::Open => "open",
            Kernel::Split => "split",
            Kernel::Restore => "restore",
            Kernel::Rebuild => "rebuild",
            Kernel::Align => "align",
            Kernel::Pairhmm => "pairhmm",
            Kernel::Pack => "pack",
            Kernel::Ungapped => "ungapped",
            Kernel::Lookup => "lookup",
        }
    }
}

/// Work on one device: one method per kernel, over host memory, done when the method returns.
///
/// After an error the slices that were to be written hold anything.
///
/// # Panics
/// All methods, on shapes, letters or hashes that the twin of the same name refuses, and on a table that
/// another device made.
pub trait Queue: Send {
    /// Splits a secret in place into share A and gives share B ([`crate::kernel::share::split`]).
    fn split(&mut self, secret_to_a: &mut [u8], random: &[u8], b: &mut [u8]) -> Result<(), Error>;

    /// Restores the secret in place of the first share ([`crate::kernel::share::restore`]).
    fn restore(
        &mut self,
        first: &mut [u8],
        second: &[u8],
        letters: (ShareLetter, ShareLetter),
    ) -> Result<(), Error>;

    /// Rebuilds the third share in place of the first ([`crate::kernel::share::rebuild`]).
    fn rebuild(
        &mut self,
        first: &mut [u8],
        second: &[u8],
        letters: (ShareLetter, ShareLetter),
    ) -> Result<(), Error>;

    /// Splits stripes of any even lengths, each as [`split`](Self::split) does, in few launches.
    fn split_each(&mut self, stripes: &mut [ToSplit<'_>]) -> Result<(), Error> {
        stripes.iter_mut().try_for_each(|one| self.split(one.secret_to_a, one.random, one.b))
    }

    /// Restores stripes of any even lengths, each as [`restore`](Self::restore) does, in few launches.
    fn restore_each(
        &mut self,
        stripes: &mut [ToCombine<'_>],
        letters: (ShareLetter, ShareLetter),
    ) -> Result<(), Error> {
        stripes.iter_mut().try_for_each(|one| self.restore(one.first, one.second, letters))
    }

    /// Rebuilds shares of stripes of any even lengths, each as [`rebuild`](Self::rebuild) does, in few launches.
    fn rebuild_each(
        &mut self,
        stripes: &mut [ToCombine<'_>],
        letters: (ShareLetter, ShareLetter),
    ) -> Result<(), Error> {
        stripes.iter_mut().try_for_each(|one| self.rebuild(one.first, one.second, letters))
    }

    /// `data ^= pad` ([`crate::kernel::otp::xor`]).
    fn xor(&mut self, data: &mut [u8], pad: &[u8]) -> Result<(), Error>;

    /// Seals `data` by a pad and gives the hash of the ciphertext ([`crate::kernel::otp::Hash::seal`]).
    /// What of the pad has to be worked out is worked out while it is applied.
    fn seal(
        &mut self,
        data: &mut [u8],
        pad: Pad<'_>,
        key: &[u8; BLOCK_BYTES],
    ) -> Result<[u8; BLOCK_BYTES], Error>;

    /// Opens what was sealed, and gives the same hash ([`crate::kernel::otp::Hash::open`]). Whether it
    /// is the right one must be known before anything else sees the data.
    fn open(
        &mut self,
        data: &mut [u8],
        pad: Pad<'_>,
        key: &[u8; BLOCK_BYTES],
    ) -> Result<[u8; BLOCK_BYTES], Error>;

    /// Aligns every query to its target, in order ([`crate::kernel::align::scalar`]).
    fn align(
        &mut self,
        pairs: &[align::Pair<'_>],
        scores: &align::Scores,
    ) -> Result<Vec<Option<align::Placement>>, Error>;

    /// The penalty of every job, in order ([`crate::kernel::pairhmm::Batch::scalar`]).
    fn pairhmm(&mut self, batch: &pairhmm::Batch<'_>) -> Result<Vec<i32>, Error>;

    /// Packs every read, in order ([`crate::kernel::pack::scalar`]).
    fn pack(&mut self, reads: &[pack::Read<'_>]) -> Result<Vec<pack::Packed>, Error>;

    /// The best stretch of every read where it is laid, in order ([`crate::kernel::ungapped::scalar`]).
    fn ungapped(
        &mut self,
        genome: &Genome,
        reads: &[pack::ReadWord],
        jobs: &[ungapped::Job],
        scores: &align::Scores,
    ) -> Result<Vec<ungapped::Segment>, Error>;

    /// The first entry of every seed and their number, in order ([`crate::kernel::lookup::scalar`]).
    fn lookup(&mut self, table: &SeedTable, hashes: &[u64]) -> Result<Vec<(u32, u32)>, Error>;
}

/// One of the stripes of [`Queue::split_each`].
pub struct ToSplit<'a> {
    /// Becomes share A.
    pub secret_to_a: &'a mut [u8],
    /// Share C.
    pub random: &'a [u8],
    /// Becomes share B.
    pub b: &'a mut [u8],
}

/// One of the stripes of [`Queue::restore_each`] and [`Queue::rebuild_each`].
pub struct ToCombine<'a> {
    /// A share, in the place of which is what comes of it.
    pub first: &'a mut [u8],
    /// Another share.
    pub second: &'a [u8],
}

/// How a device is opened.
pub type Open = fn() -> Result<Box<dyn Device>, Error>;

/// Every kind of device, the fastest to be expected last; `fpga-sim` is for tests.
pub const BACKENDS: &[(&str, Open)] = &[
    ("fpga-sim", process::open_fpga_sim),
    ("cpu", cpu::open),
    ("xrt", xrt::open),
    ("wgpu", open_wgpu),
    ("cuda", open_cuda),
];

use card::CardState;
use table::{Genome, Resident, SeedTable};

#[cfg(feature = "cuda")]
use cuda::open as open_cuda;
#[cfg(feature = "wgpu")]
use wgpu::open as open_wgpu;

#[cfg(not(feature = "cuda"))]
fn open_cuda() -> Result<Box<dyn Device>, Error> {
    Err(Error::absent("cuda", "this program was built without the feature 'cuda'"))
}

#[cfg(not(feature = "wgpu"))]
fn open_wgpu() -> Result<Box<dyn Device>, Error> {
    Err(Error::absent("wgpu", "this program was built without the feature 'wgpu'"))
}

/// Opens the device of that name in [`BACKENDS`].
///
/// Errors: [`Error::Unknown`] for another name, [`Error::Absent`] when the machine has none.
pub fn open(name: &str) -> Result<Box<dyn Device>, Error> {
    let (_, open) = BACKENDS
        .iter()
        .find(|(known, _)| *known == name)
        .ok_or_else(|| Error::Unknown { name: name.chars().take(40).collect() })?;
    open()
}

/// Why a device could not be had or did not do its work.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No kind of device has this name.
    #[error("there is no device '{name}'; known are {}", known_names())]
    Unknown {
        /// The name asked for.
        name: String,
    },
    /// This machine or this build has no such device.
    #[error("device '{device}' is absent: {reason}")]
    Absent {
        /// Its name in [`BACKENDS`].
        device: &'static str,
        /// What is missing.
        reason: String,
    },
    /// The device has not as much memory.
    #[error("device '{device}' has not the memory for {piece_bytes} bytes at once")]
    NoMemory {
        /// Its name in [`BACKENDS`].
        device: &'static str,
        /// What was asked for.
        piece_bytes: usize,
    },
    /// The device has not as much memory.
    #[error("device '{device}' has not the memory for a table of {table_bytes} bytes")]
    NoTable {
        /// Its name in [`BACKENDS`].
        device: &'static str,
        /// The table's length.
        table_bytes: usize,
    },
    /// The device was there and failed.
    #[error("device '{device}' failed to {step}")]
    Failed {
        /// Its name in [`BACKENDS`].
        device: &'static str,
        /// What it was doing.
        step: &'static str,
        /// What its driver said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Error {
    fn absent(device: &'static str, reason: impl Into<String>) -> Self {
        Error::Absent { device, reason: reason.into() }
    }

    /// For `map_err`: a driver's error at `step`.
    fn failed<E>(device: &'static str, step: &'static str) -> impl FnOnce(E) -> Self
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        move |source| Error::Failed { device, step, source: source.into() }
    }
}

impl Faulty for Error {
    fn fault(&self) -> Fault {
        match self {
            Error::Unknown { .. } => Fault::Config,
            Error::Absent { .. } => Fault::Unavailable,
            Error::NoMemory { .. } | Error::NoTable { .. } | Error::Failed { .. } => Fault::System,
        }
    }
}

fn known_names() -> String {
    BACKENDS.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
}
