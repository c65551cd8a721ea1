//! Haplotypes straight from the reads' own alignments.

use std::collections::HashMap;

use super::evidence::{Evidence, Kind};
use super::haplotype::{Event, Stretch};

/// Most events that are combined in one window.
const EVENTS_MAX: usize = 32;
/// Most combinations that are kept.
const COMBINATIONS_MAX: usize = 16;
/// Differing bases of less quality make no event.
const QUALITY_MIN: u8 = 10;
/// Templates that an event needs, and the share of those that cover it, as a divisor.
const TEMPLATES_MIN: usize = 2;
const TEMPLATES_DIVISOR: usize = 14;

/// What one template says about each of the chosen events, as bits.
#[derive(Clone, Copy, Default)]
struct Witness {
    covers: u64,
    has: u64,
}

/// Combinations of the events that the alignments show, best supported first.
pub(super) fn combinations(reads: &[&Evidence], stretch: Stretch<'_>) -> Vec<Vec<Event>> {
    let seen = seen_events(reads, stretch);
    let events = choose(reads, &seen);
    let witnesses = witnesses(reads, &seen, &events);
    combine(&events, &witnesses)
        .into_iter()
        .map(|chosen| {
            let taken = events.iter().enumerate().filter(|(at, _)| chosen >> at & 1 == 1);
            taken.map(|(_, event)| event.clone()).collect()
        })
        .collect()
}

/// The events of each read.
fn seen_events(reads: &[&Evidence], stretch: Stretch<'_>) -> Vec<Vec<Event>> {
    let end = stretch.start + stretch.bases.len() as u32;
    reads.iter().map(|read| events_of(read, stretch, end)).collect()
}

fn events_of(read: &Evidence, stretch: Stretch<'_>, end: u32) -> Vec<Event> {
    let mut events = Vec::new();
    for run in read.placed() {
        match run.kind {
            Kind::Match => {
                let from = run.reference.max(stretch.start);
                let to = (run.reference + run.length).min(end);
                for position in from..to {
                    let at = (run.read + position - run.reference) as usize;
                    let base = read.bases[at];
                    let reference = stretch.bases[(position - stretch.start) as usize];
                    if base != reference
                        && base.max(reference) < 4
                        && read.qualities[at] >= QUALITY_MIN
                    {
                        events.push(Event { position, removed: 1, inserted: vec![base] });
                    }
                }
            }
            Kind::Insertion if (stretch.start + 1..end).contains(&run.reference) => {
                let bases = &read.bases[run.read as usize..(run.read + run.length) as usize];
                if bases.iter().all(|&base| base < 4) {
                    let inserted = bases.to_vec();
                    events.push(Event { position: run.reference, removed: 0, inserted });
                }
            }
            Kind::Deletion if run.reference > stretch.start && run.reference + run.length < end => {
                let (position, removed) = (run.reference, run.length);
                events.push(Event { position, removed, inserted: Vec::new() });
            }
            _ => {}
        }
    }
    events
}

/// The events with enough support, in order of position.
fn choose(reads: &[&Evidence], seen: &[Vec<Event>]) -> Vec<Event> {
    let mut support: HashMap<&Event, usize> = HashMap::new();
    for event in seen.iter().flatten() {
        *support.entry(event).or_default() += 1;
    }
    let mut chosen: Vec<(usize, &Event)> = support
        .into_iter()
        .filter(|&(event, count)| {
            count >= TEMPLATES_MIN && {
                let covering = reads.iter().filter(|read| covers(read, event)).count();
                count * TEMPLATES_DIVISOR >= covering
            }
        })
        .map(|(event, count)| (count, event))
        .collect();
    chosen.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(b.1)));
    chosen.truncate(EVENTS_MAX);
    let mut events: Vec<Event> = chosen.into_iter().map(|(_, event)| event.clone()).collect();
    events.sort();
    events
}

fn covers(read: &Evidence, event: &Event) -> bool {
    read.start < event.position && read.end > event.end()
        || (!event.is_indel() && read.start <= event.position && read.end >= event.end())
}

fn witnesses(reads: &[&Evidence], seen: &[Vec<Event>], events: &[Event]) -> Vec<Witness> {
    let mut by_template: HashMap<u64, Witness> = HashMap::new();
    for (read, seen) in reads.iter().zip(seen) {
        let mut witness = Witness::default();
        for (at, event) in events.iter().enumerate() {
            if !covers(read, event) {
                continue;
            }
            let has = seen.contains(event);
            let unsure = !has && !event.is_indel() && {
                let at = read.read_base_at(event.position) as usize;
                read.qualities.get(at).is_none_or(|&quality| quality < QUALITY_MIN)
            };
            if !unsure {
                witness.covers |= 1 << at;
                witness.has |= u64::from(has) << at;
            }
        }
        let all = by_template.entry(read.template).or_default();
        all.covers |= witness.covers;
        all.has |= witness.has;
    }
    by_template.into_values().filter(|witness| witness.covers != 0).collect()
}

/// Sets of events, each grown event by event; those that most templates agree with are kept.
fn combine(events: &[Event], witnesses: &[Witness]) -> Vec<u64> {
    let mut kept: Vec<(usize, u64)> = vec![(0, 0)];
    for (at, event) in events.iter().enumerate() {
        let known = (1u64 << (at + 1)) - 1;
        let mut grown = Vec::with_capacity(kept.len() * 2);
        for &(_, chosen) in &kept {
            grown.push(chosen);
            let fits = events[..at]
                .iter()
                .enumerate()
                .all(|(before, other)| chosen >> before & 1 == 0 || other.fits_with(event));
            if fits {
                grown.push(chosen | 1 << at);
            }
        }
        kept = grown
            .into_iter()
            .map(|chosen| {
                let agree =
                    |witness: &&Witness| (witness.has ^ chosen) & witness.covers & known == 0;
                (witnesses.iter().filter(agree).count(), chosen)
            })
            .collect();
        kept.sort_by_key(|&(agree, chosen)| (std::cmp::Reverse(agree), chosen));
        kept.truncate(COMBINATIONS_MAX);
    }
    let mut found: Vec<u64> =
        kept.into_iter().map(|(_, chosen)| chosen).filter(|&chosen| chosen != 0).collect();
    // Each event alone too, should its combinations have been crowded out.
    for at in 0..events.len() {
        if !found.iter().any(|chosen| chosen >> at & 1 == 1) {
            found.push(1 << at);
        }
    }
    found
}
