//! `dsgd bench`.

use std::fs;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde::Serialize;

use super::output::Table;
use super::{Context, Error, Outcome, file_error, kme, pads};
use crate::base::clock::Stopwatch;
use crate::base::{BitRate, ByteCount, Fault, Faulty, SampleName, ShareLetter};
use crate::bench::environment::Environment;
use crate::bench::local_sites::{Daemon, LocalSites, Plan, cpu_seconds, peak_memory};
use crate::bench::table2::{
    CONDITIONS, EXTRACTS, Run, Seconds, Sizes, digests_agree, mean_total, paper_value, scaled,
    throughput,
};
use crate::config::Config;
use crate::control::Role;
use crate::device::assign::Assignment;
use crate::disclosure::{FilterOptions, Right, filter};
use crate::flow::Meters;
use crate::pipeline::analyse::{Analyse, AnalyseReport, Calls};
use crate::pipeline::intake::{Source, read_file};
use crate::site::settings::ReferenceSettings;
use crate::site::{LoadedReference, PutFile, Site};

/// What to measure.
#[derive(Subcommand)]
pub enum Command {
    /// Table 2 of the paper: the whole job with and without concealment
    Table2(Table2),
    /// Requests a second of a key manager (ETSI GS QKD 014), client and servers on this machine
    Kme(kme::Bench),
    /// Table 3 of the paper: TCP and UDP by one-time pad and plain, headers in clear and hidden
    Table3(super::table3::Arguments),
    /// One end of a measurement of table3
    #[command(hide = true)]
    Table3End(super::table3::EndArguments),
    /// Deposit a file and restore it from two holders, without the engine
    E2e(E2e),
    /// Every kernel on every device, beside a copy of this machine's memory
    Kernels(super::device::Kernels),
    /// Seal and open pads on one core, with and without Fig. 5, beside what the memory gives
    Pads(pads::Pads),
    /// Make random numbers on one core, from each source; say how strong they are
    Random(pads::Random),
}

/// Arguments of `dsgd bench e2e`.
#[derive(Args)]
pub struct E2e {
    /// Any file; several times larger than the caches for a figure that means something
    file: PathBuf,
    /// Repetitions
    #[arg(long, default_value_t = 3)]
    runs: u32,
    /// Folder for the sites' files, removed afterwards
    #[arg(long, value_name = "FOLDER")]
    folder: Option<PathBuf>,
    /// Where the random numbers of sharing come from: os, device:PATH, or key-stream
    #[arg(long, default_value = "key-stream")]
    random: String,
    /// Kind of the holders' stores: dir, or volume (one preallocated file, addressed by sector)
    #[arg(long, default_value = "dir")]
    store: String,
}

/// One way of one run of `dsgd bench e2e`.
#[derive(Serialize)]
struct Way {
    way: &'static str,
    run: u32,
    bytes: u64,
    seconds: f64,
    /// CPU seconds of owner, holder of B, holder of C.
    cpu_seconds: [f64; 3],
    /// Gbit/s of the file for each second of CPU time, all processes together.
    gbit_per_core: f64,
    limiting_stage: String,
    /// The most that any of the processes has had in use.
    peak_memory_bytes: u64,
}

