//! `dsgd serve`: this site's daemon.

use std::sync::Arc;

use clap::{Args, ValueEnum};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::device::device_lines;
use super::{Context, Error, Outcome, key_network, kme};
use crate::base::Fault;
use crate::device::Kernel;
use crate::key::expansion::keeper::Keeper;
use crate::net::Listener;
use crate::site::daemon::{self, ROLES};

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
        Role::Kma => return key_network::serve_agent(context),
        Role::Kms => return key_network::serve_server(context),
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
    let devices = match arguments.role {
        // Chosen before anybody waits; what cannot be used shows now.
        Role::Trusted => site.devices()?.described(&Kernel::ALL),
        _ => Vec::new(),
    };
    let listener = Listener::bind(&address)?;
    let closer = listener.closer();
    when_told_to_stop(move || closer.close())?;
    let listening = listener.local_address().to_string();
    let report = serde_json::json!({
        "site": site.settings().site, "role": name, "address": listening, "devices": devices,
    });
    context.out.result("serve", &report, || {
        let devices = device_lines(&devices);
        format!("{} serves as {name} at {listening}\n{devices}", site.settings().site)
    });
    daemon::serve(&site, &listener, permitted)?;
    Ok(())
}

/// Does `stop` when the process is asked to end.
pub(super) fn when_told_to_stop(stop: impl FnOnce() + Send + 'static) -> Result<(), Error> {
    let mut signals = Signals::new([SIGTERM, SIGINT])
        .map_err(|source| Error::File { path: "signals".into(), source })?;
    std::thread::spawn(move || {
        if signals.forever().next().is_some() {
            stop();
        }
    });
    Ok(())
}

/// Keeps seeds until it is told to stop, and wipes them then.
fn keep(context: &Context) -> Outcome {
    let settings = context.settings()?;
    let keeper = Keeper::bind(&settings.state)?;
    let closer = keeper.closer();
    when_told_to_stop(move || closer.close())?;
    let report = serde_json::json!({
        "site": settings.site, "role": "keeper", "address": keeper.path(),
    });
    context.out.result("serve", &report, || {
        format!("{} serves as keeper at {}\n", settings.site, keeper.path().display())
    });
    keeper.serve()?;
    Ok(())
}
