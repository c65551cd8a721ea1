//! The two processes between which Table 3 is measured.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::clock::Stopwatch;
use crate::base::{BitRate, ByteCount, Clock, SiteId};
use crate::bench::local_sites::cpu_seconds;
use crate::key::{self, KeyStore, LinkSettings, SimulatedLink};
use crate::net::flow::{
    self, Accepted, Carrier, Claimer, DatagramReceiver, DatagramSender, Destination, Granter,
    Offer, RecordReceiver, RecordSender, Tally,
};
use crate::net::udp::{Inbox, Udp};
use crate::net::{self, Listener, Settings, dial};
use crate::otp::Cipher;
use crate::otp::packet::{Kind, Shape};

/// What one process does in one run.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Task {
    /// Which of the two.
    pub end: End,
    /// Folder with the link and the two sites' records.
    pub folder: PathBuf,
    /// Where the receiver listens, and the sender calls.
    pub address: SocketAddr,
    /// What carries the packets.
    pub carrier: Carrier,
    /// Their form.
    pub shape: Shape,
    /// TCP connections.
    pub streams: u16,
    /// How long to send.
    pub seconds: f64,
    /// Payload to offer a second, UDP; as much as there is room for, if not given.
    pub rate: Option<BitRate>,
    /// UDP payload that may be on its way, if no rate is given.
    pub window: ByteCount,
    /// Most key in one block.
    pub block: ByteCount,
}

/// Which process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    /// The one that sends.
    Sender,
    /// The one that counts.
    Receiver,
}

/// What a process found.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Found {
    /// As both ends counted.
    pub tally: Tally,
    /// From the first packet to the last, at the receiver; or the sending.
    pub seconds: f64,
    /// Of the whole process, from the agreement on.
    pub cpu_seconds: f64,
}

