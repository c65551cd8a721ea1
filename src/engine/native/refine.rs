//! Doubtful hits aligned with gaps, and what lies at one place twice dropped.

use super::extend::{Bench, Hit};
use super::group::Group;
use super::map::Mapper;
use super::packed::PackedGenome;
use super::pair::score_min;
use crate::device::{Error, Queue};

/// Doubtful hits of a read that are aligned with gaps.
const REFINED_MAX: usize = 16;

/// Aligns the doubtful hits of all reads of a group with gaps. Errors: the device's.
pub fn refine(
    group: &mut Group,
    bench: &mut Bench,
    mapper: &Mapper,
    queue: &mut dyn Queue,
) -> Result<(), Error> {
    for read in 0..group.len() {
        let mut hits = std::mem::take(&mut group.all_hits()[read]);
        add_doubtful(group, read, &mut hits, mapper, bench);
        group.all_hits()[read] = hits;
        if bench.is_full() {
            bench.run(queue, mapper.scores(), group.all_hits())?;
        }
    }
    bench.run(queue, mapper.scores(), group.all_hits())?;
    let genome = mapper.index().genome();
    for read in 0..group.len() {
        let length = group.length(read);
        let hits = &mut group.all_hits()[read];
        drop_repeated(hits);
        if genome.has_alternates() {
            drop_alternates(hits, length, genome);
        }
    }
    Ok(())
}

fn add_doubtful(group: &Group, read: usize, hits: &mut [Hit], mapper: &Mapper, bench: &mut Bench) {
    let (view, scores) = (group.view(read), mapper.scores());
    let best = hits.iter().map(|hit| hit.score).max().unwrap_or(0);
    // Beside a place without a gap that is as good, one that needs a gap can only be second.
    let gapped = view.codes.len() as i32 - i32::from(scores.gap_open + scores.gap_extend);
    let bar = if best >= gapped { best - 40 } else { i32::MIN };
    let mut left = REFINED_MAX;
    for number in 0..hits.len() {
        let (before, [hit, ..]) = hits.split_at_mut(number) else { break };
        if left == 0 || !hit.doubtful || hit.score < bar {
            continue;
        }
        // Two diagonals of one group: the first one's window holds the other's, too.
        let same = |other: &Hit| {
            other.reverse == hit.reverse
                && other.diagonals == hit.diagonals
                && other.diagonals.0 != other.diagonals.1
                && !other.doubtful
        };
        if before.iter().any(same) {
            continue;
        }
        left -= 1;
        bench.add(mapper.index().genome(), &view, (read, number), hit);
    }
}

/// Drops the hits on alternate contigs of a read that has a place on another: they are the same
/// place again, and say nothing against it.
fn drop_alternates(hits: &mut Vec<Hit>, length: usize, genome: &PackedGenome) {
    let primary =
        |hit: &Hit| hit.score >= score_min(length) && !genome.is_alternate(hit.position());
    if hits.iter().any(primary) {
        hits.retain(|hit| !genome.is_alternate(hit.position()));
    }
}

fn is_repeated(a: &Hit, b: &Hit) -> bool {
    a.reverse == b.reverse && (a.start == b.start || a.end == b.end)
}

/// Keeps one of several hits that came to lie at the same place.
fn drop_repeated(hits: &mut Vec<Hit>) {
    if hits.len() > 1 && hits.iter().any(|hit| hit.runs.is_some()) {
        let mut kept: Vec<Hit> = Vec::with_capacity(hits.len());
        for hit in hits.drain(..) {
            match kept.iter_mut().find(|other| is_repeated(other, &hit)) {
                Some(other) if other.score < hit.score => *other = hit,
                Some(_) => {}
                None => kept.push(hit),
            }
        }
        *hits = kept;
    }
}