/// Arguments of `dsgd bench table2`.
#[derive(Args)]
pub struct Table2 {
    /// First and second mates, FASTQ
    #[arg(long, num_args = 2, required = true, value_names = ["FASTQ", "FASTQ"])]
    reads: Vec<PathBuf>,
    /// Reference FASTA
    #[arg(short, long, value_name = "FASTA")]
    reference: PathBuf,
    /// Repetitions of every condition
    #[arg(long, default_value_t = 1)]
    runs: u32,
    /// Folder for the sites' files, removed afterwards
    #[arg(long, value_name = "FOLDER")]
    folder: Option<PathBuf>,
    /// Write every run and the environment as JSON
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

#[derive(Serialize)]
struct Report {
    environment: Environment,
    runs: Vec<Run>,
    digests_agree: bool,
    ratio_total: Option<f64>,
}

/// Runs `dsgd bench`.
pub fn run(context: &Context, command: &Command) -> Outcome {
    match command {
        Command::Table2(arguments) => {
            let measured = in_folder(arguments.folder.as_deref(), |folder| {
                measure(context, arguments, folder)
            })?;
            table2(context, arguments, measured)
        }
        Command::Kme(arguments) => kme::bench(context, arguments),
        Command::Kernels(arguments) => super::device::bench(context, arguments),
        Command::Pads(arguments) => pads::run(context, arguments),
        Command::Random(arguments) => pads::random(context, arguments),
        Command::Table3(arguments) => super::table3::run(context, arguments),
        Command::Table3End(arguments) => super::table3::run_end(arguments),
        Command::E2e(arguments) => {
            let ways = in_folder(arguments.folder.as_deref(), |folder| {
                end_to_end(context, arguments, folder)
            })?;
            let report = (Environment::look(), ways);
            context.out.result("bench e2e", &report, || describe_ways(&report.0, &report.1));
            Ok(())
        }
    }
}

/// Does `work` in a folder that is removed afterwards.
pub(super) fn in_folder<T>(
    named: Option<&Path>,
    work: impl FnOnce(&Path) -> Result<T, Box<dyn Faulty>>,
) -> Result<T, Box<dyn Faulty>> {
    let folder = match named {
        Some(folder) => folder.to_owned(),
        None => std::env::temp_dir().join(format!("dsgd-bench-{}", std::process::id())),
    };
    fs::create_dir_all(&folder).map_err(file_error(&folder))?;
    let outcome = work(&folder);
    // What cannot be removed is left to the system's own cleaning.
    let _ = fs::remove_dir_all(&folder);
    outcome
}

fn end_to_end(
    context: &Context,
    arguments: &E2e,
    folder: &Path,
) -> Result<Vec<Way>, Box<dyn Faulty>> {
    let program = std::env::current_exe().map_err(file_error(Path::new("dsgd")))?;
    let sites = LocalSites::start(Plan {
        program,
        folder: folder.into(),
        cipher: "otp",
        stock: ByteCount(1_000_000_000_000),
        rate: BitRate(0),
        reference: "none.fa".into(),
        index: None,
        rights: String::new(),
        random: arguments.random.clone(),
        store: arguments.store.clone(),
        threads: 1,
    })
    .map_err(file_error(folder))?;
    let process = |site: &str| sites.daemons().iter().find(|daemon| daemon.site == site);
    let processes = [
        std::process::id(),
        process("lsa").map_or(0, Daemon::id),
        process("hospital").map_or(0, Daemon::id),
    ];
    let settings = Config::load(&[sites.config("tommo")])?.settings()?;
    let mut ways = Vec::new();
    for run in 1..=arguments.runs {
        let owner = Site::open(settings.clone(), context.notices())?;
        let name: SampleName = format!("file-{run}").parse().expect("a plain name");
        let file = PutFile { path: arguments.file.clone(), role: Role::Other };
        let before = processes.map(cpu_seconds);
        let put = owner.put(&name, &[file], &Meters::default())?;
        ways.push(way("put", run, put.bytes, put.seconds, (processes, before), put.limiting_stage));
        let restored = folder.join("restored");
        let before = processes.map(cpu_seconds);
        let pair = [ShareLetter::B, ShareLetter::C];
        let get = owner.get(&name, &restored, &pair, &Meters::default())?;
        let of = (processes, before);
        ways.push(way("get B and C", run, get.bytes, get.seconds, of, get.limiting_stage));
        for file in &get.files {
            fs::remove_file(file).map_err(file_error(file))?;
        }
    }
    Ok(ways)
}

fn way(
    way: &'static str,
    run: u32,
    bytes: u64,
    seconds: f64,
    (processes, before): ([u32; 3], [f64; 3]),
    limiting_stage: String,
) -> Way {
    let after = processes.map(cpu_seconds);
    let cpu_seconds = [0, 1, 2].map(|process| after[process] - before[process]);
    let gbit_per_core = bytes as f64 * 8e-9 / cpu_seconds.iter().sum::<f64>();
    let peak_memory_bytes = processes.map(peak_memory).into_iter().max().unwrap_or(0);
    Way { way, run, bytes, seconds, cpu_seconds, gbit_per_core, limiting_stage, peak_memory_bytes }
}

fn describe_ways(environment: &Environment, ways: &[Way]) -> String {
    let mut table = Table::new([
        "way",
        "run",
        "MB",
        "seconds",
        "Gbit/s",
        "CPU s owner",
        "holder B",
        "holder C",
        "Gbit/s per core",
        "peak MB",
        "limited by",
    ]);
    for way in ways {
        let [owner, b, c] = way.cpu_seconds.map(|seconds| format!("{seconds:.2}"));
        table.row([
            way.way.into(),
            way.run.to_string(),
            format!("{:.0}", way.bytes as f64 / 1e6),
            format!("{:.2}", way.seconds),
            format!("{:.2}", way.bytes as f64 * 8e-9 / way.seconds),
            owner,
            b,
            c,
            format!("{:.2}", way.gbit_per_core),
            format!("{:.0}", way.peak_memory_bytes as f64 / 1e6),
            way.limiting_stage.clone(),
        ]);
    }
    format!("{} cores, {}\n\n{}", environment.cores, environment.processor, table.render())
}

fn table2(context: &Context, arguments: &Table2, runs: Vec<Run>) -> Outcome {
    let agree = digests_agree(&runs);
    let ratio = |extract| {
        Some(
            mean_total(&runs, CONDITIONS[2], extract)? / mean_total(&runs, CONDITIONS[0], extract)?,
        )
    };
    let report = Report {
        environment: Environment::look(),
        ratio_total: ratio(EXTRACTS[2]),
        digests_agree: agree,
        runs,
    };
    if let Some(path) = &arguments.report {
        let text = serde_json::to_vec_pretty(&report).expect("a report is plain data");
        super::call::write_whole(path, &text)?;
    }
    context.out.result("bench table2", &report, || describe(&report));
    if agree {
        return Ok(());
    }
    let what = "the conditions did not give the same output".into();
    Err(Error::Check { what, fault: Fault::Bug }.into())
}

fn measure(
    context: &Context,
    arguments: &Table2,
    folder: &Path,
) -> Result<Vec<Run>, Box<dyn Faulty>> {
    let loaded = LoadedReference::read(&ReferenceSettings {
        name: "reference".into(),
        fasta: arguments.reference.clone(),
        index: None,
    })?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    // The index is made before any clock runs: it serves many samples.
    loaded.index(cores)?;
    let mut runs = Vec::new();
    for repetition in 1..=arguments.runs {
        for (column, condition) in CONDITIONS.into_iter().enumerate() {
            context.say(&format!("bench table2: {condition}, run {repetition}"));
            let bench = Bench { context, arguments, folder, loaded: &loaded, cores };
            runs.extend(bench.condition(column, condition, repetition)?);
        }
    }
    Ok(runs)
}

struct Bench<'a> {
    context: &'a Context,
    arguments: &'a Table2,
    folder: &'a Path,
    loaded: &'a LoadedReference,
    cores: usize,
}

