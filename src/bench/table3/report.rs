//! What the runs of Table 3 add up to.

use serde::{Deserialize, Serialize};

use super::{Cell, Run};
use crate::bench::chart::{Bars, Chart};
use crate::bench::environment::Environment;
use crate::net::flow::Carrier;
use crate::otp::Cipher;
use crate::otp::packet::Headers;

/// Everything that was measured, and on what.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Report {
    /// The machine.
    pub environment: Environment,
    /// What was asked for.
    pub command: String,
    /// Why a path that was asked for is missing.
    pub missing: Vec<String>,
    /// Every run.
    pub runs: Vec<Run>,
    /// The cells' means.
    pub means: Vec<Mean>,
    /// Ratios and what they should be.
    pub bars: Vec<Bar>,
}

/// One cell over its runs.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Mean {
    /// The cell.
    #[serde(flatten)]
    pub cell: Cell,
    /// The path.
    pub path: String,
    /// Runs.
    pub runs: usize,
    /// Mean of the runs.
    pub gbit_per_second: f64,
    /// The slowest and the fastest run.
    pub range: [f64; 2],
    /// The paper's cell.
    pub paper: Option<f64>,
    /// Share of the packets that did not arrive, over all runs.
    pub loss: f64,
    /// Packets that came out of order.
    pub reordered: u64,
    /// Key bytes for a byte of payload sent.
    pub key_bytes_per_payload_byte: f64,
    /// CPU seconds for a gigabyte delivered: sender, receiver.
    pub cpu_seconds_per_gigabyte: [f64; 2],
}

/// A figure and what it should be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Bar {
    /// Which figure.
    pub name: String,
    /// What it is.
    pub value: f64,
    /// What it should be: at least, or at most.
    pub at_least: Option<f64>,
    /// At most.
    pub at_most: Option<f64>,
}

impl Bar {
    /// Whether it is what it should be.
    pub fn holds(&self) -> bool {
        self.at_least.is_none_or(|least| self.value >= least)
            && self.at_most.is_none_or(|most| self.value <= most)
    }
}

impl Report {
    /// Adds up `runs`.
    pub fn new(command: String, runs: Vec<Run>, missing: Vec<String>) -> Self {
        let means = means(&runs);
        let bars = bars(&means);
        Self { environment: Environment::look(), command, missing, runs, means, bars }
    }

    /// The means as a chart, ours beside the paper's.
    pub fn chart(&self) -> String {
        let mut paths: Vec<&str> = self.means.iter().map(|mean| mean.path.as_str()).collect();
        paths.dedup();
        let mut groups: Vec<Bars> = paths
            .iter()
            .map(|path| {
                let means = self.means.iter().filter(|mean| mean.path == *path);
                let values = means
                    .map(|mean| (label(&mean.cell), mean.gbit_per_second, Some(mean.range)))
                    .collect();
                Bars { name: (*path).to_owned(), values }
            })
            .collect();
        let of_paper = self.means.iter().filter(|mean| Some(&mean.path.as_str()) == paths.first());
        let of_paper = of_paper.filter_map(|mean| Some((label(&mean.cell), mean.paper?, None)));
        groups.push(Bars { name: "the paper".into(), values: of_paper.collect() });
        Chart {
            title: "Table 3: throughput between two processes".into(),
            unit: "Gbit/s of payload, counted by the receiver".into(),
            groups,
        }
        .to_svg()
    }
}

/// A cell in a few words.
pub fn label(cell: &Cell) -> String {
    let carrier = if cell.carrier == Carrier::Tcp { "TCP" } else { "UDP" };
    let headers = if cell.headers == Headers::Hidden { "yes" } else { "no" };
    let cipher = match cell.cipher {
        Cipher::Otp => "OTP",
        Cipher::Plain => "plain",
        Cipher::Aes256Gcm => "AES (computational)",
    };
    format!("{carrier} {cipher}, {headers}")
}

fn means(runs: &[Run]) -> Vec<Mean> {
    let mut means: Vec<Mean> = Vec::new();
    for first in runs {
        let same = |run: &&Run| run.cell == first.cell && run.path == first.path;
        if means.iter().any(|mean| mean.cell == first.cell && mean.path == first.path) {
            continue;
        }
        let all: Vec<&Run> = runs.iter().filter(same).collect();
        let mean = |of: &dyn Fn(&Run) -> f64| {
            all.iter().map(|run| of(run)).sum::<f64>() / all.len() as f64
        };
        let sum = |of: &dyn Fn(&Run) -> u64| all.iter().map(|run| of(run)).sum::<u64>();
        let rates = || all.iter().map(|run| run.gbit_per_second);
        let gigabytes = sum(&|run| run.tally.delivered.payload_bytes).max(1) as f64 * 1e-9;
        let sent = sum(&|run| run.tally.sent.packets).max(1) as f64;
        let lost = sum(&|run| run.tally.sent.packets.saturating_sub(run.tally.delivered.packets));
        means.push(Mean {
            cell: first.cell,
            path: first.path.clone(),
            runs: all.len(),
            gbit_per_second: mean(&|run| run.gbit_per_second),
            range: [rates().fold(f64::MAX, f64::min), rates().fold(0.0, f64::max)],
            paper: first.cell.paper(),
            loss: if first.cell.carrier == Carrier::Udp { lost as f64 / sent } else { 0.0 },
            reordered: sum(&|run| run.tally.reordered),
            key_bytes_per_payload_byte: mean(&|run| run.key_bytes_per_payload_byte),
            cpu_seconds_per_gigabyte: [0, 1]
                .map(|end| all.iter().map(|run| run.cpu_seconds[end]).sum::<f64>() / gigabytes),
        });
    }
    means
}

