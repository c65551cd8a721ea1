//! Calling: from ordered reads of one region to its variants.
//!
//! Reads become evidence (`evidence`), differing places become windows (`activity`), each window
//! gets candidate haplotypes from alignments (`candidates`) and from a graph (`assembly`), the
//! reads judge them (`likelihood`), and the best one or two give the sites (`genotype`,
//! `annotate`). The route is that of GATK's HaplotypeCaller (Poplin et al. 2018, "Scaling
//! accurate genetic variant discovery to tens of thousands of samples"); genotypes are of whole
//! windows, so that neighbouring events are judged together.

#[cfg(test)]
mod accuracy;
mod activity;
mod annotate;
mod assembly;
mod bias;
mod candidates;
mod confidence;
mod evidence;
mod genotype;
mod haplotype;
mod likelihood;
#[cfg(test)]
mod microbes;
mod output;
mod phase;
mod quality;
mod repeat;
mod slips;
#[cfg(test)]
mod tests;

pub use output::{Output, SharedSink};
pub use phase::Witness;
pub use quality::{Qualities, QualityTally};
pub use slips::{SlipTally, Slips};

use activity::Window;
use evidence::Evidence;
use genotype::Case;
use haplotype::{Haplotype, Stretch};
use likelihood::{Question, Testimony};

use super::AlignedRead;
use crate::device::{self, Queue};
use crate::genome::vcf::Block;
use crate::genome::{Reference, Regions, Variant};

/// Settings of the caller that change its answers; part of the provenance.
#[derive(Clone, Debug, PartialEq)]
pub struct CallSettings {
    /// Copies of each contig: 1 or 2.
    pub ploidy: u8,
    /// Where there is one copy whatever `ploidy` says.
    pub haploid: Option<Regions>,
    /// Whether reference blocks are wanted; changes no variant.
    pub blocks: bool,
    /// How often reads slip in repeats.
    pub slips: Slips,
    /// What base qualities are worth.
    pub qualities: Qualities,
}

impl CallSettings {
    /// Stretches of `[start, end)` of a contig with the copies they have, in order.
    fn copies(&self, contig: &str, start: u32, end: u32) -> Vec<(u32, u32, u8)> {
        let haploid = self.haploid.as_ref().map_or(&[][..], |regions| regions.on(contig));
        let next = haploid.partition_point(|interval| interval.1 <= start);
        let mut stretches = Vec::new();
        let mut at = start;
        for &(from, to) in haploid[next..].iter().take_while(|interval| interval.0 < end) {
            if from > at {
                stretches.push((at, from, self.ploidy));
            }
            stretches.push((from.max(start), to.min(end), 1));
            at = to;
        }
        if at < end {
            stretches.push((at, end, self.ploidy));
        }
        stretches
    }

    /// The default settings for this many copies of each contig.
    pub fn new(ploidy: u8) -> Self {
        let (slips, qualities) = (Slips::default(), Qualities::default());
        Self { ploidy, haploid: None, blocks: false, slips, qualities }
    }
}

impl Default for CallSettings {
    fn default() -> Self {
        Self::new(2)
    }
}

/// Bases beyond a region's ends that its calls may depend on.
pub const MARGIN: u32 = 1000;

/// Reference bases around a window of substitutions, of gaps, and of clipped reads.
const PAD_BASES: [u32; 3] = [12, 45, 70];
/// Furthest that a repeat may widen a window.
const REPEAT_PAD_MAX: u32 = 80;
/// Most templates that are looked at in one window.
const TEMPLATES_MAX: usize = 300;
/// Most pairs of a template and a haplotype, and the templates that are kept even so.
const JUDGEMENTS_MAX: usize = 6000;
const TEMPLATES_KEPT: usize = 120;
/// Pairs of a read and a haplotype that are judged in one batch: those of some windows, so that what is
/// held has a bound.
const JUDGED_TOGETHER: usize = 1 << 17;
/// Most haplotypes from the graph, and in all.
const GRAPH_HAPLOTYPES_MAX: usize = 12;
const HAPLOTYPES_MAX: usize = 40;

/// What one region gives.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RegionCalls {
    /// Its variants in order, not yet phased.
    pub variants: Vec<Variant>,
    /// For each variant what templates say of its phase; none where it is not to be phased.
    pub witnesses: Vec<Vec<Witness>>,
    /// Reference blocks where no variant lies, if they were asked for. The first [`MARGIN`] bases
    /// come one by one, since a deletion of the region before may cover them.
    pub blocks: Vec<Block>,
}

