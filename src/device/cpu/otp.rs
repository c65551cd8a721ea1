//! One-time pad and universal hash in one pass, as fast as this CPU can: the forms of
//! [`crate::kernel::otp`].
#![allow(unsafe_code)]

use zeroize::Zeroize;

use super::keystream::Stream;
use crate::kernel::otp as scalar;
use crate::kernel::otp::{BLOCK_BYTES, Pad};

#[cfg(target_arch = "aarch64")]
mod arm;
#[cfg(target_arch = "x86_64")]
mod x86;

#[cfg(target_arch = "aarch64")]
use arm as vectors;
#[cfg(target_arch = "x86_64")]
use x86 as vectors;

/// How many blocks are multiplied by their power of the key before one reduction.
const STRIDE_BLOCKS: usize = 64;
#[cfg(target_arch = "x86_64")]
const STRIDE_BYTES: usize = STRIDE_BLOCKS * BLOCK_BYTES;
/// Entries behind the last power that a whole vector may read beyond it.
const SPARE_BLOCKS: usize = 3;

/// A way to compute the same hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// AVX-512 and VPCLMULQDQ: four blocks an instruction.
    #[cfg(target_arch = "x86_64")]
    Wide,
    /// AVX and PCLMULQDQ: one block an instruction.
    #[cfg(target_arch = "x86_64")]
    Narrow,
    /// PMULL of AArch64: one block an instruction.
    #[cfg(target_arch = "aarch64")]
    Neon,
    /// The scalar form, in the instructions that the `polyval` crate finds.
    Portable,
}

impl Form {
    /// The forms that this CPU can run, the fastest first.
    fn available() -> Vec<Form> {
        let mut forms = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            if x86::can_run_wide() {
                forms.push(Form::Wide);
            }
            if x86::can_run_narrow() {
                forms.push(Form::Narrow);
            }
        }
        #[cfg(target_arch = "aarch64")]
        if arm::can_run() {
            forms.push(Form::Neon);
        }
        forms.push(Form::Portable);
        forms
    }
}

/// Powers of a hash key, the highest first, and zeros behind them; wiped on drop.
#[repr(C, align(64))]
struct Powers([u128; STRIDE_BLOCKS + SPARE_BLOCKS]);

impl Drop for Powers {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// A hash key made ready: its powers worked out, the form chosen. Wiped on drop.
pub struct HashKey {
    powers: Box<Powers>,
    form: Form,
}

impl HashKey {
    /// Works out the powers of `key`.
    pub fn new(key: &[u8; BLOCK_BYTES]) -> Self {
        Self::with_form(key, Form::available()[0])
    }

    fn with_form(key: &[u8; BLOCK_BYTES], form: Form) -> Self {
        let mut powers = Box::new(Powers([0; STRIDE_BLOCKS + SPARE_BLOCKS]));
        powers.0[STRIDE_BLOCKS - 1] = u128::from_le_bytes(*key);
        #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
        if form != Form::Portable {
            vectors::fill_powers(&mut powers);
        }
        Self { powers, form }
    }
}

/// A running hash; the contract is that of [`crate::kernel::otp::Hash`].
///
/// Source: Gueron, Langley, Lindell, RFC 8452; aggregated reduction after Jankowski and Laurent 2011,
/// "Packed AES-GCM algorithm suitable for AES/PCLMULQDQ instructions".
pub struct Hash<'k> {
    key: &'k HashKey,
    state: u128,
    /// Instead of `state` in the portable form.
    portable: Option<scalar::Hash>,
}

impl<'k> Hash<'k> {
    /// Begins under `key`.
    pub fn new(key: &'k HashKey) -> Self {
        let portable = (key.form == Form::Portable)
            .then(|| scalar::Hash::new(&key.powers.0[STRIDE_BLOCKS - 1].to_le_bytes()));
        Self { key, state: 0, portable }
    }

