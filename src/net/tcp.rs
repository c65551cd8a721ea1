//! Calling and being called.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::base::SiteId;
use crate::key::KeyStore;

use super::connection::Connection;
use super::greeting;
use super::wire::Wire;
use super::{Error, Settings};

/// Calls `peer` at `address`, `host:port`, and makes sure that it is the one.
///
/// Errors: [`Error::Unreachable`]; [`Error::Keys`] without a link to `peer`; [`Error::Session`] when
/// the other end refuses, is somebody else or cannot prove who it is.
pub fn dial(
    address: &str,
    peer: &SiteId,
    keys: &KeyStore,
    settings: &Settings,
) -> Result<Connection, Error> {
    let stream = connect(address, settings.deadline)
        .map_err(|source| Error::Unreachable { address: address.into(), source })?;
    let wire = Wire::new(stream, address.into(), settings)?;
    greeting::as_dialer(wire, peer, keys, settings)
}

fn connect(address: &str, deadline: Duration) -> io::Result<TcpStream> {
    let mut last = io::Error::from(ErrorKind::NotFound);
    for candidate in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&candidate, deadline.max(Duration::from_millis(1))) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Waits for calls.
pub struct Listener {
    listener: TcpListener,
    address: SocketAddr,
    closed: Arc<AtomicBool>,
}

impl Listener {
    /// Listens at `address`, `host:port`; port 0 takes a free one.
    pub fn bind(address: &str) -> Result<Self, Error> {
        let failed = |source| Error::Listen { address: address.into(), source };
        let listener = TcpListener::bind(address).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address, closed: Arc::default() })
    }

    /// Where it listens.
    pub fn local_address(&self) -> SocketAddr {
        self.address
    }

    /// What ends the waiting from another thread.
    pub fn closer(&self) -> Closer {
        Closer { address: self.address, closed: Arc::clone(&self.closed) }
    }

    /// Waits for the next call. Nothing is known of the caller yet; the greeting is left to the thread
    /// that serves it, so that a silent caller keeps nobody waiting.
    ///
    /// Errors: [`Error::ListenerClosed`] after [`Closer::close`].
    pub fn accept(&self) -> Result<Incoming, Error> {
        loop {
            let closed = || self.closed.load(Ordering::SeqCst);
            // Closed before, or while waiting.
            let result = if closed() { None } else { Some(self.listener.accept()) };
            let Some(result) = result.filter(|_| !closed()) else {
                return Err(Error::ListenerClosed { address: self.address.to_string() });
            };
            match result {
                Ok((stream, address)) => return Ok(Incoming { stream, address }),
                // The caller hung up, or a signal came: the next call is as good.
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::ConnectionAborted | ErrorKind::Interrupted
                    ) => {}
                Err(source) => {
                    return Err(Error::Listen { address: self.address.to_string(), source });
                }
            }
        }
    }
}

/// Ends a [`Listener`]'s waiting.
#[derive(Clone)]
pub struct Closer {
    address: SocketAddr,
    closed: Arc<AtomicBool>,
}

impl Closer {
    /// Makes [`Listener::accept`] return, now and always.
    pub fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        let mut address = self.address;
        if address.ip().is_unspecified() {
            address.set_ip(match address.ip() {
                IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
                IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
            });
        }
        // A call wakes whoever waits; if it fails, nobody does.
        let _ = TcpStream::connect_timeout(&address, Duration::from_secs(1));
    }
}

/// A call that was taken, from nobody knows whom.
pub struct Incoming {
    stream: TcpStream,
    address: SocketAddr,
}

impl Incoming {
    /// Where the call comes from.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Learns who calls and makes sure that it is the one.
    ///
    /// Errors: [`Error::Session`] with the reason for the refusal, of which the caller is told; other
    /// errors name the caller's address.
    pub fn handshake(self, keys: &KeyStore, settings: &Settings) -> Result<Connection, Error> {
        let wire = Wire::new(self.stream, self.address.to_string(), settings)?;
        greeting::as_listener(wire, keys, settings)
    }
}
