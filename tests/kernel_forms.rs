//! The forms of the kernels: that those listed are there, and that those of HLS compute what the
//! scalar twin does, run on the CPU. The other forms are tested by `device::conformance`.
//!
//! HLS kernels are compiled with `hls/sim/` and the vendor's `ap_int.h`. When that is missing they are
//! skipped, unless the environment variable `DSGD_REQUIRE_DEVICES` names `hls-sim`.
#![allow(clippy::unwrap_used)]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use dsgd::base::ShareLetter;
use dsgd::kernel::{Form, KERNELS, otp, share};

use ShareLetter::{A, B, C};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const PAIRS: [(ShareLetter, ShareLetter); 6] = [(A, C), (C, A), (B, C), (C, B), (A, B), (B, A)];

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
    let no_kernels = ["mod.rs", "pages.rs", "dsgd.cuh"];
    found.retain(|path| path.is_file() && !no_kernels.iter().any(|name| path.ends_with(name)));
    for folder in entries("hls").into_iter().filter(|path| !path.ends_with("sim")) {
        let name = folder.file_name().unwrap().to_str().unwrap();
        found.push(path_of(name, Form::Hls));
        let text = std::fs::read_to_string(path_of(name, Form::Hls)).unwrap();
        let quality = std::fs::read_to_string(folder.join("qor.json")).unwrap();
        let quality: serde_json::Value = serde_json::from_str(&quality).unwrap();
        for (label, loop_quality) in quality["loops"].as_object().unwrap() {
            let interval = &loop_quality["initiation_interval"];
            let begin = text.find(&format!("\n{label}:\n")).expect("a labelled loop");
            let pragma = format!("#pragma HLS PIPELINE II={interval}\n");
            assert_eq!(text[begin..].lines().nth(3).unwrap(), pragma.trim_end(), "{name} {label}");
        }
    }
    for path in found {
        assert!(listed.contains(&path), "{} is not in KERNELS", path.display());
    }
}

/// A device simulated by programs that read columns and write columns.
struct Simulation {
    vector_bytes: usize,
    share: Vec<PathBuf>,
    xor: Vec<PathBuf>,
}

/// Compiles C++, or says why that cannot be done here; a compiler's complaint is a failure.
fn compile(name: &str, sources: &[&str], flags: &[String]) -> Result<PathBuf, String> {
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".into());
    let output = Command::new(&compiler)
        .args(["-std=c++20", "-O1", "-o"])
        .arg(&program)
        .args(sources.iter().map(|source| Path::new(ROOT).join(source)))
        .args(flags)
        .output()
        .map_err(|error| format!("no C++ compiler '{compiler}': {error}"))?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && complaint.is_empty(), "{name}: {complaint}");
    Ok(program)
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

fn hls_simulation(name: &str) -> Result<Simulation, String> {
    let (sim, types) = (Path::new(ROOT).join("hls/sim"), ap_types()?);
    // `-w`: the vendor's header is full of warnings. Ours comes first: it has a stream, too.
    let flags = ["-w".into(), format!("-I{}", sim.display()), format!("-I{}", types.display())];
    let share = compile(
        &format!("hls_share_{name}"),
        &["hls/share/share.cpp", "hls/share/share_tb.cpp"],
        &flags,
    )?;
    let xor =
        compile(&format!("hls_xor_{name}"), &["hls/xor/xor.cpp", "hls/xor/xor_tb.cpp"], &flags)?;
    for bench in [&share, &xor] {
        let status = Command::new(bench).status().unwrap();
        assert!(status.success(), "{} by itself: {status}", bench.display());
    }
    Ok(Simulation { vector_bytes: 64, share: vec![share], xor: vec![xor] })
}

