//! A placed read: what mapping gives to ordering and calling.

/// A CIGAR operation, packed as in BAM: length << 4 | code, codes `MIDNSHP=X` from 0.
pub type CigarOp = u32;

/// One read with its place on the reference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlignedRead {
    /// Number of the template over the whole input: equal for two mates.
    pub template: u64,
    /// SAM flags (SAM specification, section 1.4).
    pub flags: u16,
    /// Contig index in the reference.
    pub contig: u32,
    /// 0-based leftmost aligned base.
    pub position: u32,
    /// MAPQ.
    pub mapping_quality: u8,
    /// The alignment: `M`, `I`, `D`, `S` only.
    pub cigar: Vec<CigarOp>,
    /// Bases on the forward strand of the reference, codes 0 to 4.
    pub bases: Vec<u8>,
    /// Base qualities, Phred without offset, in the order of `bases`.
    pub qualities: Vec<u8>,
    /// Mate's contig index; `u32::MAX` without one.
    pub mate_contig: u32,
    /// Mate's 0-based position.
    pub mate_position: u32,
    /// TLEN.
    pub template_length: i32,
    /// Read group index.
    pub read_group: u16,
}
