//! `dsgd store`: what is deposited, and whether it is whole.

use clap::Subcommand;

use super::device;
use super::output::Table;
use super::{Context, Error, Outcome};
use crate::base::{ByteCount, Fault, SampleName};
use crate::control::{Deposit, State};

/// What to do with the deposits.
#[derive(Subcommand)]
pub enum Command {
    /// List the deposits
    Ls,
    /// Show one deposit: its files, and where its shares are
    Show {
        /// The deposit
        name: SampleName,
    },
    /// Let every holder read its shares; name the stripes that are damaged
    Verify {
        /// The deposit
        name: SampleName,
    },
    /// Mend damaged and lost shares, each from the other two
    Repair {
        /// The deposit
        name: SampleName,
        #[command(flatten)]
        device: device::Choice,
    },
}

/// Runs `dsgd store`.
pub fn run(context: &Context, command: &Command) -> Outcome {
    match command {
        Command::Ls => list(context),
        Command::Show { name } => {
            let deposit = context.site()?.catalogue()?.stored(name)?;
            context.out.result("store show", &deposit, || show(&deposit));
            Ok(())
        }
        Command::Verify { name } => verify(context, name),
        Command::Repair { name, device } => {
            let repaired = context.site_on(device)?.repair(name)?;
            context.out.result("store repair", &repaired, || {
                if repaired.is_empty() {
                    return format!("every share of '{name}' is whole\n");
                }
                repaired.iter().fold(String::new(), |text, share| {
                    let what = if share.lost { "lost, rebuilt" } else { "mended" };
                    let stripes = share.stripes.len();
                    text + &format!(
                        "{} at {}: {what}, {stripes} stripe(s)\n",
                        share.share, share.site
                    )
                })
            });
            Ok(())
        }
    }
}

fn list(context: &Context) -> Outcome {
    let deposits = context.site()?.catalogue()?.list()?;
    context.out.result("store ls", &deposits, || {
        let mut table = Table::new(["name", "files", "size", "state", "created", "A B C"]);
        for deposit in &deposits {
            let [a, b, c] = &deposit.placement;
            let state = match deposit.state {
                State::Stored => "stored",
                State::Pending => "interrupted",
            };
            table.row([
                deposit.name.to_string(),
                deposit.members.len().to_string(),
                ByteCount(deposit.bytes()).to_string(),
                state.into(),
                deposit.created.clone(),
                format!("{a} {b} {c}"),
            ]);
        }
        table.render()
    });
    Ok(())
}

fn show(deposit: &Deposit) -> String {
    let mut text = format!("{} (data set {})\n", deposit.name, deposit.dataset);
    let [a, b, c] = &deposit.placement;
    text += &format!("created {}; shares: A at {a}, B at {b}, C at {c}\n", deposit.created);
    text += &format!("random numbers: {}\n", deposit.random);
    if let Some(origin) = &deposit.origin {
        text += &format!("calls of '{}' by {}\n", origin.sample, origin.engine);
    }
    let mut table = Table::new(["file", "size", "stripes", "role"]);
    for member in &deposit.members {
        table.row([
            member.file.clone(),
            ByteCount(member.bytes).to_string(),
            member.stripes.to_string(),
            format!("{:?}", member.role).to_lowercase(),
        ]);
    }
    text + "\n" + &table.render()
}

fn verify(context: &Context, name: &SampleName) -> Outcome {
    let site = context.site()?;
    let deposit = site.catalogue()?.stored(name)?;
    let found = site.verify(name)?;
    let damaged =
        found.iter().filter(|(.., stripes)| stripes.as_ref().is_none_or(|s| !s.is_empty()));
    let damaged = damaged.count();
    context.out.result("store verify", &found, || {
        found.iter().fold(String::new(), |text, (member, letter, stripes)| {
            let what = match stripes {
                None => "lost".to_owned(),
                Some(stripes) if stripes.is_empty() => "whole".to_owned(),
                Some(stripes) => format!("damaged: stripes {stripes:?}"),
            };
            let (share, holder) = (deposit.share(*member, *letter), deposit.holder(*letter));
            text + &format!("{share} at {holder}: {what}\n")
        })
    });
    if damaged == 0 {
        return Ok(());
    }
    let what = format!(
        "{damaged} share(s) of '{name}' are damaged; 'dsgd store repair {name}' mends them"
    );
    Err(Error::Check { what, fault: Fault::Integrity }.into())
}
