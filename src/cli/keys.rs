//! `dsgd keys`.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::json;

use super::output::Table;
use super::{Context, Error, Outcome, kme};
use crate::base::{BitRate, ByteCount, Clock, Fault, Faulty, SiteId};
use crate::key::expansion::Method;
use crate::key::ledger::Role;
use crate::key::{self, RandomSettings, SimulatedLink, pad, pool, preshared};
use crate::management::console::{self, Answer, Question};
use crate::management::plan::by_name;
use crate::management::protocol::Report;
use crate::management::{self, Level, Order, Supplied, Topology};
use crate::site::{Settings, key_node};

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
    /// Show which way key for two sites would be relayed, and what it would cost
    Plan {
        #[command(flatten)]
        order: OrderArguments,
        /// Plan with the stocks of a topology, instead of those that the server knows
        #[arg(long, value_name = "NAME")]
        topology: Option<String>,
    },
    /// Get key for two sites from the key network: to be asked of its server
    Reserve {
        #[command(flatten)]
        order: OrderArguments,
    },
    /// Destroy all key of a link that is left here; the other end has to do the same
    Erase {
        /// The site at the other end
        peer: SiteId,
        /// Of the links that this node's key management agent manages
        #[arg(long)]
        managed: bool,
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

/// Which key is wanted.
#[derive(Args)]
pub struct OrderArguments {
    /// The node whose site sends with it
    from: SiteId,
    /// The node whose site receives with it
    to: SiteId,
    /// How much
    bytes: ByteCount,
    /// How much in the other direction
    #[arg(long, default_value = "0", value_name = "BYTES")]
    back: ByteCount,
    /// Over how many paths that share no node: the key is safe if one of them is honest
    #[arg(long, default_value_t = 1, value_name = "PATHS")]
    disjoint: usize,
}

impl OrderArguments {
    fn order(&self) -> Order {
        let Self { from, to, bytes, back, disjoint } = self;
        let (from, to) = (from.clone(), to.clone());
        Order { from, to, bytes: *bytes, back: *back, disjoint: *disjoint }
    }
}

/// Runs `dsgd keys`.
pub fn run(context: &Context, command: &Command) -> Outcome {
    match command {
        Command::Kme(command) => kme::run(context, command),
        Command::Level { topology: Some(name) } => network_level(context, &nominal(name)?),
        Command::Level { topology: None } => match managed(&context.settings()?) {
            true => managed_level(context),
            false => level(context),
        },
        Command::Plan { order, topology } => plan(context, &order.order(), topology.as_deref()),
        Command::Reserve { order } => reserve(context, order.order()),
        Command::Erase { peer, managed } => erase(context, peer, *managed),
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

fn erase(context: &Context, peer: &SiteId, managed: bool) -> Outcome {
    let settings = context.settings()?;
    let [outgoing, incoming] = match managed {
        true => key_node::managed_keys(&settings)?.erase(peer)?,
        false => context.site()?.keys().erase(peer)?,
    };
    let report = json!({"peer": peer, "outgoing": outgoing, "incoming": incoming});
    context.out.result("keys erase", &report, || {
        format!("link to {peer}: {outgoing} to send with and {incoming} to receive with are gone\n")
    });
    Ok(())
}

/// Whether the settings are those of a node of a key network.
fn managed(settings: &Settings) -> bool {
    settings.management.topology.is_some() || settings.management.server.is_some()
}

fn ask(context: &Context, question: &Question) -> Result<Answer, Box<dyn Faulty>> {
    let settings = context.settings()?;
    Ok(console::ask(&settings.site, &settings.state, question)?)
}

fn unexpected() -> Error {
    Error::Check { what: "the node answered something else".into(), fault: Fault::Bug }
}

/// The links of a topology as its file has them.
fn nominal(name: &str) -> Result<Vec<Level>, management::Error> {
    let topology = Topology::load(name)?;
    let network = topology.network();
    let levels = by_name(network.edges()).into_iter().map(|edge| {
        let link = topology.link(&edge.from, &edge.to);
        Level::of(edge, "planned", link.map_or(key::Source::Qkd, |link| link.kind.source()))
    });
    Ok(levels.collect())
}

fn managed_level(context: &Context) -> Outcome {
    match ask(context, &Question::Level)? {
        Answer::Levels(levels) => network_level(context, &levels),
        Answer::Report(report) => {
            agent_level(context, &report);
            Ok(())
        }
        _ => Err(unexpected().into()),
    }
}

fn network_level(context: &Context, levels: &[Level]) -> Outcome {
    context.out.result("keys level", &levels, || {
        let mut table =
            Table::new(["from", "to", "remaining", "of", "rate", "full in", "keys", "state"]);
        for level in levels {
            table.row([
                level.from.to_string(),
                level.to.to_string(),
                level.remaining.to_string(),
                level.stock.to_string(),
                level.rate.to_string(),
                level.full_in.map_or("never".into(), |time| format!("{} s", time.as_secs())),
                level.source.to_string(),
                level.state.clone(),
            ]);
        }
        table.render()
    });
    Ok(())
}

fn agent_level(context: &Context, report: &Report) {
    context.out.result("keys level", report, || {
        let mut table = Table::new([
            "link to",
            "to send",
            "to receive",
            "pending",
            "lost",
            "supply",
            "control",
            "state",
        ]);
        for link in &report.links {
            table.row([
                link.peer.to_string(),
                link.outgoing.to_string(),
                link.incoming.to_string(),
                link.pending.to_string(),
                link.lost.to_string(),
                link.rate.to_string(),
                link.control.to_string(),
                if link.up { "up".into() } else { "no answer".into() },
            ]);
        }
        table.render()
    });
}

fn plan(context: &Context, order: &Order, topology: Option<&str>) -> Outcome {
    let paths = match topology {
        Some(name) => {
            let network = Topology::load(name)?.network();
            let demand = order.demand(management::Settings::default().floor)?;
            network.plan(&order.from, &order.to, demand)?
        }
        None => match ask(context, &Question::Plan(order.clone()))? {
            Answer::Ways(paths) => paths,
            _ => return Err(unexpected().into()),
        },
    };
    let per_link = order.demand(ByteCount(0))?.bytes;
    let hops: usize = paths.iter().map(|path| path.nodes.len() - 1).sum();
    let total = ByteCount(per_link.0 * hops as u64);
    let report = json!({"paths": paths, "per-link": per_link, "total": total});
    context.out.result("keys plan", &report, || {
        let mut text = String::new();
        for path in &paths {
            let nodes: Vec<_> = path.nodes.iter().map(SiteId::as_str).collect();
            text +=
                &format!("{}  (leaves {} on its tightest link)\n", nodes.join(" > "), path.left);
        }
        text + &format!("each link gives {per_link}; all together {total}\n")
    });
    Ok(())
}

fn reserve(context: &Context, order: Order) -> Outcome {
    let Answer::Supplied(supplied) = ask(context, &Question::Supply(order))? else {
        return Err(unexpected().into());
    };
    context.out.result("keys reserve", &supplied, || {
        let Supplied { from, to, bytes, back, spent, paths, class, .. } = &*supplied;
        let mut text = format!("{from} > {to}: {bytes}, back {back} ({class}); spent {spent}\n");
        for path in paths {
            let nodes: Vec<_> = path.iter().map(SiteId::as_str).collect();
            text += &format!("  over {}\n", nodes.join(" > "));
        }
        text
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
        let mut table =
            Table::new(["link to", "to send", "to receive", "spent", "supply", "keys", "state"]);
        for level in &levels {
            table.row([
                level.peer.to_string(),
                level.outgoing.remaining.to_string(),
                level.incoming.remaining.to_string(),
                level.outgoing.spent.to_string(),
                level.outgoing.rate.to_string(),
                level.provenance.to_string(),
                level.quarantine.map_or("good".into(), |reason| format!("quarantine: {reason}")),
            ]);
        }
        table.render()
    });
    Ok(())
}
