//! Where reads differ from the reference often enough to look closer.

use super::evidence::{Evidence, Kind};

/// Active positions this close belong to one window.
const JOIN_BASES: u32 = 20;
/// Longest window before it is cut at fixed places of the contig.
const WINDOW_BASES_MAX: u32 = 300;
/// Places where long windows are cut: multiples of this.
const CUT_BASES: u32 = 200;
/// How far before its first and after its last active position a window's events may lie,
/// by kind. Reads of a tandem duplication are clipped its length away from where it is reported.
const CORE_REACH: [u32; 3] = [10, 15, 60];

/// Sum of qualities that differing bases of one kind need: more than one base has.
const WEIGHT_MIN: u32 = 44;
/// The same for each read that covers the position.
const WEIGHT_PER_READ: u32 = 3;
/// Differing bases of less quality do not count.
const QUALITY_MIN: u8 = 10;
/// Shortest clip that counts.
const CLIP_BASES_MIN: u32 = 8;

/// Clips this close may be of one event.
const CLIP_SPREAD: usize = 24;
/// Gaps of this length are hardly ever errors.
const LONG_GAP_BASES: u32 = 6;
/// Counts of gaps and clips go no higher.
const COUNT_MAX: u16 = 2000;

/// A stretch of the contig whose variants are found together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Window {
    /// First base whose events this window reports.
    pub(super) start: u32,
    /// One past the last.
    pub(super) end: u32,
    /// Whether there are insertions or deletions.
    pub(super) gapped: bool,
    /// Whether clipped ends of reads crowd here.
    pub(super) clipped: bool,
}

/// Counts over `[start, start + depth.len())`.
struct Tally {
    start: u32,
    depth: Vec<i32>,
    /// Sum of the qualities of differing bases, for each base.
    differing: Vec<[u32; 4]>,
    /// Deletions, insertions and clips that begin at the position.
    gaps: Vec<[u16; 3]>,
    /// Clips that begin at most [`CLIP_SPREAD`] bases before.
    clips_near: Vec<u16>,
    /// Gaps of at least [`LONG_GAP_BASES`] that begin at the position.
    long_gaps: Vec<u16>,
    /// Furthest end of a deletion that begins at the position.
    reach: Vec<u16>,
}

/// The windows that have active positions in `[start, end)`, in order; events of one position are
/// reported by one window.
pub(super) fn windows(
    evidence: &[Evidence],
    reference: &[u8],
    start: u32,
    end: u32,
) -> Vec<Window> {
    if evidence.is_empty() {
        return Vec::new();
    }
    // What joins and cuts windows lies within twice their longest length.
    let from = start.saturating_sub(2 * WINDOW_BASES_MAX);
    let to = (end + 2 * WINDOW_BASES_MAX).min(reference.len() as u32);
    let tally = Tally::of(evidence, reference, from, to);
    let chains = chains(&tally);
    let mut windows: Vec<Window> = Vec::new();
    for chain in chains {
        cut(chain, &tally, &mut windows);
    }
    widen(&mut windows, reference.len() as u32);
    windows.retain(|window| window.end > start && window.start < end);
    windows
}

/// Widens windows by the reach of their kind; between two that are close, each gets its share.
/// Windows cut from one chain touch and stay as they are.
fn widen(windows: &mut [Window], length: u32) {
    let reach = |window: &Window| CORE_REACH[window.kind()];
    if let Some(first) = windows.first_mut() {
        first.start = first.start.saturating_sub(reach(first));
    }
    for at in 1..windows.len() {
        let gap = windows[at].start - windows[at - 1].end;
        let (before, after) = (reach(&windows[at - 1]), reach(&windows[at]));
        let left = before.min((gap / 2).max(gap.saturating_sub(after)));
        windows[at - 1].end += left;
        windows[at].start -= after.min(gap - left);
    }
    if let Some(last) = windows.last_mut() {
        last.end = (last.end + reach(last)).min(length);
    }
}

impl Window {
    /// 0 for substitutions, 1 with gaps, 2 with clipped reads: an index of limits by kind.
    pub(super) fn kind(&self) -> usize {
        if self.clipped { 2 } else { usize::from(self.gapped) }
    }
}

impl Tally {
    fn of(evidence: &[Evidence], reference: &[u8], start: u32, end: u32) -> Self {
        let length = (end - start) as usize;
        let mut tally = Self {
            start,
            depth: vec![0; length + 1],
            differing: vec![[0; 4]; length],
            gaps: vec![[0; 3]; length],
            clips_near: Vec::new(),
            long_gaps: vec![0; length],
            reach: vec![0; length],
        };
        for read in evidence {
            if read.end > start && read.start < end {
                tally.add(read, reference, end);
            }
        }
        let mut depth = 0;
        for change in &mut tally.depth {
            depth += *change;
            *change = depth;
        }
        tally.clips_near = vec![0; length];
        let mut near = 0u16;
        for at in 0..length {
            near += tally.gaps[at][2];
            if at >= CLIP_SPREAD {
                near -= tally.gaps[at - CLIP_SPREAD][2];
            }
            // Only where one begins, so that quiet positions stay quiet.
            tally.clips_near[at] = if tally.gaps[at][2] > 0 { near } else { 0 };
        }
        tally
    }

