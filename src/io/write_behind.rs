//! Writing that goes on while the next chunk is made.

use crate::base::Chunk;

use super::{Completion, Disk, Op};

/// Keeps up to `depth` writes in flight on a disk.
///
/// It holds at most `depth` chunks between calls: a pool that feeds it needs more than that.
pub struct WriteBehind {
    disk: Box<dyn Disk>,
    depth: usize,
    in_flight: usize,
}

impl WriteBehind {
    /// Writes to `disk`.
    pub fn new(disk: Box<dyn Disk>, depth: usize) -> Self {
        Self { disk, depth: depth.max(1), in_flight: 0 }
    }

    /// Offsets and lengths must be multiples of this many bytes.
    pub fn alignment(&self) -> usize {
        self.disk.alignment()
    }

    /// Starts writing `chunk` at `offset`.
    ///
    /// Errors: that of any write begun before.
    pub fn write(&mut self, chunk: Chunk, offset: u64) -> Result<(), std::io::Error> {
        while let Some(done) = self.disk.poll() {
            self.settle(done)?;
        }
        while self.in_flight >= self.depth {
            self.wait()?;
        }
        self.disk.submit(Op::Write { chunk, offset });
        self.in_flight += 1;
        Ok(())
    }

    /// Waits until nothing is in flight any more.
    ///
    /// Errors: the first of those met.
    pub fn drain(&mut self) -> Result<(), std::io::Error> {
        let mut outcome = Ok(());
        while self.in_flight > 0 {
            let one = self.wait();
            outcome = outcome.and(one);
        }
        outcome
    }

    /// Waits until everything is written and durable.
    pub fn sync(&mut self) -> Result<(), std::io::Error> {
        self.drain()?;
        super::sync(&mut *self.disk)
    }

    fn wait(&mut self) -> Result<(), std::io::Error> {
        match self.disk.wait() {
            Some(done) => self.settle(done),
            None => {
                self.in_flight = 0;
                Err(super::lost())
            }
        }
    }

    fn settle(&mut self, done: Completion) -> Result<(), std::io::Error> {
        self.in_flight -= 1;
        done.result.map(drop)
    }
}
