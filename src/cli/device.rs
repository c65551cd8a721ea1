//! `dsgd device`: the machines that run kernels; and `dsgd bench kernels`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde::Serialize;

use super::output::Table;
use super::{Context, Error, Outcome, file_error};
use crate::base::fault::with_causes;
use crate::base::{ByteCount, Fault};
use crate::bench::kernels::Report;
use crate::device::assign::KernelDevice;
use crate::device::card::{CardState, Held};
use crate::device::conformance::check_device;
use crate::device::measure::Effort;
use crate::device::setting::Setting;
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

/// The option of verbs that compute.
#[derive(Args, Default)]
pub struct Choice {
    /// What computes, instead of what the configuration says.
    #[arg(long, value_name = "DEVICE", help = CHOICE)]
    pub device: Option<Setting>,
}

const CHOICE: &str = "What computes: auto, cpu, cuda, cuda:0,1 (these cards), wgpu, xrt, fpga-sim; never \
                      changes a byte of output [default: the configuration's]";

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

/// A kind of device: what there is of it.
#[derive(Serialize)]
struct Kind {
    device: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<String>,
    /// Why it cannot be used.
    #[serde(skip_serializing_if = "Option::is_none")]
    absent: Option<String>,
    /// Whether it is this machine's processor, which `auto` leaves to the CPU's own forms.
    simulated: bool,
    cards: Vec<CardState>,
}

impl Kind {
    fn look((device, open): &(&'static str, device::Open)) -> Self {
        match open() {
            Ok(found) => Self {
                device,
                model: Some(found.model()),
                absent: None,
                simulated: found.is_simulated(),
                cards: found.cards(),
            },
            Err(error) => {
                let reason = match error {
                    device::Error::Absent { reason, .. } => reason,
                    error => with_causes(&error),
                };
                let (model, absent) = (None, Some(reason));
                Self { device, model, absent, simulated: false, cards: Vec::new() }
            }
        }
    }

    /// What it is, or why there is none.
    fn state(&self) -> String {
        let absent = self.absent.as_ref().map(|reason| format!("absent: {reason}"));
        let model = self.model.clone().or(absent).unwrap_or_default();
        if self.simulated { format!("{model}; on this processor") } else { model }
    }

    /// A line for it, and one for each of its cards.
    fn lines(&self) -> Vec<(String, String)> {
        let cards = self.cards.iter().enumerate();
        let cards = cards.map(|(at, card)| (format!("{}:{at}", self.device), card_line(card)));
        std::iter::once((self.device.to_owned(), self.state())).chain(cards).collect()
    }
}

/// A card as a line.
fn card_line(card: &CardState) -> String {
    let memory = match (card.free_bytes, card.memory_bytes) {
        (Some(free), Some(all)) => format!("{} of {} free, ", ByteCount(free), ByteCount(all)),
        _ => String::new(),
    };
    let unusable = card.unusable.as_ref().map(|reason| format!("cannot be used: {reason}"));
    let state = match card.held {
        Some(Held::Free) => "free".to_owned(),
        Some(Held::Here) => "held here".to_owned(),
        Some(Held::Elsewhere) => "held by another job".to_owned(),
        None => unusable.unwrap_or_default(),
    };
    format!("{} {}: {memory}{state}", card.model, card.name)
}

/// Every kind of device with its cards, each with what there is to say of it.
pub(super) fn look() -> Vec<(String, String)> {
    BACKENDS.iter().map(Kind::look).flat_map(|kind| kind.lines()).collect()
}

fn list(context: &Context) -> Outcome {
    let kinds: Vec<Kind> = BACKENDS.iter().map(Kind::look).collect();
    context.out.result("device list", &kinds, || {
        let mut table = Table::new(["device", "state"]);
        for (name, state) in kinds.iter().flat_map(Kind::lines) {
            table.row([name, state]);
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
    let choices = match choices.is_empty() {
        true => "none of these: this machine's processor simulates them\n",
        false => &choices,
    };
    let failed = report.devices.iter().filter(|found| found.model.is_some());
    let failed = failed.filter_map(|found| Some((found.device, found.absent.as_ref()?)));
    let failed: String = failed.map(|(device, why)| format!("\n{device} failed: {why}")).collect();
    format!("{}{failed}{WHAT_COUNTS}\nauto chooses\n{choices}", table.render())
}

const WHAT_COUNTS: &str = "
Rates count bytes of the secret, of the data or of the copy, each once. The share of a copy counts bytes
moved, read and written: 2 for each byte of a copy, 3 for one that is changed in place by another text, 4
for one that is split. Over a card's link as many bytes go, both ways together.
";

/// Which device did which kernels, a line for each device and reason.
pub(super) fn device_lines(devices: &[KernelDevice]) -> String {
    let mut lines: Vec<(&KernelDevice, String)> = Vec::new();
    for found in devices {
        let same = |(other, _): &&mut (&KernelDevice, String)| {
            (&other.device, &other.reason) == (&found.device, &found.reason)
        };
        match lines.iter_mut().find(same) {
            Some((_, kernels)) => *kernels += &format!(", {}", found.kernel),
            None => lines.push((found, found.kernel.clone())),
        }
    }
    let line = |(found, kernels): &(&KernelDevice, String)| {
        format!("{kernels}: {} ({})\n", found.device, found.reason)
    };
    lines.iter().map(line).collect()
}
