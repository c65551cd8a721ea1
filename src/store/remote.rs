//! A store at another site, over the sealed channel: the client's side and the holder's side.
//!
//! A request is one JSON message; stripes follow as messages of their own. The holder answers every
//! request but an append with one JSON reply, and a read with the stripes asked for. Reading in order
//! keeps two windows of [`WINDOW`] stripes on the way.

use serde::{Deserialize, Serialize};

use super::{Digest, Error, ShareInfo, ShareReader, ShareStore, ShareWriter};
use crate::base::{Chunk, Fault, Faulty, ShareId, SiteId};
use crate::net::{Connection, Dialer};

/// Message kinds of the store protocol.
pub mod kind {
    /// JSON: what is asked.
    pub const REQUEST: u16 = 1;
    /// JSON: the answer, or why there is none.
    pub const REPLY: u16 = 2;
    /// A stripe.
    pub const STRIPE: u16 = 3;
    /// A stripe that is the key itself: share C for the price of key alone.
    pub const KEYED_STRIPE: u16 = 4;
    /// In place of a stripe that cannot be read; JSON, as a reply.
    pub const DAMAGED: u16 = 5;
}

/// Stripes asked for at once.
pub const WINDOW: u64 = 8;

/// What a share holder is asked.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Request {
    /// Begin a share; stripes follow, then `Commit`.
    Create {
        /// Which share.
        share: ShareId,
        /// Version of the share format.
        format: u16,
        /// Bytes of every stripe.
        stripe_bytes: u32,
    },
    /// Make the begun share visible, with its first `stripes` stripes.
    Commit {
        /// Number of stripes sent.
        stripes: u64,
    },
    /// Describe a share and keep it open for `Read`.
    Open {
        /// Which share.
        share: ShareId,
    },
    /// Send stripes `[start, start + count)` of the open share.
    Read {
        /// First stripe.
        start: u64,
        /// How many.
        count: u64,
        /// Whether the holder is to check them against their digests.
        check: bool,
    },
    /// List the shares.
    List,
    /// Remove a share.
    Remove {
        /// Which share.
        share: ShareId,
    },
    /// Put the stripe that follows in place of a damaged one.
    Replace {
        /// Which share.
        share: ShareId,
        /// Number of the stripe.
        stripe: u64,
    },
    /// Read a whole share at the holder and name the stripes that are corrupt.
    Verify {
        /// Which share.
        share: ShareId,
    },
}

/// A request to a site, as far as stores are concerned (the site's own enum has the same form).
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
enum Envelope<'a> {
    Store(&'a Request),
}

/// What a holder answers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    /// Done; nothing to say.
    Done,
    /// A share's description.
    Info(ShareInfo),
    /// The shares stored.
    Shares(Vec<ShareInfo>),
    /// Stripes that are corrupt.
    Corrupt(Vec<u64>),
    /// It failed.
    Failed(Failure),
}

/// An error on its way between sites.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// What went wrong.
    pub message: String,
    /// The exit code of its fault.
    pub code: u8,
    /// What to do about it.
    pub hint: Option<String>,
    /// Which store error it is, where the other side must tell them apart.
    pub what: Option<What>,
}

/// The store errors that a peer must tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// [`Error::Exists`].
    Exists,
    /// [`Error::Missing`].
    Missing,
    /// [`Error::Corrupt`], with the stripe.
    Corrupt(u64),
    /// [`Error::Full`]: bytes needed, bytes free.
    Full(u64, u64),
}

impl Failure {
    /// Describes any error with its causes.
    pub fn of(error: &dyn Faulty) -> Self {
        let mut message = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            message = format!("{message}: {error}");
            cause = error.source();
        }
        Self { message, code: error.fault().exit_code(), hint: error.hint(), what: None }
    }

    fn of_store(error: &Error) -> Self {
        let what = match error {
            Error::Exists { .. } => Some(What::Exists),
            Error::Missing { .. } => Some(What::Missing),
            Error::Corrupt { stripe, .. } => Some(What::Corrupt(*stripe)),
            Error::Full { needed, free, .. } => Some(What::Full(*needed, *free)),
            _ => None,
        };
        Self { what, ..Self::of(error) }
    }

    fn into_store_error(self, site: &SiteId, id: Option<&ShareId>) -> Error {
        match (self.what, id) {
            (Some(What::Exists), Some(id)) => Error::Exists { id: id.clone() },
            (Some(What::Missing), Some(id)) => Error::Missing { id: id.clone() },
            (Some(What::Corrupt(stripe)), Some(id)) => Error::Corrupt { id: id.clone(), stripe },
            (Some(What::Full(needed, free)), _) => {
                Error::Full { place: format!("holder {site}"), needed, free }
            }
            _ => Error::Remote {
                site: site.clone(),
                fault: Fault::from_exit_code(self.code),
                source: Box::new(self),
            },
        }
    }
}

