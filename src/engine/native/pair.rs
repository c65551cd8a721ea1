//! Choosing among the hits of a template: the best place, whether its mates belong together, and
//! how sure that is.

use super::extend::Hit;
use super::insert::InsertModel;

/// The place chosen for one read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Index among the read's hits.
    pub hit: usize,
    /// MAPQ.
    pub quality: u8,
}

/// What was chosen for a template.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PairChoice {
    /// The two mates; `None` for one that has no place.
    pub mates: [Option<Choice>; 2],
    /// Whether they lie as the two ends of one template.
    pub proper: bool,
    /// Points of the pair.
    pub score: i32,
}

/// Points that two mates lose which do not belong together (Li 2013, arXiv:1303.3997).
const UNPAIRED: i32 = 17;

/// Highest MAPQ.
const QUALITY_MAX: i32 = 60;

/// Phred units that a point of difference to the second best is worth.
const PHRED_PER_POINT: i32 = 6;

/// Points within which a further place is as good as the second best.
const RIVAL_POINTS: i32 = 5;

/// Points that a read would get by chance somewhere: the second best when there is none.
const CHANCE_POINTS: i32 = 19;

/// Distance of ends below which two hits are one place: less than the period of most tandem
/// repeats that matter, whose copies are places of their own.
const SAME_BASES: u32 = 12;

/// Fewest points of a read that counts as placed.
pub fn score_min(length: usize) -> i32 {
    (length as i32 * 7 / 10).min(30)
}

/// Chooses the place of a read without a mate. `left_out` is the share of its seeds, in 256ths,
/// that were too common to look at.
pub fn choose_single(hits: &[Hit], length: usize, salt: u64, left_out: u32) -> Option<Choice> {
    let totals = hits.iter().map(|hit| hit.score);
    let best = best_of(totals.clone(), hits, salt)?;
    let score = hits[best].score;
    if score < score_min(length) {
        return None;
    }
    let standing = standing(hits, best, &totals);
    let quality = standing.quality(left_out).min(trust(score, length));
    Some(Choice { hit: best, quality })
}

/// Chooses the places of two mates together.
pub fn choose_pair(
    hits: [&[Hit]; 2],
    lengths: [usize; 2],
    model: &InsertModel,
    salt: u64,
    left_out: [u32; 2],
) -> PairChoice {
    let single = |mate: usize| choose_single(hits[mate], lengths[mate], salt, left_out[mate]);
    let apart = [single(0), single(1)];
    let Some((pair, score, totals)) = best_pair(hits, lengths, model, salt) else {
        return PairChoice { mates: apart, proper: false, score: 0 };
    };
    let points = |mate: usize| apart[mate].map_or(0, |choice: Choice| hits[mate][choice.hit].score);
    if points(0) + points(1) - UNPAIRED > score {
        return PairChoice { mates: apart, proper: false, score: 0 };
    }
    let mates = [0, 1].map(|mate| {
        let chosen = pair[mate];
        let own = hits[mate][chosen].score;
        let standing = standing(hits[mate], chosen, &totals[mate].iter().copied());
        let both = hits[0][pair[0]].score + hits[1][pair[1]].score;
        let weak = trust_in_pair(own, both, lengths);
        Some(Choice { hit: chosen, quality: standing.quality(left_out[mate]).min(weak) })
    });
    PairChoice { mates, proper: true, score }
}

/// The best proper pair, its points, and the best total of each hit of each mate.
type BestPair = ([usize; 2], i32, [Vec<i32>; 2]);

fn best_pair(
    hits: [&[Hit]; 2],
    lengths: [usize; 2],
    model: &InsertModel,
    salt: u64,
) -> Option<BestPair> {
    let top = |mate: usize| hits[mate].iter().map(|hit| hit.score).max();
    let alone = [top(1)? - UNPAIRED, top(0)? - UNPAIRED];
    let mut totals =
        [0, 1].map(|mate| hits[mate].iter().map(|hit| hit.score + alone[mate]).collect::<Vec<_>>());
    let mut best: Option<(i32, u64, [usize; 2])> = None;
    for (i, first) in hits[0].iter().enumerate() {
        for (j, second) in hits[1].iter().enumerate() {
            let Some(penalty) = template_length(first, second).and_then(|l| model.penalty(l))
            else {
                continue;
            };
            let weakest = score_min(lengths[0].min(lengths[1])).min(CHANCE_POINTS);
            if first.score.min(second.score) < weakest {
                continue;
            }
            let total = first.score + second.score - penalty;
            totals[0][i] = totals[0][i].max(total);
            totals[1][j] = totals[1][j].max(total);
            let order = (total, lot(first, salt) ^ lot(second, salt), [i, j]);
            if best.is_none_or(|best| (order.0, order.1) > (best.0, best.1)) {
                best = Some(order);
            }
        }
    }
    best.map(|(score, _, pair)| (pair, score, totals))
}

/// Distance of the outer ends when the hits face each other.
#[inline]
pub fn template_length(first: &Hit, second: &Hit) -> Option<i64> {
    let (forward, backward) = match (first.reverse, second.reverse) {
        (false, true) => (first, second),
        (true, false) => (second, first),
        _ => return None,
    };
    Some(i64::from(backward.end) - i64::from(forward.start))
}

/// Equally good places are drawn by lot, so that repeats are covered evenly.
fn lot(hit: &Hit, salt: u64) -> u64 {
    let mixed = (u64::from(hit.start) ^ salt.rotate_left(32)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed ^ mixed >> 29).wrapping_mul(0xBF58_476D_1CE4_E5B9)
}

