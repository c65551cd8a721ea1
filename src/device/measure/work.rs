//! What is measured: the steps, what bounds each, and one worker's turn.

use std::hint::black_box;

use super::inputs::{BAND, Inputs, Jobs, READ_BASES, READ_WORDS, SEEDS};
use super::limits::{self, Bound};
use super::{Effort, Unit};
use crate::base::{Chunk, ShareLetter};
use crate::device::conformance::Noise;
use crate::device::cpu::{chacha20, keystream};
use crate::device::{Device, Error, Kernel, Queue};
use crate::kernel::otp::{Expansion, Pad};
use crate::kernel::{align, pack, pairhmm};

/// Bytes of a piece of a measured queue.
const PIECE_BYTES: usize = 4 << 20;
const LETTERS: (ShareLetter, ShareLetter) = (ShareLetter::A, ShareLetter::C);
const KEY: [u8; 32] = [7; 32];

/// Operations on 16-bit numbers for one state, as the twins write them: sums, minima or maxima, comparisons and
/// choices between two.
const ALIGN_OPERATIONS: f64 = 12.0;
const PAIRHMM_OPERATIONS: f64 = 15.0;
/// Rounds of AES-256 for a byte of key stream.
const AES_ROUNDS: f64 = 14.0 / 16.0;
/// Sums, XORs and rotations of 32-bit words for a byte of key stream: 80 quarter rounds and the sums at
/// the end, for 64 bytes.
const CHACHA_OPERATIONS: f64 = (80.0 * 12.0 + 16.0) / 64.0;
/// Bytes that packing a read moves: bases and qualities, and the words of both strands and of the bins.
const PACK_BYTES: f64 = (2 * READ_BASES
    + 2 * READ_WORDS * size_of::<pack::ReadWord>()
    + READ_BASES.div_ceil(8) * size_of::<u32>()) as f64;

/// What is measured in one turn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Step {
    /// A plain copy in this machine's memory.
    Copy,
    /// A method of the queue.
    Kernel(Kernel),
    /// Sealing by a pad of which a part is worked out while it is applied.
    Expanded,
    /// AES-256-CTR alone.
    Keystream,
    /// The generator of random bytes.
    ChaCha20,
    /// What bounds a kernel of the CPU.
    Limit(Bound),
}

/// All that is measured, each behind what bounds it.
pub(super) const STEPS: [Step; 20] = [
    Step::Copy,
    Step::Kernel(Kernel::Xor),
    Step::Kernel(Kernel::Seal),
    Step::Kernel(Kernel::Open),
    Step::Kernel(Kernel::Split),
    Step::Kernel(Kernel::Restore),
    Step::Kernel(Kernel::Rebuild),
    Step::Limit(Bound::Additions),
    Step::Kernel(Kernel::Align),
    Step::Kernel(Kernel::Pairhmm),
    Step::Kernel(Kernel::Pack),
    Step::Limit(Bound::Counts),
    Step::Kernel(Kernel::Ungapped),
    Step::Limit(Bound::Accesses),
    Step::Kernel(Kernel::Lookup),
    Step::Limit(Bound::AesRounds),
    Step::Expanded,
    Step::Keystream,
    Step::Limit(Bound::Rotations),
    Step::ChaCha20,
];

impl Step {
    pub(super) fn name(self) -> &'static str {
        match self {
            Step::Copy => "copy",
            Step::Kernel(kernel) => kernel.name(),
            Step::Expanded => "seal, Fig. 5",
            Step::Keystream => "keystream",
            Step::ChaCha20 => "chacha20",
            Step::Limit(bound) => bound.name(),
        }
    }

    pub(super) fn unit(self) -> Unit {
        match self {
            Step::Kernel(Kernel::Align | Kernel::Pairhmm) => Unit::GigaCells,
            Step::Kernel(Kernel::Pack | Kernel::Ungapped | Kernel::Lookup) => Unit::Millions,
            Step::Limit(Bound::Accesses) => Unit::Millions,
            Step::Limit(_) => Unit::Billions,
            _ => Unit::Gigabytes,
        }
    }

    /// What one run of one worker does: bytes, states, reads, seeds or operations.
    pub(super) fn amount(self, effort: &Effort) -> f64 {
        let jobs = effort.jobs as f64;
        match self {
            Step::Kernel(Kernel::Align | Kernel::Pairhmm) => jobs * (READ_BASES * BAND) as f64,
            Step::Kernel(Kernel::Pack | Kernel::Ungapped) => jobs,
            Step::Kernel(Kernel::Lookup) => jobs * SEEDS as f64,
            Step::Limit(bound) => bound.amount(),
            _ => effort.bytes as f64,
        }
    }

    /// Bytes that are read and written for each byte of the text.
    pub(super) fn moves(self) -> f64 {
        match self {
            Step::Kernel(Kernel::Split) => 4.0,
            Step::Kernel(_) | Step::Expanded => 3.0,
            Step::Copy => 2.0,
            Step::Keystream | Step::ChaCha20 | Step::Limit(_) => 1.0,
        }
    }

    /// What bounds it, and how much of that one unit of it needs; of a copy bytes that are moved.
    pub(super) fn limit(self) -> Option<(Step, f64)> {
        Some(match self {
            Step::Copy | Step::Limit(_) => return None,
            Step::Kernel(kernel) => match kernel {
                Kernel::Xor | Kernel::Seal | Kernel::Open => (Step::Copy, self.moves()),
                Kernel::Split | Kernel::Restore | Kernel::Rebuild => (Step::Copy, self.moves()),
                Kernel::Pack => (Step::Copy, PACK_BYTES),
                Kernel::Align => (Step::Limit(Bound::Additions), ALIGN_OPERATIONS),
                Kernel::Pairhmm => (Step::Limit(Bound::Additions), PAIRHMM_OPERATIONS),
                Kernel::Ungapped => (Step::Limit(Bound::Counts), READ_WORDS as f64),
                // A bucket and its entries.
                Kernel::Lookup => (Step::Limit(Bound::Accesses), 2.0),
            },
            Step::Expanded => (Step::Copy, self.moves()),
            Step::Keystream => (Step::Limit(Bound::AesRounds), AES_ROUNDS),
            Step::ChaCha20 => (Step::Limit(Bound::Rotations), CHACHA_OPERATIONS),
        })
    }
}

