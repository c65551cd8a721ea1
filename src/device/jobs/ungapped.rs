//! Reads laid on a reference as words: `ungapped.cu`, `ungapped.wgsl`.

use crate::device::lane::Function;
use crate::device::table::{Genome, Resident};
use crate::kernel::ungapped::{Laid, Mismatches, scalar};

use super::{Batch, Jobs};

/// Reads to be compared.
pub(in crate::device) struct Comparisons<'a> {
    pub(in crate::device) genome: &'a Genome,
    pub(in crate::device) laid: &'a [Laid<'a>],
}

impl Jobs for Comparisons<'_> {
    type Output = Mismatches;
    const FUNCTION: Function = Function::Ungapped;
    const HEADER_WORDS: usize = 8;
    const ENTRY_WORDS: usize = 4;

    fn count(&self) -> usize {
        self.laid.len()
    }

    fn result_words(&self) -> usize {
        1 + 2 * self.laid.iter().map(|laid| laid.read.len()).max().unwrap_or(0)
    }

    fn header(&self) -> Vec<u32> {
        vec![self.genome.words().len() as u32]
    }

    fn table(&self) -> Option<&Resident> {
        Some(&self.genome.resident)
    }

    fn add(&self, job: usize, batch: &mut Batch) -> Option<usize> {
        let Laid { read, position } = self.laid[job];
        // Several places of one read share its words.
        let words: &[u32] = bytemuck::cast_slice(read);
        let at = batch.place((read.as_ptr() as usize, read.len()), words.iter().copied());
        batch.enter(&[at, read.len() as u32, position, 0]);
        Some(0)
    }

    fn result(&self, job: usize, words: &[u32]) -> Option<Mismatches> {
        let marks = words[1..].chunks(2).take(self.laid[job].read.len());
        let marks = marks.map(|half| u64::from(half[0]) | u64::from(half[1]) << 32);
        Some(Mismatches { count: words[0], marks: marks.collect() })
    }

    fn on_cpu(&self, job: usize) -> Mismatches {
        let mut marks = vec![0; self.laid[job].read.len()];
        let count = scalar(self.genome.words(), self.laid[job], &mut marks);
        Mismatches { count, marks }
    }
}
