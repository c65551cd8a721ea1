//! All sites of a small deployment on this machine: each a process of its own, on loopback.
//!
//! | site | role |
//! |---|---|
//! | `tommo` | data owner; keeps share A; has no daemon |
//! | `tommo-ts` | trusted server, in the same place as the owner |
//! | `lsa` | share holder: B |
//! | `hospital` | share holder: C |
//! | `clinic` | end user |
//!
//! Every pair that talks has a simulated link. The names are those of the 2021 and 2022 trials.

use std::fs;
use std::path::{Path, PathBuf};

use super::local_daemon::{LocalDaemon, free_addresses};
use crate::base::{BitRate, ByteCount, Clock, SiteId};
use crate::key::SimulatedLink;

/// What to start.
#[derive(Clone)]
pub struct Plan {
    /// The `dsgd` program.
    pub program: PathBuf,
    /// Folder for everything.
    pub folder: PathBuf,
    /// `otp`, or `plain` for comparison.
    pub cipher: &'static str,
    /// Key bytes that every link has at the start, both directions together.
    pub stock: ByteCount,
    /// Key rate of every link, both directions together.
    pub rate: BitRate,
    /// Reference FASTA, named `reference` in the trusted server's configuration.
    pub reference: PathBuf,
    /// Index of the reference, if there is a file of it.
    pub index: Option<PathBuf>,
    /// Rights, as TOML `[[right]]` tables.
    pub rights: String,
    /// Random numbers of sharing.
    pub random: String,
    /// Kind of the holders' stores: `dir` or `volume`.
    pub store: String,
    /// Worker threads of the trusted server's engine.
    pub threads: usize,
}

/// Running sites. They are stopped when this is dropped.
pub struct LocalSites {
    plan: Plan,
    daemons: Vec<Daemon>,
}

/// A site's process.
pub struct Daemon {
    /// Its name.
    pub site: &'static str,
    role: &'static str,
    process: LocalDaemon,
}

/// Every pair of sites that has a link.
pub const LINKS: [(&str, &str); 6] = [
    ("tommo", "lsa"),
    ("tommo", "hospital"),
    ("tommo", "tommo-ts"),
    ("tommo-ts", "lsa"),
    ("tommo-ts", "hospital"),
    ("tommo-ts", "clinic"),
];

impl LocalSites {
    /// Makes the links, writes a configuration for each site, and starts the daemons.
    pub fn start(plan: Plan) -> std::io::Result<Self> {
        fs::create_dir_all(&plan.folder)?;
        for (a, b) in LINKS {
            let path = plan.folder.join(format!("{a}-{b}.json"));
            if !path.exists() {
                let sites = [a, b].map(|name| name.parse::<SiteId>().expect("a plain name"));
                SimulatedLink::create(&path, sites, plan.rate, plan.stock, &Clock::system())
                    .map_err(std::io::Error::other)?;
            }
        }
        let mut sites = Self { plan, daemons: Vec::new() };
        for (site, role) in
            [("lsa", "holder"), ("hospital", "holder"), ("clinic", "user"), ("tommo-ts", "trusted")]
        {
            sites.configure(site)?;
            sites.launch(site, role)?;
        }
        sites.configure("tommo")?;
        Ok(sites)
    }

    /// The configuration file of a site.
    pub fn config(&self, site: &str) -> PathBuf {
        self.plan.folder.join(format!("{site}.toml"))
    }

    /// The running daemons.
    pub fn daemons(&self) -> &[Daemon] {
        &self.daemons
    }

    /// Kills a daemon as a power cut would, and starts it again at its old address.
    pub fn kill_and_restart(&mut self, site: &str) -> std::io::Result<()> {
        let place = self.daemons.iter().position(|daemon| daemon.site == site);
        let Some(place) = place else { return Err(std::io::Error::other("no such daemon")) };
        let Daemon { site, role, process } = self.daemons.remove(place);
        let address = process.address().to_owned();
        drop(process);
        self.write_config(site, &address)?;
        self.launch(site, role)
    }

    /// Kills a daemon for good.
    pub fn kill(&mut self, site: &str) {
        self.daemons.retain(|daemon| daemon.site != site);
    }

