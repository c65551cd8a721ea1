//! What bounds a card: copies within its memory, the link, and kernels over what is in its memory already.
//!
//! A job begins and ends in this machine's memory, so the figures of a queue say how fast the link is and not
//! how fast the card is. Here nothing but what is named is in the measured time.
#![allow(unsafe_code)]

use std::sync::Arc;
use std::time::Duration;

use cudarc::driver::{
    CudaSlice, CudaStream, DriverError, LaunchConfig, PinnedHostSlice, PushKernelArg,
};

use super::cards::Card;
use crate::base::clock::Stopwatch;
use crate::device::Rate;
use crate::device::lane::{COLUMNS, Function, VECTOR_BYTES};

/// Starts between two looks at the clock: waiting for a stream takes microseconds.
const STARTS: u32 = 8;
/// Runs of each measurement at least, after one that warms up.
const RUNS_MIN: usize = 3;
/// The rows of four bits that make both halves of two shares: the time does not depend on them.
const SPLIT: [u32; 2] = [4, 0x8421];

/// Streams of one card, pinned memory for each, and four columns of its memory.
struct Bench<'a> {
    card: &'a Card,
    streams: [Arc<CudaStream>; 2],
    up: PinnedHostSlice<u8>,
    down: PinnedHostSlice<u8>,
    memory: CudaSlice<u8>,
    /// What goes down the link: memory of its own, so that neither way waits for the other.
    results: CudaSlice<u8>,
    column_bytes: usize,
}

/// Measures each rate for `time`, on four columns of together about `bytes`.
pub(super) fn measure(card: &Card, bytes: usize, time: Duration) -> Result<Vec<Rate>, DriverError> {
    let column_bytes = (bytes / COLUMNS).clamp(VECTOR_BYTES, 1 << 30) / VECTOR_BYTES * VECTOR_BYTES;
    let mut bench = Bench::new(card, column_bytes)?;
    let columns = |columns: usize| f64::from(STARTS) * (columns * column_bytes) as f64;
    let copy = bench.run(time, Bench::copy)?;
    let link = bench.run(time, Bench::link)?;
    let xor = bench.run(time, |bench| bench.kernel(Function::Xor, [1, 0]))?;
    let split = bench.run(time, |bench| bench.kernel(Function::Share, SPLIT))?;
    let rate = |name, bytes, moves, seconds| Rate { name, bytes, moves, seconds };
    Ok(vec![
        rate(Rate::CARD_COPY, columns(2), 2.0, copy),
        rate(Rate::LINK, columns(4), 1.0, link),
        rate("xor, on the card", columns(1), 3.0, xor),
        rate("split, on the card", columns(2), 4.0, split),
    ])
}

impl<'a> Bench<'a> {
    fn new(card: &'a Card, column_bytes: usize) -> Result<Self, DriverError> {
        let streams = [card.context.new_stream()?, card.context.new_stream()?];
        let pinned = || {
            // SAFETY: filled before anything reads it.
            let mut host = unsafe { card.context.alloc_pinned_with_flags(2 * column_bytes, 0) }?;
            host.as_mut_slice()?.fill(0);
            Ok::<_, DriverError>(host)
        };
        let (up, down) = (pinned()?, pinned()?);
        let memory = streams[0].alloc_zeros(COLUMNS * column_bytes)?;
        let results = streams[1].alloc_zeros(2 * column_bytes)?;
        streams.iter().try_for_each(|stream| stream.synchronize())?;
        Ok(Self { card, streams, up, down, memory, results, column_bytes })
    }

    /// Seconds of every run of [`STARTS`] starts, until the card has done them.
    fn run(
        &mut self,
        time: Duration,
        mut start: impl FnMut(&mut Self) -> Result<(), DriverError>,
    ) -> Result<Vec<f64>, DriverError> {
        let (all, mut seconds) = (Stopwatch::start(), Vec::new());
        while seconds.len() <= RUNS_MIN || all.elapsed() < time {
            let watch = Stopwatch::start();
            (0..STARTS).try_for_each(|_| start(self))?;
            self.streams.iter().try_for_each(|stream| stream.synchronize())?;
            seconds.push(watch.elapsed().as_secs_f64());
        }
        Ok(seconds.split_off(1))
    }

    /// Two columns to where the others are.
    fn copy(&mut self) -> Result<(), DriverError> {
        let (from, mut to) = self.memory.split_at_mut(2 * self.column_bytes);
        self.streams[0].memcpy_dtod(&from, &mut to)
    }

    /// Two columns to the card and two from it, at the same time.
    fn link(&mut self) -> Result<(), DriverError> {
        let (mut to, _) = self.memory.split_at_mut(2 * self.column_bytes);
        self.streams[0].memcpy_htod(&self.up, &mut to)?;
        self.streams[1].memcpy_dtoh(&self.results, &mut self.down)
    }

    /// A kernel over the columns as they are.
    fn kernel(&mut self, function: Function, [outputs, rows]: [u32; 2]) -> Result<(), DriverError> {
        let vectors = (self.column_bytes / VECTOR_BYTES) as u32;
        let block = function.block();
        let grid = LaunchConfig {
            grid_dim: (vectors.div_ceil(block), 1, 1),
            block_dim: (block, 1, 1),
            shared_mem_bytes: 0,
        };
        let mut builder = self.streams[0].launch_builder(&self.card.functions[function as usize]);
        builder.arg(&mut self.memory).arg(&vectors).arg(&outputs).arg(&rows);
        // SAFETY: the arguments are those of the kernels' declarations, and there are four columns.
        unsafe { builder.launch(grid) }.map(drop)
    }
}

/// No copy outlives the memory it writes to.
impl Drop for Bench<'_> {
    fn drop(&mut self) {
        for stream in &self.streams {
            let _ = stream.synchronize();
        }
    }
}
