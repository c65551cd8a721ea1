//! The sending end of a flow of packets.

use std::collections::VecDeque;

use super::block::{Block, Grant, hidden_bytes};
use super::{HEAD_BYTES, Head, POSITION_MAX, Shape};
use crate::otp::session::Traffic;
use crate::otp::{Cipher, Error};

/// Seals packets with blocks of key that the other end has, too.
pub struct PacketSealer {
    shape: Shape,
    blocks: VecDeque<Block>,
    /// Position of the next packet.
    next: u64,
    traffic: Traffic,
}

impl PacketSealer {
    /// A sealer without key.
    pub fn new(shape: Shape) -> Self {
        Self { shape, blocks: VecDeque::new(), next: 0, traffic: Traffic::default() }
    }

    /// The form of its packets.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// What was sealed. The key is that of the packets and of the hash keys; what is left over of a
    /// block, because no packet fits, is in it, too.
    pub fn traffic(&self) -> Traffic {
        self.traffic
    }

    /// Takes charge of a block that the other end has acknowledged.
    pub fn add(&mut self, grant: Grant) {
        if let Some(block) = Block::new(grant, self.shape.cipher)
            && block.end <= POSITION_MAX
        {
            self.blocks.push_back(block);
        }
    }

    /// Seals the packet whose payload stands at `packet[24..]` already. `packet` is
    /// [`Shape::packet_bytes`] long, and all of it is to be sent.
    ///
    /// Gives `false`, and nothing has happened, when another block is needed first.
    ///
    /// Errors: [`Error::TooLong`] when the payload is more than a unit or `packet` does not fit it.
    pub fn seal(&mut self, head: &Head, packet: &mut [u8]) -> Result<bool, Error> {
        let shape = self.shape;
        let payload_bytes = usize::from(head.payload_bytes);
        let max = u64::from(self.shape.unit_bytes);
        if head.payload_bytes > self.shape.unit_bytes
            || packet.len() != self.shape.packet_bytes(payload_bytes)
        {
            return Err(Error::TooLong { bytes: payload_bytes as u64, max });
        }
        let padding = HEAD_BYTES + payload_bytes..packet.len() - self.shape.tag_bytes();
        if self.shape.cipher == Cipher::Plain {
            packet[..HEAD_BYTES].copy_from_slice(&self.shape.encode(head, self.next));
            packet[padding].fill(0);
            self.next += 1;
            self.count(payload_bytes, 0);
            return Ok(true);
        }
        let hidden = hidden_bytes(&shape, packet.len());
        let Some((block, position, skipped)) = self.place(hidden) else { return Ok(false) };
        let span = block.span(hidden);
        let key = if shape.cipher == Cipher::Otp { 16 * span } else { 0 };
        packet[..HEAD_BYTES].copy_from_slice(&shape.encode(head, position));
        packet[padding].fill(0);
        block.seal(&shape, packet, position);
        self.next = position + span;
        self.count(payload_bytes, key + skipped);
        Ok(true)
    }

    /// The block and position for a packet of so many encrypted bytes, and the key bytes that are
    /// given up or newly begun for it.
    fn place(&mut self, hidden: usize) -> Option<(&mut Block, u64, u64)> {
        let mut cost = 0;
        loop {
            let block = self.blocks.front()?;
            let position = self.next.max(block.first);
            if position + block.span(hidden) <= block.end {
                break;
            }
            if self.blocks.len() == 1 {
                return None;
            }
            if self.shape.cipher == Cipher::Otp {
                cost += 16 * (block.end - position);
            }
            self.blocks.pop_front();
        }
        let block = self.blocks.front_mut()?;
        if self.next <= block.first {
            // Its hash key, or the key itself.
            cost += if self.shape.cipher == Cipher::Otp { 16 } else { block.key_bytes() };
        }
        let position = self.next.max(block.first);
        Some((block, position, cost))
    }

    fn count(&mut self, payload_bytes: usize, key_bytes: u64) {
        self.traffic.frames += 1;
        self.traffic.payload_bytes += payload_bytes as u64;
        self.traffic.key_bytes += key_bytes;
    }
}
