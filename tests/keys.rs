//! The key network by the program: agents, a server and sites as processes, and what `dsgd keys` says.

#![allow(clippy::unwrap_used)]

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use dsgd::base::clock::Stopwatch;
use dsgd::base::{Clock, SiteId};
use dsgd::bench::local_daemon::{LocalDaemon, free_addresses};
use dsgd::key::ledger::{self, Role};
use dsgd::key::{KeyStore, LinkSettings};
use serde_json::Value;

fn dsgd(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dsgd"));
    command.args(arguments).current_dir(folder).output().unwrap()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| {
        panic!("{} {}", String::from_utf8_lossy(&output.stdout), stderr(output))
    })
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn built_in_topologies_are_shown_and_planned_over() {
    let folder = tempfile::tempdir().unwrap();
    let run = |arguments: &str| {
        let arguments: Vec<_> = arguments.split(' ').collect();
        dsgd(folder.path(), &arguments)
    };
    let shown = json(&run("--json keys level --topology tokyo-2022"));
    let rows = shown["data"].as_array().unwrap();
    assert_eq!(rows.len(), 10, "five links, each direction");
    assert_eq!(rows[0]["from"], "nict-1");
    assert_eq!((&rows[0]["remaining"], &rows[0]["rate"]), (&1_000_000_000.into(), &500_000.into()));
    let text = run("keys level --topology healthcare-2022");
    let text = String::from_utf8(text.stdout).unwrap();
    assert_eq!(text.lines().count(), 2 + 16);
    assert!(text.contains("preshared") && text.contains("hospital  "), "{text}");

    let plan = |rest: &str| run(&format!("--json keys plan --topology tokyo-2022 {rest}"));
    let planned = json(&plan("nict-2 otemachi 1MB"));
    assert_eq!(
        planned["data"]["paths"][0]["nodes"],
        serde_json::json!(["nict-2", "nict-1", "otemachi"])
    );
    assert_eq!(planned["data"]["per-link"], 1_000_000 + 48);
    assert_eq!(planned["data"]["total"], 2 * (1_000_000 + 48));
    let planned = json(&plan("nict-2 otemachi 1MB --disjoint 2"));
    assert_eq!(planned["data"]["paths"].as_array().unwrap().len(), 2);
    assert_eq!(plan("nict-2 otemachi 1MB --disjoint 3").status.code(), Some(69));
    assert_eq!(plan("nict-2 mars 1MB").status.code(), Some(78));
    assert_eq!(plan("nict-2 otemachi 0").status.code(), Some(2));
    let short = plan("nict-2 otemachi 1TB");
    assert_eq!(short.status.code(), Some(75));
    assert!(stderr(&short).contains("there is enough in"), "{}", stderr(&short));
}

#[test]
fn key_of_a_link_is_erased_at_both_ends() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let made = dsgd(at, &["keys", "generate", "a", "b", "--bytes", "64kB", "--output", "."]);
    assert!(made.status.success(), "{}", stderr(&made));
    for (site, peer, kind) in [("a", "b", "pool"), ("b", "a", "preshared")] {
        let text = format!(
            "site = \"{site}\"\nstate = \"{site}\"\n[[key]]\npeer = \"{peer}\"\nkind = \"{kind}\"\n"
        );
        fs::write(at.join(format!("{site}.toml")), text).unwrap();
        let pad = fs::read_dir(at).unwrap().map(|entry| entry.unwrap().path());
        let mut pad =
            pad.filter(|path| path.to_str().unwrap().ends_with(&format!("-for-{site}.pad")));
        let pad = pad.next().unwrap();
        let config = format!("{site}.toml");
        let run = |arguments: &[&str]| {
            let all = [&["--json", "--config", &config], arguments].concat();
            let output = dsgd(at, &all);
            assert!(output.status.success(), "{}", stderr(&output));
            json(&output)["data"].clone()
        };
        run(&["keys", "import", pad.to_str().unwrap(), "--peer", peer]);
        assert_eq!(run(&["keys", "level"])[0]["outgoing"]["remaining"], 32_000);
        let gone = run(&["keys", "erase", peer]);
        assert_eq!((&gone["outgoing"], &gone["incoming"]), (&32_000.into(), &32_000.into()));
        let left = &run(&["keys", "level"])[0];
        assert_eq!(left["outgoing"]["remaining"], 0);
        assert_eq!(left["incoming"]["remaining"], 0);
        assert_eq!(run(&["keys", "erase", peer])["outgoing"], 0);
    }
}