fn best_of(totals: impl Iterator<Item = i32>, hits: &[Hit], salt: u64) -> Option<usize> {
    let ranked = totals.zip(hits).enumerate();
    ranked.max_by_key(|(index, (total, hit))| (*total, lot(hit, salt), *index)).map(|found| found.0)
}

/// How the chosen place compares to the others.
struct Standing {
    lead: i32,
    rivals: u32,
    alone: bool,
}

fn standing(hits: &[Hit], chosen: usize, totals: &(impl Iterator<Item = i32> + Clone)) -> Standing {
    let winner = &hits[chosen];
    let others = totals.clone().zip(hits).filter(|(_, hit)| !same_place(hit, winner));
    let total = totals.clone().nth(chosen).unwrap_or(0);
    let second = others.clone().map(|(total, _)| total).max();
    let floor = total - winner.score + CHANCE_POINTS;
    let bar = second.unwrap_or(floor).max(floor);
    let rivals = others.filter(|(total, _)| *total > bar - RIVAL_POINTS).count() as u32;
    Standing { lead: total - bar, rivals, alone: second.is_none() }
}

/// Whether two hits are one place aligned in two ways: a gap may have moved one of the ends.
fn same_place(a: &Hit, b: &Hit) -> bool {
    a.reverse == b.reverse
        && (a.start.abs_diff(b.start) <= SAME_BASES || a.end.abs_diff(b.end) <= SAME_BASES)
}

impl Standing {
    fn quality(&self, left_out: u32) -> u8 {
        if self.lead <= 0 && !self.alone {
            return 0;
        }
        // Each rival is a place that a variant of the sample may have made the right one.
        let crowd = (4.343 * f64::from(self.rivals + 1).ln()) as i32;
        // Places that only common seeds name were not looked at: one of them may be better than
        // the second best, so that a lead says less the more seeds were left out.
        let seen = if left_out > 128 { 448 - 3 * left_out as i32 / 2 } else { 256 };
        let lead = PHRED_PER_POINT * self.lead * seen / 256;
        (lead.min(QUALITY_MAX + crowd) - crowd).clamp(0, QUALITY_MAX) as u8
    }
}

/// Highest MAPQ of a read by its own points: weak hits may come from elsewhere altogether.
fn trust(score: i32, length: usize) -> u8 {
    let length = length as i32;
    let (floor, span) = ((length * 9 / 20).min(25), (length * 2 / 5).clamp(1, 40));
    (QUALITY_MAX * (score - floor) / span).clamp(0, QUALITY_MAX) as u8
}

/// The same for a mate of a proper pair, whose distance speaks for it.
fn trust_in_pair(own: i32, both: i32, lengths: [usize; 2]) -> u8 {
    let length = lengths[0].min(lengths[1]);
    let pair = trust((both - CHANCE_POINTS).max(0), length);
    let alone = (QUALITY_MAX * (own - 10) / (length as i32 / 5).clamp(1, 30)).clamp(0, QUALITY_MAX);
    pair.min(alone as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hit(start: u32, reverse: bool, score: i32) -> Hit {
        Hit {
            reverse,
            start,
            end: start + 150,
            score,
            query_start: 0,
            query_end: 150,
            doubtful: false,
            diagonals: (start, start),
            runs: None,
        }
    }

    #[test]
    fn a_clear_lead_is_sure_and_a_tie_is_not() {
        let sure = choose_single(&[hit(5000, false, 150), hit(9000, true, 60)], 150, 1, 0).unwrap();
        assert_eq!((sure.hit, sure.quality), (0, 60));
        let tie = choose_single(&[hit(5000, false, 150), hit(9000, true, 150)], 150, 1, 0).unwrap();
        assert_eq!(tie.quality, 0);
        let near =
            choose_single(&[hit(5000, false, 150), hit(9000, true, 145)], 150, 1, 0).unwrap();
        assert_eq!((near.hit, near.quality), (0, 27));
    }

    #[test]
    fn weak_reads_have_no_place() {
        assert_eq!(choose_single(&[hit(5000, false, 29)], 150, 1, 0), None);
        assert_eq!(choose_single(&[], 150, 1, 0), None);
        assert!(choose_single(&[hit(5000, false, 32)], 150, 1, 0).unwrap().quality < 20);
    }

    #[test]
    fn the_mate_decides_between_copies() {
        let first = [hit(50_000, false, 150), hit(90_000, false, 150)];
        let second = [hit(90_300, true, 140)];
        let model = InsertModel::default();
        let chosen = choose_pair([&first, &second], [150, 150], &model, 7, [0, 0]);
        assert!(chosen.proper);
        let [Some(a), Some(b)] = chosen.mates else { panic!("both are placed") };
        assert_eq!((a.hit, b.hit), (1, 0));
        assert!(a.quality == 60 && b.quality == 60, "{a:?} {b:?}");
    }

    #[test]
    fn far_mates_stay_apart() {
        let model = InsertModel::default();
        let (first, second) = ([hit(50_000, false, 150)], [hit(250_000, true, 150)]);
        let chosen = choose_pair([&first, &second], [150, 150], &model, 7, [0, 0]);
        assert!(!chosen.proper && chosen.mates.iter().all(Option::is_some));
        let alone = choose_pair([&first, &[]], [150, 150], &model, 7, [0, 0]);
        assert!(alone.mates[0].is_some() && alone.mates[1].is_none());
    }
}
