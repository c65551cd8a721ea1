//! `dsgd relay`: an application's own connections and datagrams, under the pad.

use std::net::{SocketAddr, TcpListener};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use clap::{Args, Subcommand};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::{Context, Error, Outcome};
use crate::base::fault::with_causes;
use crate::base::{Fault, Faulty, SiteId};
use crate::bench::table3::MTU_CLEAR;
use crate::net::relay::{IDLE, Relays, Target, call_datagrams, call_streams};
use crate::net::udp::Udp;
use crate::net::{self, Cipher, Dialer, Listener, flow::Carrier};
use crate::otp::packet::{Headers, Shape};
use crate::site::Site;

/// The number of the flows of relays.
const FLOW: u16 = 1;

/// Which end of relays.
#[derive(Subcommand)]
pub enum Command {
    /// Carry connections and datagrams that come to ports of this machine to the peer's side
    Call(CallArguments),
    /// Take relays of the peers and connect them to what is permitted
    Listen(ListenArguments),
}

/// Arguments of `dsgd relay call`.
#[derive(Args)]
pub struct CallArguments {
    /// The site at the other end, where 'dsgd relay listen' runs
    peer: SiteId,
    /// Its relay's address, if it is not that of the configuration
    #[arg(long, value_name = "HOST:PORT")]
    address: Option<String>,
    /// What to carry: a port here, and what it stands for beside the peer
    #[arg(required = true, value_name = "HOST:PORT=tcp:HOST:PORT")]
    relays: Vec<Relay>,
    /// Largest datagram on the way
    #[arg(long, default_value_t = MTU_CLEAR)]
    mtu: usize,
}

/// Arguments of `dsgd relay listen`.
#[derive(Args)]
pub struct ListenArguments {
    /// Where to listen, if not where the configuration says
    #[arg(long, value_name = "HOST:PORT")]
    address: Option<String>,
    /// What a peer may reach through this site; may be given more than once
    #[arg(long, required = true, value_name = "PEER=tcp:HOST:PORT")]
    permit: Vec<Permit>,
}

/// A port and what it stands for.
#[derive(Clone)]
struct Relay {
    local: SocketAddr,
    target: Target,
}

impl FromStr for Relay {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (local, target) = text.split_once('=').ok_or("there is no '=' in it")?;
        let local = local.parse().map_err(|_| format!("'{local}' is not IP:PORT"))?;
        Ok(Self { local, target: target.parse()? })
    }
}

/// A peer and what it may reach.
#[derive(Clone)]
struct Permit {
    peer: SiteId,
    target: Target,
}

impl FromStr for Permit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (peer, target) = text.split_once('=').ok_or("there is no '=' in it")?;
        let peer = peer.parse().map_err(|_| format!("'{peer}' is no site's name"))?;
        Ok(Self { peer, target: target.parse()? })
    }
}

/// Runs `dsgd relay`.
pub fn run(context: &Context, command: &Command) -> Outcome {
    match command {
        Command::Call(arguments) => call(context, arguments),
        Command::Listen(arguments) => listen(context, arguments),
    }
}

fn call(context: &Context, arguments: &CallArguments) -> Outcome {
    let site = context.site()?;
    let (dialer, settings) = dialer(&site, &arguments.peer, arguments.address.as_deref())?;
    let shape = Shape::within(arguments.mtu, Headers::Clear, settings.cipher, FLOW)
        .ok_or_else(|| Error::Usage("there is no room for payload in such datagrams".into()))?;
    let (mut streams, mut datagrams, mut relays) = (Vec::new(), Vec::new(), Vec::new());
    for Relay { local, target } in &arguments.relays {
        let failed = |source| net::Error::Listen { address: local.to_string(), source };
        let local = match target.carrier {
            Carrier::Tcp => {
                let listener = TcpListener::bind(local).map_err(failed)?;
                let local = listener.local_addr().map_err(failed)?;
                streams.push((listener, target.clone()));
                local
            }
            Carrier::Udp => {
                let socket = Udp::bind(*local)?;
                let local = socket.local_address();
                datagrams.push((socket, target));
                local
            }
        };
        relays.push((local, target.to_string()));
    }
    let report = serde_json::json!({
        "peer": arguments.peer,
        "cipher": settings.cipher,
        "security": settings.cipher.security(),
        "relays": relays,
    });
    context.out.result("relay call", &report, || {
        relays.iter().map(|(local, target)| format!("{local} -> {target}\n")).collect()
    });
    for (listener, target) in streams {
        let (dialer, notices) = (dialer.clone(), context.notices());
        // Ends with the process.
        thread::spawn(move || {
            let report = |error: net::Error| notices.add(with_causes(&error));
            if let Err(error) = call_streams(&listener, &dialer, &target, &report) {
                report(error);
            }
        });
    }
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let carry = |(socket, target)| {
            let (dialer, stop, keys) = (&dialer, &stop, (site.keys(), &settings));
            scope.spawn(move || call_datagrams(socket, dialer, keys, target, shape, stop))
        };
        let carried: Vec<_> =
            datagrams.iter().map(|(socket, target)| carry((socket, *target))).collect();
        until_told(|| stop.store(true, Ordering::SeqCst))?;
        for relay in carried {
            let relayed = relay.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            let (out, dropped) = (relayed.out, relayed.dropped);
            context.say(&format!(
                "{} datagrams sent, {} arrived, {dropped} dropped here, {} bytes of key",
                out.sent.packets, out.delivered.packets, out.sent.key_bytes
            ));
        }
        Ok(())
    })
}

