//! `dsgd index`: indexes of references.

use std::path::PathBuf;

use clap::Subcommand;

use super::{Context, Outcome};
use crate::base::ByteCount;
use crate::base::clock::Stopwatch;
use crate::site::LoadedReference;
use crate::site::settings::ReferenceSettings;

/// What to do with indexes.
#[derive(Subcommand)]
pub enum Command {
    /// Build the index of a FASTA file
    Build {
        /// Reference FASTA, plain or compressed
        reference: PathBuf,
        /// Where to write the index
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
        /// Worker threads [default: all cores]
        #[arg(short, long)]
        threads: Option<usize>,
    },
    /// Check that an index is whole and belongs to a FASTA file
    Check {
        /// Reference FASTA, plain or compressed
        reference: PathBuf,
        /// The index
        index: PathBuf,
    },
    /// List the references of the configuration
    List,
}

/// Runs `dsgd index`.
pub fn run(context: &Context, command: &Command) -> Outcome {
    match command {
        Command::Build { reference, output, threads } => {
            let cores = std::thread::available_parallelism().map_or(1, usize::from);
            let threads = threads.filter(|threads| *threads > 0).unwrap_or(cores);
            let watch = Stopwatch::start();
            let loaded = load(reference)?;
            loaded.write_index(output, threads)?;
            let bytes = std::fs::metadata(output).map_or(0, |metadata| metadata.len());
            let seconds = watch.elapsed().as_secs_f64();
            let report = serde_json::json!({
                "index": output, "bytes": bytes, "seconds": seconds, "reference": loaded.digest,
                "peak_memory_bytes": peak_memory().map(|peak| peak.0),
            });
            context.out.result("index build", &report, || {
                let bases = loaded.reference.bases();
                let size = ByteCount(bytes);
                let peak = peak_memory()
                    .map_or_else(String::new, |peak| format!(", at most {peak} of memory"));
                format!("{}: {size} for {bases} bases, {seconds:.1} s{peak}\n", output.display())
            });
        }
        Command::Check { reference, index } => {
            let loaded = load(reference)?;
            loaded.read_index(index)?;
            let report = serde_json::json!({"index": index, "reference": loaded.digest});
            context.out.result("index check", &report, || {
                format!("{} is whole and belongs to {}\n", index.display(), reference.display())
            });
        }
        Command::List => {
            let references = context.settings()?.reference;
            context.out.result("index list", &references, || {
                references.iter().fold(String::new(), |text, reference| {
                    let index = match &reference.index {
                        Some(index) => index.display().to_string(),
                        None => "built in memory".into(),
                    };
                    text + &format!("{}\t{}\t{index}\n", reference.name, reference.fasta.display())
                })
            });
        }
    }
    Ok(())
}

/// The most memory that this program has had, as the system counts it.
fn peak_memory() -> Option<ByteCount> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(ByteCount(kibibytes << 10))
}

fn load(path: &std::path::Path) -> Result<LoadedReference, crate::site::Error> {
    LoadedReference::read(&ReferenceSettings {
        name: path.display().to_string(),
        fasta: path.into(),
        index: None,
    })
}
