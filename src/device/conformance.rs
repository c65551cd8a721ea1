//! Every kernel on a device against its scalar twin: edges, then random shapes.
//!
//! The suite of the tests, of `dsgd device check` on a machine that the tests never saw, and of devices that were
//! lost and may be back.

pub mod double;
mod jobs;
#[cfg(test)]
mod simulated;
#[cfg(test)]
mod tests;

use crate::base::ShareLetter;
use crate::kernel::otp::{BLOCK_BYTES, Expansion, Pad};
use crate::kernel::{otp, share};

use super::{Device, Error, Queue, ToCombine, ToSplit};

const PAIRS: [(ShareLetter, ShareLetter); 6] = [
    (ShareLetter::A, ShareLetter::C),
    (ShareLetter::C, ShareLetter::A),
    (ShareLetter::B, ShareLetter::C),
    (ShareLetter::C, ShareLetter::B),
    (ShareLetter::A, ShareLetter::B),
    (ShareLetter::B, ShareLetter::A),
];

/// xorshift64: different bytes from one seed, and the same ones every time.
pub(super) struct Noise(pub(super) u64);

impl Noise {
    pub(super) fn next(&mut self) -> u64 {
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

/// What differed, if anything did.
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

/// Stripes of several lengths in one call: share B and A of each, then each secret and third share.
fn check_stripes(queue: &mut dyn Queue, lengths: &[usize], noise: &mut Noise) -> Outcome {
    let failed = |error: Error| format!("stripes of {lengths:?} bytes: {error}");
    let secrets: Vec<_> = lengths.iter().map(|length| noise.bytes(*length)).collect();
    let randoms: Vec<_> = lengths.iter().map(|length| noise.bytes(*length)).collect();
    let (mut to_a, mut b) = (secrets.clone(), randoms.clone());
    let slices = to_a.iter_mut().zip(&randoms).zip(&mut b);
    let mut to_split: Vec<_> =
        slices.map(|((secret_to_a, random), b)| ToSplit { secret_to_a, random, b }).collect();
    queue.split_each(&mut to_split).map_err(failed)?;
    let letters = (ShareLetter::A, ShareLetter::B);
    let (mut restored, mut rebuilt) = (to_a.clone(), to_a.clone());
    fn pairs<'a>(first: &'a mut [Vec<u8>], second: &'a [Vec<u8>]) -> Vec<ToCombine<'a>> {
        let both = first.iter_mut().zip(second);
        both.map(|(first, second)| ToCombine { first, second }).collect()
    }
    queue.restore_each(&mut pairs(&mut restored, &b), letters).map_err(failed)?;
    queue.rebuild_each(&mut pairs(&mut rebuilt, &b), letters).map_err(failed)?;
    for (at, secret) in secrets.iter().enumerate() {
        let (mut twin_a, mut twin_b) = (secret.clone(), vec![0; secret.len()]);
        share::split(&mut twin_a, &randoms[at], &mut twin_b);
        equal("share A among stripes", secret.len(), &to_a[at], &twin_a)?;
        equal("share B among stripes", secret.len(), &b[at], &twin_b)?;
        equal("secret among stripes", secret.len(), &restored[at], secret)?;
        equal("third share among stripes", secret.len(), &rebuilt[at], &randoms[at])?;
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

/// One to five expansions for a pad of that length, their counters often about to run over.
fn expansions(length: usize, noise: &mut Noise) -> Vec<Expansion> {
    let mut starts = vec![0];
    starts.extend((0..noise.below(5)).map(|_| noise.below(length + 1) / BLOCK_BYTES * BLOCK_BYTES));
    starts.sort_unstable();
    let expansion = |start| {
        let key: [u8; 32] = std::array::from_fn(|_| noise.below(256) as u8);
        let high = u128::from(noise.next()) << 64;
        let counters = [high | u128::from(u32::MAX), high | u128::from(u64::MAX), u128::MAX, high];
        Expansion::new(start, &key, counters[noise.below(4)].wrapping_sub(noise.below(9) as u128))
    };
    starts.into_iter().map(expansion).collect()
}

fn check_sealing(queue: &mut dyn Queue, length: usize, noise: &mut Noise) -> Outcome {
    let data = noise.bytes(length);
    let stored = noise.bytes(length + 3);
    // What the pad is made of: stored bytes, key stream that is worked out in parts, or both.
    let expansions = expansions(length, noise);
    let pad = match noise.below(4) {
        0 => Pad::from(&stored),
        1 => Pad::new(None, &expansions, length + 3),
        _ => Pad::new(Some(&stored), &expansions, length + 3),
    };
    let key: [u8; BLOCK_BYTES] = std::array::from_fn(|_| noise.below(256) as u8);
    let (mut have, mut want) = (data.clone(), data.clone());
    let mut hash = otp::Hash::new(&key);
    hash.seal(&mut want, pad);
    let tag = hash.finish();
    let failed = |error: Error| format!("{length} bytes: {error}");
    let sealed = queue.seal(&mut have, pad, &key).map_err(failed)?;
    equal("ciphertext", length, &have, &want)?;
    equal("its hash", length, &sealed, &tag)?;
    let opened = queue.open(&mut have, pad, &key).map_err(failed)?;
    equal("what was opened", length, &have, &data)?;
    equal("the hash of what was opened", length, &opened, &tag)
}

/// Edges, then random shapes, of all kernels.
fn check(
    tables: &jobs::Tables,
    queue: &mut dyn Queue,
    rounds: usize,
    length_max: usize,
) -> Outcome {
    check_columns(queue, rounds, length_max)?;
    let noise = &mut Noise(0xd1b5_4a32_d192_ed03);
    for _ in 0..rounds.min(2) {
        jobs::check_align(queue, 60, noise)?;
        jobs::check_pairhmm(queue, 200, noise)?;
        jobs::check_pack(queue, 60, noise)?;
        tables.check_ungapped(queue, 150, noise)?;
        tables.check_lookup(queue, 500, noise)?;
    }
    for length in [0, 1, 15, 16, 17, 1023, 1024, 1025, 20_000] {
        check_sealing(queue, length, noise)?;
    }
    for _ in 0..rounds {
        let length = noise.below(length_max / 4);
        check_sealing(queue, length, noise)?;
    }
    Ok(())
}

/// Those over columns.
fn check_columns(queue: &mut dyn Queue, rounds: usize, length_max: usize) -> Outcome {
    let noise = &mut Noise(0x9e37_79b9_7f4a_7c15);
    for length in [0, 2, 30, 4096, length_max] {
        check_sharing(queue, length, noise)?;
    }
    check_stripes(queue, &[], noise)?;
    check_stripes(queue, &[0, 34, 0, 2, 1000, length_max / 4 * 2, 16], noise)?;
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

/// Checks every kernel of a device; what differs first is the error.
pub fn check_device(device: &dyn Device) -> Result<(), String> {
    check_at(device, &[(1000, 20, 30_000), (300 << 10, 5, 1 << 20)])
}

/// Sizes: small pieces, so that both lanes and the last piece of odd length have work; then large.
fn check_at(device: &dyn Device, sizes: &[(usize, usize, usize)]) -> Outcome {
    let failed = |error: Error| error.to_string();
    let tables = jobs::tables(device, &mut Noise(77)).map_err(failed)?;
    for &(piece_bytes, rounds, length_max) in sizes {
        let mut queue = device.queue(piece_bytes).map_err(failed)?;
        check(&tables, queue.as_mut(), rounds, length_max)?;
    }
    Ok(())
}

/// A short check of a queue that stands before `device`.
pub(super) fn check_queue(device: &dyn Device, queue: &mut dyn Queue) -> Outcome {
    let tables = jobs::tables(device, &mut Noise(77)).map_err(|error| error.to_string())?;
    check(&tables, queue, 1, 4096)
}
