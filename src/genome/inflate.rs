//! Incremental decompression: plain text, gzip of any number of members, and BGZF.
//!
//! [`Inflate`] is driven by whoever has the bytes; as a [`Stage`] it turns chunks into chunks, and
//! [`InflateReader`] puts it behind `Read`.

use std::collections::VecDeque;
use std::io::{self, Read};

use flate2::{Decompress, FlushDecompress, Status};
use zeroize::Zeroize;

use super::bgzf::{self, Head};
use crate::base::{Chunk, Fault, Faulty};
use crate::flow::{self, Stage};

/// Why a compressed file could not be restored. Offsets count bytes of the compressed file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The data are malformed, or a checksum (RFC 1952, CRC32) is wrong.
    #[error("{file}: compressed data are damaged near byte {offset}")]
    Damaged {
        /// The file.
        file: String,
        /// About where.
        offset: u64,
    },
    /// The file ends inside a member.
    #[error("{file}: compressed data end too early, at byte {offset}")]
    Truncated {
        /// The file.
        file: String,
        /// Its length.
        offset: u64,
    },
    /// After the last member come bytes that are neither a member nor zeros.
    #[error("{file}: something else follows the compressed data at byte {offset}")]
    TrailingBytes {
        /// The file.
        file: String,
        /// Where it begins.
        offset: u64,
    },
}

impl Faulty for Error {
    fn fault(&self) -> Fault {
        Fault::Data
    }

    fn hint(&self) -> Option<String> {
        match self {
            Error::Truncated { .. } => Some("copy the file again: its end is missing".into()),
            _ => None,
        }
    }
}

enum State {
    /// Between members; at the start of the file, it is not known yet what comes.
    Boundary,
    Plain,
    Gzip(Box<Decompress>),
    /// Inside the zeros that some tapes and block devices leave after the last member.
    Padding,
}

/// An incremental decoder of one file.
pub struct Inflate {
    file: String,
    state: State,
    blocks: bgzf::Inflater,
    /// Compressed bytes that do not make a whole block or header yet.
    held: Vec<u8>,
    /// Text of a block that did not fit the caller's buffer, from `ready_from` on.
    ready: Vec<u8>,
    ready_from: usize,
    offset: u64,
    started: bool,
    seq: u64,
}

/// Text of a chunk that [`Inflate`] gives as a stage.
const CHUNK_BYTES: usize = 1 << 20;

impl Inflate {
    /// A decoder for the file that errors shall name.
    pub fn new(file: impl Into<String>) -> Self {
        Self {
            file: file.into(),
            state: State::Boundary,
            blocks: bgzf::Inflater::default(),
            held: Vec::new(),
            ready: Vec::new(),
            ready_from: 0,
            offset: 0,
            started: false,
            seq: 0,
        }
    }

    /// Decodes from `input` into `output` and gives the bytes taken and written.
    ///
    /// Taken and written are both 0 only when `input` is empty and all its text was given, or
    /// `output` is empty.
    pub fn step(&mut self, input: &[u8], output: &mut [u8]) -> Result<(usize, usize), Error> {
        let mut taken = 0;
        loop {
            let given = self.give_ready(output);
            if given > 0 || output.is_empty() {
                return Ok((taken, given));
            }
            let rest = &input[taken..];
            let (used, written) = match &mut self.state {
                State::Plain => copy(rest, output),
                State::Gzip(_) => self.step_gzip(rest, output)?,
                State::Boundary => (self.step_boundary(rest)?, 0),
                State::Padding => (self.step_padding(rest)?, 0),
            };
            taken += used;
            self.offset += used as u64;
            if written > 0 || (used == 0 && self.ready_from == self.ready.len() && rest.is_empty())
            {
                return Ok((taken, written));
            }
        }
    }

    /// Says that the file has ended; an error if it must not end here.
    pub fn end(&self) -> Result<(), Error> {
        let whole = match &self.state {
            State::Boundary => self.held.is_empty(),
            State::Gzip(_) => false,
            State::Plain | State::Padding => true,
        };
        if whole { Ok(()) } else { Err(self.truncated()) }
    }