fn bars(means: &[Mean]) -> Vec<Bar> {
    let mut bars = Vec::new();
    for otp in means.iter().filter(|mean| mean.cell.cipher == Cipher::Otp) {
        let plain = Cell { cipher: Cipher::Plain, ..otp.cell };
        let plain = means.iter().find(|mean| mean.cell == plain && mean.path == otp.path);
        let name = |what: &str| format!("{}, {}: {what}", otp.path, label(&otp.cell));
        let least = match (otp.cell.carrier, otp.cell.headers) {
            (Carrier::Tcp, Headers::Clear) => 0.95,
            _ => 0.90,
        };
        if let Some(plain) = plain.filter(|plain| plain.gbit_per_second > 0.0) {
            bars.push(Bar {
                name: name("of plain"),
                value: otp.gbit_per_second / plain.gbit_per_second,
                at_least: Some(least),
                at_most: None,
            });
        }
        if otp.path == "loopback"
            && (otp.cell.carrier, otp.cell.headers) == (Carrier::Udp, Headers::Clear)
        {
            bars.push(Bar {
                name: name("Gbit/s"),
                value: otp.gbit_per_second,
                at_least: Some(8.0),
                at_most: None,
            });
        }
        let most = match (otp.cell.carrier, otp.cell.headers) {
            (Carrier::Udp, Headers::Clear) => Some(1.012),
            (Carrier::Udp, Headers::Hidden) => None,
            (Carrier::Tcp, _) => Some(1.0005),
        };
        bars.push(Bar {
            name: name("key bytes for a payload byte"),
            value: otp.key_bytes_per_payload_byte,
            at_least: None,
            at_most: most,
        });
    }
    bars
}

/// The report as text.
pub fn describe(report: &Report, table: impl FnOnce(&[[String; 9]]) -> String) -> String {
    let environment = &report.environment;
    let mut text = format!(
        "{} cores, {}, kernel {}, dsgd {}\n\n",
        environment.cores, environment.processor, environment.kernel, environment.version
    );
    let rows: Vec<[String; 9]> = report
        .means
        .iter()
        .map(|mean| {
            [
                mean.path.clone(),
                label(&mean.cell),
                format!("{:.2}", mean.gbit_per_second),
                format!("{:.2}-{:.2}", mean.range[0], mean.range[1]),
                mean.paper.map_or_else(|| "-".into(), |paper| format!("{paper:.2}")),
                format!("{:.4} %", 100.0 * mean.loss),
                mean.reordered.to_string(),
                format!("{:.5}", mean.key_bytes_per_payload_byte),
                format!(
                    "{:.2}, {:.2}",
                    mean.cpu_seconds_per_gigabyte[0], mean.cpu_seconds_per_gigabyte[1]
                ),
            ]
        })
        .collect();
    text += &table(&rows);
    text.push('\n');
    for bar in &report.bars {
        let wanted = match (bar.at_least, bar.at_most) {
            (Some(least), _) => format!(" (at least {least})"),
            (_, Some(most)) => format!(" (at most {most})"),
            _ => String::new(),
        };
        let verdict = if bar.holds() { "" } else { ": MISSED" };
        text += &format!("{}: {:.4}{wanted}{verdict}\n", bar.name, bar.value);
    }
    for missing in &report.missing {
        text += &format!("missing: {missing}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::flow::{Count, Tally};

    fn run(cipher: Cipher, number: u32, gbit: f64) -> Run {
        let cell = Cell { carrier: Carrier::Udp, cipher, headers: Headers::Clear };
        let sent = Count { packets: 100, payload_bytes: 142_400, key_bytes: 144_000 };
        let delivered = Count { packets: 90, ..sent };
        Run {
            cell,
            security: cipher.security(),
            path: "loopback".into(),
            run: number,
            seconds: 1.0,
            gbit_per_second: gbit,
            tally: Tally { sent, delivered, reordered: 2, refused: 0 },
            key_bytes_per_payload_byte: 144.0 / 142.4,
            cpu_seconds: [1.0, 1.0],
        }
    }

    #[test]
    fn means_and_ratios_are_those_of_the_runs() {
        let runs = vec![
            run(Cipher::Plain, 1, 10.0),
            run(Cipher::Otp, 1, 8.0),
            run(Cipher::Plain, 2, 20.0),
            run(Cipher::Otp, 2, 7.0),
        ];
        let report = Report::new("test".into(), runs, vec!["veth: no".into()]);
        assert_eq!(report.means.len(), 2);
        assert_eq!(report.means[1].gbit_per_second, 7.5);
        assert!((report.means[1].loss - 0.1).abs() < 1e-9);
        assert_eq!(report.means[1].reordered, 4);
        let ratio = &report.bars[0];
        assert_eq!((ratio.value, ratio.holds()), (0.5, false));
        assert!(!report.bars[1].holds(), "7.5 is less than 8");
        assert!(report.bars[2].holds(), "1.0112 is less than 1.012");
        let text = describe(&report, |rows| format!("{rows:?}"));
        assert!(text.contains("MISSED") && text.contains("missing: veth"));
        assert!(report.chart().contains("UDP OTP, no"));
    }
}
