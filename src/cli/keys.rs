//! `dsgd keys`.

use std::path::{Path, PathBuf};

use clap::Subcommand;

use super::output::Table;
use super::{Context, Outcome, key_network, kme};
use crate::base::{BitRate, ByteCount, Clock, SiteId};
use crate::key::expansion::Method;
use crate::key::ledger::Role;
use crate::key::{self, RandomSettings, SimulatedLink, pad, pool, preshared};
use crate::site::key_node;

/// What to do with keys.
#[derive(Subcommand)]
pub enum Command {
    /// Show how many key bytes each link has left, and what they are worth
    ///
    /// At a node of a key network: what its agent manages, or all links that the server knows.
    Level {
        /// Show the links of a topology as its file describes them: tokyo-2022, healthcare-2022, or
        /// a file
        #[arg(long, value_name = "NAME")]
        topology: Option<String>,
    },
    /// Describe a simulated QKD link; both ends use the file
    Simulate {
        /// The two sites
        #[arg(num_args = 2, value_names = ["SITE", "SITE"])]
        sites: Vec<SiteId>,
        /// Key rate, both directions together
        #[arg(long, default_value = "10Mbit/s")]
        rate: BitRate,
        /// Key bytes there are at the start, both directions together
        #[arg(long, default_value = "1GB")]
        stock: ByteCount,
        /// Where to write the description
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
    },
    /// Make two equal pads, one for each end of a link, to be carried there by hand
    Generate {
        /// The two sites
        #[arg(num_args = 2, value_names = ["SITE", "SITE"])]
        sites: Vec<SiteId>,
        /// Bytes of each pad, both directions together
        #[arg(long)]
        bytes: ByteCount,
        /// Where the random numbers come from: os, or device:/dev/hwrng
        #[arg(long, default_value = "os")]
        random: RandomSettings,
        /// Make stored key useless without a part that importing gives to the keeper ('dsgd serve
        /// keeper'), which has it in memory only
        #[arg(long, value_enum)]
        expansion: Option<Expansion>,
        /// Folder for the two files
        #[arg(short, long, value_name = "FOLDER")]
        output: PathBuf,
    },
    /// Take a pad into this site's keys; the file is moved, not copied
    Import {
        /// The pad
        file: PathBuf,
        /// The site at the other end
        #[arg(long)]
        peer: SiteId,
        /// For the links that this node's key management agent manages
        #[arg(long)]
        managed: bool,
    },
    #[command(flatten)]
    Network(key_network::Command),
    #[command(flatten)]
    Kme(kme::Command),
    /// Give up all earlier keys of a link, at both ends: the way out of a quarantine
    Retire {
        /// The site at the other end
        peer: SiteId,
        /// Where the keys to send begin that are still good, as the other end says
        #[arg(long, value_name = "UNIT", default_value_t = 0)]
        outgoing: u64,
        /// Where the keys to receive begin that are still good, as the other end says
        #[arg(long, value_name = "UNIT", default_value_t = 0)]
        incoming: u64,
    },
}

/// How stored key becomes the key that is used.
#[derive(Clone, Copy, clap::ValueEnum)]
pub enum Expansion {
    /// As in Fig. 5 of the paper
    Fig5,
}

/// Runs `dsgd keys`.
pub fn run(context: &Context, command: &Command) -> Outcome {
    match command {
        Command::Level { topology } => match key_network::shown(context, topology.as_deref())? {
            true => Ok(()),
            false => level(context),
        },
        Command::Network(command) => key_network::run(context, command),
        Command::Kme(command) => kme::run(context, command),
        Command::Retire { peer, outgoing, incoming } => {
            let site = context.site()?;
            let outgoing = site.keys().declare_lost(peer, Role::Sender, *outgoing)?;
            let incoming = site.keys().declare_lost(peer, Role::Follower, *incoming)?;
            let here = &site.settings().site;
            let report = serde_json::json!({
                "peer": peer, "outgoing": outgoing, "incoming": incoming,
            });
            context.out.result("keys retire", &report, || {
                format!(
                    "earlier keys of the link to {peer} are given up; now at {peer}:\n  \
                     dsgd keys retire {here} --outgoing {incoming} --incoming {outgoing}\n\
                     and if it names other units, here again with these\n"
                )
            });
            Ok(())
        }
        Command::Simulate { sites, rate, stock, output } => {
            let sites = [sites[0].clone(), sites[1].clone()];
            SimulatedLink::create(output, sites, *rate, *stock, &Clock::system())?;
            context.out.result("keys simulate", output, || {
                format!("{}: a simulated link; its keys are computational\n", output.display())
            });
            Ok(())
        }
        Command::Generate { sites, bytes, random, expansion, output } => {
            let sites = [sites[0].clone(), sites[1].clone()];
            let none = || Err(no_stream(&sites[1]));
            let mut random = random.open(&sites[0], none)?;
            let clock = Clock::system();
            let method = expansion.as_ref().map(|Expansion::Fig5| Method::Fig5);
            let files = pad::generate_for(method, sites, *bytes, &mut *random, output, &clock)?;
            context.out.result("keys generate", &files, || {
                let class = random.provenance();
                files.iter().fold(String::new(), |text, file| {
                    text + &format!("{}: {bytes} of pad ({class})\n", file.display())
                })
            });
            Ok(())
        }
        Command::Import { file, peer, managed } => import(context, file, peer, *managed),
    }
}

fn import(context: &Context, file: &Path, peer: &SiteId, managed: bool) -> Outcome {
    let settings = context.settings()?;
    let pooled = |link: &key::LinkSettings| link.peer == *peer && link.kind == pool::KIND;
    if managed {
        key_node::managed_keys(&settings)?.import_pad(peer, file)?;
    } else if settings.key.iter().any(pooled) {
        context.site()?.keys().import_pad(peer, file)?;
    } else {
        preshared::import(&settings.site, &settings.state, peer, file)?;
    }
    context.out.result("keys import", peer, || {
        format!("{}: taken for the link to {peer}\n", file.display())
    });
    Ok(())
}

/// A pad cannot be made of the keys it is to become.
fn no_stream(peer: &SiteId) -> key::Error {
    key::Error::UnknownPeer { site: peer.clone(), peer: peer.clone() }
}

fn level(context: &Context) -> Outcome {
    let site = context.site()?;
    let keys = site.keys();
    let levels = keys.peers().iter().map(|peer| keys.level(peer)).collect::<Result<Vec<_>, _>>()?;
    context.out.result("keys level", &levels, || {
        let mut table = Table::new([
            "link to",
            "to send",
            "to receive",
            "spent",
            "supply",
            "keys",
            "on a stolen disk",
        ]);
        for level in &levels {
            table.row([
                level.peer.to_string(),
                level.outgoing.remaining.to_string(),
                level.incoming.remaining.to_string(),
                level.outgoing.spent.to_string(),
                level.outgoing.rate.to_string(),
                level.provenance.to_string(),
                level.at_rest.to_string(),
            ]);
        }
        table.render()
    });
    Ok(())
}