/// One worker: its queue, its texts, and the batches.
pub(super) struct Work<'a> {
    queue: Box<dyn Queue>,
    data: Chunk,
    pad: Chunk,
    other: Chunk,
    expansions: [Expansion; 1],
    inputs: &'a Inputs,
    jobs: &'a Jobs<'a>,
    noise: Noise,
}

impl<'a> Work<'a> {
    /// Errors: those of the device.
    pub(super) fn new(
        device: &dyn Device,
        inputs: &'a Inputs,
        jobs: &'a Jobs<'a>,
    ) -> Result<Self, Error> {
        // Written by the worker itself: the memory is where its processor is.
        let text = |seed: usize| {
            let mut text = Chunk::with_capacity(inputs.effort.bytes);
            text.set_len(inputs.effort.bytes);
            text.iter_mut().enumerate().for_each(|(at, byte)| *byte = (at * seed) as u8);
            text
        };
        Ok(Self {
            queue: device.queue(PIECE_BYTES)?,
            data: text(31),
            pad: text(37),
            other: text(41),
            expansions: [Expansion::new(0, &KEY, 5)],
            inputs,
            jobs,
            noise: Noise(3),
        })
    }

    pub(super) fn run(&mut self, step: Step) -> Result<(), Error> {
        match step {
            Step::Copy => black_box(&mut self.other).copy_from_slice(&self.pad),
            Step::Kernel(kernel) => return self.kernel(kernel),
            Step::Expanded => {
                let pad = Pad::new(Some(&self.pad), &self.expansions, self.data.len());
                black_box(self.queue.seal(&mut self.data, pad, &[7; 16])?);
            }
            Step::Keystream => keystream::fill(&KEY, 0, &mut self.other),
            Step::ChaCha20 => chacha20::fill(&KEY, 0, &mut self.other),
            Step::Limit(Bound::Accesses) => {
                limits::accesses(self.inputs.seeds.seeds().entries, &mut self.noise);
            }
            Step::Limit(bound) => bound.run(),
        }
        Ok(())
    }

    fn kernel(&mut self, kernel: Kernel) -> Result<(), Error> {
        let Self { queue, data, pad, other, inputs, jobs, .. } = self;
        let pad = &**pad;
        let scores = align::Scores::default();
        match kernel {
            Kernel::Xor => queue.xor(data, pad),
            Kernel::Seal => queue.seal(data, pad.into(), &[7; 16]).map(drop),
            Kernel::Open => queue.open(data, pad.into(), &[7; 16]).map(drop),
            Kernel::Split => queue.split(data, pad, other),
            Kernel::Restore => queue.restore(data, pad, LETTERS),
            Kernel::Rebuild => queue.rebuild(data, pad, LETTERS),
            Kernel::Align => queue.align(&jobs.pairs, &scores).map(drop),
            Kernel::Pairhmm => {
                let batch = pairhmm::Batch {
                    reads: &jobs.parts,
                    haplotypes: &jobs.haplotypes,
                    jobs: &jobs.on,
                    penalties: &inputs.penalties,
                };
                queue.pairhmm(&batch).map(drop)
            }
            Kernel::Pack => queue.pack(&jobs.reads).map(drop),
            Kernel::Ungapped => {
                queue.ungapped(&inputs.genome, &inputs.packed, &inputs.places, &scores).map(drop)
            }
            Kernel::Lookup => queue.lookup(&inputs.seeds, &inputs.asked).map(drop),
        }
    }
}
