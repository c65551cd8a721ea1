//! `io_uring`: several operations in flight from one thread, past the page cache, without a copy.
//!
//! The memory of a [`Pool`]'s chunks can be registered with the kernel once, which spares it from
//! looking up the pages for every operation.
#![allow(unsafe_code)]

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::IoSliceMut;
use std::os::fd::AsRawFd;
use std::path::Path;

use io_uring::{IoUring, opcode, squeue, types};
use rustix::io::Errno;

use crate::base::{Chunk, Pool};

use super::{Completion, DIRECT_BYTES, Disk, Mode, Op, Preference, Ticket, open_file};

/// A disk served by `io_uring`.
pub struct Uring {
    ring: IoUring,
    file: File,
    alignment: usize,
    /// Operations in flight; an operation's place here is its `user_data`.
    slots: Vec<Option<Pending>>,
    done: VecDeque<Completion>,
    submitted: u64,
    registered: Option<Registered>,
}

struct Pending {
    ticket: Ticket,
    kind: Kind,
    chunk: Option<Chunk>,
    offset: u64,
    len: usize,
    moved: usize,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Read,
    Write,
    Sync,
}

/// Which memory the kernel knows by number.
struct Registered {
    indexes: HashMap<usize, u16>,
    /// Keeps the memory from being given back: a pool's pages return to it, never to the system.
    _pool: Pool,
}

/// Bytes moved by one request at most; a longer operation is continued.
const REQUEST_BYTES: usize = 1 << 30;

/// Chunks registered at most.
const REGISTERED_MAX: usize = 1024;

pub(super) fn open(
    path: &Path,
    mode: Mode,
    preference: &Preference<'_>,
) -> Result<Box<dyn Disk>, std::io::Error> {
    let file = open_file(path, mode, preference.direct)?;
    let alignment = if preference.direct { DIRECT_BYTES } else { 1 };
    let mut disk = Uring::new(file, preference.depth, alignment)?;
    if let Some(pool) = preference.pool {
        disk.register(pool);
    }
    Ok(Box::new(disk))
}

impl Uring {
    /// Serves an open file with at most `depth` operations in flight.
    ///
    /// Errors: the kernel's, where it has or allows no `io_uring`.
    pub fn new(file: File, depth: usize, alignment: usize) -> Result<Self, std::io::Error> {
        let depth = depth.clamp(1, 1024);
        let ring = IoUring::new(depth.next_power_of_two() as u32)?;
        let slots = (0..depth).map(|_| None).collect();
        let done = VecDeque::new();
        Ok(Self { ring, file, alignment, slots, done, submitted: 0, registered: None })
    }

    /// Registers the chunks that lie in `pool` now. Where the kernel refuses, for instance because
    /// too much memory is locked already, operations go without.
    fn register(&mut self, pool: &Pool) {
        let mut chunks: Vec<Chunk> = std::iter::from_fn(|| pool.try_take())
            .take(REGISTERED_MAX.min(pool.available()))
            .collect();
        let indexes = chunks.iter_mut().map(|chunk| chunk.spare().as_ptr() as usize);
        let indexes = indexes.zip(0u16..).collect();
        let memory: Vec<_> =
            chunks.iter_mut().map(|chunk| IoSliceMut::new(chunk.spare())).collect();
        // SAFETY: `IoSliceMut` has the layout of the system's `iovec`; the memory it names outlives
        // the registration, because the pool kept in `Registered` never frees it.
        let outcome = unsafe {
            let memory = std::slice::from_raw_parts(memory.as_ptr().cast(), memory.len());
            self.ring.submitter().register_buffers(memory)
        };
        if outcome.is_ok() {
            self.registered = Some(Registered { indexes, _pool: pool.clone() });
        }
    }

    fn in_flight(&self) -> usize {
        self.slots.iter().flatten().count()
    }

    /// Hands the operation in `slot` to the kernel, from where it stopped.
    fn start(&mut self, slot: usize) {
        let pending = self.slots[slot].as_mut().expect("the slot was just filled");
        let entry = entry(pending, self.file.as_raw_fd(), self.registered.as_ref());
        // SAFETY: the entry points into the chunk kept in the slot, which is given back only after
        // the completion, and leaked if the ring fails before it.
        let pushed = unsafe { self.ring.submission().push(&entry.user_data(slot as u64)) };
        pushed.expect("the ring has room for every slot");
        // An error stays pending in the ring, and comes up again where completions are waited for.
        let _ = self.ring.submit();
    }

    /// Takes completions from the ring; waits for at least one if `wait`.
    fn reap(&mut self, wait: bool) {
        if wait && self.ring.completion().is_empty() {
            match self.ring.submit_and_wait(1) {
                Err(error) if !is_transient(&error) => return self.abandon(&error),
                _ => {}
            }
        }
        loop {
            let Some(entry) = self.ring.completion().next() else { return };
            self.complete(entry.user_data() as usize, entry.result());
        }
    }

