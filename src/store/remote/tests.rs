//! The suite over a store behind a real connection on loopback, with a simulated link.

use std::sync::Arc;
use std::thread::JoinHandle;

use super::{RemoteStore, Request, Service, kind};
use crate::base::{BitRate, ByteCount, Clock, ShareId, SiteId};
use crate::io::DiskKind;
use crate::key::{KeyStore, LinkSettings, SimulatedLink};
use crate::net::{Closer, Connection, Dialer, Listener, Settings, Traffic};
use crate::store::conformance::{self, Bench, STRIPE_BYTES};
use crate::store::{DirStore, ShareStore};

/// A holder on a thread of its own, and what its peer needs to reach it.
struct Holder {
    folder: tempfile::TempDir,
    keys: KeyStore,
    address: String,
    closer: Closer,
    daemon: Option<JoinHandle<()>>,
}

fn site(name: &str) -> SiteId {
    name.parse().unwrap()
}

impl Holder {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("link.json");
        let sites = [site("owner"), site("holder")];
        let clock = Clock::system();
        SimulatedLink::create(&link, sites, BitRate(0), ByteCount(1 << 40), &clock).unwrap();
        let keys = |own: &str, peer: &str| {
            let settings = [LinkSettings::simulated(site(peer), &link)];
            KeyStore::open(site(own), &folder.path().join(own), &settings, Clock::system()).unwrap()
        };
        let listener = Listener::bind("127.0.0.1:0").unwrap();
        let (address, closer) = (listener.local_address().to_string(), listener.closer());
        let (theirs, ours) = (keys("holder", "owner"), keys("owner", "holder"));
        let shares = folder.path().join("shares");
        let daemon = std::thread::spawn(move || {
            let store = Arc::new(DirStore::open(&shares, DiskKind::Auto).unwrap());
            while let Ok(incoming) = listener.accept() {
                let (keys, store) = (theirs.clone(), store.clone());
                std::thread::spawn(move || {
                    // A peer that just hangs up is what a dropped writer looks like.
                    let _ = serve(incoming.handshake(&keys, &Settings::default()), &*store);
                });
            }
        });
        Self { folder, keys: ours, address, closer, daemon: Some(daemon) }
    }
}

fn serve(
    connection: Result<Connection, crate::net::Error>,
    store: &dyn ShareStore,
) -> Result<(), crate::net::Error> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "kebab-case")]
    enum Envelope {
        Store(Request),
    }
    let mut connection = connection?;
    let mut service = Service::new(store);
    while let Some(message) = connection.receive()? {
        if message.kind == kind::REQUEST {
            let Envelope::Store(request) = serde_json::from_slice(&message.payload).unwrap();
            service.answer(&mut connection, request)?;
        } else {
            service.take_stripe(&mut connection, message.payload)?;
        }
    }
    Ok(())
}

impl Bench for Holder {
    fn open(&self) -> Box<dyn ShareStore> {
        let (address, peer) = (self.address.clone(), site("holder"));
        let (settings, traffic) = (Settings::default(), Traffic::default());
        Box::new(RemoteStore::new(Dialer::new(address, peer, self.keys.clone(), settings, traffic)))
    }

    fn damage(&self, id: &ShareId, stripe: u64) {
        let share = format!("shares/{}/{}.{}/stripes", id.dataset, id.member, id.letter);
        let path = self.folder.path().join(share);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[stripe as usize * STRIPE_BYTES as usize + 77] ^= 4;
        std::fs::write(&path, bytes).unwrap();
    }

    fn room_bytes(&self) -> Option<u64> {
        None
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.closer.close();
        drop(self.daemon.take().map(JoinHandle::join));
    }
}

#[test]
fn a_store_behind_a_connection_passes_the_suite() {
    conformance::suite(&mut || Box::new(Holder::start())).unwrap();
}

#[test]
fn a_stripe_may_be_key_alone() {
    let holder = Holder::start();
    let store = holder.open();
    let id = conformance::id("g1/0/C");
    let mut writer = store.create(&id, 1, STRIPE_BYTES).unwrap();
    let drawn: Vec<_> = (0..5)
        .map(|_| writer.append_key(STRIPE_BYTES as usize).unwrap().unwrap().to_vec())
        .collect();
    writer.commit().unwrap();
    let mut reader = store.open(&id).unwrap();
    for (number, key) in drawn.iter().enumerate() {
        assert_eq!(&reader.read(number as u64).unwrap()[..], &key[..]);
    }
    assert_ne!(drawn[0], drawn[1]);
}
