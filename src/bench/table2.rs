//! Table 2 of the paper: what concealment costs, stage by stage.
//!
//! Conditions: `normal/plain` (the reads lie in files, everything is sent in clear), `share/plain`
//! (the reads lie as shares and are restored, everything is sent in clear) and `share/OTP` (as
//! `share/plain`, with every byte between sites under one-time pad). Stages: A, FASTQ to VCF.gz,
//! restoring included; B-1, VCF.gz to VCF; B-2, VCF to extracted VCF; B-3, extracted VCF to
//! VCF.gz; C, the transfer to the end user.
//!
//! Source: Fujiwara et al. 2022, Sci. Rep. 12:18530, equations 1 to 5 and Table 2. Its volume and
//! throughput columns do not agree: the listed Mbit/s of stage A are those of FASTQ + VCF.gz, while
//! equation 1 has FASTQ + VCF. Both are given here.

use serde::Serialize;

use crate::flow::StageReport;

/// Megabytes and megabits are decimal.
const MEGA: f64 = 1e6;

/// The conditions, in the order of the paper's columns.
pub const CONDITIONS: [&str; 3] = ["normal/plain", "share/plain", "share/OTP"];

/// The paper's extracts: records of about 3.5 million.
pub const EXTRACTS: [u64; 4] = [0, 30_000, 1_500_000, 3_000_000];

/// Records of the paper's VCF, about: extracts of smaller inputs are scaled to it.
pub const PAPER_RECORDS: u64 = 3_500_000;

/// Sizes of everything that stages take and give, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Sizes {
    /// FASTQ text.
    pub fastq: u64,
    /// VCF text.
    pub vcf: u64,
    /// Compressed VCF.
    pub vcf_gz: u64,
    /// Text of the extract.
    pub extract: u64,
    /// Compressed extract.
    pub extract_gz: u64,
}

/// Seconds of the stages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Seconds {
    /// FASTQ to VCF.gz.
    pub a: f64,
    /// VCF.gz to VCF.
    pub b1: f64,
    /// VCF to extract.
    pub b2: f64,
    /// Extract to compressed extract.
    pub b3: f64,
    /// Transfer to the end user.
    pub c: f64,
}

impl Seconds {
    /// All stages, one after the other, as the paper adds them.
    pub fn total(&self) -> f64 {
        self.a + self.b1 + self.b2 + self.b3 + self.c
    }
}

/// One cell's throughput.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Throughput {
    /// Mbit/s by the paper's equation.
    pub by_equation: f64,
    /// Mbit/s by the paper's own arithmetic, where it differs.
    pub as_printed: f64,
}

fn mbit_per_second(bytes: u64, seconds: f64) -> f64 {
    if seconds > 0.0 { bytes as f64 * 8.0 / MEGA / seconds } else { 0.0 }
}

