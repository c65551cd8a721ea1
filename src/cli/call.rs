//! `dsgd call`: the engine alone, on local files.

use std::fs::File;
use std::io::{BufReader, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use clap::{Args, ValueEnum};

use super::deposit::{ReadLayout, roles, stage_table};
use super::device::device_lines;
use super::metrics::MetricsFormat;
use super::{Context, Error, Outcome, content_error, file_error};
use crate::base::clock::Stopwatch;
use crate::base::{BitRate, ByteCount, Fault, SampleName};
use crate::control::Role;
use crate::device::assign::Assignment;
use crate::device::setting::Setting;
use crate::engine::native::call::SharedSink;
use crate::engine::{AlignmentFormat, Room};
use crate::flow::Meters;
use crate::genome::{Regions, bed};
use crate::io::StreamWriter;
use crate::pipeline::analyse::Analyse;
use crate::pipeline::intake::{Source, read_file};
use crate::site::LoadedReference;
use crate::site::settings::ReferenceSettings;

/// Arguments of `dsgd call`.
#[derive(Args)]
pub struct Arguments {
    /// Reference FASTA, plain or compressed
    #[arg(short, long, value_name = "FASTA")]
    reference: PathBuf,
    /// Index of the reference made by 'dsgd index build' [default: built in memory]
    #[arg(long, value_name = "FILE")]
    index: Option<PathBuf>,
    /// FASTQ (first and second mates of each lane in turn), BAM or CRAM files
    #[arg(long, required = true, num_args = 1.., value_name = "FILE")]
    reads: Vec<PathBuf>,
    /// How mates are laid out in FASTQ files
    #[arg(long, value_enum, default_value = "pairs")]
    layout: ReadLayout,
    /// Where to write the calls: VCF 4.3, compressed, with its index beside it
    #[arg(short, long, value_name = "VCF.GZ")]
    output: PathBuf,
    /// Sample name in the VCF
    #[arg(long, default_value = "sample")]
    sample: SampleName,
    /// Worker threads; never changes a byte of output [default: all cores]
    #[arg(short, long)]
    threads: Option<usize>,
    /// Copies of each contig
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=2))]
    ploidy: u8,
    /// Write a gVCF as well, with its index beside it
    #[arg(long, value_name = "G.VCF.GZ", conflicts_with = "engine")]
    gvcf: Option<PathBuf>,
    /// Regions with one copy, such as chrX, chrY and chrM of a man
    #[arg(long, value_name = "BED")]
    haploid: Option<PathBuf>,
    /// Call in these regions only
    #[arg(long, value_name = "BED")]
    regions: Option<PathBuf>,
    /// Write the alignments as well, BAM or CRAM, with their index beside them
    #[arg(long, value_name = "OUT.bam|OUT.cram")]
    bam: Option<PathBuf>,
    /// Write quality figures into this folder: tables that MultiQC finds, and JSON
    #[arg(long, value_name = "DIR")]
    metrics: Option<PathBuf>,
    /// Which figures: DRAGEN's tables, mosdepth's tables, one JSON document [default: all]
    #[arg(long, value_name = "FORMATS", value_enum, value_delimiter = ',', requires = "metrics")]
    metrics_format: Vec<MetricsFormat>,
    /// Memory for placed reads; those beyond it go encrypted through the scratch folder
    #[arg(long, value_name = "BYTES", default_value = "1GiB")]
    memory: ByteCount,
    /// Folder of the scratch file [default: the system's for temporary files]
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,
    /// Name of an engine of the configuration instead of the native one
    #[arg(long)]
    engine: Option<String>,
    /// What computes: 'auto' measures and chooses; never changes a byte of output
    #[arg(long, default_value_t, value_name = Setting::VALUES, conflicts_with = "engine")]
    device: Setting,
}

