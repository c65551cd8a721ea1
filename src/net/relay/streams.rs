//! Relays of TCP connections.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crossbeam::channel::{Sender, bounded};

use super::Target;
use crate::base::SiteId;
use crate::net::flow::{Accepted, Carrier, Offer, accept, refuse, request};
use crate::net::{Connection, Dialer, Error};
use crate::otp::Cipher;
use crate::otp::packet::{Headers, Shape};

/// Message kind of relayed bytes.
const BYTES: u16 = 0x5201;
/// Bytes that are read from the application at once.
const READ_BYTES: usize = 64 << 10;
/// How long the second session of a connection may take.
const SECOND_WAIT: Duration = Duration::from_secs(20);

/// Carries every connection that `listener` takes to `target` beside the peer, each on threads of its
/// own, until the listener fails. `report` hears of those that end badly.
///
/// Errors: [`Error::Listen`].
pub fn call(
    listener: &TcpListener,
    dialer: &Dialer,
    target: &Target,
    report: &(dyn Fn(Error) + Sync),
) -> Result<(), Error> {
    thread::scope(|scope| {
        loop {
            match listener.accept() {
                Ok((stream, _)) => {
                    scope.spawn(move || {
                        if let Err(error) = carry(&stream, dialer, target) {
                            report(error);
                        }
                    });
                }
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
                Err(source) => {
                    let address =
                        listener.local_addr().map_or_else(|_| "?".into(), |at| at.to_string());
                    return Err(Error::Listen { address, source });
                }
            }
        }
    })
}

fn carry(stream: &TcpStream, dialer: &Dialer, target: &Target) -> Result<(), Error> {
    let mut up = dialer.dial()?;
    let shape = Shape { headers: Headers::Clear, cipher: Cipher::Otp, unit_bytes: 16, flow: 0 };
    let offer = Offer {
        purpose: target.to_string(),
        carrier: Carrier::Tcp,
        shape,
        streams: 1,
        token: None,
    };
    let accepted = request(&mut up, &offer)?;
    let mut down = dialer.dial()?;
    request(&mut down, &Offer { token: Some(accepted.token), ..offer })?;
    pump(stream, up, down)
}

/// Carries bytes in both directions until both have ended.
fn pump(stream: &TcpStream, out: Connection, back: Connection) -> Result<(), Error> {
    let broken = |source| Error::Broken { address: out.address().into(), source };
    let reading = stream.try_clone().map_err(broken)?;
    // Small messages of the application are not held back.
    stream.set_nodelay(true).map_err(broken)?;
    thread::scope(|scope| {
        let sending = scope.spawn(|| to_peer(&reading, out));
        let received = from_peer(stream, back);
        if received.is_err() {
            // Nobody hears what the application still says.
            let _ = stream.shutdown(Shutdown::Both);
        }
        let sent = sending.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        received.and(sent)
    })
}

fn to_peer(mut stream: &TcpStream, mut out: Connection) -> Result<(), Error> {
    let mut bytes = zeroize::Zeroizing::new(vec![0; READ_BYTES]);
    loop {
        match stream.read(&mut bytes) {
            Ok(0) => return out.close(),
            Ok(count) => out.send(BYTES, &bytes[..count])?,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // The application is gone; the peer sees that it did not end in order.
            Err(source) => return Err(Error::Broken { address: "the application".into(), source }),
        }
    }
}

fn from_peer(mut stream: &TcpStream, mut back: Connection) -> Result<(), Error> {
    while let Some(message) = back.receive()? {
        if message.kind != BYTES {
            return Err(Error::Unexpected { address: back.address().into() });
        }
        stream
            .write_all(&message.payload)
            .map_err(|source| Error::Broken { address: "the application".into(), source })?;
    }
    // The other direction may go on.
    let _ = stream.shutdown(Shutdown::Write);
    Ok(())
}

/// Sessions whose twin has not come yet.
#[derive(Default)]
pub(super) struct Pairs(Mutex<HashMap<u64, (SiteId, Sender<Connection>)>>);

impl Pairs {
    /// Serves the first session of a connection until that ends; hands the second one over.
    pub fn answer(
        &self,
        mut connection: Connection,
        token: Option<u64>,
        target: &str,
    ) -> Result<(), Error> {
        if let Some(token) = token {
            let waiting = self.waiting().remove(&token);
            let Some((_, given)) = waiting.filter(|(peer, _)| peer == connection.peer()) else {
                return refuse(&mut connection, "there is no such connection");
            };
            accept(&mut connection, Accepted { port: 0, token, buffer_bytes: 0 })?;
            // Whoever waited too long has hung up.
            let _ = given.send(connection);
            return Ok(());
        }
        let stream = match TcpStream::connect(target) {
            Ok(stream) => stream,
            Err(error) => return refuse(&mut connection, &format!("{target}: {error}")),
        };
        let address = connection.address().to_owned();
        let token = getrandom::u64()
            .map_err(|error| Error::Random { address: address.clone(), source: error.into() })?;
        let (given, second) = bounded(1);
        self.waiting().insert(token, (connection.peer().clone(), given));
        let agreed = accept(&mut connection, Accepted { port: 0, token, buffer_bytes: 0 });
        let second = agreed.and_then(|()| {
            let slow = |_| Error::Slow { address, waited: SECOND_WAIT };
            second.recv_timeout(SECOND_WAIT).map_err(slow)
        });
        self.waiting().remove(&token);
        pump(&stream, second?, connection)
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, HashMap<u64, (SiteId, Sender<Connection>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
