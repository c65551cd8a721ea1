//! Whole deployments on loopback: every site a process, links simulated, faults real.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use dsgd::base::{BitRate, ByteCount, Clock, SiteId};
use dsgd::bench::local_sites::{Daemon, LINKS, LocalSites, Plan};
use dsgd::bench::sample::{Sample, SampleSettings};
use dsgd::genome::bgzf;
use dsgd::key::ledger::{self, Role};
use dsgd::key::{KeyStore, LinkSettings};

const RIGHT: &str = "[[right]]\nid = \"panel\"\nuser = \"clinic\"\npurpose = \"test\"\n\
                     regions = [\"sim1:1-20000\", \"g37_20_9999841_10099980:1-60000\"]\n";

/// A deployment in a temporary folder, with a sample to deposit.
struct World {
    folder: tempfile::TempDir,
    sites: LocalSites,
}

impl World {
    fn start() -> Self {
        Self::with(ByteCount(1_000_000_000), BitRate(0))
    }

    fn with(stock: ByteCount, rate: BitRate) -> Self {
        Self::of("dir", stock, rate)
    }

    fn of(store: &str, stock: ByteCount, rate: BitRate) -> Self {
        let folder = tempfile::tempdir().unwrap();
        make_sample(folder.path());
        Self::in_folder(folder, "reference.fa".into(), store, stock, rate)
    }

