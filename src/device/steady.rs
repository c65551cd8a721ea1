//! The queue of one worker: every kernel goes to the device that it is assigned to, and what a device fails at,
//! the CPU does, from the same inputs and with the same results.
//!
//! Memory that a device does not have is asked for by halves. A device that failed once is not asked
//! again by any worker of the job: [`Assignment::renewed`] is for the next one.

use std::sync::Arc;

use zeroize::Zeroize;

use crate::base::ShareLetter;
use crate::kernel::otp::{BLOCK_BYTES, Pad};
use crate::kernel::{align, pack, pairhmm, ungapped};

use super::assign::Assignment;
use super::table::{Genome, Resident, SeedTable};
use super::{Error, Kernel, Queue, ToCombine, ToSplit, open};

#[cfg(test)]
mod tests;

/// A queue over all devices of a run, with the CPU behind them.
pub struct Steady {
    assignment: Arc<Assignment>,
    cpu: Box<dyn Queue>,
    /// By the place of their devices.
    queues: Vec<Opened>,
    /// What a kernel works on in place, as it was.
    kept: Vec<u8>,
}

/// A worker's queue on one device.
enum Opened {
    /// Not yet: no kernel was for it.
    No,
    /// With the size of its pieces when it was opened.
    Yes(Box<dyn Queue>, usize),
    /// There is no memory for it.
    Never,
}

impl Steady {
    pub(super) fn new(assignment: Arc<Assignment>) -> Result<Self, Error> {
        let queues = (0..assignment.device_count()).map(|_| Opened::No).collect();
        Ok(Self { assignment, cpu: open("cpu")?.queue(0)?, queues, kept: Vec::new() })
    }

    /// The device's queue for a kernel, and its place; opened when it is first wanted.
    fn device(&mut self, kernel: Kernel) -> Option<(usize, &mut dyn Queue)> {
        let place = self.assignment.device_of(kernel)?;
        while let Opened::No = self.queues[place] {
            match self.assignment.open_queue(place) {
                Ok((queue, piece_bytes)) => self.queues[place] = Opened::Yes(queue, piece_bytes),
                Err(error) => self.fail(place, &error),
            }
        }
        match &mut self.queues[place] {
            Opened::Yes(queue, _) => Some((place, queue.as_mut())),
            _ => None,
        }
    }

    /// What follows from an error of a device: smaller pieces, another card, or the CPU.
    fn fail(&mut self, place: usize, error: &Error) {
        let opened = std::mem::replace(&mut self.queues[place], Opened::Never);
        if let Opened::Yes(..) = opened {
            self.assignment.close_queue(place);
        }
        let again = match (error, opened) {
            (Error::NoMemory { .. }, Opened::Yes(_, piece_bytes)) => {
                self.assignment.halve(place, piece_bytes)
            }
            (Error::NoMemory { .. }, _) => false,
            (_, opened) => {
                drop(opened);
                self.assignment.goes_on(place, error)
            }
        };
        if again {
            self.queues[place] = Opened::No;
        } else if let Error::NoMemory { .. } = error {
            self.assignment.lacks_memory(place, error);
        }
    }

    fn run<T>(
        &mut self,
        kernel: Kernel,
        work: impl Fn(&mut dyn Queue) -> Result<T, Error>,
    ) -> Result<T, Error> {
        while let Some((place, queue)) = self.device(kernel) {
            match work(queue) {
                Err(error) => self.fail(place, &error),
                done => return done,
            }
        }
        work(self.cpu.as_mut())
    }

    /// For kernels over a table, which is where the device is, or with the CPU.
    fn run_over<T>(
        &mut self,
        kernel: Kernel,
        table: &Resident,
        work: impl Fn(&mut dyn Queue) -> Result<T, Error>,
    ) -> Result<T, Error> {
        if table.is::<()>() { work(self.cpu.as_mut()) } else { self.run(kernel, work) }
    }

    /// For kernels that work in place: a device that fails may have written half of it.
    fn run_in_place<D: InPlace + ?Sized, T>(
        &mut self,
        kernel: Kernel,
        data: &mut D,
        mut work: impl FnMut(&mut dyn Queue, &mut D) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut kept = std::mem::take(&mut self.kept);
        let mut is_kept = false;
        let done = loop {
            let Some((place, queue)) = self.device(kernel) else {
                break work(self.cpu.as_mut(), data);
            };
            if !is_kept {
                data.keep(&mut kept);
                is_kept = true;
            }
            match work(queue, data) {
                Err(error) => {
                    data.put_back(&kept);
                    self.fail(place, &error);
                }
                done => break done,
            }
        };
        self.kept = kept;
        done
    }
}

/// What a kernel works on in place.
trait InPlace {
    /// Shows every slice of it, in order.
    fn each(&mut self, show: &mut dyn FnMut(&mut [u8]));

    /// Copies it to `kept`, of which nothing else is left anywhere: it does not grow with bytes in it.
    fn keep(&mut self, kept: &mut Vec<u8>) {
        let mut bytes = 0;
        self.each(&mut |slice| bytes += slice.len());
        if kept.capacity() < bytes {
            kept.zeroize();
            kept.reserve_exact(bytes);
        }
        kept.clear();
        self.each(&mut |slice| kept.extend_from_slice(slice));
    }

