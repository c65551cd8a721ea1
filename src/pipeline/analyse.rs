//! Reads to variants: the same for a local file and for shares.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::thread::Scope;

use serde::{Deserialize, Serialize};

use super::Error;
use super::intake::{self, Source};
use crate::base::SampleName;
use crate::base::clock::Stopwatch;
use crate::engine::metrics::Metrics;
use crate::engine::{AlignmentFormat, CallReport, CallRequest, Engine, KernelDevice, Room};
use crate::flow::{Meters, StageReport, limiting_stage};
use crate::genome::{Reference, Regions};

/// What is analysed, and how.
pub struct Analyse<'a> {
    /// Name of the sample, for the VCF and the read groups.
    pub sample: &'a SampleName,
    /// The engine.
    pub engine: &'a dyn Engine,
    /// The reference.
    pub reference: &'a Arc<Reference>,
    /// Its FASTA file, for engines that are other programs.
    pub reference_path: &'a Path,
    /// Copies of each contig.
    pub ploidy: u8,
    /// Where there is one copy only.
    pub haploid: Option<Regions>,
    /// Where a gVCF goes as well.
    pub gvcf: Option<crate::engine::native::call::SharedSink<'a>>,
    /// Where to call; everywhere, if not given.
    pub regions: Option<Regions>,
    /// Worker threads.
    pub threads: usize,
    /// How the calls are made, for the header.
    pub command_line: String,
    /// What the engine may hold in memory.
    pub room: Room,
    /// What alignments are written as.
    pub format: AlignmentFormat,
    /// Counters.
    pub meters: &'a Meters,
}

/// What came of an analysis.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct AnalyseReport {
    /// Name of the sample.
    pub sample: String,
    /// Engine and version.
    pub engine: String,
    /// Reads taken.
    pub reads: u64,
    /// Reads placed on the reference.
    pub mapped: u64,
    /// Reads marked as duplicates.
    pub duplicates: u64,
    /// Bytes of placed reads that went through the engine's scratch file.
    #[serde(default)]
    pub spilled_bytes: u64,
    /// Records in the VCF.
    pub records: u64,
    /// Bytes of the reads as FASTQ text.
    pub fastq_bytes: u64,
    /// Bytes of the VCF text.
    pub vcf_bytes: u64,
    /// Bytes of the VCF as compressed.
    pub vcf_gz_bytes: u64,
    /// Digest of the compressed VCF.
    pub vcf_digest: String,
    /// Time from the first byte to the last.
    pub seconds: f64,
    /// The stage that limits.
    pub limiting_stage: String,
    /// What every stage did.
    pub stages: Vec<StageReport>,
    /// Which device was chosen for each kernel of the engine, and why.
    #[serde(default)]
    pub devices: Vec<KernelDevice>,
    /// Quality of the sample, where the engine counts it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics: Option<Metrics>,
    /// What the operator should know.
    pub notices: Vec<String>,
    /// Key bytes used on each link.
    pub keys: Vec<super::LinkUse>,
}

/// A VCF in memory: at a trusted server it is on no disk.
pub struct Calls {
    /// BGZF-compressed text; wiped on drop.
    pub vcf: Vec<u8>,
    /// The tabix index.
    pub tabix: Vec<u8>,
    /// That of the gVCF; empty without one.
    pub gvcf_tabix: Vec<u8>,
    /// The index of the alignments (`.bai`), where a BAM was written.
    pub alignment_index: Vec<u8>,
}

impl Drop for Calls {
    fn drop(&mut self) {
        crate::base::chunk::wipe(&mut self.vcf);
    }
}

impl Analyse<'_> {
    /// Calls the variants of `sources`.
    ///
    /// Errors: those of the sources, the readers and the engine.
    pub fn run<'a, 'scope>(
        &self,
        scope: &'scope Scope<'scope, '_>,
        sources: Vec<Source<'a>>,
        bam: Option<&mut (dyn Write + Send)>,
    ) -> Result<(Calls, AnalyseReport), Error>
    where
        'a: 'scope,
        Self: 'a,
    {
        let watch = Stopwatch::start();
        let (read_groups, reads) =
            intake::reads(self.sample, sources, self.reference, self.meters, scope)?;
        let request = CallRequest {
            reference: self.reference,
            reference_path: self.reference_path,
            sample: self.sample.to_string(),
            read_groups,
            ploidy: self.ploidy,
            haploid: self.haploid.clone(),
            gvcf: self.gvcf,
            regions: self.regions.clone(),
            threads: self.threads,
            command_line: self.command_line.clone(),
            room: self.room.clone(),
            format: self.format,
        };
        let mut vcf = Vec::new();
        let report = self.engine.call(&request, reads, self.meters, &mut vcf, bam)?;
        Ok(self.describe(vcf, report, watch.elapsed().as_secs_f64()))
    }

    fn describe(&self, vcf: Vec<u8>, report: CallReport, seconds: f64) -> (Calls, AnalyseReport) {
        let stages = self.meters.snapshot();
        let fastq_bytes =
            stages.iter().find(|stage| stage.stage == "parse").map_or(0, |stage| stage.bytes_out);
        let too_long = (report.too_long > 0).then(|| {
            format!("{} reads are too long for this engine: they were left out", report.too_long)
        });
        let described = AnalyseReport {
            sample: self.sample.to_string(),
            engine: format!("{} {}", self.engine.name(), self.engine.version()),
            reads: report.reads,
            mapped: report.mapped,
            duplicates: report.duplicates,
            spilled_bytes: report.spilled_bytes,
            records: report.records,
            fastq_bytes,
            vcf_bytes: report.vcf_bytes,
            vcf_gz_bytes: vcf.len() as u64,
            vcf_digest: blake3::hash(&vcf).to_hex().to_string(),
            seconds,
            limiting_stage: limiting_stage(&stages)
                .map_or_else(String::new, |stage| stage.stage.clone()),
            stages,
            devices: report.devices,
            metrics: report.metrics,
            notices: too_long.into_iter().collect(),
            keys: Vec::new(),
        };
        let (tabix, gvcf_tabix) = (report.tabix, report.gvcf_tabix);
        (Calls { vcf, tabix, gvcf_tabix, alignment_index: report.alignment_index }, described)
    }
}
