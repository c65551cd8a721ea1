//! A link in memory that harms what it carries, from a seed: to see what a session makes of it.

use std::collections::VecDeque;

/// How often each kind of harm befalls a frame, in thousandths.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// The link breaks for good.
    pub cut: u16,
    /// The frame is lost, as by somebody who takes it out.
    pub drop: u16,
    /// One bit is changed.
    pub flip: u16,
    /// The frame's end is missing.
    pub truncate: u16,
    /// The frame comes twice.
    pub duplicate: u16,
    /// The frame comes before the one that was sent before it.
    pub reorder: u16,
    /// The frame comes later, in its order: no harm.
    pub delay: u16,
    /// The network falls apart: this frame and the next [`PARTITION_FRAMES`] are lost.
    pub partition: u16,
}

/// Frames that a partition lasts for.
pub const PARTITION_FRAMES: u32 = 40;

/// One direction of a link.
pub struct SimulatedLink {
    random: u64,
    faults: Faults,
    /// Frames on their way, with the number of [`receive`](Self::receive) calls that they still wait.
    frames: VecDeque<(u32, Vec<u8>)>,
    broken: bool,
    /// Frames until the network is whole again.
    apart: u32,
    harm: u32,
}

impl SimulatedLink {
    /// An empty link; the same seed harms the same frames in the same way.
    pub fn new(seed: u64, faults: Faults) -> Self {
        let random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        Self { random, faults, frames: VecDeque::new(), broken: false, apart: 0, harm: 0 }
    }

    /// Puts a frame on the link.
    pub fn send(&mut self, mut frame: Vec<u8>) {
        self.broken |= self.happens(self.faults.cut);
        if self.apart == 0 && self.faults.partition > 0 && self.happens(self.faults.partition) {
            self.apart = 1 + PARTITION_FRAMES;
        }
        let apart = self.apart > 0;
        self.apart = self.apart.saturating_sub(1);
        if self.broken || apart || self.happens(self.faults.drop) {
            self.harm += 1;
            return;
        }
        if self.happens(self.faults.flip) && !frame.is_empty() {
            let bit = self.below(frame.len() * 8);
            frame[bit / 8] ^= 1 << (bit % 8);
            self.harm += 1;
        }
        if self.happens(self.faults.truncate) && !frame.is_empty() {
            let bytes = self.below(frame.len());
            frame.truncate(bytes);
            self.harm += 1;
        }
        let wait = if self.happens(self.faults.delay) { self.below(4) as u32 } else { 0 };
        if self.happens(self.faults.duplicate) {
            self.harm += 1;
            self.frames.push_back((wait, frame.clone()));
        }
        if self.happens(self.faults.reorder) && !self.frames.is_empty() {
            self.harm += 1;
            self.frames.insert(self.frames.len() - 1, (wait, frame));
        } else {
            self.frames.push_back((wait, frame));
        }
    }

    /// The next frame, if one has arrived.
    pub fn receive(&mut self) -> Option<Vec<u8>> {
        let (wait, _) = self.frames.front_mut()?;
        if *wait > 0 {
            *wait -= 1;
            return None;
        }
        self.frames.pop_front().map(|(_, frame)| frame)
    }

    /// Whether frames are still on their way.
    pub fn is_busy(&self) -> bool {
        !self.frames.is_empty()
    }

    /// How often a frame was harmed.
    pub fn harm(&self) -> u32 {
        self.harm
    }

    fn happens(&mut self, thousandths: u16) -> bool {
        self.below(1000) < usize::from(thousandths)
    }

    /// Xorshift64* (Marsaglia 2003, Vigna 2016).
    fn below(&mut self, limit: usize) -> usize {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        let mixed = self.random.wrapping_mul(0x2545_f491_4f6c_dd1d);
        ((u128::from(mixed) * limit as u128) >> 64) as usize
    }
}

#[cfg(test)]
mod tests {
    use crate::base::{Chunk, SiteId};
    use crate::key::StreamId;
    use crate::otp::handshake::Role;
    use crate::otp::memory::MemoryStream;
    use crate::otp::{Envelope, Handshake, Hello, Limits, Received, Session};

    use super::*;

