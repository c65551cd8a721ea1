//! Three key managers on this machine, as processes, with links between any two of them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::local_daemon::{LocalDaemon, free_addresses};
use crate::base::{BitRate, ByteCount, Clock, SiteId};
use crate::etsi014::certificates;
use crate::etsi014::client::Endpoint;
use crate::etsi014::tls::Credentials;
use crate::etsi014::{Error, SaeId};
use crate::key::SimulatedLink;

/// The sites. The key manager of site `x` is called `kme-x`.
pub const SITES: [&str; 3] = ["a", "b", "c"];
/// Two applications of each site, called `sae-x1` and `sae-x2`, and one that is in no configuration.
pub const STRANGER: &str = "sae-stranger";

/// Key managers that run until this is dropped.
pub struct LocalKmes {
    program: PathBuf,
    folder: PathBuf,
    /// Addresses for applications, and for other key managers.
    addresses: [[String; 2]; SITES.len()],
    daemons: Vec<Option<LocalDaemon>>,
}

/// How the key managers are set up.
pub struct Plan<'a> {
    /// The program `dsgd`.
    pub program: &'a Path,
    /// A folder for all their files.
    pub folder: &'a Path,
    /// Key of each link at the start, both directions together.
    pub stock: ByteCount,
    /// Lines for the section `[kme]` of every site.
    pub settings: &'a str,
}

impl LocalKmes {
    /// Makes links, certificates and configurations, and starts the key managers.
    pub fn start(plan: &Plan<'_>) -> io::Result<Self> {
        let folder = plan.folder;
        fs::create_dir_all(folder)?;
        let id = |text: String| text.parse::<SaeId>().map_err(io::Error::other);
        let kmes = SITES
            .map(|site| id(format!("kme-{site}")))
            .into_iter()
            .collect::<Result<Vec<_>, _>>()?;
        let saes = SITES.iter().flat_map(|site| [1, 2].map(|number| format!("sae-{site}{number}")));
        let saes = saes.chain([STRANGER.into()]).map(id).collect::<Result<Vec<_>, _>>()?;
        let mut addresses = [const { [const { String::new() }; 2] }; SITES.len()];
        for pair in &mut addresses {
            *pair = free_addresses()?;
        }
        let hosts = addresses.iter().map(|[address, _]| address.split(':').next().unwrap_or(""));
        let hosts: Vec<_> = hosts.chain(["localhost"]).map(str::to_owned).collect();
        certificates::write(&folder.join("certificates"), &kmes, &saes, &hosts)
            .map_err(io::Error::other)?;
        for (number, a) in SITES.iter().enumerate() {
            for b in &SITES[number + 1..] {
                let sites = [a, b].map(|name| name.parse::<SiteId>().expect("a plain name"));
                let path = folder.join(format!("{a}-{b}.json"));
                SimulatedLink::create(&path, sites, BitRate(0), plan.stock, &Clock::system())
                    .map_err(io::Error::other)?;
            }
        }
        let mut kmes = Self {
            program: plan.program.into(),
            folder: folder.into(),
            addresses,
            daemons: Vec::new(),
        };
        for number in 0..SITES.len() {
            fs::write(kmes.config(number), kmes.configuration(number, plan.settings))?;
            kmes.daemons.push(None);
            kmes.restart(number)?;
        }
        Ok(kmes)
    }

    /// The configuration of the site with this number.
    pub fn config(&self, number: usize) -> PathBuf {
        self.folder.join(format!("{}.toml", SITES[number]))
    }

    /// Where applications call the key manager with this number, `host:port`.
    pub fn address(&self, number: usize) -> &str {
        &self.addresses[number][0]
    }

    /// The process of the key manager with this number; 0 when it does not run.
    pub fn process(&self, number: usize) -> u32 {
        self.daemons[number].as_ref().map_or(0, LocalDaemon::id)
    }

    /// A file of the folder with the certificates.
    pub fn certificate(&self, name: &str) -> PathBuf {
        self.folder.join("certificates").join(name)
    }

    /// The key manager with this number, as the application `sae` calls it.
    pub fn endpoint(&self, number: usize, sae: &str) -> Result<Endpoint, Error> {
        let credentials = Credentials {
            certificate: &self.certificate(&format!("{sae}.pem")),
            private_key: &self.certificate(&format!("{sae}.key")),
            authority: &self.certificate(certificates::AUTHORITY),
        };
        let url = format!("https://{}", self.address(number));
        Endpoint::new(&url, credentials.client()?, Duration::from_secs(30))
    }

    /// Kills a key manager as a power cut would.
    pub fn kill(&mut self, number: usize) {
        self.daemons[number] = None;
    }

    /// Starts a key manager, again if it runs.
    pub fn restart(&mut self, number: usize) -> io::Result<()> {
        self.kill(number);
        let log = self.folder.join(format!("{}.log", SITES[number]));
        let daemon = LocalDaemon::start(&self.program, &self.config(number), "kme", &log)?;
        self.daemons[number] = Some(daemon);
        Ok(())
    }

    fn configuration(&self, number: usize, settings: &str) -> String {
        let site = SITES[number];
        let [applications, peers] = &self.addresses[number];
        let mut text = format!(
            "site = \"{site}\"\nstate = \"state-{site}\"\nlisten = \"{peers}\"\n\n[kme]\n\
             listen = \"{applications}\"\ncertificate = \"certificates/kme-{site}.pem\"\n\
             private-key = \"certificates/kme-{site}.key\"\n\
             authority = \"certificates/authority.pem\"\n{settings}\n\n[kme.peers]\n"
        );
        let mut add = |line: std::fmt::Arguments<'_>| {
            text += &format!("{line}\n");
        };
        for other in SITES {
            add(format_args!("{other} = \"kme-{other}\""));
        }
        for other in SITES {
            for sae in [1, 2] {
                add(format_args!("\n[[kme.sae]]\nid = \"sae-{other}{sae}\"\nsite = \"{other}\""));
            }
        }
        for (other, [_, address]) in
            SITES.iter().zip(&self.addresses).filter(|(other, _)| **other != site)
        {
            let (a, b) = (site.min(other), site.max(other));
            add(format_args!(
                "\n[[peer]]\nsite = \"{other}\"\naddress = \"{address}\"\n\n[[key]]\n\
                 peer = \"{other}\"\nkind = \"sim\"\nfile = \"{a}-{b}.json\""
            ));
        }
        text
    }
}
