//! `dsgd doctor`: whether this machine and this site are fit for the work.

use std::path::Path;

use serde::Serialize;

use super::{Context, Error, Outcome, device};
use crate::base::chunk::PAGE_BYTES;
use crate::base::fault::with_causes;
use crate::base::{ByteCount, Fault};
use crate::bench::environment::Environment;
use crate::device::assign::Assignment;
use crate::device::cpu::secret_pages::{Guard, SecretPages};
use crate::device::setting::Setting;
use crate::io::{DiskKind, Mode, Preference, hygiene};
use crate::site::{Settings, Site};

#[derive(Serialize)]
struct Finding {
    what: String,
    good: bool,
    detail: String,
}

/// Runs `dsgd doctor`.
pub fn run(context: &Context) -> Outcome {
    let mut findings = vec![machine(), disk(&std::env::temp_dir()), vectors(), memory()];
    // That a machine has none is no fault; why it has none may be.
    findings.extend(
        device::look()
            .into_iter()
            .filter(|(name, _)| name != "cpu")
            .map(|(name, detail)| Finding { what: format!("device {name}"), good: true, detail }),
    );
    match context.settings() {
        Ok(settings) => site(context, settings, &mut findings),
        Err(error) => findings.push(Finding {
            what: "configuration".into(),
            good: true,
            detail: format!("no site is configured here: {error}"),
        }),
    }
    let bad = findings.iter().filter(|finding| !finding.good).count();
    context.out.result("doctor", &findings, || {
        findings.iter().fold(String::new(), |text, finding| {
            let mark = if finding.good { "ok " } else { "BAD" };
            text + &format!("{mark} {}: {}\n", finding.what, finding.detail)
        })
    });
    if bad == 0 {
        return Ok(());
    }
    let what = format!("{bad} finding(s) need attention");
    Err(Error::Check { what, fault: Fault::Config }.into())
}

fn machine() -> Finding {
    let environment = Environment::look();
    let detail = format!(
        "{} cores, {:.0} GB of memory, kernel {}, {}",
        environment.cores,
        environment.memory_bytes as f64 / 1e9,
        environment.kernel,
        environment.processor
    );
    Finding { what: "machine".into(), good: true, detail }
}

fn disk(folder: &Path) -> Finding {
    let path = folder.join(format!("dsgd-doctor-{}", std::process::id()));
    let preference = Preference { disk: DiskKind::Auto, ..Preference::default() };
    let opened = crate::io::open(&path, Mode::Create, &preference);
    // Nothing was written; what cannot be removed is an empty file.
    let _ = std::fs::remove_file(&path);
    let (good, detail) = match opened {
        Ok((_, backend)) => {
            let reason = backend.reason.map_or_else(String::new, |reason| format!(" ({reason})"));
            (true, format!("'{}', direct access: {}{reason}", backend.name, backend.direct))
        }
        Err(error) => (false, error.to_string()),
    };
    Finding { what: format!("disk access in {}", folder.display()), good, detail }
}

fn vectors() -> Finding {
    #[cfg(target_arch = "x86_64")]
    let found: Vec<&str> = [
        ("AVX2", is_x86_feature_detected!("avx2")),
        ("AVX-512", is_x86_feature_detected!("avx512bw")),
        ("AES", is_x86_feature_detected!("aes")),
        ("VPCLMULQDQ", is_x86_feature_detected!("vpclmulqdq")),
    ]
    .into_iter()
    .filter_map(|(name, there)| there.then_some(name))
    .collect();
    #[cfg(not(target_arch = "x86_64"))]
    let found: Vec<&str> = Vec::new();
    Finding { what: "vector instructions".into(), good: true, detail: found.join(", ") }
}

/// Whether what this process holds can get into a file.
fn memory() -> Finding {
    let hygiene = hygiene::look();
    let mut words = vec![if hygiene.dumpable || hygiene.core_files {
        "this process can be dumped".to_owned()
    } else {
        "no dumps of this process".to_owned()
    }];
    words.push(match hygiene.lockable_bytes {
        Some(bytes) => format!("{} of key memory can be locked (ulimit -l)", ByteCount(bytes)),
        None => "any key memory can be locked".into(),
    });
    words.push(match SecretPages::new(PAGE_BYTES).map(|pages| pages.guard()) {
        Ok(Guard::Secret) => "the keeper has memory that nobody else can read".into(),
        Ok(Guard::Locked) => "no memfd_secret: the keeper's memory is only locked".into(),
        Ok(Guard::Undumped) | Err(_) => "the keeper's memory may be swapped out".into(),
    });
    words.push(if hygiene.swap {
        "there is swap space: what is not locked may be written there".into()
    } else {
        "no swap space".into()
    });
    let good = !(hygiene.dumpable || hygiene.core_files || hygiene.swap);
    Finding { what: "memory protection".into(), good, detail: words.join("; ") }
}

fn site(context: &Context, settings: Settings, findings: &mut Vec<Finding>) {
    let external = settings.engine.external.clone();
    let site = match Site::open(settings, context.notices()) {
        Ok(site) => site,
        Err(error) => {
            let (what, detail) = ("site".into(), error.to_string());
            findings.push(Finding { what, good: false, detail });
            return;
        }
    };
    for peer in site.keys().peers() {
        let (good, detail) = match site.keys().level(&peer) {
            Ok(level) => {
                let left = level.outgoing.remaining;
                (left.0 > 0, format!("{left} to send, {}", level.provenance))
            }
            Err(error) => (false, error.to_string()),
        };
        findings.push(Finding { what: format!("keys of the link to {peer}"), good, detail });
    }
    for peer in site.settings().peer.iter().filter(|peer| peer.address.is_some()) {
        let reached = site.dialer(&peer.site).and_then(|dialer| Ok(dialer.dial()?.close()?));
        let (good, detail) = match reached {
            Ok(()) => (true, "answers, and is who it says".into()),
            Err(error) => (false, error.to_string()),
        };
        findings.push(Finding { what: format!("peer {}", peer.site), good, detail });
    }
    for store in &site.settings().store {
        let opened =
            store.name.parse().map_err(|_| ()).and_then(|name| site.store(&name).map_err(drop));
        let detail = format!("{} at {}", store.kind, store.path.display());
        findings.push(Finding {
            what: format!("store {}", store.name),
            good: opened.is_ok(),
            detail,
        });
    }
    for reference in &site.settings().reference {
        let good = reference.fasta.is_file();
        let detail = reference.fasta.display().to_string();
        findings.push(Finding { what: format!("reference {}", reference.name), good, detail });
    }
    let setting = &site.settings().device.setting;
    if *setting != Setting::Auto {
        let chosen = Assignment::choose(setting, 1);
        let (good, detail) = match &chosen {
            Ok(devices) => (true, devices.choices().swap_remove(0).reason),
            Err(error) => (false, with_causes(error)),
        };
        findings.push(Finding { what: format!("chosen device {setting}"), good, detail });
    }
    for engine in external {
        let program = engine.command.first().cloned().unwrap_or_default();
        let good = found(&program);
        findings.push(Finding { what: format!("engine {}", engine.name), good, detail: program });
    }
}

/// Whether a program is there: by its path, or in `PATH`.
fn found(program: &str) -> bool {
    if program.contains('/') {
        return Path::new(program).is_file();
    }
    let folders = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&folders).any(|folder| folder.join(program).is_file())
}