    /// Hashes `bytes`; the last block is filled with zeros.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.portable {
            Some(hash) => hash.update(bytes),
            None => self.vector(Work::Hash(bytes)),
        }
    }

    /// Encrypts in place and hashes the ciphertext.
    ///
    /// # Panics
    /// When `pad` is shorter than `data`.
    pub fn seal<'p>(&mut self, data: &mut [u8], pad: impl Into<Pad<'p>>) {
        tiles(data, &pad.into(), |tile, pad| match (pad, &mut self.portable) {
            (Tile::Stored(pad), Some(hash)) => hash.seal(tile, pad),
            (Tile::Stored(pad), None) => self.vector(Work::Seal(tile, pad)),
            (Tile::Expanded(stream, stored), _) => {
                let (tile, stored) = self.fused::<SEAL>(stream, tile, stored);
                stream.apply(tile, stored);
                self.update(tile);
            }
        });
    }

    /// Hashes the ciphertext and decrypts it in place. Whoever calls it must not let the plaintext
    /// out before the tag is found right.
    ///
    /// # Panics
    /// When `pad` is shorter than `data`.
    pub fn open<'p>(&mut self, data: &mut [u8], pad: impl Into<Pad<'p>>) {
        tiles(data, &pad.into(), |tile, pad| match (pad, &mut self.portable) {
            (Tile::Stored(pad), Some(hash)) => hash.open(tile, pad),
            (Tile::Stored(pad), None) => self.vector(Work::Open(tile, pad)),
            (Tile::Expanded(stream, stored), _) => {
                let (tile, stored) = self.fused::<OPEN>(stream, tile, stored);
                self.update(tile);
                stream.apply(tile, stored);
            }
        });
    }

    /// Seals or opens what it can with the stream in registers only, and gives what is left.
    #[cfg_attr(not(target_arch = "x86_64"), allow(unused_variables, clippy::unused_self))]
    fn fused<'t, const HOW: u8>(
        &mut self,
        stream: &mut Stream,
        data: &'t mut [u8],
        stored: Option<&'t [u8]>,
    ) -> (&'t mut [u8], Option<&'t [u8]>) {
        #[cfg(target_arch = "x86_64")]
        {
            let whole = data.len() / STRIDE_BYTES * STRIDE_BYTES;
            let (text, pad) = (&mut data[..whole], stored.map(|stored| &stored[..whole]));
            if let Some(state) = x86::run_fused::<HOW>(self.key, self.state, stream, text, pad) {
                self.state = state;
                return (&mut data[whole..], stored.map(|stored| &stored[whole..]));
            }
        }
        (data, stored)
    }

    /// The hash of all that went in.
    pub fn finish(self) -> [u8; BLOCK_BYTES] {
        match self.portable {
            Some(hash) => hash.finish(),
            None => self.state.to_le_bytes(),
        }
    }

    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    fn vector(&mut self, work: Work<'_>) {
        use vectors::run;
        let (key, state) = (self.key, self.state);
        self.state = match work {
            Work::Hash(data) => {
                let (begin, len) = (data.as_ptr(), data.len());
                // SAFETY: `data` is readable for its length; hashing never writes through the pointer
                // and never reads the pad.
                unsafe { run::<HASH>(key, state, begin.cast_mut(), begin, len) }
            }
            Work::Seal(data, pad) => {
                let pad = &pad[..data.len()];
                // SAFETY: `data` is writable and `pad` readable for the length of `data`.
                unsafe { run::<SEAL>(key, state, data.as_mut_ptr(), pad.as_ptr(), data.len()) }
            }
            Work::Open(data, pad) => {
                let pad = &pad[..data.len()];
                // SAFETY: as above.
                unsafe { run::<OPEN>(key, state, data.as_mut_ptr(), pad.as_ptr(), data.len()) }
            }
        };
    }

    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    fn vector(&mut self, _work: Work<'_>) {
        unreachable!("this processor has no vector form");
    }
}

/// `HOW` of the loops over vectors: hash only, encrypt then hash, hash then decrypt.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
const HASH: u8 = 0;
const SEAL: u8 = 1;
const OPEN: u8 = 2;

/// What to do with the bytes on their way into the hash.
#[cfg_attr(not(any(target_arch = "x86_64", target_arch = "aarch64")), allow(dead_code))]
enum Work<'a> {
    Hash(&'a [u8]),
    Seal(&'a mut [u8], &'a [u8]),
    Open(&'a mut [u8], &'a [u8]),
}

/// Bytes that stay in the first-level cache between one step and the next.
const TILE_BYTES: usize = 8192;

/// The pad of one tile.
enum Tile<'t> {
    Stored(&'t [u8]),
    /// The stream that gives the next bytes, and what is stored besides.
    Expanded(&'t mut Stream, Option<&'t [u8]>),
}