/// Runs `dsgd call`.
pub fn run(context: &Context, arguments: &Arguments) -> Outcome {
    let files = roles(&arguments.reads, arguments.layout)?;
    if let Some(other) = files.iter().find(|file| matches!(file.role, Role::Calls | Role::Other)) {
        let what = format!("{} is neither FASTQ nor BAM nor CRAM", other.path.display());
        return Err(Error::Check { what, fault: Fault::Data }.into());
    }
    let watch = Stopwatch::start();
    let regions = arguments.regions.as_deref().map(read_regions).transpose()?;
    let haploid = arguments.haploid.as_deref().map(read_regions).transpose()?;
    let loaded = LoadedReference::read(&ReferenceSettings {
        name: arguments.reference.display().to_string(),
        fasta: arguments.reference.clone(),
        index: arguments.index.clone(),
    })?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = arguments.threads.filter(|threads| *threads > 0).unwrap_or(cores);
    let (engine, devices) = match &arguments.engine {
        Some(name) => {
            let external = &context.settings()?.engine.external;
            let devices = Assignment::cpu();
            (loaded.engine(name, threads, &devices, external)?, devices)
        }
        None => {
            let devices = Assignment::choose(&arguments.device, threads)?;
            (loaded.engine("native", threads, &devices, &[])?, devices)
        }
    };
    let loading_seconds = watch.elapsed().as_secs_f64();
    let format = alignment_format(arguments)?;
    let room = Room {
        memory: arguments.memory,
        scratch: arguments.scratch.clone().unwrap_or_else(std::env::temp_dir),
    };
    let create = |path: &Path| StreamWriter::create(path, None);
    let gvcf = arguments.gvcf.as_deref().map(create).transpose()?.map(Mutex::new);
    let meters = Meters::default();
    let _progress = context.progress("call", &meters);
    let analyse = Analyse {
        sample: &arguments.sample,
        engine: &*engine,
        reference: &loaded.reference,
        reference_path: &loaded.path,
        ploidy: arguments.ploidy,
        haploid,
        gvcf: gvcf.as_ref().map(|sink| sink as SharedSink<'_>),
        regions,
        threads,
        command_line: command_line(arguments),
        room,
        format,
        meters: &meters,
    };
    let mut bam = arguments.bam.as_deref().map(create).transpose()?;
    let (calls, mut report) = std::thread::scope(|scope| {
        let mut sources = Vec::with_capacity(files.len());
        for file in &files {
            let bytes = read_file(&file.path, 1 << 20, 8, false, &meters)?;
            sources.push(Source {
                file: file.path.display().to_string(),
                role: file.role,
                bytes: bytes.on_thread(scope, 2),
            });
        }
        let bam = bam.as_mut().map(|out| out as &mut (dyn Write + Send));
        Ok::<_, Box<dyn crate::base::Faulty>>(analyse.run(scope, sources, bam)?)
    })?;
    report.notices.extend(devices.notices());
    if let Some(bam) = bam {
        bam.finish()?;
    }
    if let Some(path) = arguments.bam.as_deref().filter(|_| !calls.alignment_index.is_empty()) {
        let ending = if format == AlignmentFormat::Cram { ".crai" } else { ".bai" };
        write_whole(&beside(path, ending), &calls.alignment_index)?;
    }
    if let (Some(gvcf), Some(path)) = (gvcf, &arguments.gvcf) {
        gvcf.into_inner().unwrap_or_else(PoisonError::into_inner).finish()?;
        write_whole(&beside(path, ".tbi"), &calls.gvcf_tabix)?;
    }
    write_whole(&arguments.output, &calls.vcf)?;
    write_whole(&beside(&arguments.output, ".tbi"), &calls.tabix)?;
    if let Some(folder) = &arguments.metrics {
        let all = MetricsFormat::value_variants();
        let chosen = &arguments.metrics_format[..];
        let formats = if chosen.is_empty() { all } else { chosen };
        super::metrics::write(folder, formats, &report, loading_seconds)?;
    }
    context.out.result("call", &report, || {
        let notices: String =
            report.notices.iter().map(|notice| format!("note: {notice}\n")).collect();
        let devices = device_lines(&report.devices);
        format!(
            "{}: {} records from {} reads ({:.2} % mapped, {:.2} % duplicates)\n{} of FASTQ in \
             {:.1} s, {}; limited by '{}'\n{notices}{devices}\n{}",
            arguments.output.display(),
            report.records,
            report.reads,
            100.0 * report.mapped as f64 / report.reads.max(1) as f64,
            100.0 * report.duplicates as f64 / report.reads.max(1) as f64,
            ByteCount(report.fastq_bytes),
            report.seconds,
            BitRate::of(ByteCount(report.fastq_bytes), report.seconds),
            report.limiting_stage,
            stage_table(&report.stages),
        )
    });
    Ok(())
}

/// A file's path with `ending` behind it.
fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut longer = path.as_os_str().to_owned();
    longer.push(ending);
    longer.into()
}

/// What the alignments are written as, by the ending of their file.
fn alignment_format(arguments: &Arguments) -> Result<AlignmentFormat, Error> {
    let ending = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "cram");
    if !arguments.bam.as_ref().is_some_and(ending) {
        return Ok(AlignmentFormat::Bam);
    }
    if let Some(name) = &arguments.engine {
        let what = format!("the engine '{name}' writes no CRAM: name a file that ends in .bam");
        return Err(Error::Check { what, fault: Fault::Usage });
    }
    Ok(AlignmentFormat::Cram)
}

/// How the calls are made, for the header: file names without folders, which may name patients.
fn command_line(arguments: &Arguments) -> String {
    let short = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let reads: Vec<_> = arguments.reads.iter().map(|path| short(path)).collect();
    let haploid = arguments.haploid.as_deref().map(|path| format!(" --haploid {}", short(path)));
    format!(
        "dsgd call --reference {} --reads {} --ploidy {}{}",
        short(&arguments.reference),
        reads.join(" "),
        arguments.ploidy,
        haploid.unwrap_or_default(),
    )
}

/// Reads a BED file.
pub fn read_regions(path: &Path) -> Result<Regions, Box<dyn crate::base::Faulty>> {
    let file = File::open(path).map_err(file_error(path))?;
    Ok(bed::read(BufReader::new(file)).map_err(content_error(path))?)
}

/// Writes a file that appears whole or not at all.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), crate::io::Error> {
    let mut out = StreamWriter::create(path, Some(bytes.len() as u64))?;
    out.add(bytes)?;
    out.finish().map(drop)
}