/// A daemon of the sites in `folder`, which ends with the test.
fn daemon(folder: &Path, config: &str, role: &str) -> LocalDaemon {
    let program = Path::new(env!("CARGO_BIN_EXE_dsgd"));
    let log = folder.join(format!("{config}.{role}.log"));
    LocalDaemon::start(program, &folder.join(config), role, &log).unwrap()
}

const NODES: [&str; 4] = ["tommo", "relay", "hospital", "cloud"];
const LINKS: [(&str, &str); 3] = [("tommo", "relay"), ("relay", "cloud"), ("tommo", "hospital")];

/// Four nodes and a server, each a process; the sites of three nodes have no keys but what those
/// supply.
struct Network {
    folder: tempfile::TempDir,
    _daemons: Vec<LocalDaemon>,
}

impl Network {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        let simulate = |a: &str, b: &str, file: &str| {
            let arguments =
                ["keys", "simulate", a, b, "--rate", "8", "--stock", "32MB", "--output", file];
            assert!(dsgd(at, &arguments).status.success());
        };
        let mut topology = String::from("name = \"four\"\n");
        // The cloud has no QKD: what it shares with the relay was carried there.
        let kind = |b: &str| if b == "cloud" { "preshared" } else { "qkd" };
        NODES.iter().for_each(|n| writeln!(topology, "[[node]]\nname = \"{n}\"").unwrap());
        for (a, b) in LINKS {
            if b != "cloud" {
                simulate(a, b, &format!("link-{a}-{b}.json"));
            }
            simulate(a, b, &format!("control-{a}-{b}.json"));
            writeln!(topology, "[[link]]\nends = [\"{a}\", \"{b}\"]\nkind = \"{}\"", kind(b))
                .unwrap();
            writeln!(topology, "rate = 8\nstock = \"32MB\"").unwrap();
        }
        NODES.iter().for_each(|n| simulate(n, "kms", &format!("control-{n}-kms.json")));
        fs::write(at.join("four.toml"), topology).unwrap();