/// Why an end could not do its part.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The transport.
    #[error(transparent)]
    Net(#[from] net::Error),
    /// The keys.
    #[error(transparent)]
    Key(#[from] key::Error),
    /// The system.
    #[error("{what}")]
    System {
        /// What was tried.
        what: String,
        /// What the system said.
        source: std::io::Error,
    },
}

const SENDER: &str = "one";
const RECEIVER: &str = "two";
/// Enough for anything that is measured here.
const STOCK: ByteCount = ByteCount(8_000_000_000_000_000);
/// How long a receiver waits for what is still on its way.
const REST: Duration = Duration::from_millis(100);

fn site(name: &str) -> SiteId {
    name.parse().expect("a plain name")
}

/// Makes the link between the two ends in `folder`.
pub fn make_link(folder: &Path) -> Result<(), key::Error> {
    let sites = [site(SENDER), site(RECEIVER)];
    SimulatedLink::create(&folder.join("link.json"), sites, BitRate(0), STOCK, &Clock::system())
}

/// The key store of one end in `folder`.
pub fn keys(folder: &Path, end: End) -> Result<KeyStore, key::Error> {
    let (own, peer) = match end {
        End::Sender => (SENDER, RECEIVER),
        End::Receiver => (RECEIVER, SENDER),
    };
    let links = [LinkSettings::simulated(site(peer), &folder.join("link.json"))];
    KeyStore::open(site(own), &folder.join(own), &links, Clock::system())
}

fn settings() -> Settings {
    // The control connection is always under the pad; the shape says what the packets are under.
    Settings { cipher: Cipher::Otp, key_wait: Duration::from_secs(10), ..Settings::default() }
}

/// Waits for one flow and counts it. `listening` is told the port.
pub fn receive(task: &Task, listening: impl FnOnce(SocketAddr)) -> Result<Found, Error> {
    let keys = keys(&task.folder, End::Receiver)?;
    let listener = Listener::bind(&task.address.to_string())?;
    listening(listener.local_address());
    let mut control = listener.accept()?.handshake(&keys, &settings())?;
    let offer = flow::offered(&mut control)?;
    let data = SocketAddr::new(task.address.ip(), 0);
    let follow = Box::new(keys.follower(&site(SENDER))?);
    let before = cpu_seconds(std::process::id());
    let (tally, seconds) = match offer.carrier {
        Carrier::Udp => {
            let socket = Udp::bind(data)?;
            let port = socket.local_address().port();
            let buffer_bytes = socket.receive_buffer_bytes() as u64;
            flow::accept(&mut control, Accepted { port, token: 0, buffer_bytes })?;
            let claimer = Claimer::start(control, follow, offer.shape)?;
            receive_datagrams(socket, offer.shape, claimer)?
        }
        Carrier::Tcp => {
            let what = "listening for the data";
            let failed = |source| Error::System { what: what.into(), source };
            let listener = TcpListener::bind(data).map_err(failed)?;
            let port = listener.local_addr().map_err(failed)?.port();
            flow::accept(&mut control, Accepted { port, token: 0, buffer_bytes: 0 })?;
            let claimer = Claimer::start(control, follow, offer.shape)?;
            receive_records(&listener, &offer, claimer)?
        }
    };
    Ok(Found { tally, seconds, cpu_seconds: cpu_seconds(std::process::id()) - before })
}

fn receive_datagrams(socket: Udp, shape: Shape, claimer: Claimer) -> Result<(Tally, f64), Error> {
    let (socket, sender) = (Arc::new(socket), Destination::default());
    let mut receiver =
        DatagramReceiver::new(Arc::clone(&socket), sender.clone(), shape, claimer.blocks());
    let (mut watch, mut seconds) = (None, 0.0);
    let mut finished = None;
    loop {
        if receiver.receive(REST, |_, _| {})? {
            seconds = watch.get_or_insert_with(Stopwatch::start).elapsed().as_secs_f64();
            if let Some(sender) = sender.address() {
                // How far it has come, so that the sender may keep so much on its way and no more.
                socket.send(sender, &receiver.arrived().to_le_bytes(), 8)?;
            }
        } else if finished.is_some() {
            break;
        }
        finished = finished.or_else(|| claimer.finished());
    }
    let mut tally = Tally::default();
    tally.add_delivered(receiver.opener().traffic(), receiver.opener().refusals());
    claimer.finish(tally)?;
    Ok((tally, seconds))
}

fn receive_records(
    listener: &TcpListener,
    offer: &Offer,
    claimer: Claimer,
) -> Result<(Tally, f64), Error> {
    let patience = Duration::from_secs(10);
    let blocks = claimer.blocks();
    let receivers = RecordReceiver::accept(listener, offer.streams, offer.shape, blocks, patience)?;
    let watch = Stopwatch::start();
    let ends: Vec<Result<RecordReceiver, net::Error>> = thread::scope(|scope| {
        let run = |mut receiver: RecordReceiver| {
            while receiver.receive(|_, _| {})? {}
            Ok(receiver)
        };
        let threads: Vec<_> =
            receivers.into_iter().map(|receiver| scope.spawn(move || run(receiver))).collect();
        let join = |thread: thread::ScopedJoinHandle<'_, _>| {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        threads.into_iter().map(join).collect()
    });
    let seconds = watch.elapsed().as_secs_f64();
    let mut tally = Tally::default();
    for receiver in ends {
        let receiver = receiver?;
        tally.add_delivered(receiver.opener().traffic(), receiver.opener().refusals());
    }
    claimer.finish(tally)?;
    Ok((tally, seconds))
}

/// Sends for the time that the task says.
pub fn send(task: &Task) -> Result<Found, Error> {
    let keys = keys(&task.folder, End::Sender)?;
    let mut control = dial(&task.address.to_string(), &site(RECEIVER), &keys, &settings())?;
    let offer = Offer {
        purpose: "table3".into(),
        carrier: task.carrier,
        shape: task.shape,
        streams: task.streams,
        token: None,
    };
    let accepted = flow::request(&mut control, &offer)?;
    let address = SocketAddr::new(task.address.ip(), accepted.port);
    let spend = Box::new(keys.sender(&site(RECEIVER))?);
    let before = cpu_seconds(std::process::id());
    let granter = Granter::with_blocks_of(task.block.0, control, spend, task.shape, settings())?;
    let watch = Stopwatch::start();
    let sent = match task.carrier {
        Carrier::Udp => send_datagrams(task, address, accepted.buffer_bytes, &granter)?,
        Carrier::Tcp => send_records(task, address, &granter)?,
    };
    let seconds = watch.elapsed().as_secs_f64();
    let tally = granter.finish(sent)?;
    Ok(Found { tally, seconds, cpu_seconds: cpu_seconds(std::process::id()) - before })
}

/// Payload to send again and again: 1 MiB that is not zeros.
fn source() -> Vec<u8> {
    (0u32..1 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

/// The next piece of the source.
fn piece(source: &[u8], number: u64, bytes: usize) -> &[u8] {
    let places = (source.len() - bytes) / 64;
    let start = (number as usize * bytes.div_ceil(64) % places.max(1)) * 64;
    &source[start..start + bytes]
}

fn send_datagrams(
    task: &Task,
    address: SocketAddr,
    buffer_bytes: u64,
    granter: &Granter,
) -> Result<Tally, Error> {
    let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = Arc::new(Udp::bind(any.parse().expect("a plain address"))?);
    let destination = Destination::known(address);
    let shape = task.shape;
    let mut sender = DatagramSender::new(Arc::clone(&socket), destination, shape, granter.blocks());
    let (unit, source) = (usize::from(shape.unit_bytes), source());
    // The kernel's bookkeeping may take as much as the payload itself.
    let window = task.window.0.min(buffer_bytes / 3) / shape.packet_bytes_max() as u64;
    let mut pace = Pace { window: window.max(1), lost: 0, arrived: 0, inbox: Inbox::new() };
    let watch = Stopwatch::start();
    let mut number = 0;
    while watch.elapsed().as_secs_f64() < task.seconds {
        for _ in 0..socket.batch(shape.packet_bytes_max()) {
            let key_wait = Duration::from_secs(10);
            sender.put((Kind::Data, 0), unit, key_wait, |place| {
                place.copy_from_slice(piece(&source, number, unit));
            })?;
            number += 1;
        }
        match task.rate {
            Some(rate) => {
                let due = number as f64 * unit as f64 * 8.0 / rate.0.max(1) as f64;
                let early = due - watch.elapsed().as_secs_f64();
                if early > 0.0 {
                    Clock::system().sleep(Duration::from_secs_f64(early));
                }
            }
            None => pace.wait(&socket, number)?,
        }
    }
    sender.flush()?;
    Ok(Tally { sent: sender.traffic().into(), ..Tally::default() })
}

/// Keeps a bounded number of packets on their way, by what the receiver says has arrived.
struct Pace {
    window: u64,
    arrived: u64,
    /// Packets that never arrived, as far as can be told.
    lost: u64,
    inbox: Inbox,
}

impl Pace {
    fn wait(&mut self, socket: &Udp, sent: u64) -> Result<(), Error> {
        let mut patience = Duration::ZERO;
        loop {
            let Self { arrived, inbox, .. } = self;
            let any = socket.receive(inbox, patience)?;
            inbox.each(|_, datagram| {
                if let Ok(count) = datagram.try_into() {
                    *arrived = (*arrived).max(u64::from_le_bytes(count));
                }
            });
            let under_way = sent.saturating_sub(self.arrived + self.lost);
            if under_way < self.window {
                return Ok(());
            }
            if !any && !patience.is_zero() {
                self.lost += under_way;
                return Ok(());
            }
            patience = Duration::from_millis(20);
        }
    }
}

fn send_records(task: &Task, address: SocketAddr, granter: &Granter) -> Result<Tally, Error> {
    let shape = task.shape;
    let senders = RecordSender::connect(address, task.streams, shape, &granter.blocks())?;
    let (unit, source) = (usize::from(shape.unit_bytes), source());
    let watch = Stopwatch::start();
    let run = |mut sender: RecordSender| {
        let mut number = 0;
        while watch.elapsed().as_secs_f64() < task.seconds {
            sender.put((Kind::Data, 0), unit, Duration::from_secs(10), |place| {
                place.copy_from_slice(piece(&source, number, unit));
            })?;
            number += 1;
        }
        Ok(sender.finish())
    };
    let ends: Vec<Result<_, net::Error>> = thread::scope(|scope| {
        let threads: Vec<_> =
            senders.into_iter().map(|sender| scope.spawn(|| run(sender))).collect();
        let join = |thread: thread::ScopedJoinHandle<'_, _>| {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        threads.into_iter().map(join).collect()
    });
    let mut tally = Tally::default();
    for traffic in ends {
        tally.sent += traffic?.into();
    }
    // Of the covers that opened the connections nothing is delivered.
    Ok(tally)
}

impl crate::base::Faulty for Error {
    fn fault(&self) -> crate::base::Fault {
        match self {
            Error::Net(error) => error.fault(),
            Error::Key(error) => error.fault(),
            Error::System { .. } => crate::base::Fault::System,
        }
    }
}
