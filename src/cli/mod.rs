//! The command line: one file a verb. Only [`output`] writes to standard output.

mod bench;
mod call;
mod compare;
mod config;
mod demo;
mod deposit;
mod device;
mod doctor;
mod filter;
mod happy;
mod index;
mod key_network;
mod keys;
mod kme;
mod manual;
mod metrics;
pub mod output;
mod pads;
mod progress;
mod relay;
mod run;
mod serve;
mod store;
mod table3;
mod tunnel;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand};

use crate::base::{Fault, Faulty};
use crate::config::Config;
use crate::net::Cipher;
use crate::pipeline::Notices;
use crate::site::{Settings, Site};
use output::Output;

/// Information-theoretically secure storage and secondary use of human genomes.
#[derive(Parser)]
#[command(name = "dsgd", version, arg_required_else_help = true, max_term_width = 100)]
#[command(after_help = "Exit codes: 0 done, 2 usage, 65 bad data, 66 missing input, 69 peer \
unreachable, 70 bug, 71 system, 74 disk, 75 try again later, 76 integrity, 77 refused, 78 \
configuration, 130 interrupted.")]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Options of every verb.
#[derive(Args)]
pub struct Global {
    /// Configuration file of this site; may be given more than once, later ones win
    #[arg(short, long, global = true, value_name = "FILE")]
    config: Vec<PathBuf>,
    /// Print one JSON document on standard output
    #[arg(long, global = true)]
    json: bool,
    /// Say nothing but errors on standard error
    #[arg(short, long, global = true)]
    quiet: bool,
    /// Protect what this command sends by this cipher, otp or aes-256-gcm (computational security; the
    /// peer must permit it), instead of the configuration's
    #[arg(long, global = true, value_name = "CIPHER", value_parser = protection)]
    cipher: Option<Cipher>,
    /// When to show progress: on a terminal a line that moves, otherwise a line a minute
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    progress: progress::When,
}

/// A cipher that may be asked for: plain frames are configured at both ends or not at all.
fn protection(name: &str) -> Result<Cipher, String> {
    let known = Cipher::ALL.into_iter().find(|cipher| cipher.name() == name);
    let protects = known.filter(|cipher| *cipher != Cipher::Plain);
    protects.ok_or_else(|| "there are 'otp' and 'aes-256-gcm'".into())
}

/// The verbs.
#[derive(Subcommand)]
enum Command {
    /// Do the whole job on a small made-up sample: sites, keys, shares, calls, delivery
    Demo(demo::Arguments),
    /// Deposit files: split into three shares, one kept, two sent by one-time pad
    Put(deposit::PutArguments),
    /// Restore the files of a deposit from two of its shares
    Get(deposit::GetArguments),
    /// Let the trusted server restore a deposit, call its variants and keep them as shares
    Run(run::RunArguments),
    /// Let the trusted server filter the calls of a run and deliver them to an end user
    Deliver(run::DeliverArguments),
    /// Call variants of local reads: the engine alone
    Call(call::Arguments),
    /// Compare calls with a truth set, by haplotypes
    Compare(compare::Arguments),
    /// Filter a VCF by an access right
    Filter(filter::Arguments),
    /// Run this site's daemon
    Serve(serve::Arguments),
    /// Carry an application's own connections and datagrams to a peer's side, under the pad
    #[command(subcommand)]
    Relay(relay::Command),
    /// Carry whole IP packets between two networks, headers hidden
    #[command(subcommand)]
    Tunnel(tunnel::Command),
    /// Build and check reference indexes
    #[command(subcommand)]
    Index(index::Command),
    /// Look at, make and import keys
    #[command(subcommand)]
    Keys(keys::Command),
    /// Look at, verify and mend what is stored
    #[command(subcommand)]
    Store(store::Command),
    /// Look at, check and measure the machines that run kernels
    #[command(subcommand)]
    Device(device::Command),
    /// Measure throughput
    #[command(subcommand)]
    Bench(bench::Command),
    /// Check this machine and this site's configuration
    Doctor,
    /// Show and check the configuration
    #[command(subcommand)]
    Config(config::Command),
    /// Print a completion script
    Completions(manual::Completions),
    /// Write the manual pages into a folder
    Man(manual::Man),
}

/// How a verb ends.
pub type Outcome = Result<(), Box<dyn Faulty>>;

impl<E: Faulty> From<E> for Box<dyn Faulty> {
    fn from(error: E) -> Self {
        Box::new(error)
    }
}

/// What every verb gets.
pub struct Context {
    global: Global,
    /// The only way to standard output.
    pub out: Output,
}

impl Context {
    /// The configuration of the layers in force.
    pub fn config(&self) -> Result<Config, crate::config::Error> {
        Config::load(&self.global.config)
    }

    /// This site's settings.
    pub fn settings(&self) -> Result<Settings, crate::config::Error> {
        let mut settings = self.config()?.settings()?;
        settings.net.cipher = self.global.cipher.unwrap_or(settings.net.cipher);
        Ok(settings)
    }

    /// This site, opened.
    pub fn site(&self) -> Result<Site, Box<dyn Faulty>> {
        self.site_on(&device::Choice::default())
    }