/// Throughput of the rows A, B-1, B-2, B-3, C and total.
pub fn throughput(sizes: &Sizes, seconds: &Seconds) -> [(&'static str, Throughput); 6] {
    let same = |bytes, seconds| {
        let rate = mbit_per_second(bytes, seconds);
        Throughput { by_equation: rate, as_printed: rate }
    };
    let a = Throughput {
        by_equation: mbit_per_second(sizes.fastq + sizes.vcf, seconds.a),
        as_printed: mbit_per_second(sizes.fastq + sizes.vcf_gz, seconds.a),
    };
    [
        ("A", a),
        ("B-1", same(sizes.vcf_gz + sizes.vcf, seconds.b1)),
        ("B-2", same(sizes.vcf + sizes.extract, seconds.b2)),
        ("B-3", same(sizes.extract + sizes.extract_gz, seconds.b3)),
        ("C", same(sizes.extract_gz, seconds.c)),
        ("total", same(sizes.fastq, seconds.total())),
    ]
}

/// The paper's Mbit/s: rows A to C of the extract of 1.5 million, then the totals of the four
/// extracts; columns as [`CONDITIONS`].
pub const PAPER: [(&str, [f64; 3]); 9] = [
    ("A", [536.0, 518.0, 513.0]),
    ("B-1", [2474.0, 1948.0, 2318.0]),
    ("B-2", [976.0, 954.0, 940.0]),
    ("B-3", [436.0, 425.0, 427.0]),
    ("C", [411.0, 414.0, 285.0]),
    ("total 0", [515.0, 496.0, 492.0]),
    ("total 30000", [514.0, 496.0, 492.0]),
    ("total 1500000", [503.0, 485.0, 481.0]),
    ("total 3000000", [488.0, 471.0, 466.0]),
];

/// The paper's value of a row, for the extract of `paper_records`.
pub fn paper_value(row: &str, paper_records: u64, condition: usize) -> Option<f64> {
    let wanted = match row {
        "total" => format!("total {paper_records}"),
        // The stage rows are of the extract of 1.5 million only.
        _ if paper_records == 1_500_000 => row.to_owned(),
        _ => return None,
    };
    PAPER.iter().find(|(name, _)| *name == wanted).map(|(_, values)| values[condition])
}

/// The extract of `records` that stands for the paper's `paper_records`.
pub fn scaled(paper_records: u64, records: u64) -> u64 {
    (u128::from(paper_records) * u128::from(records) / u128::from(PAPER_RECORDS)) as u64
}

/// One measured run.
#[derive(Clone, Debug, Serialize)]
pub struct Run {
    /// Condition, a name of [`CONDITIONS`].
    pub condition: &'static str,
    /// Which repetition, from 1.
    pub repetition: u32,
    /// The paper's extract that this one stands for.
    pub paper_records: u64,
    /// Records extracted.
    pub records: u64,
    /// Sizes.
    pub sizes: Sizes,
    /// Seconds.
    pub seconds: Seconds,
    /// Processor seconds of this process during stage A.
    pub cpu_seconds_a: f64,
    /// Stage that limits A.
    pub limiting_stage: String,
    /// What every stage of A did.
    pub stages_a: Vec<StageReport>,
    /// Digest of the calls.
    pub calls_digest: String,
    /// Digest of what arrived at the end user.
    pub extract_digest: String,
    /// Key bytes used, all links together.
    pub key_bytes: u64,
}

/// Whether all runs gave the same calls, and those of one extract the same delivery.
pub fn digests_agree(runs: &[Run]) -> bool {
    runs.iter().all(|run| {
        runs.iter().all(|other| {
            run.calls_digest == other.calls_digest
                && (run.paper_records != other.paper_records
                    || run.extract_digest == other.extract_digest)
        })
    })
}

/// Mean total throughput of a condition over its runs of one extract, in Mbit/s.
pub fn mean_total(runs: &[Run], condition: &str, paper_records: u64) -> Option<f64> {
    let totals: Vec<f64> = runs
        .iter()
        .filter(|run| run.condition == condition && run.paper_records == paper_records)
        .map(|run| mbit_per_second(run.sizes.fastq, run.seconds.total()))
        .collect();
    (!totals.is_empty()).then(|| totals.iter().sum::<f64>() / totals.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: u64 = 1_000_000;

    /// The paper's sizes and seconds: row A, normal, extract of 1.5 million.
    #[test]
    fn the_arithmetic_is_the_papers() {
        let sizes = Sizes {
            fastq: 22_676 * MB,
            vcf: 822 * MB,
            vcf_gz: 113 * MB,
            extract: 410 * MB,
            extract_gz: 56 * MB,
        };
        let normal = Seconds { a: 340.2, b1: 3.0, b2: 9.6, b3: 7.2, c: 0.9 };
        assert!((normal.total() - 360.9).abs() < 1e-9);
        let rows = throughput(&sizes, &normal);
        let row = |name: &str| rows.iter().find(|(row, _)| *row == name).unwrap().1;
        assert_eq!(row("A").as_printed.round(), 536.0);
        assert_eq!(row("A").by_equation.round(), 553.0);
        assert_eq!(row("B-1").by_equation.round(), 2493.0);
        assert_eq!(row("B-2").by_equation.round(), 1027.0);
        assert_eq!(row("B-3").by_equation.round(), 518.0);
        assert_eq!(row("C").by_equation.round(), 498.0);
        assert_eq!(row("total").by_equation.round(), 503.0);
        assert_eq!(paper_value("total", 1_500_000, 0), Some(503.0));
        let otp = Seconds { a: 355.5, b1: 3.2, b2: 9.9, b3: 7.3, c: 1.3 };
        assert_eq!(throughput(&sizes, &otp)[5].1.by_equation.round(), 481.0);
        assert_eq!(paper_value("total", 1_500_000, 2), Some(481.0));
    }

    #[test]
    fn extracts_are_scaled_to_the_input() {
        assert_eq!(scaled(3_000_000, 3_500_000), 3_000_000);
        assert_eq!(scaled(30_000, 132_000), 1131);
        assert_eq!(scaled(0, 132_000), 0);
    }

    #[test]
    fn different_outputs_are_noticed() {
        let run = Run {
            condition: CONDITIONS[0],
            repetition: 1,
            paper_records: 0,
            records: 0,
            sizes: Sizes::default(),
            seconds: Seconds::default(),
            cpu_seconds_a: 0.0,
            limiting_stage: String::new(),
            stages_a: Vec::new(),
            calls_digest: "x".into(),
            extract_digest: "y".into(),
            key_bytes: 0,
        };
        let other = Run { extract_digest: "z".into(), ..run.clone() };
        assert!(digests_agree(&[run.clone(), run.clone()]));
        assert!(!digests_agree(&[run, other]));
    }
}
