//! The forms of the kernels: that those listed are there, and that every HLS kernel passes its own test
//! bench. That all forms compute what the scalar twins do is tested by `device::conformance`.
//!
//! HLS kernels are compiled with `hls/sim/` and the vendor's `ap_int.h`. When that is missing they are
//! skipped, unless the environment variable `DSGD_REQUIRE_DEVICES` names `hls-sim`.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::Command;

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
        let text = std::fs::read_to_string(path_of(name, Form::Hls)).unwrap();
        let quality = std::fs::read_to_string(folder.join("qor.json")).unwrap();
        let quality: serde_json::Value = serde_json::from_str(&quality).unwrap();
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

/// The folder of `ap_int.h`: `AP_TYPES`, or where the Python package `hls4ml` keeps it.
fn ap_types() -> Result<PathBuf, String> {
    let find =
        "import importlib.util as u; print(u.find_spec('hls4ml').submodule_search_locations[0])";
    let folder = match std::env::var("AP_TYPES") {
        Ok(folder) => folder.into(),
        Err(_) => {
            let output = Command::new("python3").args(["-c", find]).output();
            let output = output.map_err(|error| format!("no python3: {error}"))?;
            let package = String::from_utf8_lossy(&output.stdout);
            Path::new(package.trim()).join("templates/vivado/ap_types")
        }
    };
    let there = folder.join("ap_int.h").is_file();
    there.then_some(folder).ok_or_else(|| "no ap_int.h: AP_TYPES is not set, no hls4ml".into())
}

/// Compiles a kernel with its test bench, and runs it.
fn run_test_bench(kernel: &str, types: &Path) {
    let folder = Path::new(ROOT).join("hls").join(kernel);
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{kernel}_tb"));
    // `-w`: the vendor's header is full of warnings. Ours comes first: it has a stream, too.
    let compiled = Command::new(std::env::var("CXX").unwrap_or_else(|_| "c++".into()))
        .args(["-std=c++17", "-O1", "-w", "-o"])
        .arg(&program)
        .arg(format!("-I{ROOT}/hls/sim"))
        .arg(format!("-I{}", types.display()))
        .args(["", "_tb"].map(|end| folder.join(format!("{kernel}{end}.cpp"))))
        .status()
        .unwrap();
    assert!(compiled.success(), "{kernel}: {compiled}");
    let status = Command::new(&program).status().unwrap();
    assert!(status.success(), "{kernel}: {status}");
}

#[test]
fn every_hls_kernel_passes_its_test_bench() {
    let required = std::env::var("DSGD_REQUIRE_DEVICES").unwrap_or_default();
    match ap_types() {
        Ok(types) => {
            for (kernel, _) in KERNELS.iter().filter(|(_, forms)| forms.contains(&Form::Hls)) {
                run_test_bench(kernel, &types);
            }
        }
        Err(reason) if required.split(',').any(|word| word.trim() == "hls-sim") => {
            panic!("DSGD_REQUIRE_DEVICES names 'hls-sim', but: {reason}");
        }
        Err(reason) => eprintln!("skipped: HLS test benches: {reason}"),
    }
}