/// Calls the variants whose position lies in `[start, end)` of `contig`.
///
/// `reads` are all reads that overlap the region widened by [`MARGIN`] bases on both sides, in
/// coordinate order, duplicates marked. The answer for a position depends on nothing else, so that
/// any cut of the genome into regions gives the same variants. Reads are judged through `queue`, those
/// of many windows at a time. Errors: the device's.
pub fn call(
    reference: &Reference,
    contig: u32,
    start: u32,
    end: u32,
    reads: &[AlignedRead],
    settings: &CallSettings,
    queue: &mut dyn Queue,
) -> Result<RegionCalls, device::Error> {
    let Some(bases) = reference.contigs.get(contig as usize).map(|contig| &contig.bases[..]) else {
        return Ok(RegionCalls::default());
    };
    let end = end.min(bases.len() as u32);
    if start >= end {
        return Ok(RegionCalls::default());
    }
    let name = &reference.contigs[contig as usize].name;
    let (low, high) = (start.saturating_sub(MARGIN), end.saturating_add(MARGIN));
    let copies = settings.copies(name, low, high);
    let evidence = evidence::prepare(reads, contig, bases, &settings.qualities);
    let longest = evidence.iter().map(|read| read.end - read.start).max().unwrap_or(0);
    let judge = Judge { contig, bases, copies: &copies, slips: &settings.slips };
    // An indel's record stands one base before its first event.
    let windows = activity::windows(&evidence, bases, start, end + 1);
    let mut found = judge.all(&windows, &evidence, longest, queue)?;
    let doubtful = evidence::doubtful_places(reads, contig);
    for (variant, witnesses) in &mut found {
        if annotate::is_doubtful(variant.position, &evidence, longest, &doubtful) {
            variant.filters.push("LowMQ");
            witnesses.clear();
        }
    }
    found.retain(|(variant, _)| (start..end).contains(&variant.position));
    found.sort_by(|(a, _), (b, _)| {
        (a.position, &a.reference, &a.alternates).cmp(&(b.position, &b.reference, &b.alternates))
    });
    let (variants, witnesses): (Vec<Variant>, Vec<_>) = found.into_iter().unzip();
    let range = (start, end);
    let blocks = if settings.blocks {
        confidence::blocks(&evidence, contig, bases, range, MARGIN, &variants, &copies)
    } else {
        Vec::new()
    };
    Ok(RegionCalls { variants, witnesses, blocks })
}

/// What the reads of a part of the genome say of the library.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tally {
    slips: SlipTally,
    qualities: QualityTally,
}

impl Tally {
    /// Counts the reads in `[start, end)` of `contig`; `reads` as for [`call`].
    pub fn of(
        reference: &Reference,
        contig: u32,
        start: u32,
        end: u32,
        reads: &[AlignedRead],
    ) -> Self {
        let Some(contig_bases) = reference.contigs.get(contig as usize) else {
            return Self::default();
        };
        let bases = &contig_bases.bases[..];
        let end = end.min(bases.len() as u32);
        let start = start.min(end);
        let joined = evidence::prepare(reads, contig, bases, &Qualities::default());
        let slips = SlipTally::of(&joined, bases, start, end);
        let alone = evidence::unjoined(reads, contig, bases);
        Self { slips, qualities: QualityTally::of(&alone, bases, start, end) }
    }

    /// Adds the counts of another part of the genome.
    pub fn merge(&mut self, other: &Self) {
        self.slips.merge(&other.slips);
        self.qualities.merge(&other.qualities);
    }

    /// What is to be known of the library before it is called.
    pub fn learn(&self) -> (Slips, Qualities) {
        (Slips::learn(&self.slips), Qualities::learn(&self.qualities))
    }
}

/// The reads that overlap the window, clipped ends counted, at most [`TEMPLATES_MAX`] templates.
fn overlapping<'a>(evidence: &'a [Evidence], window: &Window, longest: u32) -> Vec<&'a Evidence> {
    const CLIP_MAX: u32 = 300;
    let from = evidence
        .partition_point(|read| read.start.saturating_add(longest + CLIP_MAX) < window.start);
    let to = evidence.partition_point(|read| read.start < window.end + CLIP_MAX);
    let overlaps = |read: &&Evidence| {
        read.start.saturating_sub(read.leading_clip()) <= window.end
            && read.end + read.trailing_clip() >= window.start
    };
    let mut reads: Vec<&Evidence> = evidence[from..to].iter().filter(overlaps).collect();
    sample(&mut reads, TEMPLATES_MAX);
    reads
}

/// Leaves at most `most` templates: a sample that does not depend on the order of the reads.
fn sample(reads: &mut Vec<&Evidence>, most: usize) {
    if reads.len() <= most {
        return;
    }
    let mut order: Vec<u64> = reads.iter().map(|read| evidence::mixed(read.template)).collect();
    order.sort_unstable();
    order.dedup();
    if let Some(&limit) = order.get(most) {
        reads.retain(|read| evidence::mixed(read.template) < limit);
    }
}