    fn give_ready(&mut self, output: &mut [u8]) -> usize {
        let (_, given) = copy(&self.ready[self.ready_from..], output);
        self.ready_from += given;
        if self.ready_from == self.ready.len() {
            self.ready.clear();
            self.ready_from = 0;
        }
        given
    }

    fn step_gzip(&mut self, input: &[u8], output: &mut [u8]) -> Result<(usize, usize), Error> {
        let State::Gzip(decoder) = &mut self.state else { return Ok((0, 0)) };
        let before = (decoder.total_in(), decoder.total_out());
        let status = decoder.decompress(input, output, FlushDecompress::None);
        let used = (decoder.total_in() - before.0) as usize;
        let written = (decoder.total_out() - before.1) as usize;
        match status {
            Ok(Status::StreamEnd) => self.state = State::Boundary,
            Ok(_) if used == 0 && written == 0 && !input.is_empty() => {
                return Err(self.damaged(used));
            }
            Ok(_) => {}
            Err(_) => return Err(self.damaged(used)),
        }
        Ok((used, written))
    }

    /// Collects until the next member's kind is known; whole BGZF blocks are restored on the way.
    fn step_boundary(&mut self, input: &[u8]) -> Result<usize, Error> {
        if input.is_empty() && self.held.is_empty() {
            return Ok(0);
        }
        if self.held.is_empty() && !input.is_empty() {
            match bgzf::head(input) {
                Head::Block { bytes, body } if input.len() >= bytes => {
                    self.restore(&input[..bytes], body)?;
                    return Ok(bytes);
                }
                Head::Other => return self.begin_other(input),
                _ => {}
            }
        }
        // A header or block that straddles two inputs: gather no more of it than is needed.
        let wanted = match bgzf::head(&self.held) {
            Head::Block { bytes, .. } => bytes,
            _ => self.held.len() + 1,
        };
        let used = (wanted - self.held.len()).min(input.len());
        self.held.extend_from_slice(&input[..used]);
        match bgzf::head(&self.held) {
            Head::Block { bytes, body } if self.held.len() == bytes => {
                let block = std::mem::take(&mut self.held);
                self.restore(&block, body)?;
            }
            Head::Other => {
                let held = std::mem::take(&mut self.held);
                self.begin_held(held)?;
            }
            _ => {}
        }
        Ok(used)
    }

    fn restore(&mut self, block: &[u8], body: usize) -> Result<(), Error> {
        self.started = true;
        let done = self.blocks.block(block, body, &mut self.ready);
        done.map_err(|_| self.damaged(0))
    }

    /// Begins a gzip member, plain text or padding with `input`; takes none of it.
    fn begin_other(&mut self, input: &[u8]) -> Result<usize, Error> {
        let magic = [0x1f, 0x8b];
        let common = input.iter().zip(magic).take_while(|(a, b)| **a == *b).count();
        if common == 2 {
            self.state = State::Gzip(Box::new(Decompress::new_gzip(15)));
        } else if common == 1 && input.len() == 1 {
            // One byte more will tell.
            self.held.push(input[0]);
            return Ok(1);
        } else if !self.started {
            self.state = State::Plain;
        } else if input[0] == 0 {
            self.state = State::Padding;
        } else {
            return Err(Error::TrailingBytes { file: self.file.clone(), offset: self.offset });
        }
        self.started = true;
        Ok(0)
    }

    /// The same for bytes that were gathered: what they decode to goes to `ready`.
    fn begin_held(&mut self, held: Vec<u8>) -> Result<(), Error> {
        self.begin_other(&held)?;
        match &mut self.state {
            State::Gzip(_) => {
                // Fewer bytes than a gzip header with its extra field: they give no text.
                let mut none = [0; 1];
                let mut from = 0;
                while from < held.len() && matches!(self.state, State::Gzip(_)) {
                    let (used, written) = self.step_gzip(&held[from..], &mut none)?;
                    self.ready.extend_from_slice(&none[..written]);
                    from += used;
                }
                self.held = held[from..].to_vec();
            }
            State::Plain => self.ready = held,
            State::Boundary | State::Padding => {}
        }
        Ok(())
    }

