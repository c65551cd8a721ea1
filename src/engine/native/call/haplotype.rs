//! Candidate haplotypes of a window, and the events that make them from the reference.

/// A change of the reference: bases removed and others inserted in their place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Event {
    /// First removed base, or the base before which the inserted ones stand.
    pub(super) position: u32,
    /// Number of reference bases removed.
    pub(super) removed: u32,
    /// Base codes inserted.
    pub(super) inserted: Vec<u8>,
}

impl Event {
    /// One past the last removed base.
    pub(super) fn end(&self) -> u32 {
        self.position + self.removed
    }

    /// Whether it changes the length.
    pub(super) fn is_indel(&self) -> bool {
        self.removed as usize != self.inserted.len()
    }

    /// Whether both can be on one haplotype.
    pub(super) fn fits_with(&self, other: &Self) -> bool {
        let (first, second) = if self <= other { (self, other) } else { (other, self) };
        first.end() <= second.position && first.position != second.position
            || (first.position == second.position
                && first.removed == 0
                && second.removed > 0
                && !second.is_indel())
    }
}

/// Reference bases of a window: `bases[0]` lies on contig position `start`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stretch<'a> {
    pub(super) start: u32,
    pub(super) bases: &'a [u8],
}

/// A candidate haplotype.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Haplotype {
    pub(super) bases: Vec<u8>,
    /// What differs from the reference, in order, at the left of repeats.
    pub(super) events: Vec<Event>,
}

impl Haplotype {
    /// The haplotype that `events` make; they fit with each other and are in order.
    pub(super) fn from_events(stretch: Stretch<'_>, events: &[Event]) -> Self {
        let mut bases = Vec::with_capacity(stretch.bases.len() + 16);
        let mut next = 0;
        for event in events {
            let at = (event.position - stretch.start) as usize;
            bases.extend_from_slice(&stretch.bases[next.min(at)..at]);
            bases.extend_from_slice(&event.inserted);
            next = at + event.removed as usize;
        }
        bases.extend_from_slice(&stretch.bases[next.min(stretch.bases.len())..]);
        Self::from_bases(stretch, bases)
    }

    /// The haplotype of these bases; its events come from an alignment to the reference.
    pub(super) fn from_bases(stretch: Stretch<'_>, bases: Vec<u8>) -> Self {
        let events = events(stretch, &bases);
        Self { bases, events }
    }

    /// Shift of diagonals from events that end at or before `position`.
    pub(super) fn shift_at(&self, position: u32) -> i32 {
        let before = self.events.iter().take_while(|event| event.end() <= position);
        before.map(|event| event.inserted.len() as i32 - event.removed as i32).sum()
    }
}

/// Most differing bases that are taken as substitutions without an alignment.
const SUBSTITUTIONS_MAX: usize = 3;

fn events(stretch: Stretch<'_>, bases: &[u8]) -> Vec<Event> {
    let reference = stretch.bases;
    let same = reference.iter().zip(bases).take_while(|(a, b)| a == b).count();
    let most = reference.len().min(bases.len()) - same;
    let tail = reference.iter().rev().zip(bases.iter().rev());
    let tail = tail.take_while(|(a, b)| a == b).count().min(most);
    let (from, to) = (&reference[same..reference.len() - tail], &bases[same..bases.len() - tail]);
    let at = stretch.start + same as u32;
    let mut found = Vec::new();
    if from.is_empty() || to.is_empty() {
        if from.len() != to.len() {
            let event = Event { position: at, removed: from.len() as u32, inserted: to.to_vec() };
            found.push(event);
        }
    } else {
        let differing = from.iter().zip(to).filter(|(a, b)| a != b).count();
        if from.len() == to.len() && differing <= SUBSTITUTIONS_MAX {
            substitutions(at, from, to, &mut found);
        } else {
            align(at, from, to, &mut found);
        }
    }
    left_align(stretch, &mut found);
    found
}

fn substitutions(at: u32, from: &[u8], to: &[u8], found: &mut Vec<Event>) {
    for (offset, (&a, &b)) in from.iter().zip(to).enumerate() {
        if a != b {
            found.push(Event { position: at + offset as u32, removed: 1, inserted: vec![b] });
        }
    }
}

const DIFFER: i32 = 4;
const OPEN: i32 = 6;
const EXTEND: i32 = 1;
const FAR: i32 = i32::MAX / 2;

/// Global alignment with affine gap costs (Gotoh 1982), traced back to events.
fn align(at: u32, from: &[u8], to: &[u8], found: &mut Vec<Event>) {
    let columns = to.len() + 1;
    // States: 0 both, 1 reference only (deletion), 2 haplotype only (insertion).
    let mut cost = vec![[FAR; 3]; (from.len() + 1) * columns];
    cost[0][0] = 0;
    for row in 0..=from.len() {
        for column in 0..columns {
            let here = row * columns + column;
            if row > 0 && column > 0 {
                let differ = if from[row - 1] == to[column - 1] { 0 } else { DIFFER };
                let before = cost[here - columns - 1];
                cost[here][0] = before.iter().min().map_or(FAR, |best| best + differ);
            }
            if row > 0 {
                let before = cost[here - columns];
                cost[here][1] = (before[0].min(before[2]) + OPEN + EXTEND).min(before[1] + EXTEND);
            }
            if column > 0 {
                let before = cost[here - 1];
                cost[here][2] = (before[0].min(before[1]) + OPEN + EXTEND).min(before[2] + EXTEND);
            }
            cost[here] = cost[here].map(|cost| cost.min(FAR));
        }
    }
    trace(at, from, to, &cost, found);
}