impl Bench<'_> {
    fn condition(
        &self,
        column: usize,
        condition: &'static str,
        repetition: u32,
    ) -> Result<Vec<Run>, Box<dyn Faulty>> {
        let folder = self.folder.join(format!("{column}-{repetition}"));
        let sites = self.sites(&folder, if column == 2 { "otp" } else { "plain" })?;
        let name: SampleName = "sample".parse().expect("a plain name");
        if column > 0 {
            self.open(&sites, "tommo")?.put(&name, &self.files(), &Meters::default())?;
        }
        let trusted = self.open(&sites, "tommo-ts")?;
        let cpu = cpu_seconds(std::process::id());
        let watch = Stopwatch::start();
        let (calls, report) = if column == 0 {
            self.call_files()?
        } else {
            let catalogue = trusted.catalogue()?;
            let engine = self.loaded.engine("native", self.cores, &Assignment::cpu(), &[])?;
            trusted.call_deposit(
                &catalogue.stored(&name)?,
                self.loaded,
                &*engine,
                2,
                &Meters::default(),
            )?
        };
        let a = watch.elapsed().as_secs_f64();
        let cpu_seconds_a = cpu_seconds(std::process::id()) - cpu;
        let mut runs = Vec::new();
        for paper_records in EXTRACTS {
            let measured = self.extract(&trusted, &calls, &report, paper_records)?;
            let (sizes, mut seconds, records, extract_digest) = measured;
            seconds.a = a;
            runs.push(Run {
                condition,
                repetition,
                paper_records,
                records,
                sizes,
                seconds,
                cpu_seconds_a,
                limiting_stage: report.limiting_stage.clone(),
                stages_a: report.stages.clone(),
                calls_digest: report.vcf_digest.clone(),
                extract_digest,
                key_bytes: trusted.link_use().iter().map(|link| link.key_bytes).sum(),
            });
        }
        drop(sites);
        let _ = fs::remove_dir_all(&folder);
        Ok(runs)
    }

    fn sites(&self, folder: &Path, cipher: &'static str) -> Result<LocalSites, Box<dyn Faulty>> {
        let program = std::env::current_exe().map_err(file_error(Path::new("dsgd")))?;
        let reference = self.arguments.reference.canonicalize();
        Ok(LocalSites::start(Plan {
            program,
            folder: folder.into(),
            cipher,
            // Key is not what this measures: there is plenty.
            stock: ByteCount(1_000_000_000_000),
            rate: BitRate(0),
            reference: reference.map_err(file_error(&self.arguments.reference))?,
            index: None,
            rights: String::new(),
            random: "key-stream".into(),
            store: "dir".into(),
            threads: self.cores,
        })
        .map_err(file_error(folder))?)
    }

    fn open(&self, sites: &LocalSites, site: &str) -> Result<Site, Box<dyn Faulty>> {
        let settings = Config::load(&[sites.config(site)])?.settings()?;
        Ok(Site::open(settings, self.context.notices())?)
    }

    fn files(&self) -> Vec<PutFile> {
        let roles = [Role::Reads1, Role::Reads2];
        let files = self.arguments.reads.iter().zip(roles);
        files.map(|(path, role)| PutFile { path: path.clone(), role }).collect()
    }

    fn call_files(&self) -> Result<(Calls, AnalyseReport), Box<dyn Faulty>> {
        let meters = Meters::default();
        let engine = self.loaded.engine("native", self.cores, &Assignment::cpu(), &[])?;
        let sample: SampleName = "sample".parse().expect("a plain name");
        let analyse = Analyse {
            sample: &sample,
            engine: &*engine,
            reference: &self.loaded.reference,
            reference_path: &self.loaded.path,
            ploidy: 2,
            haploid: None,
            gvcf: None,
            regions: None,
            threads: self.cores,
            command_line: "dsgd run sample --reference reference".into(),
            room: crate::engine::Room::default(),
            format: crate::engine::AlignmentFormat::Bam,
            meters: &meters,
        };
        std::thread::scope(|scope| {
            let mut sources = Vec::new();
            for file in self.files() {
                let bytes = read_file(&file.path, 1 << 20, 8, true, &meters)?;
                let name = file.path.display().to_string();
                let bytes = bytes.on_thread(scope, 4);
                sources.push(Source { file: name, role: file.role, bytes });
            }
            Ok(analyse.run(scope, sources, None)?)
        })
    }

    /// Stages B-1 to C for one extract.
    fn extract(
        &self,
        trusted: &Site,
        calls: &Calls,
        report: &AnalyseReport,
        paper_records: u64,
    ) -> Result<(Sizes, Seconds, u64, String), Box<dyn Faulty>> {
        let permit = Right::everything(Some(scaled(paper_records, report.records))).resolve()?;
        let mut extract = Vec::new();
        // One thread, so that busy time is elapsed time, as the paper's stages are.
        let options = FilterOptions { threads: 1, ..FilterOptions::default() };
        let filtered = filter(&calls.vcf[..], &permit, &options, &mut extract)?;
        let sending = Stopwatch::start();
        let digest = trusted.transfer(&"clinic".parse().expect("a plain name"), &extract)?;
        let sizes = Sizes {
            fastq: report.fastq_bytes,
            vcf: filtered.text_bytes_in,
            vcf_gz: filtered.compressed_bytes_in,
            extract: filtered.text_bytes_out,
            extract_gz: filtered.compressed_bytes_out,
        };
        let seconds = Seconds {
            a: 0.0,
            b1: filtered.inflate_seconds,
            b2: filtered.filter_seconds,
            b3: filtered.compress_seconds,
            c: sending.elapsed().as_secs_f64(),
        };
        Ok((sizes, seconds, filtered.kept, digest))
    }
}

