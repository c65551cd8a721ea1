//! Every kernel on every device against its scalar twin, and proof that the comparison can fail.

mod jobs;
mod simulated;

use crate::base::ShareLetter;
use crate::kernel::{align, otp, pairhmm, share};

use super::{BACKENDS, Device, Error, Queue, lane, open};

/// Names the devices, separated by commas, whose absence is a failure and not a skip.
const REQUIRE: &str = "DSGD_REQUIRE_DEVICES";
/// What else it may name: simulations of a device on the CPU, here and in `tests/kernel_forms.rs`.
const SIMULATIONS: [&str; 2] = ["cuda-sim", "hls-sim"];

const PAIRS: [(ShareLetter, ShareLetter); 6] = [
    (ShareLetter::A, ShareLetter::C),
    (ShareLetter::C, ShareLetter::A),
    (ShareLetter::B, ShareLetter::C),
    (ShareLetter::C, ShareLetter::B),
    (ShareLetter::A, ShareLetter::B),
    (ShareLetter::B, ShareLetter::A),
];

/// xorshift64: different bytes from one seed.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() >> 20) as usize % bound
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| (self.next() >> 40) as u8).collect()
    }
}

type Outcome = Result<(), String>;

fn equal(what: &str, length: usize, have: &[u8], want: &[u8]) -> Outcome {
    match have.iter().zip(want).position(|(have, want)| have != want) {
        None => Ok(()),
        Some(at) => Err(format!("{what} of {length} bytes differs from its twin at byte {at}")),
    }
}

fn check_sharing(queue: &mut dyn Queue, length: usize, noise: &mut Noise) -> Outcome {
    let failed = |error: Error| format!("{length} bytes: {error}");
    let (secret, random) = (noise.bytes(length), noise.bytes(length));
    let (mut a, mut b) = (secret.clone(), noise.bytes(length));
    let (mut twin_a, mut twin_b) = (secret.clone(), vec![0; length]);
    share::split(&mut twin_a, &random, &mut twin_b);
    queue.split(&mut a, &random, &mut b).map_err(failed)?;
    equal("share A", length, &a, &twin_a)?;
    equal("share B", length, &b, &twin_b)?;
    let shares = [twin_a, twin_b, random];
    for letters in PAIRS {
        let (first, second) = (letters.0 as usize, letters.1 as usize);
        let mut restored = shares[first].clone();
        queue.restore(&mut restored, &shares[second], letters).map_err(failed)?;
        equal(&format!("secret from {letters:?}"), length, &restored, &secret)?;
        let mut rebuilt = shares[first].clone();
        queue.rebuild(&mut rebuilt, &shares[second], letters).map_err(failed)?;
        equal(&format!("third of {letters:?}"), length, &rebuilt, &shares[3 - first - second])?;
    }
    Ok(())
}

fn check_xor(queue: &mut dyn Queue, length: usize, noise: &mut Noise) -> Outcome {
    let (mut data, spare) = (noise.bytes(length), noise.below(20));
    let pad = noise.bytes(length + spare);
    let mut want = data.clone();
    otp::xor(&mut want, &pad);
    queue.xor(&mut data, &pad).map_err(|error| format!("{length} bytes: {error}"))?;
    equal("xor", length, &data, &want)
}

/// Edges, then random shapes, of all kernels.
fn check(queue: &mut dyn Queue, rounds: usize, length_max: usize) -> Outcome {
    check_columns(queue, rounds, length_max)?;
    let noise = &mut Noise(0xd1b5_4a32_d192_ed03);
    for _ in 0..rounds.min(5) {
        jobs::check_align(queue, 60, noise)?;
        jobs::check_pairhmm(queue, 200, noise)?;
    }
    Ok(())
}

/// Those over columns.
fn check_columns(queue: &mut dyn Queue, rounds: usize, length_max: usize) -> Outcome {
    let noise = &mut Noise(0x9e37_79b9_7f4a_7c15);
    for length in [0, 2, 30, 4096, length_max] {
        check_sharing(queue, length, noise)?;
    }
    for length in [0, 1, 2, 3, 15, 16, 17, 4095, 4097, length_max - 1] {
        check_xor(queue, length, noise)?;
    }
    for _ in 0..rounds {
        let length = noise.below(20_000);
        check_sharing(queue, 2 * (length / 2), noise)?;
        check_xor(queue, length, noise)?;
    }
    Ok(())
}

fn is_required(name: &str) -> bool {
    std::env::var(REQUIRE).is_ok_and(|list| list.split(',').any(|word| word.trim() == name))
}

/// The devices of this machine; those that are missing are named on stderr.
fn devices() -> Vec<Box<dyn Device>> {
    let present = |(name, _): &(&'static str, super::Open)| match open(name) {
        Ok(device) => Some(device),
        Err(Error::Absent { device, reason }) => {
            assert!(!is_required(device), "{REQUIRE} names '{device}', but: {reason}");
            eprintln!("skipped: device '{device}' is absent: {reason}");
            None
        }
        Err(error) => panic!("an absent device says so: {error}"),
    };
    BACKENDS.iter().filter_map(present).collect()
}

#[test]
fn every_device_equals_the_twins() {
    for device in devices() {
        check_device(device.as_ref());
    }
}

fn check_device(device: &dyn Device) {
    eprintln!("device '{}': {}", device.name(), device.model());
    // Small pieces, so that both lanes and the last piece of odd length have work; then large.
    for (piece_bytes, rounds, length_max) in [(1000, 20, 30_000), (300 << 10, 5, 1 << 20)] {
        let mut queue = device.queue(piece_bytes).unwrap();
        let outcome = check(queue.as_mut(), rounds, length_max);
        assert_eq!(outcome, Ok(()), "device '{}'", device.name());
    }
}

