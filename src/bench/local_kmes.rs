//! Three key managers on this machine, as processes, with links between any two of them.

use std::fs;
use std::io::{self, BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

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
    addresses: Vec<[String; 2]>,
    daemons: Vec<Option<Child>>,
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
        let hosts = ["localhost".to_owned(), "127.0.0.1".to_owned()];
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
            addresses: free_addresses()?,
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
        self.daemons[number].as_ref().map_or(0, Child::id)
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
    pub fn kill(&mut self, number: usize) -> io::Result<()> {
        let Some(mut child) = self.daemons[number].take() else { return Ok(()) };
        child.kill()?;
        child.wait().map(drop)
    }

    /// Starts a key manager, again if it runs.
    pub fn restart(&mut self, number: usize) -> io::Result<()> {
        self.kill(number)?;
        let log = self.folder.join(format!("{}.log", SITES[number]));
        let mut child = Command::new(&self.program)
            .arg("--config")
            .arg(self.config(number))
            .args(["--json", "serve", "kme"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(fs::File::options().create(true).append(true).open(&log)?)
            .spawn()?;
        let mut answer = String::new();
        let mut out = BufReader::new(child.stdout.take().expect("standard output is piped"));
        // The document ends with a brace in the first column.
        while out.read_line(&mut answer)? > 0 && !answer.ends_with("\n}\n") {}
        let started = answer.contains("\"ok\": true");
        self.daemons[number] = Some(child);
        let what =
            || format!("kme-{} did not start: {answer}; see {}", SITES[number], log.display());
        if started { Ok(()) } else { Err(io::Error::other(what())) }
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

/// Two addresses for each site that are free now.
fn free_addresses() -> io::Result<Vec<[String; 2]>> {
    let all = (0..2 * SITES.len()).map(|_| TcpListener::bind("127.0.0.1:0"));
    let all: Vec<TcpListener> = all.collect::<io::Result<_>>()?;
    let address = |listener: &TcpListener| listener.local_addr().map(|address| address.to_string());
    all.chunks(2).map(|pair| Ok([address(&pair[0])?, address(&pair[1])?])).collect()
}

impl Drop for LocalKmes {
    fn drop(&mut self) {
        for number in 0..self.daemons.len() {
            // A process that has ended already needs no more.
            let _ = self.kill(number);
        }
    }
}
