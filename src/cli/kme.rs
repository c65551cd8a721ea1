//! `dsgd serve kme`, and what `dsgd keys` does with key managers (ETSI GS QKD 014).

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::output::Table;
use super::{Context, Error, Outcome, file_error};
use crate::base::{ByteCount, Fault, Faulty, SiteId};
use crate::bench::environment::Environment;
use crate::bench::kme::{Answered, Load, measure};
use crate::bench::local_kmes::{LocalKmes, Plan};
use crate::etsi014::client::Endpoint;
use crate::etsi014::draw::{self, Drawing, Wish};
use crate::etsi014::seen::SeenKeys;
use crate::etsi014::tls::Credentials;
use crate::etsi014::{Client, Kme, OPENAPI, SaeId, Server, certificates};
use crate::key::Class;
use crate::net::Listener;

/// What to do with key managers.
#[derive(Subcommand)]
pub enum Command {
    /// Draw keys from a key manager (ETSI GS QKD 014) and make them this site's copy of a pad
    Draw(Draw),
    /// Fetch the keys that another site has drawn, and make them this site's copy of the pad
    Fetch(Fetch),
    /// Make an authority and certificates for key managers and applications, for trials
    Certificates(Certificates),
    /// Print the OpenAPI document of the key manager that 'dsgd serve kme' is
    Openapi,
}

/// Arguments of `dsgd keys draw`.
#[derive(Args)]
pub struct Draw {
    #[command(flatten)]
    caller: Caller,
    /// The site that the pad is shared with
    #[arg(long, value_name = "SITE")]
    peer: SiteId,
    /// What the key managers call the application at that site
    #[arg(long, value_name = "SAE")]
    peer_sae: SaeId,
    /// Bytes of pad, both directions together
    #[arg(long)]
    bytes: ByteCount,
    /// Bits of each key; as many as the key manager gives, if not said
    #[arg(long)]
    key_bits: Option<u64>,
    /// How strong the keys of this key manager are known to be
    #[arg(long, value_enum, default_value = "computational")]
    class: Strength,
}

/// Arguments of `dsgd keys fetch`.
#[derive(Args)]
pub struct Fetch {
    /// What 'dsgd keys draw' wrote at the other site; not secret
    drawing: PathBuf,
    #[command(flatten)]
    caller: Caller,
}

/// Which key manager, and who calls.
#[derive(Args)]
struct Caller {
    /// The key manager of this site
    #[arg(long, value_name = "https://HOST:PORT")]
    kme: String,
    /// This application's certificate, PEM
    #[arg(long, value_name = "FILE")]
    certificate: PathBuf,
    /// Its private key, PEM
    #[arg(long, value_name = "FILE")]
    private_key: PathBuf,
    /// Certificate of the authority that certifies the key manager, PEM
    #[arg(long, value_name = "FILE")]
    authority: PathBuf,
    /// How long the key manager may take for an answer, in seconds
    #[arg(long, default_value_t = 30)]
    deadline: u64,
    /// Folder for the pad
    #[arg(short, long, value_name = "FOLDER")]
    output: PathBuf,
}

/// How strong keys are.
#[derive(Clone, Copy, ValueEnum)]
enum Strength {
    /// As hard to guess as some computation is long.
    Computational,
    /// No computation helps.
    InformationTheoretic,
}

/// Arguments of `dsgd keys certificates`.
#[derive(Args)]
pub struct Certificates {
    /// Folder for the files
    folder: PathBuf,
    /// A key manager
    #[arg(long, value_name = "KME")]
    kme: Vec<SaeId>,
    /// An application
    #[arg(long, value_name = "SAE")]
    sae: Vec<SaeId>,
    /// A host name or address that the key managers are called by
    #[arg(long, value_name = "HOST", default_values = ["localhost", "127.0.0.1"])]
    host: Vec<String>,
}

/// Arguments of `dsgd bench kme`.
#[derive(Args)]
pub struct Bench {
    /// Connections of applications to each key manager
    #[arg(long, default_value_t = 32)]
    connections: usize,
    /// Requests of each connection
    #[arg(long, default_value_t = 1000)]
    requests: usize,
    /// Keys of a request
    #[arg(long, default_value_t = 1)]
    number: usize,
    /// Bits of a key
    #[arg(long, default_value_t = 256)]
    bits: u64,
    /// Folder for the sites' files, removed afterwards
    #[arg(long, value_name = "FOLDER")]
    folder: Option<PathBuf>,
}

/// Runs the verbs of `dsgd keys` that concern key managers.
pub fn run(context: &Context, command: &Command) -> Outcome {
    match command {
        Command::Draw(arguments) => draw_pad(context, arguments),
        Command::Fetch(arguments) => fetch_pad(context, arguments),
        Command::Certificates(arguments) => {
            let Certificates { folder, kme, sae, host } = arguments;
            certificates::write(folder, kme, sae, host)?;
            context.out.result("keys certificates", folder, || {
                format!(
                    "{}: certificates of a new authority, whose private key was not kept\n",
                    folder.display()
                )
            });
            Ok(())
        }
        Command::Openapi => {
            context.out.text(OPENAPI);
            Ok(())
        }
    }
}

impl Caller {
    fn credentials(&self) -> Credentials<'_> {
        Credentials {
            certificate: &self.certificate,
            private_key: &self.private_key,
            authority: &self.authority,
        }
    }

    fn client(&self) -> Result<Client, crate::etsi014::Error> {
        let deadline = Duration::from_secs(self.deadline.max(1));
        Client::new(Endpoint::new(&self.kme, self.credentials().client()?, deadline)?)
    }
}