/// Runs a check that a simulation is needed for; without one it is skipped, unless it is required.
fn with_simulation(
    name: &str,
    simulation: Result<super::process::Simulated, String>,
    check: impl FnOnce(&dyn Device),
) {
    match simulation {
        Ok(simulation) => check(&simulation),
        Err(reason) if is_required(name) => panic!("{REQUIRE} names '{name}', but: {reason}"),
        Err(reason) => eprintln!("skipped: {name}: {reason}"),
    }
}

#[test]
fn cuda_kernels_on_the_cpu_equal_the_twins() {
    let folder = tempfile::tempdir().unwrap();
    let watched = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"];
    with_simulation("cuda-sim", simulated::cuda(folder.path(), &watched), check_device);
}

#[test]
fn a_card_that_disappears_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    with_simulation("cuda-sim", simulated::cuda(folder.path(), &["-DEXIT_AT_ONCE"]), |device| {
        let mut queue = device.queue(1000).unwrap();
        let outcome = queue.xor(&mut [0; 5000], &[1; 5000]);
        assert!(matches!(outcome, Err(Error::Failed { .. })));
    });
}

#[test]
fn the_pieces_of_a_job_equal_the_twins() {
    for piece_bytes in [1, 16, 1000, 1 << 20] {
        let outcome = check_columns(lane::host::queue(piece_bytes).as_mut(), 5, 30_000);
        assert_eq!(outcome, Ok(()), "pieces of {piece_bytes}");
    }
}

#[test]
fn only_devices_of_the_registry_can_be_required() {
    let list = std::env::var(REQUIRE).unwrap_or_default();
    for word in list.split(',').map(str::trim).filter(|word| !word.is_empty()) {
        let mut known = BACKENDS.iter().map(|(name, _)| *name).chain(SIMULATIONS);
        assert!(known.any(|name| name == word), "{REQUIRE} names '{word}'");
    }
    let Err(Error::Unknown { .. }) = open("abacus") else { panic!("there is no abacus") };
}

#[test]
fn a_queue_refuses_what_the_twin_refuses() {
    let refused = |what: &mut dyn FnMut(&mut dyn Queue)| {
        for mut queue in [lane::host::queue(16), open("cpu").unwrap().queue(16).unwrap()] {
            let run = std::panic::AssertUnwindSafe(|| what(queue.as_mut()));
            assert!(std::panic::catch_unwind(run).is_err());
        }
    };
    let ab = (ShareLetter::A, ShareLetter::B);
    refused(&mut |queue| queue.xor(&mut [0; 9], &[0; 8]).unwrap());
    refused(&mut |queue| queue.restore(&mut [0; 9], &[0; 9], ab).unwrap());
    refused(&mut |queue| queue.rebuild(&mut [0; 8], &[0; 10], ab).unwrap());
    refused(&mut |queue| queue.split(&mut [0; 8], &[0; 8], &mut [0; 6]).unwrap());
    refused(&mut |queue| queue.restore(&mut [0; 8], &[0; 8], (ab.0, ab.0)).unwrap());
}

/// A device that gives one wrong bit, in one of its kernels.
struct OneBitOff {
    right: Box<dyn Queue>,
    kernel: &'static str,
}

impl OneBitOff {
    fn spoil(&self, kernel: &str, bytes: &mut [u8]) -> Result<(), Error> {
        if let (true, Some(last)) = (self.kernel == kernel, bytes.last_mut()) {
            *last ^= 0x80;
        }
        Ok(())
    }
}

impl Queue for OneBitOff {
    fn split(&mut self, secret_to_a: &mut [u8], random: &[u8], b: &mut [u8]) -> Result<(), Error> {
        self.right.split(secret_to_a, random, b)?;
        self.spoil("split a", secret_to_a)?;
        self.spoil("split b", b)
    }

    fn restore(
        &mut self,
        first: &mut [u8],
        second: &[u8],
        letters: (ShareLetter, ShareLetter),
    ) -> Result<(), Error> {
        self.right.restore(first, second, letters)?;
        self.spoil("restore", first)
    }

    fn rebuild(
        &mut self,
        first: &mut [u8],
        second: &[u8],
        letters: (ShareLetter, ShareLetter),
    ) -> Result<(), Error> {
        self.right.rebuild(first, second, letters)?;
        self.spoil("rebuild", first)
    }

    fn xor(&mut self, data: &mut [u8], pad: &[u8]) -> Result<(), Error> {
        self.right.xor(data, pad)?;
        self.spoil("xor", data)
    }

    fn align(
        &mut self,
        pairs: &[align::Pair<'_>],
        scores: &align::Scores,
    ) -> Result<Vec<Option<align::Placement>>, Error> {
        let mut placed = self.right.align(pairs, scores)?;
        if let (true, Some(Some(last))) = (self.kernel == "align", placed.last_mut()) {
            last.target_start ^= 1;
        }
        Ok(placed)
    }

    fn pairhmm(&mut self, batch: &pairhmm::Batch<'_>) -> Result<Vec<i32>, Error> {
        let mut penalties = self.right.pairhmm(batch)?;
        if let (true, Some(last)) = (self.kernel == "pairhmm", penalties.last_mut()) {
            *last ^= 1;
        }
        Ok(penalties)
    }
}

#[test]
fn a_device_one_bit_off_is_caught() {
    for (kernel, caught) in [
        ("none", false),
        ("split a", true),
        ("split b", true),
        ("restore", true),
        ("rebuild", true),
        ("xor", true),
        ("align", true),
        ("pairhmm", true),
    ] {
        let right = open("cpu").unwrap().queue(0).unwrap();
        let outcome = check(&mut OneBitOff { right, kernel }, 1, 4096);
        assert_eq!(outcome.is_err(), caught, "{kernel}");
    }
}