    fn launch(&mut self, site: &'static str, role: &'static str) -> std::io::Result<()> {
        let log = self.plan.folder.join(format!("{site}.log"));
        let process = LocalDaemon::start(&self.plan.program, &self.config(site), role, &log)?;
        self.daemons.push(Daemon { site, role, process });
        Ok(())
    }

    fn configure(&self, site: &'static str) -> std::io::Result<()> {
        let [address] = free_addresses()?;
        self.write_config(site, &address)
    }

    fn write_config(&self, site: &str, listen: &str) -> std::io::Result<()> {
        let plan = &self.plan;
        let mut text = String::new();
        let mut add = |line: String| {
            text += &line;
            text.push('\n');
        };
        add(format!("site = \"{site}\"\nstate = \"{site}\"\nlisten = \"{listen}\""));
        if site == "tommo" {
            add("trusted = \"tommo-ts\"".into());
        }
        if site == "tommo-ts" {
            add("owner = \"tommo\"\ncatalogue = \"tommo/catalogue\"".into());
        }
        if let Some(random) = matches!(site, "tommo" | "tommo-ts").then_some(&plan.random) {
            add(format!("[share]\nrandom = \"{random}\"\nholder-b = \"lsa\""));
            add("holder-c = \"hospital\"".into());
        }
        add(format!("[net]\ncipher = \"{}\"", plan.cipher));
        add(format!("[engine]\nthreads = {}", plan.threads));
        for (a, b) in LINKS {
            let peer = match site {
                _ if site == a => b,
                _ if site == b => a,
                _ => continue,
            };
            add(format!("[[key]]\npeer = \"{peer}\"\nkind = \"sim\"\nfile = \"{a}-{b}.json\""));
            add(format!("[[peer]]\nsite = \"{peer}\""));
            if let Some(daemon) = self.daemons.iter().find(|daemon| daemon.site == peer) {
                add(format!("address = \"{}\"", daemon.address()));
            }
            match site {
                "lsa" | "hospital" => add("may = [\"store\"]\ntenant = \"tommo\"".into()),
                "tommo-ts" if peer == "tommo" => add("may = [\"analyse\"]".into()),
                "clinic" => add("may = [\"deliver\"]".into()),
                _ => {}
            }
        }
        if site != "clinic" {
            let owner = if site == "tommo-ts" { "tommo" } else { site };
            let holds = matches!(site, "lsa" | "hospital");
            let kind = if holds { plan.store.as_str() } else { "dir" };
            add(format!("[[store]]\nname = \"tommo\"\nkind = \"{kind}\""));
            if kind == "volume" {
                // No more comes in than there are keys for.
                add(format!("bytes = {}", plan.stock.0.min(8 << 30)));
            }
            add(format!("path = \"{owner}/shares\""));
        }
        if site == "tommo-ts" {
            add(format!("[[reference]]\nname = \"reference\"\nfasta = {:?}", plan.reference));
            if let Some(index) = &plan.index {
                add(format!("index = {index:?}"));
            }
            add(plan.rights.clone());
        }
        fs::write(self.config(site), text)
    }
}

impl Daemon {
    /// Where it listens.
    pub fn address(&self) -> &str {
        self.process.address()
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.process.id()
    }
}

/// The most memory that a process has had in use, in bytes.
pub fn peak_memory(process: u32) -> u64 {
    let text = fs::read_to_string(Path::new("/proc").join(process.to_string()).join("status"));
    let text = text.unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("0");
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0) * 1024
}

/// User and system CPU seconds that a process and its threads have used.
pub fn cpu_seconds(process: u32) -> f64 {
    let text = fs::read_to_string(Path::new("/proc").join(process.to_string()).join("stat"));
    let text = text.unwrap_or_default();
    // The second field is the name in parentheses, which may hold anything.
    let fields: Vec<&str> = match text.rfind(')') {
        Some(end) => text[end + 1..].split_whitespace().collect(),
        None => return 0.0,
    };
    let ticks = |field: usize| fields.get(field).and_then(|text| text.parse().ok()).unwrap_or(0.0);
    let second = rustix::param::clock_ticks_per_second() as f64;
    (ticks(11) + ticks(12)) / second
}
