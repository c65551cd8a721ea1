//! `dsgd tunnel`: whole IP packets between two networks, with nothing of them to be seen on the way.

use std::net::Ipv4Addr;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::relay::{dialer, listener, until_told};
use super::{Context, Error, Outcome};
use crate::base::fault::with_causes;
use crate::base::{Fault, SiteId};
use crate::bench::table3::MTU_HIDDEN;
use crate::net::flow::duplex::{self, Incoming, Outgoing, Switchboard};
use crate::net::flow::{Carrier, offered, refuse};
use crate::net::tun::Tun;
use crate::net::{self, tunnel};
use crate::otp::packet::{Headers, Shape};

/// The number of the flows of tunnels.
const FLOW: u16 = 2;
/// What a caller says that it wants.
const PURPOSE: &str = "tunnel";

/// Which end of a tunnel.
#[derive(Subcommand)]
pub enum Command {
    /// Call the peer and carry packets until told to stop
    Call(CallArguments),
    /// Wait for a peer's call
    Listen(ListenArguments),
}

/// Arguments of both ends.
#[derive(Args)]
pub struct Ends {
    /// The site at the other end
    peer: SiteId,
    /// Where it listens, or this one, if that is not in the configuration
    #[arg(long, value_name = "HOST:PORT")]
    address: Option<String>,
    /// Name of the network device to make
    #[arg(long, default_value = "dsgd0")]
    device: String,
    /// This end's address inside the tunnel, with the length of its network's prefix
    #[arg(long, value_name = "IP/BITS")]
    inner: Inner,
    /// Send a packet at least so often, whether there is something to carry or not; costs key
    #[arg(long, value_name = "MILLISECONDS")]
    cover: Option<u64>,
}

/// Arguments of `dsgd tunnel call`.
#[derive(Args)]
pub struct CallArguments {
    #[command(flatten)]
    ends: Ends,
    /// Largest datagram on the way
    #[arg(long, default_value_t = MTU_HIDDEN)]
    mtu: usize,
}

/// Arguments of `dsgd tunnel listen`.
#[derive(Args)]
pub struct ListenArguments {
    #[command(flatten)]
    ends: Ends,
}

/// An address and the length of its network's prefix.
#[derive(Clone)]
struct Inner(Ipv4Addr, u8);

impl FromStr for Inner {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (address, prefix) = text.split_once('/').ok_or("there is no '/' in it")?;
        let prefix = prefix.parse().ok().filter(|bits| *bits <= 32);
        match (address.parse(), prefix) {
            (Ok(address), Some(prefix)) => Ok(Self(address, prefix)),
            _ => Err(format!("'{text}' is not an IPv4 address with a prefix, such as 10.9.0.1/30")),
        }
    }
}

/// Runs `dsgd tunnel`.
pub fn run(context: &Context, command: &Command) -> Outcome {
    match command {
        Command::Call(arguments) => call(context, arguments),
        Command::Listen(arguments) => listen(context, arguments),
    }
}

fn call(context: &Context, arguments: &CallArguments) -> Outcome {
    let (site, ends) = (context.site()?, &arguments.ends);
    let (dialer, settings) = dialer(&site, &ends.peer, ends.address.as_deref())?;
    let shape = Shape::within(arguments.mtu, Headers::Hidden, settings.cipher, FLOW)
        .ok_or_else(|| Error::Usage("there is no room for payload in such datagrams".into()))?;
    // The device first: whoever may not make one shall not spend key.
    let device = open(ends, &shape)?;
    let flow = duplex::call(&dialer, site.keys(), &settings, PURPOSE, shape)?;
    let stop = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&stop);
    thread::spawn(move || until_told(|| told.store(true, Ordering::SeqCst)));
    carry(&|text| context.say(text), ends, &device, flow, &stop)
}

fn listen(context: &Context, arguments: &ListenArguments) -> Outcome {
    let (site, ends) = (context.site()?, &arguments.ends);
    let (listener, settings) = listener(&site, ends.address.as_deref())?;
    let local = listener.local_address();
    let report = serde_json::json!({"site": site.settings().site, "address": local});
    context.out.result("tunnel listen", &report, || format!("waits at {local}\n"));
    let stop = Arc::new(AtomicBool::new(false));
    let (told, closer) = (Arc::clone(&stop), listener.closer());
    thread::spawn(move || {
        until_told(|| {
            told.store(true, Ordering::SeqCst);
            closer.close();
        })
    });
    let (switchboard, notices) = (Switchboard::default(), context.notices());
    thread::scope(|scope| {
        loop {
            let incoming = match listener.accept() {
                Ok(incoming) => incoming,
                Err(net::Error::ListenerClosed { .. }) => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            let (site, settings, stop) = (&site, &settings, &stop);
            let (switchboard, notices) = (&switchboard, &notices);
            scope.spawn(move || {
                let attend = || -> Outcome {
                    let mut connection = incoming.handshake(site.keys(), settings)?;
                    let offer = offered(&mut connection)?;
                    let fits = connection.peer() == &ends.peer
                        && offer.purpose == PURPOSE
                        && offer.carrier == Carrier::Udp
                        && offer.shape.headers == Headers::Hidden
                        && settings.permits(offer.shape.cipher);
                    if !fits {
                        return Ok(refuse(&mut connection, "there is no such tunnel here")?);
                    }
                    let ip = local.ip();
                    // The device first, so that the caller hears when there is none.
                    let device = match offer.token {
                        Some(_) => None,
                        None => Some(open(ends, &offer.shape)),
                    };
                    let device = match device.transpose() {
                        Ok(device) => device,
                        Err(error) => {
                            refuse(&mut connection, "its tunnel's device cannot be made")?;
                            return Err(error.into());
                        }
                    };
                    let flow = switchboard.answer(connection, &offer, ip, site.keys(), settings)?;
                    match (flow, device) {
                        (Some(flow), Some(device)) => {
                            carry(&|text| notices.add(text), ends, &device, flow, stop)
                        }
                        _ => Ok(()),
                    }
                };
                if let Err(error) = attend() {
                    notices.add(with_causes(&*error));
                }
            });
        }
    })
}

fn open(ends: &Ends, shape: &Shape) -> Result<Tun, Error> {
    let Inner(address, prefix) = ends.inner;
    Tun::open(&ends.device, (address, prefix), shape.unit_bytes.into()).map_err(|error| {
        Error::Check { what: format!("device {}: {error}", ends.device), fault: Fault::System }
    })
}

fn carry(
    say: &dyn Fn(&str),
    ends: &Ends,
    device: &Tun,
    flow: (Outgoing, Incoming),
    stop: &AtomicBool,
) -> Outcome {
    say(&format!(
        "tunnel to {} by device {}, inner packets of at most {} bytes",
        ends.peer,
        device.name(),
        device.mtu()
    ));
    let cover = ends.cover.map(|pause| Duration::from_millis(pause.max(1)));
    let carried = tunnel::run(device, flow, cover, stop)?;
    say(&format!(
        "{} inner packets in {} datagrams, {} arrived, {} dropped here, {} bytes of key",
        carried.inner_packets,
        carried.out.sent.packets,
        carried.out.delivered.packets,
        carried.dropped,
        carried.out.sent.key_bytes
    ));
    Ok(())
}
