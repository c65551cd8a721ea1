//! Stripes through a device of an assignment, several at a time; through the CPU one at a time, while they are
//! in its cache.

use std::sync::Arc;

use super::{Error, Shares, check_shape};
use crate::base::{Chunk, ShareLetter};
use crate::device::assign::Assignment;
use crate::device::steady::Steady;
use crate::device::{Kernel, Queue, ToCombine, ToSplit};

/// Stripes that a device is given at a time: fewer would wait for the bus, more would wait for memory.
pub const STRIPES_TOGETHER: usize = 8;

/// Splits and combines stripes where an assignment says, for one thread.
pub struct Sharing {
    devices: Arc<Assignment>,
    /// Opened when a device is first wanted.
    queue: Option<Steady>,
}

impl Sharing {
    /// With the devices of this assignment.
    pub fn new(devices: Arc<Assignment>) -> Self {
        Self { devices, queue: None }
    }

    /// How many stripes to collect for this kernel.
    pub fn together(&self, kernel: Kernel) -> usize {
        if self.devices.on_cpu(kernel) { 1 } else { STRIPES_TOGETHER }
    }

    /// The queue, if a device does this kernel.
    fn queue(&mut self, kernel: Kernel) -> Result<Option<&mut Steady>, Error> {
        if self.devices.on_cpu(kernel) {
            return Ok(None);
        }
        if self.queue.is_none() {
            self.queue = Some(self.devices.queue()?);
        }
        Ok(self.queue.as_mut())
    }

    /// Splits stripes, as [`split`](super::split) does each: encoded, random and spare.
    ///
    /// Errors: [`Error::Device`] when not even the CPU could be asked.
    pub fn split(&mut self, stripes: Vec<[Chunk; 3]>) -> Result<Vec<Shares>, Error> {
        let Some(queue) = self.queue(Kernel::Split)? else {
            let split = |[encoded, random, spare]: [Chunk; 3]| super::split(encoded, random, spare);
            return Ok(stripes.into_iter().map(split).collect());
        };
        let mut stripes = stripes;
        for [encoded, random, spare] in &mut stripes {
            spare.set_seq(encoded.seq());
            spare.set_len(encoded.len());
            random.set_seq(encoded.seq());
        }
        let to_split = stripes.iter_mut().map(|[encoded, random, spare]| ToSplit {
            secret_to_a: encoded,
            random,
            b: spare,
        });
        queue.split_each(&mut to_split.collect::<Vec<_>>())?;
        Ok(stripes.into_iter().map(|[a, c, b]| Shares([a, b, c])).collect())
    }

    /// Restores encoded stripes from two shares of each, as [`restore`](super::restore) does.
    ///
    /// Errors: as for [`split`](Self::split); of each stripe, those of `restore`.
    pub fn restore(
        &mut self,
        pairs: Vec<(Chunk, Chunk)>,
        letters: (ShareLetter, ShareLetter),
    ) -> Result<Vec<Result<Chunk, Error>>, Error> {
        let mut combined = self.combine(Kernel::Restore, pairs, letters)?;
        combined.iter_mut().flatten().for_each(Chunk::mark_secret);
        Ok(combined)
    }

    /// Rebuilds the third shares of stripes, as [`rebuild`](super::rebuild) does each.
    ///
    /// Errors: as for [`restore`](Self::restore).
    pub fn rebuild(
        &mut self,
        pairs: Vec<(Chunk, Chunk)>,
        letters: (ShareLetter, ShareLetter),
    ) -> Result<Vec<Result<Chunk, Error>>, Error> {
        self.combine(Kernel::Rebuild, pairs, letters)
    }

    fn combine(
        &mut self,
        kernel: Kernel,
        mut pairs: Vec<(Chunk, Chunk)>,
        letters: (ShareLetter, ShareLetter),
    ) -> Result<Vec<Result<Chunk, Error>>, Error> {
        let restores = kernel == Kernel::Restore;
        let Some(queue) = self.queue(kernel)? else {
            let combine = |(first, second): (Chunk, Chunk)| match restores {
                true => super::restore(first, &second, letters),
                false => super::rebuild(first, &second, letters),
            };
            return Ok(pairs.into_iter().map(combine).collect());
        };
        let fitting = pairs.iter_mut().filter(|pair| check_shape(&pair.0, &pair.1).is_ok());
        let mut stripes: Vec<_> =
            fitting.map(|(first, second)| ToCombine { first, second }).collect();
        match restores {
            true => queue.restore_each(&mut stripes, letters)?,
            false => queue.rebuild_each(&mut stripes, letters)?,
        }
        let checked =
            |(first, second): (Chunk, Chunk)| check_shape(&first, &second).map(|()| first);
        Ok(pairs.into_iter().map(checked).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::assign::tests::Twin;

    fn chunk(number: u64, bytes: usize, factor: usize) -> Chunk {
        let bytes: Vec<u8> = (0..bytes).map(|at| (at * factor + at / 251) as u8).collect();
        Chunk::from_bytes(number, &bytes)
    }

    #[test]
    fn a_device_and_the_cpu_share_and_combine_alike() {
        let on_device = Assignment::everything_on(Box::new(Twin), 1);
        assert!(!on_device.on_cpu(Kernel::Split));
        let letters = (ShareLetter::B, ShareLetter::C);
        let run = |devices| {
            let mut sharing = Sharing::new(devices);
            let stripe = |number| {
                let bytes = 2 * (100 + 7 * number as usize);
                [chunk(number, bytes, 3), chunk(99, bytes, 5), Chunk::with_capacity(4096)]
            };
            let shares = sharing.split((0..9).map(stripe).collect()).unwrap();
            let pairs = || -> Vec<_> {
                let copy = |chunk: &Chunk| Chunk::from_bytes(chunk.seq(), chunk);
                let pair = |Shares([_, b, c]): &Shares| (copy(b), copy(c));
                shares.iter().map(pair).collect()
            };
            let mut restored = pairs();
            restored[4].1.set_len(10);
            let restored = sharing.restore(restored, letters).unwrap();
            let rebuilt = sharing.rebuild(pairs(), letters).unwrap();
            (shares, restored, rebuilt)
        };
        let (shares, restored, rebuilt) = run(on_device);
        let (of_cpu, cpu_restored, cpu_rebuilt) = run(Assignment::cpu());
        for at in 0..9 {
            for (have, want) in shares[at].0.iter().zip(&of_cpu[at].0) {
                assert_eq!((have.seq(), &have[..]), (want.seq(), &want[..]));
            }
            let secret = chunk(at as u64, 2 * (100 + 7 * at), 3);
            for outcomes in [&restored, &cpu_restored] {
                match &outcomes[at] {
                    Ok(chunk) => assert!(at != 4 && chunk[..] == secret[..]),
                    Err(error) => assert!(at == 4 && matches!(error, Error::Shape { .. })),
                }
            }
            for outcomes in [&rebuilt, &cpu_rebuilt] {
                assert_eq!(outcomes[at].as_ref().unwrap()[..], shares[at].0[0][..]);
            }
        }
    }
}
