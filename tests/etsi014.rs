//! Key managers as processes, and everything that applications, networks and other people's key
//! managers do to them (ETSI GS QKD 014 V1.1.1).

#![allow(clippy::unwrap_used)]

use std::collections::HashSet;
use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use base64::Engine;
use dsgd::base::{ByteCount, Clock};
use dsgd::bench::local_kmes::{LocalKmes, Plan, SITES, STRANGER};
use dsgd::etsi014::client::Endpoint;
use dsgd::etsi014::message::NamedKey;
use dsgd::etsi014::tls::Credentials;
use dsgd::etsi014::{Client, Error, KeyId, OPENAPI, SaeId, certificates};
use dsgd::key::ledger::{self, Role};
use dsgd::key::{KeyStore, LinkSettings};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, ServerConnection, StreamOwned};

const NOT_FOUND: &str = "one or more keys specified are not found on KME";

struct World {
    folder: tempfile::TempDir,
    kmes: LocalKmes,
}

impl World {
    fn start(stock: u64, settings: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let program = Path::new(env!("CARGO_BIN_EXE_dsgd"));
        let stock = ByteCount(stock);
        let plan = Plan { program, folder: folder.path(), stock, settings };
        let kmes = LocalKmes::start(&plan).unwrap();
        Self { folder, kmes }
    }

    fn client(&self, kme: usize, sae: &str) -> Client {
        Client::new(self.kmes.endpoint(kme, sae).unwrap()).unwrap()
    }

    fn tls(&self, sae: &str) -> Arc<ClientConfig> {
        credentials(&self.folder.path().join("certificates"), sae).2
    }

    /// What the key manager answers to these bytes: status and body of the first answer, and all of it.
    fn raw(&self, kme: usize, sae: &str, request: &[u8]) -> (u16, String, String) {
        let mut tls = connect(self.kmes.address(kme), self.tls(sae)).unwrap();
        // It may answer, and hang up, before it has read everything.
        let _ = tls.write_all(request).and_then(|()| tls.flush());
        let mut answer = Vec::new();
        let _ = tls.read_to_end(&mut answer);
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
        (status, body.to_owned(), answer.clone())
    }

    /// What the key manager of site a answers to `sae-a1`.
    fn ask(&self, method: &str, target: &str, body: &str) -> (u16, String) {
        let (status, body, _) = self.raw(0, "sae-a1", &request(method, target, body));
        (status, body)
    }
}

/// Paths of a certificate and its key, and TLS for a client with them.
fn credentials(folder: &Path, name: &str) -> (PathBuf, PathBuf, Arc<ClientConfig>) {
    let certificate = folder.join(format!("{name}.pem"));
    let private_key = folder.join(format!("{name}.key"));
    let authority = folder.join(certificates::AUTHORITY);
    let shown =
        Credentials { certificate: &certificate, private_key: &private_key, authority: &authority };
    let tls = shown.client().unwrap();
    (certificate, private_key, tls)
}

fn connect(
    address: &str,
    tls: Arc<ClientConfig>,
) -> std::io::Result<StreamOwned<ClientConnection, TcpStream>> {
    let name = ServerName::try_from("localhost").unwrap();
    let connection = ClientConnection::new(tls, name).unwrap();
    Ok(StreamOwned::new(connection, TcpStream::connect(address)?))
}