fn describe(report: &Report) -> String {
    let environment = &report.environment;
    let mut text = format!(
        "{} cores, {}, kernel {}, dsgd {}\n\n",
        environment.cores, environment.processor, environment.kernel, environment.version
    );
    let mut table = Table::new([
        "extract, row",
        "condition",
        "MB in+out",
        "seconds",
        "Mbit/s",
        "as printed",
        "paper",
    ]);
    for run in &report.runs {
        let sizes = &run.sizes;
        let seconds = &run.seconds;
        let volumes = [
            (sizes.fastq + sizes.vcf, seconds.a),
            (sizes.vcf_gz + sizes.vcf, seconds.b1),
            (sizes.vcf + sizes.extract, seconds.b2),
            (sizes.extract + sizes.extract_gz, seconds.b3),
            (sizes.extract_gz, seconds.c),
            (sizes.fastq, seconds.total()),
        ];
        let column = CONDITIONS.iter().position(|condition| *condition == run.condition);
        for ((row, rate), (bytes, seconds)) in throughput(sizes, seconds).iter().zip(volumes) {
            let paper = column.and_then(|column| paper_value(row, run.paper_records, column));
            table.row([
                format!("{} ({}), {row}", run.paper_records, run.records),
                run.condition.into(),
                format!("{:.1}", bytes as f64 / 1e6),
                format!("{seconds:.3}"),
                format!("{:.0}", rate.by_equation),
                format!("{:.0}", rate.as_printed),
                paper.map_or_else(|| "-".into(), |value| format!("{value:.0}")),
            ]);
        }
    }
    text += &table.render();
    for extract in EXTRACTS {
        let total = |condition| mean_total(&report.runs, condition, extract);
        let [Some(normal), Some(share), Some(otp)] = CONDITIONS.map(total) else { continue };
        text += &format!(
            "\nextract {extract}: total {normal:.0}, {share:.0}, {otp:.0} Mbit/s; share/OTP is {:.3} \
             of normal/plain",
            otp / normal
        );
    }
    let limit = report.runs.first().map_or("", |run| run.limiting_stage.as_str());
    let same = if report.digests_agree { "the same" } else { "NOT the same" };
    text + &format!("\nlimiting stage: '{limit}'; output over all conditions: {same}\n")
}