/// What all windows of a region share.
struct Judge<'a> {
    contig: u32,
    bases: &'a [u8],
    copies: &'a [(u32, u32, u8)],
    slips: &'a Slips,
}

impl<'a> Judge<'a> {
    /// What all windows give, in order; `longest` is the longest stretch that a read covers.
    fn all(
        &self,
        windows: &[Window],
        evidence: &'a [Evidence],
        longest: u32,
        queue: &mut dyn Queue,
    ) -> Result<Vec<(Variant, Vec<Witness>)>, device::Error> {
        let mut found = Vec::new();
        let mut asked = windows.iter().filter_map(|window| {
            let reads = overlapping(evidence, window, longest);
            Some((window, self.question(window, reads)?))
        });
        loop {
            let (mut asked_of, mut questions, mut pairs) = (Vec::new(), Vec::new(), 0);
            for (window, question) in asked.by_ref() {
                pairs += question.pairs();
                asked_of.push(window);
                questions.push(question);
                if pairs >= JUDGED_TOGETHER {
                    break;
                }
            }
            if questions.is_empty() {
                return Ok(found);
            }
            let answers = likelihood::testimonies(&questions, self.slips, queue)?;
            for ((window, question), testimonies) in asked_of.iter().zip(&questions).zip(answers) {
                self.answer(window, question, &testimonies, &mut found);
            }
        }
    }

    /// The haplotypes of a window and the reads that judge them; `None` where there is but one.
    fn question(&self, window: &Window, mut reads: Vec<&'a Evidence>) -> Option<Question<'a>> {
        let stretch = stretch_of(window, self.bases);
        let haplotypes = haplotypes(window, &reads, stretch);
        if haplotypes.len() < 2 {
            return None;
        }
        sample(&mut reads, (JUDGEMENTS_MAX / haplotypes.len()).max(TEMPLATES_KEPT));
        let gapped = window.gapped
            || window.clipped
            || haplotypes.iter().any(|haplotype| haplotype.bases.len() != stretch.bases.len());
        Some(Question { reads, stretch, haplotypes, gapped })
    }

    /// The variants of a window.
    fn answer(
        &self,
        window: &Window,
        question: &Question<'_>,
        testimonies: &[Testimony],
        found: &mut Vec<(Variant, Vec<Witness>)>,
    ) {
        let (stretch, slips) = (question.stretch, self.slips);
        let haplotypes = &question.haplotypes[..];
        for &(from, to, ploidy) in self.copies {
            let range = window.start.max(from)..window.end.min(to);
            if range.is_empty() {
                continue;
            }
            let case = Case { stretch, haplotypes, testimonies, slips, ploidy };
            for site in genotype::sites(case, range) {
                let variant = annotate::variant(&site, testimonies, self.contig, self.bases);
                let Some(variant) = variant else { continue };
                let sure = variant.filters.is_empty();
                found.push((variant, if sure { site.witnesses } else { Vec::new() }));
            }
        }
    }
}

/// The reference bases that a window's reads are compared with.
fn stretch_of<'a>(window: &Window, bases: &'a [u8]) -> Stretch<'a> {
    let pad = PAD_BASES[window.kind()];
    let low = window.start.saturating_sub(pad);
    let high = (window.end + pad).min(bases.len() as u32);
    let (low, high) = if window.gapped || window.clipped {
        repeat::widen(bases, low, high, REPEAT_PAD_MAX)
    } else {
        (low, high)
    };
    Stretch { start: low, bases: &bases[low as usize..high as usize] }
}

/// The reference haplotype first, then the candidates.
fn haplotypes(window: &Window, reads: &[&Evidence], stretch: Stretch<'_>) -> Vec<Haplotype> {
    let mut found = vec![Haplotype { bases: stretch.bases.to_vec(), events: Vec::new() }];
    for events in candidates::combinations(reads, stretch) {
        found.push(Haplotype::from_events(stretch, &events));
    }
    if window.gapped || window.clipped {
        let high = stretch.start + stretch.bases.len() as u32;
        let parts: Vec<assembly::Part<'_>> = reads
            .iter()
            .filter_map(|read| likelihood::part_inside(read, stretch.start, high))
            .collect();
        for bases in assembly::haplotypes(stretch.bases, &parts, GRAPH_HAPLOTYPES_MAX) {
            found.push(Haplotype::from_bases(stretch, bases));
        }
    }
    let mut distinct: Vec<Haplotype> = Vec::with_capacity(found.len());
    for haplotype in found {
        if !distinct.iter().any(|known| known.bases == haplotype.bases) {
            distinct.push(haplotype);
        }
    }
    distinct.truncate(HAPLOTYPES_MAX);
    distinct
}
