//! `dsgd config`.

use clap::Subcommand;

use super::{Context, Outcome};
use crate::config::DEFAULTS;

/// What to do with the configuration.
#[derive(Subcommand)]
pub enum Command {
    /// Print every value in force
    Show {
        /// Say where each value comes from
        #[arg(long)]
        origin: bool,
        /// Print the commented defaults instead
        #[arg(long, conflicts_with = "origin")]
        defaults: bool,
    },
    /// Check the configuration
    Check,
}

/// Runs `dsgd config`.
pub fn run(context: &Context, command: &Command) -> Outcome {
    match command {
        Command::Show { defaults: true, .. } => context.out.text(DEFAULTS),
        Command::Show { origin, .. } => {
            let values = context.config()?.list();
            context.out.result("config show", &values, || {
                values.iter().fold(String::new(), |text, (name, value, from)| {
                    let from = if *origin { format!("    # {from}") } else { String::new() };
                    text + &format!("{name} = {value}{from}\n")
                })
            });
        }
        Command::Check => {
            let settings = context.settings()?;
            context.out.result("config check", &settings.site, || {
                format!("the configuration of '{}' is good\n", settings.site)
            });
        }
    }
    Ok(())
}
