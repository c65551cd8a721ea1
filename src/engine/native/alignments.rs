//! The alignments as a file, BAM or CRAM, in coordinate order, and its index.
//!
//! Runs of bins are encoded and compressed in parallel. A run begins a new BGZF block or a new slice,
//! so the bytes are the same for any number of threads.

use std::io::Write;
use std::ops::Range;

use noodles::core::Position;
use noodles::csi::binning_index::Indexer;
use noodles::csi::binning_index::index::reference_sequence::bin::Chunk;
use noodles::csi::binning_index::index::reference_sequence::index::LinearIndex;

use super::Native;
use super::aligned::AlignedRead;
use super::bam::{Encoder, contig_digests, header, header_text};
use super::cram::CramFile;
use super::cram_slice::{Slice, SliceWriter};
use super::duplicates::Duplicates;
use super::extend::span;
use super::order::Bins;
use super::place::{NOWHERE, UNMAPPED};
use crate::engine::{AlignmentFormat, CallRequest, Error};
use crate::flow::{self, Flow, Meters, Weigh};
use crate::genome::bgzf::{BLOCK_BYTES, Deflater, END_MARKER, VirtualOffset};

/// Compression level: alignments are large and often temporary.
const LEVEL: u8 = 4;

/// Packed reads of the bins that are written together: a slice of CRAM, or some dozens of BGZF blocks.
const RUN_BYTES: u64 = 3 << 19;

/// Records of reads without a place that are compressed together.
const UNPLACED_BYTES: usize = 32 * BLOCK_BYTES;

/// Writes the alignments; gives the content of the index, `.bai` or `.crai`.
///
/// Errors: the output's and the scratch file's.
pub fn write(
    engine: &Native,
    request: &CallRequest<'_>,
    bins: &Bins,
    duplicates: &Duplicates,
    meters: &Meters,
    out: &mut (dyn Write + Send),
) -> Result<Vec<u8>, Error> {
    let version = crate::engine::Engine::version(engine);
    let failed = |source| Error::Output { what: "the alignments", source };
    let each = Each { request, bins, duplicates, meters };
    match request.format {
        AlignmentFormat::Bam => {
            let mut file = BamFile::new(out, &header(request, &version)).map_err(failed)?;
            let encoder = &Encoder::new(request);
            each.piece(|| Blocks { encoder }, |piece| file.add(&piece).map_err(failed))?;
            file.finish(request.reference.contigs.len()).map_err(failed)
        }
        AlignmentFormat::Cram => {
            let digests = contig_digests(request.reference, request.threads);
            let text = header_text(request, &version, &digests);
            let mut file = CramFile::new(out, &text).map_err(failed)?;
            let groups = request.read_groups.len();
            let slices = || Slices(SliceWriter::new(request.reference, groups));
            each.piece(slices, |piece: Encoded| {
                piece.0.iter().try_for_each(|slice| file.add(slice)).map_err(failed)
            })?;
            file.finish().map_err(failed)
        }
    }
}

/// Reads in order, with their names.
type Named = [(AlignedRead, Vec<u8>)];

/// What becomes of the reads of one bin.
trait Packing {
    /// What they are made to.
    type Piece: Weigh + Send;

    fn pack(&mut self, reads: &Named) -> Self::Piece;
}

/// CRAM slices of one bin.
struct Encoded(Vec<Slice>);

impl Weigh for Encoded {
    fn weight(&self) -> u64 {
        self.0.iter().map(|slice| slice.blocks.len() as u64).sum()
    }
}

struct Slices<'a>(SliceWriter<'a>);

impl Packing for Slices<'_> {
    type Piece = Encoded;

    fn pack(&mut self, reads: &Named) -> Encoded {
        Encoded(self.0.slices(reads))
    }
}

/// BAM records of one bin.
#[derive(Default)]
struct Piece {
    /// The records, compressed.
    bytes: Vec<u8>,
    /// What the index needs of each record.
    marks: Vec<Mark>,
}

impl Weigh for Piece {
    fn weight(&self) -> u64 {
        self.bytes.len() as u64
    }
}

/// One record in the index: its place on the reference and in the piece.
struct Mark {
    contig: u32,
    start: u32,
    end: u32,
    mapped: bool,
    from: VirtualOffset,
    to: VirtualOffset,
}

/// Compresses records into BGZF blocks.
struct Blocks<'a> {
    encoder: &'a Encoder<'a>,
}

impl Packing for Blocks<'_> {
    type Piece = Piece;

    fn pack(&mut self, reads: &Named) -> Piece {
        let (mut records, mut ends, mut piece) = (Vec::new(), Vec::new(), Piece::default());
        for (read, name) in reads {
            self.encoder.add(read, name, &mut records);
            ends.push(records.len());
            piece.marks.push(Mark {
                contig: read.contig,
                start: read.position,
                end: read.position.saturating_add(span(&read.cigar).max(1)),
                mapped: read.flags & UNMAPPED == 0,
                from: VirtualOffset::default(),
                to: VirtualOffset::default(),
            });
        }
        compress(&records, &ends, &mut piece);
        piece
    }
}

