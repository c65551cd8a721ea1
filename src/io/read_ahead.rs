//! A file as a flow of chunks, with several reads in flight.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::base::{Chunk, Pool};
use crate::flow::{self, Flow, Meters};

use super::{Completion, DIRECT_BYTES, Disk, Error, Mode, Op, Preference, Ticket, open};

/// The file's bytes in chunks from `pool`, numbered from 0, every one full but the last.
///
/// At most `depth` reads are in flight, and no more chunks are taken than the pool has, so that a
/// pool of one chunk is enough. With `direct` the page cache is passed by where the file system
/// allows it. A pipe or other special file is read in order.
/// Errors: [`Error::Open`] here; [`Error::Read`] as the flow's end.
pub fn read_ahead<'a>(
    meters: &Meters,
    name: &'static str,
    file: &Path,
    pool: &Pool,
    depth: usize,
    direct: bool,
) -> Result<Flow<'a, Chunk>, Error> {
    let failed = |source| Error::Open { path: file.into(), source };
    let metadata = std::fs::metadata(file).map_err(failed)?;
    let device = std::os::unix::fs::FileTypeExt::is_block_device(&metadata.file_type());
    let into_flow_error = move |error: Error| flow::Error::in_stage(name, error);
    if !device && (!metadata.is_file() || metadata.len() == 0) {
        // Files of the kernel's own call themselves regular and empty, whatever they hold.
        let stream = File::open(file).map_err(failed)?;
        let items = Stream { stream, path: file.into(), pool: pool.clone(), seq: 0, offset: 0 };
        return Ok(Flow::source(
            meters,
            name,
            items.map(move |item| item.map_err(into_flow_error)),
        ));
    }
    let direct = direct && pool.chunk_bytes().is_multiple_of(DIRECT_BYTES);
    let repeated = metadata.len() / (pool.chunk_bytes() * pool.available().max(1)) as u64 >= 4;
    let pool_to_register = repeated.then_some(pool);
    let preference = Preference { direct, depth, pool: pool_to_register, ..Preference::default() };
    let (mut disk, _) = open(file, Mode::Read, &preference)?;
    let size = disk.size().map_err(failed)?;
    let items = ReadAhead {
        disk,
        path: file.into(),
        pool: pool.clone(),
        depth: depth.max(1),
        size,
        asked: 0,
        waiting: VecDeque::new(),
    };
    Ok(Flow::source(meters, name, items.map(move |item| item.map_err(into_flow_error))))
}

struct ReadAhead {
    disk: Box<dyn Disk>,
    path: PathBuf,
    pool: Pool,
    depth: usize,
    size: u64,
    /// Bytes that reads were submitted for.
    asked: u64,
    /// Reads not handed on yet, in the order of the file.
    waiting: VecDeque<(Ticket, u64, Option<Completion>)>,
}

impl ReadAhead {
    /// Submits reads while there is room and memory.
    fn fill(&mut self) {
        while self.waiting.len() < self.depth && self.asked < self.size {
            let Some(chunk) = self.pool.try_take() else { return };
            self.ask(chunk);
        }
    }

    fn ask(&mut self, mut chunk: Chunk) {
        let len = self.pool.chunk_bytes();
        let offset = self.asked;
        chunk.set_seq(offset / len as u64);
        self.asked += len as u64;
        let ticket = self.disk.submit(Op::Read { chunk, offset, len });
        self.waiting.push_back((ticket, offset, None));
    }

    fn settle(&mut self, done: Completion) {
        let place = self.waiting.iter_mut().find(|waiting| waiting.0 == done.ticket);
        place.expect("every read is waited for").2 = Some(done);
    }

    fn checked(&self, offset: u64, done: Completion) -> Result<Chunk, Error> {
        let failed = |source| Error::Read { path: self.path.clone(), offset, source };
        let count = done.result.map_err(failed)? as u64;
        if count < (self.size - offset).min(self.pool.chunk_bytes() as u64) {
            return Err(failed(std::io::ErrorKind::UnexpectedEof.into()));
        }
        done.chunk.ok_or_else(|| failed(super::lost()))
    }
}

