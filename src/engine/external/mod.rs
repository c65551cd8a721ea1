//! Engines that are other programs: FASTQ in by named pipes, VCF back.
//!
//! The program sees the reads as files in a private folder that is gone when it ends. It is told
//! where they are by placeholders in its arguments and by environment variables, so that a shell
//! script need not have paths pasted into it:
//!
//! | placeholder | variable | |
//! |---|---|---|
//! | `{reference}` | `DSGD_REFERENCE` | FASTA file |
//! | `{reads_1}` | `DSGD_READS_1` | first mates, or single reads |
//! | `{reads_2}` | `DSGD_READS_2` | second mates; an argument that is just this is left out for single reads |
//! | `{output}` | `DSGD_OUTPUT` | where the VCF is expected; on standard output, if no argument names it |
//! | `{sample}` | `DSGD_SAMPLE` | sample name |
//! | `{threads}` | `DSGD_THREADS` | threads it may use |
//! | `{ploidy}` | `DSGD_PLOIDY` | copies of each contig |
//! | `{scratch}` | `DSGD_SCRATCH` | the private folder, for its own temporary files |

mod feed;
mod process;
mod rewrite;
mod scratch;

use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{CallReport, CallRequest, Engine};
use crate::base::{Fault, Faulty};
use crate::flow::{Flow, Meters};
use crate::genome::{Layout, ReadBatch};
use feed::{Feed, Files};
use process::Process;
use scratch::Scratch;

/// How reads are handed to the program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Handover {
    /// Named pipes: no read is ever on a disk. The program must read both files alongside, once.
    #[default]
    Pipes,
    /// Files in the private folder, for programs that read them one after the other or twice.
    Files,
}

/// An engine that is another program, as in the configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ExternalSettings {
    /// Name for `--engine`.
    pub name: String,
    /// The program and its arguments, with placeholders. No shell unless it is named.
    pub command: Vec<String>,
    /// What prints the program's version in its first line.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub version_command: Vec<String>,
    /// How reads are handed over.
    #[serde(default)]
    pub handover: Handover,
    /// Folder for private folders; in memory, where the system has such a place, if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scratch: Option<PathBuf>,
    /// When to give up, in seconds after the start.
    #[serde(default = "one_day")]
    pub timeout_seconds: u64,
}

fn one_day() -> u64 {
    86_400
}

