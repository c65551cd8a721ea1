//! `dsgd serve`: this site's daemon.

use std::sync::Arc;

use clap::{Args, ValueEnum};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::{Context, Error, Outcome, kme};
use crate::base::Fault;
use crate::key::expansion::keeper::Keeper;
use crate::management::OnNotice;
use crate::management::console::{self, Console, Respond};
use crate::net::Listener;
use crate::site::daemon::{self, ROLES};
use crate::site::key_node;

/// Arguments of `dsgd serve`.
#[derive(Args)]
pub struct Arguments {
    /// What this site does for its peers
    #[arg(value_enum)]
    role: Role,
}

/// What a site does for its peers.
#[derive(Clone, Copy, ValueEnum)]
pub enum Role {
    /// Keeps shares.
    Holder,
    /// Restores, analyses, filters, delivers.
    Trusted,
    /// Takes deliveries.
    User,
    /// Gives keys to applications (ETSI GS QKD 014).
    Kme,
    /// Keeps in memory, and nowhere else, what stored keys are useless without.
    Keeper,
    /// Manages the keys of one node of a key network.
    Kma,
    /// Plans and orders key relay in a key network.
    Kms,
}

/// Runs `dsgd serve` until it is told to stop.
pub fn run(context: &Context, arguments: &Arguments) -> Outcome {
    match arguments.role {
        Role::Kme => return kme::serve(context),
        Role::Keeper => return keep(context),
        Role::Kma => return key_agent(context),
        Role::Kms => return key_server(context),
        Role::Holder | Role::Trusted | Role::User => {}
    }
    let name = arguments.role.to_possible_value();
    let name = name.as_ref().map_or("", |value| value.get_name());
    let (_, permitted) = ROLES
        .iter()
        .find(|(role, _)| *role == name)
        .ok_or_else(|| Error::Usage(format!("'{name}' is no role that serves")))?;
    let site = Arc::new(context.site()?);
    let address = site.settings().listen.clone().ok_or_else(|| Error::Check {
        what: "the configuration does not say where to listen ('listen = \"HOST:PORT\"')".into(),
        fault: Fault::Config,
    })?;
    let listener = Listener::bind(&address)?;
    close_when_told(&listener)?;
    let listening = listener.local_address().to_string();
    let report =
        serde_json::json!({"site": site.settings().site, "role": name, "address": listening});
    context.out.result("serve", &report, || {
        format!("{} serves as {name} at {listening}\n", site.settings().site)
    });
    daemon::serve(&site, &listener, permitted)?;
    Ok(())
}

fn signals() -> Result<Signals, Error> {
    Signals::new([SIGTERM, SIGINT]).map_err(|source| Error::File { path: "signals".into(), source })
}

fn when_told(stop: impl FnOnce() + Send + 'static) -> Result<(), Error> {
    let mut signals = signals()?;
    std::thread::spawn(move || {
        if signals.forever().next().is_some() {
            stop();
        }
    });
    Ok(())
}

/// Has the listener closed when the program is told to stop.
fn close_when_told(listener: &Listener) -> Result<(), Error> {
    let closer = listener.closer();
    when_told(move || closer.close())
}

/// Keeps seeds until it is told to stop, and wipes them then.
fn keep(context: &Context) -> Outcome {
    let settings = context.settings()?;
    let keeper = Keeper::bind(&settings.state)?;
    let closer = keeper.closer();
    when_told(move || closer.close())?;
    let report = serde_json::json!({
        "site": settings.site, "role": "keeper", "address": keeper.path(),
    });
    context.out.result("serve", &report, || {
        format!("{} serves as keeper at {}\n", settings.site, keeper.path().display())
    });
    keeper.serve()?;
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
fn key_agent(context: &Context) -> Outcome {
    let settings = context.settings()?;
    let agent = key_node::open_agent(&settings, notice(context))?;
    let control = Listener::bind(&address(settings.listen.as_ref(), "listen")?)?;
    let relay_listen = settings.management.relay_listen.as_ref();
    let relays = Listener::bind(&address(relay_listen, "[management] relay-listen")?)?;
    close_when_told(&control)?;
    let _console = Console::open(&settings.state, Arc::clone(&agent) as Arc<dyn Respond>)?;
    let (listening, relaying) =
        (control.local_address().to_string(), relays.local_address().to_string());
    let report = serde_json::json!({
        "site": settings.site, "role": "kma", "address": listening, "relay": relaying});
    context.out.result("serve", &report, || {
        format!("{} serves as kma at {listening}, relays at {relaying}\n", settings.site)
    });
    agent.serve(&control, &relays)?;
    Ok(())
}

/// Runs a key management server until it is told to stop. It listens to its operator alone.
fn key_server(context: &Context) -> Outcome {
    let settings = context.settings()?;
    let server = Arc::new(key_node::open_server(&settings, notice(context))?);
    let mut signals = signals()?;
    let _console = Console::open(&settings.state, server)?;
    let at = console::socket(&settings.state);
    let report = serde_json::json!({"site": settings.site, "role": "kms", "address": at});
    context.out.result("serve", &report, || {
        format!("{} serves as kms at {}\n", settings.site, at.display())
    });
    signals.forever().next();
    Ok(())
}
