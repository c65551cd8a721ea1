//! `dsgd device`: the machines that run kernels; and `dsgd bench kernels`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::output::Table;
use super::{Context, Error, Outcome, file_error};
use crate::base::Fault;
use crate::bench::kernels::{Report, devices};
use crate::device::conformance::check_device;
use crate::device::measure::Effort;
use crate::device::{self, BACKENDS};

/// What to do with devices.
#[derive(Subcommand)]
pub enum Command {
    /// Show every kind of device, and why one cannot be used here
    List,
    /// Compare every kernel of a device, bit by bit, with the definition of that kernel
    Check {
        /// Devices [default: all that are there]
        #[arg(value_name = "DEVICE")]
        devices: Vec<String>,
    },
    /// Measure shortly every kernel on every device, and say which `auto` would choose and why
    Bench {
        /// Devices [default: all that are there]
        #[arg(value_name = "DEVICE")]
        devices: Vec<String>,
    },
}

/// Arguments of `dsgd bench kernels`.
#[derive(Args)]
pub struct Kernels {
    /// Devices [default: all that are there]
    #[arg(value_name = "DEVICE")]
    devices: Vec<String>,
    /// Write all figures and the environment as JSON
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Write a chart as SVG
    #[arg(long, value_name = "FILE")]
    chart: Option<PathBuf>,
}

/// Runs `dsgd device`.
pub fn run(context: &Context, command: &Command) -> Outcome {
    match command {
        Command::List => list(context),
        Command::Check { devices } => check(context, devices),
        Command::Bench { devices } => {
            let report = Report::measure(devices, Effort::SHORT)?;
            context.out.result("device bench", &report, || describe(&report));
            Ok(())
        }
    }
}

/// Runs `dsgd bench kernels`.
pub fn bench(context: &Context, arguments: &Kernels) -> Outcome {
    let report = Report::measure(&arguments.devices, Effort::LONG)?;
    if let Some(path) = &arguments.report {
        let json = serde_json::to_string_pretty(&report).unwrap_or_default();
        std::fs::write(path, json).map_err(file_error(path))?;
    }
    if let Some(path) = &arguments.chart {
        std::fs::write(path, report.svg()).map_err(file_error(path))?;
    }
    context.out.result("bench kernels", &report, || describe(&report));
    Ok(())
}

fn list(context: &Context) -> Outcome {
    let found = devices();
    context.out.result("device list", &found, || {
        let mut table = Table::new(["device", "state"]);
        for found in &found {
            let absent = found.absent.as_ref().map(|reason| format!("absent: {reason}"));
            let state = found.model.clone().or(absent).unwrap_or_default();
            table.row([found.device.into(), state]);
        }
        table.render()
    });
    Ok(())
}

fn check(context: &Context, names: &[String]) -> Outcome {
    let all: Vec<String> = BACKENDS.iter().map(|(name, _)| (*name).into()).collect();
    let mut checked = Vec::new();
    for name in if names.is_empty() { &all } else { names } {
        let device = match device::open(name) {
            Err(device::Error::Absent { .. }) if names.is_empty() => continue,
            opened => opened?,
        };
        if let Err(what) = check_device(device.as_ref()) {
            let what = format!("device '{name}' must not be used: {what}");
            return Err(Error::Check { what, fault: Fault::System }.into());
        }
        checked.push(name.clone());
    }
    context.out.result("device check", &checked, || {
        checked.iter().map(|name| format!("ok {name}: every kernel, bit for bit\n")).collect()
    });
    Ok(())
}

/// Figures as a table, then the choices.
fn describe(report: &Report) -> String {
    let mut table = Table::new(["kernel", "device", "threads", "best", "median", "limit", "share"]);
    for figure in &report.figures {
        let rate = |rate: f64| format!("{rate:.2} {}", figure.unit.name());
        let (mut bound, mut share) = (String::new(), String::new());
        if let Some(limit) = &figure.limit {
            bound = format!("{}: {:.1} {}", limit.name, limit.rate, limit.unit.name());
            share = format!("{:.2}", limit.share);
        }
        let (best, median) = (rate(figure.rate), rate(figure.median));
        let threads = figure.workers.to_string();
        table.row([
            figure.kernel.into(),
            figure.device.into(),
            threads,
            best,
            median,
            bound,
            share,
        ]);
    }
    let choices = report.choices.iter().fold(String::new(), |text, choice| {
        text + &format!("{}: {} ({})\n", choice.kernel, choice.device, choice.reason)
    });
    format!("{}{WHAT_COUNTS}\nauto chooses\n{choices}", table.render())
}

const WHAT_COUNTS: &str = "
Rates count bytes of the secret, of the data or of the copy, each once. The share of the copy counts bytes
moved, read and written: 2 for each byte of a copy, 3 for one that is changed in place by another text, 4
for one that is split.
";
