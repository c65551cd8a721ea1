//! Ordinary reads and writes through the page cache, which works everywhere.

use std::collections::VecDeque;
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::base::Chunk;

use super::{Completion, Disk, Mode, Op, Preference, Ticket, open_file};

/// A disk whose operations run on the calling thread: a write when it is submitted, a read when it
/// is waited for (the kernel reads ahead by itself).
pub struct Blocking {
    file: File,
    reads: VecDeque<(Ticket, Op)>,
    done: VecDeque<Completion>,
    submitted: u64,
}

pub(super) fn open(
    path: &Path,
    mode: Mode,
    preference: &Preference<'_>,
) -> Result<Box<dyn Disk>, std::io::Error> {
    let file = open_file(path, mode, preference.direct)?;
    // Advice only: pipes and devices refuse it and are read all the same.
    let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::Sequential);
    Ok(Box::new(Blocking::new(file)))
}

impl Blocking {
    /// Serves an open file.
    pub fn new(file: File) -> Self {
        Self { file, reads: VecDeque::new(), done: VecDeque::new(), submitted: 0 }
    }

    fn run(&self, ticket: Ticket, op: Op) -> Completion {
        match op {
            Op::Read { mut chunk, offset, len } => {
                let result = read_fully(&self.file, &mut chunk, offset, len);
                Completion { ticket, chunk: Some(chunk), result }
            }
            Op::Write { chunk, offset } => {
                let result = self.file.write_all_at(&chunk, offset).map(|()| chunk.len());
                Completion { ticket, chunk: Some(chunk), result }
            }
            Op::Sync => {
                Completion { ticket, chunk: None, result: self.file.sync_data().map(|()| 0) }
            }
        }
    }
}

fn read_fully(
    file: &File,
    chunk: &mut Chunk,
    offset: u64,
    len: usize,
) -> Result<usize, std::io::Error> {
    let mut filled = 0;
    chunk.set_len(0);
    while filled < len {
        match file.read_at(&mut chunk.spare()[filled..len], offset + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    chunk.set_len(filled);
    Ok(filled)
}

impl Disk for Blocking {
    fn submit(&mut self, op: Op) -> Ticket {
        let ticket = Ticket(self.submitted);
        self.submitted += 1;
        if matches!(op, Op::Read { .. }) {
            self.reads.push_back((ticket, op));
        } else {
            let done = self.run(ticket, op);
            self.done.push_back(done);
        }
        ticket
    }

    fn wait(&mut self) -> Option<Completion> {
        self.done.pop_front().or_else(|| {
            let (ticket, op) = self.reads.pop_front()?;
            Some(self.run(ticket, op))
        })
    }

    fn poll(&mut self) -> Option<Completion> {
        self.done.pop_front()
    }

    fn alignment(&self) -> usize {
        1
    }

    fn size(&mut self) -> Result<u64, std::io::Error> {
        // A block device has a length of 0 in its metadata but an end to seek to.
        std::io::Seek::seek(&mut self.file, std::io::SeekFrom::End(0))
    }
}
