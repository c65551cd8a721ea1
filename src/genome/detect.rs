//! What kind of file some bytes begin.

use super::bgzf::{self, Head};

/// Bytes of the beginning that are always enough to tell, for compressed formats too.
pub const HEAD_BYTES: usize = bgzf::BLOCK_BYTES_MAX;

/// A kind of file that holds genome data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// FASTQ text.
    Fastq,
    /// FASTQ, compressed by gzip or BGZF.
    FastqGz,
    /// BAM.
    Bam,
    /// CRAM.
    Cram,
    /// VCF text.
    Vcf,
    /// VCF, compressed by gzip or BGZF.
    VcfGz,
    /// FASTA text.
    Fasta,
    /// FASTA, compressed by gzip or BGZF.
    FastaGz,
    /// SAM text.
    Sam,
}

/// How the bytes of a file are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Packing {
    /// As they are.
    Plain,
    /// A gzip stream (RFC 1952), of one or several members.
    Gzip,
    /// BGZF blocks.
    Bgzf,
}

impl Packing {
    /// The packing of a file that begins with `bytes`; 18 are enough for files of common writers.
    pub fn detect(bytes: &[u8]) -> Packing {
        if let Head::Block { .. } = bgzf::head(bytes) {
            Packing::Bgzf
        } else if bytes.starts_with(&[0x1f, 0x8b]) {
            Packing::Gzip
        } else {
            Packing::Plain
        }
    }
}

impl Format {
    /// The format of a file that begins with `bytes`, or `None` if it is none of them.
    ///
    /// Give [`HEAD_BYTES`], or the whole file if it is shorter. An empty file is FASTQ without reads.
    pub fn detect(bytes: &[u8]) -> Option<Format> {
        match Packing::detect(bytes) {
            Packing::Plain => Self::of_text(bytes),
            Packing::Gzip | Packing::Bgzf => match Self::of_text(&unpacked_head(bytes))? {
                Format::Fastq => Some(Format::FastqGz),
                Format::Vcf => Some(Format::VcfGz),
                Format::Fasta => Some(Format::FastaGz),
                Format::Bam => Some(Format::Bam),
                _ => None,
            },
        }
    }

    fn of_text(text: &[u8]) -> Option<Format> {
        let sam = [&b"@HD\t"[..], b"@SQ\t", b"@RG\t", b"@PG\t", b"@CO\t"];
        let starts = |magic: &[u8]| text.starts_with(magic);
        match text.first() {
            None => Some(Format::Fastq),
            _ if starts(b"BAM\x01") => Some(Format::Bam),
            _ if starts(b"CRAM") => Some(Format::Cram),
            _ if starts(b"##fileformat=VCF") => Some(Format::Vcf),
            _ if sam.iter().any(|tag| starts(tag)) => Some(Format::Sam),
            Some(b'@') => Some(Format::Fastq),
            Some(b'>') => Some(Format::Fasta),
            _ => None,
        }
    }

    /// The usual ending of a file's name, with the dot.
    pub fn extension(self) -> &'static str {
        match self {
            Format::Fastq => ".fastq",
            Format::FastqGz => ".fastq.gz",
            Format::Bam => ".bam",
            Format::Cram => ".cram",
            Format::Vcf => ".vcf",
            Format::VcfGz => ".vcf.gz",
            Format::Fasta => ".fa",
            Format::FastaGz => ".fa.gz",
            Format::Sam => ".sam",
        }
    }
}

/// The first bytes of the text of a packed file.
fn unpacked_head(bytes: &[u8]) -> Vec<u8> {
    let mut decoder = flate2::Decompress::new_gzip(15);
    let mut text = vec![0; 64];
    // A damaged or cut member still gives the bytes before the damage, if any.
    let _ = decoder.decompress(bytes, &mut text, flate2::FlushDecompress::None);
    text.truncate(decoder.total_out() as usize);
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::genome::bgzf::compress;

    #[test]
    fn each_format_is_told_by_its_first_bytes() {
        let fastq = b"@read1\nACGT\n+\nIIII\n";
        let vcf = b"##fileformat=VCFv4.3\n";
        let cases: [(&[u8], Option<Format>); 9] = [
            (fastq, Some(Format::Fastq)),
            (&compress(fastq, 6), Some(Format::FastqGz)),
            (vcf, Some(Format::Vcf)),
            (&compress(vcf, 6), Some(Format::VcfGz)),
            (&compress(b"BAM\x01", 6), Some(Format::Bam)),
            (b"CRAM\x03\x00", Some(Format::Cram)),
            (b">chr1\nACGT\n", Some(Format::Fasta)),
            (b"PK\x03\x04", None),
            (b"", Some(Format::Fastq)),
        ];
        for (bytes, format) in cases {
            assert_eq!(Format::detect(bytes), format);
        }
    }

    #[test]
    fn gzip_and_bgzf_are_told_apart() {
        assert_eq!(Packing::detect(&compress(b"x", 6)), Packing::Bgzf);
        assert_eq!(Packing::detect(&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3]), Packing::Gzip);
        assert_eq!(Packing::detect(b"@r"), Packing::Plain);
    }
}