/// The store of a peer.
pub struct RemoteStore {
    dialer: Dialer,
}

impl RemoteStore {
    /// A store that dials its peer for every share it writes or reads.
    pub fn new(dialer: Dialer) -> Self {
        Self { dialer }
    }

    fn exchange(&self, request: &Request, id: Option<&ShareId>) -> Result<Reply, Error> {
        let mut channel = Channel::open(&self.dialer)?;
        let reply = channel.ask(request, id)?;
        channel.close();
        Ok(reply)
    }

    /// Lets the holder itself read a share and name its corrupt stripes.
    pub fn verify(&self, id: &ShareId) -> Result<Vec<u64>, Error> {
        let site = self.dialer.peer().clone();
        match self.exchange(&Request::Verify { share: id.clone() }, Some(id))? {
            Reply::Corrupt(stripes) => Ok(stripes),
            _ => Err(unexpected(&site)),
        }
    }
}

impl ShareStore for RemoteStore {
    fn create(
        &self,
        id: &ShareId,
        format: u16,
        stripe_bytes: u32,
    ) -> Result<Box<dyn ShareWriter>, Error> {
        let mut channel = Channel::open(&self.dialer)?;
        channel.ask(&Request::Create { share: id.clone(), format, stripe_bytes }, Some(id))?;
        Ok(Box::new(RemoteWriter { channel, id: id.clone(), stripe_bytes, stripes: 0 }))
    }

    fn open(&self, id: &ShareId) -> Result<Box<dyn ShareReader>, Error> {
        let mut channel = Channel::open(&self.dialer)?;
        match channel.ask(&Request::Open { share: id.clone() }, Some(id))? {
            Reply::Info(info) => {
                Ok(Box::new(RemoteReader { channel, info, asked: 0..0, next: 0, check: false }))
            }
            _ => Err(unexpected(&channel.site)),
        }
    }

    fn list(&self) -> Result<Vec<ShareInfo>, Error> {
        match self.exchange(&Request::List, None)? {
            Reply::Shares(shares) => Ok(shares),
            _ => Err(unexpected(self.dialer.peer())),
        }
    }

    fn remove(&self, id: &ShareId) -> Result<(), Error> {
        self.exchange(&Request::Remove { share: id.clone() }, Some(id)).map(drop)
    }

    fn replace(&self, id: &ShareId, stripe: &Chunk) -> Result<(), Error> {
        let mut channel = Channel::open(&self.dialer)?;
        channel.tell(&Request::Replace { share: id.clone(), stripe: stripe.seq() })?;
        channel.send(kind::STRIPE, Chunk::from_bytes(stripe.seq(), stripe))?;
        channel.reply(Some(id))?;
        channel.close();
        Ok(())
    }
}

/// One connection to a holder.
struct Channel {
    site: SiteId,
    connection: Connection,
}

impl Channel {
    fn open(dialer: &Dialer) -> Result<Self, Error> {
        let site = dialer.peer().clone();
        let connection = dialer.dial().map_err(|error| broken(&site, error))?;
        Ok(Self { site, connection })
    }

    fn tell(&mut self, request: &Request) -> Result<(), Error> {
        let text = serde_json::to_vec(&Envelope::Store(request)).expect("requests are plain data");
        self.connection.send(kind::REQUEST, &text).map_err(|error| broken(&self.site, error))
    }

    fn ask(&mut self, request: &Request, id: Option<&ShareId>) -> Result<Reply, Error> {
        self.tell(request)?;
        self.reply(id)
    }

    fn send(&mut self, kind: u16, payload: Chunk) -> Result<(), Error> {
        match self.connection.send_chunk(kind, payload) {
            Ok(()) => Ok(()),
            // A holder that gives up says why before it hangs up.
            Err(error) => match self.connection.receive() {
                Ok(Some(message)) if message.kind == kind::REPLY => {
                    Err(parse_reply(&message.payload, &self.site, None)
                        .err()
                        .unwrap_or_else(|| broken(&self.site, error)))
                }
                _ => Err(broken(&self.site, error)),
            },
        }
    }

    fn receive(&mut self) -> Result<(u16, Chunk), Error> {
        match self.connection.receive() {
            Ok(Some(message)) => Ok((message.kind, message.payload)),
            Ok(None) => Err(unexpected(&self.site)),
            Err(error) => Err(broken(&self.site, error)),
        }
    }

    fn reply(&mut self, id: Option<&ShareId>) -> Result<Reply, Error> {
        match self.receive()? {
            (kind::REPLY, payload) => parse_reply(&payload, &self.site, id),
            _ => Err(unexpected(&self.site)),
        }
    }

