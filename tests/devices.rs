//! `dsgd device`, as it is run: which devices there are, that they are right, which is chosen; and the
//! engine on each of them: the same calls.
//!
//! A device that is not there is skipped, unless the environment variable `DSGD_REQUIRE_DEVICES` names it.
#![allow(clippy::unwrap_used)]

#[path = "devices/watched.rs"]
mod watched;

use std::collections::VecDeque;
use std::process::Command;
use std::sync::Arc;

use dsgd::bench::sample::{Sample, SampleSettings};
use dsgd::device::assign::Assignment;
use dsgd::device::{BACKENDS, Device, Error, Kernel};
use dsgd::engine::native::{Index, Native};
use dsgd::engine::{CallReport, CallRequest, Engine};
use dsgd::flow::{Flow, Meters};
use dsgd::genome::fastq::FastqParser;
use dsgd::genome::{Layout, ReadBatch};
use serde_json::Value;
use watched::{Watch, Watched};

/// Runs the program without any simulated device; gives its exit code and its two outputs.
fn dsgd(words: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_dsgd"))
        .args(words)
        .env_remove("DSGD_FPGA_SIM")
        .env_remove("DSGD_XCLBIN")
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn json(words: &[&str]) -> Value {
    let (code, out, error) = dsgd(&[&["--json"], words].concat());
    assert_eq!(code, 0, "{error}");
    serde_json::from_str::<Value>(&out).unwrap()["data"].take()
}

#[test]
fn every_kind_of_device_is_there_or_says_why_not() {
    let listed = json(&["device", "list"]);
    let of = |name: &str| listed.as_array().unwrap().iter().find(|one| one["device"] == name);
    assert!(of("cpu").unwrap()["model"].is_string());
    for (name, reason) in [("fpga-sim", "DSGD_FPGA_SIM"), ("xrt", "DSGD_XCLBIN")] {
        assert!(of(name).unwrap()["absent"].as_str().unwrap().contains(reason));
    }
    assert!(of("cuda").is_some() && of("wgpu").is_some());
}

#[test]
fn a_card_that_cannot_be_used_does_not_hide_the_others() {
    let list = |cards: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dsgd"));
        command.args(["--json", "device", "list"]).env("DSGD_SHIM_CARDS", cards);
        let report: Value = serde_json::from_slice(&command.output().unwrap().stdout).unwrap();
        let kinds = report["data"].as_array().unwrap();
        kinds.iter().find(|kind| kind["device"] == "cuda").unwrap().clone()
    };
    let all = list("");
    if !all["model"].as_str().is_some_and(|model| model.contains("simulated card")) {
        return eprintln!("skipped: no simulated CUDA driver");
    }
    for (cards, unusable, reason) in [
        ("good,old", 1, "knows no cards as old as sm_60"),
        ("held,good", 0, "DEVICE_UNAVAILABLE"),
        ("broken,good", 0, "ECC_UNCORRECTABLE"),
    ] {
        let listed = list(cards);
        let known = |at: usize| (&all["cards"][at]["name"], &all["cards"][at]["model"]);
        for (at, card) in listed["cards"].as_array().unwrap().iter().enumerate() {
            assert_eq!((&card["name"], &card["model"]), known(at), "{cards}");
            let why = card["unusable"].as_str();
            assert_eq!(why.is_some_and(|why| why.contains(reason)), at == unusable, "{listed}");
            assert_eq!(card["held"].is_string(), at != unusable, "{listed}");
        }
        assert_eq!(listed["cards"].as_array().unwrap().len(), 2);
    }
    let none = list("old,held");
    let reason = none["absent"].as_str().unwrap();
    assert!(reason.contains("card 0: ") && reason.contains("card 1: "), "{reason}");
}

#[test]
fn the_cpu_passes_the_check_and_what_is_absent_does_not() {
    assert_eq!(json(&["device", "check", "cpu"]), serde_json::json!(["cpu"]));
    assert_eq!(dsgd(&["device", "check", "fpga-sim"]).0, 69);
    let (code, _, error) = dsgd(&["device", "check", "abacus"]);
    assert_eq!(code, 78);
    assert!(error.contains("known are") && error.contains("cuda"), "{error}");
}

