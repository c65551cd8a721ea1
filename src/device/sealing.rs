//! Sealing and opening on a device: how a piece of a message, what its pad is made of, and the sums for its
//! hash lie in a lane: `otp.cu`, `otp.wgsl`, `hls/otp`.
//!
//! ```text
//! data | sums of the threads | the power of the hash key | expansions | stored pad
//! ```

use std::ops::Range;

use zeroize::{Zeroize, Zeroizing};

use crate::kernel::keystream::{ROUND_KEYS, round_keys};
use crate::kernel::otp::{BLOCK_BYTES, Hash, Pad};

use super::lane::{Function, Lane, Launch};
use super::{Error, cpu};

/// Words of an expansion: the block where it begins and three spare ones, its counter, its round keys.
const EXPANSION_WORDS: usize = 8 + 8 * ROUND_KEYS;
const EXPANSION_BYTES: usize = 4 * EXPANSION_WORDS;

/// What the kernel of a device can do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ability {
    /// Threads that a device always has for the sums of a hash, where it cannot have others.
    pub(super) lanes: Option<usize>,
    /// Whether it works key stream out. Else it gets pads as bytes.
    pub(super) expands: bool,
}

/// A piece of a message in a lane.
#[derive(Clone, Copy)]
pub(super) struct Sealing {
    bytes: usize,
    /// Blocks of the piece.
    pub(super) blocks: usize,
    /// Threads; each gives a sum.
    pub(super) lanes: usize,
}

/// What of a piece's pad goes to the device.
struct Parts<'p> {
    stored: Option<&'p [u8]>,
    expansions: Zeroizing<Vec<u32>>,
}

impl Sealing {
    /// Blocks that a thread sums: few enough that a piece of some MiB has work for a whole card, and
    /// the sums are few bytes beside it.
    const BLOCKS_A_LANE: usize = 16;

    /// A piece of that length.
    pub(super) fn of(bytes: usize, ability: Ability) -> Self {
        let blocks = bytes.div_ceil(BLOCK_BYTES);
        let lanes = ability.lanes.unwrap_or_else(|| blocks.div_ceil(Self::BLOCKS_A_LANE));
        Self { bytes, blocks, lanes }
    }

    /// Starts a piece in a lane of `room` bytes.
    pub(super) fn start<L: Lane>(
        self,
        lane: &mut L,
        (ability, room): (Ability, usize),
        piece: &[u8],
        (pad, power): (Pad<'_>, &[u8; BLOCK_BYTES]),
        opens: bool,
    ) -> Result<(), Error> {
        let expanded;
        let mut parts = Parts { stored: pad.stored(), expansions: expansions(&pad) };
        let bytes = 4 * parts.expansions.len();
        if !parts.expansions.is_empty() && (!ability.expands || self.end(bytes, true) > room) {
            let mut bytes = Zeroizing::new(vec![0; piece.len()]);
            cpu::otp::write(&pad, &mut bytes);
            expanded = bytes;
            parts = Parts { stored: Some(&expanded), expansions: Zeroizing::default() };
        }
        let expansions: &[u8] = bytemuck::cast_slice(&parts.expansions);
        let count = expansions.len() / EXPANSION_BYTES;
        let power_at = self.sums().end;
        let expansions_at = power_at + BLOCK_BYTES;
        let pad_at = expansions_at + expansions.len();
        let mode = u32::from(opens) | u32::from(parts.stored.is_some()) << 1 | (count as u32) << 2;
        let launch = Launch {
            function: Function::Otp,
            threads: self.lanes as u32,
            numbers: [self.bytes as u32, self.lanes as u32, mode],
            up: self.end(expansions.len(), parts.stored.is_some()),
            down: 0..power_at,
            table: None,
            shared_words: 0,
        };
        let inputs = [(0, piece), (power_at, power), (expansions_at, expansions)];
        lane.start(&launch, inputs.into_iter().chain(parts.stored.map(|pad| (pad_at, pad))))
    }

    fn sums(self) -> Range<usize> {
        let begin = self.blocks * BLOCK_BYTES;
        begin..begin + self.lanes * BLOCK_BYTES
    }

    /// Where all ends.
    fn end(self, expansions: usize, stored: bool) -> usize {
        let pad = if stored { self.blocks * BLOCK_BYTES } else { 0 };
        self.sums().end + BLOCK_BYTES + expansions + pad
    }

    /// Waits for the piece; gives the sums.
    pub(super) fn finish<L: Lane>(self, lane: &mut L, piece: &mut [u8]) -> Result<Vec<u8>, Error> {
        let mut sums = vec![0; self.lanes * BLOCK_BYTES];
        lane.finish([(0, piece), (self.sums().start, &mut sums[..])].into_iter())?;
        Ok(sums)
    }
}

/// The expansions of a pad as words.
fn expansions(pad: &Pad<'_>) -> Zeroizing<Vec<u32>> {
    let count = pad.streams().count();
    // As large as it gets: growing would leave copies behind.
    let mut words = Zeroizing::new(Vec::with_capacity(count * EXPANSION_WORDS));
    for (part, key, counter) in pad.streams() {
        words.extend([(part.start / BLOCK_BYTES) as u32, 0, 0, 0]);
        words.extend([96, 64, 32, 0].map(|shift| (counter >> shift) as u32));
        for key in round_keys(key).iter() {
            words.extend(planes(key));
        }
    }
    words
}

/// A round key in bit slices, the same for both blocks of a thread: bit `8 row + 2 column + block` of plane
/// `i` is bit `i` of the byte in that row and column.
fn planes(key: &[u8; BLOCK_BYTES]) -> [u32; 8] {
    std::array::from_fn(|plane| {
        key.iter().enumerate().fold(0, |bits, (at, byte)| {
            let place = 8 * (at % 4) + 2 * (at / 4);
            bits | (u32::from(byte >> plane & 1) * 3) << place
        })
    })
}

/// Powers of a hash key. The product is that of RFC 8452: the hash of one block under the other.
pub(super) struct Powers {
    key: [u8; BLOCK_BYTES],
    /// The last one that was asked for.
    last: (usize, [u8; BLOCK_BYTES]),
}

impl Powers {
    /// Those of `key`.
    pub(super) fn new(key: &[u8; BLOCK_BYTES]) -> Self {
        Self { key: *key, last: (1, *key) }
    }

    fn product(a: &[u8], b: &[u8; BLOCK_BYTES]) -> [u8; BLOCK_BYTES] {
        let mut hash = Hash::new(b);
        hash.update(a);
        hash.finish()
    }

    /// The key to the power `exponent`, which is at least one.
    pub(super) fn of(&mut self, exponent: usize) -> [u8; BLOCK_BYTES] {
        if self.last.0 != exponent {
            let mut power = self.key;
            for bit in (0..exponent.ilog2()).rev() {
                power = Self::product(&power, &power);
                if exponent >> bit & 1 == 1 {
                    power = Self::product(&power, &self.key);
                }
            }
            self.last = (exponent, power);
        }
        self.last.1
    }

    /// The hash of a message, from that of its beginning and the sums of the `blocks` that follow.
    pub(super) fn extend(
        &mut self,
        hash: [u8; BLOCK_BYTES],
        sums: &[u8],
        blocks: usize,
    ) -> [u8; BLOCK_BYTES] {
        let raised = Self::product(&hash, &self.of(blocks));
        let own = cpu::otp::polyval_blocks(&self.key, sums);
        std::array::from_fn(|byte| raised[byte] ^ own[byte])
    }
}

impl Drop for Powers {
    fn drop(&mut self) {
        self.key.zeroize();
        self.last.1.zeroize();
    }
}
