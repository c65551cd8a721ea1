//! From a genotyped site to a record: letters, depths, bias, filters.

use super::bias::{strand_bias, strands};
use super::evidence::Evidence;
use super::genotype::Site;
use super::haplotype::Event;
use super::likelihood::Testimony;
use crate::genome::Variant;
use crate::genome::reference::BASE_LETTERS;
use crate::kernel::pairhmm::PER_PHRED;

// Limits of the filters that `genome::vcf::FILTERS` declares.

/// Smallest QUAL; of sites where errors are not independent of each other, the greater one.
const QUALITY_MIN: f32 = 13.0;
const QUALITY_MIN_SUSPECT: f32 = 20.0;
const GENOTYPE_QUALITY_MIN: u32 = 4;
const DEPTH_MIN: u32 = 3;
/// Largest Fisher strand bias in Phred, of substitutions and of indels.
const STRAND_BIAS_MAX: [f64; 2] = [60.0, 100.0];

/// A bias from which on more quality is asked for.
const STRAND_BIAS_SUSPECT: f64 = 10.0;

/// Makes the record of a site. `contig_bases` are all bases of the contig.
///
/// `None` for a deletion or insertion before the contig's first base: it has no anchor. Nor is
/// anything called where the reference itself has no base: its REF could not be told from others.
pub(super) fn variant(
    site: &Site,
    testimonies: &[Testimony],
    contig: u32,
    contig_bases: &[u8],
) -> Option<Variant> {
    let (position, reference, alternates) = letters(site, contig_bases)?;
    let strands = strands(testimonies, &site.alleles, site.events.len() + 1);
    let informing = || {
        let informs = testimonies.iter().zip(&site.alleles).filter(|(_, allele)| allele.is_some());
        informs.map(|(testimony, _)| f64::from(testimony.mapping_quality))
    };
    let square_sum: f64 = informing().map(|quality| quality * quality).sum();
    let mean_quality = (square_sum / informing().count().max(1) as f64).sqrt();
    let allele_depths: Vec<u32> = strands.iter().map(|strands| strands[0] + strands[1]).collect();
    let phred = |penalty: i64| (penalty as f64 / f64::from(PER_PHRED)) as f32;
    let whole = |penalty: i64| phred(penalty).round().clamp(0.0, 9999.0) as u32;
    let strand_bias = strand_bias(&strands);
    let mut variant = Variant {
        contig,
        position,
        reference,
        alternates,
        quality: (phred(site.quality).clamp(0.0, 9999.0) * 10.0).round() / 10.0,
        filters: Vec::new(),
        genotype: site.genotype.clone(),
        phase_set: None,
        depth: allele_depths.iter().sum(),
        allele_depths,
        genotype_quality: whole(site.genotype_quality).min(99),
        likelihoods: site.likelihoods.iter().map(|&penalty| whole(penalty)).collect(),
        information: format!("MQ={mean_quality:.1};FS={strand_bias:.1}"),
    };
    let indel = site.events.iter().any(Event::is_indel);
    variant.filters = filters(&variant, strand_bias, indel, site);
    Some(variant)
}

/// Whether most reads at `position` are placed too doubtfully to count: those that are left are
/// then a choice by what they show, and speak for themselves only.
pub(super) fn is_doubtful(
    position: u32,
    evidence: &[Evidence],
    longest: u32,
    doubtful: &[(u32, u32)],
) -> bool {
    let ends: Vec<u32> = doubtful
        .iter()
        .take_while(|place| place.0 <= position)
        .map(|place| place.1)
        .filter(|&end| end > position)
        .collect();
    if ends.is_empty() {
        return false;
    }
    let from = evidence.partition_point(|read| read.start.saturating_add(longest) < position);
    let near = evidence[from..].iter().take_while(|read| read.start <= position);
    ends.len() > near.filter(|read| read.end > position).count()
}

fn letters(site: &Site, contig_bases: &[u8]) -> Option<(u32, Vec<u8>, Vec<Vec<u8>>)> {
    let text = |codes: &[u8]| -> Vec<u8> {
        codes.iter().map(|&code| BASE_LETTERS[usize::from(code.min(4))]).collect()
    };
    let first = site.events.first()?.position;
    let anchored = site.events.iter().any(Event::is_indel);
    let position = first.checked_sub(u32::from(anchored))?;
    let end = site.events.iter().map(Event::end).max()?;
    let reference = contig_bases.get(position as usize..end as usize)?;
    if reference.iter().any(|&code| code > 3) {
        return None;
    }
    let reference = text(reference);
    let alternates = site
        .events
        .iter()
        .map(|event| {
            let mut codes = contig_bases[position as usize..event.position as usize].to_vec();
            codes.extend_from_slice(&event.inserted);
            codes.extend_from_slice(&contig_bases[event.end() as usize..end as usize]);
            text(&codes)
        })
        .collect();
    Some((position, reference, alternates))
}

fn filters(variant: &Variant, strand_bias: f64, indel: bool, site: &Site) -> Vec<&'static str> {
    let mut failed = Vec::new();
    let suspect = site.unbalanced || strand_bias > STRAND_BIAS_SUSPECT;
    let enough = if site.slippery {
        // Its quality already is what slips leave of it.
        QUALITY_MIN
    } else if suspect {
        QUALITY_MIN_SUSPECT
    } else {
        // Where many reads cover the site, a true one has more.
        (variant.depth as f32 / 2.0).clamp(QUALITY_MIN, QUALITY_MIN_SUSPECT)
    };
    if variant.quality < enough {
        failed.push("LowQual");
    }
    if variant.genotype_quality < GENOTYPE_QUALITY_MIN {
        failed.push("LowGQ");
    }
    if variant.depth < DEPTH_MIN {
        failed.push("LowDepth");
    }
    if strand_bias > STRAND_BIAS_MAX[usize::from(indel)] {
        failed.push("StrandBias");
    }
    if site.unbalanced && variant.quality < enough {
        failed.push("LowAF");
    }
    failed
}
