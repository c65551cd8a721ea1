//! The kernels for cards that this machine may not have, run on its CPU: CUDA's compiled as C++ with
//! `kernels/shim/`, and the compiler's own watch over addresses and undefined behaviour.

use std::path::Path;
use std::process::Command;

use crate::device::process::Simulated;

/// Compiles C++ into `folder`, or says why that cannot be done here; a compiler's complaint is a
/// failure.
fn compile(folder: &Path, source: &str, flags: &[&str]) -> Result<std::path::PathBuf, String> {
    let program = folder.join("run");
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".into());
    let output = Command::new(&compiler)
        .args(["-std=c++20", "-O1", "-Wall", "-Wextra", "-o"])
        .arg(&program)
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join(source))
        .args(flags)
        .output()
        .map_err(|error| format!("no C++ compiler '{compiler}': {error}"))?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && complaint.is_empty(), "{source}: {complaint}");
    Ok(program)
}

/// The CUDA kernels on the CPU, compiled into `folder`; the error is the reason why not.
pub(super) fn cuda(folder: &Path, flags: &[&str]) -> Result<Simulated, String> {
    let program = compile(folder, "kernels/shim/run.cpp", flags)?;
    Ok(Simulated::new("cuda-sim", &program).unwrap())
}
