//! A queue that goes on when its device does not: what a device fails at, the CPU does, from the same
//! inputs and with the same results.
//!
//! Memory that a device does not have is asked for by halves. A device that failed once is not asked
//! again: a card that was lost does not come back within a job.

use crate::base::ShareLetter;
use crate::kernel::otp::{BLOCK_BYTES, Pad};
use crate::kernel::{align, pack, pairhmm, ungapped};

use super::table::{Genome, SeedTable};
use super::{Device, Error, Queue, open};

/// Smallest pieces that are asked for.
const PIECE_BYTES_MIN: usize = 64 << 10;

/// Told once, when the CPU takes over.
pub type Tell = Box<dyn Fn(&Error) + Send>;

/// A queue on a device with the CPU behind it.
pub struct Steady {
    /// `None` after it failed.
    device: Option<Box<dyn Queue>>,
    cpu: Box<dyn Queue>,
    /// What a kernel works on in place, as it was.
    kept: Vec<u8>,
    tell: Tell,
}

/// Opens a queue; when the memory does not suffice, with pieces half as large, and so on.
///
/// Gives the size of the pieces too. Errors: the device's, when it has not even memory for small ones.
pub fn queue(
    device: &dyn Device,
    piece_bytes: usize,
    tell: Tell,
) -> Result<(Steady, usize), Error> {
    let mut piece_bytes = piece_bytes;
    loop {
        match device.queue(piece_bytes) {
            Ok(queue) => {
                let cpu = open("cpu")?.queue(piece_bytes)?;
                let steady = Steady { device: Some(queue), cpu, kept: Vec::new(), tell };
                return Ok((steady, piece_bytes));
            }
            Err(Error::NoMemory { .. }) if piece_bytes / 2 >= PIECE_BYTES_MIN => piece_bytes /= 2,
            Err(error) => return Err(error),
        }
    }
}

impl Steady {
    /// Whether the CPU has taken over.
    pub fn fell_back(&self) -> bool {
        self.device.is_none()
    }

    fn run<T>(&mut self, work: impl Fn(&mut dyn Queue) -> Result<T, Error>) -> Result<T, Error> {
        if let Some(device) = &mut self.device {
            match work(device.as_mut()) {
                Err(error) => self.lose(&error),
                done => return done,
            }
        }
        work(self.cpu.as_mut())
    }

    /// For kernels that work in place: a device that fails may have written half of it.
    fn run_in_place<T>(
        &mut self,
        data: &mut [u8],
        mut work: impl FnMut(&mut dyn Queue, &mut [u8]) -> Result<T, Error>,
    ) -> Result<T, Error> {
        if let Some(device) = &mut self.device {
            self.kept.clear();
            self.kept.extend_from_slice(data);
            match work(device.as_mut(), data) {
                Err(error) => {
                    data.copy_from_slice(&self.kept);
                    self.lose(&error);
                }
                done => return done,
            }
        }
        work(self.cpu.as_mut(), data)
    }

    fn lose(&mut self, error: &Error) {
        self.device = None;
        (self.tell)(error);
    }
}

/// Key bytes and genomes do not stay.
impl Drop for Steady {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.kept);
    }
}

impl Queue for Steady {
    fn split(&mut self, secret_to_a: &mut [u8], random: &[u8], b: &mut [u8]) -> Result<(), Error> {
        self.run_in_place(secret_to_a, |queue, secret_to_a| queue.split(secret_to_a, random, b))
    }

    fn restore(
        &mut self,
        first: &mut [u8],
        second: &[u8],
        letters: (ShareLetter, ShareLetter),
    ) -> Result<(), Error> {
        self.run_in_place(first, |queue, first| queue.restore(first, second, letters))
    }

    fn rebuild(
        &mut self,
        first: &mut [u8],
        second: &[u8],
        letters: (ShareLetter, ShareLetter),
    ) -> Result<(), Error> {
        self.run_in_place(first, |queue, first| queue.rebuild(first, second, letters))
    }