    fn step_padding(&self, input: &[u8]) -> Result<usize, Error> {
        match input.iter().position(|byte| *byte != 0) {
            None => Ok(input.len()),
            Some(at) => {
                let offset = self.offset + at as u64;
                Err(Error::TrailingBytes { file: self.file.clone(), offset })
            }
        }
    }

    fn damaged(&self, used: usize) -> Error {
        Error::Damaged { file: self.file.clone(), offset: self.offset + used as u64 }
    }

    fn truncated(&self) -> Error {
        Error::Truncated { file: self.file.clone(), offset: self.offset }
    }
}

impl Drop for Inflate {
    fn drop(&mut self) {
        self.held.zeroize();
        self.ready.zeroize();
    }
}

fn copy(from: &[u8], to: &mut [u8]) -> (usize, usize) {
    let len = from.len().min(to.len());
    to[..len].copy_from_slice(&from[..len]);
    (len, len)
}

impl Stage for Inflate {
    type In = Chunk;
    type Out = Chunk;
    const NAME: &'static str = "inflate";

    /// Plain text passes through; compressed text comes out in secret chunks of up to 1 MiB.
    fn push(&mut self, item: Chunk, out: &mut VecDeque<Chunk>) -> flow::Result<()> {
        if matches!(self.state, State::Plain) {
            self.offset += item.len() as u64;
            out.push_back(item);
            return Ok(());
        }
        let mut taken = 0;
        loop {
            let mut text = Chunk::with_capacity(CHUNK_BYTES);
            text.mark_secret();
            let mut filled = 0;
            while filled < CHUNK_BYTES {
                let room = &mut text.spare()[filled..CHUNK_BYTES];
                let (used, written) = self
                    .step(&item[taken..], room)
                    .map_err(|error| flow::Error::in_stage(Self::NAME, error))?;
                if used == 0 && written == 0 {
                    break;
                }
                taken += used;
                filled += written;
            }
            if filled > 0 {
                text.set_len(filled);
                text.set_seq(self.seq);
                self.seq += 1;
                out.push_back(text);
            }
            if filled < CHUNK_BYTES {
                return Ok(());
            }
        }
    }

    fn finish(&mut self, _out: &mut VecDeque<Chunk>) -> flow::Result<()> {
        self.end().map_err(|error| flow::Error::in_stage(Self::NAME, error))
    }
}

/// The text of a plain, gzip or BGZF file, as `Read`.
///
/// Errors: `InvalidData` around this module's [`Error`]; whatever the inner reader gives.
pub struct InflateReader<R> {
    inner: R,
    inflate: Inflate,
    buffer: Vec<u8>,
    used: usize,
    filled: usize,
}

impl<R: Read> InflateReader<R> {
    /// Reads `inner`, which errors shall call `file`.
    pub fn new(inner: R, file: impl Into<String>) -> Self {
        let buffer = vec![0; 1 << 17];
        Self { inner, inflate: Inflate::new(file), buffer, used: 0, filled: 0 }
    }
}

