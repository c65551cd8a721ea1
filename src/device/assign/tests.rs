//! Every kernel of a run has a device, and does its work there.

use super::*;
use crate::device::conformance::check_queue;
use crate::device::table::Resident;

/// The CPU by another name, without one kernel.
pub(crate) struct Twin;

impl Device for Twin {
    fn name(&self) -> &'static str {
        "twin"
    }

    fn model(&self) -> String {
        "for tests".into()
    }

    fn queue(&self, piece_bytes: usize) -> Result<Box<dyn Queue>, Error> {
        open("cpu")?.queue(piece_bytes)
    }

    fn table(&self, parts: &[&[u32]]) -> Result<Resident, Error> {
        Ok(Arc::new(parts.concat()))
    }

    fn has(&self, kernel: Kernel) -> bool {
        kernel != Kernel::Pack
    }
}

#[test]
fn every_kernel_is_chosen_and_does_its_work() {
    let twin = Assignment::everything_on(Box::new(Twin), 2);
    let fastest = Assignment::fastest_of(vec![(Box::new(Twin), None)], 2);
    for run in [Assignment::cpu(), twin, fastest] {
        let chosen: Vec<_> = run.choices().iter().map(|choice| choice.kernel).collect();
        assert!(Kernel::ALL.iter().all(|kernel| chosen.contains(&kernel.name())));
        assert_eq!(chosen.len(), Kernel::ALL.len());
        assert!(run.choices().iter().all(|choice| !choice.reason.is_empty()));
        assert!(run.on_cpu(Kernel::Pack), "no other device has it");
        assert_eq!(check_queue(&Twin, &mut run.queue().unwrap()), Ok(()));
        assert_eq!(run.notices(), [""; 0]);
    }
}

#[test]
fn a_simulation_is_never_chosen_for_its_speed() {
    let run = Assignment::choose(&Setting::Auto, 2).unwrap();
    let names = ["cpu", "cuda", "wgpu", "xrt"];
    assert!(run.choices().iter().all(|choice| names.contains(&choice.device)));
    let of = |name| open(name).is_ok_and(|device| !device.is_simulated());
    if !["cuda", "wgpu", "xrt"].into_iter().any(of) {
        assert!(Kernel::ALL.iter().all(|kernel| run.on_cpu(*kernel)));
        for name in ["cuda", "wgpu", "xrt"] {
            let reason = &run.choices()[0].reason;
            assert!(reason.contains(name), "why not: {reason}");
        }
    }
}

#[test]
fn a_named_device_does_what_it_has() {
    let run = Assignment::everything_on(Box::new(Twin), 1);
    for (kernel, choice) in Kernel::ALL.into_iter().zip(run.choices()) {
        assert_eq!(choice.device, if kernel == Kernel::Pack { "cpu" } else { "twin" });
        assert_eq!(run.on_cpu(kernel), kernel == Kernel::Pack);
    }
}

#[test]
fn a_named_device_that_is_absent_is_an_error() {
    let cards: Setting = "cpu:1".parse().unwrap();
    assert!(matches!(Assignment::choose(&cards, 1), Err(Error::Absent { device: "cpu", .. })));
}