/// Hands the data out in tiles, each with its pad.
fn tiles(data: &mut [u8], pad: &Pad<'_>, mut each: impl FnMut(&mut [u8], Tile<'_>)) {
    let pad = pad.slice(0..data.len());
    let mut expanded = false;
    for (part, key, counter) in pad.streams() {
        expanded = true;
        let mut stream = Stream::new(key, counter);
        let mut stored = pad.stored().map(|stored| &stored[part.clone()]);
        for tile in data[part].chunks_mut(TILE_BYTES) {
            let here = stored.as_mut().map(|rest| {
                let (here, after) = rest.split_at(tile.len());
                *rest = after;
                here
            });
            each(tile, Tile::Expanded(&mut stream, here));
        }
    }
    if let (false, Some(stored)) = (expanded, pad.stored()) {
        for (tile, pad) in data.chunks_mut(TILE_BYTES).zip(stored.chunks(TILE_BYTES)) {
            each(tile, Tile::Stored(pad));
        }
    }
}

/// `data ^= pad`: the one-time pad alone, for bytes whose tag was checked before.
///
/// # Panics
/// When `pad` is shorter than `data`.
pub fn xor<'p>(data: &mut [u8], pad: impl Into<Pad<'p>>) {
    tiles(data, &pad.into(), |tile, pad| match pad {
        Tile::Stored(pad) => xor_stored(tile, pad),
        Tile::Expanded(stream, stored) => stream.apply(tile, stored),
    });
}

fn xor_stored(data: &mut [u8], pad: &[u8]) {
    #[cfg(target_arch = "x86_64")]
    if x86::xor_wide(data, pad) || x86::xor_narrow(data, pad) {
        return;
    }
    scalar::xor(data, pad);
}

/// Writes the first bytes of `pad` to `out`.
///
/// # Panics
/// When `pad` is shorter than `out`.
pub fn write(pad: &Pad<'_>, out: &mut [u8]) {
    match pad.stored() {
        Some(stored) => out.copy_from_slice(&stored[..out.len()]),
        None => out.fill(0),
    }
    for (part, key, counter) in pad.slice(0..out.len()).streams() {
        Stream::new(key, counter).apply(&mut out[part], None);
    }
}

