//! TUN devices: network interfaces whose packets this program reads and writes.
//!
//! `unsafe` is for the `ioctl` calls that make and configure a device, for which there is no safe
//! wrapper. Linux only, as the rest of the program.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use rustix::event::PollFlags;
use rustix::ioctl::{Opcode, Setter, Updater, ioctl};

use super::readiness::wait;

const DEVICE: &str = "/dev/net/tun";
const NAME_BYTES_MAX: usize = 15;

// linux/if_tun.h
const TUNSETIFF: Opcode = 0x4004_54ca;
const IFF_TUN: u16 = 0x0001;
const IFF_NO_PI: u16 = 0x1000;
// linux/sockios.h
const SIOCGIFFLAGS: Opcode = 0x8913;
const SIOCSIFFLAGS: Opcode = 0x8914;
const SIOCSIFADDR: Opcode = 0x8916;
const SIOCSIFNETMASK: Opcode = 0x891c;
const SIOCSIFMTU: Opcode = 0x8922;
// linux/if.h
const IFF_UP: u16 = 0x0001;
const IFF_RUNNING: u16 = 0x0040;
const AF_INET: u16 = 2;

/// `struct ifreq` of linux/if.h: the name, and a union of 24 bytes.
#[repr(C, align(8))]
struct Request {
    name: [u8; NAME_BYTES_MAX + 1],
    value: [u8; 24],
}

impl Request {
    fn new(name: &str) -> Self {
        let mut request = Self { name: [0; NAME_BYTES_MAX + 1], value: [0; 24] };
        request.name[..name.len()].copy_from_slice(name.as_bytes());
        request
    }

    fn with_flags(name: &str, flags: u16) -> Self {
        let mut request = Self::new(name);
        request.value[..2].copy_from_slice(&flags.to_ne_bytes());
        request
    }

    fn with_address(name: &str, address: Ipv4Addr) -> Self {
        let mut request = Self::new(name);
        request.value[..2].copy_from_slice(&AF_INET.to_ne_bytes());
        request.value[4..8].copy_from_slice(&address.octets());
        request
    }

    fn with_number(name: &str, number: i32) -> Self {
        let mut request = Self::new(name);
        request.value[..4].copy_from_slice(&number.to_ne_bytes());
        request
    }
}

/// A TUN device; it goes away when this is dropped.
pub struct Tun {
    file: File,
    name: String,
    mtu: usize,
}

impl Tun {
    /// Makes the device `name` for packets of at most `mtu` bytes, gives it `address` in a network of
    /// `prefix` bits, and sets it up.
    ///
    /// Errors: what the system said, with what it takes: the module `tun`, the device file, and the
    /// right to configure the network.
    pub fn open(name: &str, (address, prefix): (Ipv4Addr, u8), mtu: usize) -> io::Result<Self> {
        if name.is_empty() || name.len() > NAME_BYTES_MAX || name.contains(['/', '\0', ' ']) {
            return Err(told(
                "the name of a network device has 1 to 15 letters",
                ErrorKind::InvalidInput,
            ));
        }
        // O_NONBLOCK, which is the same on all of Linux's machines but MIPS and SPARC.
        let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        let file = File::options().read(true).write(true).custom_flags(flags).open(DEVICE);
        let file = file.map_err(|error| match error.kind() {
            ErrorKind::NotFound => told(
                "there is no /dev/net/tun: load the kernel's module 'tun', or give the container the device",
                error.kind(),
            ),
            ErrorKind::PermissionDenied => {
                told("/dev/net/tun may be opened by root only here", error.kind())
            }
            _ => error,
        })?;
        set::<TUNSETIFF>(&file, Request::with_flags(name, IFF_TUN | IFF_NO_PI))
            .map_err(|error| explained(error, "making the device takes the right CAP_NET_ADMIN"))?;
        let tun = Self { file, name: name.into(), mtu };
        tun.configure(address, prefix).map_err(|error| {
            explained(error, "configuring the device takes the right CAP_NET_ADMIN")
        })?;
        Ok(tun)
    }

    fn configure(&self, address: Ipv4Addr, prefix: u8) -> io::Result<()> {
        // The interface is configured by way of any socket.
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        let name = &self.name;
        let mask = u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0);
        let mtu = i32::try_from(self.mtu).unwrap_or(i32::MAX);
        set::<SIOCSIFADDR>(&socket, Request::with_address(name, address))?;
        set::<SIOCSIFNETMASK>(&socket, Request::with_address(name, mask.into()))?;
        set::<SIOCSIFMTU>(&socket, Request::with_number(name, mtu))?;
        let flags = flags(&socket, name)?;
        set::<SIOCSIFFLAGS>(&socket, Request::with_flags(name, flags | IFF_UP | IFF_RUNNING))
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Bytes of its largest packet.
    pub fn mtu(&self) -> usize {
        self.mtu
    }

    /// The next packet that the system sends into the device, if one is there.
    pub fn read(&self, packet: &mut [u8]) -> io::Result<Option<usize>> {
        match (&self.file).read(packet) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Waits up to `patience` for a packet; says whether there is one.
    pub fn wait(&self, patience: Duration) -> io::Result<bool> {
        wait(&self.file, PollFlags::IN, patience)
    }

    /// Gives the system a packet, as if it came from a network. One that it does not take is dropped.
    pub fn write(&self, packet: &[u8]) -> io::Result<bool> {
        match (&self.file).write(packet) {
            // A device takes all of a packet or nothing.
            Ok(taken) => Ok(taken == packet.len()),
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::Interrupted | ErrorKind::InvalidInput => {
                    Ok(false)
                }
                // The device is down.
                _ if error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) => {
                    Ok(false)
                }
                _ => Err(error),
            },
        }
    }
}

fn set<const OPCODE: Opcode>(file: impl AsFd, request: Request) -> io::Result<()> {
    // SAFETY: every opcode that this module names takes a pointer to a `struct ifreq`, of which
    // `Request` has the size and the layout, and keeps it no longer than the call.
    unsafe { ioctl(file, Setter::<OPCODE, Request>::new(request)) }.map_err(Into::into)
}

fn flags(socket: &UdpSocket, name: &str) -> io::Result<u16> {
    let mut request = Request::new(name);
    // SAFETY: SIOCGIFFLAGS reads the name of a `struct ifreq` and writes into its union.
    unsafe { ioctl(socket, Updater::<SIOCGIFFLAGS, Request>::new(&mut request)) }?;
    Ok(u16::from_ne_bytes([request.value[0], request.value[1]]))
}

fn told(what: &str, kind: ErrorKind) -> io::Error {
    io::Error::new(kind, what.to_owned())
}

fn explained(error: io::Error, what: &str) -> io::Error {
    if error.kind() == ErrorKind::PermissionDenied { told(what, error.kind()) } else { error }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_the_size_and_layout_of_the_kernels() {
        assert_eq!((size_of::<Request>(), align_of::<Request>()), (40, 8));
        let request = Request::with_address("tun0", Ipv4Addr::new(10, 1, 2, 3));
        assert_eq!(&request.name[..5], b"tun0\0");
        assert_eq!(request.value[4..8], [10, 1, 2, 3]);
    }

    #[test]
    fn names_that_no_device_can_have_are_refused() {
        for name in ["", "a/b", "far too long a name"] {
            let error = Tun::open(name, (Ipv4Addr::LOCALHOST, 32), 1400).err().unwrap();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
        }
    }
}
