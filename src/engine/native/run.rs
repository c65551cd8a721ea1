//! The run of one sample: batches are mapped in parallel, dropped into bins, and the regions are
//! called in parallel and written in order.

use std::io::Write;
use std::sync::Arc;

use super::Native;
use super::aligned::AlignedRead;
use super::alignments;
use super::call::{CallSettings, MARGIN, Output, Qualities, RegionCalls, Slips, Tally, call};
use super::duplicates::{Collector, Duplicates, Signature, signature};
use super::insert::InsertModel;
use super::learn::{Learn, Models};
use super::map::{Mapper, Workspace};
use super::order::{BIN_BASES, BinMap, Bins};
use super::packed::READ_BASES_MAX;
use super::place::{UNMAPPED, aligned};
use super::record::pack;
use super::stock::Stock;
use crate::base::ByteCount;
use crate::base::clock::Stopwatch;
use crate::device;
use crate::engine::metrics::{Metrics, ReadMetrics, RegionMetrics};
use crate::engine::{CallReport, CallRequest, Engine, Error, Room};
use crate::flow::{self, Flow, Meter, Meters, Weigh};
use crate::genome::ReadBatch;
use crate::genome::vcf::VcfHeader;

/// What mapping a batch gives.
#[derive(Default)]
struct MappedBatch {
    /// Packed reads after each other.
    packed: Vec<u8>,
    /// Bin and packed bytes of each read.
    pieces: Vec<(u32, u32)>,
    signatures: Vec<Signature>,
    reads: u64,
    mapped: u64,
    metrics: ReadMetrics,
    group: usize,
    /// Reads that are too long to be mapped.
    too_long: u64,
}

impl Weigh for MappedBatch {
    fn weight(&self) -> u64 {
        self.packed.len() as u64
    }
}

impl Drop for MappedBatch {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.packed[..]);
    }
}

/// A stretch of a contig that is called at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stretch {
    contig: u32,
    start: u32,
    end: u32,
}

impl Weigh for Stretch {
    fn weight(&self) -> u64 {
        u64::from(self.end - self.start)
    }
}

struct Called {
    calls: RegionCalls,
    metrics: RegionMetrics,
}

impl Weigh for Called {
    fn weight(&self) -> u64 {
        self.calls.variants.len() as u64
    }
}

/// Maps, orders and calls one sample.
pub fn run(
    engine: &Native,
    request: &CallRequest<'_>,
    reads: Flow<'_, ReadBatch>,
    meters: &Meters,
    vcf: &mut (dyn Write + Send),
    bam: Option<&mut (dyn Write + Send)>,
) -> Result<CallReport, Error> {
    check_reference(engine, request)?;
    let groups = request.read_groups.iter().map(|group| (&group.id[..], &group.library[..]));
    let mut report = CallReport { metrics: Some(Metrics::new(groups)), ..CallReport::default() };
    let keep_names = bam.is_some();
    let order = meters.add("order", 1);
    let (bins, collector) = map_all(engine, request, reads, &order, keep_names, &mut report)?;
    let watch = Stopwatch::start();
    let duplicates = collector.mark(request.threads)?;
    order.busy(watch.elapsed());
    if let Some(out) = bam {
        let index = alignments::write(engine, request, &bins, &duplicates, meters, out)?;
        report.alignment_index = index;
    }
    call_all(engine, request, &bins, &duplicates, meters, vcf, &mut report)?;
    report.devices = engine.offload.described();
    Ok(report)
}

fn check_reference(engine: &Native, request: &CallRequest<'_>) -> Result<(), Error> {
    let genome = engine.index().genome();
    let contigs = &request.reference.contigs;
    let length = |contig: usize| genome.length(contig) as usize;
    let same = genome.contigs() == contigs.len()
        && (0..).zip(contigs).all(|(number, contig)| contig.bases.len() == length(number));
    if same { Ok(()) } else { Err(Error::OtherReference) }
}

