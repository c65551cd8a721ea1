//! `dsgd demo`: the whole job on a small made-up sample, with every site a process of its own.

use std::fs::{self, File};
use std::io::{BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use super::compare::accuracy_table;
use super::output::Table;
use super::{Context, Error, Outcome, file_error};
use crate::base::clock::Stopwatch;
use crate::base::{BitRate, ByteCount, Fault, Faulty, SampleName, ShareLetter};
use crate::bench::local_sites::{LocalSites, Plan};
use crate::bench::sample::{Sample, SampleSettings};
use crate::config::Config;
use crate::control::Role;
use crate::disclosure::{FilterOptions, filter};
use crate::engine::compare::{Comparison, compare};
use crate::flow::{Meters, limiting_stage};
use crate::genome::{Region, bgzf, vcf};
use crate::pipeline::LinkUse;
use crate::pipeline::analyse::AnalyseReport;
use crate::pipeline::deliver::DeliverReport;
use crate::site::request::{AnalyseRequest, DeliverRequest};
use crate::site::{PutFile, Site};

/// Arguments of `dsgd demo`.
#[derive(Args)]
pub struct Arguments {
    /// Folder for everything, kept afterwards [default: a temporary one, removed]
    #[arg(long, value_name = "FOLDER")]
    folder: Option<PathBuf>,
    /// Mean depth of coverage of the sample
    #[arg(long, default_value_t = 30.0)]
    depth: f64,
    /// Bases of the sample's genome
    #[arg(long, default_value_t = 500_000)]
    bases: usize,
}

/// What the demonstration shows.
#[derive(Serialize)]
struct Report {
    stages: Vec<Row>,
    links: Vec<SiteLinks>,
    accuracy: Comparison,
    reads: u64,
    pairs_restored: Vec<String>,
    delivered_is_filtered: bool,
    seconds: f64,
}

#[derive(Serialize)]
struct Row {
    stage: &'static str,
    bytes: u64,
    seconds: f64,
    limiting_stage: String,
}

#[derive(Serialize)]
struct SiteLinks {
    site: &'static str,
    links: Vec<LinkUse>,
}

const RIGHT: &str = "[[right]]
id = \"clinic-panel\"
user = \"clinic\"
purpose = \"demonstration\"
regions = [\"sim1:1-150000\", \"sim2:50001-100000\"]
";

/// Runs `dsgd demo`.
pub fn run(context: &Context, arguments: &Arguments) -> Outcome {
    let folder = Folder::new(arguments.folder.as_deref())?;
    let watch = Stopwatch::start();
    let say = |text: &str| context.say(&format!("demo: {text}"));
    say("making a diploid sample with known truth");
    let sample = make_sample(&folder.path, arguments)?;
    say("starting the sites: lsa, hospital (holders), tommo-ts (trusted server), clinic (user)");
    let mut demo = Demo::start(context, &folder.path)?;
    say("put: splitting the reads into shares A, B, C");
    demo.put()?;
    say("get: restoring the reads from each pair of shares");
    let pairs_restored = demo.get_every_pair()?;
    say("run: the trusted server restores the reads and calls their variants");
    let analysed = demo.analyse()?;
    say("deliver: the trusted server filters the calls and sends them to the end user");
    demo.deliver()?;
    say("comparing with the truth");
    let delivered_is_filtered = demo.check_delivery()?;
    let accuracy = demo.compare(&sample)?;
    let report = Report {
        stages: demo.rows,
        links: demo.links,
        accuracy,
        reads: analysed.reads,
        pairs_restored,
        delivered_is_filtered,
        seconds: watch.elapsed().as_secs_f64(),
    };
    context.out.result("demo", &report, || describe(&report));
    if delivered_is_filtered {
        return Ok(());
    }
    let what = "the end user's VCF is not the filter of the engine's VCF".into();
    Err(Error::Check { what, fault: Fault::Integrity }.into())
}

struct Demo {
    folder: PathBuf,
    sites: LocalSites,
    owner: Site,
    rows: Vec<Row>,
    links: Vec<SiteLinks>,
}

impl Demo {
    fn start(context: &Context, folder: &Path) -> Result<Self, Box<dyn Faulty>> {
        let program = std::env::current_exe().map_err(file_error(Path::new("dsgd")))?;
        let sites = LocalSites::start(Plan {
            program,
            folder: folder.into(),
            cipher: "otp",
            stock: ByteCount(4_000_000_000),
            rate: BitRate(100_000_000),
            reference: "reference.fa".into(),
            index: None,
            rights: RIGHT.into(),
            random: "key-stream".into(),
            store: "dir".into(),
            threads: 0,
        })
        .map_err(file_error(folder))?;
        let settings = Config::load(&[sites.config("tommo")])?.settings()?;
        let owner = Site::open(settings, context.notices())?;
        Ok(Self { folder: folder.into(), sites, owner, rows: Vec::new(), links: Vec::new() })
    }

    fn put(&mut self) -> Result<(), Box<dyn Faulty>> {
        let meters = Meters::default();
        let file = |name: &str, role| PutFile { path: self.folder.join(name), role };
        let files = [file("reads_1.fq.gz", Role::Reads1), file("reads_2.fq.gz", Role::Reads2)];
        let report = self.owner.put(&name("sample"), &files, &meters)?;
        self.row(
            "put: reads to shares A, B, C",
            report.bytes,
            report.seconds,
            report.limiting_stage,
        );
        Ok(())
    }

    fn get_every_pair(&mut self) -> Result<Vec<String>, Box<dyn Faulty>> {
        use ShareLetter::{A, B, C};
        let mut pairs = Vec::new();
        for (pair, stage) in
            [([A, B], "get: A and B"), ([A, C], "get: A and C"), ([B, C], "get: B and C")]
        {
            let folder = self.folder.join(format!("restored-{}{}", pair[0], pair[1]));
            let meters = Meters::default();
            let report = self.owner.get(&name("sample"), &folder, &pair, &meters)?;
            for file in ["reads_1.fq.gz", "reads_2.fq.gz"] {
                let (put, got) = (self.folder.join(file), folder.join(file));
                let same = read(&put)? == read(&got)?;
                if !same {
                    let what = format!("{file} restored from {pair:?} is not what was deposited");
                    return Err(Error::Check { what, fault: Fault::Integrity }.into());
                }
            }
            self.row(stage, report.bytes, report.seconds, report.limiting_stage);
            pairs.push(format!("{}{}", pair[0], pair[1]));
        }
        Ok(pairs)
    }

    fn analyse(&mut self) -> Result<AnalyseReport, Box<dyn Faulty>> {
        let request = AnalyseRequest {
            sample: name("sample"),
            run: name("sample.calls"),
            reference: "reference".into(),
            engine: None,
            ploidy: 2,
        };
        let report = self.owner.ask_to_analyse(&trusted(), request, |_| {})?;
        let bytes = report.fastq_bytes + report.vcf_gz_bytes;
        let limit = limiting_stage(&report.stages).map_or(String::new(), |s| s.stage.clone());
        self.row("A: FASTQ to VCF.gz", bytes, report.seconds, limit);
        Ok(report)
    }

    fn deliver(&mut self) -> Result<(), Box<dyn Faulty>> {
        let request = DeliverRequest {
            run: name("sample.calls"),
            right: "clinic-panel".into(),
            user: "clinic".parse().expect("a plain name"),
        };
        let report: DeliverReport = self.owner.ask_to_deliver(&trusted(), request, |_| {})?;
        let filtered = &report.filter;
        let steps = [
            (
                "B-1: VCF.gz to VCF",
                filtered.compressed_bytes_in + filtered.text_bytes_in,
                filtered.inflate_seconds,
            ),
            (
                "B-2: VCF to filtered VCF",
                filtered.text_bytes_in + filtered.text_bytes_out,
                filtered.filter_seconds,
            ),
            (
                "B-3: filtered VCF to VCF.gz",
                filtered.text_bytes_out + filtered.compressed_bytes_out,
                filtered.compress_seconds,
            ),
            ("C: transfer to the end user", filtered.compressed_bytes_out, report.transfer_seconds),
        ];
        for (stage, bytes, seconds) in steps {
            self.row(stage, bytes, seconds, "-".into());
        }
        self.links.push(SiteLinks { site: "tommo", links: self.owner.link_use() });
        self.links.push(SiteLinks { site: "tommo-ts", links: report.links });
        Ok(())
    }

    fn row(&mut self, stage: &'static str, bytes: u64, seconds: f64, limiting_stage: String) {
        self.rows.push(Row { stage, bytes, seconds, limiting_stage });
    }

    /// Whether the file in the end user's inbox is what a filter makes of the engine's calls.
    fn check_delivery(&self) -> Result<bool, Box<dyn Faulty>> {
        let folder = self.folder.join("calls");
        self.owner.get(&name("sample.calls"), &folder, &ShareLetter::ALL, &Meters::default())?;
        let calls = read(&folder.join("sample.calls.vcf.gz"))?;
        let trusted = Config::load(&[self.sites.config("tommo-ts")])?.settings()?;
        let mut expected = Vec::new();
        let permit = trusted.right[0].resolve()?;
        filter(&calls[..], &permit, &FilterOptions::default(), &mut expected)?;
        let inbox = self.folder.join("clinic/inbox");
        let entries = fs::read_dir(&inbox).map_err(file_error(&inbox))?;
        let delivered = entries.flatten().map(|entry| entry.path());
        let delivered: Vec<_> =
            delivered.filter(|path| path.extension().is_some_and(|end| end == "gz")).collect();
        Ok(delivered.len() == 1 && read(&delivered[0])? == expected)
    }

    fn compare(&self, sample: &Sample) -> Result<Comparison, Box<dyn Faulty>> {
        let path = self.folder.join("calls/sample.calls.vcf.gz");
        let file = File::open(&path).map_err(file_error(&path))?;
        let mut calls = vcf::read_variants(BufReader::new(file), &sample.reference)?;
        calls.retain(|call| call.filters.is_empty());
        let everywhere = sample.reference.contigs.iter().map(|contig| Region {
            contig: contig.name.clone(),
            start: 0,
            end: contig.bases.len() as u32,
        });
        Ok(compare(&sample.reference, &sample.truth, &calls, &everywhere.collect(), 2))
    }
}

fn make_sample(folder: &Path, arguments: &Arguments) -> Result<Sample, Error> {
    let bases = arguments.bases.max(20_000);
    let sample = Sample::new(SampleSettings {
        contigs: vec![bases * 3 / 5, bases * 2 / 5],
        depth: arguments.depth,
        ..SampleSettings::default()
    });
    let path = folder.join("reference.fa");
    let file = File::create(&path).map_err(file_error(&path))?;
    sample.write_fasta(BufWriter::new(file)).map_err(file_error(&path))?;
    let (mut first, mut second) = (Vec::new(), Vec::new());
    sample.write_reads(&mut first, &mut second).map_err(file_error(folder))?;
    for (name, text) in [("reads_1.fq.gz", first), ("reads_2.fq.gz", second)] {
        let path = folder.join(name);
        let mut file = File::create(&path).map_err(file_error(&path))?;
        file.write_all(&bgzf::compress(&text, 1)).map_err(file_error(&path))?;
    }
    Ok(sample)
}

fn describe(report: &Report) -> String {
    let mut table = Table::new(["stage", "bytes", "seconds", "rate", "limited by"]);
    for row in &report.stages {
        table.row([
            row.stage.into(),
            ByteCount(row.bytes).to_string(),
            format!("{:.3}", row.seconds),
            BitRate::of(ByteCount(row.bytes), row.seconds).to_string(),
            row.limiting_stage.clone(),
        ]);
    }
    let mut links = Table::new(["link", "payload", "key bytes used", "keys"]);
    for (site, link) in
        report.links.iter().flat_map(|site| site.links.iter().map(move |link| (site.site, link)))
    {
        links.row([
            format!("{site} - {}", link.peer),
            ByteCount(link.payload_bytes).to_string(),
            ByteCount(link.key_bytes).to_string(),
            link.keys.clone(),
        ]);
    }
    format!(
        "{}\n{}\n{}\nreads: {}; restored byte for byte from each pair of shares: {}\n\
         the end user's VCF is the filter of the engine's VCF: {}\nall of it in {:.1} s\n",
        table.render(),
        links.render(),
        accuracy_table(&report.accuracy),
        report.reads,
        report.pairs_restored.join(", "),
        if report.delivered_is_filtered { "yes" } else { "NO" },
        report.seconds,
    )
}

/// The folder of a demonstration; a temporary one is removed at the end.
struct Folder {
    path: PathBuf,
    temporary: bool,
}

impl Folder {
    fn new(named: Option<&Path>) -> Result<Self, Error> {
        let path = match named {
            Some(path) => path.to_owned(),
            None => std::env::temp_dir().join(format!("dsgd-demo-{}", std::process::id())),
        };
        if path.exists() {
            return Err(Error::Usage(format!("{} exists already", path.display())));
        }
        fs::create_dir_all(&path).map_err(file_error(&path))?;
        let path = path.canonicalize().map_err(file_error(&path))?;
        Ok(Self { path, temporary: named.is_none() })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.temporary {
            // What cannot be removed is left to the system's own cleaning.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(file_error(path))
}

fn name(text: &str) -> SampleName {
    text.parse().expect("a plain name")
}

fn trusted() -> crate::base::SiteId {
    "tommo-ts".parse().expect("a plain name")
}