    fn close(self) {
        // What was asked is answered; a lost goodbye loses nothing.
        let _ = self.connection.close();
    }
}

fn parse_reply(payload: &[u8], site: &SiteId, id: Option<&ShareId>) -> Result<Reply, Error> {
    match serde_json::from_slice(payload) {
        Ok(Reply::Failed(failure)) => Err(failure.into_store_error(site, id)),
        Ok(reply) => Ok(reply),
        Err(_) => Err(unexpected(site)),
    }
}

fn broken(site: &SiteId, error: impl Faulty) -> Error {
    Error::Remote { site: site.clone(), fault: error.fault(), source: Box::new(error) }
}

fn unexpected(site: &SiteId) -> Error {
    let message = "the answer is not what the protocol allows here".to_owned();
    let code = Fault::Unavailable.exit_code();
    broken(site, Refusal(Failure { message, code, hint: None, what: None }))
}

/// A failure as an error of its own.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
struct Refusal(Failure);

impl Faulty for Refusal {
    fn fault(&self) -> Fault {
        Fault::from_exit_code(self.0.code)
    }
}

struct RemoteWriter {
    channel: Channel,
    id: ShareId,
    stripe_bytes: u32,
    stripes: u64,
}

impl ShareWriter for RemoteWriter {
    fn append(&mut self, stripe: Chunk) -> Result<(), Error> {
        self.stripes += 1;
        self.channel.send(kind::STRIPE, stripe)
    }

    fn append_key(&mut self, bytes: usize) -> Option<Result<Chunk, Error>> {
        self.stripes += 1;
        let drawn = self.channel.connection.send_keyed(kind::KEYED_STRIPE, bytes);
        Some(drawn.map_err(|error| broken(&self.channel.site, error)))
    }

    fn expect(&mut self, stripes: u64) {
        self.channel.connection.expect_to_send(stripes, self.stripe_bytes.into());
    }

    fn commit(mut self: Box<Self>) -> Result<ShareInfo, Error> {
        let stripes = self.stripes;
        match self.channel.ask(&Request::Commit { stripes }, Some(&self.id))? {
            Reply::Info(info) => {
                self.channel.close();
                Ok(info)
            }
            _ => Err(unexpected(&self.channel.site)),
        }
    }
}

struct RemoteReader {
    channel: Channel,
    info: ShareInfo,
    /// Stripes on the way: `next` is the first of them.
    asked: std::ops::Range<u64>,
    next: u64,
    /// Whether those on the way were checked by the holder.
    check: bool,
}

impl RemoteReader {
    fn ask_ahead(&mut self) -> Result<(), Error> {
        while self.asked.end < self.info.stripes && self.asked.end - self.next < 2 * WINDOW {
            let count = WINDOW.min(self.info.stripes - self.asked.end);
            let start = self.asked.end;
            self.channel.tell(&Request::Read { start, count, check: self.check })?;
            self.asked.end += count;
        }
        Ok(())
    }

    fn receive_next(&mut self) -> Result<Chunk, Error> {
        let number = self.next;
        let (kind, mut payload) = self.channel.receive()?;
        self.next += 1;
        match kind {
            kind::STRIPE if payload.len() == self.info.stripe_bytes as usize => {
                payload.set_seq(number);
                Ok(payload)
            }
            kind::DAMAGED => Err(parse_reply(&payload, &self.channel.site, Some(&self.info.id))
                .err()
                .unwrap_or_else(|| unexpected(&self.channel.site))),
            _ => Err(unexpected(&self.channel.site)),
        }
    }
}

impl ShareReader for RemoteReader {
    fn info(&self) -> &ShareInfo {
        &self.info
    }

    fn read(&mut self, number: u64) -> Result<Chunk, Error> {
        self.stripe(number, true)
    }

    fn read_unchecked(&mut self, number: u64) -> Result<Chunk, Error> {
        self.stripe(number, false)
    }
}

impl RemoteReader {
    fn stripe(&mut self, number: u64, check: bool) -> Result<Chunk, Error> {
        if number >= self.info.stripes {
            return Err(Error::Corrupt { id: self.info.id.clone(), stripe: number });
        }
        let turned = self.check != check;
        self.check = check;
        // Out of order, or of the other kind: what is on the way comes first.
        while (self.next != number || turned) && self.next < self.asked.end {
            match self.receive_next() {
                Ok(_) | Err(Error::Corrupt { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        if self.next != number {
            self.next = number;
            self.asked = number..number;
        }
        self.ask_ahead()?;
        self.receive_next()
    }
}

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
            Request::Verify { share } => super::verify(self.store, &share).map(Reply::Corrupt),
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
            connection.expect_to_send(info.stripes.saturating_sub(start), info.stripe_bytes.into());
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

/// The digest as text.
impl std::fmt::Display for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
