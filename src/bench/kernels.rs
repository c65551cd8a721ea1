//! What one core does: pads with their tags, with and without Fig. 5, and random numbers, beside what the
//! memory itself gives in the same run.

use std::hint::black_box;

use serde::Serialize;

use crate::base::chunk::wipe;
use crate::base::clock::Stopwatch;
use crate::base::{BitRate, ByteCount, Clock, SiteId};
use crate::device::cpu::otp::{Hash, HashKey, xor};
use crate::device::cpu::{chacha20, keystream};
use crate::kernel::otp::{Expansion, Pad};
use crate::key::expansion::SUB_BLOCK_BYTES;
use crate::key::random::{KeyStream, OperatingSystem};
use crate::key::{
    Class, Error, KeyStore, LinkSettings, RandomSettings, RandomSource, SimulatedLink,
};

/// One figure.
#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    /// What was done.
    pub what: String,
    /// 10^9 bytes of payload a second, the median of the repetitions.
    pub gb_per_second: f64,
    /// The best of the repetitions: what a quiet machine gives.
    pub gb_per_second_best: f64,
    /// How strong the bytes are, where bytes were made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<Class>,
}

/// How long and how often.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Bytes of payload that lie in memory at once.
    pub bytes: usize,
    /// Repetitions of each measurement.
    pub repetitions: usize,
}

impl Effort {
    fn figure(&self, what: impl Into<String>, mut work: impl FnMut()) -> Figure {
        work();
        let mut rates: Vec<f64> = (0..self.repetitions.max(1))
            .map(|_| {
                let watch = Stopwatch::start();
                work();
                self.bytes as f64 / 1e9 / watch.elapsed().as_secs_f64().max(1e-9)
            })
            .collect();
        rates.sort_by(f64::total_cmp);
        Figure {
            what: what.into(),
            gb_per_second: rates[rates.len() / 2],
            gb_per_second_best: rates[rates.len() - 1],
            class: None,
        }
    }
}

/// A frame's payload in these measurements: what fits the cache beside its pad.
const FRAME_BYTES: usize = 256 << 10;

/// Copies, XORs, seals and opens `effort.bytes` of data, first from memory, then frame by frame in the
/// cache.
pub fn pads(effort: Effort) -> Vec<Figure> {
    let mut figures = Vec::new();
    for (place, frame) in [("memory", effort.bytes), ("cache", FRAME_BYTES.min(effort.bytes))] {
        let mut figure = |what: &str, work: &mut dyn FnMut()| {
            let times = (effort.bytes / frame).max(1);
            let all = || (0..times).for_each(|_| work());
            figures.push(effort.figure(format!("{what}, {place}"), all));
        };
        let (mut data, pad) = (vec![0x5a_u8; frame], vec![0xa5_u8; frame]);
        let mut other = vec![0x3c_u8; frame];
        let key = HashKey::new(&[7; 16]);
        let expansions: Vec<_> = (0..frame)
            .step_by(SUB_BLOCK_BYTES as usize)
            .map(|start| Expansion::new(start, &[9; 32], start as u128))
            .collect();
        let kept = Pad::from(&pad);
        let expanded = Pad::new(Some(&pad), &expansions, frame);
        let worked_out = Pad::new(None, &expansions, frame);
        figure("copy", &mut || black_box(&mut other).copy_from_slice(&pad));
        figure("xor of two", &mut || xor(black_box(&mut data), &pad));
        figure("xor of three, plain loop", &mut || {
            xor_of_three(black_box(&mut other), &data, &pad)
        });
        figure("wipe", &mut || wipe(black_box(&mut other)));
        for (name, pad) in
            [("pad", kept), ("pad with Fig. 5", expanded), ("simulated link", worked_out)]
        {
            figure(&format!("seal, {name}"), &mut || {
                let mut hash = Hash::new(&key);
                hash.seal(&mut data, pad);
                black_box(hash.finish());
            });
            figure(&format!("open, {name}"), &mut || {
                let mut hash = Hash::new(&key);
                hash.update(&data);
                black_box(hash.finish());
                xor(&mut data, pad);
            });
        }
        figure("seal, pad, then wipe it", &mut || {
            let mut hash = Hash::new(&key);
            hash.seal(&mut data, &other);
            black_box(hash.finish());
            wipe(&mut other);
        });
        figure("AES-256-CTR", &mut || keystream::fill(&[9; 32], 0, &mut other));
        figure("ChaCha20", &mut || chacha20::fill(&[9; 32], 0, &mut other));
    }
    figures
}

fn xor_of_three(out: &mut [u8], a: &[u8], b: &[u8]) {
    for ((out, a), b) in out.iter_mut().zip(a).zip(b) {
        *out ^= a ^ b;
    }
}

/// Fills memory from every source of random numbers there is, and from those that are `named`.
pub fn random(effort: Effort, named: &[RandomSettings]) -> Result<Vec<Figure>, Error> {
    let owner: SiteId = "owner".parse().expect("a name of letters");
    let mut out = vec![0; effort.bytes];
    let mut figures = Vec::new();
    let mut measure = |what: String, source: &mut dyn RandomSource| {
        let mut outcome = Ok(());
        let mut figure = effort.figure(what, || {
            outcome = std::mem::replace(&mut outcome, Ok(())).and(source.fill(&mut out));
        });
        figure.class = Some(source.provenance().class);
        figures.push(figure);
        outcome
    };
    measure("os".into(), &mut OperatingSystem::new(owner.clone()))?;
    let none = || Err(Error::UnknownPeer { site: owner.clone(), peer: owner.clone() });
    measure("generator".into(), &mut *RandomSettings::Generator.open(&owner, none)?)?;
    let folder = std::env::temp_dir().join(format!("dsgd-bench-random-{}", std::process::id()));
    let measured = link(&folder, &owner, effort)
        .and_then(|mut link| measure("key-stream of a simulated link".into(), &mut link));
    // What cannot be removed is left to the system's own cleaning.
    let _ = std::fs::remove_dir_all(&folder);
    measured?;
    for settings in named {
        measure(settings.to_string(), &mut *settings.open(&owner, none)?)?;
    }
    Ok(figures)
}

fn link(folder: &std::path::Path, owner: &SiteId, effort: Effort) -> Result<KeyStream, Error> {
    let peer: SiteId = "peer".parse().expect("a name of letters");
    let file = folder.join("link.json");
    let failed = |source| Error::LinkFile { path: file.clone(), source };
    std::fs::create_dir_all(folder).map_err(failed)?;
    let clock = Clock::system();
    let stock = ByteCount(4 * (effort.repetitions as u64 + 2) * effort.bytes as u64);
    SimulatedLink::create(&file, [owner.clone(), peer.clone()], BitRate(0), stock, &clock)?;
    let links = [LinkSettings::simulated(peer.clone(), &file)];
    let store = KeyStore::open(owner.clone(), folder, &links, clock)?;
    Ok(KeyStream::new(store.sender(&peer)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_measurement_gives_a_figure() {
        let effort = Effort { bytes: 1 << 20, repetitions: 1 };
        let figures = pads(effort);
        assert_eq!(figures.len(), 2 * 13);
        assert!(figures.iter().all(|figure| figure.gb_per_second > 0.0));
        let figures = random(effort, &[RandomSettings::OperatingSystem]).unwrap();
        let classes: Vec<_> = figures.iter().map(|figure| figure.class).collect();
        assert_eq!(classes, [Some(Class::Computational); 4]);
    }
}
