//! Phase: how often neighbouring calls of one phase set are the other way round in the truth.

use std::collections::HashMap;

use serde::Serialize;

use super::{Edit, Record};

/// Counts over heterozygous sites that both sets phase.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Phase {
    /// Heterozygous calls in the regions, and those of them with a phase set.
    pub heterozygous: u64,
    /// Heterozygous calls in the regions that have a phase set.
    pub phased: u64,
    /// Neighbours of one phase set of the calls that are of one phase set of the truth, too.
    pub pairs: u64,
    /// Pairs whose alleles lie on the same haplotype in one set and on different ones in the other.
    pub switches: u64,
}

/// The two edits of a site without their order, its place among all sites.
type Site<'a> = [&'a Edit; 2];

/// A phased truth site: its phase set, and whether its edits stand in the order of its key.
type Known = (u32, bool);

impl Phase {
    /// Adds the records of one contig, in order of position.
    ///
    /// An unphased truth genotype says nothing: the order of its alleles is of no meaning.
    pub(super) fn add(&mut self, records: &[Record<'_>]) {
        let mut truth: HashMap<Site<'_>, Known> = HashMap::new();
        for record in records.iter().filter(|record| record.from_truth) {
            let Some((site, ordered)) = site_of(record) else { continue };
            if let Some(set) = record.variant.phase_set {
                truth.insert(site, (set, ordered));
            }
        }
        // The last site of each set of the calls: its set in the truth, and whether both agree.
        let mut last: HashMap<u32, (u32, bool)> = HashMap::new();
        for record in records.iter().filter(|record| !record.from_truth && record.counted) {
            let Some((site, ordered)) = site_of(record) else { continue };
            self.heterozygous += 1;
            let Some(set) = record.variant.phase_set else { continue };
            self.phased += 1;
            let Some(&(known, truth_ordered)) = truth.get(&site) else { continue };
            let same = ordered == truth_ordered;
            if let Some((before, was_same)) = last.insert(set, (known, same))
                && before == known
            {
                self.pairs += 1;
                self.switches += u64::from(same != was_same);
            }
        }
    }
}

/// The edits of a heterozygous record in an order of their own, and whether it has them so.
fn site_of<'a>(record: &'a Record<'_>) -> Option<(Site<'a>, bool)> {
    let [first, second] = &record.edits;
    match first.cmp(second) {
        std::cmp::Ordering::Less => Some(([first, second], true)),
        std::cmp::Ordering::Greater => Some(([second, first], false)),
        std::cmp::Ordering::Equal => None,
    }
}
