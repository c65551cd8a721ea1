//! `dsgd bench pads` and `dsgd bench random`: what one core does.

use clap::Args;

use super::output::Table;
use super::{Context, Outcome};
use crate::base::ByteCount;
use crate::bench::environment::Environment;
use crate::bench::pads::{self, Effort, Figure};
use crate::key::RandomSettings;

/// Arguments of `dsgd bench pads`.
#[derive(Args)]
pub struct Pads {
    #[command(flatten)]
    size: Size,
}

/// Arguments of `dsgd bench random`.
#[derive(Args)]
pub struct Random {
    #[command(flatten)]
    size: Size,
    /// Besides those that are always there: device:/dev/hwrng; may be given more than once
    #[arg(long, value_name = "SOURCE")]
    source: Vec<RandomSettings>,
}

#[derive(Args)]
struct Size {
    /// Bytes of payload; several times larger than the caches for a figure that means something
    #[arg(long, default_value = "256MiB")]
    bytes: ByteCount,
    /// Repetitions of every measurement; the median counts
    #[arg(long, default_value_t = 9)]
    runs: usize,
}

impl Size {
    fn effort(&self) -> Effort {
        Effort { bytes: usize::try_from(self.bytes.0).unwrap_or(1 << 28), repetitions: self.runs }
    }
}

/// Runs `dsgd bench pads`.
pub fn run(context: &Context, arguments: &Pads) -> Outcome {
    show(context, "bench pads", &pads::pads(arguments.size.effort()));
    Ok(())
}

/// Runs `dsgd bench random`.
pub fn random(context: &Context, arguments: &Random) -> Outcome {
    let figures = pads::random(arguments.size.effort(), &arguments.source)?;
    show(context, "bench random", &figures);
    Ok(())
}

fn show(context: &Context, verb: &'static str, figures: &[Figure]) {
    let report = (Environment::look(), figures);
    context.out.result(verb, &report, || {
        let mut table = Table::new(["one core", "GB/s", "best", "class"]);
        for figure in figures {
            table.row([
                figure.what.clone(),
                format!("{:.2}", figure.gb_per_second),
                format!("{:.2}", figure.gb_per_second_best),
                figure.class.map_or_else(String::new, |class| class.to_string()),
            ]);
        }
        format!("{}\n{}", report.0.processor, table.render())
    });
}
