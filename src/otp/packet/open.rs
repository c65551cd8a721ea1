//! The receiving end of a flow of packets.

use std::collections::VecDeque;

use serde::Serialize;

use super::block::{Block, Grant, hidden_bytes};
use super::{HEAD_BYTES, Head, Shape};
use crate::otp::Cipher;
use crate::otp::session::Traffic;

/// The window of a block that has less left than a packet needs, in positions: 1 MiB of key.
const REST_WINDOW: u64 = 1 << 16;

/// Why a packet was dropped. None of these costs key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropped {
    /// It is not of this flow's shape.
    Malformed,
    /// There is no key for it: it is late, or forged.
    NoKey,
    /// Its key was used: it came before.
    Repeated,
    /// Its tag is wrong.
    Tag,
}

/// How many packets were dropped, by reason, and how many came out of their order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Refusals {
    /// Not of this flow's shape.
    pub malformed: u64,
    /// Late, or forged.
    pub no_key: u64,
    /// Repeated.
    pub repeated: u64,
    /// With a wrong tag.
    pub tag: u64,
    /// Delivered, though a packet with a later position came before.
    pub reordered: u64,
}

/// Opens packets, in whatever order they come.
///
/// Blocks whose end lies more than the window behind the highest position that was proven are wiped:
/// this bounds the memory, and what comes still later is dropped.
pub struct PacketOpener {
    shape: Shape,
    blocks: VecDeque<Held>,
    window: u64,
    highest: u64,
    traffic: Traffic,
    refusals: Refusals,
}

/// A block, and which of its positions were used.
struct Held {
    block: Block,
    used: Vec<u64>,
    left: u64,
}

impl PacketOpener {
    /// An opener without key that keeps blocks for `window` positions behind the highest.
    pub fn new(shape: Shape, window: u64) -> Self {
        let (traffic, refusals) = (Traffic::default(), Refusals::default());
        Self { shape, blocks: VecDeque::new(), window, highest: 0, traffic, refusals }
    }

    /// The form of its packets.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// What was delivered; the key is that of the delivered packets.
    pub fn traffic(&self) -> Traffic {
        self.traffic
    }

    /// What was not.
    pub fn refusals(&self) -> Refusals {
        self.refusals
    }

    /// Bytes of key that are in memory.
    pub fn held_bytes(&self) -> u64 {
        self.blocks.iter().map(|held| held.block.key_bytes()).sum()
    }

    /// Whether the block is there that a packet at `position` is under.
    pub fn serves(&self, position: u64) -> bool {
        self.blocks.iter().any(|held| held.serves(position))
    }

    /// Takes charge of a block that was claimed durably before.
    pub fn add(&mut self, grant: Grant) {
        if let Some(block) = Block::new(grant, self.shape.cipher) {
            let left = block.end - block.first;
            let used = vec![0; left.div_ceil(64) as usize];
            self.blocks.push_back(Held { block, used, left });
        }
    }

    /// Checks and decrypts `packet` in place; gives its head and payload.
    pub fn open<'p>(&mut self, packet: &'p mut [u8]) -> Result<(Head, &'p [u8]), Dropped> {
        match self.try_open(packet) {
            Ok(head) => {
                self.traffic.frames += 1;
                self.traffic.payload_bytes += u64::from(head.payload_bytes);
                let payload = &packet[HEAD_BYTES..][..head.payload_bytes.into()];
                Ok((head, payload))
            }
            Err(dropped) => {
                *match dropped {
                    Dropped::Malformed => &mut self.refusals.malformed,
                    Dropped::NoKey => &mut self.refusals.no_key,
                    Dropped::Repeated => &mut self.refusals.repeated,
                    Dropped::Tag => &mut self.refusals.tag,
                } += 1;
                Err(dropped)
            }
        }
    }

    fn try_open(&mut self, packet: &mut [u8]) -> Result<Head, Dropped> {
        let position = self.shape.position(packet).ok_or(Dropped::Malformed)?;
        if self.shape.cipher == Cipher::Plain {
            let head = self.shape.decode(packet).ok_or(Dropped::Malformed)?;
            self.proven(position, 1);
            return Ok(head);
        }
        let hidden = hidden_bytes(&self.shape, packet.len());
        let held =
            self.blocks.iter_mut().find(|held| held.serves(position)).ok_or(Dropped::NoKey)?;
        let span = held.block.span(hidden);
        let at = position - held.block.first;
        if span > held.block.end - position {
            return Err(Dropped::NoKey);
        }
        if held.is_used(at, span) {
            return Err(Dropped::Repeated);
        }
        if !held.block.open(&self.shape, packet, position) {
            return Err(Dropped::Tag);
        }
        held.use_up(at, span);
        if self.shape.cipher == Cipher::Otp {
            self.traffic.key_bytes += 16 * span;
        }
        self.proven(position, span);
        // Whoever holds the key wrote it so.
        self.shape.decode(packet).ok_or(Dropped::Malformed)
    }

    /// Notes that a packet was good, and wipes the blocks that are used up or too far behind.
    fn proven(&mut self, position: u64, span: u64) {
        if position + span <= self.highest {
            self.refusals.reordered += 1;
        } else {
            self.highest = position + span;
        }
        let (window, highest) = (self.window, self.highest);
        let packet = self.shape.key_units(self.shape.unit_bytes.into());
        // A block's last units may have been too few for a packet: that need not keep it for long.
        let window_of =
            |held: &Held| if held.left < packet { window.min(REST_WINDOW) } else { window };
        let is_over = |held: &Held| held.left == 0 || held.block.end + window_of(held) < highest;
        while self.blocks.front().is_some_and(is_over) {
            self.blocks.pop_front();
        }
    }
}

impl Held {
    fn serves(&self, position: u64) -> bool {
        self.block.first <= position && position < self.block.end
    }

    fn is_used(&self, at: u64, span: u64) -> bool {
        words(at, span).any(|(word, mask)| self.used[word] & mask != 0)
    }

    fn use_up(&mut self, at: u64, span: u64) {
        words(at, span).for_each(|(word, mask)| self.used[word] |= mask);
        self.left -= span;
    }
}

/// The words of a bit set, and which of their bits lie in `[at, at + span)`.
fn words(at: u64, span: u64) -> impl Iterator<Item = (usize, u64)> {
    let end = at + span;
    (at / 64..end.div_ceil(64)).map(move |word| {
        let low = at.saturating_sub(word * 64).min(64);
        let high = (end - word * 64).min(64);
        let below = |bits: u64| if bits == 64 { u64::MAX } else { (1 << bits) - 1 };
        (word as usize, below(high) & !below(low))
    })
}

#[cfg(test)]
mod tests {
    use super::words;

    #[test]
    fn a_range_of_bits_is_cut_into_words() {
        assert_eq!(words(0, 1).collect::<Vec<_>>(), [(0, 1)]);
        assert_eq!(words(63, 2).collect::<Vec<_>>(), [(0, 1 << 63), (1, 1)]);
        assert_eq!(words(64, 64).collect::<Vec<_>>(), [(1, u64::MAX)]);
        for (at, span) in [(5, 200), (0, 64), (130, 3), (127, 1)] {
            let bits: u64 = words(at, span).map(|(_, mask)| u64::from(mask.count_ones())).sum();
            assert_eq!(bits, span);
        }
    }
}