impl Simulation {
    /// Runs `program` on columns of one length, filled up to whole vectors.
    fn run(
        &self,
        program: &[PathBuf],
        columns: &[&[u8]],
        outputs: usize,
        rows: u32,
    ) -> Vec<Vec<u8>> {
        let bytes = columns[0].len();
        let vectors = bytes.div_ceil(self.vector_bytes);
        let mut input = Vec::new();
        for column in columns {
            input.extend_from_slice(column);
            input.resize(input.len().next_multiple_of(self.vector_bytes), 0xee);
        }
        let mut child = Command::new(&program[0])
            .args(&program[1..])
            .args([vectors.to_string(), outputs.to_string(), rows.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(&input).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{program:?}: {}", output.status);
        let results = output.stdout.chunks(vectors * self.vector_bytes);
        results.take(outputs).map(|column| column[..bytes].to_vec()).collect()
    }

    fn share(&self, x: &[u8], y: &[u8], rows: &[u8]) -> Vec<Vec<u8>> {
        let packed = rows.iter().rev().fold(0, |packed, row| packed << 4 | u32::from(*row));
        let ((x1, x2), (y1, y2)) = (x.split_at(x.len() / 2), y.split_at(y.len() / 2));
        self.run(&self.share, &[x1, x2, y1, y2], rows.len(), packed)
    }
}

fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    std::iter::repeat_with(|| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    })
    .take(length)
    .collect()
}

/// What the twin makes of one bit for each column: the row of bits of each output.
fn rows_of(twin: impl Fn(&mut [u8], &[u8])) -> [u8; 2] {
    let mut first = [1, 2];
    twin(&mut first, &[4, 8]);
    first
}

fn check_split(simulation: &Simulation, secret: &[u8], random: &[u8]) -> [Vec<u8>; 3] {
    let (mut a, mut b) = (secret.to_vec(), vec![0; secret.len()]);
    share::split(&mut a, random, &mut b);
    let (mut row_a, mut row_b) = ([1, 2], [0; 2]);
    share::split(&mut row_a, &[4, 8], &mut row_b);
    let have = simulation.share(secret, random, &[row_a, row_b].concat());
    assert!(have.concat() == [&a[..], &b[..]].concat(), "split of {} bytes", secret.len());
    [a, b, random.to_vec()]
}

fn check(simulation: &Simulation) {
    for (seed, half) in [1, 15, 16, 64, 65, 4096, 40_001].into_iter().enumerate() {
        let (secret, random) = (noise(2 * half, seed as u64), noise(2 * half, !(seed as u64)));
        let shares = check_split(simulation, &secret, &random);
        for letters in PAIRS {
            let (first, second) = (&shares[letters.0 as usize], &shares[letters.1 as usize]);
            let rows = rows_of(|first, second| share::restore(first, second, letters));
            let restored = simulation.share(first, second, &rows).concat();
            assert!(restored == secret, "secret from {letters:?}, {half} a half");
            let rows = rows_of(|first, second| share::rebuild(first, second, letters));
            let third = &shares[3 - letters.0 as usize - letters.1 as usize];
            let rebuilt = simulation.share(first, second, &rows).concat();
            assert!(rebuilt == *third, "third of {letters:?}, {half} a half");
        }
        let (data, pad) = (&secret[1..], &random[1..]);
        let mut want = data.to_vec();
        otp::xor(&mut want, pad);
        let have = simulation.run(&simulation.xor, &[data, pad], 1, 0);
        assert!(have.concat() == want, "xor of {} bytes", data.len());
    }
}

/// Checks a simulation that could be made; else skips it, unless it is required.
fn check_or_skip(name: &str, simulation: Result<Simulation, String>) {
    let required = std::env::var("DSGD_REQUIRE_DEVICES").unwrap_or_default();
    match simulation {
        Ok(simulation) => check(&simulation),
        Err(reason) if required.split(',').any(|word| word.trim() == name) => {
            panic!("DSGD_REQUIRE_DEVICES names '{name}', but: {reason}");
        }
        Err(reason) => eprintln!("skipped: {name}: {reason}"),
    }
}

#[test]
fn hls_kernels_equal_the_twins() {
    check_or_skip("hls-sim", hls_simulation("right"));
}

#[test]
fn a_kernel_that_does_nothing_to_three_columns_is_caught() {
    match hls_simulation("wrong") {
        Ok(mut simulation) => {
            simulation.share = simulation.xor.clone();
            assert!(std::panic::catch_unwind(|| check(&simulation)).is_err());
        }
        Err(reason) => eprintln!("skipped: {reason}"),
    }
}
