//! A device in use: what it was planned to take of its memory, whether it is there, and how it is opened again when
//! it was lost.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{PIECE_BYTES, PIECE_BYTES_MIN, QUEUES_BYTES_MAX};
use crate::base::clock::Stopwatch;
use crate::device::conformance::check_queue;
use crate::device::{Device, Error, Queue};

/// How a device is opened, the first time and again.
pub(crate) struct Opener {
    /// Opens it.
    pub(crate) open: Box<dyn Fn() -> Result<Box<dyn Device>, Error> + Send + Sync>,
    /// How long it is left alone after it failed.
    pub(crate) rest: Duration,
}

/// A device in use.
pub(super) struct Used {
    pub(super) name: &'static str,
    pub(super) model: String,
    is_simulated: bool,
    /// `None` for a device that was given as it is.
    opener: Option<Arc<Opener>>,
    /// The device, or how long ago it failed last. It is dropped as soon as it is lost: a driver may need to
    /// see the last of it go before it can be had anew.
    device: Mutex<Result<Arc<dyn Device>, Stopwatch>>,
    is_lost: AtomicBool,
    pub(super) lacked_memory: AtomicBool,
    /// Pieces of its queues; halved when memory does not suffice.
    pub(super) piece_bytes: AtomicUsize,
    /// Queues that were planned.
    workers: usize,
    pub(super) queues_open: AtomicUsize,
}

impl Used {
    /// Plans the memory of a queue for each worker.
    pub(super) fn plan(
        device: Box<dyn Device>,
        opener: Option<Arc<Opener>>,
        workers: usize,
    ) -> Self {
        let of_pieces = |piece_bytes| workers as u64 * device.queue_bytes(piece_bytes);
        let wanted = of_pieces(PIECE_BYTES).min(QUEUES_BYTES_MAX);
        let room = (device.room(2 * wanted) / 2).min(wanted);
        let mut piece_bytes = PIECE_BYTES;
        while of_pieces(piece_bytes) > room && piece_bytes > PIECE_BYTES_MIN {
            piece_bytes /= 2;
        }
        Self {
            name: device.name(),
            model: device.model(),
            is_simulated: device.is_simulated(),
            opener,
            device: Mutex::new(Ok(device.into())),
            is_lost: AtomicBool::new(false),
            lacked_memory: AtomicBool::new(false),
            piece_bytes: AtomicUsize::new(piece_bytes),
            workers,
            queues_open: AtomicUsize::new(0),
        }
    }

    /// The device, unless it was lost.
    pub(super) fn device(&self) -> Option<Arc<dyn Device>> {
        self.lock().as_ref().ok().map(Arc::clone)
    }

    /// Whether it failed and nobody asks it any more.
    pub(super) fn is_lost(&self) -> bool {
        self.is_lost.load(Ordering::Relaxed)
    }

    /// Gives it up; false when that was done before.
    pub(super) fn lose(&self) -> bool {
        self.is_lost.store(true, Ordering::Relaxed);
        let mut held = self.lock();
        let was_there = held.is_ok();
        let device = was_there.then(|| std::mem::replace(&mut *held, Err(Stopwatch::start())));
        drop(held);
        drop(device);
        was_there
    }

    /// Opens a queue.
    pub(super) fn queue(&self, piece_bytes: usize) -> Result<Box<dyn Queue>, Error> {
        let lost = || Error::failed(self.name, "open a queue")("it was lost");
        self.device().ok_or_else(lost)?.queue(piece_bytes)
    }

    /// How many bytes of its memory a table of `bytes` and the planned queues that are not open yet take, how
    /// many queues these are, and how many bytes there are for this run.
    pub(super) fn room_beside(&self, device: &dyn Device, bytes: u64) -> (u64, u64, u64) {
        let queues = self.workers.saturating_sub(self.queues_open.load(Ordering::Relaxed)) as u64;
        let piece_bytes = self.piece_bytes.load(Ordering::Relaxed);
        let wanted = bytes + queues * device.queue_bytes(piece_bytes);
        (wanted, queues, device.room(wanted))
    }

    /// The device opened anew, if it was lost, has been left alone for long enough, and gives right results.
    pub(super) fn again(&self) -> Option<Self> {
        let opener = self.opener.as_ref()?;
        // Held meanwhile: one asks it at a time.
        let mut held = self.lock();
        held.as_ref().err().filter(|failed| failed.elapsed() >= opener.rest)?;
        // What a damaged driver does is not always an error.
        let tried = catch_unwind(AssertUnwindSafe(|| self.answering(opener)));
        let device = tried.ok().flatten();
        *held = Err(Stopwatch::start());
        Some(Self::plan(device?, Some(Arc::clone(opener)), self.workers))
    }

    fn answering(&self, opener: &Opener) -> Option<Box<dyn Device>> {
        let device = (opener.open)().ok()?;
        // Where a card is gone, a driver in software may answer to the name.
        if device.is_simulated() != self.is_simulated {
            return None;
        }
        let mut queue = device.queue(PIECE_BYTES_MIN).ok()?;
        check_queue(device.as_ref(), queue.as_mut()).ok()?;
        drop(queue);
        Some(device)
    }

    fn lock(&self) -> MutexGuard<'_, Result<Arc<dyn Device>, Stopwatch>> {
        self.device.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