#[test]
fn every_kernel_has_a_figure_and_a_chosen_device() {
    let report = json(&["device", "bench", "cpu"]);
    let choices = report["choices"].as_array().unwrap();
    assert_eq!(choices.len(), 11);
    assert!(choices.iter().all(|choice| choice["device"] == "cpu"));
    let reason = choices[0]["reason"].as_str().unwrap();
    assert!(reason.starts_with("cpu ") && reason.ends_with(" GB/s"), "{reason}");
}

#[test]
fn what_this_processor_simulates_is_measured_and_not_chosen() {
    let listed = json(&["device", "list"]);
    let simulated: Vec<_> = listed
        .as_array()
        .unwrap()
        .iter()
        .filter(|one| one["model"].is_string() && one["simulated"] == true)
        .map(|one| one["device"].as_str().unwrap())
        .collect();
    for name in simulated {
        let report = json(&["device", "bench", name]);
        assert!(!report["figures"].as_array().unwrap().is_empty(), "{name}");
        assert_eq!(report["choices"], serde_json::json!([]), "{name}");
    }
}

/// A sample so small that simulated cards do its work in seconds, with a variant every hundred bases.
struct Small {
    sample: Sample,
    index: Arc<Index>,
    text: String,
}

impl Small {
    fn new() -> Self {
        let sample = Sample::new(SampleSettings {
            contigs: vec![3000, 2000],
            depth: 14.0,
            snp_rate: 6e-3,
            indel_rate: 4e-3,
            ..SampleSettings::default()
        });
        let (mut first, mut second) = (Vec::new(), Vec::new());
        sample.write_reads(&mut first, &mut second).unwrap();
        let [first, second] = [first, second].map(|text| String::from_utf8(text).unwrap());
        let records = |text: &str| -> Vec<String> {
            let lines: Vec<&str> = text.lines().collect();
            lines.chunks(4).map(|record| record.join("\n") + "\n").collect()
        };
        let pairs = records(&first).into_iter().zip(records(&second));
        let text = pairs.flat_map(|(one, two)| [one, two]).collect();
        let index = Arc::new(Index::build(&sample.reference, 1).unwrap());
        Self { sample, index, text }
    }

    /// Its reads in batches of `templates`.
    fn batches(&self, templates: usize) -> Vec<ReadBatch> {
        let lines: Vec<&str> = self.text.lines().collect();
        let mut first_template = 0;
        let batch = |(seq, lines): (usize, &[&str])| {
            let mut parser = FastqParser::new("small", Layout::Paired, 0);
            let mut batches = VecDeque::new();
            parser.push((lines.join("\n") + "\n").as_bytes(), &mut batches).unwrap();
            parser.finish(&mut batches).unwrap();
            let mut batch = batches.pop_front().unwrap();
            (batch.seq, batch.first_template) = (seq as u64, first_template);
            first_template += (batch.len() / 2) as u64;
            batch
        };
        lines.chunks(8 * templates).enumerate().map(batch).collect()
    }

    /// Its calls, alignments and gVCF in one digest, by this assignment on so many threads.
    fn call(&self, devices: Arc<Assignment>, threads: usize) -> (blake3::Hash, CallReport) {
        let gvcf = std::sync::Mutex::new(Vec::new());
        let request =
            CallRequest { gvcf: Some(&gvcf), threads, ..CallRequest::new(&self.sample.reference) };
        let (meters, mut vcf, mut bam) = (Meters::default(), Vec::new(), Vec::new());
        let reads = Flow::source(&meters, "reads", self.batches(50).into_iter().map(Ok));
        let engine = Native::new(Arc::clone(&self.index), devices).unwrap();
        let report = engine.call(&request, reads, &meters, &mut vcf, Some(&mut bam)).unwrap();
        let gvcf = gvcf.into_inner().unwrap();
        (blake3::hash(&[vcf, gvcf, bam].concat()), report)
    }
}

