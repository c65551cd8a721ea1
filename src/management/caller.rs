//! One neighbour, called when needed over a session that is kept open.

use std::sync::{Mutex, PoisonError};

use super::Error;
use super::protocol::{Reply, Request, kind};
use crate::base::{Chunk, SiteId};
use crate::net::{Connection, Dialer};

/// How to ask one peer. Questions wait for each other.
pub struct Caller {
    dialer: Dialer,
    open: Mutex<Option<Connection>>,
}

impl Caller {
    /// A caller that has not called yet.
    pub fn new(dialer: Dialer) -> Self {
        Self { dialer, open: Mutex::default() }
    }

    /// The peer.
    pub fn peer(&self) -> &SiteId {
        self.dialer.peer()
    }

    /// Asks, and waits for the answer. A session that has broken is begun anew, once.
    ///
    /// Errors: [`Error::Peer`] when the peer says that it failed; [`Error::Net`] when it cannot be
    /// reached.
    pub fn ask(&self, request: &Request) -> Result<Reply, Error> {
        self.in_session(|connection| {
            send(connection, request)?;
            receive(connection)
        })
    }

    /// Asks what `question` makes of `mask_bytes` of fresh key that the peer gets, too.
    pub fn ask_masked(
        &self,
        mask_bytes: usize,
        question: impl Fn(&Chunk) -> Request,
    ) -> Result<Reply, Error> {
        self.in_session(|connection| {
            let mask = connection.send_keyed(kind::MASK, mask_bytes)?;
            send(connection, &question(&mask))?;
            receive(connection)
        })
    }

    fn in_session(
        &self,
        act: impl Fn(&mut Connection) -> Result<Reply, Error>,
    ) -> Result<Reply, Error> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mut connection) = open.take()
            && let Ok(reply) = act(&mut connection)
        {
            *open = Some(connection);
            return reply.checked(self.peer());
        }
        let mut connection = self.dialer.dial()?;
        let reply = act(&mut connection)?;
        *open = Some(connection);
        reply.checked(self.peer())
    }
}

fn send(connection: &mut Connection, request: &Request) -> Result<(), Error> {
    let text = serde_json::to_vec(request).expect("requests are plain data");
    Ok(connection.send(kind::REQUEST, &text)?)
}

fn receive(connection: &mut Connection) -> Result<Reply, Error> {
    let protocol = |connection: &Connection| Error::Protocol { peer: connection.peer().clone() };
    let message = connection.receive()?.ok_or_else(|| protocol(connection))?;
    if message.kind != kind::REPLY {
        return Err(protocol(connection));
    }
    serde_json::from_slice(&message.payload).map_err(|_| protocol(connection))
}
