//! A called variant site of one sample.

/// A site with its genotype and the evidence for it (VCF 4.3 terms).
#[derive(Clone, Debug, PartialEq)]
pub struct Variant {
    /// Contig index in the reference.
    pub contig: u32,
    /// 0-based position of the first base of `reference`.
    pub position: u32,
    /// REF, letters `ACGTN`.
    pub reference: Vec<u8>,
    /// ALT alleles, letters; normalised: left-aligned and parsimonious.
    pub alternates: Vec<Vec<u8>>,
    /// QUAL, Phred.
    pub quality: f32,
    /// FILTER names that the site failed; empty means PASS.
    pub filters: Vec<&'static str>,
    /// GT: allele indexes, as many as the ploidy; 0 is REF. Empty means `./.`.
    pub genotype: Vec<u8>,
    /// Whether the genotype is phased with `phase_set`.
    pub phase_set: Option<u32>,
    /// DP of the sample: reads that inform the site.
    pub depth: u32,
    /// AD: reads for each allele, REF first.
    pub allele_depths: Vec<u32>,
    /// GQ, Phred.
    pub genotype_quality: u32,
    /// PL in VCF order.
    pub likelihoods: Vec<u32>,
    /// INFO text that follows `DP`, such as `MQ=60.0;FS=0.0`; may be empty.
    pub information: String,
}