    fn in_folder(
        folder: tempfile::TempDir,
        reference: PathBuf,
        store: &str,
        stock: ByteCount,
        rate: BitRate,
    ) -> Self {
        let sites = LocalSites::start(Plan {
            program: env!("CARGO_BIN_EXE_dsgd").into(),
            folder: folder.path().into(),
            cipher: "otp",
            stock,
            rate,
            reference,
            index: None,
            rights: RIGHT.into(),
            random: "key-stream".into(),
            store: store.into(),
            threads: 1,
        });
        Self { sites: sites.unwrap(), folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The owner's program with these arguments.
    fn owner(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dsgd"));
        command.arg("--config").arg(self.sites.config("tommo")).arg("--json").args(arguments);
        command.current_dir(self.folder.path());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.owner(arguments).output().unwrap()
    }

    fn good(&self, arguments: &[&str]) -> serde_json::Value {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn put(&self, name: &str) {
        self.good(&["put", name, "reads_1.fq.gz", "reads_2.fq.gz"]);
    }

    /// Restores a deposit of the sample and compares it with what was deposited.
    fn assert_restores(&self, name: &str, more: &[&str]) -> Output {
        let into = self.path("restored");
        let mut arguments = vec!["get", name, "--output", "restored"];
        arguments.extend(more);
        let output = self.run(&arguments);
        assert!(output.status.success(), "{more:?}: {}", text(&output.stderr));
        for file in ["reads_1.fq.gz", "reads_2.fq.gz"] {
            let same = fs::read(self.path(file)).unwrap() == fs::read(into.join(file)).unwrap();
            assert!(same, "{file} {more:?}");
        }
        fs::remove_dir_all(into).unwrap();
        output
    }

    /// Whether the only file in the end user's inbox is what a filter makes of the run's calls; gives
    /// the number of its records.
    fn assert_the_delivery_is_filtered(&self, run: &str) -> u64 {
        self.good(&["get", run, "--output", "calls"]);
        let filtered = self.path("filtered.vcf.gz");
        let trusted = Command::new(env!("CARGO_BIN_EXE_dsgd"))
            .arg("--config")
            .arg(self.sites.config("tommo-ts"))
            .args(["--json", "filter"])
            .arg(self.path(&format!("calls/{run}.vcf.gz")))
            .args(["--right", "panel", "--output"])
            .arg(&filtered)
            .output()
            .unwrap();
        assert!(trusted.status.success(), "{}", text(&trusted.stderr));
        let inbox = fs::read_dir(self.path("clinic/inbox")).unwrap().flatten();
        let delivered: Vec<_> = inbox
            .map(|entry| entry.path())
            .filter(|path| path.extension() == Some("gz".as_ref()))
            .collect();
        assert_eq!(delivered.len(), 1);
        assert!(fs::read(&delivered[0]).unwrap() == fs::read(filtered).unwrap());
        let report: serde_json::Value = serde_json::from_slice(&trusted.stdout).unwrap();
        report["data"]["kept"].as_u64().unwrap()
    }

    /// The oracle: no key was spent twice at either end of any link.
    fn assert_no_key_was_used_twice(&self) -> u64 {
        let store = |site: &str, peer: &str, file: &Path| {
            let link = LinkSettings::simulated(id(peer), file);
            let state = self.path(site);
            KeyStore::open(id(site), &state, &[link], Clock::system()).unwrap()
        };
        let mut units = 0;
        for (a, b) in LINKS {
            let file = self.path(&format!("{a}-{b}.json"));
            for (from, to) in [(a, b), (b, a)] {
                let sent = store(from, to, &file).ledger(&id(to), Role::Sender).unwrap();
                let taken = store(to, from, &file).ledger(&id(from), Role::Follower).unwrap();
                units += ledger::check(&sent, &taken).unwrap().reserved_units;
            }
        }
        units
    }

    fn share_files(&self, site: &str) -> Vec<PathBuf> {
        let mut found = Vec::new();
        files_under(&self.path(site).join("shares"), &mut found);
        found
    }
}

fn id(name: &str) -> SiteId {
    name.parse().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn files_under(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            files_under(&entry.path(), found);
        } else {
            found.push(entry.path());
        }
    }
}

fn make_sample(folder: &Path) {
    let sample = Sample::new(SampleSettings {
        contigs: vec![40_000],
        depth: 25.0,
        ..SampleSettings::default()
    });
    sample.write_fasta(fs::File::create(folder.join("reference.fa")).unwrap()).unwrap();
    let (mut first, mut second) = (Vec::new(), Vec::new());
    sample.write_reads(&mut first, &mut second).unwrap();
    fs::write(folder.join("reads_1.fq.gz"), bgzf::compress(&first, 1)).unwrap();
    fs::write(folder.join("reads_2.fq.gz"), bgzf::compress(&second, 1)).unwrap();
}

/// Changes one byte of the largest file of a site's shares: a stripe.
fn corrupt_a_share(world: &World, site: &str) {
    let mut files = world.share_files(site);
    files.sort_by_key(|path| fs::metadata(path).unwrap().len());
    let path = files.last().unwrap();
    let mut bytes = fs::read(path).unwrap();
    bytes[1000] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[test]
fn the_whole_job_on_a_small_sample() {
    let world = World::start();
    world.put("s1");
    for pair in ["ab", "ac", "bc"] {
        world.assert_restores("s1", &["--shares", pair]);
    }
    world.good(&["run", "s1", "--reference", "reference"]);
    world.good(&["deliver", "s1.calls", "clinic", "--right", "panel"]);
    assert!(world.assert_the_delivery_is_filtered("s1.calls") > 0);
    assert!(world.assert_no_key_was_used_twice() > 0);
}

#[test]
fn files_of_any_length_come_back() {
    let world = World::start();
    let stripe = (1 << 20) - 48;
    let mut names = Vec::new();
    for length in [0, 1, 4095, stripe - 1, stripe, stripe + 1, 2 * stripe + 77] {
        let bytes: Vec<u8> = (0..length).map(|at| (at * at % 253) as u8).collect();
        let name = format!("file-{length}");
        fs::write(world.path(&name), bytes).unwrap();
        names.push(name);
    }
    let mut put = vec!["put", "odd"];
    put.extend(names.iter().map(String::as_str));
    world.good(&put);
    for pair in ["ab", "ac", "bc"] {
        world.good(&["get", "odd", "--output", pair, "--shares", pair]);
        for name in &names {
            let same = fs::read(world.path(name)).unwrap()
                == fs::read(world.path(pair).join(name)).unwrap();
            assert!(same, "{name} from {pair}");
        }
    }
}

/// Devices of this machine besides the CPU; those that the environment requires must be there.
fn devices(world: &World) -> Vec<(String, String)> {
    let listed = world.good(&["device", "list"]);
    let required = std::env::var("DSGD_REQUIRE_DEVICES").unwrap_or_default();
    let mut found = Vec::new();
    for kind in listed["data"].as_array().unwrap() {
        let name = kind["device"].as_str().unwrap();
        match kind["model"].as_str() {
            Some(_) if name == "cpu" => {}
            Some(model) => found.push((name.into(), model.into())),
            None => assert!(!required.split(',').any(|one| one == name), "{kind}"),
        }
    }
    if found.is_empty() {
        eprintln!("skipped: this machine has the CPU only");
    }
    found
}

/// A deposit of two files, the longer of which does not go to a device at once.
fn write_files(world: &World) -> [&'static str; 2] {
    for (name, length) in [("long", (10 << 20) + 5), ("short", 100)] {
        let bytes: Vec<u8> = (0..length).map(|at: usize| (at * at % 251) as u8).collect();
        fs::write(world.path(name), bytes).unwrap();
    }
    ["long", "short"]
}

fn assert_same(world: &World, folder: &str, names: [&str; 2]) {
    for name in names {
        let restored = fs::read(world.path(folder).join(name)).unwrap();
        assert!(restored == fs::read(world.path(name)).unwrap(), "{name} in {folder}");
    }
}

#[test]
fn every_device_splits_restores_and_mends_alike() {
    let world = World::start();
    let names = write_files(&world);
    for (device, _) in devices(&world) {
        let on = ["--device", device.as_str()];
        let put = world.good(&[&["put", &device], &names[..], &on].concat());
        assert_eq!(put["data"]["devices"][0]["device"], device.as_str());
        assert_eq!(put["data"]["devices"][0]["kernel"], "split");
        for (pair, get) in [("ab", &on[..]), ("bc", &on), ("bc", &[])] {
            let folder = format!("{device}-{pair}-{}", get.len());
            let words = ["get", device.as_str(), "--output", &folder, "--shares", pair];
            world.good(&[&words, get].concat());
            assert_same(&world, &folder, names);
        }
        // A share that is lost, and one stripe of another.
        let files = world.share_files("lsa");
        assert!(!files.is_empty());
        files.iter().for_each(|path| fs::remove_file(path).unwrap());
        world.good(&[&["store", "repair", &device], &on[..]].concat());
        corrupt_a_share(&world, "hospital");
        world.good(&[&["store", "repair", &device], &on[..]].concat());
        world.good(&["store", "verify", &device]);
        let words = ["get", device.as_str(), "--output", "mended", "--shares", "bc"];
        world.good(&[&words, &on[..]].concat());
        assert_same(&world, "mended", names);
        fs::remove_dir_all(world.path("mended")).unwrap();
    }
    let asked = ["run", "cpu", "--reference", "reference", "--device", "cpu"];
    let refused = world.run(&asked);
    assert_eq!(refused.status.code(), Some(2), "the trusted server's configuration says it");
    world.good(&["put", "small", "short"]);
    let told = world.run(&["get", "small", "--output", "none", "--device", "cpu:1"]);
    assert_eq!(told.status.code(), Some(69), "{}", text(&told.stderr));
}

/// Needs the simulated CUDA driver of `kernels/shim`, whose cards can be lost.
#[test]
fn a_card_that_is_lost_in_mid_run_changes_nothing() {
    let world = World::start();
    let names = write_files(&world);
    let is_simulated =
        |(device, model): &(String, String)| device == "cuda" && model.contains("simulated card");
    if !devices(&world).iter().any(is_simulated) {
        return eprintln!("skipped: no simulated CUDA driver");
    }
    for launches in [1, 4, 7] {
        let name = format!("lost-{launches}");
        let lost = |words: &[&str]| {
            let mut command = world.owner(&[words, &["--device", "cuda"]].concat());
            let output = command.env("DSGD_SHIM_LAUNCHES", launches.to_string()).output().unwrap();
            assert!(output.status.success(), "{}", text(&output.stderr));
            let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
            let notices = report["data"]["notices"].as_array().unwrap();
            let last = notices.last().expect("it is told").as_str().unwrap().to_owned();
            assert!(last.contains("cuda") && last.contains("the CPU goes on"), "{last}");
        };
        lost(&["put", &name, names[0], names[1]]);
        lost(&["get", &name, "--output", &name, "--shares", "ab"]);
        assert_same(&world, &name, names);
        let after = format!("{name}-cpu");
        world.good(&["get", &name, "--output", &after, "--shares", "bc"]);
        assert_same(&world, &after, names);
    }
}

/// Real reads of HG002: deposited, restored from every pair, analysed, delivered, and right.
#[test]
fn the_whole_job_on_real_reads() {
    let shared = std::env::var_os("DSGD_SHARED").map(PathBuf::from);
    let shared = shared.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared"));
    let data = shared.join("data/human_HG002_chr20_slices");
    if !data.is_dir() {
        eprintln!("skipped: shared data absent");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for (from, to) in
        [("HG002_NIST_R1.fastq.gz", "reads_1.fq.gz"), ("HG002_NIST_R2.fastq.gz", "reads_2.fq.gz")]
    {
        fs::copy(data.join(from), folder.path().join(to)).unwrap();
    }
    let reference = data.join("ref_slices.fa").canonicalize().unwrap();
    let world = World::in_folder(folder, reference, "dir", ByteCount(1_000_000_000), BitRate(0));
    world.put("HG002");
    for pair in ["ab", "ac", "bc"] {
        world.assert_restores("HG002", &["--shares", pair]);
    }
    let report = world.good(&["run", "HG002", "--reference", "reference"]);
    assert_eq!(report["data"][0]["reads"], 2 * 10_507);
    world.good(&["deliver", "HG002.calls", "clinic", "--right", "panel"]);
    assert!(world.assert_the_delivery_is_filtered("HG002.calls") > 20);
    world.assert_no_key_was_used_twice();
}

#[test]
fn holders_may_keep_shares_on_volumes() {
    let world = World::of("volume", ByteCount(1_000_000_000), BitRate(0));
    world.put("s1");
    world.put("s2");
    world.assert_restores("s1", &["--shares", "bc"]);
    world.assert_restores("s2", &["--shares", "bc"]);
    world.good(&["store", "verify", "s2"]);
}

#[test]
fn a_share_alone_says_nothing_of_names_and_is_not_the_data() {
    let world = World::start();
    world.put("patient-zero");
    for site in ["lsa", "hospital"] {
        let mut files = Vec::new();
        files_under(&world.path(site), &mut files);
        for path in files {
            let content = fs::read(&path).unwrap();
            for secret in ["patient-zero", "reads_1", "@sim:"] {
                let found = content.windows(secret.len()).any(|window| window == secret.as_bytes());
                assert!(!found, "{} holds {secret}", path.display());
                assert!(!path.to_string_lossy().replace("/shares/", "").ends_with(secret));
            }
        }
    }
}

#[test]
fn the_loss_of_any_one_holder_is_survived() {
    let mut world = World::start();
    world.put("s1");
    world.sites.kill("lsa");
    let output = world.assert_restores("s1", &[]);
    assert!(text(&output.stderr).contains("lsa"), "{}", text(&output.stderr));
    let refused = world.run(&["get", "s1", "--output", "x", "--shares", "bc"]);
    assert_eq!(refused.status.code(), Some(69));
    world.good(&["run", "s1", "--reference", "reference"]);
}

#[test]
fn a_corrupt_share_is_found_named_and_mended() {
    let world = World::start();
    world.put("s1");
    corrupt_a_share(&world, "lsa");
    let output = world.assert_restores("s1", &["--shares", "ac"]);
    assert!(!text(&output.stderr).contains("corrupt"));
    let output = world.assert_restores("s1", &[]);
    assert!(text(&output.stderr).contains("stripe 0 is corrupt"), "{}", text(&output.stderr));
    // Where no third share may be used, the error says what is wrong with the second.
    let refused = world.run(&["get", "s1", "--output", "x", "--shares", "bc"]);
    assert_eq!(refused.status.code(), Some(76));
    assert!(!text(&refused.stderr).contains("do not fit"), "{}", text(&refused.stderr));
    let verified = world.run(&["store", "verify", "s1"]);
    assert_eq!(verified.status.code(), Some(76), "{}", text(&verified.stderr));
    world.good(&["store", "repair", "s1"]);
    world.good(&["store", "verify", "s1"]);
    world.assert_restores("s1", &["--shares", "bc"]);
}

#[test]
fn a_lost_share_is_rebuilt() {
    let world = World::start();
    world.put("s1");
    for path in world.share_files("hospital") {
        fs::remove_file(path).unwrap();
    }
    world.good(&["store", "repair", "s1"]);
    world.good(&["store", "verify", "s1"]);
    world.assert_restores("s1", &["--shares", "bc"]);
}

#[test]
fn without_keys_nothing_is_sent_and_nothing_is_half_stored() {
    let world = World::with(ByteCount(400_000), BitRate(0));
    let output = world
        .owner(&["put", "s1", "reads_1.fq.gz", "reads_2.fq.gz"])
        .env("DSGD_SET_NET__KEY_WAIT_SECONDS", "1")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(75), "{}", text(&output.stderr));
    let unfinished = world.run(&["get", "s1", "--output", "x"]);
    assert_eq!(unfinished.status.code(), Some(66));
    world.assert_no_key_was_used_twice();
}

#[test]
fn a_transfer_waits_for_keys_and_says_so() {
    let world = World::with(ByteCount(1_000_000), BitRate(8_000_000));
    let output = world.run(&["put", "s1", "reads_1.fq.gz", "reads_2.fq.gz"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("waiting for keys"), "{}", text(&output.stderr));
    world.assert_restores("s1", &["--shares", "bc"]);
}

#[test]
fn what_is_not_permitted_is_refused() {
    let world = World::start();
    world.put("s1");
    // The owner may not have anything analysed at a share holder, nor deliver to itself.
    let refused = world.run(&["run", "s1", "--reference", "reference", "--trusted", "lsa"]);
    assert_eq!(refused.status.code(), Some(77), "{}", text(&refused.stderr));
    let again = world.run(&["put", "s1", "reads_1.fq.gz"]);
    assert_eq!(again.status.code(), Some(77));
    let unknown = world.run(&["deliver", "s1.calls", "clinic", "--right", "everything"]);
    assert_eq!(unknown.status.code(), Some(78), "{}", text(&unknown.stderr));
    let nothing = world.run(&["get", "s2", "--output", "x"]);
    assert_eq!(nothing.status.code(), Some(66));
}

#[test]
fn a_full_disk_leaves_nothing_half_committed() {
    let mut world = World::start();
    let shares = world.path("lsa/shares");
    fs::create_dir_all(&shares).unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=1m", "none"])
        .arg(&shares)
        .status()
        .is_ok_and(|status| status.success());
    if !mounted {
        eprintln!("skipped: mounting a small file system is not permitted here");
        return;
    }
    let output = world.run(&["put", "s1", "reads_1.fq.gz", "reads_2.fq.gz"]);
    let left: u64 =
        world.share_files("lsa").iter().map(|path| fs::metadata(path).unwrap().len()).sum();
    let status = Command::new("umount").arg(&shares).status().unwrap();
    assert!(status.success());
    assert_eq!(output.status.code(), Some(74), "{}", text(&output.stderr));
    assert!(left < 1 << 20, "{left} bytes of an aborted share are left");
    assert_eq!(world.run(&["get", "s1", "--output", "x"]).status.code(), Some(66));
    // A disk that was taken from under a store is not written around.
    world.sites.kill_and_restart("lsa").unwrap();
    world.put("s1");
    world.assert_restores("s1", &["--shares", "bc"]);
}

#[test]
fn a_get_to_a_full_disk_leaves_no_file() {
    let world = World::start();
    world.put("s1");
    let into = world.path("small");
    fs::create_dir_all(&into).unwrap();
    let mount = ["-t", "tmpfs", "-o", "size=64k", "none"];
    if !Command::new("mount").args(mount).arg(&into).status().is_ok_and(|status| status.success()) {
        eprintln!("skipped: mounting a small file system is not permitted here");
        return;
    }
    let output = world.run(&["get", "s1", "--output", "small"]);
    let mut left = Vec::new();
    files_under(&into, &mut left);
    assert!(Command::new("umount").arg(&into).status().unwrap().success());
    assert_eq!(output.status.code(), Some(74), "{}", text(&output.stderr));
    assert!(left.is_empty(), "{left:?}");
}

/// Kills the owner's program or a daemon at `moments` spread over `put` and `run`, each time puts
/// the sample again under the same name, and lets the oracle look at all ledgers.
fn kill_at_moments(moments: u32, victims: &[&'static str]) {
    let mut world = World::start();
    world.put("whole");
    for moment in 0..moments {
        let victim = victims[moment as usize % victims.len()];
        let name = format!("s{moment}");
        let running = moment % 2 == 1;
        let arguments: Vec<&str> = if running {
            vec!["run", "whole", "--reference", "reference", "--run", &name]
        } else {
            vec!["put", &name, "reads_1.fq.gz", "reads_2.fq.gz"]
        };
        let mut child =
            world.owner(&arguments).stdout(std::process::Stdio::null()).spawn().unwrap();
        // Moments from the start of the program to past its usual end.
        std::thread::sleep(Duration::from_millis(u64::from(
            7 + 41 * (moment * 13 % moments.max(8)) / 4,
        )));
        if victim == "tommo" {
            child.kill().unwrap();
        } else {
            world.sites.kill_and_restart(victim).unwrap();
        }
        let _ = child.wait().unwrap();
        world.assert_no_key_was_used_twice();
        // What was committed is whole, and the job can be done again or is done.
        world.assert_restores("whole", &["--shares", if moment % 3 == 0 { "bc" } else { "ab" }]);
        let mut again = world.run(&arguments);
        // A trusted server finishes what it was asked for, also without the one who asked.
        for _ in 0..100 {
            if again.status.code() != Some(75) {
                break;
            }
            std::thread::sleep(Duration::from_millis(100));
            again = world.run(&arguments);
        }
        let done = again.status.success() || again.status.code() == Some(77);
        assert!(done, "{victim} {arguments:?}: {}", text(&again.stderr));
        if !running {
            world.assert_restores(&name, &["--shares", "bc"]);
        }
    }
    assert!(world.assert_no_key_was_used_twice() > 0);
}

#[test]
fn killed_at_some_moments_nothing_is_lost_and_no_key_is_used_twice() {
    kill_at_moments(10, &["tommo", "lsa", "tommo", "hospital", "tommo-ts"]);
}

#[test]
#[ignore = "takes minutes"]
fn killed_at_fifty_moments_nothing_is_lost_and_no_key_is_used_twice() {
    kill_at_moments(50, &["tommo", "lsa", "tommo", "hospital", "tommo-ts"]);
}

#[test]
fn a_daemon_outlives_garbage() {
    let world = World::start();
    world.put("s1");
    for address in world.sites.daemons().iter().map(Daemon::address) {
        for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 5000], b""] {
            let mut stream = std::net::TcpStream::connect(address).unwrap();
            // The daemon may hang up at the first byte.
            let _ = stream.write_all(garbage);
        }
    }
    world.assert_restores("s1", &["--shares", "bc"]);
}
