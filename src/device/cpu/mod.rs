//! The CPU's forms of the kernels, chosen at run time by what the processor has.

use super::{Device, Error, Queue};
use crate::base::ShareLetter;
use crate::kernel;

pub mod align;
pub mod chacha20;
pub mod keystream;
pub mod otp;
pub mod pages;
pub mod secret_pages;
pub mod share;
pub mod ungapped;

/// The processor this program runs on: always there.
struct Cpu;

/// Opens the CPU.
pub(super) fn open() -> Result<Box<dyn Device>, Error> {
    Ok(Box::new(Cpu))
}

impl Device for Cpu {
    fn name(&self) -> &'static str {
        "cpu"
    }

    fn model(&self) -> String {
        std::env::consts::ARCH.into()
    }

    fn queue(&self, _piece_bytes: usize) -> Result<Box<dyn Queue>, Error> {
        Ok(Box::new(Cpu))
    }
}

impl Queue for Cpu {
    fn split(&mut self, secret_to_a: &mut [u8], random: &[u8], b: &mut [u8]) -> Result<(), Error> {
        share::split(secret_to_a, random, b);
        Ok(())
    }

    fn restore(
        &mut self,
        first: &mut [u8],
        second: &[u8],
        letters: (ShareLetter, ShareLetter),
    ) -> Result<(), Error> {
        share::restore(first, second, letters);
        Ok(())
    }

    fn rebuild(
        &mut self,
        first: &mut [u8],
        second: &[u8],
        letters: (ShareLetter, ShareLetter),
    ) -> Result<(), Error> {
        share::rebuild(first, second, letters);
        Ok(())
    }

    fn xor(&mut self, data: &mut [u8], pad: &[u8]) -> Result<(), Error> {
        otp::xor(data, pad);
        Ok(())
    }

    fn align(
        &mut self,
        pairs: &[kernel::align::Pair<'_>],
        scores: &kernel::align::Scores,
    ) -> Result<Vec<Option<kernel::align::Placement>>, Error> {
        let (mut matrix, mut rows) = (kernel::align::Matrix::default(), align::Rows::default());
        let aligned = pairs
            .iter()
            .map(|pair| align::align(pair.query, pair.target, scores, &mut matrix, &mut rows));
        Ok(aligned.collect())
    }

    fn pairhmm(&mut self, batch: &kernel::pairhmm::Batch<'_>) -> Result<Vec<i32>, Error> {
        let mut rows = kernel::pairhmm::Rows::default();
        Ok((0..batch.jobs.len()).map(|job| batch.scalar(job, &mut rows)).collect())
    }
}
