//! `dsgd filter`: what of a VCF a right permits.

use std::fs::File;
use std::path::PathBuf;

use clap::Args;

use super::call::write_whole;
use super::{Context, Error, Outcome, content_error, file_error};
use crate::base::{ByteCount, Clock, Fault};
use crate::disclosure::{FilterOptions, Right, filter};

/// Arguments of `dsgd filter`.
#[derive(Args)]
pub struct Arguments {
    /// The VCF, plain or compressed
    vcf: PathBuf,
    /// Identifier of a right in the configuration, or a TOML file that holds one
    #[arg(long)]
    right: String,
    /// Where to write what is permitted: compressed VCF
    #[arg(short, long, value_name = "VCF.GZ")]
    output: PathBuf,
    /// Worker threads; never changes a byte of output [default: all cores]
    #[arg(short, long)]
    threads: Option<usize>,
}

/// Runs `dsgd filter`.
pub fn run(context: &Context, arguments: &Arguments) -> Outcome {
    let permit = right(context, &arguments.right)?.resolve()?;
    permit.check(&permit.user, Clock::system().since_epoch())?;
    let input = File::open(&arguments.vcf).map_err(file_error(&arguments.vcf))?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = arguments.threads.filter(|threads| *threads > 0).unwrap_or(cores);
    let mut permitted = Vec::new();
    let options = FilterOptions { threads, ..FilterOptions::default() };
    let report =
        filter(input, &permit, &options, &mut permitted).map_err(content_error(&arguments.vcf))?;
    write_whole(&arguments.output, &permitted)?;
    context.out.result("filter", &report, || {
        format!(
            "{}: {} records kept, {} removed, {}\n",
            arguments.output.display(),
            report.kept,
            report.removed,
            ByteCount(permitted.len() as u64)
        )
    });
    Ok(())
}

fn right(context: &Context, name: &str) -> Result<Right, Box<dyn crate::base::Faulty>> {
    let path = PathBuf::from(name);
    if path.is_file() {
        let text = std::fs::read_to_string(&path).map_err(file_error(&path))?;
        let mut right: Right = toml::from_str(&text).map_err(|source| Error::Check {
            what: format!("{}: {}", path.display(), source.message()),
            fault: Fault::Config,
        })?;
        if let Some(folder) = path.parent() {
            right.relative_to(folder);
        }
        return Ok(right);
    }
    let settings = context.settings()?;
    let found = settings.right.into_iter().find(|right| right.id == name);
    Ok(found.ok_or_else(|| {
        Error::Usage(format!("'{name}' is neither a file nor a right of the configuration"))
    })?)
}