        let addresses = NODES.map(|node| {
            let [control, relay] = free_addresses().unwrap();
            (node, control, relay)
        });
        let mut server = String::from("site = \"kms\"\nstate = \"kms\"\n[management]\n");
        server += "topology = \"four.toml\"\n";
        for (node, control, relay) in &addresses {
            server += &format!("[[peer]]\nsite = \"{node}\"\naddress = \"{control}\"\n");
            server += &format!("[[key]]\npeer = \"{node}\"\nkind = \"sim\"\n");
            server += &format!("file = \"control-{node}-kms.json\"\n");
            let mut text = format!("site = \"{node}\"\nstate = \"{node}-kma\"\n");
            text += &format!("listen = \"{control}\"\n[management]\nserver = \"kms\"\n");
            text += &format!("relay-listen = \"{relay}\"\nsupply = \"{node}\"\n");
            text += "[[key]]\npeer = \"kms\"\nkind = \"sim\"\n";
            text += &format!("file = \"control-{node}-kms.json\"\n");
            for (a, b) in LINKS.iter().filter(|(a, b)| a == node || b == node) {
                let peer = if a == node { b } else { a };
                let (_, control, relay) = addresses.iter().find(|(n, ..)| n == peer).unwrap();
                text += &format!("[[peer]]\nsite = \"{peer}\"\naddress = \"{control}\"\n");
                text += &format!("[[key]]\npeer = \"{peer}\"\nkind = \"sim\"\n");
                text += &format!("file = \"control-{a}-{b}.json\"\n");
                text += &format!("[[management.link]]\npeer = \"{peer}\"\nrelay = \"{relay}\"\n");
                if *b != "cloud" {
                    text += &format!("qkd = \"link-{a}-{b}.json\"\nblock = \"4MiB\"\n");
                }
            }
            fs::write(at.join(format!("{node}-kma.toml")), text).unwrap();
        }
        fs::write(at.join("kms.toml"), server).unwrap();
        let bytes = ["--bytes", "32MB", "--output", "."];
        let made =
            dsgd(at, &[&["--json", "keys", "generate", "relay", "cloud"], &bytes[..]].concat());
        for (pad, (node, peer)) in [("relay", "cloud"), ("cloud", "relay")].iter().enumerate() {
            let pad = json(&made)["data"][pad].as_str().unwrap().to_owned();
            let import = ["keys", "import", &pad, "--managed", "--peer", peer];
            let config = format!("{node}-kma.toml");
            let all = [&["--config", &config], &import[..]].concat();
            assert!(dsgd(at, &all).status.success());
        }
        let mut daemons: Vec<_> =
            NODES.iter().map(|node| daemon(at, &format!("{node}-kma.toml"), "kma")).collect();
        daemons.push(daemon(at, "kms.toml", "kms"));
        Self { folder, _daemons: daemons }
    }

    fn run(&self, config: &str, arguments: &[&str]) -> Output {
        let all = [&["--json", "--config", config], arguments].concat();
        dsgd(self.folder.path(), &all)
    }

    fn done(&self, config: &str, arguments: &[&str]) -> Value {
        let output = self.run(config, arguments);
        assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
        json(&output)["data"].clone()
    }

    /// Waits until every link has this much.
    fn wait_for_key(&self, bytes: u64) {
        let watch = Stopwatch::start();
        loop {
            let levels = self.done("kms.toml", &["keys", "level"]);
            let levels = levels.as_array().unwrap();
            let enough = |level: &Value| {
                level["state"] == "up" && level["remaining"].as_u64().unwrap() >= bytes
            };
            if levels.len() == 2 * LINKS.len() && levels.iter().all(enough) {
                return;
            }
            assert!(watch.elapsed().as_secs() < 120, "{levels:#?}");
            Clock::system().sleep(std::time::Duration::from_millis(100));
        }
    }

    /// What both ledgers of a managed link say, after the oracle has checked them.
    fn spent(&self, from: &str, to: &str) -> u64 {
        let ledger = |node: &str, peer: &str, role| {
            let links = [LinkSettings::pooled(peer.parse().unwrap())];
            let state = self.folder.path().join(format!("{node}-kma/links"));
            let node: SiteId = node.parse().unwrap();
            let keys = KeyStore::open(node, &state, &links, Clock::system()).unwrap();
            keys.ledger(&peer.parse().unwrap(), role).unwrap()
        };
        let summary =
            ledger::check(&ledger(from, to, Role::Sender), &ledger(to, from, Role::Follower));
        summary.unwrap().claimed_units * 16
    }
}

fn path_of(supplied: &Value) -> Vec<&str> {
    supplied["paths"][0].as_array().unwrap().iter().map(|node| node.as_str().unwrap()).collect()
}

