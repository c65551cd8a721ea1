//! Whole parts of frames from and to a socket: few system calls, nothing waits for ever.

use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use crate::base::clock::Stopwatch;
use crate::otp::{HEADER_BYTES, TAG_BYTES};

use super::{Error, Settings};

/// A socket, and the bytes of the next header that came along with the last frame.
///
/// The sizes of the socket's buffers are left to the kernel, which lets them grow with the product
/// of delay and bandwidth, beyond what a program may ask for.
pub(super) struct Wire {
    stream: TcpStream,
    address: String,
    deadline: Duration,
    idle: Duration,
    ahead: [u8; HEADER_BYTES],
    ahead_bytes: usize,
}

impl Wire {
    pub fn new(stream: TcpStream, address: String, settings: &Settings) -> Result<Self, Error> {
        let broken = |source| Error::Broken { address: address.clone(), source };
        // A timeout of zero would be none at all.
        let deadline = settings.deadline.max(Duration::from_millis(1));
        stream.set_nodelay(true).map_err(broken)?;
        stream.set_read_timeout(Some(deadline)).map_err(broken)?;
        stream.set_write_timeout(Some(deadline)).map_err(broken)?;
        let ahead = [0; HEADER_BYTES];
        Ok(Self { stream, address, deadline, idle: settings.idle, ahead, ahead_bytes: 0 })
    }

    #[cfg(test)]
    pub fn clone_stream(&self) -> TcpStream {
        self.stream.try_clone().expect("a socket can be had twice")
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    /// Writes all parts, in one call where the socket takes them.
    pub fn write(&mut self, parts: &[&[u8]]) -> Result<(), Error> {
        let mut slices = [IoSlice::new(&[]), IoSlice::new(&[]), IoSlice::new(&[])];
        for (slice, part) in slices.iter_mut().zip(parts) {
            *slice = IoSlice::new(part);
        }
        let mut left = &mut slices[..parts.len()];
        IoSlice::advance_slices(&mut left, 0);
        while !left.is_empty() {
            match self.stream.write_vectored(left) {
                Ok(0) => return Err(self.broken(ErrorKind::WriteZero.into())),
                Ok(bytes) => IoSlice::advance_slices(&mut left, bytes),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if is_timeout(&error) => return Err(self.slow(self.deadline)),
                Err(error) => return Err(self.broken(error)),
            }
        }
        Ok(())
    }

    /// From now on the peer may be silent no longer before a frame than within it.
    pub fn hasten(&mut self) {
        self.idle = self.deadline;
    }

    /// The next header. The peer may be silent before it, but not within it.
    pub fn read_header(&mut self) -> Result<[u8; HEADER_BYTES], Error> {
        let mut header = self.ahead;
        let already = std::mem::take(&mut self.ahead_bytes);
        if already < HEADER_BYTES {
            self.fill(&mut header, already, &mut [], 0, self.idle)?;
        }
        Ok(header)
    }

    /// A greeting or another part of fixed length, without looking ahead.
    pub fn read_exact(&mut self, place: &mut [u8]) -> Result<(), Error> {
        self.fill(place, 0, &mut [], 0, self.deadline).map(drop)
    }

    /// Ciphertext and tag, and what is there already of the next header.
    pub fn read_body(&mut self, ciphertext: &mut [u8], tag: &mut [u8]) -> Result<(), Error> {
        let mut rest = [0; TAG_BYTES + HEADER_BYTES];
        let room = &mut rest[..tag.len() + HEADER_BYTES];
        let got = self.fill(ciphertext, 0, room, tag.len(), self.deadline)?;
        tag.copy_from_slice(&rest[..tag.len()]);
        self.ahead_bytes = got - tag.len();
        self.ahead[..self.ahead_bytes].copy_from_slice(&rest[tag.len()..got]);
        Ok(())
    }

    /// Tells the peer that nothing more comes.
    pub fn finish(&self) {
        // Whoever is gone already needs not be told.
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Reads until `first` is full, of which `already` bytes are there, and `second` has at least
    /// `second_min` bytes; gives how many it has. For the first byte it waits for `patience`.
    fn fill(
        &mut self,
        first: &mut [u8],
        already: usize,
        second: &mut [u8],
        second_min: usize,
        patience: Duration,
    ) -> Result<usize, Error> {
        let mut watch = Stopwatch::start();
        let wanted = first.len() + second_min;
        let mut filled = already;
        while filled < wanted {
            let in_first = filled.min(first.len());
            let in_second = filled - in_first;
            let mut parts = [
                IoSliceMut::new(&mut first[in_first..]),
                IoSliceMut::new(&mut second[in_second..]),
            ];
            let result = self.stream.read_vectored(&mut parts);
            let limit = if filled == 0 { patience } else { self.deadline };
            match result {
                Ok(0) => return Err(Error::CutOff { address: self.address.clone() }),
                Ok(bytes) => {
                    if filled == 0 {
                        watch = Stopwatch::start();
                    }
                    filled += bytes;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted || is_timeout(&error) => {}
                Err(error) => return Err(self.broken(error)),
            }
            if filled < wanted && watch.elapsed() >= limit {
                return Err(self.slow(limit));
            }
        }
        Ok(filled - first.len())
    }

    fn broken(&self, source: io::Error) -> Error {
        Error::Broken { address: self.address.clone(), source }
    }

    fn slow(&self, waited: Duration) -> Error {
        Error::Slow { address: self.address.clone(), waited }
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}