    fn xor(&mut self, data: &mut [u8], pad: &[u8]) -> Result<(), Error> {
        self.run_in_place(data, |queue, data| queue.xor(data, pad))
    }

    fn seal(
        &mut self,
        data: &mut [u8],
        pad: Pad<'_>,
        key: &[u8; BLOCK_BYTES],
    ) -> Result<[u8; BLOCK_BYTES], Error> {
        self.run_in_place(data, |queue, data| queue.seal(data, pad, key))
    }

    fn open(
        &mut self,
        data: &mut [u8],
        pad: Pad<'_>,
        key: &[u8; BLOCK_BYTES],
    ) -> Result<[u8; BLOCK_BYTES], Error> {
        self.run_in_place(data, |queue, data| queue.open(data, pad, key))
    }

    fn align(
        &mut self,
        pairs: &[align::Pair<'_>],
        scores: &align::Scores,
    ) -> Result<Vec<Option<align::Placement>>, Error> {
        self.run(|queue| queue.align(pairs, scores))
    }

    fn pairhmm(&mut self, batch: &pairhmm::Batch<'_>) -> Result<Vec<i32>, Error> {
        self.run(|queue| queue.pairhmm(batch))
    }

    fn pack(&mut self, reads: &[pack::Read<'_>]) -> Result<Vec<pack::Packed>, Error> {
        self.run(|queue| queue.pack(reads))
    }

    fn ungapped(
        &mut self,
        genome: &Genome,
        reads: &[pack::ReadWord],
        jobs: &[ungapped::Job],
        scores: &align::Scores,
    ) -> Result<Vec<ungapped::Segment>, Error> {
        self.run(|queue| queue.ungapped(genome, reads, jobs, scores))
    }

    fn lookup(&mut self, table: &SeedTable, hashes: &[u64]) -> Result<Vec<(u32, u32)>, Error> {
        self.run(|queue| queue.lookup(table, hashes))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::device::table::Resident;

    /// A device with little memory, which is lost after a number of calls, in the middle of its work.
    struct Weak {
        room_bytes: usize,
        calls: Arc<AtomicUsize>,
    }

    impl Device for Weak {
        fn name(&self) -> &'static str {
            "weak"
        }

        fn model(&self) -> String {
            "for tests".into()
        }

        fn queue(&self, piece_bytes: usize) -> Result<Box<dyn Queue>, Error> {
            if piece_bytes > self.room_bytes {
                return Err(Error::NoMemory { device: "weak", piece_bytes });
            }
            let queue = open("cpu")?.queue(piece_bytes)?;
            Ok(Box::new(WeakQueue { queue, calls: Arc::clone(&self.calls) }))
        }

        fn table(&self, parts: &[&[u32]]) -> Result<Resident, Error> {
            open("cpu")?.table(parts)
        }
    }

    struct WeakQueue {
        queue: Box<dyn Queue>,
        calls: Arc<AtomicUsize>,
    }

    impl WeakQueue {
        /// After the last call that works the data is spoilt, as a device would leave it.
        fn call(&self, spoil: Option<&mut [u8]>) -> Result<(), Error> {
            let left = self.calls.load(Ordering::SeqCst);
            if left > 0 {
                self.calls.store(left - 1, Ordering::SeqCst);
                return Ok(());
            }
            if let Some(data) = spoil {
                data.fill(0xdd);
            }
            Err(Error::failed("weak", "go on")("it was lost"))
        }
    }

    impl Queue for WeakQueue {
        fn split(&mut self, s: &mut [u8], random: &[u8], b: &mut [u8]) -> Result<(), Error> {
            self.queue.split(s, random, b)?;
            self.call(Some(s))
        }

        fn restore(
            &mut self,
            first: &mut [u8],
            second: &[u8],
            letters: (ShareLetter, ShareLetter),
        ) -> Result<(), Error> {
            self.queue.restore(first, second, letters)?;
            self.call(Some(first))
        }

        fn rebuild(
            &mut self,
            first: &mut [u8],
            second: &[u8],
            letters: (ShareLetter, ShareLetter),
        ) -> Result<(), Error> {
            self.queue.rebuild(first, second, letters)?;
            self.call(Some(first))
        }

        fn xor(&mut self, data: &mut [u8], pad: &[u8]) -> Result<(), Error> {
            self.queue.xor(data, pad)?;
            self.call(Some(data))
        }

        fn seal(
            &mut self,
            data: &mut [u8],
            pad: Pad<'_>,
            key: &[u8; BLOCK_BYTES],
        ) -> Result<[u8; BLOCK_BYTES], Error> {
            let tag = self.queue.seal(data, pad, key)?;
            self.call(Some(data)).map(|()| tag)
        }

        fn open(
            &mut self,
            data: &mut [u8],
            pad: Pad<'_>,
            key: &[u8; BLOCK_BYTES],
        ) -> Result<[u8; BLOCK_BYTES], Error> {
            let tag = self.queue.open(data, pad, key)?;
            self.call(Some(data)).map(|()| tag)
        }

        fn align(
            &mut self,
            pairs: &[align::Pair<'_>],
            scores: &align::Scores,
        ) -> Result<Vec<Option<align::Placement>>, Error> {
            self.call(None)?;
            self.queue.align(pairs, scores)
        }

        fn pairhmm(&mut self, batch: &pairhmm::Batch<'_>) -> Result<Vec<i32>, Error> {
            self.call(None)?;
            self.queue.pairhmm(batch)
        }

        fn pack(&mut self, reads: &[pack::Read<'_>]) -> Result<Vec<pack::Packed>, Error> {
            self.call(None)?;
            self.queue.pack(reads)
        }

        fn ungapped(
            &mut self,
            genome: &Genome,
            reads: &[pack::ReadWord],
            jobs: &[ungapped::Job],
            scores: &align::Scores,
        ) -> Result<Vec<ungapped::Segment>, Error> {
            self.call(None)?;
            self.queue.ungapped(genome, reads, jobs, scores)
        }

        fn lookup(&mut self, table: &SeedTable, hashes: &[u64]) -> Result<Vec<(u32, u32)>, Error> {
            self.call(None)?;
            self.queue.lookup(table, hashes)
        }
    }

    #[test]
    fn a_device_lost_at_any_call_changes_no_byte() {
        // Among the columns, at each kernel over jobs, and at sealing and opening.
        for calls in [0, 1, 2, 13, 66, 89, 90, 91, 92, 93, 94, 95, 96] {
            let weak = Weak { room_bytes: 1 << 20, calls: Arc::new(AtomicUsize::new(calls)) };
            let told = Arc::new(Mutex::new(Vec::new()));
            let keep = Arc::clone(&told);
            let tell = Box::new(move |error: &Error| keep.lock().unwrap().push(error.to_string()));
            let (mut steady, _) = queue(&weak, 1000, tell).unwrap();
            let outcome = crate::device::conformance::check_queue(&weak, &mut steady);
            assert_eq!((outcome, calls), (Ok(()), calls));
            assert!(steady.fell_back());
            assert_eq!(told.lock().unwrap().len(), 1, "told once");
        }
    }

    #[test]
    fn memory_is_asked_for_by_halves() {
        let weak = |room_bytes| Weak { room_bytes, calls: Arc::default() };
        let open = |room_bytes| queue(&weak(room_bytes), 1 << 20, Box::new(|_| {}));
        assert_eq!(open(1 << 20).unwrap().1, 1 << 20);
        assert_eq!(open(300 << 10).unwrap().1, 256 << 10);
        assert!(matches!(open(1000), Err(Error::NoMemory { device: "weak", .. })));
    }
}
