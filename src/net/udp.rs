//! A UDP socket that takes and gives many datagrams a system call: segmentation offload on the way
//! out, receive offload and `recvmmsg` on the way in.

use std::io::{self, ErrorKind, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use quinn_udp::{BATCH_SIZE, RecvMeta, Transmit, UdpSocketState};
use rustix::event::PollFlags;

use super::Error;
use super::readiness::wait;

/// Bytes of the largest datagram, and so of what one call can hand over for segmentation.
pub const SEND_BYTES_MAX: usize = 65_507;
/// Bytes of a receive buffer: datagrams of one sender that came together. Not a power of two, or the
/// beginnings of all buffers would share a few lines of the cache.
const BUFFER_BYTES: usize = 65_536 + 23 * 64;
/// Receive buffers.
const BUFFERS: usize = if BATCH_SIZE < 32 { BATCH_SIZE } else { 32 };

/// What the kernel is asked to hold for a receiver that is busy.
const SOCKET_BYTES: usize = 16 << 20;

/// A bound socket.
pub struct Udp {
    socket: UdpSocket,
    state: UdpSocketState,
    address: SocketAddr,
}

/// Memory for what is received.
pub struct Inbox {
    bytes: Vec<u8>,
    metas: [RecvMeta; BUFFERS],
    filled: usize,
}

impl Udp {
    /// Binds `address`; port 0 takes a free one.
    pub fn bind(address: SocketAddr) -> Result<Self, Error> {
        let failed = |source| Error::Listen { address: address.to_string(), source };
        let socket = UdpSocket::bind(address).map_err(failed)?;
        let state = UdpSocketState::new((&socket).into()).map_err(failed)?;
        // Whoever may not have more than the system's limit gets the limit.
        let forced = rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, SOCKET_BYTES);
        if forced.is_err() {
            let _ = state.set_recv_buffer_size((&socket).into(), SOCKET_BYTES);
        }
        let _ = state.set_send_buffer_size((&socket).into(), SOCKET_BYTES / 8);
        let address = socket.local_addr().map_err(failed)?;
        Ok(Self { socket, state, address })
    }

    /// Where it is bound.
    pub fn local_address(&self) -> SocketAddr {
        self.address
    }

    /// Bytes that the kernel holds for a receiver that is busy, its own bookkeeping included.
    pub fn receive_buffer_bytes(&self) -> usize {
        self.state.recv_buffer_size((&self.socket).into()).unwrap_or(0)
    }

    /// Whether the kernel cuts what is sent into datagrams, and joins what is received.
    pub fn offloads(&self) -> (bool, bool) {
        (self.state.max_gso_segments() > 1, self.state.gro_segments() > 1)
    }

    /// Most datagrams of `stride` bytes in one call.
    pub fn batch(&self, stride: usize) -> usize {
        self.state.max_gso_segments().min(SEND_BYTES_MAX / stride.max(1)).max(1)
    }

    /// Sends `bytes` as datagrams of `stride` bytes, the last one perhaps shorter. Waits until the
    /// socket takes them. Nobody is told of what is lost on the way.
    ///
    /// Errors: [`Error::Broken`] when the system refuses them for good.
    pub fn send(&self, to: SocketAddr, bytes: &[u8], stride: usize) -> Result<(), Error> {
        let whole = self.batch(stride) * stride;
        for contents in bytes.chunks(whole.max(1)) {
            let transmit = Transmit {
                destination: to,
                ecn: None,
                contents,
                segment_size: (contents.len() > stride).then_some(stride),
                src_ip: None,
            };
            loop {
                match self.state.try_send((&self.socket).into(), &transmit) {
                    Ok(()) => break,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        self.wait(PollFlags::OUT, Duration::from_secs(1))?;
                    }
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    // An answer of the network to an earlier datagram: this one may fare better.
                    Err(error) if is_passing(&error) => break,
                    // The system has just learned that it cannot segment: once more in smaller parts.
                    Err(_) if self.batch(stride) * stride < contents.len() => {
                        return self.send(to, contents, stride);
                    }
                    Err(source) => return Err(Error::Broken { address: to.to_string(), source }),
                }
            }
        }
        Ok(())
    }

    /// Waits up to `patience` and takes what has arrived by then; gives whether anything has.
    pub fn receive(&self, inbox: &mut Inbox, patience: Duration) -> Result<bool, Error> {
        inbox.filled = 0;
        if self.try_receive(inbox)? {
            return Ok(true);
        }
        Ok(!patience.is_zero() && self.wait(PollFlags::IN, patience)? && self.try_receive(inbox)?)
    }

    fn try_receive(&self, inbox: &mut Inbox) -> Result<bool, Error> {
        let mut rest = inbox.bytes.chunks_mut(BUFFER_BYTES);
        let mut slices: [IoSliceMut<'_>; BUFFERS] =
            std::array::from_fn(|_| IoSliceMut::new(rest.next().unwrap_or_default()));
        match self.state.recv((&self.socket).into(), &mut slices, &mut inbox.metas) {
            Ok(filled) => inbox.filled = filled,
            Err(error) if error.kind() == ErrorKind::WouldBlock || is_passing(&error) => {}
            Err(source) => {
                return Err(Error::Broken { address: self.address.to_string(), source });
            }
        }
        Ok(inbox.filled > 0)
    }

    fn wait(&self, flags: PollFlags, patience: Duration) -> Result<bool, Error> {
        wait(&self.socket, flags, patience)
            .map_err(|source| Error::Broken { address: self.address.to_string(), source })
    }
}

fn is_passing(error: &io::Error) -> bool {
    use ErrorKind::{ConnectionRefused, HostUnreachable, Interrupted, NetworkUnreachable};
    matches!(error.kind(), ConnectionRefused | HostUnreachable | Interrupted | NetworkUnreachable)
}

impl Inbox {
    /// Memory for a few of the kernel's largest buffers.
    pub fn new() -> Self {
        Self { bytes: vec![0; BUFFERS * BUFFER_BYTES], metas: Default::default(), filled: 0 }
    }

    /// Gives each datagram that came last, with its sender.
    pub fn each(&mut self, mut give: impl FnMut(SocketAddr, &mut [u8])) {
        let Self { bytes, metas, filled } = self;
        for (buffer, meta) in bytes.chunks_mut(BUFFER_BYTES).zip(&metas[..*filled]) {
            for datagram in buffer[..meta.len].chunks_mut(meta.stride.max(1)) {
                give(meta.addr, datagram);
            }
        }
        *filled = 0;
    }
}

impl Default for Inbox {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_of_two_sizes_arrive_whole_and_in_order() {
        let local = || Udp::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let (one, two) = (local(), local());
        let bytes: Vec<u8> = (0..10 * 1000 + 77).map(|n| (n / 1000) as u8).collect();
        one.send(two.local_address(), &bytes, 1000).unwrap();
        let (mut inbox, mut got) = (Inbox::new(), Vec::new());
        while got.len() < 11 && two.receive(&mut inbox, Duration::from_secs(10)).unwrap() {
            inbox.each(|from, datagram| {
                assert_eq!(from, one.local_address());
                got.push(datagram.to_vec());
            });
        }
        let expected: Vec<Vec<u8>> = bytes.chunks(1000).map(<[u8]>::to_vec).collect();
        assert!(got == expected, "{:?}", got.iter().map(Vec::len).collect::<Vec<_>>());
        assert!(!two.receive(&mut inbox, Duration::from_millis(1)).unwrap());
    }
}