    /// Makes it again what it was.
    fn put_back(&mut self, kept: &[u8]) {
        let mut rest = kept;
        self.each(&mut |slice| {
            let (own, behind) = rest.split_at(slice.len());
            slice.copy_from_slice(own);
            rest = behind;
        });
    }
}

impl InPlace for [u8] {
    fn each(&mut self, show: &mut dyn FnMut(&mut [u8])) {
        show(self);
    }
}

impl InPlace for [ToSplit<'_>] {
    fn each(&mut self, show: &mut dyn FnMut(&mut [u8])) {
        self.iter_mut().for_each(|stripe| show(stripe.secret_to_a));
    }
}

impl InPlace for [ToCombine<'_>] {
    fn each(&mut self, show: &mut dyn FnMut(&mut [u8])) {
        self.iter_mut().for_each(|stripe| show(stripe.first));
    }
}

/// Key bytes and genomes do not stay.
impl Drop for Steady {
    fn drop(&mut self) {
        for (place, opened) in self.queues.iter().enumerate() {
            if let Opened::Yes(..) = opened {
                self.assignment.close_queue(place);
            }
        }
        self.kept.zeroize();
    }
}

impl Queue for Steady {
    fn split(&mut self, secret_to_a: &mut [u8], random: &[u8], b: &mut [u8]) -> Result<(), Error> {
        self.run_in_place(Kernel::Split, secret_to_a, |queue, secret_to_a| {
            queue.split(secret_to_a, random, b)
        })
    }

    fn restore(
        &mut self,
        first: &mut [u8],
        second: &[u8],
        letters: (ShareLetter, ShareLetter),
    ) -> Result<(), Error> {
        self.run_in_place(Kernel::Restore, first, |queue, first| {
            queue.restore(first, second, letters)
        })
    }

    fn rebuild(
        &mut self,
        first: &mut [u8],
        second: &[u8],
        letters: (ShareLetter, ShareLetter),
    ) -> Result<(), Error> {
        self.run_in_place(Kernel::Rebuild, first, |queue, first| {
            queue.rebuild(first, second, letters)
        })
    }

    fn split_each(&mut self, stripes: &mut [ToSplit<'_>]) -> Result<(), Error> {
        self.run_in_place(Kernel::Split, stripes, |queue, stripes| queue.split_each(stripes))
    }

    fn restore_each(
        &mut self,
        stripes: &mut [ToCombine<'_>],
        letters: (ShareLetter, ShareLetter),
    ) -> Result<(), Error> {
        self.run_in_place(Kernel::Restore, stripes, |queue, stripes| {
            queue.restore_each(stripes, letters)
        })
    }

    fn rebuild_each(
        &mut self,
        stripes: &mut [ToCombine<'_>],
        letters: (ShareLetter, ShareLetter),
    ) -> Result<(), Error> {
        self.run_in_place(Kernel::Rebuild, stripes, |queue, stripes| {
            queue.rebuild_each(stripes, letters)
        })
    }

    fn xor(&mut self, data: &mut [u8], pad: &[u8]) -> Result<(), Error> {
        self.run_in_place(Kernel::Xor, data, |queue, data| queue.xor(data, pad))
    }

    fn seal(
        &mut self,
        data: &mut [u8],
        pad: Pad<'_>,
        key: &[u8; BLOCK_BYTES],
    ) -> Result<[u8; BLOCK_BYTES], Error> {
        self.run_in_place(Kernel::Seal, data, |queue, data| queue.seal(data, pad, key))
    }

    fn open(
        &mut self,
        data: &mut [u8],
        pad: Pad<'_>,
        key: &[u8; BLOCK_BYTES],
    ) -> Result<[u8; BLOCK_BYTES], Error> {
        self.run_in_place(Kernel::Open, data, |queue, data| queue.open(data, pad, key))
    }

    fn align(
        &mut self,
        pairs: &[align::Pair<'_>],
        scores: &align::Scores,
    ) -> Result<Vec<Option<align::Placement>>, Error> {
        self.run(Kernel::Align, |queue| queue.align(pairs, scores))
    }

    fn pairhmm(&mut self, batch: &pairhmm::Batch<'_>) -> Result<Vec<i32>, Error> {
        self.run(Kernel::Pairhmm, |queue| queue.pairhmm(batch))
    }

    fn pack(&mut self, reads: &[pack::Read<'_>]) -> Result<Vec<pack::Packed>, Error> {
        self.run(Kernel::Pack, |queue| queue.pack(reads))
    }

    fn ungapped(
        &mut self,
        genome: &Genome,
        reads: &[pack::ReadWord],
        jobs: &[ungapped::Job],
        scores: &align::Scores,
    ) -> Result<Vec<ungapped::Segment>, Error> {
        self.run_over(Kernel::Ungapped, genome.resident(), |queue| {
            queue.ungapped(genome, reads, jobs, scores)
        })
    }

    fn lookup(&mut self, table: &SeedTable, hashes: &[u64]) -> Result<Vec<(u32, u32)>, Error> {
        self.run_over(Kernel::Lookup, table.resident(), |queue| queue.lookup(table, hashes))
    }
}
