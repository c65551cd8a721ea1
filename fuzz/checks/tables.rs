//! FASTA, VCF, BED and gene tables from anybody: no panic.

use dsgd::genome::genes::{GeneTable, Layout};
use dsgd::genome::vcf::read_variants;
use dsgd::genome::{Reference, bed};

/// Reads a text as each of them.
pub fn check(text: &[u8]) {
    let _ = Reference::read_fasta(text);
    let _ = bed::read(text);
    for layout in [Layout::Tsv, Layout::Gff3, Layout::Gtf] {
        let _ = GeneTable::read(text, layout).map(|table| table.resolve(["A"]).is_ok());
    }
    let reference = Reference::read_fasta(&b">c\nACGTACGTACGT\n"[..]).expect("good FASTA");
    let _ = read_variants(text, &reference);
}