/// The devices that are there, besides the CPU; all that are required.
fn devices() -> Vec<Box<dyn Device>> {
    let required = std::env::var("DSGD_REQUIRE_DEVICES").unwrap_or_default();
    let required = |name: &str| required.split(',').any(|word| word.trim() == name);
    let opened =
        BACKENDS.iter().filter(|(name, _)| *name != "cpu").map(|(name, open)| (name, open()));
    let there = opened.filter_map(|(name, opened)| match opened {
        Ok(device) => Some(device),
        Err(Error::Absent { reason, .. }) if !required(name) => {
            eprintln!("skipped {name}: {reason}");
            None
        }
        Err(error) => panic!("{name}: {error}"),
    });
    there.collect()
}

/// What the engine has its kernels for.
const OF_THE_ENGINE: [Kernel; 4] =
    [Kernel::Lookup, Kernel::Ungapped, Kernel::Align, Kernel::Pairhmm];

#[test]
fn the_calls_are_the_same_bytes_on_every_device_also_when_it_is_lost() {
    let small = Small::new();
    let (expected, report) = small.call(Assignment::cpu(), 1);
    eprintln!("{expected} cpu, {} records", report.records);
    assert!(report.records > 10 && report.mapped * 100 > report.reads * 99, "{report:?}");
    assert_eq!(small.call(Assignment::cpu(), 3).0, expected);
    // A second CPU as a device first: it is always there.
    let second = || dsgd::device::open("cpu").unwrap();
    for device in std::iter::once(second()).chain(devices()) {
        let device: Arc<dyn Device> = device.into();
        let (name, watch) = (device.name(), Watch::default());
        let has = OF_THE_ENGINE.map(|kernel| device.has(kernel));
        let run = |lost_after, threads| {
            watch.begin(lost_after);
            let watched = Watched::over(&device, &watch);
            let devices = Assignment::everything_on(watched, threads);
            let (digest, _) = small.call(Arc::clone(&devices), threads);
            eprintln!("{digest} {name}, {threads} threads, {} launches", watch.launches());
            assert_eq!(digest, expected, "{name}, {threads} threads, lost after {lost_after}");
            devices.notices()
        };
        assert_eq!(run(usize::MAX, 1), [""; 0]);
        for (kernel, has) in OF_THE_ENGINE.into_iter().zip(has) {
            assert_eq!(watch.launches_of(kernel) > 0, has, "{name} {}", kernel.name());
        }
        let launches = watch.launches();
        assert_eq!(run(usize::MAX, 3), [""; 0]);
        // Lost in mapping; of the second CPU, at once and in calling, too.
        let when = [launches / 2, 0, launches - 1];
        for lost_after in when.into_iter().take(if name == "cpu" { 3 } else { 1 }) {
            let notices = run(lost_after, 3);
            let told = notices.iter().any(|notice| notice.contains("the CPU goes on"));
            assert!(told, "{name}: {notices:?}");
        }
    }
}

#[test]
fn a_call_says_which_device_was_used_and_why() {
    let small = Small::new();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    small.sample.write_fasta(std::fs::File::create(path("ref.fa")).unwrap()).unwrap();
    std::fs::write(path("reads.fq"), &small.text).unwrap();
    let call = |device: &str| {
        let (fasta, reads, out) = (path("ref.fa"), path("reads.fq"), path("o.vcf.gz"));
        let words = ["call", "-r", &fasta, "--layout", "interleaved", "--reads", &reads];
        let data = json(&[&words[..], &["-o", &out, "--device", device]].concat());
        let devices = data["devices"].as_array().unwrap().clone();
        assert_eq!(devices.len(), OF_THE_ENGINE.len(), "{devices:?}");
        (std::fs::read(&out).unwrap(), devices)
    };
    let (calls, devices) = call("cpu");
    let on_cpu = |found: &Value| found["device"] == "cpu" && found["reason"] == "it was asked for";
    assert!(devices.iter().all(on_cpu), "{devices:?}");
    let (again, devices) = call("auto");
    assert!(again == calls);
    assert!(devices.iter().all(|found| !found["reason"].as_str().unwrap().is_empty()));
    let (fasta, reads) = (path("ref.fa"), path("reads.fq"));
    let words =
        ["call", "-r", &fasta, "--reads", &reads, "-o", "never.vcf.gz", "--device", "abacus"];
    let (code, _, error) = dsgd(&words);
    assert!(code == 2 && error.contains("abacus"), "{code} {error}");
}