/// POLYVAL of `bytes` under `key`, the last block filled with zeros; the length is not hashed.
///
/// With a secret, fresh key it tells apart two messages of up to `n` blocks with a chance of error of
/// at most `n / 2^128`: what algebraic manipulation detection and tags need.
pub fn polyval_blocks(key: &[u8; BLOCK_BYTES], bytes: &[u8]) -> [u8; BLOCK_BYTES] {
    let key = HashKey::new(key);
    let mut hash = Hash::new(&key);
    hash.update(bytes);
    hash.finish()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn noise(len: usize, seed: u64) -> Vec<u8> {
        let mut state = seed | 1;
        std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        })
        .take(len)
        .collect()
    }

    type Outcome = (Vec<u8>, [u8; BLOCK_BYTES], Vec<u8>, [u8; BLOCK_BYTES]);

    /// Header, then sealed data, then a length: as a frame is hashed. And the way back.
    fn expected(key: [u8; 16], header: &[u8], data: &[u8], pad: &[u8]) -> Outcome {
        let mut sealed = data.to_vec();
        let mut hash = scalar::Hash::new(&key);
        hash.update(header);
        hash.seal(&mut sealed, pad);
        hash.update(&(data.len() as u64).to_le_bytes());
        let tag = hash.finish();
        (sealed, tag, data.to_vec(), tag)
    }

    fn actual<'p>(key: &HashKey, header: &[u8], data: &[u8], pad: impl Into<Pad<'p>>) -> Outcome {
        let pad = pad.into();
        let length = (data.len() as u64).to_le_bytes();
        let mut sealed = data.to_vec();
        let mut hash = Hash::new(key);
        hash.update(header);
        hash.seal(&mut sealed, pad);
        hash.update(&length);
        let tag = hash.finish();
        let mut opened = sealed.clone();
        let mut hash = Hash::new(key);
        hash.update(header);
        hash.open(&mut opened, pad);
        hash.update(&length);
        (sealed, tag, opened, hash.finish())
    }

    #[test]
    fn an_expanded_pad_is_the_same_in_every_form() {
        let expansion =
            |start, key: u8| scalar::Expansion::new(start, &[key; 32], u128::from(u64::MAX - 9));
        let expansions = [expansion(0, 1), expansion(4096, 2), expansion(30_000 / 16 * 16, 3)];
        let stored = noise(40_000, 7);
        for stored in [None, Some(&stored[..])] {
            let pad = Pad::new(stored, &expansions, 40_000);
            for (start, end) in [(0, 40_000), (16, 39_999), (32, 33), (4080, 4112), (64, 64)] {
                let pad = pad.slice(start..end);
                let mut bytes = vec![0xee; end - start];
                write(&pad, &mut bytes);
                let mut same = vec![0; end - start];
                scalar::xor(&mut same, pad);
                assert!(bytes == same);
                xor(&mut same, pad);
                assert!(same.iter().all(|byte| *byte == 0));
                let data = noise(end - start, 5);
                let want = expected([9; 16], b"header", &data, &bytes);
                for form in Form::available() {
                    let key = HashKey::with_form(&[9; 16], form);
                    assert!(want == actual(&key, b"header", &data, pad), "{form:?} {start}..{end}");
                }
            }
        }
    }

    fn check_all_forms(key: [u8; 16], header: &[u8], data: &[u8], pad: &[u8]) {
        for form in Form::available() {
            let ready = HashKey::with_form(&key, form);
            let (want, have) =
                (expected(key, header, data, pad), actual(&ready, header, data, pad));
            assert!(want == have, "{form:?} differs for {} bytes", data.len());
        }
    }

    #[test]
    fn every_form_equals_the_scalar_one_at_every_short_length() {
        for len in 0..=2 * STRIDE_BLOCKS * BLOCK_BYTES + 65 {
            let data = noise(len, 3);
            check_all_forms([0xc3; 16], &noise(48, 1), &data, &noise(len, 2));
        }
    }

    #[test]
    fn every_form_equals_the_scalar_one_on_a_whole_chunk() {
        check_all_forms([1; 16], &noise(48, 1), &noise(1 << 20, 2), &noise(1 << 20, 3));
    }

    #[test]
    fn a_wrong_bit_in_a_form_would_be_seen() {
        let (data, pad) = (noise(5000, 2), noise(5000, 3));
        for form in Form::available() {
            let mut ready = HashKey::with_form(&[1; 16], form);
            ready.powers.0[STRIDE_BLOCKS - 1] ^= 1 << 77;
            let (want, have) =
                (expected([1; 16], b"", &data, &pad), actual(&ready, b"", &data, &pad));
            assert!(want.1 != have.1, "{form:?}");
        }
    }

    #[test]
    fn a_pad_that_is_too_short_is_refused() {
        let key = HashKey::new(&[1; 16]);
        let attempt = |what: &dyn Fn()| {
            assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(what)).is_err());
        };
        attempt(&|| Hash::new(&key).seal(&mut [0; 100], &[0; 99]));
        attempt(&|| Hash::new(&key).open(&mut [0; 100], &[0; 99]));
        attempt(&|| xor(&mut [0; 100], &[0; 99]));
    }

    proptest! {
        #[test]
        fn every_form_equals_the_scalar_one(
            key: [u8; 16],
            header in proptest::collection::vec(any::<u8>(), 0..100),
            len in 0usize..9000,
            misalign in 0usize..64,
            seed: u64,
        ) {
            let (data, pad) = (noise(len + misalign, seed), noise(len + 64, seed ^ 9));
            check_all_forms(key, &header, &data[misalign..], &pad[misalign / 2..]);
        }

        #[test]
        fn xor_equals_the_scalar_one(len in 0usize..3000, spare in 0usize..20, seed: u64) {
            let (mut data, pad) = (noise(len, seed), noise(len + spare, seed ^ 5));
            let mut want = data.clone();
            scalar::xor(&mut want, &pad);
            #[cfg(target_arch = "x86_64")]
            for form in [x86::xor_wide, x86::xor_narrow] {
                let mut data = data.clone();
                prop_assert!(!form(&mut data, &pad[..len]) || want == data);
            }
            xor(&mut data, &pad);
            prop_assert!(want == data);
        }
    }
}