impl<R: Read> Read for InflateReader<R> {
    fn read(&mut self, output: &mut [u8]) -> io::Result<usize> {
        if output.is_empty() {
            return Ok(0);
        }
        loop {
            let (used, written) =
                self.inflate
                    .step(&self.buffer[self.used..self.filled], output)
                    .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            self.used += used;
            if written > 0 {
                return Ok(written);
            }
            if self.used < self.filled {
                continue;
            }
            (self.used, self.filled) = (0, 0);
            self.filled = match self.inner.read(&mut self.buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
                Err(error) => return Err(error),
                Ok(0) => {
                    return self
                        .inflate
                        .end()
                        .map(|()| 0)
                        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error));
                }
                Ok(len) => len,
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::write::GzEncoder;

    use super::*;
    use crate::flow::{Flow, Meters};

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn text() -> Vec<u8> {
        (0..40_000u32).flat_map(|n| format!("@r{n}\n").into_bytes()).collect()
    }

    /// Decodes `file` handed over in pieces of `step` bytes.
    fn decode(file: &[u8], step: usize) -> Result<Vec<u8>, Error> {
        let mut inflate = Inflate::new("a.gz");
        let (mut out, mut buffer) = (Vec::new(), vec![0; 777]);
        for piece in file.chunks(step) {
            let mut taken = 0;
            loop {
                let (used, written) = inflate.step(&piece[taken..], &mut buffer)?;
                out.extend_from_slice(&buffer[..written]);
                taken += used;
                if used == 0 && written == 0 {
                    break;
                }
            }
        }
        inflate.end().map(|()| out)
    }

    #[test]
    fn any_packing_in_any_pieces_gives_the_text() {
        let (text, long) = (text(), [text(), text(), text()].concat());
        let files = [
            (text.clone(), text.clone()),
            (gzip(&text), text.clone()),
            ([gzip(&text), gzip(b""), gzip(&text), gzip(&text)].concat(), long.clone()),
            (bgzf::compress(&long, 1), long.clone()),
            ([bgzf::compress(&text, 6), gzip(&text), bgzf::compress(&text, 1)].concat(), long),
            ([gzip(&text), vec![0; 512]].concat(), text),
            (Vec::new(), Vec::new()),
            (vec![0x1f, 0x8b, 8, 4], Vec::new()),
        ];
        for (index, (file, text)) in files[..7].iter().enumerate() {
            for step in [1, 3, 17, 4096, usize::MAX] {
                assert!(
                    decode(file, step.min(file.len().max(1))).unwrap() == *text,
                    "{index} {step}"
                );
            }
        }
        assert!(decode(&files[7].0, 4).is_err());
    }

    #[test]
    fn a_cut_file_is_noticed_wherever_it_is_cut() {
        for file in [gzip(&text()), bgzf::compress(&text(), 6)] {
            for len in [1, 5, 11, 100, file.len() / 2, file.len() - 1] {
                match decode(&file[..len], 64) {
                    Err(Error::Truncated { file, offset }) => {
                        assert_eq!((file.as_str(), offset), ("a.gz", len as u64));
                    }
                    // A single byte may still be plain text.
                    other => assert!(len == 1 && other.is_ok() || other.is_err(), "{len}"),
                }
            }
        }
    }

    #[test]
    fn a_wrong_checksum_is_noticed() {
        for file in [gzip(&text()), bgzf::compress(&text(), 6)] {
            let mut bad = file.clone();
            let at = bad.len() - if bad.ends_with(&bgzf::END_MARKER) { 28 + 8 } else { 8 };
            bad[at] ^= 1;
            assert!(matches!(decode(&bad, 1000), Err(Error::Damaged { .. })));
        }
        let more = [gzip(b"x"), b"more".to_vec()].concat();
        assert!(matches!(decode(&more, 1000), Err(Error::TrailingBytes { .. })));
    }

    #[test]
    fn the_stage_and_the_reader_give_the_same() {
        let (text, meters) = (text().repeat(8), Meters::default());
        for file in [gzip(&text), bgzf::compress(&text, 1), text.clone()] {
            let chunks: Vec<_> = file.chunks(5000).map(|c| Ok(Chunk::from_bytes(0, c))).collect();
            let out: Vec<u8> = Flow::source(&meters, "file", chunks)
                .then(Inflate::new("a.gz"))
                .flat_map(|chunk| chunk.unwrap().to_vec())
                .collect();
            assert!(out == text);
            let mut out = Vec::new();
            let mut reader = InflateReader::new(&file[..], "a.gz");
            reader.read_to_end(&mut out).unwrap();
            assert!(out == text);
            assert_eq!(reader.read(&mut [0; 9]).unwrap(), 0, "nothing comes after the end");
        }
    }
}
