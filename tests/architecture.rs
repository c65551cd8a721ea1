//! The rules of `ARCHITECTURE.md` that a machine can check: layers, unsafe code, sources of side
//! effects, module documentation, and the forms of every kernel.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Modules by layer: a module imports only from layers above its own.
const LAYERS: &[&[&str]] = &[
    &["base"],
    &["flow", "kernel"],
    &["genome", "io", "device"],
    &["engine", "key", "share"],
    &["otp"],
    &["disclosure", "net"],
    &["etsi014", "management", "store"],
    &["control"],
    &["pipeline"],
    &["site"],
    &["bench"],
    &["config"],
    &["cli"],
];

/// Where `unsafe` may stand.
const UNSAFE: &[&str] = &["src/device/", "src/io/uring.rs", "src/net/tun.rs"];

/// What these modules must not touch: they are pure, so that they can be tested without a world.
const PURE: &[&str] = &["base", "kernel", "genome", "share", "otp"];
const IMPURE: &[&str] = &["std::net", "std::fs", "std::thread"];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file under `src`, by its path from the package's root, with its text.
fn sources() -> Vec<(String, String)> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(&root().join("src"), &mut found);
    found.sort();
    let name = |path: &Path| path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
    found.iter().map(|path| (name(path), fs::read_to_string(path).unwrap())).collect()
}

fn module_of(file: &str) -> Option<&str> {
    let rest = file.strip_prefix("src/")?;
    let module = rest.split('/').next()?;
    let module = module.strip_suffix(".rs").unwrap_or(module);
    (!["lib", "main"].contains(&module)).then_some(module)
}

/// The text outside of tests, with comments removed.
fn code(text: &str) -> String {
    let end = text.find("\n#[cfg(test)]\nmod ").unwrap_or(text.len());
    let lines = text[..end].lines().map(|line| line.split("//").next().unwrap_or(""));
    lines.collect::<Vec<_>>().join("\n")
}

fn layer(module: &str) -> usize {
    LAYERS.iter().position(|modules| modules.contains(&module)).unwrap_or_else(|| {
        panic!("module '{module}' stands in no layer: add it to LAYERS and to ARCHITECTURE.md")
    })
}

/// Modules that a text names as `crate::module`, in braces too.
fn imports(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, _) in text.match_indices("crate::") {
        let rest = &text[at + 7..];
        match rest.strip_prefix('{') {
            Some(list) => {
                let list = &list[..list.find('}').unwrap_or(list.len())];
                found.extend(list.split(',').map(|item| word(item.trim())));
            }
            None => drop(found.insert(word(rest))),
        }
    }
    found.remove("");
    found
}

fn word(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

#[test]
fn modules_import_from_the_layers_above_only() {
    let mut wrong = Vec::new();
    for (file, text) in sources() {
        let Some(module) = module_of(&file) else { continue };
        for import in imports(&code(&text)) {
            if import != module && layer(&import) >= layer(module) {
                wrong.push(format!("{file} imports crate::{import}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_layer_rule_can_fail() {
    let text = code("use crate::{base, cli};\nfn f() { crate::site::g() } // crate::nothing\n");
    let expected = ["base", "cli", "site"].map(str::to_owned);
    assert_eq!(imports(&text), BTreeSet::from(expected));
    assert!(layer("cli") > layer("base"));
}

#[test]
fn every_module_of_the_crate_stands_in_a_layer() {
    let lib = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let modules = lib.lines().filter_map(|line| line.strip_prefix("pub mod ")).map(word);
    let known: BTreeSet<String> = LAYERS.concat().into_iter().map(str::to_owned).collect();
    assert_eq!(modules.collect::<BTreeSet<_>>(), known);
}

#[test]
fn unsafe_code_stays_where_it_is_allowed() {
    let wrong: Vec<_> = sources()
        .into_iter()
        .filter(|(file, text)| {
            let allowed = UNSAFE.iter().any(|place| file.starts_with(place));
            !allowed && code(text).contains("unsafe")
        })
        .map(|(file, _)| file)
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn pure_modules_have_no_side_effects_and_only_the_clock_reads_time() {
    let mut wrong = Vec::new();
    for (file, text) in sources() {
        let text = code(&text);
        if module_of(&file).is_some_and(|module| PURE.contains(&module)) {
            // The clock is where waiting belongs.
            let waits = file == "src/base/clock.rs";
            let found = IMPURE.iter().filter(|name| text.contains(**name) && !waits);
            wrong.extend(found.map(|name| format!("{file} uses {name}")));
        }
        if file != "src/base/clock.rs" && text.contains("Instant::now") {
            wrong.push(format!("{file} reads the clock"));
        }
        if file != "src/cli/output.rs" && text.contains("println!") && !text.contains("eprintln!") {
            wrong.push(format!("{file} prints"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// A comparison that stops at the first difference tells by its time how much of a tag was right.
fn compares_a_tag(line: &str) -> bool {
    let words = || line.split(|c: char| !c.is_alphanumeric() && c != '_');
    let compares = [" == ", " != "].iter().any(|sign| line.contains(sign));
    compares && words().any(|word| ["tag", "mac", "seed"].contains(&word))
}

#[test]
fn tags_are_compared_in_constant_time() {
    let secret = |file: &str| ["otp", "share", "key", "net"].map(Some).contains(&module_of(file));
    let sources = sources();
    let here = || sources.iter().filter(|(file, _)| secret(file) && !file.ends_with("tests.rs"));
    let wrong: Vec<_> = here()
        .flat_map(|(file, text)| {
            code(text).lines().map(|line| (file, line.to_owned())).collect::<Vec<_>>()
        })
        .filter(|(_, line)| compares_a_tag(line))
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(compares_a_tag("if expected != *tag {") && !compares_a_tag("if stage == 3 {"));
    for file in ["src/otp/open.rs", "src/share/stripe.rs"] {
        let (_, text) = here().find(|(name, _)| name == file).unwrap();
        assert!(text.contains("ct_eq"), "{file}");
    }
}

#[test]
fn every_file_says_what_it_is() {
    let wrong: Vec<_> = sources()
        .into_iter()
        .filter(|(_, text)| {
            let first = text.lines().next().unwrap_or("");
            !first.starts_with("//! ") || text.starts_with("//! See ARCHITECTURE.md")
        })
        .map(|(file, _)| file)
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_kernel_has_the_forms_it_is_said_to_have() {
    use dsgd::kernel::{Form, KERNELS};
    for (kernel, forms) in KERNELS {
        // The pad without its hash stands beside the pad with it.
        let twin = if *kernel == "xor" { "otp" } else { kernel };
        let twin = format!("src/kernel/{twin}.rs");
        let files = forms.iter().map(|form| match form {
            Form::Simd => format!("src/device/cpu/{kernel}.rs"),
            Form::Cuda => format!("kernels/{kernel}.cu"),
            Form::Wgsl => format!("shaders/{kernel}.wgsl"),
            Form::Hls => format!("hls/{kernel}/{kernel}.cpp"),
        });
        for file in files.chain([twin]) {
            assert!(root().join(&file).is_file(), "kernel '{kernel}' has no {file}");
        }
    }
}

#[test]
fn the_layers_in_the_document_are_those_of_the_test() {
    let document = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    for (number, modules) in LAYERS.iter().enumerate() {
        let line = format!("{:>2}  {}", number + 1, modules.join("  "));
        assert!(document.contains(&line), "ARCHITECTURE.md lacks the line '{line}'");
    }
}
