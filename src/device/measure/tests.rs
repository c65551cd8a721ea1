//! What is measured, with devices that lack something.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::limits::Bound;
use super::*;
use crate::device::table::Resident;
use crate::device::{Queue, open};

/// Next to nothing of everything.
const LEAST: Effort = Effort { bytes: 4096, jobs: 20, time: Duration::ZERO, limits: true };

fn figure(kernel: &'static str, device: &'static str, workers: usize, rate: f64) -> Figure {
    let unit = Unit::Gigabytes;
    Figure { kernel, device, workers, rate, median: rate, unit, runs: 2, limit: None }
}

#[test]
fn the_fastest_is_chosen_and_a_tie_goes_to_the_first() {
    let figures = [
        figure("copy", "cpu", 1, 20.0),
        figure("xor", "cpu", 1, 5.0),
        figure("align", "cpu", 1, 1.0),
        figure("keystream", "cpu", 1, 1.0),
        figure("xor", "cpu", 2, 10.0),
        figure("xor", "cuda", 1, 10.2),
        figure("align", "cuda", 1, 9.0),
    ];
    let chosen = choose(&figures);
    let named: Vec<_> = chosen.iter().map(|choice| (choice.kernel, choice.device)).collect();
    assert_eq!(named, [("xor", "cpu"), ("align", "cuda")]);
    assert_eq!(chosen[0].reason, "cpu 10.00 GB/s, cuda 10.20 GB/s");
}

#[test]
fn every_kernel_is_measured_beside_its_limit() {
    let cpu = open("cpu").unwrap();
    for workers in [1, 3] {
        let figures = measure_together(cpu.as_ref(), LEAST, workers).unwrap();
        let kernels: Vec<_> = figures.iter().map(|figure| figure.kernel).collect();
        let all = Kernel::ALL.map(Kernel::name);
        let besides = ["seal, Fig. 5", "keystream", "chacha20"];
        assert_eq!(kernels, [&["copy"], &all[..], &besides[..]].concat());
        for figure in figures {
            assert!(figure.rate > 0.0 && figure.rate.is_finite(), "{figure:?}");
            assert!(figure.median <= figure.rate && figure.runs >= 2, "{figure:?}");
            assert_eq!((figure.workers, figure.device), (workers, "cpu"));
            let limit = figure.limit.as_ref().map(|limit| limit.share);
            assert_eq!(limit.is_none(), figure.kernel == "copy", "{figure:?}");
            assert!(limit.is_none_or(|share| share > 0.0 && share.is_finite()), "{figure:?}");
        }
    }
}

#[test]
fn a_short_effort_asks_for_no_limit_but_the_copy() {
    let effort = Effort { limits: false, ..LEAST };
    let figures = measure(open("cpu").unwrap().as_ref(), effort).unwrap();
    let with_limit: Vec<_> = figures
        .iter()
        .filter_map(|figure| figure.limit.as_ref().map(|limit| (figure.kernel, limit.name)))
        .collect();
    let names = ["xor", "seal", "open", "split", "restore", "rebuild", "pack", "seal, Fig. 5"];
    assert_eq!(with_limit, names.map(|name| (name, "copy")));
}

#[test]
fn another_harness_sees_every_step_and_can_run_it() {
    let mut seen = Vec::new();
    let visit = |turn: Turn<'_>| {
        (turn.run)().unwrap();
        seen.push((turn.name, turn.bytes, turn.amount));
    };
    each(open("cpu").unwrap().as_ref(), LEAST, visit).unwrap();
    let of = |name| *seen.iter().find(|turn| turn.0 == name).unwrap();
    assert_eq!(of("copy"), ("copy", true, 2.0 * 4096.0));
    assert_eq!(of("split"), ("split", true, 4.0 * 4096.0));
    assert_eq!(of("pack"), ("pack", false, 20.0));
    assert!(of("random accesses").2 > 0.0);
    assert!(Kernel::ALL.iter().all(|kernel| seen.iter().any(|turn| turn.0 == kernel.name())));
}

/// A split of 1 GB in a second moves 4 GB, a copy of 2 GB in a second as many.
#[test]
fn a_share_of_the_copy_is_by_bytes_moved() {
    let measured = |step, rate, median| Measured { step, rate, median, runs: 5 };
    let measured = [
        measured(Step::Copy, 2.0, 1.0),
        measured(Step::Kernel(Kernel::Split), 1.0, 0.25),
        measured(Step::Kernel(Kernel::Xor), 1.0, 0.5),
        measured(Step::Limit(Bound::Additions), 120.0, 60.0),
        measured(Step::Kernel(Kernel::Align), 5.0, 1.0),
        measured(Step::Limit(Bound::Accesses), 100.0, 100.0),
        measured(Step::Kernel(Kernel::Lookup), 40.0, 20.0),
    ];
    let figures = figures(open("cpu").unwrap().as_ref(), &measured, 2);
    let shares: Vec<_> = figures
        .iter()
        .filter_map(|figure| figure.limit.as_ref())
        .map(|limit| (limit.rate, limit.share, limit.share_of_medians))
        .collect();
    let expected = [(4.0, 1.0, 0.5), (4.0, 0.75, 0.75), (120.0, 0.5, 0.2), (100.0, 0.8, 0.4)];
    for (have, want) in shares.iter().zip(expected) {
        let near = |a: f64, b: f64| (a - b).abs() < 1e-9;
        assert!(near(have.0, want.0) && near(have.1, want.1) && near(have.2, want.2), "{have:?}");
    }
    assert_eq!(shares.len(), expected.len());
}

