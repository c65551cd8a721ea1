//! Reads to be packed as words: `pack.cu`, `pack.wgsl`.

use bytemuck::{Zeroable, bytes_of_mut, cast_slice};

use crate::device::lane::Function;
use crate::kernel::pack::{Packed, Read, ReadWord, WORD_BASES, scalar};

use super::{Batch, Jobs, Need, bases};

/// Words of 32 bits in a word of 64 bases.
const PLANE_WORDS: usize = 8;

/// Reads to be packed.
pub(in crate::device) struct Reads<'a> {
    reads: &'a [Read<'a>],
    /// Words of 64 bases in the longest read.
    words_max: usize,
}

impl<'a> Reads<'a> {
    /// Looks for the longest read.
    pub(in crate::device) fn new(reads: &'a [Read<'a>]) -> Self {
        let words = reads.iter().map(|read| read.codes.len().div_ceil(WORD_BASES));
        Self { reads, words_max: words.max().unwrap_or(0) }
    }
}

impl Jobs for Reads<'_> {
    type Output = Packed;
    const FUNCTION: Function = Function::Pack;
    const HEADER_WORDS: usize = 8;
    const ENTRY_WORDS: usize = 2;

    fn count(&self) -> usize {
        self.reads.len()
    }

    fn result_words(&self) -> usize {
        3 * PLANE_WORDS * self.words_max
    }

    fn header(&self, _part: usize) -> Vec<u32> {
        vec![self.words_max as u32]
    }

    fn add(&self, job: usize, batch: &mut Batch) -> Option<Need> {
        let Read { codes, qualities } = self.reads[job];
        assert_eq!(codes.len(), qualities.len(), "each base has a quality");
        let at = batch.append(bases(codes, qualities));
        batch.enter(&[at, codes.len() as u32]);
        Some(Need::default())
    }

    fn result(&self, job: usize, words: &[u32]) -> Option<Packed> {
        let bases = self.reads[job].codes.len();
        let (forward, rest) = words.split_at(words.len() / 3);
        let (backward, bins) = rest.split_at(words.len() / 3);
        let planes = |words: &[u32]| {
            let words = words.chunks(PLANE_WORDS).take(bases.div_ceil(WORD_BASES));
            words.map(read_word).collect()
        };
        let (forward, backward) = (planes(forward), planes(backward));
        Some(Packed { forward, backward, bins: bins[..bases.div_ceil(8)].to_vec() })
    }

    fn on_cpu(&self, job: usize) -> Packed {
        scalar(self.reads[job])
    }
}

fn read_word(words: &[u32]) -> ReadWord {
    let mut word = ReadWord::zeroed();
    bytes_of_mut(&mut word).copy_from_slice(cast_slice(words));
    word
}