/// Why another program gave no calls.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no command.
    #[error("engine '{engine}' has no command")]
    NoCommand {
        /// The engine.
        engine: String,
    },
    /// The program cannot be started.
    #[error("engine '{engine}': '{program}' cannot be started")]
    Start {
        /// The engine.
        engine: String,
        /// The program.
        program: String,
        /// The system's reason.
        source: io::Error,
    },
    /// The private folder or what is in it cannot be used.
    #[error("engine '{engine}': {what}")]
    Scratch {
        /// The engine.
        engine: String,
        /// What was tried.
        what: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// The program failed.
    #[error("engine '{engine}' failed: {status}")]
    Failed {
        /// The engine.
        engine: String,
        /// How it ended.
        status: ExitStatus,
        /// The last 64 KiB it wrote to standard error.
        messages: String,
    },
    /// The program took too long and was stopped.
    #[error("engine '{engine}' was stopped after {seconds} s")]
    TimedOut {
        /// The engine.
        engine: String,
        /// The limit.
        seconds: u64,
        /// The last 64 KiB it wrote to standard error.
        messages: String,
    },
    /// The program ended well but left reads behind.
    #[error("engine '{engine}' ended before it had read all reads")]
    LeftReads {
        /// The engine.
        engine: String,
    },
    /// What came back is not the VCF of one sample in coordinate order.
    #[error("engine '{engine}': line {line} of its VCF: {what}")]
    Output {
        /// The engine.
        engine: String,
        /// The line, from 1.
        line: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// Alignments were asked for.
    #[error("engine '{engine}' gives no alignments")]
    NoAlignments {
        /// The engine.
        engine: String,
    },
}

impl Faulty for Error {
    fn fault(&self) -> Fault {
        match self {
            Error::NoCommand { .. } => Fault::Config,
            Error::Start { .. } => Fault::Unavailable,
            Error::Scratch { .. } => Fault::Disk,
            Error::TimedOut { .. } => Fault::TryAgain,
            Error::NoAlignments { .. } => Fault::Usage,
            Error::Failed { .. } | Error::LeftReads { .. } | Error::Output { .. } => Fault::System,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Error::Failed { messages, .. } | Error::TimedOut { messages, .. } => {
                let lines: Vec<&str> = messages.lines().collect();
                let last = &lines[lines.len().saturating_sub(5)..];
                (!last.is_empty()).then(|| format!("it said: {}", last.join(" / ")))
            }
            Error::Start { .. } => Some("is the program installed and in PATH?".into()),
            Error::LeftReads { .. } => {
                Some("does its command name {reads_1} and {reads_2}?".into())
            }
            _ => None,
        }
    }
}

/// An engine that runs another program. Reads without a mate are left out when the first batch
/// holds pairs.
pub struct External {
    settings: ExternalSettings,
}

impl External {
    /// The engine of these settings. Nothing is started before a call.
    pub fn new(settings: ExternalSettings) -> Self {
        Self { settings }
    }

    fn scratch_error(&self, what: &'static str) -> impl Fn(io::Error) -> Error + use<> {
        let engine = self.settings.name.clone();
        move |source| Error::Scratch { engine: engine.clone(), what, source }
    }

    /// The command with its placeholders filled in and its variables set.
    fn command(
        &self,
        request: &CallRequest<'_>,
        scratch: &Scratch,
        layout: Layout,
    ) -> Result<Command, Error> {
        let text = |path: PathBuf| path.to_string_lossy().into_owned();
        let reads_2 = match layout {
            Layout::Paired => text(scratch.path("reads_2.fq")),
            Layout::Single => String::new(),
        };
        let values = [
            ("reference", request.reference_path.to_string_lossy().into_owned()),
            ("reads_1", text(scratch.path("reads_1.fq"))),
            ("reads_2", reads_2),
            ("output", text(scratch.path(OUTPUT))),
            ("sample", request.sample.clone()),
            ("threads", request.threads.max(1).to_string()),
            ("ploidy", request.ploidy.to_string()),
            ("scratch", text(scratch.path(""))),
        ];
        let filled = self
            .settings
            .command
            .iter()
            .filter(|argument| layout == Layout::Paired || *argument != "{reads_2}")
            .map(|argument| fill(argument, &values));
        let mut filled = filled.collect::<Vec<_>>().into_iter();
        let engine = self.settings.name.clone();
        let mut command = Command::new(filled.next().ok_or(Error::NoCommand { engine })?);
        command.args(filled);
        for (name, value) in &values {
            command.env(format!("DSGD_{}", name.to_uppercase()), value);
        }
        Ok(command)
    }

    /// Runs the program over all reads and gives its VCF, as it wrote it, and the reads taken.
    fn run<'r>(
        &self,
        request: &CallRequest<'_>,
        mut reads: Flow<'r, ReadBatch>,
        meters: &Meters,
        scratch: &Scratch,
    ) -> Result<(Box<dyn Read + Send>, u64), super::Error> {
        let meter = meters.add("external engine", 1);
        let first = reads.next().transpose()?;
        let layout = first.as_ref().map_or(Layout::Paired, |batch| batch.layout);
        let command = self.command(request, scratch, layout)?;
        let mut reads = first.map(Ok).into_iter().chain(reads);
        let files = match self.settings.handover {
            Handover::Pipes => Files::pipes(scratch, layout),
            Handover::Files => Files::plain(scratch, layout),
        };
        let files = files.map_err(self.scratch_error("making the files of reads"))?;
        let names_output = self.settings.command.iter().any(|text| text.contains("{output}"));
        let limit = Duration::from_secs(self.settings.timeout_seconds);
        let mut feed = Feed::new(files, layout, meter);
        if self.settings.handover == Handover::Files {
            // Nobody reads yet: these are files, and writing them ends.
            feed.write_all(&mut reads).map_err(|error| self.feed_error(error))?;
        }
        let mut process =
            Process::start(command, limit, !names_output).map_err(|source| Error::Start {
                engine: self.settings.name.clone(),
                program: self.settings.command.first().cloned().unwrap_or_default(),
                source,
            })?;
        if self.settings.handover == Handover::Pipes {
            let fed = feed.write_pipes(&mut reads, &process);
            if let Err(error) = fed {
                process.kill();
                return Err(self.feed_error(error));
            }
        }
        let ended = process.wait();
        self.check_end(&ended, feed.left_reads())?;
        let output: Box<dyn Read + Send> = if names_output {
            let file = std::fs::File::open(scratch.path(OUTPUT));
            Box::new(file.map_err(self.scratch_error("opening the program's VCF"))?)
        } else {
            Box::new(io::Cursor::new(ended.output))
        };
        Ok((output, feed.reads()))
    }

    fn feed_error(&self, error: feed::Error) -> super::Error {
        match error {
            feed::Error::Reads(error) => super::Error::Reads(error),
            feed::Error::Write(source) => {
                self.scratch_error("handing over the reads")(source).into()
            }
        }
    }

    fn check_end(&self, ended: &process::Ended, left_reads: bool) -> Result<(), Error> {
        let (engine, messages) = (self.settings.name.clone(), ended.messages.clone());
        match ended.status {
            Err(process::TimedOut) => {
                Err(Error::TimedOut { engine, seconds: self.settings.timeout_seconds, messages })
            }
            Ok(status) if !status.success() => Err(Error::Failed { engine, status, messages }),
            Ok(_) if left_reads => Err(Error::LeftReads { engine }),
            Ok(_) => Ok(()),
        }
    }
}

