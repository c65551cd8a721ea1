//! Calibration: whether QUAL and GQ say how often calls are wrong.

use serde::Serialize;

use super::{ErrorKind, Record};

/// Lower ends of the bins in Phred.
const BIN_STARTS: [u32; 9] = [0, 3, 6, 10, 13, 20, 30, 40, 60];

/// Calls of one bin of predicted quality.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Bin {
    /// Lowest quality in it, Phred; it ends where the next begins.
    pub from: u32,
    /// Calls with such a quality.
    pub calls: u64,
    /// Those that are wrong.
    pub wrong: u64,
    /// How many would be wrong if the qualities were true.
    pub expected: f64,
}

/// Predicted and observed errors of calls in the regions.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Calibration {
    /// By QUAL; wrong is a call without any allele of the truth.
    pub quality: Vec<Bin>,
    /// By GQ, of calls with an allele of the truth; wrong is another genotype.
    pub genotype_quality: Vec<Bin>,
}

impl Default for Calibration {
    fn default() -> Self {
        let bins = || BIN_STARTS.map(|from| Bin { from, ..Bin::default() }).to_vec();
        Self { quality: bins(), genotype_quality: bins() }
    }
}

impl Calibration {
    /// Adds a record, if it is a call in the regions.
    pub(super) fn add(&mut self, record: &Record<'_>, matched: bool, error: Option<ErrorKind>) {
        if record.from_truth || !record.counted {
            return;
        }
        let has_allele = matched || error == Some(ErrorKind::Genotype);
        count(&mut self.quality, record.variant.quality, !has_allele);
        if has_allele {
            let quality = record.variant.genotype_quality as f32;
            count(&mut self.genotype_quality, quality, !matched);
        }
    }

    /// One line for each bin: kind, lowest quality, calls, wrong ones, expected wrong ones, and the
    /// observed quality in Phred (of one error more than seen, so that it is a lower bound).
    pub fn csv(&self) -> String {
        let mut text = "quality,from,calls,wrong,expected_wrong,observed_phred\n".to_owned();
        for (name, bins) in [("QUAL", &self.quality), ("GQ", &self.genotype_quality)] {
            for bin in bins {
                let share = (bin.wrong + 1) as f64 / (bin.calls + 1) as f64;
                let Bin { from, calls, wrong, expected } = bin;
                // Adding zero leaves no sign to it.
                let observed = (-10.0 * share.log10()).max(0.0) + 0.0;
                text += &format!("{name},{from},{calls},{wrong},{expected:.2},{observed:.1}\n");
            }
        }
        text
    }
}

fn count(bins: &mut [Bin], quality: f32, wrong: bool) {
    let at = bins.iter().rposition(|bin| quality >= bin.from as f32).unwrap_or(0);
    if let Some(bin) = bins.get_mut(at) {
        bin.calls += 1;
        bin.wrong += u64::from(wrong);
        bin.expected += 10f64.powf(-f64::from(quality.max(0.0)) / 10.0);
    }
}
