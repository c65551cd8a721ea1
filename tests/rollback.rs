//! State folders that are put back from a copy, between jobs and in the midst of one: whatever the
//! sites then do, no key is on the wire twice. A tap before every daemon sees all frames.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use dsgd::base::{BitRate, ByteCount};
use dsgd::bench::local_sites::{LocalSites, Plan};
use dsgd::key::KeyRange;
use dsgd::key::greeting::key_at;
use dsgd::otp::opening::Opening;
use dsgd::otp::{HEADER_BYTES, HELLO_BYTES, Header, Hello, TAG_BYTES};

/// A use of key that was seen on a wire.
struct Use {
    range: KeyRange,
    greeting: bool,
    frame: [u8; 32],
}

/// All that was seen, by stream.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<BTreeMap<String, Vec<Use>>>>);

impl Seen {
    fn add(&self, stream: &str, range: KeyRange, greeting: bool, frame: &[&[u8]]) {
        let mut hasher = blake3::Hasher::new();
        for part in frame {
            hasher.update(part);
        }
        let frame = *hasher.finalize().as_bytes();
        let found = Use { range, greeting, frame };
        self.0.lock().unwrap().entry(stream.into()).or_default().push(found);
    }

    /// The oracle. A greeting key may make a second tag, by a site that was set back; gives how many
    /// frames there were.
    fn assert_no_key_is_used_twice(&self) -> usize {
        let seen = self.0.lock().unwrap();
        for (stream, uses) in seen.iter() {
            let mut sorted: Vec<&Use> = uses.iter().collect();
            sorted.sort_by_key(|found| found.range.position);
            for pair in sorted.windows(2).filter(|pair| pair[0].range.overlaps(&pair[1].range)) {
                let greetings = pair[0].greeting && pair[1].greeting;
                let same = pair[0].range == pair[1].range;
                let repeated = same && pair[0].frame == pair[1].frame;
                let ranges = (pair[0].range, pair[1].range);
                assert!(repeated || (greetings && same), "{stream}: {} and {}", ranges.0, ranges.1);
            }
        }
        seen.values().map(Vec::len).sum()
    }
}

/// Listens in front of `target` and writes down what passes.
fn tap(target: String, seen: Seen) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for caller in listener.incoming().flatten() {
            let Ok(callee) = TcpStream::connect(&target) else { continue };
            for (from, to) in [(&caller, &callee), (&callee, &caller)] {
                let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                let seen = seen.clone();
                thread::spawn(move || {
                    // Whoever hangs up ends both directions, as without a tap.
                    let _ = pass(&from, &to, &seen);
                    let _ = to.shutdown(Shutdown::Write);
                });
            }
        }
    });
    address
}

fn pass(mut from: &TcpStream, mut to: &TcpStream, seen: &Seen) -> std::io::Result<()> {
    let mut hello = [0; HELLO_BYTES];
    from.read_exact(&mut hello)?;
    to.write_all(&hello)?;
    let Ok(hello) = Hello::decode(&hello) else { return Ok(()) };
    let stream = format!("{}->{}", hello.from, hello.to);
    let (mut header, mut tag) = ([0; HEADER_BYTES], [0; TAG_BYTES]);
    from.read_exact(&mut header)?;
    let opening = Opening::decode(&header);
    if let Ok(opening) = opening {
        from.read_exact(&mut tag)?;
        let key = key_at(opening.start, opening.slot).unwrap();
        seen.add(&stream, key, true, &[&header, &tag]);
        to.write_all(&[&header[..], &tag].concat())?;
    } else {
        // A refusal: the rest of it, and the end.
        to.write_all(&header)?;
        std::io::copy(&mut from, &mut to)?;
        return Ok(());
    }
    loop {
        from.read_exact(&mut header)?;
        let frame = Header::decode(&header).map_err(std::io::Error::other)?;
        let mut rest = vec![0; frame.ciphertext_bytes() + TAG_BYTES];
        from.read_exact(&mut rest)?;
        seen.add(&stream, frame.key_range(), false, &[&header, &rest]);
        to.write_all(&[&header[..], &rest].concat())?;
    }
}

struct World {
    folder: tempfile::TempDir,
    sites: LocalSites,
    seen: Seen,
}

