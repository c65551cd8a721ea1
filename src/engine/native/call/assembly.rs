//! Haplotypes from a de Bruijn graph of a window's reads.
//!
//! Nodes are words of k bases, edges are words of k + 1 bases that reads (or the reference) have.
//! Edges that few reads have are dropped, those of the reference never. The paths from the
//! reference's first word to its last are the haplotypes. When a word would come twice on a path,
//! k is too small for the window's repeats, and a greater one is tried.

/// Word lengths to try, in order.
const WORD_BASES: [usize; 4] = [19, 27, 39, 59];
/// Bases of less quality end a word.
const QUALITY_MIN: u8 = 12;
/// Reads that an edge off the reference needs.
const EDGE_READS_MIN: u32 = 2;
/// An edge also needs this share of the reads that leave its node, as a divisor.
const EDGE_SHARE_DIVISOR: u32 = 20;
/// Most paths that are followed, and steps in all.
const PATHS_MAX: usize = 32;
const STEPS_MAX: usize = 60_000;

/// Bases and qualities of a part of a read.
pub(super) type Part<'a> = (&'a [u8], &'a [u8]);

/// Haplotypes other than the reference, best supported first, at most `most`.
pub(super) fn haplotypes(reference: &[u8], parts: &[Part<'_>], most: usize) -> Vec<Vec<u8>> {
    for word_bases in WORD_BASES {
        if reference.len() < word_bases + 2 {
            break;
        }
        if let Some(graph) = Graph::new(reference, parts, word_bases)
            && let Some(mut paths) = graph.paths(reference)
        {
            paths.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
            paths.truncate(most);
            return paths.into_iter().map(|(_, bases)| bases).collect();
        }
    }
    Vec::new()
}

struct Graph {
    word_bases: usize,
    /// Distinct words, sorted.
    words: Vec<u128>,
    /// Reads for each next base; [`REFERENCE`] is added where the reference has it.
    edges: Vec<[u32; 4]>,
}

const REFERENCE: u32 = 1 << 20;

impl Graph {
    /// `None` when the reference itself has a word twice.
    fn new(reference: &[u8], parts: &[Part<'_>], word_bases: usize) -> Option<Self> {
        let mut long_words: Vec<(u128, u32)> = Vec::new();
        let mask = (1u128 << (2 * (word_bases + 1))) - 1;
        for &(bases, qualities) in parts {
            let (mut word, mut length) = (0u128, 0);
            for (&base, &quality) in bases.iter().zip(qualities) {
                if base > 3 || quality < QUALITY_MIN {
                    length = 0;
                    continue;
                }
                word = (word << 2 | u128::from(base)) & mask;
                length += 1;
                if length > word_bases {
                    long_words.push((word, 1));
                }
            }
        }
        if reference.iter().any(|&base| base > 3) {
            return None;
        }
        let before = long_words.len();
        for bases in reference.windows(word_bases + 1) {
            let word = bases.iter().fold(0, |word, &base| word << 2 | u128::from(base));
            long_words.push((word, REFERENCE));
        }
        let mut own: Vec<u128> = long_words[before..].iter().map(|(word, _)| word >> 2).collect();
        own.push(long_words[long_words.len() - 1].0 & (mask >> 2));
        own.sort_unstable();
        if own.windows(2).any(|pair| pair[0] == pair[1]) {
            return None;
        }
        Some(Self::from_long_words(long_words, word_bases))
    }

    fn from_long_words(mut long_words: Vec<(u128, u32)>, word_bases: usize) -> Self {
        long_words.sort_unstable();
        let mut graph = Self { word_bases, words: Vec::new(), edges: Vec::new() };
        for (long, weight) in long_words {
            let word = long >> 2;
            if graph.words.last() != Some(&word) {
                graph.words.push(word);
                graph.edges.push([0; 4]);
            }
            if let Some(edges) = graph.edges.last_mut() {
                edges[(long & 3) as usize] += weight;
            }
        }
        for edges in &mut graph.edges {
            let leaving: u32 = edges.iter().map(|weight| weight % REFERENCE).sum();
            for weight in edges {
                if *weight < EDGE_READS_MIN || *weight * EDGE_SHARE_DIVISOR < leaving {
                    *weight = 0;
                }
            }
        }
        graph
    }

    /// Every path from the reference's first word to its last, with the reads of its weakest
    /// edge; without the reference itself. `None` when a word comes twice on a path.
    fn paths(&self, reference: &[u8]) -> Option<Vec<(u32, Vec<u8>)>> {
        let pack = |bases: &[u8]| bases.iter().fold(0, |word, &base| word << 2 | u128::from(base));
        let first = pack(&reference[..self.word_bases]);
        let last = pack(&reference[reference.len() - self.word_bases..]);
        let mask = (1u128 << (2 * self.word_bases)) - 1;
        let useful = self.leading_to(last, mask);
        let bases_max = reference.len() + 2 * self.word_bases + 100;
        let mut found = Vec::new();
        let mut on_path = vec![false; self.words.len()];
        let mut steps = 0;
        // Depth first, without recursion: word, its index, the next base to try, weakest edge.
        let mut stack: Vec<(u128, usize, u8, u32)> = Vec::new();
        if let Ok(at) = self.words.binary_search(&first) {
            stack.push((first, at, 0, u32::MAX));
            on_path[at] = true;
        }
        let mut bases = reference[..self.word_bases].to_vec();
        while let Some(top) = stack.last_mut() {
            let (word, at, base, weakest) = *top;
            steps += 1;
            if base > 3 || steps > STEPS_MAX || found.len() >= PATHS_MAX {
                on_path[at] = false;
                stack.pop();
                bases.pop();
                continue;
            }
            top.2 += 1;
            let weight = self.edges[at][usize::from(base)];
            if weight == 0 || bases.len() > bases_max {
                continue;
            }
            let next = (word << 2 | u128::from(base)) & mask;
            let weakest = weakest.min(if weight >= REFERENCE { u32::MAX } else { weight });
            if next == last {
                let mut whole = bases.clone();
                whole.push(base);
                if whole != reference {
                    found.push((weakest, whole));
                }
                continue;
            }
            if let Ok(index) = self.words.binary_search(&next)
                && useful[index]
            {
                if on_path[index] {
                    return None;
                }
                on_path[index] = true;
                bases.push(base);
                stack.push((next, index, 0, weakest));
            }
        }
        Some(found)
    }

    /// Which words have a path to `last`.
    fn leading_to(&self, last: u128, mask: u128) -> Vec<bool> {
        let mut edges: Vec<(usize, usize)> = Vec::new();
        for (at, &word) in self.words.iter().enumerate() {
            for base in 0..4u8 {
                if self.edges[at][usize::from(base)] > 0 {
                    let next = (word << 2 | u128::from(base)) & mask;
                    let index = if next == last {
                        self.words.len()
                    } else {
                        match self.words.binary_search(&next) {
                            Ok(index) => index,
                            Err(_) => continue,
                        }
                    };
                    edges.push((index, at));
                }
            }
        }
        edges.sort_unstable();
        let mut useful = vec![false; self.words.len() + 1];
        let mut open = vec![self.words.len()];
        while let Some(index) = open.pop() {
            let from = edges.partition_point(|edge| edge.0 < index);
            for &(_, before) in edges[from..].iter().take_while(|edge| edge.0 == index) {
                if !useful[before] {
                    useful[before] = true;
                    open.push(before);
                }
            }
        }
        useful
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sequence(length: usize, seed: u64) -> Vec<u8> {
        let mut state = seed;
        (0..length)
            .map(|_| {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                (state >> 61) as u8 & 3
            })
            .collect()
    }

    #[test]
    fn a_long_insertion_is_assembled() {
        let reference = sequence(160, 3);
        let mut donor = reference[..80].to_vec();
        donor.extend(sequence(30, 9));
        donor.extend(&reference[80..]);
        let qualities = [30; 70];
        let parts: Vec<Part<'_>> = donor.windows(70).map(|bases| (bases, &qualities[..])).collect();
        assert_eq!(haplotypes(&reference, &parts, 8), [donor.clone()]);
    }

    #[test]
    fn single_errors_make_no_haplotype() {
        let reference = sequence(160, 3);
        let mut read = reference[20..120].to_vec();
        read[50] ^= 1;
        let qualities = vec![30; 100];
        let parts: Vec<Part<'_>> = vec![(&read, &qualities)];
        assert!(haplotypes(&reference, &parts, 8).is_empty());
    }

    #[test]
    fn repeats_need_longer_words() {
        // A repeat of 24 bases: words of 19 come twice, words of 27 do not.
        let mut reference = sequence(60, 5);
        let repeat = sequence(24, 8);
        reference.extend(&repeat);
        reference.extend(sequence(31, 6));
        reference.extend(&repeat);
        reference.extend(sequence(60, 7));
        let mut donor = reference.clone();
        donor[100] ^= 2;
        let qualities = [30; 90];
        let parts: Vec<Part<'_>> = donor.windows(90).map(|bases| (bases, &qualities[..])).collect();
        assert_eq!(haplotypes(&reference, &parts, 8), [donor.clone()]);
    }
}
