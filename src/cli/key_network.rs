//! `dsgd keys` and `dsgd serve` at the nodes of a key network.

use std::sync::Arc;

use clap::{Args, Subcommand};
use serde_json::json;

use super::output::Table;
use super::serve::when_told_to_stop;
use super::{Context, Error, Outcome};
use crate::base::{ByteCount, Fault, Faulty, SiteId};
use crate::key;
use crate::management::console::{self, Answer, Console, Question, Respond};
use crate::management::plan::by_name;
use crate::management::protocol::Report;
use crate::management::{self, Level, OnNotice, Order, Supplied, Topology};
use crate::net::Listener;
use crate::site::{Settings, key_node};

/// What to do with the keys of a network.
#[derive(Subcommand)]
pub enum Command {
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

/// Runs the command.
pub fn run(context: &Context, command: &Command) -> Outcome {
    match command {
        Command::Plan { order, topology } => plan(context, &order.order(), topology.as_deref()),
        Command::Reserve { order } => reserve(context, order.order()),
        Command::Erase { peer, managed } => erase(context, peer, *managed),
    }
}

/// Shows the links of a topology, or those that this node's agent or server knows; false, and nothing
/// shown, when this is no such node.
pub fn shown(context: &Context, topology: Option<&str>) -> Result<bool, Box<dyn Faulty>> {
    match topology {
        Some(name) => network_level(context, &nominal(name)?),
        None if managed(&context.settings()?) => managed_level(context)?,
        None => return Ok(false),
    }
    Ok(true)
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
        Answer::Report(report) => agent_level(context, &report),
        _ => return Err(unexpected().into()),
    }
    Ok(())
}

fn network_level(context: &Context, levels: &[Level]) {
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

fn notice(context: &Context) -> OnNotice {
    let notices = context.notices();
    Arc::new(move |text| notices.add(text))
}

fn address(what: Option<&String>, setting: &str) -> Result<String, Error> {
    what.cloned().ok_or_else(|| Error::Check {
        what: format!(
            "the configuration does not say where to listen ('{setting} = \"HOST:PORT\"')"
        ),
        fault: Fault::Config,
    })
}

/// Runs a key management agent until it is told to stop.
pub fn serve_agent(context: &Context) -> Outcome {
    let settings = context.settings()?;
    let agent = key_node::open_agent(&settings, notice(context))?;
    let control = Listener::bind(&address(settings.listen.as_ref(), "listen")?)?;
    let relay_listen = settings.management.relay_listen.as_ref();
    let relays = Listener::bind(&address(relay_listen, "[management] relay-listen")?)?;
    let closer = control.closer();
    when_told_to_stop(move || closer.close())?;
    let _console = Console::open(&settings.state, Arc::clone(&agent) as Arc<dyn Respond>)?;
    let (listening, relaying) =
        (control.local_address().to_string(), relays.local_address().to_string());
    let report = json!({
        "site": settings.site, "role": "kma", "address": listening, "relay": relaying});
    context.out.result("serve", &report, || {
        format!("{} serves as kma at {listening}, relays at {relaying}\n", settings.site)
    });
    agent.serve(&control, &relays)?;
    Ok(())
}

/// Runs a key management server until it is told to stop. It listens to its operator alone.
pub fn serve_server(context: &Context) -> Outcome {
    let settings = context.settings()?;
    let server = Arc::new(key_node::open_server(&settings, notice(context))?);
    let (stop, stopped) = std::sync::mpsc::channel();
    when_told_to_stop(move || {
        let _ = stop.send(());
    })?;
    let _console = Console::open(&settings.state, server)?;
    let at = console::socket(&settings.state);
    let report = json!({"site": settings.site, "role": "kms", "address": at});
    context.out.result("serve", &report, || {
        format!("{} serves as kms at {}\n", settings.site, at.display())
    });
    // An error would mean that nobody can tell it any more.
    let _ = stopped.recv();
    Ok(())
}
