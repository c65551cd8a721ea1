//! The insert-size model: how far apart the two ends of a template lie.

/// Distances between the outer ends of the two mates, and what an unusual one costs.
#[derive(Clone, Debug, PartialEq)]
pub struct InsertModel {
    /// Shortest template of a proper pair, in bases.
    pub low: u32,
    /// Longest.
    pub high: u32,
    /// Mean, in bases.
    pub mean: f64,
    /// Standard deviation, in bases.
    pub deviation: f64,
    /// Points that each length from 0 to `high` costs.
    penalties: Vec<u8>,
}

/// Templates at the beginning of the input that the model is learnt from.
pub const LEARNT_TEMPLATES: u64 = 5000;

/// Fewer lengths than this teach nothing.
const LENGTHS_MIN: usize = 50;

/// Templates shorter than this are taken for accidents.
const LOW: u32 = 20;

/// Longest template that is learnt from or taken as proper, in bases.
const HIGH_MAX: u32 = 20_000;

/// Most points that an unusual length costs.
const PENALTY_MAX: f64 = 9.0;

impl InsertModel {
    /// A model by mean and deviation; proper pairs reach up to `high`.
    fn new(mean: f64, deviation: f64, high: u32) -> Self {
        // One point is a factor of four in likelihood: a match's score against a random base.
        let points = |length: u32| {
            let z = (f64::from(length) - mean) / deviation;
            (0.5 * z * z / 4f64.ln()).min(PENALTY_MAX).round() as u8
        };
        Self { low: LOW, high, mean, deviation, penalties: (0..=high).map(points).collect() }
    }

    /// Learns from the template lengths of well-mapped pairs; the usual model without enough.
    ///
    /// Source of the bounds: quartiles and their distance, as in Li 2013, arXiv:1303.3997.
    pub fn learn(mut lengths: Vec<u32>) -> Self {
        lengths.retain(|&length| (LOW..=HIGH_MAX).contains(&length));
        if lengths.len() < LENGTHS_MIN {
            return Self::default();
        }
        lengths.sort_unstable();
        let quartile = |part: usize| lengths[(lengths.len() - 1) * part / 4];
        let (lower, upper) = (quartile(1), quartile(3));
        let spread = (upper - lower).max(1);
        let usual = lower.saturating_sub(2 * spread)..=upper + 2 * spread;
        let inner: Vec<f64> =
            lengths.iter().filter(|length| usual.contains(length)).map(|&l| f64::from(l)).collect();
        let mean = inner.iter().sum::<f64>() / inner.len() as f64;
        let variance =
            inner.iter().map(|length| (length - mean).powi(2)).sum::<f64>() / inner.len() as f64;
        let deviation = variance.sqrt().max(1.0);
        let high = f64::from(upper + 3 * spread).max(mean + 5.0 * deviation);
        Self::new(mean, deviation, (high as u32).clamp(2 * LOW, HIGH_MAX))
    }

    /// The price of a template length; `None` for lengths that no proper pair has.
    #[inline]
    pub fn penalty(&self, length: i64) -> Option<i32> {
        if length < i64::from(self.low) {
            return None;
        }
        self.penalties.get(usize::try_from(length).ok()?).map(|&points| i32::from(points))
    }
}

impl Default for InsertModel {
    fn default() -> Self {
        Self::new(400.0, 120.0, 1200)
    }
}

#[cfg(test)]
mod tests {
    use super::super::simulate::Random;
    use super::*;

    #[test]
    fn the_model_is_that_of_the_lengths() {
        let mut random = Random::new(4);
        let mut lengths: Vec<u32> = (0..4000)
            .map(|_| 300 + (0..12).map(|_| random.below(61)).sum::<usize>() as u32)
            .collect();
        lengths.extend([9000; 40]);
        let model = InsertModel::learn(lengths);
        assert!((model.mean - 660.0).abs() < 5.0, "{}", model.mean);
        assert!((model.deviation - 61.0).abs() < 5.0, "{}", model.deviation);
        assert_eq!(model.penalty(660), Some(0));
        assert!(model.penalty(760) > Some(0) && model.penalty(19).is_none());
        assert_eq!(model.penalty(i64::from(model.high) + 1), None);
    }

    #[test]
    fn few_lengths_give_the_usual_model() {
        assert_eq!(InsertModel::learn(vec![100; 49]), InsertModel::default());
        assert_eq!(InsertModel::learn(vec![]), InsertModel::default());
    }
}
