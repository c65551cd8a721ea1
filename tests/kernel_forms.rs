//! The forms of the kernels: that those listed are there, and that every form is listed. What they compute is
//! tested by `device::conformance`.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use dsgd::kernel::{Form, KERNELS};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn path_of(kernel: &str, form: Form) -> PathBuf {
    Path::new(ROOT).join(match form {
        Form::Simd => format!("src/device/cpu/{kernel}.rs"),
        Form::Cuda => format!("kernels/{kernel}.cu"),
        Form::Wgsl => format!("shaders/{kernel}.wgsl"),
        Form::Hls => format!("hls/{kernel}/{kernel}.cpp"),
    })
}

fn entries(folder: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(Path::new(ROOT).join(folder)).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

/// Compute units of a kernel in `hls/link.cfg`, each with its ports there.
fn linked_ports(top: &str) -> Vec<Vec<String>> {
    let link = std::fs::read_to_string(Path::new(ROOT).join("hls/link.cfg")).unwrap();
    let values = |key: &str| {
        let lines = link.lines().filter_map(|line| line.strip_prefix(key));
        lines
            .map(|value| value.split(':').map(str::to_owned).collect::<Vec<_>>())
            .collect::<Vec<_>>()
    };
    let (kernels, places) = (values("nk="), values("sp="));
    let all: Vec<&str> = kernels.iter().flat_map(|kernel| kernel[2].split('.')).collect();
    for place in &places {
        let (unit, _) = place[0].split_once('.').unwrap();
        assert!(all.contains(&unit), "sp={unit}: no compute unit of that name");
        assert_eq!(place[1..], ["HBM[0", "3]"], "{unit}: all in one bank");
    }
    let kernel = kernels.iter().find(|kernel| kernel[0] == top).expect("it is linked");
    let units: Vec<&str> = kernel[2].split('.').collect();
    assert_eq!(units.len(), kernel[1].parse::<usize>().unwrap(), "{top}: a name for each unit");
    let of = |unit: &&str| {
        let ports = places.iter().filter_map(|place| place[0].split_once('.'));
        ports.filter(|(named, _)| named == unit).map(|(_, port)| port.to_owned()).collect()
    };
    units.iter().map(of).collect()
}

/// The ports to memory that a kernel's text declares.
fn ports(text: &str) -> Vec<String> {
    let ports = text.split("m_axi port=").skip(1);
    ports.map(|rest| rest.split_whitespace().next().unwrap().to_owned()).collect()
}

/// How often the body of a labelled loop reads or writes each bundle of ports, by the ports' names or by those
/// of pointers into what they show.
fn accesses(text: &str, label: &str) -> BTreeMap<String, u64> {
    let (_, from) = text.split_once(&format!("{label}:\n")).unwrap();
    let (mut depth, mut end) = (0, 0);
    for (at, letter) in from.char_indices() {
        depth += i32::from(letter == '{') - i32::from(letter == '}');
        if letter == '}' && depth == 0 {
            end = at;
            break;
        }
    }
    let word = |text: &str| {
        text.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap().to_owned()
    };
    let mut bundles: BTreeMap<String, String> = BTreeMap::new();
    for rest in text.split("m_axi port=").skip(1) {
        let (_, bundle) = rest.split_once("bundle=").unwrap();
        bundles.insert(word(rest), word(bundle));
    }
    for (before, after) in text.lines().filter_map(|line| line.split_once(" = ")) {
        let pointer = before.rsplit_once('*').map(|(_, name)| name.to_owned());
        if let (Some(pointer), Some(bundle)) = (pointer, bundles.get(&word(after)).cloned()) {
            bundles.insert(pointer, bundle);
        }
    }
    let mut counts = BTreeMap::new();
    for (at, _) in from[..end].match_indices('[') {
        let name = from[..at].rsplit(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap();
        if let Some(bundle) = bundles.get(name) {
            *counts.entry(bundle.clone()).or_insert(0) += 1;
        }
    }
    counts
}

#[test]
fn every_listed_form_is_there_and_every_form_is_listed() {
    let listed: Vec<PathBuf> = KERNELS
        .iter()
        .flat_map(|(kernel, forms)| forms.iter().map(|form| path_of(kernel, *form)))
        .collect();
    for path in &listed {
        assert!(path.is_file(), "{} is missing", path.display());
    }
    let mut found = [entries("kernels"), entries("shaders"), entries("src/device/cpu")].concat();
    let no_kernels = ["mod.rs", "lanes.rs", "pages.rs", "secret_pages.rs", "dsgd.cuh"];
    found.retain(|path| path.is_file() && !no_kernels.iter().any(|name| path.ends_with(name)));
    let folders = entries("hls").into_iter().filter(|path| path.is_dir());
    for folder in folders.filter(|path| !path.ends_with("sim")) {
        let name = folder.file_name().unwrap().to_str().unwrap();
        found.push(path_of(name, Form::Hls));
        for file in ["hls_config.cfg", "Makefile", &format!("{name}_tb.cpp")] {
            assert!(folder.join(file).is_file(), "{name} has no {file}");
        }
        let text = std::fs::read_to_string(path_of(name, Form::Hls)).unwrap();
        let quality = std::fs::read_to_string(folder.join("qor.json")).unwrap();
        let quality: serde_json::Value = serde_json::from_str(&quality).unwrap();
        let top = quality["top"].as_str().unwrap();
        for (unit, linked) in linked_ports(top).into_iter().enumerate() {
            assert_eq!(linked, ports(&text), "{name}: ports of unit {unit}");
        }
        for estimate in ["lut", "ff", "bram_36k", "dsp"] {
            assert!(quality["estimate"][estimate].is_u64(), "{name} has no estimate of {estimate}");
        }
        assert!(quality["clock_mhz"].is_u64(), "{name} has no clock");
        for (label, loop_quality) in quality["loops"].as_object().unwrap() {
            let interval = &loop_quality["initiation_interval"];
            let mut lines = text.lines().map(str::trim);
            lines.find(|line| *line == format!("{label}:")).expect("a labelled loop");
            let pragma = format!("#pragma HLS PIPELINE II={interval}");
            assert_eq!(lines.nth(1).unwrap(), pragma, "{name} {label}");
            let accesses = accesses(&text, label);
            assert!(
                accesses.values().all(|count| interval.as_u64().unwrap() >= *count),
                "{name} {label} uses a port more often than that: {accesses:?}"
            );
        }
    }
    for path in found {
        assert!(listed.contains(&path), "{} is not in KERNELS", path.display());
    }
}