#[test]
fn a_deposit_goes_between_sites_without_a_link_by_relayed_key() {
    let network = Network::start();
    let at = network.folder.path();
    network.wait_for_key(12 << 20);

    // Share C goes to the cloud, where there is no link; share B to the neighbour.
    let wanted = ["3MB", "--back", "2500kB"];
    let plan = [&["keys", "plan", "tommo", "cloud"], &wanted[..]].concat();
    let planned = network.done("kms.toml", &plan);
    assert_eq!(planned["paths"][0]["nodes"], serde_json::json!(["tommo", "relay", "cloud"]));
    let order = [&["keys", "reserve", "tommo", "cloud"], &wanted[..]].concat();
    let supplied = network.done("kms.toml", &order);
    assert_eq!(path_of(&supplied), ["tommo", "relay", "cloud"]);
    let spent = supplied["spent"].as_u64().unwrap();
    assert_eq!(spent, network.spent("tommo", "relay") + network.spent("relay", "cloud"));
    assert_eq!(planned["per-link"], network.spent("tommo", "relay"));
    assert_eq!(network.spent("relay", "cloud"), 5_500_000 + 6 * 48, "in six parts");
    assert_eq!(network.spent("tommo", "hospital"), 0);
    let order = [&["keys", "reserve", "tommo", "hospital"], &wanted[..]].concat();
    assert_eq!(path_of(&network.done("kms.toml", &order)), ["tommo", "hospital"]);
    let refused = network.run("tommo-kma.toml", &order);
    assert_eq!(refused.status.code(), Some(78), "an agent orders nothing");

    let site = |name: &str, rest: &str| {
        let text =
            format!("site = \"{name}\"\nstate = \"{name}\"\nlisten = \"127.0.0.1:0\"\n{rest}");
        fs::write(at.join(format!("{name}.toml")), text).unwrap();
    };
    let store = |path: &str| {
        format!("[[store]]\nname = \"tommo\"\nkind = \"dir\"\npath = \"{path}/shares\"\n")
    };
    let mut holders = Vec::new();
    for name in ["hospital", "cloud"] {
        let rest = "[[key]]\npeer = \"tommo\"\nkind = \"pool\"\n\
                    [[peer]]\nsite = \"tommo\"\nmay = [\"store\"]\n";
        site(name, &(store(name) + rest));
        holders.push(daemon(at, &format!("{name}.toml"), "holder"));
    }
    let owner = |random: &str| {
        let mut rest = store("tommo");
        write!(rest, "[net]\nkey-wait-seconds = 2\n[share]\nrandom = \"{random}\"\n").unwrap();
        rest += "holder-b = \"hospital\"\nholder-c = \"cloud\"\n";
        for (name, holder) in ["hospital", "cloud"].iter().zip(&holders) {
            write!(rest, "[[peer]]\nsite = \"{name}\"\naddress = \"{}\"\n", holder.address())
                .unwrap();
            write!(rest, "[[key]]\npeer = \"{name}\"\nkind = \"pool\"\n").unwrap();
        }
        site("tommo", &rest);
    };
    // A relay knows the key: it must not become the random numbers of the shares.
    owner("key-stream");
    let base = |n: u64| char::from(b"ACGT"[(n * n / 7 % 4) as usize]);
    let mut reads = String::new();
    for number in 0..2000 {
        let read: String = (number..number + 150).map(base).collect();
        writeln!(reads, "@r{number}\n{read}\n+\n{}", "I".repeat(150)).unwrap();
    }
    fs::write(at.join("reads.fq"), &reads).unwrap();
    let put = ["put", "sample", "reads.fq"];
    let refused = network.run("tommo.toml", &put);
    assert_eq!(refused.status.code(), Some(77), "{}", stderr(&refused));
    owner("os");
    let report = network.done("tommo.toml", &put);
    assert!(report.to_string().contains("relayed"), "{report}");
    network.done("tommo.toml", &["get", "sample", "--output", "restored"]);
    let restored = fs::read_dir(at.join("restored")).unwrap().next().unwrap().unwrap().path();
    assert!(fs::read(restored).unwrap() == reads.as_bytes());

    // What was supplied and used is nowhere in the network, and no more of it can be had.
    let left = network.done("tommo.toml", &["keys", "level"]);
    let cloud = left.as_array().unwrap().iter().find(|link| link["peer"] == "cloud").unwrap();
    assert!(cloud["outgoing"]["remaining"].as_u64().unwrap() < 2_000_000);
    assert_eq!(cloud["provenance"]["source"], "relayed");
    assert!(cloud["provenance"]["known-to"].as_array().unwrap().contains(&"relay".into()));
}
