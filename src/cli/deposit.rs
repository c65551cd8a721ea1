//! `dsgd put` and `dsgd get`.

use std::io::Read;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::device::{self, device_lines};
use super::output::Table;
use super::{Context, Error, Outcome, file_error};
use crate::base::{BitRate, ByteCount, SampleName, ShareLetter};
use crate::control::Role;
use crate::flow::{Meters, StageReport};
use crate::genome::detect::{Format, HEAD_BYTES};
use crate::pipeline::LinkUse;
use crate::site::PutFile;

/// Arguments of `dsgd put`.
#[derive(Args)]
pub struct PutArguments {
    /// What to call the deposit
    name: SampleName,
    /// FASTQ (first and second mates of each lane in turn), BAM, CRAM or VCF files
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// How mates are laid out in FASTQ files
    #[arg(long, value_enum, default_value = "pairs")]
    layout: ReadLayout,
    #[command(flatten)]
    device: device::Choice,
}

/// How the FASTQ files of a deposit belong together.
#[derive(Clone, Copy, ValueEnum)]
pub enum ReadLayout {
    /// First and second mates in two files, one pair of files a lane; a single file is single reads.
    Pairs,
    /// First and second mates in turn in each file.
    Interleaved,
    /// Single reads in each file.
    Single,
}

/// Arguments of `dsgd get`.
#[derive(Args)]
pub struct GetArguments {
    /// The deposit
    name: SampleName,
    /// Folder to restore its files to
    #[arg(short, long, value_name = "FOLDER")]
    output: PathBuf,
    /// Use these two shares only; by default any two, the nearest first
    #[arg(long, value_enum)]
    shares: Option<Pair>,
    #[command(flatten)]
    device: device::Choice,
}

/// Two of the three shares.
#[derive(Clone, Copy, ValueEnum)]
pub enum Pair {
    /// Shares A and B.
    Ab,
    /// Shares A and C.
    Ac,
    /// Shares B and C: not the owner's own.
    Bc,
}

/// Runs `dsgd put`.
pub fn put(context: &Context, arguments: &PutArguments) -> Outcome {
    let files = roles(&arguments.files, arguments.layout)?;
    let site = context.site_on(&arguments.device)?;
    let meters = Meters::default();
    let progress = context.progress("put", &meters);
    let report = site.put(&arguments.name, &files, &meters)?;
    drop(progress);
    context.out.result("put", &report, || {
        let mut text = format!(
            "'{}' is deposited: {} in {} file(s), {:.1} s, {}; limited by '{}'\n",
            arguments.name,
            ByteCount(report.bytes),
            report.deposit.members.len(),
            report.seconds,
            BitRate::of(ByteCount(report.bytes), report.seconds),
            report.limiting_stage,
        );
        let [a, b, c] = &report.deposit.placement;
        text += &format!("shares: A at {a}, B at {b}, C at {c}; random numbers: ");
        text += &format!("{}\n{}\n", report.deposit.random, device_lines(&report.devices));
        text + &stage_table(&report.stages) + "\n" + &link_table(&report.keys)
    });
    Ok(())
}

/// Runs `dsgd get`.
pub fn get(context: &Context, arguments: &GetArguments) -> Outcome {
    use ShareLetter::{A, B, C};
    let order: &[ShareLetter] = match arguments.shares {
        None => &[A, B, C],
        Some(Pair::Ab) => &[A, B],
        Some(Pair::Ac) => &[A, C],
        Some(Pair::Bc) => &[B, C],
    };
    let site = context.site_on(&arguments.device)?;
    let meters = Meters::default();
    let progress = context.progress("get", &meters);
    let report = site.get(&arguments.name, &arguments.output, order, &meters)?;
    drop(progress);
    context.out.result("get", &report, || {
        let mut text = String::new();
        for file in &report.files {
            text += &format!("{}\n", file.display());
        }
        text += &format!(
            "\n{} restored in {:.1} s, {}; limited by '{}'\n",
            ByteCount(report.bytes),
            report.seconds,
            BitRate::of(ByteCount(report.bytes), report.seconds),
            report.limiting_stage,
        );
        text += &format!("{}\n", device_lines(&report.devices));
        text + &stage_table(&report.stages) + "\n" + &link_table(&report.keys)
    });
    Ok(())
}

/// What each file is for, by its content.
pub fn roles(files: &[PathBuf], layout: ReadLayout) -> Result<Vec<PutFile>, Error> {
    let mut roles = Vec::with_capacity(files.len());
    let mut waiting = false;
    for path in files {
        let role = match (detect(path)?, layout) {
            (Some(Format::Fastq | Format::FastqGz), ReadLayout::Interleaved) => Role::Interleaved,
            (Some(Format::Fastq | Format::FastqGz), ReadLayout::Single) => Role::Reads1,
            (Some(Format::Fastq | Format::FastqGz), ReadLayout::Pairs) => {
                waiting = !waiting;
                if waiting { Role::Reads1 } else { Role::Reads2 }
            }
            (Some(Format::Bam | Format::Cram), _) => Role::Alignments,
            (Some(Format::Vcf | Format::VcfGz), _) => Role::Calls,
            _ => Role::Other,
        };
        roles.push(PutFile { path: path.clone(), role });
    }
    let reads =
        roles.iter().filter(|file| matches!(file.role, Role::Reads1 | Role::Reads2)).count();
    if matches!(layout, ReadLayout::Pairs) && reads > 1 && reads % 2 == 1 {
        let message = format!(
            "{reads} FASTQ files are not pairs: give both files of each lane, or say --layout single \
             or --layout interleaved"
        );
        return Err(Error::Usage(message));
    }
    Ok(roles)
}

/// What a file holds, looking inside compression.
fn detect(path: &Path) -> Result<Option<Format>, Error> {
    let failed = file_error(path);
    let mut head = Vec::new();
    let file = std::fs::File::open(path).map_err(&failed)?;
    if !file.metadata().map_err(&failed)?.is_file() {
        // A pipe can be read only once: it is taken for what pipes usually carry.
        return Ok(Some(Format::Fastq));
    }
    file.take(HEAD_BYTES as u64).read_to_end(&mut head).map_err(&failed)?;
    Ok(Format::detect(&head))
}

/// What every stage did.
pub fn stage_table(stages: &[StageReport]) -> String {
    let mut table = Table::new(["stage", "in", "out", "busy s", "starved s", "blocked s"]);
    for stage in stages {
        table.row([
            stage.stage.clone(),
            ByteCount(stage.bytes_in).to_string(),
            ByteCount(stage.bytes_out).to_string(),
            format!("{:.2}", stage.busy_seconds),
            format!("{:.2}", stage.starved_seconds),
            format!("{:.2}", stage.blocked_seconds),
        ]);
    }
    table.render()
}

/// What every link carried.
pub fn link_table(links: &[LinkUse]) -> String {
    let mut table = Table::new(["link to", "payload", "key bytes used", "keys"]);
    for link in links {
        table.row([
            link.peer.clone(),
            ByteCount(link.payload_bytes).to_string(),
            ByteCount(link.key_bytes).to_string(),
            link.keys.clone(),
        ]);
    }
    table.render()
}
