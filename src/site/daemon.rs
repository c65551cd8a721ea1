//! A site's daemon: takes connections, asks whether the peer may, and hands the request on.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crossbeam::channel::bounded;

use super::request::{Reply, Request};
use super::settings::{Peer, Permission};
use super::{Error, Site};
use crate::base::Fault;
use crate::base::fault::with_causes;
use crate::flow::Meters;
use crate::net::{self, Connection, Incoming, Listener};
use crate::store::remote::{Failure, kind};

/// Connections served at once; further ones are closed.
const CONNECTIONS_MAX: usize = 256;

/// How often a peer that waits is told how the work goes.
const REPORT_EVERY: Duration = Duration::from_secs(2);

/// The roles of the paper's service layer, and what each does for its peers.
pub const ROLES: &[(&str, &[Permission])] = &[
    ("holder", &[Permission::Store]),
    ("trusted", &[Permission::Analyse]),
    ("user", &[Permission::Deliver]),
];

/// Serves `permitted` to the peers until the listener is closed; waits for what is under way.
pub fn serve(site: &Arc<Site>, listener: &Listener, permitted: &[Permission]) -> Result<(), Error> {
    let open = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        loop {
            let incoming = match listener.accept() {
                Ok(incoming) => incoming,
                Err(net::Error::ListenerClosed { .. }) => return Ok(()),
                Err(error) => {
                    site.notices().add(format!("a connection could not be taken: {error}"));
                    continue;
                }
            };
            if open.fetch_add(1, Ordering::SeqCst) >= CONNECTIONS_MAX {
                open.fetch_sub(1, Ordering::SeqCst);
                continue;
            }
            let open = &open;
            scope.spawn(move || {
                if let Err(error) = attend(site, incoming, permitted) {
                    site.notices().add(with_causes(&error));
                }
                open.fetch_sub(1, Ordering::SeqCst);
            });
        }
    })
}

fn attend(site: &Site, incoming: Incoming, permitted: &[Permission]) -> Result<(), Error> {
    let mut connection = incoming.handshake(site.keys(), &site.net_settings())?;
    while let Some(message) = connection.receive()? {
        let peer = connection.peer().clone();
        if message.kind != kind::REQUEST {
            return Err(Error::Protocol { peer });
        }
        let answered = parse(&message.payload, &connection)
            .and_then(|request| permit(site, request, &connection, permitted))
            .and_then(|(request, entry)| answer(site, &mut connection, request, entry));
        match answered {
            Ok(None) => {}
            Ok(Some(reply)) => send(&mut connection, &reply)?,
            Err(Error::Net(error)) => return Err(error.into()),
            Err(error) => {
                site.notices().add(format!("{peer}: {}", with_causes(&error)));
                send(&mut connection, &Reply::Failed(Failure::of(&error)))?;
            }
        }
    }
    Ok(())
}

fn parse(payload: &[u8], connection: &Connection) -> Result<Request, Error> {
    serde_json::from_slice(payload).map_err(|_| Error::Protocol { peer: connection.peer().clone() })
}

/// Whether this role does such things, and this peer may ask for them. Nothing is permitted that is
/// not written down.
fn permit<'s>(
    site: &'s Site,
    request: Request,
    connection: &Connection,
    permitted: &[Permission],
) -> Result<(Request, &'s Peer), Error> {
    let peer = connection.peer();
    let wanted = request.permission();
    let entry = site.settings().peer.iter().find(|entry| entry.site == *peer);
    match entry {
        Some(entry) if permitted.contains(&wanted) && entry.may.contains(&wanted) => {
            Ok((request, entry))
        }
        _ => Err(Error::Peer {
            peer: site.settings().site.clone(),
            source: Failure {
                message: format!("'{peer}' may not ask for this here"),
                code: Fault::Refused.exit_code(),
                hint: Some(format!("the configuration of '{}' says who may", site.settings().site)),
                what: None,
            },
        }),
    }
}

fn answer(
    site: &Site,
    connection: &mut Connection,
    request: Request,
    entry: &Peer,
) -> Result<Option<Reply>, Error> {
    match request {
        Request::Store(first) => {
            let tenant = entry.tenant.as_ref().unwrap_or(&entry.site);
            let peer = connection.peer().clone();
            let next = |payload: &[u8]| match serde_json::from_slice(payload) {
                Ok(Request::Store(request)) => Ok(request),
                _ => Err(Error::Protocol { peer: peer.clone() }),
            };
            site.hold(connection, tenant, first, next)?;
            Ok(None)
        }
        Request::Analyse(request) => {
            let report =
                reporting(connection, |meters| site.for_one_request().analyse(&request, meters))?;
            Ok(Some(Reply::Analysed(Box::new(report))))
        }
        Request::Deliver(request) => {
            let report =
                reporting(connection, |meters| site.for_one_request().deliver(&request, meters))?;
            Ok(Some(Reply::Delivered(Box::new(report))))
        }
        Request::Receive(delivery) => {
            let from = connection.peer().clone();
            site.receive(connection, &from, &delivery).map(Some)
        }
    }
}

/// Does `work` on a thread of its own and tells the peer how it goes meanwhile.
fn reporting<T: Send>(
    connection: &mut Connection,
    work: impl FnOnce(&Meters) -> Result<T, Error> + Send,
) -> Result<T, Error> {
    let meters = Meters::default();
    let (done, finished) = bounded(1);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // The receiver lives until it has an answer.
            let _ = done.send(work(&meters));
        });
        let mut listening = Ok(());
        loop {
            match finished.recv_timeout(REPORT_EVERY) {
                Ok(outcome) => return listening.map_err(Error::Net).and(outcome),
                Err(_) if listening.is_ok() => {
                    listening = send(connection, &Reply::Progress(meters.snapshot()));
                }
                // The peer is gone; the work is finished all the same.
                Err(_) => {}
            }
        }
    })
}

fn send(connection: &mut Connection, reply: &Reply) -> Result<(), net::Error> {
    connection.send(kind::REPLY, &serde_json::to_vec(reply).expect("replies are plain data"))
}