/// How to call `peer` for something that may stand still for long.
///
/// Errors: without an address; at a site that is set to plain frames, which nothing but benchmarks
/// may carry.
pub(super) fn dialer(
    site: &Site,
    peer: &SiteId,
    address: Option<&str>,
) -> Result<(Dialer, net::Settings), Box<dyn Faulty>> {
    let settings = net::Settings { idle: IDLE, ..site.net_settings() };
    refuse_plain(&settings)?;
    let entry = site.settings().peer.iter().find(|entry| entry.site == *peer);
    let address = address.map(str::to_owned).or_else(|| entry?.address.clone());
    let address = address.ok_or_else(|| Error::Check {
        what: format!("neither --address nor the configuration says where '{peer}' is"),
        fault: Fault::Config,
    })?;
    let (keys, traffic) = (site.keys().clone(), net::Traffic::default());
    Ok((Dialer::new(address, peer.clone(), keys, settings.clone(), traffic), settings))
}

fn refuse_plain(settings: &net::Settings) -> Result<(), Error> {
    if settings.cipher != Cipher::Plain {
        return Ok(());
    }
    let what =
        "this site is set to plain frames ('net.cipher'), which carry nothing but benchmarks";
    Err(Error::Check { what: what.into(), fault: Fault::Config })
}

/// Where this site listens, and with which settings.
pub(super) fn listener(
    site: &Site,
    address: Option<&str>,
) -> Result<(Listener, net::Settings), Box<dyn Faulty>> {
    let settings = net::Settings { idle: IDLE, ..site.net_settings() };
    refuse_plain(&settings)?;
    let address = address.or(site.settings().listen.as_deref()).ok_or_else(|| Error::Check {
        what: "neither --address nor the configuration says where to listen".into(),
        fault: Fault::Config,
    })?;
    Ok((Listener::bind(address)?, settings))
}

/// Waits for the signal to end, then acts.
pub(super) fn until_told(act: impl FnOnce()) -> Result<(), Error> {
    let signals = Signals::new([SIGTERM, SIGINT]);
    let mut signals = signals.map_err(|source| Error::File { path: "signals".into(), source })?;
    signals.forever().next();
    act();
    Ok(())
}

fn listen(context: &Context, arguments: &ListenArguments) -> Outcome {
    let site = context.site()?;
    let (listener, settings) = listener(&site, arguments.address.as_deref())?;
    let local = listener.local_address();
    let permitted =
        arguments.permit.iter().map(|permit| (permit.peer.clone(), permit.target.clone()));
    let report = serde_json::json!({
        "site": site.settings().site,
        "address": local,
        "cipher": settings.cipher,
        "security": settings.cipher.security(),
    });
    let relays = Relays::new(site.keys().clone(), settings, permitted.collect());
    context.out.result("relay listen", &report, || format!("relays for its peers at {local}\n"));
    let (closer, notices) = (listener.closer(), context.notices());
    thread::spawn(move || until_told(move || closer.close()));
    loop {
        let incoming = match listener.accept() {
            Ok(incoming) => incoming,
            Err(net::Error::ListenerClosed { .. }) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let (relays, notices) = (Arc::clone(&relays), notices.clone());
        thread::spawn(move || {
            if let Err(error) = relays.attend(incoming, local) {
                notices.add(with_causes(&error));
            }
        });
    }
}