#[test]
fn what_each_worker_does_is_never_too_little_to_mean_something() {
    let cpu = open("cpu").unwrap();
    let of = |effort: Effort, workers| {
        let one = effort.of_one(cpu.as_ref(), workers);
        (one.bytes >> 20, one.jobs)
    };
    assert_eq!(of(Effort::SHORT, 1), (4, 2000));
    assert_eq!(of(Effort::SHORT, 16), (4, 2000));
    assert_eq!(of(Effort::LONG, 2), (128, 25_000));
    assert_eq!(of(Effort::LONG, 128), (4, 2000));
}

/// The CPU, of which the third and the fourth queue find no memory.
#[derive(Default)]
struct Narrow(AtomicUsize);

impl Device for Narrow {
    fn name(&self) -> &'static str {
        "narrow"
    }

    fn model(&self) -> String {
        "for tests".into()
    }

    fn queue(&self, piece_bytes: usize) -> Result<Box<dyn Queue>, Error> {
        match self.0.fetch_add(1, Ordering::SeqCst) {
            2 | 3 => Err(Error::NoMemory { device: "narrow", piece_bytes }),
            _ => open("cpu")?.queue(piece_bytes),
        }
    }

    fn table(&self, parts: &[&[u32]]) -> Result<Resident, Error> {
        open("cpu")?.table(parts)
    }
}

#[test]
fn a_device_without_memory_for_all_queues_is_measured_with_fewer() {
    let narrow = Narrow::default();
    let figures = measure_fitting(&narrow, LEAST, 64).unwrap();
    assert!(figures.iter().all(|figure| figure.workers == 2));
    assert_eq!(narrow.0.load(Ordering::SeqCst), 4 + 2, "four at first, then two");
}

/// The CPU with a fault.
struct Broken(&'static str);

impl Device for Broken {
    fn name(&self) -> &'static str {
        "broken"
    }

    fn model(&self) -> String {
        "for tests".into()
    }

    fn queue(&self, piece_bytes: usize) -> Result<Box<dyn Queue>, Error> {
        match self.0 {
            "no queue" => Err(Error::NoMemory { device: "broken", piece_bytes }),
            "panics" => panic!("a driver's slip"),
            _ => open("cpu")?.queue(piece_bytes),
        }
    }

    fn table(&self, parts: &[&[u32]]) -> Result<Resident, Error> {
        match self.0 {
            "no table" => Err(Error::NoMemory { device: "broken", piece_bytes: 0 }),
            _ => open("cpu")?.table(parts),
        }
    }
}

#[test]
fn a_device_that_fails_is_an_error_for_all_workers() {
    for fault in ["no queue", "no table"] {
        for workers in [1, 4] {
            let failed = measure_together(&Broken(fault), LEAST, workers);
            assert!(matches!(failed, Err(Error::NoMemory { device: "broken", .. })), "{fault}");
        }
    }
}

#[test]
fn a_device_that_panics_is_one_that_failed() {
    for workers in [1, 4] {
        let failed = measure_together(&Broken("panics"), LEAST, workers);
        assert!(matches!(failed, Err(Error::Failed { device: "broken", .. })));
    }
}

#[test]
fn kernels_of_a_card_stand_beside_its_link_and_not_beside_this_memory() {
    let bound = |name, rate| Limit {
        name,
        rate,
        unit: Unit::Gigabytes,
        needs: 3.0,
        share: 9.0,
        share_of_medians: 9.0,
    };
    let mut xor = figure("xor", "cuda", 1, 10.0);
    (xor.median, xor.limit) = (8.0, Some(bound("copy", 20.0)));
    let mut link = figure(Rate::LINK, "cuda", 1, 40.0);
    link.median = 32.0;
    let mut figures = [xor];
    beside_link(&mut figures, &[]);
    assert_eq!(figures[0].limit.as_ref().unwrap().name, "copy", "nothing to stand beside");
    beside_link(&mut figures, &[link]);
    let limit = figures[0].limit.as_ref().unwrap();
    assert_eq!((limit.name, limit.rate), (Rate::LINK, 40.0));
    assert_eq!((limit.share, limit.share_of_medians), (0.75, 0.75));
}
