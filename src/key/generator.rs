//! Random numbers from this program's own generator: ChaCha20, seeded by the operating system.
//!
//! The kernel's generator gives 0.6 GB/s a core, less than sharing needs; this one gives several. It is as
//! strong as the kernel's, and no stronger: computational. Each call has a key of its own, the previous
//! one XOR 32 fresh bytes from the kernel, and ends by replacing it with bytes that it hands out to nobody
//! (fast key erasure, Bernstein 2017): what is in memory tells nothing of earlier numbers, and neither a
//! forked process nor a copied virtual machine, of which the kernel's generator knows, repeats later ones.

use zeroize::{Zeroize, Zeroizing};

use super::{Class, Error, Kind, Provenance, RandomSource, Source};
use crate::base::{Secret, SiteId};
use crate::device::cpu::chacha20;
use crate::kernel::chacha20::BLOCK_BYTES;

/// Most bytes under one key.
const PIECE_BYTES: usize = 1 << 20;
const KEY_BYTES: usize = 32;

/// The generator.
pub struct Generator {
    key: Box<Secret<[u8; KEY_BYTES]>>,
    provenance: Provenance,
}

impl Generator {
    /// For use by `owner`.
    ///
    /// Errors: [`Error::Random`] when the operating system gives no seed, here and in every call.
    pub fn new(owner: SiteId) -> Result<Self, Error> {
        let provenance = Provenance {
            kind: Kind::Random,
            source: Source::Generator,
            class: Class::Computational,
            known_to: [owner].into(),
        };
        let mut generator = Self { key: Box::new(Secret::new([0; KEY_BYTES])), provenance };
        generator.refresh()?;
        Ok(generator)
    }

    /// Mixes fresh bytes of the kernel into the key: the key is good if either was.
    fn refresh(&mut self) -> Result<(), Error> {
        let mut fresh = Zeroizing::new([0; KEY_BYTES]);
        getrandom::fill(fresh.as_mut_slice())
            .map_err(|source| Error::Random { name: "generator".into(), source: source.into() })?;
        self.mix(&fresh);
        Ok(())
    }

    fn mix(&mut self, fresh: &[u8; KEY_BYTES]) {
        self.key.expose_mut().iter_mut().zip(fresh).for_each(|(byte, fresh)| *byte ^= fresh);
    }

    /// Block 0 becomes the next key, the others are handed out.
    fn piece(&mut self, out: &mut [u8]) {
        let mut first = Zeroizing::new([0; BLOCK_BYTES]);
        chacha20::fill(self.key.expose(), 0, first.as_mut_slice());
        chacha20::fill(self.key.expose(), 1, out);
        self.key.expose_mut().copy_from_slice(&first[..KEY_BYTES]);
    }
}

impl RandomSource for Generator {
    fn fill(&mut self, out: &mut [u8]) -> Result<(), Error> {
        for start in (0..out.len()).step_by(PIECE_BYTES) {
            let end = out.len().min(start + PIECE_BYTES);
            self.refresh().inspect_err(|_| out.zeroize())?;
            self.piece(&mut out[start..end]);
        }
        Ok(())
    }

    fn provenance(&self) -> &Provenance {
        &self.provenance
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::chacha20 as twin;

    fn generator() -> Generator {
        Generator::new("a".parse().unwrap()).unwrap()
    }

    #[test]
    fn a_call_gives_the_stream_of_its_key_and_forgets_the_key() {
        let mut generator = generator();
        generator.key.expose_mut().fill(0);
        generator.mix(&[9; KEY_BYTES]);
        let (mut out, mut stream) = (vec![0; 5000], vec![0; 5064]);
        generator.piece(&mut out);
        twin::fill(&[9; KEY_BYTES], 0, &mut stream);
        assert!(out == stream[64..]);
        assert!(generator.key.expose()[..] == stream[..KEY_BYTES]);
    }

    #[test]
    fn equal_states_part_at_the_next_call() {
        // As after a fork, or when a virtual machine is resumed twice.
        let (mut one, mut other) = (generator(), generator());
        let key = *one.key.expose();
        other.key.expose_mut().copy_from_slice(&key);
        let (mut a, mut b) = ([0; 64], [0; 64]);
        one.fill(&mut a).unwrap();
        other.fill(&mut b).unwrap();
        assert_ne!(a, b);
    }

    #[test]
    fn long_requests_are_filled_and_nothing_repeats() {
        let mut out = vec![0; 2 * PIECE_BYTES + 77];
        generator().fill(&mut out).unwrap();
        let mut blocks: Vec<_> = out.chunks_exact(32).collect();
        let all = blocks.len();
        blocks.sort_unstable();
        blocks.dedup();
        assert_eq!(blocks.len(), all);
        assert_eq!(generator().provenance().class, Class::Computational);
    }
}
