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

/// Payload of a frame that comes from memory, and of one that is in the cache beside its pad.
const FRAME_BYTES: [usize; 2] = [1 << 20, 256 << 10];

/// Copies, XORs, seals and opens `effort.bytes` of data, frame by frame: first from memory, then always
/// the same frame, in the cache.
pub fn pads(effort: Effort) -> Vec<Figure> {
    let [memory, cache] = FRAME_BYTES.map(|bytes| bytes.min(effort.bytes));
    let mut figures = frames(effort, effort.bytes, memory, "memory");
    figures.extend(frames(effort, cache, cache, "cache"));
    figures
}

/// What is done to a frame: its data, a second text and its pad.
type Work<'a> = &'a mut dyn FnMut(&mut [u8], &mut [u8], &[u8]);

/// Goes over buffers of `room` bytes in frames, as often as it takes.
fn frames(effort: Effort, room: usize, frame: usize, place: &str) -> Vec<Figure> {
    let mut figures = Vec::new();
    let (mut data, mut other) = (vec![0x5a_u8; room], vec![0x3c_u8; room]);
    let pad = vec![0xa5_u8; room];
    let mut figure = |what: &str, work: Work<'_>| {
        let all = || {
            for _ in 0..effort.bytes.div_ceil(room) {
                let pads = other.chunks_mut(frame).zip(pad.chunks(frame));
                data.chunks_mut(frame).zip(pads).for_each(|(data, (other, pad))| {
                    work(black_box(data), black_box(other), pad);
                });
            }
        };
        figures.push(effort.figure(format!("{what}, {place}"), all));
    };
    figure("copy", &mut |_, other, pad| other.copy_from_slice(pad));
    figure("xor of two", &mut |data, _, pad| xor(data, pad));
    figure("xor of three, plain loop", &mut |data, other, pad| xor_of_three(other, data, pad));
    figure("wipe", &mut |_, other, _| wipe(other));
    let key = HashKey::new(&[7; 16]);
    let expansions = [Expansion::new(0, &[9; 32], 5)];
    let kinds: [(&str, bool, &[Expansion]); 3] = [
        ("pad", true, &[]),
        ("pad with Fig. 5", true, &expansions),
        ("simulated link", false, &expansions),
    ];
    for (name, stored, expansions) in kinds {
        figure(&format!("seal, {name}"), &mut |data, _, pad| {
            let mut hash = Hash::new(&key);
            let len = data.len();
            hash.seal(data, Pad::new(stored.then_some(pad), expansions, len));
            black_box(hash.finish());
        });
        figure(&format!("open, {name}"), &mut |data, _, pad| {
            let mut hash = Hash::new(&key);
            hash.update(data);
            black_box(hash.finish());
            let len = data.len();
            xor(data, Pad::new(stored.then_some(pad), expansions, len));
        });
    }
    figure("seal, pad, then wipe it", &mut |data, other, _| {
        let mut hash = Hash::new(&key);
        hash.seal(data, &*other);
        black_box(hash.finish());
        wipe(other);
    });
    figure("AES-256-CTR", &mut |_, other, _| keystream::fill(&[9; 32], 0, other));
    figure("ChaCha20", &mut |_, other, _| chacha20::fill(&[9; 32], 0, other));
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
