//! The holder's side of a remote store.

use super::{Failure, Reply, Request, WINDOW, kind};
use crate::base::{Chunk, Fault, Faulty, ShareId};
use crate::key::Priority;
use crate::net::Connection;
use crate::store::{Error, ShareReader, ShareStore, ShareWriter, verify};

/// Answers store requests on one connection, for as long as they come.
pub struct Service<'a> {
    store: &'a dyn ShareStore,
    writer: Option<(ShareId, Box<dyn ShareWriter>)>,
    appended: u64,
    reader: Option<Box<dyn ShareReader>>,
    /// Where the stripes end that key was reserved for.
    expected: u64,
}

impl<'a> Service<'a> {
    /// A service for one connection.
    pub fn new(store: &'a dyn ShareStore) -> Self {
        Self { store, writer: None, appended: 0, reader: None, expected: 0 }
    }

    /// Answers one request.
    ///
    /// Errors: the connection's own; whatever else goes wrong is told to the peer.
    pub fn answer(
        &mut self,
        connection: &mut Connection,
        request: Request,
    ) -> Result<(), crate::net::Error> {
        let reply = match request {
            Request::Read { start, count, check } => {
                return self.send_stripes(connection, start, count, check);
            }
            Request::Replace { share, stripe } => {
                let Some(message) = connection.receive()? else { return Ok(()) };
                let mut chunk = message.payload;
                chunk.set_seq(stripe);
                self.store.replace(&share, &chunk).map(|()| Reply::Done)
            }
            request => self.simple(request),
        };
        send_reply(connection, kind::REPLY, &reply.unwrap_or_else(|error| failed(&error)))
    }

    fn simple(&mut self, request: Request) -> Result<Reply, Error> {
        match request {
            Request::Create { share, format, stripe_bytes } => {
                self.appended = 0;
                self.writer = None;
                let writer = self.store.create(&share, format, stripe_bytes)?;
                self.writer = Some((share, writer));
                Ok(Reply::Done)
            }
            Request::Commit { stripes } => {
                let Some((id, writer)) = self.writer.take() else { return Ok(out_of_turn()) };
                if stripes != self.appended {
                    return Err(Error::Corrupt { id, stripe: self.appended.min(stripes) });
                }
                writer.commit().map(Reply::Info)
            }
            Request::Open { share } => {
                let reader = self.store.open(&share)?;
                let info = reader.info().clone();
                self.reader = Some(reader);
                self.expected = 0;
                Ok(Reply::Info(info))
            }
            Request::List => self.store.list().map(Reply::Shares),
            Request::Remove { share } => self.store.remove(&share).map(|()| Reply::Done),
            Request::Verify { share } => verify(self.store, &share).map(Reply::Corrupt),
            Request::Read { .. } | Request::Replace { .. } => Ok(out_of_turn()),
        }
    }

    /// Takes a stripe of the share being written.
    ///
    /// Errors: why the store refused it; the share is given up and the peer told.
    pub fn take_stripe(
        &mut self,
        connection: &mut Connection,
        mut stripe: Chunk,
    ) -> Result<(), crate::net::Error> {
        let Some((_, writer)) = self.writer.as_mut() else {
            // The refusal was told already; what was on the way is dropped.
            return Ok(());
        };
        stripe.set_seq(self.appended);
        match writer.append(stripe) {
            Ok(()) => {
                self.appended += 1;
                Ok(())
            }
            Err(error) => {
                self.writer = None;
                send_reply(connection, kind::REPLY, &failed(&error))
            }
        }
    }

    fn send_stripes(
        &mut self,
        connection: &mut Connection,
        start: u64,
        count: u64,
        check: bool,
    ) -> Result<(), crate::net::Error> {
        let Some(reader) = self.reader.as_mut() else {
            return send_reply(connection, kind::DAMAGED, &out_of_turn());
        };
        let info = reader.info();
        let end = start.saturating_add(count.min(WINDOW)).min(info.stripes);
        if end > self.expected {
            // A share is read from some stripe to its end, as a rule.
            let left = info.stripes.saturating_sub(start);
            connection.prioritise(Priority::Restore);
            match connection.expect_to_send(left, info.stripe_bytes.into()) {
                Err(error) if error.fault() == Fault::TryAgain => {
                    let reply = Reply::Failed(Failure {
                        message: error.to_string(),
                        code: error.fault().exit_code(),
                        hint: error.hint(),
                        what: None,
                    });
                    return send_reply(connection, kind::DAMAGED, &reply);
                }
                expected => expected?,
            }
            self.expected = info.stripes;
        }
        for number in start..end {
            let stripe = if check { reader.read(number) } else { reader.read_unchecked(number) };
            match stripe {
                Ok(stripe) => connection.send_chunk(kind::STRIPE, stripe)?,
                Err(error) => send_reply(connection, kind::DAMAGED, &failed(&error))?,
            }
        }
        Ok(())
    }
}

fn failed(error: &Error) -> Reply {
    Reply::Failed(Failure::of_store(error))
}

fn out_of_turn() -> Reply {
    let message = "this request is not possible now".to_owned();
    let code = Fault::Refused.exit_code();
    Reply::Failed(Failure { message, code, hint: None, what: None })
}

fn send_reply(
    connection: &mut Connection,
    kind: u16,
    reply: &Reply,
) -> Result<(), crate::net::Error> {
    let text = serde_json::to_vec(reply).expect("replies are plain data");
    connection.send(kind, &text)
}