impl World {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("reference.fa"), ">sim1\nACGTACGTAC\n").unwrap();
        let sites = LocalSites::start(Plan {
            program: env!("CARGO_BIN_EXE_dsgd").into(),
            folder: folder.path().into(),
            cipher: "otp",
            stock: ByteCount(1_000_000_000),
            rate: BitRate(0),
            reference: "reference.fa".into(),
            index: None,
            rights: String::new(),
            random: "key-stream".into(),
            store: "dir".into(),
            threads: 1,
        })
        .unwrap();
        let seen = Seen::default();
        let mut config = fs::read_to_string(sites.config("tommo")).unwrap();
        for daemon in sites.daemons() {
            let before = tap(daemon.address().to_owned(), seen.clone());
            config = config.replace(daemon.address(), &before);
        }
        fs::write(sites.config("tommo"), config).unwrap();
        let noise: Vec<u8> = (0..6_000_000u32).map(|at| (at * at % 251) as u8).collect();
        fs::write(folder.path().join("file"), noise).unwrap();
        Self { folder, sites, seen }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, site: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dsgd"));
        command.arg("--config").arg(self.sites.config(site)).arg("--json").args(arguments);
        command.current_dir(self.folder.path());
        command
    }

    fn run(&self, site: &str, arguments: &[&str]) -> Output {
        self.command(site, arguments).output().unwrap()
    }

    fn good(&self, site: &str, arguments: &[&str]) -> serde_json::Value {
        let output = self.run(site, arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{site} {arguments:?}: {said}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn put(&self, name: &str) -> Output {
        self.run("tommo", &["put", name, "file"])
    }

    fn save(&self, site: &str) {
        copy_folder(&self.path(&format!("{site}/keys")), &self.path(&format!("{site}-saved")));
    }

    /// The copy takes the place of the folder, as after `rm -r` and `cp -r`.
    fn restore(&self, site: &str) {
        let keys = self.path(&format!("{site}/keys"));
        // A program that runs may still make files in it.
        while fs::remove_dir_all(&keys).is_err() && keys.exists() {}
        copy_folder(&self.path(&format!("{site}-saved")), &keys);
    }

    /// What the operators do at both ends of a link.
    fn retire(&self, a: &str, b: &str) {
        let mut known = [0, 0];
        for (site, peer) in [(a, b), (b, a), (a, b)] {
            let units = known.map(|unit: u64| unit.to_string());
            let arguments =
                ["keys", "retire", peer, "--outgoing", &units[0], "--incoming", &units[1]];
            let report = self.good(site, &arguments);
            let unit = |name: &str| report["data"][name].as_u64().unwrap();
            // What is outgoing here is incoming there.
            known = [unit("incoming"), unit("outgoing")];
        }
    }

    /// A job fails because of the quarantine and says what to do, and after that all is well.
    fn assert_quarantined_until_retired(&self, peers: &[&str]) {
        let output = self.put("refused");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(76), "{said}");
        assert!(said.contains("set back") && said.contains("dsgd keys retire"), "{said}");
        self.seen.assert_no_key_is_used_twice();
        peers.iter().for_each(|peer| self.retire("tommo", peer));
        let output = self.put("after");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        self.good("tommo", &["get", "after", "--output", "restored", "--shares", "bc"]);
        let same =
            fs::read(self.path("restored/file")).unwrap() == fs::read(self.path("file")).unwrap();
        assert!(same);
        assert!(self.seen.assert_no_key_is_used_twice() > 40);
    }
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn a_senders_state_that_is_put_back_between_jobs() {
    let world = World::start();
    assert!(world.put("one").status.success());
    world.save("tommo");
    assert!(world.put("two").status.success());
    world.restore("tommo");
    world.assert_quarantined_until_retired(&["lsa", "hospital"]);
    let level = world.good("tommo", &["keys", "level"]);
    assert!(level["data"].as_array().unwrap().iter().all(|link| link["quarantine"].is_null()));
}

#[test]
fn a_receivers_state_that_is_put_back_between_jobs() {
    let world = World::start();
    assert!(world.put("one").status.success());
    world.save("lsa");
    assert!(world.put("two").status.success());
    world.restore("lsa");
    world.assert_quarantined_until_retired(&["lsa"]);
}

#[test]
fn a_senders_state_that_is_put_back_in_the_midst_of_a_job() {
    let world = World::start();
    assert!(world.put("one").status.success());
    world.save("tommo");
    for round in 0..3 {
        let mut child = world
            .command("tommo", &["put", &format!("two-{round}"), "file"])
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        thread::sleep(Duration::from_millis(15 + 25 * round));
        world.restore("tommo");
        // It ends well or it does not: no key is used twice.
        let _ = child.wait().unwrap();
        world.seen.assert_no_key_is_used_twice();
    }
    world.assert_quarantined_until_retired(&["lsa", "hospital"]);
}

#[test]
fn the_oracle_sees_a_key_that_is_used_twice() {
    let seen = Seen::default();
    let range = |position| KeyRange { position, units: 10 };
    seen.add("a->b", range(0), false, &[b"one"]);
    seen.add("a->b", range(0), false, &[b"one"]);
    seen.add("b->a", range(5), false, &[b"other stream"]);
    assert_eq!(seen.assert_no_key_is_used_twice(), 3);
    seen.add("a->b", range(9), false, &[b"two"]);
    let caught = std::panic::catch_unwind(|| seen.assert_no_key_is_used_twice());
    assert!(caught.is_err());
}
