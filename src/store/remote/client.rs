//! The client's side of a remote store.

use serde::Serialize;

use super::{Failure, Reply, Request, WINDOW, kind};
use crate::base::{Chunk, Fault, Faulty, ShareId, SiteId};
use crate::net::{Connection, Dialer};
use crate::store::{Error, ShareInfo, ShareReader, ShareStore, ShareWriter};

/// A request to a site, as far as stores are concerned (the site's own enum has the same form).
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
enum Envelope<'a> {
    Store(&'a Request),
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
        if stripe.seq() != self.stripes || stripe.len() != self.stripe_bytes as usize {
            let (next, bytes) = (self.stripes, self.stripe_bytes);
            let what = format!("stripe {next} of {bytes} bytes comes next, not this one");
            return Err(Error::Misfit { id: self.id.clone(), what });
        }
        self.stripes += 1;
        self.channel.send(kind::STRIPE, stripe)
    }

    fn append_key(&mut self, bytes: usize) -> Option<Result<Chunk, Error>> {
        self.stripes += 1;
        let drawn = self.channel.connection.send_keyed(kind::KEYED_STRIPE, bytes);
        Some(drawn.map_err(|error| broken(&self.channel.site, error)))
    }

    fn expect(&mut self, stripes: u64) -> Result<(), Error> {
        let expected = self.channel.connection.expect_to_send(stripes, self.stripe_bytes.into());
        expected.map_err(|error| broken(&self.channel.site, error))
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
            let what = format!("stripe {number} was asked for, it has {}", self.info.stripes);
            return Err(Error::Misfit { id: self.info.id.clone(), what });
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