fn map_all(
    engine: &Native,
    request: &CallRequest<'_>,
    reads: Flow<'_, ReadBatch>,
    order: &Meter,
    keep_names: bool,
    report: &mut CallReport,
) -> Result<(Bins, Collector), Error> {
    let mapper = Arc::new(Mapper::new(engine.offload.clone()));
    let models = Arc::new(Models::new(request.read_groups.len()));
    let map = BinMap::new(request.reference);
    let [for_reads, for_signatures] = shares(&request.room);
    let mut bins = Bins::new(map.clone(), for_reads);
    let mut collector = Collector::new(for_signatures);
    let libraries = libraries(request);
    let learn = Learn::new(mapper.clone(), models.clone());
    std::thread::scope(|scope| {
        let stock = Stock::new();
        let work = move |batch: ReadBatch| {
            let model = models.of(batch.read_group);
            let packer = Packer { mapper: &mapper, map: &map, libraries: &libraries, keep_names };
            stock
                .with(|| mapper.workspace(), |work| packer.pack(&batch, model, work))
                .map_err(|error| flow::Error::in_stage("map", error))
        };
        for batch in reads.then(learn).map_parallel(scope, "map", request.threads, work) {
            let batch = batch?;
            let watch = Stopwatch::start();
            let mut rest = &batch.packed[..];
            for &(bin, bytes) in &batch.pieces {
                let (packed, behind) = rest.split_at(bytes as usize);
                bins.add(bin as usize, packed)?;
                rest = behind;
            }
            batch.signatures.iter().try_for_each(|&signature| collector.add(signature))?;
            report.reads += batch.reads;
            report.mapped += batch.mapped;
            report
                .metrics
                .iter_mut()
                .for_each(|metrics| metrics.merge(batch.group, &batch.metrics));
            report.too_long += batch.too_long;
            order.busy(watch.elapsed());
            order.came_out(batch.packed.len() as u64);
        }
        report.spilled_bytes = bins.spilled().0 + collector.spilled();
        Ok((bins, collector))
    })
}

/// What of the memory is for placed reads, and what for the signatures of templates: a tenth of a
/// pair's bytes.
fn shares(room: &Room) -> [Room; 2] {
    let signatures = room.memory.0 / 8;
    [room.memory.0 - signatures, signatures]
        .map(|bytes| Room { memory: ByteCount(bytes), scratch: room.scratch.clone() })
}

/// The library's number of each read group.
fn libraries(request: &CallRequest<'_>) -> Vec<u16> {
    let groups = &request.read_groups;
    let first = |library: &str| groups.iter().position(|group| group.library == library);
    groups.iter().map(|group| first(&group.library).unwrap_or(0) as u16).collect()
}

/// Maps and packs batches.
struct Packer<'a> {
    mapper: &'a Mapper,
    map: &'a BinMap,
    libraries: &'a [u16],
    keep_names: bool,
}

impl Packer<'_> {
    fn pack(
        &self,
        batch: &ReadBatch,
        model: &InsertModel,
        work: &mut Workspace,
    ) -> Result<MappedBatch, device::Error> {
        let genome = self.mapper.index().genome();
        let library = self.libraries.get(usize::from(batch.read_group)).copied().unwrap_or(0);
        let mut out = MappedBatch::default();
        out.group = usize::from(batch.read_group);
        // A head, a CIGAR and a byte a base: the buffer never grows, so it leaves no copy behind.
        out.packed.reserve(batch.text.len() + batch.len() * 64);
        let mut template: Vec<AlignedRead> = Vec::with_capacity(2);
        self.mapper.place(batch, model, work, |number, placed| {
            template.clear();
            aligned(genome, batch, number, &placed, |index, read| {
                let name = if self.keep_names { short_name(batch.name(index)) } else { &[] };
                let adapter = batch.bases(index).len() - read.bases.len();
                self.add(&read, adapter, name, &mut out);
                template.push(read);
            });
            let reads: Vec<&AlignedRead> = template.iter().collect();
            out.signatures.extend(signature(&reads, genome.starts(), library));
        })?;
        Ok(out)
    }

    fn add(&self, read: &AlignedRead, adapter: usize, name: &[u8], out: &mut MappedBatch) {
        out.reads += 1;
        out.mapped += u64::from(read.flags & UNMAPPED == 0);
        out.metrics.add(read, adapter);
        out.too_long += u64::from(read.bases.len() > READ_BASES_MAX);
        if !self.keep_names && read.flags & UNMAPPED != 0 {
            return;
        }
        let before = out.packed.len();
        pack(read, name, &mut out.packed);
        let bin = self.map.bin(read.contig, read.position);
        out.pieces.push((bin as u32, (out.packed.len() - before) as u32));
    }
}

/// A read's name without comment and mate number.
fn short_name(line: &[u8]) -> &[u8] {
    let end = line.iter().position(u8::is_ascii_whitespace).unwrap_or(line.len());
    let name = &line[..end];
    name.strip_suffix(b"/1").or_else(|| name.strip_suffix(b"/2")).unwrap_or(name)
}

