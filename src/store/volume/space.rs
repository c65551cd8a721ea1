//! Free space of a volume: runs of blocks, handed out first fit, merged when they come back.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A run of blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Extent {
    /// The first block.
    pub(super) start: u64,
    /// Their number.
    pub(super) blocks: u64,
}

impl Extent {
    pub(super) fn end(self) -> u64 {
        self.start.saturating_add(self.blocks)
    }
}

/// The blocks that nobody has.
pub(super) struct FreeSpace {
    /// Lengths by first block; no two runs touch.
    runs: BTreeMap<u64, u64>,
}

impl FreeSpace {
    /// All of `range` but what is in `taken`; None if those overlap or leave the range.
    pub(super) fn around(range: Extent, taken: impl IntoIterator<Item = Extent>) -> Option<Self> {
        let mut taken: Vec<Extent> = taken.into_iter().filter(|extent| extent.blocks > 0).collect();
        taken.sort();
        let (mut runs, mut at) = (BTreeMap::new(), range.start);
        for extent in taken {
            if extent.start < at || extent.end() > range.end() {
                return None;
            }
            if extent.start > at {
                runs.insert(at, extent.start - at);
            }
            at = extent.end();
        }
        if range.end() > at {
            runs.insert(at, range.end() - at);
        }
        Some(Self { runs })
    }

    /// Blocks free.
    pub(super) fn blocks(&self) -> u64 {
        self.runs.values().sum()
    }

    /// Takes up to `wanted` blocks in one run whose length is a multiple of `unit`: behind block
    /// `after` if they are free there, else from the first run that has a unit.
    pub(super) fn take(&mut self, unit: u64, wanted: u64, after: Option<u64>) -> Option<Extent> {
        let fits = |&(_, &blocks): &(&u64, &u64)| blocks >= unit;
        let grown = after.and_then(|after| self.runs.get_key_value(&after)).filter(fits);
        let (&start, &blocks) = grown.or_else(|| self.runs.iter().find(fits))?;
        let taken = (blocks.min(wanted) / unit * unit).max(unit);
        self.runs.remove(&start);
        if blocks > taken {
            self.runs.insert(start + taken, blocks - taken);
        }
        Some(Extent { start, blocks: taken })
    }

    /// Takes a run back.
    pub(super) fn give(&mut self, extent: Extent) {
        if extent.blocks == 0 {
            return;
        }
        let Extent { mut start, mut blocks } = extent;
        if let Some((&before, &length)) = self.runs.range(..start).next_back()
            && before + length == start
        {
            self.runs.remove(&before);
            (start, blocks) = (before, blocks + length);
        }
        if let Some(length) = self.runs.remove(&(start + blocks)) {
            blocks += length;
        }
        self.runs.insert(start, blocks);
    }
}

/// Adds a run to a list, as part of the last one where it follows that.
pub(super) fn push(extents: &mut Vec<Extent>, extent: Extent) {
    match extents.last_mut() {
        Some(last) if last.end() == extent.start => last.blocks += extent.blocks,
        _ => extents.push(extent),
    }
}

/// Cuts the list down to its first `blocks` blocks; gives what was cut off.
pub(super) fn trim(extents: &mut Vec<Extent>, blocks: u64) -> Vec<Extent> {
    let (mut kept, mut cut, mut left) = (Vec::new(), Vec::new(), blocks);
    for extent in extents.drain(..) {
        let keep = extent.blocks.min(left);
        left -= keep;
        if keep > 0 {
            kept.push(Extent { start: extent.start, blocks: keep });
        }
        if keep < extent.blocks {
            cut.push(Extent { start: extent.start + keep, blocks: extent.blocks - keep });
        }
    }
    *extents = kept;
    cut
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Against a plain table of blocks: nothing is handed out twice, nothing is lost, and runs
        /// that touch are one.
        #[test]
        fn agrees_with_a_table_of_blocks(
            steps in prop::collection::vec((1u64..5, 1u64..20, any::<bool>(), any::<u8>()), 1..80)
        ) {
            let range = Extent { start: 3, blocks: 60 };
            let mut space = FreeSpace::around(range, []).unwrap();
            let (mut table, mut held) = ([false; 63], Vec::<Extent>::new());
            for (unit, wanted, give, which) in steps {
                if give && !held.is_empty() {
                    let extent = held.swap_remove(which as usize % held.len());
                    table[extent.start as usize..extent.end() as usize].fill(false);
                    space.give(extent);
                } else if let Some(extent) = space.take(unit, wanted, held.last().map(|e| e.end())) {
                    prop_assert!(extent.blocks % unit == 0 && extent.start >= 3);
                    for block in extent.start..extent.end() {
                        prop_assert!(!table[block as usize], "block {} twice", block);
                        table[block as usize] = true;
                    }
                    held.push(extent);
                } else {
                    let longest = table[3..].split(|taken| *taken).map(<[bool]>::len).max();
                    prop_assert!(longest.unwrap_or(0) < unit as usize, "a fit was overlooked");
                }
                let free = table[3..].iter().filter(|taken| !**taken).count();
                prop_assert_eq!(space.blocks(), free as u64);
                let again = FreeSpace::around(range, held.iter().copied()).unwrap();
                prop_assert_eq!(&space.runs, &again.runs);
            }
        }
    }

    #[test]
    fn overlapping_or_outlying_extents_are_refused() {
        let range = Extent { start: 10, blocks: 10 };
        let bad = |list: &[(u64, u64)]| {
            let extents =
                list.iter().map(|(start, blocks)| Extent { start: *start, blocks: *blocks });
            FreeSpace::around(range, extents).is_none()
        };
        assert!(bad(&[(9, 2)]) && bad(&[(19, 2)]) && bad(&[(10, 3), (12, 2)]));
        assert!(bad(&[(u64::MAX, u64::MAX)]));
        assert!(!bad(&[(12, 2), (10, 2), (14, 6)]));
    }

    #[test]
    fn trimming_keeps_the_beginning() {
        let mut extents = vec![Extent { start: 0, blocks: 4 }, Extent { start: 9, blocks: 4 }];
        let cut = trim(&mut extents, 5);
        assert_eq!(extents, [Extent { start: 0, blocks: 4 }, Extent { start: 9, blocks: 1 }]);
        assert_eq!(cut, [Extent { start: 10, blocks: 3 }]);
    }
}