    fn add(&mut self, read: &Evidence, reference: &[u8], end: u32) {
        let start = self.start;
        self.depth[read.start.saturating_sub(start) as usize] += 1;
        self.depth[(read.end.min(end) - start) as usize] -= 1;
        for run in read.placed() {
            let gap = match run.kind {
                Kind::Match => {
                    let from = run.reference.max(start);
                    let to = (run.reference + run.length).min(end);
                    if from < to {
                        let at = (run.read + from - run.reference) as usize;
                        self.differences(read, at, &reference[from as usize..to as usize], from);
                    }
                    continue;
                }
                Kind::Deletion => 0,
                Kind::Insertion => 1,
                Kind::Clip => {
                    if run.length < CLIP_BASES_MIN {
                        continue;
                    }
                    2
                }
            };
            if (start..end).contains(&run.reference) {
                let at = (run.reference - start) as usize;
                self.gaps[at][gap] = (self.gaps[at][gap] + 1).min(COUNT_MAX);
                if run.kind != Kind::Clip && run.length >= LONG_GAP_BASES {
                    self.long_gaps[at] = (self.long_gaps[at] + 1).min(COUNT_MAX);
                }
                if run.kind == Kind::Deletion {
                    let length = u16::try_from(run.length).unwrap_or(u16::MAX);
                    self.reach[at] = self.reach[at].max(length);
                }
            }
        }
    }

    fn differences(&mut self, read: &Evidence, at: usize, reference: &[u8], from: u32) {
        const STEP: usize = 32;
        let bases = &read.bases[at..at + reference.len()];
        for (step, (ours, theirs)) in bases.chunks(STEP).zip(reference.chunks(STEP)).enumerate() {
            if ours == theirs {
                continue;
            }
            for (offset, (&base, &other)) in ours.iter().zip(theirs).enumerate() {
                let offset = step * STEP + offset;
                let quality = read.qualities[at + offset];
                if base != other && base.max(other) < 4 && quality >= QUALITY_MIN {
                    let on = (from - self.start) as usize + offset;
                    self.differing[on][usize::from(base)] += u32::from(quality);
                }
            }
        }
    }

    /// Whether gaps and clips are active in `[start, end)` or near.
    fn kinds(&self, start: u32, end: u32) -> (bool, bool) {
        let near = |reach: u32, from: u32| from.saturating_sub(reach).saturating_sub(self.start);
        let reach = CORE_REACH[2];
        let to = ((end + reach - self.start) as usize).min(self.differing.len());
        let from = (near(reach + CUT_BASES, start) as usize).min(to);
        let (mut gapped, mut clipped) = (false, false);
        for at in from..to {
            let Some((gap, clip, length)) = self.active(at) else { continue };
            let position = self.start + at as u32;
            gapped |= gap && position + length + reach >= start;
            clipped |= clip && position + reach >= start;
        }
        (gapped, clipped)
    }

    /// Ends of the active stretch at index `at`, if it is active: (gapped, clipped, length).
    fn active(&self, at: usize) -> Option<(bool, bool, u32)> {
        let depth = self.depth[at].max(0) as u32;
        let weight = self.differing[at].iter().copied().max().unwrap_or(0);
        let differs = weight >= WEIGHT_MIN.max(WEIGHT_PER_READ * depth);
        let [deletions, insertions, _] = self.gaps[at].map(u32::from);
        let (gaps, clips) = (deletions.max(insertions), u32::from(self.clips_near[at]));
        let gapped = gaps >= 2 && gaps * 12 >= depth || u32::from(self.long_gaps[at]) >= 2;
        let clipped = clips >= 3 && clips * 8 >= depth;
        let length = if gapped && deletions > 0 { u32::from(self.reach[at]).max(1) } else { 1 };
        (differs || gapped || clipped).then_some((gapped, clipped, length.min(CUT_BASES)))
    }
}

/// Active stretches joined where they are close.
fn chains(tally: &Tally) -> Vec<Window> {
    let mut chains: Vec<Window> = Vec::new();
    for at in 0..tally.differing.len() {
        let Some((gapped, clipped, length)) = tally.active(at) else { continue };
        let start = tally.start + at as u32;
        let end = start + length;
        match chains.last_mut() {
            Some(last) if start <= last.end + JOIN_BASES => {
                last.end = last.end.max(end);
                last.gapped |= gapped;
                last.clipped |= clipped;
            }
            _ => chains.push(Window { start, end, gapped, clipped }),
        }
    }
    chains
}

/// Cuts a chain that is too long at fixed places of the contig, so that it does not matter where
/// the chain was first seen.
fn cut(chain: Window, tally: &Tally, windows: &mut Vec<Window>) {
    if chain.end - chain.start <= WINDOW_BASES_MAX {
        windows.push(chain);
        return;
    }
    let mut start = chain.start;
    while start < chain.end {
        let end = ((start / CUT_BASES + 1) * CUT_BASES).min(chain.end);
        let (gapped, clipped) = tally.kinds(start, end);
        windows.push(Window { start, end, gapped, clipped });
        start = end;
    }
}