/// Name of the program's VCF in the private folder.
const OUTPUT: &str = "output.vcf";

/// Puts values for `{name}`; other braces stay.
fn fill(argument: &str, values: &[(&str, String)]) -> String {
    let mut filled = String::new();
    let mut rest = argument;
    while let Some(at) = rest.find('{') {
        let (before, from) = rest.split_at(at);
        filled += before;
        let value = values.iter().find_map(|(name, value)| {
            let after = from[1..].strip_prefix(name)?.strip_prefix('}')?;
            Some((value, after))
        });
        match value {
            Some((value, after)) => {
                filled += value;
                rest = after;
            }
            None => {
                filled.push('{');
                rest = &from[1..];
            }
        }
    }
    filled + rest
}

impl Engine for External {
    fn name(&self) -> &str {
        &self.settings.name
    }

    /// The first line that the version command prints; `unknown` if there is none.
    fn version(&self) -> String {
        let unknown = || String::from("unknown");
        let [program, arguments @ ..] = &self.settings.version_command[..] else {
            return unknown();
        };
        let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
        let Ok(output) = output else { return unknown() };
        let text = if output.stdout.is_empty() { output.stderr } else { output.stdout };
        let text = String::from_utf8_lossy(&text);
        let line = text.lines().map(str::trim).find(|line| !line.is_empty());
        line.map_or_else(unknown, |line| {
            line.chars().filter(|c| !c.is_control()).take(80).collect()
        })
    }

    fn call(
        &self,
        request: &CallRequest<'_>,
        reads: Flow<'_, ReadBatch>,
        meters: &Meters,
        vcf: &mut (dyn Write + Send),
        bam: Option<&mut (dyn Write + Send)>,
    ) -> Result<CallReport, super::Error> {
        if bam.is_some() {
            return Err(Error::NoAlignments { engine: self.settings.name.clone() }.into());
        }
        let scratch = Scratch::new(self.settings.scratch.as_deref())
            .map_err(self.scratch_error("making a private folder"))?;
        let (output, reads) = self.run(request, reads, meters, &scratch)?;
        let report = rewrite::rewrite(output, request, &self.settings.name, vcf)?;
        Ok(CallReport { reads, ..report })
    }
}

#[cfg(test)]
mod tests;