    fn complete(&mut self, slot: usize, result: i32) {
        let pending = self.slots[slot].as_mut().expect("the kernel answers what it was asked");
        let result = match usize::try_from(result) {
            Err(_) if is_again(result) => return self.start(slot),
            Err(_) => Err(std::io::Error::from_raw_os_error(-result)),
            Ok(count) => {
                pending.moved += count;
                if pending.unfinished(count, self.alignment) {
                    return self.start(slot);
                }
                pending.outcome()
            }
        };
        let Pending { ticket, kind, mut chunk, moved, .. } =
            self.slots[slot].take().expect("it was there above");
        if let (Kind::Read, Some(chunk)) = (kind, &mut chunk) {
            chunk.set_len(if result.is_ok() { moved } else { 0 });
        }
        self.done.push_back(Completion { ticket, chunk, result });
    }

    /// The ring failed: nobody knows whether the kernel still uses the chunks, so they are leaked.
    fn abandon(&mut self, error: &std::io::Error) {
        for pending in self.slots.iter_mut().filter_map(Option::take) {
            std::mem::forget(pending.chunk);
            let error = std::io::Error::new(error.kind(), error.to_string());
            let ticket = pending.ticket;
            self.done.push_back(Completion { ticket, chunk: None, result: Err(error) });
        }
    }
}

impl Pending {
    /// Whether a request that moved `count` bytes has to be continued. A read whose end is not
    /// aligned has met the end of the file.
    fn unfinished(&self, count: usize, alignment: usize) -> bool {
        let partly = count > 0 && self.moved < self.len;
        partly && (self.kind == Kind::Write || self.moved.is_multiple_of(alignment))
    }

    fn outcome(&self) -> Result<usize, std::io::Error> {
        if self.kind == Kind::Write && self.moved < self.len {
            return Err(std::io::ErrorKind::WriteZero.into());
        }
        Ok(self.moved)
    }
}

fn entry(pending: &mut Pending, file: i32, registered: Option<&Registered>) -> squeue::Entry {
    let file = types::Fd(file);
    let Some(chunk) = &mut pending.chunk else {
        return opcode::Fsync::new(file).flags(types::FsyncFlags::DATASYNC).build();
    };
    let offset = pending.offset + pending.moved as u64;
    let len = (pending.len - pending.moved).min(REQUEST_BYTES) as u32;
    let start = chunk.spare().as_mut_ptr();
    let index = registered.and_then(|memory| memory.indexes.get(&(start as usize)).copied());
    let memory = start.wrapping_add(pending.moved);
    match (pending.kind, index) {
        (Kind::Read, Some(index)) => {
            opcode::ReadFixed::new(file, memory, len, index).offset(offset).build()
        }
        (Kind::Read, None) => opcode::Read::new(file, memory, len).offset(offset).build(),
        (_, Some(index)) => {
            opcode::WriteFixed::new(file, memory, len, index).offset(offset).build()
        }
        (_, None) => opcode::Write::new(file, memory, len).offset(offset).build(),
    }
}

fn is_transient(error: &std::io::Error) -> bool {
    [Errno::INTR, Errno::AGAIN, Errno::BUSY]
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

fn is_again(result: i32) -> bool {
    [Errno::INTR, Errno::AGAIN].iter().any(|errno| result == -errno.raw_os_error())
}

impl Disk for Uring {
    fn submit(&mut self, op: Op) -> Ticket {
        let ticket = Ticket(self.submitted);
        self.submitted += 1;
        while self.in_flight() == self.slots.len() {
            self.reap(true);
        }
        let (kind, chunk, offset, len) = match op {
            Op::Read { mut chunk, offset, len } => {
                // Reading into memory that the chunk does not have must fail here, not corrupt.
                assert!(len <= chunk.capacity(), "a read fits its chunk");
                chunk.set_len(0);
                (Kind::Read, Some(chunk), offset, len)
            }
            Op::Write { chunk, offset } => {
                let len = chunk.len();
                (Kind::Write, Some(chunk), offset, len)
            }
            Op::Sync => (Kind::Sync, None, 0, 0),
        };
        let slot = self.slots.iter().position(Option::is_none).expect("one was made free above");
        self.slots[slot] = Some(Pending { ticket, kind, chunk, offset, len, moved: 0 });
        self.start(slot);
        ticket
    }

    fn wait(&mut self) -> Option<Completion> {
        while self.done.is_empty() && self.in_flight() > 0 {
            self.reap(true);
        }
        self.done.pop_front()
    }

    fn poll(&mut self) -> Option<Completion> {
        self.reap(false);
        self.done.pop_front()
    }

    fn alignment(&self) -> usize {
        self.alignment
    }

    fn size(&mut self) -> Result<u64, std::io::Error> {
        // A block device has a length of 0 in its metadata but an end to seek to.
        std::io::Seek::seek(&mut self.file, std::io::SeekFrom::End(0))
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        while self.in_flight() > 0 {
            self.reap(true);
        }
    }
}