fn draw_pad(context: &Context, arguments: &Draw) -> Outcome {
    let settings = context.settings()?;
    let caller = &arguments.caller;
    let wish = Wish {
        sites: [settings.site, arguments.peer.clone()],
        master: &caller.credentials().identity()?,
        slave: &arguments.peer_sae,
        bytes: arguments.bytes,
        bits: arguments.key_bits,
        class: match arguments.class {
            Strength::Computational => Class::Computational,
            Strength::InformationTheoretic => Class::InformationTheoretic,
        },
    };
    let mut seen = SeenKeys::open(&settings.state)?;
    let (pad, drawing) = draw::draw(&mut caller.client()?, &wish, &mut seen, &caller.output)?;
    let list = pad.with_extension("drawing.json");
    let text = serde_json::to_vec_pretty(&drawing).expect("a drawing is plain data");
    fs::write(&list, text).map_err(file_error(&list))?;
    let report = serde_json::json!({"pad": pad, "drawing": list, "keys": drawing.keys.len()});
    context.out.result("keys draw", &report, || {
        format!(
            "{}: this site's copy of the pad, out of {} keys; import it\n{}: for the other site, \
             to fetch the same keys\n",
            pad.display(),
            drawing.keys.len(),
            list.display()
        )
    });
    Ok(())
}

fn fetch_pad(context: &Context, arguments: &Fetch) -> Outcome {
    let settings = context.settings()?;
    let (caller, path) = (&arguments.caller, &arguments.drawing);
    let text = fs::read(path).map_err(file_error(path))?;
    let drawing: Drawing = serde_json::from_slice(&text).map_err(|source| Error::Content {
        path: path.clone(),
        fault: Fault::Data,
        hint: None,
        source: Box::new(source),
    })?;
    let mut seen = SeenKeys::open(&settings.state)?;
    let mut client = caller.client()?;
    let pad = draw::fetch(&mut client, &drawing, &settings.site, &mut seen, &caller.output)?;
    context.out.result("keys fetch", &pad, || {
        format!("{}: this site's copy of the pad; import it\n", pad.display())
    });
    Ok(())
}

/// Runs `dsgd serve kme` until it is told to stop.
pub fn serve(context: &Context) -> Outcome {
    let site = context.site()?;
    let settings = site.settings();
    let kme = settings.kme.clone().ok_or_else(|| Error::Check {
        what: "the configuration has no section [kme]".into(),
        fault: Fault::Config,
    })?;
    let id = Credentials {
        certificate: &kme.certificate,
        private_key: &kme.private_key,
        authority: &kme.authority,
    }
    .identity()?;
    let peers = settings.peer.iter();
    let addresses =
        peers.filter_map(|peer| Some((peer.site.clone(), peer.address.clone()?))).collect();
    let quiet = context.global.quiet;
    let note: crate::etsi014::kme::Note = Arc::new(move |text| {
        if !quiet {
            eprintln!("note: {text}");
        }
    });
    let mut signals = Signals::new([SIGTERM, SIGINT])
        .map_err(|source| Error::File { path: "signals".into(), source })?;
    let kme = Kme::new(id.clone(), kme, site.keys().clone(), &addresses, &note)?;
    if let Some(address) = &settings.listen {
        let (listener, receiver) = (Listener::bind(address)?, kme.receiver(note));
        std::thread::spawn(move || receiver.serve(&listener));
    }
    let server = Server::start(kme)?;
    let address = server.address().to_string();
    let report = serde_json::json!({
        "site": settings.site, "role": "kme", "kme-id": id, "address": address,
    });
    context.out.result("serve", &report, || {
        format!("{} serves as key manager {id} at https://{address}\n", settings.site)
    });
    signals.forever().next();
    Ok(())
}

/// Runs `dsgd bench kme`.
pub fn bench(context: &Context, arguments: &Bench) -> Outcome {
    let answers =
        super::bench::in_folder(arguments.folder.as_deref(), |folder| rates(arguments, folder))?;
    let report = (Environment::look(), answers);
    context.out.result("bench kme", &report, || describe(&report.0, &report.1));
    Ok(())
}

fn rates(arguments: &Bench, folder: &Path) -> Result<Vec<Answered>, Box<dyn Faulty>> {
    let program = std::env::current_exe().map_err(file_error(Path::new("dsgd")))?;
    let kmes = LocalKmes::start(&Plan {
        program: &program,
        folder,
        stock: ByteCount(1_000_000_000_000),
        settings: "held-keys = 1000000",
    })
    .map_err(file_error(folder))?;
    let Bench { connections, requests, number, bits, .. } = *arguments;
    Ok(measure(&kmes, &Load { connections, requests, number, bits })?)
}

fn describe(environment: &Environment, answers: &[Answered]) -> String {
    let mut table = Table::new([
        "requests",
        "connections",
        "answered",
        "seconds",
        "requests/s",
        "CPU s client",
        "master's KME",
        "slave's KME",
    ]);
    for answer in answers {
        let [client, master, slave] = answer.cpu_seconds.map(|seconds| format!("{seconds:.2}"));
        table.row([
            answer.what.into(),
            answer.connections.to_string(),
            answer.requests.to_string(),
            format!("{:.2}", answer.seconds),
            format!("{:.0}", answer.requests_per_second),
            client,
            master,
            slave,
        ]);
    }
    format!("{} cores, {}\n\n{}", environment.cores, environment.processor, table.render())
}