fn compress(records: &[u8], ends: &[usize], piece: &mut Piece) {
    let mut deflater = Deflater::new(LEVEL);
    let mut starts = Vec::with_capacity(records.len() / BLOCK_BYTES + 2);
    for text in records.chunks(BLOCK_BYTES) {
        starts.push(piece.bytes.len() as u64);
        deflater.block(text, &mut piece.bytes);
    }
    starts.push(piece.bytes.len() as u64);
    let offset = |at: usize| {
        let block = if at == records.len() { starts.len() - 1 } else { at / BLOCK_BYTES };
        let within = if at == records.len() { 0 } else { at % BLOCK_BYTES };
        VirtualOffset::new(starts[block], within)
    };
    let mut from = 0;
    for (mark, &end) in piece.marks.iter_mut().zip(ends) {
        (mark.from, mark.to) = (offset(from), offset(end));
        from = end;
    }
}

/// The ordered reads of a request.
struct Each<'a, 'r> {
    request: &'a CallRequest<'r>,
    bins: &'a Bins,
    duplicates: &'a Duplicates,
    meters: &'a Meters,
}

impl Each<'_, '_> {
    /// Passes the reads of all bins, packed, to `take`: those with a place in coordinate order, then
    /// the others.
    fn piece<P: Packing>(
        &self,
        packing: impl Fn() -> P + Sync,
        mut take: impl FnMut(P::Piece) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let make = &packing;
        std::thread::scope(|scope| {
            let (bins, duplicates) = (self.bins, self.duplicates);
            let runs = bins.runs(RUN_BYTES).into_iter();
            let work = move |run: Run| {
                let mut reads = Vec::new();
                for bin in run.0 {
                    let own = bins.ordered(bin, duplicates);
                    reads.extend(own.map_err(|error| flow::Error::in_stage("alignments", error))?);
                }
                Ok(make().pack(&reads))
            };
            let numbered = Flow::source(self.meters, "bins", runs.map(|run| Ok(Run(run))));
            let workers = self.request.threads;
            for piece in numbered.map_parallel(scope, "alignments", workers, work) {
                take(piece?)?;
            }
            Ok::<(), Error>(())
        })?;
        let (mut packing, mut waiting, mut bytes) = (packing(), Vec::new(), 0);
        self.bins.each_unplaced(|read, name| {
            bytes += read.bases.len() * 2 + name.len();
            waiting.push((read, name.to_vec()));
            if bytes < UNPLACED_BYTES {
                return Ok(());
            }
            bytes = 0;
            let piece = packing.pack(&waiting);
            waiting.clear();
            take(piece)
        })?;
        take(packing.pack(&waiting))
    }
}

/// Neighbouring bins.
struct Run(Range<usize>);

impl Weigh for Run {
    fn weight(&self) -> u64 {
        1
    }
}

/// A BAM and its index as they grow.
struct BamFile<W: Write> {
    out: W,
    written: u64,
    /// `None` when a contig is longer than the index can say.
    indexer: Option<Indexer<LinearIndex>>,
}

impl<W: Write> BamFile<W> {
    fn new(mut out: W, header: &[u8]) -> std::io::Result<Self> {
        let mut blocks = Vec::new();
        Deflater::new(LEVEL).blocks(header, &mut blocks);
        out.write_all(&blocks)?;
        Ok(Self { out, written: blocks.len() as u64, indexer: Some(Indexer::default()) })
    }

    fn add(&mut self, piece: &Piece) -> std::io::Result<()> {
        for mark in &piece.marks {
            self.index(mark);
        }
        self.written += piece.bytes.len() as u64;
        self.out.write_all(&piece.bytes)
    }

    fn index(&mut self, mark: &Mark) {
        let base = self.written << 16;
        let offset = |within: VirtualOffset| (base + within.0).into();
        let chunk = Chunk::new(offset(mark.from), offset(mark.to));
        let position = |at: u32| Position::new(at as usize);
        let place = match (mark.contig, position(mark.start.saturating_add(1)), position(mark.end))
        {
            (NOWHERE, _, _) => None,
            (contig, Some(start), Some(end)) => Some((contig as usize, start, end, mark.mapped)),
            _ => None,
        };
        if let Some(indexer) = &mut self.indexer
            && indexer.add_record(place, chunk).is_err()
        {
            // Positions from 2^29 on are beyond this kind of index: the file goes without.
            self.indexer = None;
        }
    }

    /// Ends the file; gives the index.
    fn finish(mut self, contigs: usize) -> std::io::Result<Vec<u8>> {
        self.out.write_all(&END_MARKER)?;
        self.out.flush()?;
        let mut bytes = Vec::new();
        if let Some(indexer) = self.indexer {
            let index = indexer.build(contigs);
            noodles::bam::bai::io::Writer::new(&mut bytes).write_index(&index)?;
        }
        Ok(bytes)
    }
}