    fn sessions() -> [Session; 2] {
        let names: [SiteId; 2] = ["hospital", "tommo"].map(|name| name.parse().unwrap());
        let stream = |from: usize| {
            let id = StreamId { sender: names[from].clone(), receiver: names[1 - from].clone() };
            MemoryStream::new(id, from as u64, 100_000, 500)
        };
        let streams = [stream(0), stream(1)];
        let hellos = [0, 1].map(|from| Hello {
            cipher: crate::otp::Cipher::Otp,
            from: names[from].clone(),
            to: names[1 - from].clone(),
            nonce: [from as u8; 16],
            sender_mark: 0,
            follower_mark: 0,
            greetings: Vec::new(),
        });
        let [mut one, mut two] = [Role::Dialer, Role::Listener].map(|role| {
            let from = usize::from(role == Role::Listener);
            let (spend, follow) = (streams[from].clone(), streams[1 - from].clone());
            let keys = (Box::new(spend) as Box<_>, Box::new(follow) as Box<_>);
            let limits = Limits { frames_per_hash_key: 7, ..Limits::default() };
            Handshake::new(role, &hellos[from], &hellos[1 - from], keys, limits).unwrap()
        });
        let Envelope { header, tag } = one.prove().unwrap();
        two.verify(&header, &tag).unwrap();
        let Envelope { header, tag } = two.prove().unwrap();
        one.verify(&header, &tag).unwrap();
        let (mut one, mut two) = (one.finish().unwrap(), two.finish().unwrap());
        for (from, to) in [(0, 1), (1, 0)] {
            let ends = [&mut one, &mut two];
            let frame = ends[from].control().unwrap().unwrap().envelope;
            let header = ends[to].expect(&frame.header).unwrap();
            ends[to].open(&header, &mut Chunk::with_capacity(0), &frame.tag).unwrap();
        }
        [one, two]
    }

    fn open(session: &mut Session, frame: &[u8]) -> Option<(Received, Vec<u8>)> {
        let (header, rest) = frame.split_first_chunk()?;
        let header = session.expect(header).ok()?;
        let (ciphertext, tag) = rest.split_at_checked(header.ciphertext_bytes())?;
        let mut payload = Chunk::from_bytes(0, ciphertext);
        let received = session.open(&header, &mut payload, tag.first_chunk()?).ok()?;
        Some((received, payload.to_vec()))
    }

    /// Sends twenty messages and the end; gives what arrived, whether to the end, and the harm done.
    fn run(seed: u64, faults: Faults) -> (Vec<Vec<u8>>, bool, u32) {
        let [mut one, mut two] = sessions();
        let mut link = SimulatedLink::new(seed, faults);
        for number in 0..20u8 {
            let mut payload = vec![number; usize::from(number) * 9];
            let Envelope { header, tag } = one.seal(1, &mut payload).unwrap();
            link.send([&header[..], &payload, &tag].concat());
        }
        let end = one.seal_end().unwrap();
        link.send([&end.header[..], &end.tag].concat());
        let (mut delivered, mut ended) = (Vec::new(), false);
        while link.is_busy() {
            match link.receive().map(|frame| open(&mut two, &frame)) {
                Some(Some((Received::End, _))) => ended = true,
                Some(Some((Received::Message { .. }, payload))) => delivered.push(payload),
                Some(Some((Received::Control, _))) => panic!("nobody sends such frames here"),
                // What cannot be opened closes the session.
                Some(None) => two.abort(),
                None => {}
            }
        }
        (delivered, ended, link.harm())
    }

    fn is_prefix(delivered: &[Vec<u8>]) -> bool {
        delivered.iter().enumerate().all(|(n, payload)| *payload == vec![n as u8; n * 9])
    }

    #[test]
    fn a_link_that_only_delays_loses_nothing() {
        let (delivered, ended, harm) = run(1, Faults { delay: 500, ..Faults::default() });
        assert_eq!((delivered.len(), ended, harm), (20, true, 0));
        assert!(is_prefix(&delivered));
    }

    #[test]
    fn whatever_a_link_does_only_what_was_sent_arrives_in_order_or_nothing() {
        let (mut harmed, mut whole) = (0, 0);
        for seed in 0..600 {
            let rare = |kind: u64| if seed % 7 == kind || seed % 11 == 0 { 40 } else { 0 };
            let faults = Faults {
                cut: rare(0),
                drop: rare(1),
                flip: rare(2),
                truncate: rare(3),
                duplicate: rare(4),
                reorder: rare(5),
                delay: 100,
                partition: 0,
            };
            let (delivered, ended, harm) = run(seed, faults);
            assert!(is_prefix(&delivered), "seed {seed}");
            assert_eq!(ended, delivered.len() == 20 && ended, "seed {seed}");
            assert!(harm > 0 || ended, "seed {seed}: an unharmed link delivers everything");
            harmed += u32::from(harm > 0);
            whole += u32::from(ended);
        }
        assert!(harmed > 200 && whole > 100, "{harmed} harmed, {whole} whole");
    }
}
