//! Half-open, 0-based intervals on contigs.

/// Half-open interval `[start, end)` on one contig, 0-based.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Region {
    /// Contig name.
    pub contig: String,
    /// First base.
    pub start: u32,
    /// One past the last base.
    pub end: u32,
}

/// A set of regions: sorted within each contig, overlapping ones merged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Regions {
    by_contig: std::collections::BTreeMap<String, Vec<(u32, u32)>>,
}

impl FromIterator<Region> for Regions {
    fn from_iter<I: IntoIterator<Item = Region>>(regions: I) -> Self {
        let mut by_contig = std::collections::BTreeMap::<String, Vec<(u32, u32)>>::new();
        for region in regions {
            if region.start < region.end {
                by_contig.entry(region.contig).or_default().push((region.start, region.end));
            }
        }
        for intervals in by_contig.values_mut() {
            intervals.sort_unstable();
            let mut merged: Vec<(u32, u32)> = Vec::with_capacity(intervals.len());
            for &(start, end) in intervals.iter() {
                match merged.last_mut() {
                    Some(last) if start <= last.1 => last.1 = last.1.max(end),
                    _ => merged.push((start, end)),
                }
            }
            *intervals = merged;
        }
        Self { by_contig }
    }
}

impl Regions {
    /// The merged intervals of one contig, in order.
    pub fn on(&self, contig: &str) -> &[(u32, u32)] {
        self.by_contig.get(contig).map_or(&[], Vec::as_slice)
    }

    /// Contigs that have any interval, with their intervals.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[(u32, u32)])> {
        self.by_contig.iter().map(|(contig, intervals)| (contig.as_str(), intervals.as_slice()))
    }

    /// Whether any base of `[start, end)` is in the set.
    pub fn overlaps(&self, contig: &str, start: u32, end: u32) -> bool {
        let intervals = self.on(contig);
        let next = intervals.partition_point(|interval| interval.1 <= start);
        intervals.get(next).is_some_and(|interval| interval.0 < end)
    }

    /// Whether every base of `[start, end)` is in the set.
    pub fn contains(&self, contig: &str, start: u32, end: u32) -> bool {
        let intervals = self.on(contig);
        let next = intervals.partition_point(|interval| interval.1 <= start);
        intervals.get(next).is_some_and(|interval| interval.0 <= start && end <= interval.1)
    }

    /// Whether there is no interval at all.
    pub fn is_empty(&self) -> bool {
        self.by_contig.is_empty()
    }

    /// Bases in the set.
    pub fn bases(&self) -> u64 {
        self.by_contig.values().flatten().map(|(start, end)| u64::from(end - start)).sum()
    }
}
