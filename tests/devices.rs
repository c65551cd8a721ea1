//! `dsgd device`, as it is run: which devices there are, that they are right, which is chosen.
#![allow(clippy::unwrap_used)]

use std::process::Command;

use serde_json::Value;

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
