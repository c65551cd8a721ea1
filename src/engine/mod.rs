//! Reads in, variants out.

pub mod compare;
pub mod external;
pub mod metrics;
pub mod native;

use std::io::Write;
use std::path::PathBuf;

pub use crate::device::assign::KernelDevice;

use crate::base::{ByteCount, Fault, Faulty};
use crate::flow::{Flow, Meters};
use crate::genome::{ReadBatch, ReadGroup, Reference, Regions};

/// What is asked of an engine.
pub struct CallRequest<'a> {
    /// The reference genome.
    pub reference: &'a Reference,
    /// Where its FASTA file is, for engines that are other programs.
    pub reference_path: &'a std::path::Path,
    /// Sample name in the VCF.
    pub sample: String,
    /// Read groups that batches refer to by index; never empty.
    pub read_groups: Vec<ReadGroup>,
    /// Copies of each contig: 1 or 2.
    pub ploidy: u8,
    /// Where there is one copy whatever `ploidy` says, such as X, Y and MT of a man.
    pub haploid: Option<Regions>,
    /// Where the gVCF goes as well: reference blocks and variants, compressed. Only the native
    /// engine writes one.
    pub gvcf: Option<native::call::SharedSink<'a>>,
    /// Call only here, when given.
    pub regions: Option<Regions>,
    /// Worker threads. Never changes a byte of output.
    pub threads: usize,
    /// Header line that says how the calls were made; paths shortened.
    pub command_line: String,
    /// What the engine may hold in memory, and where the rest goes.
    pub room: Room,
    /// What alignments are written as, where they are asked for.
    pub format: AlignmentFormat,
}

impl<'a> CallRequest<'a> {
    /// A request for the calls of a diploid sample, named `sample`, of one read group, everywhere, on one thread,
    /// and for nothing else.
    pub fn new(reference: &'a Reference) -> Self {
        let group = ReadGroup {
            id: "1".into(),
            sample: "sample".into(),
            library: "1".into(),
            unit: String::new(),
            platform: "ILLUMINA".into(),
        };
        Self {
            reference,
            reference_path: std::path::Path::new("reference.fa"),
            sample: "sample".into(),
            read_groups: vec![group],
            ploidy: 2,
            haploid: None,
            gvcf: None,
            regions: None,
            threads: 1,
            command_line: "dsgd call".into(),
            room: Room::default(),
            format: AlignmentFormat::default(),
        }
    }
}

/// A file format of alignments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AlignmentFormat {
    /// BAM (SAM specification, section 4).
    #[default]
    Bam,
    /// CRAM 3, against the reference of the request.
    Cram,
}

/// How much an engine holds in memory. Never changes a byte of output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Room {
    /// Most bytes of placed reads and signatures of templates in memory; what is beyond is sealed
    /// into the scratch folder.
    pub memory: ByteCount,
    /// Folder of the scratch file.
    pub scratch: PathBuf,
}

impl Default for Room {
    fn default() -> Self {
        Self { memory: ByteCount(1 << 30), scratch: std::env::temp_dir() }
    }
}

/// What came of a call.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CallReport {
    /// Reads taken.
    pub reads: u64,
    /// Reads placed on the reference.
    pub mapped: u64,
    /// Reads longer than the engine maps; they count as unplaced.
    pub too_long: u64,
    /// Reads marked as duplicates.
    pub duplicates: u64,
    /// Bytes of placed reads that memory had no room for and that went through the scratch file.
    pub spilled_bytes: u64,
    /// Records written, filtered ones too.
    pub records: u64,
    /// Bytes of VCF text before compression.
    pub vcf_bytes: u64,
    /// The tabix index of the VCF (a `.tbi` file's content).
    pub tabix: Vec<u8>,
    /// Quality of the sample, where the engine counts it.
    pub metrics: Option<metrics::Metrics>,
    /// The same of the gVCF; empty without one.
    pub gvcf_tabix: Vec<u8>,
    /// The index of the alignments (content of a `.bai` or `.crai` file); empty without them.
    pub alignment_index: Vec<u8>,
    /// Which device was chosen for each kernel of the engine, and why.
    pub devices: Vec<KernelDevice>,
}

/// An engine: reads in, a BGZF-compressed, coordinate-ordered VCF 4.3 out.
pub trait Engine: Send + Sync {
    /// Short name, as in `--engine NAME`.
    fn name(&self) -> &str;

    /// Version for the VCF header and the receipt.
    fn version(&self) -> String;

    /// Calls variants. The VCF goes to `vcf`; alignments to `bam`, when given.
    ///
    /// Errors: whatever `reads` ends with; [`Error`] otherwise.
    fn call(
        &self,
        request: &CallRequest<'_>,
        reads: Flow<'_, ReadBatch>,
        meters: &Meters,
        vcf: &mut (dyn Write + Send),
        bam: Option<&mut (dyn Write + Send)>,
    ) -> Result<CallReport, Error>;
}

/// Why an engine gave no calls.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The reads could not be had.
    #[error(transparent)]
    Reads(#[from] crate::flow::Error),
    /// Another program failed.
    #[error(transparent)]
    External(#[from] external::Error),
    /// The output could not be written.
    #[error("writing {what}")]
    Output {
        /// Which output.
        what: &'static str,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The index of the engine was made from another reference than the request names.
    #[error("the engine's index belongs to another reference")]
    OtherReference,
    /// A device could not be used, nor the CPU in its place.
    #[error(transparent)]
    Device(#[from] crate::device::Error),
    /// Reads could not be set aside on disk.
    #[error(transparent)]
    Spill(#[from] native::spill::Error),
    /// The VCF could not be written.
    #[error(transparent)]
    Vcf(#[from] crate::genome::vcf::Error),
}

impl Faulty for Error {
    fn fault(&self) -> Fault {
        match self {
            Error::Reads(error) => error.fault(),
            Error::External(error) => error.fault(),
            Error::Output { .. } => Fault::Disk,
            Error::OtherReference => Fault::Config,
            Error::Spill(error) => error.fault(),
            Error::Device(error) => error.fault(),
            Error::Vcf(error) => error.fault(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Error::Reads(error) => error.hint(),
            Error::External(error) => error.hint(),
            Error::Spill(error) => error.hint(),
            Error::Device(error) => error.hint(),
            Error::Vcf(error) => error.hint(),
            Error::Output { .. } | Error::OtherReference => None,
        }
    }
}
