//! The reference genome in memory.

/// One contig of a reference.
#[derive(Clone, Debug)]
pub struct Contig {
    /// Name: the FASTA header up to the first white space.
    pub name: String,
    /// One byte a base: 0 to 3 for A, C, G, T; 4 for anything else.
    pub bases: Vec<u8>,
}

/// A reference genome: contigs in the order of the FASTA file.
#[derive(Clone, Debug, Default)]
pub struct Reference {
    /// The contigs.
    pub contigs: Vec<Contig>,
}

/// Letters of the base codes 0 to 4.
pub const BASE_LETTERS: [u8; 5] = *b"ACGTN";

/// Code of a base letter: 0 to 3 for A, C, G, T in either case (U as T), 4 for anything else.
pub const fn base_code(letter: u8) -> u8 {
    match letter {
        b'A' | b'a' => 0,
        b'C' | b'c' => 1,
        b'G' | b'g' => 2,
        b'T' | b't' | b'U' | b'u' => 3,
        _ => 4,
    }
}