fn request(method: &str, target: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "{method} {target} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
         content-length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

fn sae(name: &str) -> SaeId {
    name.parse().unwrap()
}

fn ids(keys: &[NamedKey]) -> Vec<KeyId> {
    keys.iter().map(|key| key.id).collect()
}

fn same(a: &[NamedKey], b: &[NamedKey]) {
    assert_eq!(ids(a), ids(b));
    assert!(a.iter().zip(b).all(|(a, b)| a.bytes.expose() == b.bytes.expose()));
}

fn refusal<T>(result: Result<T, Error>) -> (u16, String) {
    match result {
        Err(Error::Refused { status, message, .. }) => (status, message),
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("accepted"),
    }
}

#[test]
fn keys_reach_every_slave_once_and_nobody_else() {
    let world = World::start(1 << 20, "");
    let (mut master, mut slave) = (world.client(0, "sae-a1"), world.client(1, "sae-b1"));
    let status = master.status(&sae("sae-b1")).unwrap();
    assert_eq!((&*status.source_kme_id, &*status.target_kme_id), ("kme-a", "kme-b"));
    assert_eq!((status.key_size, status.stored_key_count), (256, (1 << 19) / 32));
    let keys = master.enc_keys(&sae("sae-b1"), 5, 4096).unwrap();
    let mut other = world.client(1, "sae-b2");
    assert_eq!(refusal(other.dec_keys(&sae("sae-a1"), &ids(&keys), 4096)), (401, String::new()));
    let wrong = refusal(slave.dec_keys(&sae("sae-a2"), &ids(&keys), 4096));
    assert_eq!(wrong, (400, format!(": {NOT_FOUND}")));
    same(&keys[3..4], &slave.dec_keys(&sae("sae-a1"), &ids(&keys[3..4]), 4096).unwrap());
    let replayed = refusal(slave.dec_keys(&sae("sae-a1"), &ids(&keys), 4096));
    assert_eq!(replayed, (400, format!(": {NOT_FOUND}")), "all or none");
    let rest = [&ids(&keys[..3])[..], &ids(&keys[4..])].concat();
    assert_eq!(slave.dec_keys(&sae("sae-a1"), &rest, 4096).unwrap().len(), 4);

    // The other direction, and an application that shares with itself or with a neighbour.
    let keys = slave.enc_keys(&sae("sae-a1"), 2, 64).unwrap();
    same(&keys, &master.dec_keys(&sae("sae-b1"), &ids(&keys), 64).unwrap());
    for (name, mut neighbour) in
        [("sae-a1", world.client(0, "sae-a1")), ("sae-a2", world.client(0, "sae-a2"))]
    {
        let keys = master.enc_keys(&sae(name), 3, 256).unwrap();
        same(&keys, &neighbour.dec_keys(&sae("sae-a1"), &ids(&keys), 256).unwrap());
        assert_eq!(master.status(&sae(name)).unwrap().target_kme_id, "kme-a");
    }
}

#[test]
fn multicast_gives_the_same_keys_over_several_links() {
    let world = World::start(1 << 20, "");
    for first in ["sae-c1", "sae-a2"] {
        let more = r#"["sae-b1", "sae-b2", "sae-a1"]"#;
        let body = format!(r#"{{"number": 2, "additional_slave_SAE_IDs": {more}}}"#);
        let target = format!("/api/v1/keys/{first}/enc_keys");
        let (status, answer) = world.ask("POST", &target, &body);
        assert_eq!(status, 200, "{answer}");
        let keys = dsgd::etsi014::message::parse_container(answer.as_bytes()).unwrap();
        assert_eq!(keys.len(), 2);
        for slave in [first, "sae-b1", "sae-b2", "sae-a1"] {
            let kme = SITES.iter().position(|site| slave[4..].starts_with(site)).unwrap();
            let mut slave = world.client(kme, slave);
            same(&keys, &slave.dec_keys(&sae("sae-a1"), &ids(&keys), 256).unwrap());
            let again = refusal(slave.dec_keys(&sae("sae-a1"), &ids(&keys), 256));
            assert_eq!(again.0, 400);
        }
    }
}

#[test]
fn every_wrong_request_gets_its_status_and_its_text() {
    let world = World::start(1 << 20, "");
    let enc = "/api/v1/keys/sae-b1/enc_keys";
    let dec = "/api/v1/keys/sae-a2/dec_keys";
    let unknown = "bc490419-7d60-487f-adc1-4ddcc177c139";
    let entry = |id: &str| format!(r#"{{"key_ID":"{id}"}}"#);
    let many: Vec<_> = (0..129u8).map(|n| entry(&KeyId::from_bytes([n; 16]).to_string())).collect();
    let number = "number shall be from 1 to 128";
    let size = "size shall be from 64 to 65536";
    let integer = "number shall be an integer";
    let cases: Vec<(&str, &str, String, u16, &str)> = vec![
        ("GET", "/api/v1/keys/sae-b1/enc_keys?number=1000000", String::new(), 400, number),
        ("GET", "/api/v1/keys/sae-b1/enc_keys?number=0", String::new(), 400, number),
        ("GET", "/api/v1/keys/sae-b1/enc_keys?number=-1", String::new(), 400, integer),
        (
            "GET",
            "/api/v1/keys/sae-b1/enc_keys?number=1&number=1",
            String::new(),
            400,
            "a parameter is given twice",
        ),
        ("POST", enc, r#"{"number": 1000000}"#.into(), 400, number),
        ("POST", enc, r#"{"number": 18446744073709551616}"#.into(), 400, integer),
        ("POST", enc, r#"{"number": 1, "number": 2}"#.into(), 400, "the body is not a key request"),
        ("POST", enc, r#"{"size": 0}"#.into(), 400, size),
        ("POST", enc, r#"{"size": 7}"#.into(), 400, "size shall be a multiple of 8"),
        ("POST", enc, r#"{"size": 2147483648}"#.into(), 400, size),
        ("POST", enc, r#"{"size": 2147483647}"#.into(), 400, "size shall be a multiple of 8"),
        ("POST", enc, r#"{"size": 56}"#.into(), 400, size),
        ("POST", enc, r#"{"size": "256"}"#.into(), 400, "size shall be an integer"),
        ("POST", enc, "{".into(), 400, "the body is not JSON"),
        ("POST", enc, "[1, 256]".into(), 400, "the body is not a key request"),
        ("POST", enc, format!("{{\"x\": {}", "[".repeat(60_000)), 400, "the body is not JSON"),
        (
            "POST",
            enc,
            format!("{{\"x\": \"{}\"}}", "y".repeat(70_000)),
            400,
            "the body is longer than 65536 bytes",
        ),
        (
            "POST",
            enc,
            r#"{"extension_mandatory": [{"a": 1}]}"#.into(),
            400,
            "not all extension_mandatory parameters are supported",
        ),
        (
            "POST",
            enc,
            r#"{"additional_slave_SAE_IDs": ["nobody"]}"#.into(),
            400,
            "additional_slave_SAE_IDs has an SAE ID that is not known on KME",
        ),
        (
            "POST",
            enc,
            r#"{"additional_slave_SAE_IDs": ["sae-b1"]}"#.into(),
            400,
            "additional_slave_SAE_IDs names an SAE twice",
        ),
        (
            "POST",
            enc,
            format!(r#"{{"additional_slave_SAE_IDs": [{}]}}"#, ["\"x\""; 9].join(",")),
            400,
            "additional_slave_SAE_IDs shall have at most 8 SAE IDs",
        ),
        (
            "GET",
            "/api/v1/keys/nobody/enc_keys",
            String::new(),
            400,
            "slave_SAE_ID is not known on KME",
        ),
        (
            "GET",
            "/api/v1/keys/nobody/status",
            String::new(),
            400,
            "slave_SAE_ID is not known on KME",
        ),
        ("GET", "/api/v1/keys/%zz/status", String::new(), 400, "the path has what is no SAE ID"),
        ("POST", dec, String::new(), 400, "the body is not JSON"),
        ("POST", dec, r#"{"key_IDs": []}"#.into(), 400, "key_IDs shall name at least one key"),
        (
            "POST",
            dec,
            format!(r#"{{"key_IDs": ["{unknown}"]}}"#),
            400,
            "the body is not a list of key IDs",
        ),
        (
            "POST",
            dec,
            format!(r#"{{"key_IDs": [{}]}}"#, entry("1")),
            400,
            "a key_ID shall be a UUID",
        ),
        (
            "POST",
            dec,
            format!(r#"{{"key_IDs": [{}]}}"#, [entry(unknown), entry(unknown)].join(",")),
            400,
            "key_IDs names a key twice",
        ),
        ("POST", dec, format!(r#"{{"key_IDs": [{}]}}"#, entry(unknown)), 400, NOT_FOUND),
        (
            "POST",
            dec,
            format!(r#"{{"key_IDs": [{}]}}"#, many.join(",")),
            400,
            "key_IDs shall name at most 128 keys",
        ),
        (
            "GET",
            "/api/v1/keys/nobody/dec_keys?key_ID=bc490419-7d60-487f-adc1-4ddcc177c139",
            String::new(),
            400,
            NOT_FOUND,
        ),
        ("GET", dec, String::new(), 400, "key_IDs shall name at least one key"),
        ("PUT", enc, "{}".into(), 405, "this resource is used by GET, POST"),
        ("DELETE", dec, String::new(), 405, "this resource is used by GET, POST"),
        ("POST", "/api/v1/keys/sae-b1/status", "{}".into(), 405, "this resource is used by GET"),
        ("GET", "/api/v1/keys/sae-b1/other", String::new(), 404, "there is no such resource"),
        ("GET", "/api/v1/keys/a/b/status", String::new(), 404, "there is no such resource"),
        ("GET", "/", String::new(), 404, "there is no such resource"),
    ];
    for (method, target, body, status, message) in cases {
        let (found, answer) = world.ask(method, target, &body);
        let shown = &body[..body.len().min(60)];
        assert_eq!(found, status, "{method} {target} {shown}: {answer}");
        let document: serde_json::Value = serde_json::from_str(&answer).unwrap();
        assert_eq!(document["message"], message, "{method} {target} {shown}");
    }
    let level = world.client(0, "sae-a1").status(&sae("sae-b1")).unwrap();
    assert_eq!(level.stored_key_count, (1 << 19) / 32, "none of it took key");
}

#[test]
fn every_wrong_transport_is_cut_off_and_the_service_goes_on() {
    let world = World::start(1 << 20, "");
    let enc = "/api/v1/keys/sae-b1/enc_keys";
    // Who is unknown, or a key manager, gets no key, and no body that says why.
    for name in [STRANGER, "kme-a", "sae-b1"] {
        for resource in ["status", "enc_keys", "dec_keys?key_ID=x"] {
            let target = format!("/api/v1/keys/sae-b1/{resource}");
            let (status, body, _) = world.raw(0, name, &request("GET", &target, ""));
            assert_eq!((status, body.is_empty()), (401, true), "{name} {resource}");
        }
    }
    let raw = |bytes: &[u8]| world.raw(0, "sae-a1", bytes);
    let (status, ..) = raw(b"GET / HTTP/1.1\r\nx: \x00\r\n\r\n");
    assert_eq!(status, 400);
    let long = format!("GET {enc} HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(100_000));
    // It hangs up on who is still writing; the answer may be lost with the rest.
    assert!([0, 431].contains(&raw(long.as_bytes()).0));
    let many = format!("GET {enc} HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(2000));
    assert!([0, 431].contains(&raw(many.as_bytes()).0));
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "y".repeat(100_000));
    assert!([0, 414, 431].contains(&raw(long.as_bytes()).0));
    assert!([0, 400, 505].contains(&raw(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").0));
    // Two lengths: which one counts is what request smuggling lives on.
    let two = format!(
        "POST {enc} HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\ncontent-length: 9\r\n\r\n{{}}"
    );
    assert_eq!(raw(two.as_bytes()).0, 400);
    let chunked = format!(
        "POST {enc} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n\
         8\r\n{{\"size\":\r\n5\r\n 128}}\r\n0\r\n\r\n"
    );
    assert_eq!(raw(chunked.as_bytes()).0, 200);
    let endless = format!(
        "POST {enc} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n{}",
        format!("1000\r\n{}\r\n", " ".repeat(4096)).repeat(40)
    );
    let (status, body, _) = raw(endless.as_bytes());
    assert_eq!((status, body.contains("longer than")), (400, true));
    // Pipelined requests are answered in their order.
    let get = |size| format!("GET {enc}?size={size} HTTP/1.1\r\nhost: x\r\n\r\n");
    let close = format!("GET {enc}?size=7 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    let all = raw([get(64), get(72), get(80), close].concat().as_bytes()).2;
    let lengths: Vec<_> = all
        .match_indices("\"key\":\"")
        .map(|(at, found)| {
            let rest = &all[at + found.len()..];
            rest.find('"').unwrap()
        })
        .collect();
    assert_eq!((lengths, all.matches("HTTP/1.1 200").count()), (vec![12, 12, 16], 3));
    assert!(all.ends_with(r#"{"message":"size shall be a multiple of 8"}"#));

    // TLS with no certificate, with another authority's, no TLS at all, and nothing.
    let nobody = {
        let mut roots = rustls::RootCertStore::empty();
        use rustls::pki_types::pem::PemObject;
        let authority = world.kmes.certificate(certificates::AUTHORITY);
        roots.add(rustls::pki_types::CertificateDer::from_pem_file(authority).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider);
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
    };
    let foreign = tempfile::tempdir().unwrap();
    let (kme, saes) = ([sae("kme-x")], [sae("sae-a1")]);
    certificates::write(foreign.path(), &kme, &saes, &["localhost".into()]).unwrap();
    // Its certificate with our authority: what the server refuses, not the client.
    let forged = {
        let (certificate, private_key, _) = credentials(foreign.path(), "sae-a1");
        let authority = world.kmes.certificate(certificates::AUTHORITY);
        let shown = Credentials {
            certificate: &certificate,
            private_key: &private_key,
            authority: &authority,
        };
        shown.client().unwrap()
    };
    for tls in [nobody, forged] {
        let mut stream = connect(world.kmes.address(0), tls).unwrap();
        let mut answer = Vec::new();
        let sent = stream.write_all(&request("GET", enc, ""));
        let read = sent.and_then(|()| stream.read_to_end(&mut answer));
        assert!(read.is_err() && answer.is_empty(), "{}", String::from_utf8_lossy(&answer));
    }
    let mut plain = TcpStream::connect(world.kmes.address(0)).unwrap();
    plain.write_all(&request("GET", enc, "")).unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP"));
    drop(TcpStream::connect(world.kmes.address(0)).unwrap());
    // A key manager that is somebody else is not believed.
    let endpoint = Endpoint::new(
        &format!("https://{}", world.kmes.address(0)),
        credentials(foreign.path(), "sae-a1").2,
        Duration::from_secs(30),
    );
    let outcome = Client::new(endpoint.unwrap()).unwrap().status(&sae("sae-b1"));
    assert!(matches!(outcome, Err(Error::Unreachable { .. })));

    assert_eq!(world.client(0, "sae-a1").enc_keys(&sae("sae-b1"), 1, 256).unwrap().len(), 1);
}

/// 64 clients, and key managers that are killed meanwhile: whatever is given out is given out once,
/// and what the slave gets is what the master got. The ledgers of both ends agree at the end.
#[test]
fn no_key_is_given_twice_whatever_is_killed() {
    const CLIENTS: usize = 64;
    let mut world = World::start(64 << 20, "");
    let found: Mutex<(HashSet<Vec<u8>>, HashSet<KeyId>, usize)> = Mutex::default();
    for round in 0..4 {
        let (before, tried) = (found.lock().unwrap().0.len(), AtomicUsize::new(0));
        thread::scope(|scope| {
            let ends: Vec<_> = (0..CLIENTS)
                .map(|_| {
                    [
                        world.kmes.endpoint(0, "sae-a1").unwrap(),
                        world.kmes.endpoint(1, "sae-b1").unwrap(),
                    ]
                })
                .collect();
            for [master, slave] in ends {
                let (found, tried) = (&found, &tried);
                scope.spawn(move || {
                    let (mut master, mut slave) =
                        (Client::new(master).unwrap(), Client::new(slave).unwrap());
                    for _ in 0..6 {
                        let keys = master.enc_keys(&sae("sae-b1"), 4, 256);
                        tried.fetch_add(1, Ordering::SeqCst);
                        let Ok(keys) = keys else { continue };
                        let fetched = slave.dec_keys(&sae("sae-a1"), &ids(&keys), 256);
                        if let Ok(fetched) = &fetched {
                            same(&keys, fetched);
                        }
                        let mut found = found.lock().unwrap();
                        found.2 += usize::from(fetched.is_ok());
                        for key in &keys {
                            assert!(found.0.insert(key.bytes.expose().to_vec()), "a key twice");
                            assert!(found.1.insert(key.id), "a name twice");
                        }
                    }
                });
            }
            if round > 0 {
                // In the middle of it.
                while found.lock().unwrap().0.len() < before + 200
                    && tried.load(Ordering::SeqCst) < 6 * CLIENTS
                {
                    thread::sleep(Duration::from_millis(1));
                }
                world.kmes.kill(round % 2);
            }
        });
        for number in 0..2 {
            world.kmes.restart(number).unwrap();
        }
    }
    let (keys, _, fetched) = found.into_inner().unwrap();
    assert!(keys.len() > 2000 && fetched > 400, "{} {fetched}", keys.len());
    for number in 0..SITES.len() {
        world.kmes.kill(number);
    }
    let ledger = |site: &str, peer: &str, role| {
        let link =
            LinkSettings::simulated(peer.parse().unwrap(), &world.folder.path().join("a-b.json"));
        let state = world.folder.path().join(format!("state-{site}"));
        let store =
            KeyStore::open(site.parse().unwrap(), &state, &[link], Clock::system()).unwrap();
        store.ledger(&peer.parse().unwrap(), role).unwrap()
    };
    let (sent, received) = (ledger("a", "b", Role::Sender), ledger("b", "a", Role::Follower));
    assert!(!sent.is_empty() && !received.is_empty());
    ledger::check(&sent, &received).unwrap();
}

#[test]
fn without_key_or_without_the_other_end_it_says_so_and_recovers() {
    let mut world = World::start(224 << 10, "");
    let mut master = world.client(0, "sae-a1");
    let mut total = 0;
    let short = loop {
        match master.enc_keys(&sae("sae-b1"), 8, 256) {
            Ok(keys) => total += keys.len(),
            Err(error) => break refusal::<()>(Err(error)),
        }
    };
    assert_eq!(short, (503, ": not enough keys are stored for this SAE pair".into()));
    assert!(total >= 64, "{total}");
    assert_eq!(master.enc_keys(&sae("sae-c1"), 1, 256).unwrap().len(), 1, "another link");
    world.kmes.kill(2);
    let away = refusal(master.enc_keys(&sae("sae-c1"), 1, 256));
    assert_eq!(away, (503, ": the KME of a slave SAE cannot be reached".into()));
    world.kmes.restart(2).unwrap();
    assert_eq!(master.enc_keys(&sae("sae-c1"), 1, 256).unwrap().len(), 1);
}

#[test]
fn what_is_not_fetched_is_bounded_and_expires() {
    let world = World::start(1 << 20, "held-keys = 10\nlifetime-seconds = 0");
    let mut master = world.client(0, "sae-a1");
    let full = refusal(master.enc_keys(&sae("sae-b1"), 11, 256));
    assert_eq!(
        full,
        (503, ": the KME of a slave SAE holds too many keys that were not fetched".into())
    );
    let keys = master.enc_keys(&sae("sae-b1"), 10, 256).unwrap();
    let late = refusal(world.client(1, "sae-b1").dec_keys(&sae("sae-a1"), &ids(&keys), 256));
    assert_eq!(late, (400, format!(": {NOT_FOUND}")));
}

/// Looks through the memory and the files of both key managers for keys that were fetched.
#[test]
fn delivered_keys_are_gone() {
    let world = World::start(1 << 20, "threads = 1");
    let (mut master, mut slave) = (world.client(0, "sae-a1"), world.client(1, "sae-b1"));
    let keys = master.enc_keys(&sae("sae-b1"), 20, 1024).unwrap();
    let held = master.enc_keys(&sae("sae-b1"), 1, 1024).unwrap();
    same(&keys, &slave.dec_keys(&sae("sae-a1"), &ids(&keys), 1024).unwrap());
    let Some(memory) = memory_of(world.kmes.process(1)) else {
        eprintln!("skipped: the memory of another process cannot be read here");
        return;
    };
    // As it is, and as it went over the wire inside TLS.
    let contains = |memory: &[Vec<u8>], key: &NamedKey| {
        let part = &key.bytes.expose()[..63];
        let text = base64::engine::general_purpose::STANDARD.encode(part);
        [part, text.as_bytes()]
            .iter()
            .any(|part| memory.iter().any(|area| memchr::memmem::find(area, part).is_some()))
    };
    assert!(contains(&memory, &held[0]), "what was not fetched is there, or this finds nothing");
    for process in [world.kmes.process(0), world.kmes.process(1)] {
        // The answer is wiped when the last of it was sent, which may be after it was received.
        let gone = (0..500).any(|_| {
            let memory = memory_of(process).unwrap();
            let gone = !keys.iter().any(|key| contains(&memory, key));
            if !gone {
                thread::sleep(Duration::from_millis(10));
            }
            gone
        });
        assert!(gone, "a key that was fetched is still in a key manager's memory");
    }
    for site in ["a", "b"] {
        for entry in fs::read_dir(world.folder.path().join(format!("state-{site}/keys"))).unwrap() {
            for file in fs::read_dir(entry.unwrap().path()).unwrap() {
                let bytes = vec![fs::read(file.unwrap().path()).unwrap()];
                assert!(!keys.iter().chain(&held).any(|key| contains(&bytes, key)));
            }
        }
    }
}

fn memory_of(process: u32) -> Option<Vec<Vec<u8>>> {
    let maps = fs::read_to_string(format!("/proc/{process}/maps")).ok()?;
    let mut memory = fs::File::open(format!("/proc/{process}/mem")).ok()?;
    let mut areas = Vec::new();
    for line in maps.lines().filter(|line| line.contains(" rw-p ")) {
        let (start, end) = line.split(' ').next()?.split_once('-')?;
        let (start, end) =
            (u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(end, 16).ok()?);
        let mut area = vec![0; usize::try_from(end - start).ok()?];
        // Some areas cannot be read by anybody.
        if memory.seek(SeekFrom::Start(start)).is_ok() && memory.read_exact(&mut area).is_ok() {
            areas.push(area);
        }
    }
    (!areas.is_empty()).then_some(areas)
}

#[test]
fn the_document_of_the_service_is_served_and_has_its_resources() {
    let world = World::start(1 << 20, "");
    let (status, body) = world.ask("GET", "/api/v1/openapi.json", "");
    assert_eq!((status, body.as_str()), (200, OPENAPI));
    let document: serde_json::Value = serde_json::from_str(OPENAPI).unwrap();
    let paths: Vec<_> = document["paths"].as_object().unwrap().keys().collect();
    assert_eq!(paths.len(), 4, "{paths:?}");
    let status = world.client(0, "sae-a1").status(&sae("sae-b1")).unwrap();
    let status = serde_json::to_value(status).unwrap();
    let described = &document["components"]["schemas"]["Status"]["properties"];
    for field in status.as_object().unwrap().keys() {
        assert!(described.get(field).is_some(), "{field}");
    }
}

/// A key manager that answers with what `answer` makes of the number of the request and its text.
struct Defective {
    folder: tempfile::TempDir,
    address: String,
}

impl Defective {
    fn start(answer: impl Fn(usize, &str) -> Vec<u8> + Send + Sync + 'static) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (kme, saes) = ([sae("kme-x")], [sae("sae-a1")]);
        certificates::write(folder.path(), &kme, &saes, &["localhost".into()]).unwrap();
        let shown = Credentials {
            certificate: &folder.path().join("kme-x.pem"),
            private_key: &folder.path().join("kme-x.key"),
            authority: &folder.path().join(certificates::AUTHORITY),
        };
        let tls = shown.server().unwrap();
        let listener = TcpListener::bind("localhost:0").unwrap();
        let address = format!("localhost:{}", listener.local_addr().unwrap().port());
        let (answer, count) = (Arc::new(answer), Arc::new(Mutex::new(0)));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (answer, count) = (Arc::clone(&answer), Arc::clone(&count));
                let tls = ServerConnection::new(Arc::clone(&tls)).unwrap();
                thread::spawn(move || {
                    let mut stream = StreamOwned::new(tls, stream.unwrap());
                    let mut request = Vec::new();
                    let mut byte = [0];
                    while !is_whole(&request) {
                        if stream.read_exact(&mut byte).is_err() {
                            return;
                        }
                        request.push(byte[0]);
                    }
                    let number = {
                        let mut count = count.lock().unwrap();
                        *count += 1;
                        *count - 1
                    };
                    let text = String::from_utf8(request).unwrap();
                    let bytes = answer(number, &text);
                    // An answer that ends in the middle of a line is one that never ends.
                    let _ = stream.write_all(&bytes).and_then(|()| stream.flush());
                    if bytes.ends_with(b"...") {
                        thread::sleep(Duration::from_secs(600));
                    }
                    stream.conn.send_close_notify();
                    let _ = stream.flush();
                });
            }
        });
        Self { folder, address }
    }

    fn client(&self, deadline: Duration) -> Client {
        let tls = credentials(self.folder.path(), "sae-a1").2;
        let endpoint = Endpoint::new(&format!("https://{}", self.address), tls, deadline);
        Client::new(endpoint.unwrap()).unwrap()
    }
}

fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    body.len() >= length.map_or(0, |length| length.parse().unwrap())
}

fn http(status: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}")
        .into_bytes()
}

fn key_json(id: u8, byte: u8, bytes: usize) -> String {
    let key = base64::engine::general_purpose::STANDARD.encode(vec![byte; bytes]);
    format!(r#"{{"key_ID":"{}","key":"{key}"}}"#, KeyId::from_bytes([id; 16]))
}

fn container(keys: &[String]) -> String {
    format!(r#"{{"keys":[{}]}}"#, keys.join(","))
}

#[test]
fn every_defect_of_a_key_manager_is_a_clear_error() {
    let ok = |body: &str| http("200 OK", body);
    let good = container(&[key_json(1, 1, 32), key_json(2, 2, 32)]);
    let cut =
        [&b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n"[..], &good.as_bytes()[..40]].concat();
    let endless =
        format!("HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\n{}", " ".repeat(100_000));
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (ok(&container(&[key_json(1, 1, 32)])), "1 keys where 2 were asked for"),
        (ok(&container(&[key_json(1, 1, 32), key_json(2, 2, 16)])), "128 bits where 256"),
        (ok(&container(&[key_json(1, 1, 32), key_json(1, 2, 32)])), "a key_ID twice"),
        (ok(&container(&[key_json(1, 1, 32), key_json(2, 1, 32)])), "a key twice"),
        (ok(&good.replace("AQEB", "@@@@")), "not in base64"),
        (ok(&good.replace("0101-", "")), "not a UUID"),
        (ok("<html>sign in</html>"), "not the JSON document"),
        (ok(""), "not the JSON document"),
        (ok(&good[..good.len() - 1]), "not the JSON document"),
        (http("404 Not Found", r#"{"message":"no\u001b[2J key"}"#), "status 404: no[2J key"),
        (http("500 Internal Server Error", "<html>"), "status 500"),
        (http("503 Service Unavailable", r#"{"message":"short"}"#), "status 503: short"),
        (http("401 Unauthorized", ""), "status 401"),
        (http("204 No Content", ""), "status 204"),
        (http("302 Found\r\nlocation: https://localhost:1/", &good), "redirection (status 302)"),
        (cut, "did not answer in HTTP"),
        (endless.into_bytes(), "longer than"),
        (b"SSH-2.0-OpenSSH\r\n".to_vec(), "did not answer in HTTP"),
        (Vec::new(), "did not answer in HTTP"),
    ];
    let answers: Vec<_> = cases.iter().map(|(answer, _)| answer.clone()).collect();
    let kme = Defective::start(move |number, _| answers[number].clone());
    let mut client = kme.client(Duration::from_secs(60));
    for (answer, expected) in &cases {
        let error = client.enc_keys(&sae("sae-b1"), 2, 256).err().unwrap();
        let text = dsgd::base::fault::with_causes(&error);
        let shown = String::from_utf8_lossy(&answer[..answer.len().min(120)]);
        assert!(text.contains(expected), "{shown}: {text}");
        assert!(!text.contains("AQEB"), "no key in an error");
    }
    // Spellings that are in use are no defects.
    let kme = Defective::start(move |_, _| {
        http(
            "200 OK",
            &good.replace("keys", "Keys").replace("{\"key_ID", "{\"vendor\":[{}],\"key_ID"),
        )
    });
    let keys = kme.client(Duration::from_secs(60)).enc_keys(&sae("sae-b1"), 2, 256).unwrap();
    assert_eq!(keys[1].bytes.expose()[..], [2; 32]);
}

#[test]
fn a_key_manager_that_never_finishes_is_given_up() {
    for answer in [
        "HTTP/1.1 200 ...",
        "HTTP/1.1 200 OK\r\ncontent-le...",
        "HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{...",
    ] {
        let kme = Defective::start(move |_, _| answer.into());
        let error = kme.client(Duration::from_millis(700)).status(&sae("sae-b1")).err().unwrap();
        assert!(matches!(error, Error::Slow { .. }), "{answer}: {error}");
    }
    // Keys with other names than asked for, and in another order.
    let kme = Defective::start(|number, _| {
        let keys = [key_json(2, 2, 32), key_json(if number == 0 { 1 } else { 3 }, 1, 32)];
        http("200 OK", &container(&keys))
    });
    let mut client = kme.client(Duration::from_secs(60));
    let wanted = [KeyId::from_bytes([1; 16]), KeyId::from_bytes([2; 16])];
    let keys = client.dec_keys(&sae("m"), &wanted, 256).unwrap();
    assert_eq!(ids(&keys), wanted);
    let error = client.dec_keys(&sae("m"), &wanted, 256).err().unwrap();
    assert!(dsgd::base::fault::with_causes(&error).contains("was not asked for"), "{error}");
}

fn dsgd(world: &World, site: usize, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dsgd"));
    command.current_dir(world.folder.path()).arg("--config").arg(world.kmes.config(site));
    command.args(arguments).output().unwrap()
}

fn draw(world: &World, url: &str, name: &str, authority: &Path) -> Output {
    let own = |extension| world.kmes.certificate(&format!("{name}.{extension}"));
    dsgd(
        world,
        0,
        &[
            "keys",
            "draw",
            "--kme",
            url,
            "--certificate",
            own("pem").to_str().unwrap(),
            "--private-key",
            own("key").to_str().unwrap(),
            "--authority",
            authority.to_str().unwrap(),
            "--peer",
            "b",
            "--peer-sae",
            "sae-b1",
            "--bytes",
            "100kB",
            "--key-bits",
            "4096",
            "--output",
            ".",
        ],
    )
}

fn files(world: &World, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(world.folder.path()).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<_> =
        entries.filter(|path| path.to_str().unwrap().ends_with(extension)).collect();
    found.sort();
    found
}

#[test]
fn two_sites_draw_a_pad_from_their_key_managers() {
    let world = World::start(4 << 20, "");
    let authority = world.kmes.certificate(certificates::AUTHORITY);
    let url = format!("https://{}", world.kmes.address(0));
    let drawn = draw(&world, &url, "sae-a1", &authority);
    assert!(drawn.status.success(), "{}", String::from_utf8_lossy(&drawn.stderr));
    let list = files(&world, ".drawing.json");
    let url = format!("https://{}", world.kmes.address(1));
    let own = |extension| world.kmes.certificate(&format!("sae-b1.{extension}"));
    let (certificate, key) = (own("pem"), own("key"));
    let arguments = [
        "keys",
        "fetch",
        list[0].to_str().unwrap(),
        "--kme",
        &url,
        "--certificate",
        certificate.to_str().unwrap(),
        "--private-key",
        key.to_str().unwrap(),
        "--authority",
        authority.to_str().unwrap(),
        "--output",
        ".",
    ];
    let fetched = dsgd(&world, 1, &arguments);
    assert!(fetched.status.success(), "{}", String::from_utf8_lossy(&fetched.stderr));
    let pads = files(&world, ".pad");
    let bytes: Vec<_> = pads.iter().map(|path| fs::read(path).unwrap()).collect();
    assert_eq!(pads.len(), 2);
    assert!(bytes[0] == bytes[1] && bytes[0].len() >= 100_000);
    assert!(bytes[0].chunks(64).skip(64).all(|part| part.iter().any(|byte| *byte != part[0])));
    // The keys are gone: a second copy cannot be made.
    fs::remove_file(&pads[1]).unwrap();
    let again = dsgd(&world, 1, &arguments);
    assert!(!again.status.success());
    assert!(String::from_utf8_lossy(&again.stderr).contains(NOT_FOUND));
    assert_eq!(files(&world, ".pad").len(), 1, "a pad is whole or not there");
    // Used as any pad is.
    let imported = dsgd(&world, 0, &["keys", "import", pads[0].to_str().unwrap(), "--peer", "b"]);
    assert!(imported.status.success(), "{}", String::from_utf8_lossy(&imported.stderr));
}

#[test]
fn a_key_that_was_drawn_before_is_refused_and_leaves_no_pad() {
    let world = World::start(1 << 20, "");
    // 512-byte keys that begin to repeat with the third answer, each time under a new name.
    let kme = Defective::start(|number, request| {
        if request.contains("/status") {
            return http(
                "200 OK",
                r#"{"source_KME_ID":"x","target_KME_ID":"y","master_SAE_ID":"a",
                "slave_SAE_ID":"b","key_size":4096,"stored_key_count":9,"max_key_count":9,
                "max_key_per_request":1,"max_key_size":4096,"min_key_size":64,"max_SAE_ID_count":0}"#,
            );
        }
        http("200 OK", &container(&[key_json(number as u8, number.min(3) as u8, 512)]))
    });
    let authority = kme.folder.path().join(certificates::AUTHORITY);
    let certificates = world.folder.path().join("certificates");
    for extension in ["pem", "key"] {
        let own = kme.folder.path().join(format!("sae-a1.{extension}"));
        fs::copy(own, certificates.join(format!("sae-x.{extension}"))).unwrap();
    }
    let drawn = draw(&world, &format!("https://{}", kme.address), "sae-x", &authority);
    let text = String::from_utf8_lossy(&drawn.stderr).into_owned();
    assert_eq!(drawn.status.code(), Some(76), "{text}");
    assert!(text.contains("gave a key that it gave before"), "{text}");
    assert!(files(&world, ".pad").is_empty() && files(&world, ".drawing.json").is_empty());
}