    /// This site, opened, with the device of the command line instead of the configuration's.
    pub fn site_on(&self, device: &device::Choice) -> Result<Site, Box<dyn Faulty>> {
        let mut settings = self.settings()?;
        if let Some(setting) = &device.device {
            settings.device.setting = setting.clone();
        }
        Ok(Site::open(settings, self.notices())?)
    }

    /// Notices that are shown on standard error.
    pub fn notices(&self) -> Notices {
        let quiet = self.global.quiet;
        Notices::shown_by(move |notice| {
            if !quiet {
                eprintln!("note: {notice}");
            }
        })
    }

    /// Says what is being done, on standard error.
    pub fn say(&self, text: &str) {
        if !self.global.quiet {
            eprintln!("{text}");
        }
    }

    /// Whether a line that moves is to be shown.
    pub fn shows_progress(&self) -> bool {
        !self.global.quiet
            && match self.global.progress {
                progress::When::Always => true,
                progress::When::Never => false,
                progress::When::Auto => output::watched(),
            }
    }

    /// Shows how `meters` move until it is dropped.
    pub fn progress(&self, verb: &'static str, meters: &crate::flow::Meters) -> progress::Progress {
        progress::Progress::start(verb, meters, self.global.progress, self.global.quiet)
    }
}

/// Runs the program with these arguments.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let cli = match Cli::try_parse_from(&arguments) {
        Ok(cli) => cli,
        Err(error) => return misspoken(&arguments, &error),
    };
    crate::base::foreign::hush();
    // Every verb may see key, or what key protects.
    crate::io::hygiene::protect();
    let context = Context { out: Output::new(cli.global.json), global: cli.global };
    let printed = || {
        let what = "writing to standard output".into();
        context.out.finish().map_err(|_| Error::Check { what, fault: Fault::Disk }.into())
    };
    match dispatch(&context, cli.command).and_then(|()| printed()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            context.out.error(&*error);
            error.fault().exit_code().into()
        }
    }
}

/// Help and version are answers, everything else is a mistake.
fn misspoken(arguments: &[OsString], error: &clap::Error) -> ExitCode {
    let answered = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    // Who cannot be told cannot be told that either.
    let _ = error.print();
    if answered {
        return ExitCode::SUCCESS;
    }
    let code = Fault::Usage.exit_code();
    let asked = arguments.iter().any(|argument| argument == "--json");
    let message = error.to_string();
    let first = message.lines().next().unwrap_or_default().trim_start_matches("error: ");
    Output::new(asked).refusal(&serde_json::json!({"message": first, "exit": code}));
    code.into()
}

fn dispatch(context: &Context, command: Command) -> Outcome {
    match command {
        Command::Demo(arguments) => demo::run(context, &arguments),
        Command::Put(arguments) => deposit::put(context, &arguments),
        Command::Get(arguments) => deposit::get(context, &arguments),
        Command::Run(arguments) => run::run(context, &arguments),
        Command::Deliver(arguments) => run::deliver(context, &arguments),
        Command::Call(arguments) => call::run(context, &arguments),
        Command::Compare(arguments) => compare::run(context, &arguments),
        Command::Filter(arguments) => filter::run(context, &arguments),
        Command::Serve(arguments) => serve::run(context, &arguments),
        Command::Relay(command) => relay::run(context, &command),
        Command::Tunnel(command) => tunnel::run(context, &command),
        Command::Index(command) => index::run(context, &command),
        Command::Keys(command) => keys::run(context, &command),
        Command::Store(command) => store::run(context, &command),
        Command::Device(command) => device::run(context, &command),
        Command::Bench(command) => bench::run(context, &command),
        Command::Doctor => doctor::run(context),
        Command::Config(command) => config::run(context, &command),
        Command::Completions(arguments) => manual::completions(context, &arguments),
        Command::Man(arguments) => manual::man(context, &arguments),
    }
}

/// An error of the command line itself.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be read or written.
    #[error("{}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// What a file holds cannot be used.
    #[error("{}", path.display())]
    Content {
        /// Which file.
        path: PathBuf,
        /// Whose fault that is.
        fault: Fault,
        /// What can be done.
        hint: Option<String>,
        /// What is wrong with it.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Arguments that do not go together.
    #[error("{0}")]
    Usage(String),
    /// Something is missing or failed on this machine.
    #[error("{what}")]
    Check {
        /// What.
        what: String,
        /// What that means.
        fault: Fault,
    },
}

impl Faulty for Error {
    fn fault(&self) -> Fault {
        match self {
            Error::File { source, .. } => Fault::of_io(source),
            Error::Usage(_) => Fault::Usage,
            Error::Content { fault, .. } | Error::Check { fault, .. } => *fault,
        }
    }

    fn hint(&self) -> Option<String> {
        if let Error::Content { hint, .. } = self { hint.clone() } else { None }
    }
}

/// Makes an error that names the file.
pub(crate) fn file_error(path: &std::path::Path) -> impl Fn(std::io::Error) -> Error + '_ {
    |source| Error::File { path: path.into(), source }
}

/// Makes an error that names the file whose content is at fault.
pub(crate) fn content_error<E: Faulty>(path: &std::path::Path) -> impl Fn(E) -> Error + '_ {
    |error| Error::Content {
        path: path.into(),
        fault: error.fault(),
        hint: error.hint(),
        source: Box::new(error),
    }
}
