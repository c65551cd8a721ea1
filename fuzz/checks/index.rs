//! An index file from anybody: no panic, and none that was changed is taken.

use dsgd::engine::native::Index;
use dsgd::genome::Reference;

/// Reads a file as the index of a small reference; whether it was one.
pub fn check(file: &[u8]) -> bool {
    Index::read(&mut &*file, &reference()).is_ok()
}

/// The reference whose index is asked for.
pub fn reference() -> Reference {
    let line = "ACGTTGCATGCCGATAGCTTAGGCTAACGTATTGCACCGATTAGC".repeat(9);
    Reference::read_fasta(format!(">c\n{line}\n").as_bytes()).expect("good FASTA")
}
