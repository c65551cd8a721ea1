//! Runs of whole BGZF blocks, so that many threads can restore one file.
//!
//! As a stage: `flow.then(SplitBlocks::new(file)).map_parallel(scope, "inflate", n, restore)`.

use std::collections::VecDeque;
use std::io::{self, Read};

use super::bgzf::{self, Head};
use super::inflate::Error;
use crate::base::Chunk;
use crate::flow::{self, Stage};

/// A run ends with the block that makes it this long, in compressed bytes.
const RUN_BYTES: usize = 256 << 10;

/// Cuts the bytes of a BGZF file into runs of whole blocks.
pub struct SplitBlocks {
    file: String,
    held: Vec<u8>,
    /// Length of the whole blocks that `held` begins with.
    whole: usize,
    offset: u64,
    marked: bool,
}

impl SplitBlocks {
    /// For the file that errors shall name.
    pub fn new(file: impl Into<String>) -> Self {
        Self { file: file.into(), held: Vec::new(), whole: 0, offset: 0, marked: false }
    }

    /// Takes bytes of the file.
    pub fn add(&mut self, bytes: &[u8]) {
        self.held.extend_from_slice(bytes);
    }

    /// The next run, if there are bytes enough for a long one, or for any when `last`.
    pub fn next_run(&mut self, last: bool) -> Result<Option<Vec<u8>>, Error> {
        while self.whole < RUN_BYTES {
            match bgzf::head(&self.held[self.whole..]) {
                Head::Block { bytes, .. } if self.held.len() - self.whole >= bytes => {
                    let block = &self.held[self.whole..self.whole + bytes];
                    self.marked = block == bgzf::END_MARKER;
                    self.whole += bytes;
                }
                Head::Other if self.whole < self.held.len() => {
                    let offset = self.offset + self.whole as u64;
                    return Err(Error::Damaged { file: self.file.clone(), offset });
                }
                _ if last => break,
                _ => return Ok(None),
            }
        }
        if self.whole == 0 {
            return Ok(None);
        }
        let rest = self.held.split_off(self.whole);
        self.offset += self.whole as u64;
        self.whole = 0;
        Ok(Some(std::mem::replace(&mut self.held, rest)))
    }

    /// Says that the file has ended and all runs were taken.
    pub fn end(&self) -> Result<(), Error> {
        if self.held.is_empty() {
            return Ok(());
        }
        let offset = self.offset + self.held.len() as u64;
        Err(Error::Truncated { file: self.file.clone(), offset })
    }

    /// Whether the last block taken is the marker that ends a whole file.
    pub fn ends_with_marker(&self) -> bool {
        self.marked
    }
}

impl Stage for SplitBlocks {
    type In = Chunk;
    type Out = Vec<u8>;
    const NAME: &'static str = "split";

    fn push(&mut self, item: Chunk, out: &mut VecDeque<Vec<u8>>) -> flow::Result<()> {
        self.add(&item);
        while let Some(run) = self.next_run(false).map_err(in_stage)? {
            out.push_back(run);
        }
        Ok(())
    }

    fn finish(&mut self, out: &mut VecDeque<Vec<u8>>) -> flow::Result<()> {
        while let Some(run) = self.next_run(true).map_err(in_stage)? {
            out.push_back(run);
        }
        self.end().map_err(in_stage)
    }
}

fn in_stage(error: Error) -> flow::Error {
    flow::Error::in_stage(SplitBlocks::NAME, error)
}

/// The text of a run.
pub fn restore(run: &[u8], file: &str) -> Result<Vec<u8>, Error> {
    // Sequencer and variant text shrinks to about a quarter.
    let mut text = Vec::with_capacity(4 * run.len());
    let done = bgzf::Inflater::default().blocks(run, &mut text);
    done.map_err(|_| Error::Damaged { file: file.into(), offset: 0 })?;
    Ok(text)
}

/// The runs of a file behind `Read`. A file without the end marker counts as truncated.
pub struct BlockRuns<R> {
    reader: R,
    split: SplitBlocks,
    buffer: Vec<u8>,
    ended: bool,
}

impl<R: Read> BlockRuns<R> {
    /// Reads `reader`, whose first bytes `head` were taken already.
    pub fn new(head: &[u8], reader: R, file: &str) -> Self {
        let mut split = SplitBlocks::new(file);
        split.add(head);
        Self { reader, split, buffer: vec![0; RUN_BYTES], ended: false }
    }

    fn step(&mut self) -> io::Result<Option<Vec<u8>>> {
        let damaged = |error| io::Error::new(io::ErrorKind::InvalidData, error);
        loop {
            if let Some(run) = self.split.next_run(self.ended).map_err(damaged)? {
                return Ok(Some(run));
            }
            if self.ended {
                self.split.end().map_err(damaged)?;
                if !self.split.ends_with_marker() {
                    let (file, offset) = (self.split.file.clone(), self.split.offset);
                    return Err(damaged(Error::Truncated { file, offset }));
                }
                return Ok(None);
            }
            match self.reader.read(&mut self.buffer) {
                Ok(0) => self.ended = true,
                Ok(len) => self.split.add(&self.buffer[..len]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl<R: Read> Iterator for BlockRuns<R> {
    type Item = io::Result<Vec<u8>>;

    fn next(&mut self) -> Option<Self::Item> {
        self.step().transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::{Flow, Meters};

    #[test]
    fn runs_restore_to_the_text_and_cut_files_are_noticed() {
        let text: Vec<u8> = (0..300_000u32).flat_map(u32::to_le_bytes).collect();
        let file = bgzf::compress(&text, 1);
        let runs: Vec<_> =
            BlockRuns::new(&file[..7], &file[7..], "x").map(Result::unwrap).collect();
        assert!(runs.len() > 1);
        let whole: Vec<u8> = runs.iter().flat_map(|run| restore(run, "x").unwrap()).collect();
        assert!(whole == text);
        for cut in [file.len() - 1, file.len() - 28, 100] {
            assert!(BlockRuns::new(&[], &file[..cut], "x").any(|run| run.is_err()), "{cut}");
        }
        let mixed = [&file[..], b"more"].concat();
        assert!(BlockRuns::new(&[], &mixed[..], "x").any(|run| run.is_err()));
    }

    #[test]
    fn the_stage_gives_the_same() {
        let text = b"ACGT".repeat(400_000);
        let file = bgzf::compress(&text, 0);
        let chunks: Vec<_> = file.chunks(10_007).map(|c| Ok(Chunk::from_bytes(0, c))).collect();
        let whole: Vec<u8> = Flow::source(&Meters::default(), "file", chunks)
            .then(SplitBlocks::new("x"))
            .flat_map(|run| restore(&run.unwrap(), "x").unwrap())
            .collect();
        assert!(whole == text);
    }
}
