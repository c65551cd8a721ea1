//! `dsgd bench table3`: throughput between two processes.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::bench::in_folder;
use super::output::Table;
use super::{Context, Error, Outcome, file_error};
use crate::base::{BitRate, ByteCount, Fault, Faulty};
use crate::bench::table3::ends::{self, End, Found, Task};
use crate::bench::table3::{Cell, Report, Run, describe, paths};
use crate::net::flow::Carrier;
use crate::otp::Cipher;
use crate::otp::packet::Headers;

/// Arguments of `dsgd bench table3`.
#[derive(Args)]
pub struct Arguments {
    /// Repetitions of every cell
    #[arg(long, default_value_t = 5)]
    runs: u32,
    /// How long each run sends
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// What lies between the two processes; veth takes the rights of root
    #[arg(long, value_enum, num_args = 1.., default_values = ["loopback", "veth"])]
    path: Vec<Between>,
    /// Only TCP or only UDP
    #[arg(long, value_enum)]
    only: Option<Only>,
    /// TCP connections
    #[arg(long, default_value_t = 1)]
    streams: u16,
    /// Measure AES-256-GCM as well, whose security is computational
    #[arg(long)]
    aes: bool,
    /// UDP payload to offer a second, such as 3Gbit/s; as much as arrives, if not given
    #[arg(long)]
    rate: Option<BitRate>,
    /// UDP payload on its way at once, if no rate is given
    #[arg(long, default_value = "1MiB")]
    window: ByteCount,
    /// Most key that the two ends agree on at once
    #[arg(long, default_value = "4MiB")]
    block: ByteCount,
    /// Folder for the two ends' files, removed afterwards
    #[arg(long, value_name = "FOLDER")]
    folder: Option<PathBuf>,
    /// Write every run and the environment as JSON
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Write the chart as SVG
    #[arg(long, value_name = "FILE")]
    chart: Option<PathBuf>,
}

/// What lies between the two processes.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Between {
    /// Loopback
    Loopback,
    /// Two network namespaces and a veth pair that passes on large segments as they are
    Veth,
    /// The same, but every packet passes alone, as on a wire
    Wire,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Only {
    Tcp,
    Udp,
}

/// Arguments of one end.
#[derive(Args)]
pub struct EndArguments {
    /// The task as JSON
    task: String,
}

/// Runs `dsgd bench table3`.
pub fn run(context: &Context, arguments: &Arguments) -> Outcome {
    let report =
        in_folder(arguments.folder.as_deref(), |folder| measure(context, arguments, folder))?;
    if let Some(path) = &arguments.report {
        let text = serde_json::to_string_pretty(&report).expect("a report is plain data");
        fs::write(path, text + "\n").map_err(file_error(path))?;
    }
    if let Some(path) = &arguments.chart {
        fs::write(path, report.chart()).map_err(file_error(path))?;
    }
    context.out.result("bench table3", &report, || describe(&report, as_table));
    Ok(())
}

fn as_table(rows: &[[String; 9]]) -> String {
    let mut table = Table::new([
        "path",
        "transport, headers hidden",
        "Gbit/s",
        "range",
        "paper",
        "loss",
        "reordered",
        "key B/B",
        "CPU s/GB sender, receiver",
    ]);
    for row in rows {
        table.row(row.clone());
    }
    table.render()
}

fn measure(
    context: &Context,
    arguments: &Arguments,
    folder: &Path,
) -> Result<Report, Box<dyn Faulty>> {
    let program = std::env::current_exe().map_err(file_error(Path::new("dsgd")))?;
    let ciphers: &[Cipher] = match arguments.aes {
        true => &[Cipher::Plain, Cipher::Otp, Cipher::Aes256Gcm],
        false => &[Cipher::Plain, Cipher::Otp],
    };
    let wanted = |cell: &Cell| match arguments.only {
        Some(Only::Tcp) => cell.carrier == Carrier::Tcp,
        Some(Only::Udp) => cell.carrier == Carrier::Udp,
        None => true,
    };
    let cells: Vec<Cell> = Cell::in_order(ciphers).into_iter().filter(wanted).collect();
    let (mut runs, mut missing) = (Vec::new(), Vec::new());
    ends::make_link(folder)?;
    for between in &arguments.path {
        let path = match between {
            Between::Loopback => Ok(paths::Path::loopback(program.clone())),
            Between::Veth => paths::Path::veth(program.clone(), true),
            Between::Wire => paths::Path::veth(program.clone(), false),
        };
        let path = match path {
            Ok(path) => path,
            Err(error) => {
                let name = between.to_possible_value();
                let name = name.map_or_else(String::new, |name| name.get_name().to_owned());
                context.say(&format!("no path '{name}' here: {error}"));
                missing.push(format!("{name}: {error}"));
                continue;
            }
        };
        for run in 1..=arguments.runs {
            for cell in &cells {
                let found = one(arguments, folder, &path, cell)?;
                let run = Run::new(*cell, path.name(), run, found);
                let headers = if cell.headers == Headers::Hidden { "hidden" } else { "clear" };
                context.say(&format!(
                    "{}, run {}: {:?} {}, headers {headers}: {:.2} Gbit/s",
                    run.path, run.run, cell.carrier, cell.cipher, run.gbit_per_second
                ));
                runs.push(run);
            }
        }
    }
    let command = std::env::args().skip(1).collect::<Vec<_>>().join(" ");
    Ok(Report::new(format!("dsgd {command}"), runs, missing))
}

fn one(
    arguments: &Arguments,
    folder: &Path,
    path: &paths::Path,
    cell: &Cell,
) -> Result<(Found, Found), Box<dyn Faulty>> {
    let task = Task {
        end: End::Sender,
        folder: folder.into(),
        address: ([127, 0, 0, 1], 0).into(),
        carrier: cell.carrier,
        shape: cell.shape(),
        streams: arguments.streams.max(1),
        seconds: arguments.seconds,
        rate: arguments.rate,
        window: arguments.window,
        block: arguments.block,
    };
    let failed = |error: std::io::Error| Error::Check {
        what: format!("a run between two processes: {error}"),
        fault: Fault::System,
    };
    Ok(path.run(&task).map_err(failed)?)
}

/// Runs one end and says in one line each where it listens and what it found.
pub fn run_end(arguments: &EndArguments) -> Outcome {
    let task: Task = serde_json::from_str(&arguments.task)
        .map_err(|error| Error::Usage(format!("the task is not understood: {error}")))?;
    let found = match task.end {
        End::Sender => ends::send(&task)?,
        End::Receiver => ends::receive(&task, |address| line(&address))?,
    };
    line(&found);
    Ok(())
}

/// The parent reads lines, not documents.
fn line<T: serde::Serialize>(value: &T) {
    let text = serde_json::to_string(value).expect("plain data");
    let mut out = std::io::stdout().lock();
    // Whoever does not listen any more has killed this process.
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}