fn call_all(
    engine: &Native,
    request: &CallRequest<'_>,
    bins: &Bins,
    duplicates: &Duplicates,
    meters: &Meters,
    vcf: &mut (dyn Write + Send),
    report: &mut CallReport,
) -> Result<(), Error> {
    let header = VcfHeader::new(request.sample.clone(), request.reference)
        .with_line("source", format!("dsgd {}", engine.version()))
        .with_line("dsgdCommandLine", request.command_line.clone());
    let mut output = Output::new(request.reference, header, vcf, request.gvcf)?;
    let (slips, qualities) = learn_library(request, bins, duplicates, meters)?;
    let settings = CallSettings {
        ploidy: request.ploidy,
        haploid: request.haploid.clone(),
        blocks: request.gvcf.is_some(),
        slips,
        qualities,
    };
    let reference = request.reference;
    let mut metrics = report.metrics.take().unwrap_or_default();
    std::thread::scope(|scope| {
        let stock = Stock::new();
        let work = move |stretch: Stretch| {
            let Stretch { contig, start, end } = stretch;
            let (low, high) = (start.saturating_sub(MARGIN), end.saturating_add(MARGIN));
            let reads = bins
                .overlapping(contig, low, high, duplicates)
                .map_err(|error| flow::Error::in_stage("call", error))?;
            let queue = || engine.offload.queue();
            let calls = stock
                .with(queue, |queue| call(reference, contig, start, end, &reads, &settings, queue))
                .map_err(|error| flow::Error::in_stage("call", error))?;
            let metrics = super::metrics::region(reference, contig, start, end, &reads);
            Ok(Called { calls, metrics })
        };
        let stretches = stretches(request, bins).map(Ok);
        let workers = request.threads;
        for called in
            Flow::source(meters, "regions", stretches).map_parallel(scope, "call", workers, work)
        {
            let called = called?;
            metrics.merge_region(&called.metrics);
            called.calls.variants.iter().for_each(|variant| metrics.variants.add(variant));
            output.add(called.calls)?;
        }
        Ok::<(), Error>(())
    })?;
    output.finish(report)?;
    report.duplicates = metrics.total.duplicates;
    metrics.finish(reference, request.regions.as_ref());
    report.metrics = Some(metrics);
    Ok(())
}

/// Most regions whose reads are counted before anything is called.
const LEARN_REGIONS_MAX: usize = 64;

impl Weigh for Tally {
    fn weight(&self) -> u64 {
        0
    }
}

/// What the reads say of their library, from regions that lie evenly among those with reads: how
/// often they slip in repeats, and what their qualities are worth.
fn learn_library(
    request: &CallRequest<'_>,
    bins: &Bins,
    duplicates: &Duplicates,
    meters: &Meters,
) -> Result<(Slips, Qualities), Error> {
    let reference = request.reference;
    let map = bins.map();
    let mut filled: Vec<Stretch> = Vec::new();
    for (contig, bases) in (0u32..).zip(&reference.contigs) {
        let starts = (0..bases.bases.len() as u32).step_by(BIN_BASES as usize);
        let starts = starts.filter(|&start| !bins.is_empty(map.bin(contig, start)));
        filled.extend(starts.map(|start| Stretch { contig, start, end: start + BIN_BASES }));
    }
    let step = filled.len().div_ceil(LEARN_REGIONS_MAX).max(1);
    let chosen: Vec<_> = filled.into_iter().step_by(step).map(Ok).collect();
    let mut tally = Tally::default();
    std::thread::scope(|scope| {
        let work = |stretch: Stretch| {
            let Stretch { contig, start, end } = stretch;
            let reads = bins
                .overlapping(contig, start, end, duplicates)
                .map_err(|error| flow::Error::in_stage("library", error))?;
            Ok(Tally::of(reference, contig, start, end, &reads))
        };
        let regions = Flow::source(meters, "samples", chosen);
        for counted in regions.map_parallel(scope, "library", request.threads, work) {
            tally.merge(&counted?);
        }
        Ok::<(), Error>(())
    })?;
    Ok(tally.learn())
}

/// The stretches to call, in coordinate order; those without reads near are left out unless
/// blocks are wanted.
fn stretches<'a>(
    request: &'a CallRequest<'_>,
    bins: &'a Bins,
) -> impl Iterator<Item = Stretch> + Send + 'a {
    let contigs = (0u32..).zip(&request.reference.contigs);
    contigs
        .flat_map(move |(contig, bases)| {
            let length = bases.bases.len() as u32;
            let whole = [(0, length)];
            let wanted = match &request.regions {
                Some(regions) => regions.on(&bases.name).to_vec(),
                None => whole.to_vec(),
            };
            let cut = move |(start, end): (u32, u32)| {
                let end = end.min(length);
                let first = start / BIN_BASES;
                let last = end.div_ceil(BIN_BASES).max(first);
                (first..last).map(move |bin| Stretch {
                    contig,
                    start: start.max(bin * BIN_BASES),
                    end: end.min((bin + 1) * BIN_BASES),
                })
            };
            wanted.into_iter().flat_map(cut)
        })
        .filter(|stretch| {
            let (low, high) = (stretch.start.saturating_sub(MARGIN), stretch.end + MARGIN);
            // Blocks say where there are no reads, too.
            let wanted = request.gvcf.is_some() || bins.any_near(stretch.contig, low, high);
            stretch.start < stretch.end && wanted
        })
}
