//! The forms of the kernels: that those listed are there, and that every form is listed. What they compute is
//! tested by `device::conformance`.
#![allow(clippy::unwrap_used)]

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
        let link = std::fs::read_to_string(Path::new(ROOT).join("hls/link.cfg")).unwrap();
        let text = std::fs::read_to_string(path_of(name, Form::Hls)).unwrap();
        let quality = std::fs::read_to_string(folder.join("qor.json")).unwrap();
        let quality: serde_json::Value = serde_json::from_str(&quality).unwrap();
        let top = quality["top"].as_str().unwrap();
        assert!(link.contains(&format!("sp={top}.")), "{name} is not linked");
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
        }
    }
    for path in found {
        assert!(listed.contains(&path), "{} is not in KERNELS", path.display());
    }
}