impl Iterator for ReadAhead {
    type Item = Result<Chunk, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        self.fill();
        if self.waiting.is_empty() && self.asked < self.size {
            // Only here, with no chunk of its own out, may it wait for one.
            let chunk = self.pool.take();
            self.ask(chunk);
        }
        while let (_, _, None) = self.waiting.front()? {
            let done = self.disk.wait()?;
            self.settle(done);
        }
        let (_, offset, done) = self.waiting.pop_front()?;
        let item = self.checked(offset, done?);
        if item.is_ok() {
            self.fill();
        }
        Some(item)
    }
}

/// A file that can only be read in order.
struct Stream {
    stream: File,
    path: PathBuf,
    pool: Pool,
    seq: u64,
    offset: u64,
}

impl Iterator for Stream {
    type Item = Result<Chunk, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut chunk = self.pool.take();
        let room = self.pool.chunk_bytes();
        let mut filled = 0;
        while filled < room {
            match self.stream.read(&mut chunk.spare()[filled..room]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(source) => {
                    let (path, offset) = (self.path.clone(), self.offset + filled as u64);
                    return Some(Err(Error::Read { path, offset, source }));
                }
            }
        }
        if filled == 0 {
            return None;
        }
        chunk.set_len(filled);
        chunk.set_seq(self.seq);
        self.seq += 1;
        self.offset += filled as u64;
        Some(Ok(chunk))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(path: &Path, pool: &Pool, depth: usize, direct: bool) -> Vec<u8> {
        let meters = Meters::default();
        let mut bytes = Vec::new();
        let flow = read_ahead(&meters, "read", path, pool, depth, direct).unwrap();
        let mut short = false;
        for (number, chunk) in flow.enumerate() {
            let chunk = chunk.unwrap();
            assert!(!short, "only the last chunk may be short");
            short = chunk.len() < pool.chunk_bytes();
            assert_eq!(chunk.seq(), number as u64);
            bytes.extend_from_slice(&chunk);
        }
        assert_eq!(meters.snapshot()[0].bytes_out, bytes.len() as u64);
        bytes
    }

    #[test]
    fn a_file_comes_whole_and_in_order_in_every_way() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        for len in [0usize, 1, 4096, 8191, 8192, 100_000, 409_600] {
            let content: Vec<u8> = (0..len).map(|n| (n % 253) as u8).collect();
            std::fs::write(&path, &content).unwrap();
            for (chunks, chunk_bytes, depth) in [(1, 8192, 4), (6, 8192, 4), (6, 5000, 3)] {
                for direct in [false, true] {
                    let pool = Pool::new(chunks, chunk_bytes);
                    assert!(read(&path, &pool, depth, direct) == content, "{len} {chunk_bytes}");
                    assert_eq!(pool.available(), chunks);
                }
            }
        }
    }

    #[test]
    fn a_pipe_is_read_to_its_end() {
        let (reader, mut writer) = std::io::pipe().unwrap();
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&reader));
        let content = vec![7u8; 50_001];
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::io::Write::write_all(&mut writer, &content).unwrap();
                drop(writer);
            });
            let bytes = read(Path::new(&path), &Pool::new(2, 4096), 2, true);
            assert_eq!(bytes, vec![7u8; 50_001]);
        });
    }

    #[test]
    fn a_file_that_shrinks_ends_the_flow_with_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shrinking");
        std::fs::write(&path, vec![1u8; 40_000]).unwrap();
        let (meters, pool) = (Meters::default(), Pool::new(4, 4096));
        let mut flow = read_ahead(&meters, "read", &path, &pool, 1, false).unwrap();
        flow.next().unwrap().unwrap();
        File::options().write(true).open(&path).unwrap().set_len(9000).unwrap();
        let error = flow.find_map(Result::err).unwrap();
        assert!(error.source.to_string().contains("shrinking"), "{}", error.source);
        assert_eq!(error.fault, crate::base::Fault::Disk);
    }
}
