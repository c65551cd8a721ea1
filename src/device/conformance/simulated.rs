//! The kernels for cards that this machine may not have, run on its CPU: CUDA's compiled as C++ with
//! `kernels/shim/`, under the compiler's own watch over addresses and undefined behaviour; HLS kernels
//! with `hls/sim/` and the vendor's `ap_int.h`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::device::lane::{Ability, Function};
use crate::device::process::Simulated;
use crate::device::sealing;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Compiles C++ to a program `run` in `folder`, or says why that cannot be done here; a compiler's complaint is a
/// failure.
fn compile(folder: &Path, sources: &[&str], flags: &[&str]) -> Result<PathBuf, String> {
    let program = folder.join("run");
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".into());
    let output = Command::new(&compiler)
        .args(["-std=c++20", "-O1", "-o"])
        .arg(&program)
        .args(sources.iter().map(|source| Path::new(ROOT).join(source)))
        .args(flags)
        .output()
        .map_err(|error| format!("no C++ compiler '{compiler}': {error}"))?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && complaint.is_empty(), "{sources:?}: {complaint}");
    Ok(program)
}

/// The CUDA kernels on the CPU, compiled into `folder`; the error is the reason why not.
pub(super) fn cuda(folder: &Path, flags: &[&str]) -> Result<Simulated, String> {
    let flags = [&["-Wall", "-Wextra"], flags].concat();
    let program = compile(folder, &["kernels/shim/run.cpp"], &flags)?;
    Ok(Simulated::new("cuda-sim", &program, Ability::CUDA).unwrap())
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

/// Compiles C++ with the vendor's headers.
fn compile_hls(folder: &Path, sources: &[&str]) -> Result<PathBuf, String> {
    let types = format!("-I{}", ap_types()?.display());
    // `-w`: the vendor's header is full of warnings. Ours comes first: it has a stream, too.
    compile(folder, sources, &["-w", &format!("-I{ROOT}/hls/sim"), &types])
}

/// The test bench of an HLS kernel, compiled into `folder`; the error is the reason why not.
pub(super) fn test_bench(folder: &Path, kernel: &str) -> Result<PathBuf, String> {
    let sources = ["", "_tb"].map(|end| format!("hls/{kernel}/{kernel}{end}.cpp"));
    compile_hls(folder, &sources.each_ref().map(String::as_str))
}

/// The HLS kernels on the CPU, compiled into `folder`; the error is the reason why not.
pub(super) fn hls(folder: &Path) -> Result<Simulated, String> {
    let sources = [
        "hls/sim/run.cpp",
        "hls/align/align.cpp",
        "hls/otp/otp.cpp",
        "hls/pairhmm/pairhmm.cpp",
        "hls/share/share.cpp",
        "hls/xor/xor.cpp",
    ];
    let program = compile_hls(folder, &sources)?;
    Ok(Simulated::new("hls-sim", &program, Ability::HLS).unwrap())
}

/// Names the program that `make -C hls/sim/rtl` builds.
const RTL: &str = "DSGD_RTL_SIM";

fn rtl_program() -> Result<OsString, String> {
    std::env::var_os(RTL).ok_or_else(|| format!("{RTL} names no program"))
}

/// What the designs in registers say of their cycles: lines of a kernel, its sizes, and its cycles.
pub(super) fn rtl_cycles() -> Result<String, String> {
    let output = Command::new(rtl_program()?).arg("cycles").output();
    let output = output.map_err(|error| error.to_string())?;
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).map_err(|error| error.to_string())
}

/// The designs in registers, cycle by cycle: the pad with its hash, and alignment.
pub(super) fn rtl() -> Result<Simulated, String> {
    let program = rtl_program()?;
    let ability = Ability {
        functions: &[Function::Otp, Function::Align],
        sealing: sealing::Ability { lanes: Some(32), expands: false },
        aligns_two: false,
    };
    let simulated = Simulated::new("rtl-sim", Path::new(&program), ability);
    simulated.map_err(|error| error.to_string())
}
