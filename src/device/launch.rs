//! The device kernels: which there are, what a device can do of them, and one start of one.

use std::ops::Range;

use super::table::Resident;
use super::{Kernel, sealing};

/// The device kernels, in the order of [`FUNCTIONS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Function {
    /// Column 0 becomes the sum of columns 0 and 1.
    Xor,
    /// Columns become sums of the columns that rows of bits name.
    Share,
    /// Column 0 sealed or opened, with sums for its hash.
    Otp,
    /// Alignments, one a thread, or two.
    Align,
    /// Penalties of reads on haplotypes, one a thread.
    Pairhmm,
    /// Reads to be packed, one a thread.
    Pack,
    /// Reads on a reference, one a thread.
    Ungapped,
    /// Seeds in an index, one a thread.
    Lookup,
}

/// The entry point of every [`Function`].
pub(super) const FUNCTIONS: [&str; 8] =
    ["xor_pad", "share", "otp", "align", "pairhmm", "pack", "ungapped", "lookup"];

impl Function {
    /// All of them, in order.
    #[cfg(any(test, feature = "cuda", feature = "wgpu"))]
    pub(super) const ALL: [Function; FUNCTIONS.len()] = [
        Function::Xor,
        Function::Share,
        Function::Otp,
        Function::Align,
        Function::Pairhmm,
        Function::Pack,
        Function::Ungapped,
        Function::Lookup,
    ];

    /// The device kernel that does the work of a queue's method.
    pub(super) fn of(kernel: Kernel) -> Self {
        match kernel {
            Kernel::Xor => Function::Xor,
            Kernel::Seal | Kernel::Open => Function::Otp,
            Kernel::Split | Kernel::Restore | Kernel::Rebuild => Function::Share,
            Kernel::Align => Function::Align,
            Kernel::Pairhmm => Function::Pairhmm,
            Kernel::Pack => Function::Pack,
            Kernel::Ungapped => Function::Ungapped,
            Kernel::Lookup => Function::Lookup,
        }
    }

    /// Threads that work together on a device's multiprocessor.
    #[cfg(any(feature = "cuda", feature = "wgpu"))]
    pub(super) fn block(self) -> u32 {
        match self {
            Function::Xor | Function::Share | Function::Otp => 256,
            Function::Align | Function::Pairhmm => 32,
            _ => 64,
        }
    }
}

/// What the kernels of a device can do; what they cannot is done by the CPU.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ability {
    /// The kernels that there are.
    pub(super) functions: &'static [Function],
    /// How it seals.
    pub(super) sealing: sealing::Ability,
    /// Whether its threads align two pairs each.
    pub(super) aligns_two: bool,
}

impl Ability {
    /// `kernels/`.
    #[cfg(any(test, feature = "cuda", feature = "wgpu"))]
    pub(super) const CUDA: Ability = Ability {
        functions: &Function::ALL,
        sealing: sealing::Ability { lanes: None, expands: true },
        aligns_two: true,
    };

    /// `shaders/`.
    #[cfg(any(test, feature = "cuda", feature = "wgpu"))]
    pub(super) const WGSL: Ability = Ability { aligns_two: false, ..Ability::CUDA };

    /// `hls/`.
    pub(super) const HLS: Ability = Ability {
        functions: &[
            Function::Xor,
            Function::Share,
            Function::Otp,
            Function::Align,
            Function::Pairhmm,
        ],
        sealing: sealing::Ability { lanes: None, expands: false },
        aligns_two: false,
    };
}

/// One start of a kernel on the memory of a lane.
#[derive(Clone)]
pub(super) struct Launch {
    /// Which kernel.
    pub(super) function: Function,
    /// Threads that have work.
    pub(super) threads: u32,
    /// The kernel's numbers.
    pub(super) numbers: [u32; 3],
    /// Bytes from the beginning of the memory that are copied to the device.
    pub(super) up: usize,
    /// Bytes of the memory that are copied back.
    pub(super) down: Range<usize>,
    /// What the kernel reads besides the memory.
    pub(super) table: Option<Resident>,
    /// Words of what the threads of a block share, for each thread.
    #[cfg_attr(
        not(feature = "cuda"),
        expect(dead_code, reason = "others declare it in their kernels")
    )]
    pub(super) shared_words: usize,
}

impl Launch {
    /// What the threads of a block share, in bytes.
    #[cfg(feature = "cuda")]
    pub(super) fn shared_bytes(&self) -> u32 {
        4 * self.shared_words as u32 * self.function.block()
    }

    /// The memory that the kernel touches, in bytes.
    #[cfg(test)]
    pub(super) fn reach(&self) -> usize {
        self.up.max(self.down.end)
    }
}