fn trace(at: u32, from: &[u8], to: &[u8], cost: &[[i32; 3]], found: &mut Vec<Event>) {
    let columns = to.len() + 1;
    let (mut row, mut column) = (from.len(), to.len());
    let best = |cell: [i32; 3], order: [usize; 3]| {
        let mut state = order[0];
        for next in order {
            if cell[next] < cell[state] {
                state = next;
            }
        }
        state
    };
    let mut state = best(cost[row * columns + column], [0, 1, 2]);
    let mut backwards: Vec<Event> = Vec::new();
    let mut open = false;
    while row > 0 || column > 0 {
        let here = row * columns + column;
        let now = cost[here][state];
        match state {
            0 => {
                (row, column, open) = (row - 1, column - 1, false);
                if from[row] != to[column] {
                    let position = at + row as u32;
                    let inserted = vec![to[column]];
                    backwards.push(Event { position, removed: 1, inserted });
                }
                state = best(cost[row * columns + column], [0, 1, 2]);
            }
            1 => {
                row -= 1;
                let position = at + row as u32;
                match backwards.last_mut().filter(|_| open) {
                    Some(last) => (last.position, last.removed) = (position, last.removed + 1),
                    None => backwards.push(Event { position, removed: 1, inserted: Vec::new() }),
                }
                let before = cost[row * columns + column];
                open = before[1] + EXTEND == now;
                state = if open { 1 } else { best(before, [0, 2, 0]) };
            }
            _ => {
                column -= 1;
                let base = to[column];
                match backwards.last_mut().filter(|_| open) {
                    Some(last) => last.inserted.insert(0, base),
                    None => backwards.push(Event {
                        position: at + row as u32,
                        removed: 0,
                        inserted: vec![base],
                    }),
                }
                let before = cost[row * columns + column];
                open = before[2] + EXTEND == now;
                state = if open { 2 } else { best(before, [0, 1, 0]) };
            }
        }
    }
    found.extend(backwards.into_iter().rev());
}

/// Moves each insertion and deletion as far left as the bases allow, up to the event before.
fn left_align(stretch: Stretch<'_>, events: &mut [Event]) {
    let mut floor = stretch.start;
    for event in events.iter_mut() {
        let pure = event.removed == 0 || event.inserted.is_empty();
        while pure && event.is_indel() && event.position > floor {
            let before = stretch.bases[(event.position - stretch.start - 1) as usize];
            let last = match event.inserted.last() {
                Some(&last) => last,
                None => stretch.bases[(event.end() - stretch.start - 1) as usize],
            };
            if before != last {
                break;
            }
            event.position -= 1;
            if !event.inserted.is_empty() {
                event.inserted.rotate_right(1);
            }
        }
        floor = event.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codes(letters: &str) -> Vec<u8> {
        letters.bytes().map(crate::genome::reference::base_code).collect()
    }

    fn check(reference: &str, haplotype: &str) -> Vec<Event> {
        let reference = codes(reference);
        let stretch = Stretch { start: 100, bases: &reference };
        let made = Haplotype::from_bases(stretch, codes(haplotype));
        let again = Haplotype::from_events(stretch, &made.events);
        assert_eq!(again.bases, made.bases);
        made.events
    }

    #[test]
    fn a_deletion_stands_left_in_its_repeat() {
        let events = check("ACGTTTTTTGCA", "ACGTTTTTGCA");
        assert_eq!(events, [Event { position: 103, removed: 1, inserted: vec![] }]);
        let events = check("ACGATATATGCA", "ACGATATATATGCA");
        assert_eq!(events, [Event { position: 103, removed: 0, inserted: codes("AT") }]);
    }

    #[test]
    fn substitutions_stay_substitutions() {
        let events = check("ACGTTGACCGTA", "ACCTTGATCGTA");
        assert_eq!(events.len(), 2);
        assert!(events.iter().all(|event| !event.is_indel()));
        assert!(check("ACGT", "ACGT").is_empty());
    }

    #[test]
    fn a_substitution_and_a_deletion_are_told_apart() {
        let events = check("ACGTGCATCGATTACAGGCTAAGC", "ACGTGTATCGATTACACTAAGC");
        assert_eq!(events.len(), 2, "{events:?}");
        assert_eq!(events[0], Event { position: 105, removed: 1, inserted: codes("T") });
        assert_eq!(events[1].removed, 2);
    }

    proptest::proptest! {
        #[test]
        fn events_make_the_haplotype_again(
            reference in proptest::collection::vec(0u8..4, 1..40),
            bases in proptest::collection::vec(0u8..4, 1..40),
        ) {
            let stretch = Stretch { start: 7, bases: &reference };
            let made = Haplotype::from_bases(stretch, bases.clone());
            let again = Haplotype::from_events(stretch, &made.events);
            proptest::prop_assert_eq!(again.bases, bases);
        }
    }
}
