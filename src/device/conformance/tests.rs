//! The suite on every device and simulation there is, and proof that it can fail.

use crate::base::ShareLetter;
use crate::device::process::Simulated;
use crate::device::table::Resident;
use crate::device::{BACKENDS, Device, Error, Kernel, Open, Queue, lane, open};
use crate::kernel::{Form, KERNELS};

use super::double::{Double, Given};
use super::{Noise, check, check_at, check_columns, check_device, check_sealing, jobs, simulated};

/// Names the devices, separated by commas, whose absence is a failure and not a skip.
const REQUIRE: &str = "DSGD_REQUIRE_DEVICES";
/// What else it may name: simulations of a device on the CPU.
const SIMULATIONS: [&str; 3] = ["cuda-sim", "hls-sim", "rtl-sim"];

fn is_required(name: &str) -> bool {
    std::env::var(REQUIRE).is_ok_and(|list| list.split(',').any(|word| word.trim() == name))
}

/// The devices of this machine; those that are missing are named on stderr.
fn devices() -> Vec<Box<dyn Device>> {
    let present = |(name, _): &(&'static str, Open)| match open(name) {
        Ok(device) => Some(device),
        Err(Error::Absent { device, reason }) => {
            assert!(!is_required(device), "{REQUIRE} names '{device}', but: {reason}");
            eprintln!("skipped: device '{device}' is absent: {reason}");
            None
        }
        Err(error) => panic!("an absent device says so: {error}"),
    };
    BACKENDS.iter().filter_map(present).collect()
}

#[test]
fn every_device_equals_the_twins() {
    for device in devices() {
        eprintln!("device '{}': {}", device.name(), device.model());
        assert_eq!(check_device(device.as_ref()), Ok(()), "device '{}'", device.name());
    }
}

/// Simulations are slow.
fn check_briefly(device: &dyn Device) {
    let outcome = check_at(device, &[(1000, 2, 6000), (300 << 10, 1, 50_000)]);
    assert_eq!(outcome, Ok(()), "device '{}'", device.name());
}

/// A device that takes small tables only.
struct SmallTables<'a>(&'a dyn Device);

impl Device for SmallTables<'_> {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn model(&self) -> String {
        self.0.model()
    }

    fn queue(&self, piece_bytes: usize) -> Result<Box<dyn Queue>, Error> {
        self.0.queue(piece_bytes)
    }

    fn table(&self, parts: &[&[u32]]) -> Result<Resident, Error> {
        let bytes = 4 * parts.iter().map(|part| part.len()).sum::<usize>();
        assert!(bytes <= self.table_bytes_max(), "{bytes}");
        self.0.table(parts)
    }

    fn table_bytes_max(&self) -> usize {
        1000
    }
}

fn check_tables_in_parts(device: &dyn Device) {
    let device = SmallTables(device);
    let tables = jobs::tables(&device, &mut Noise(77)).unwrap();
    let mut queue = device.queue(100_000).unwrap();
    let noise = &mut Noise(5);
    assert_eq!(tables.check_ungapped(queue.as_mut(), 100, noise), Ok(()));
    assert_eq!(tables.check_lookup(queue.as_mut(), 500, noise), Ok(()));
}

#[test]
fn tables_that_a_device_takes_in_parts_are_the_same() {
    let folder = tempfile::tempdir().unwrap();
    with_simulation("cuda-sim", simulated::cuda(folder.path(), &[]), check_tables_in_parts);
    for (name, open) in BACKENDS.iter().filter(|(name, _)| ["cpu", "wgpu"].contains(name)) {
        match open() {
            Ok(device) => check_tables_in_parts(device.as_ref()),
            Err(reason) if is_required(name) => panic!("{REQUIRE} names '{name}', but: {reason}"),
            Err(reason) => eprintln!("skipped: {reason}"),
        }
    }
}

/// Runs a check that a simulation is needed for; without one it is skipped, unless it is required.
fn with_simulation(
    name: &str,
    simulation: Result<Simulated, String>,
    check: impl FnOnce(&dyn Device),
) {
    with(name, simulation, |simulation| check(&simulation));
}

fn with<T>(name: &str, needed: Result<T, String>, check: impl FnOnce(T)) {
    match needed {
        Ok(there) => check(there),
        Err(reason) if is_required(name) => panic!("{REQUIRE} names '{name}', but: {reason}"),
        Err(reason) => eprintln!("skipped: {name}: {reason}"),
    }
}

#[test]
fn cuda_kernels_on_the_cpu_equal_the_twins() {
    let folder = tempfile::tempdir().unwrap();
    let watched = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"];
    with_simulation("cuda-sim", simulated::cuda(folder.path(), &watched), check_briefly);
}

#[test]
fn hls_kernels_as_c_simulation_equal_the_twins() {
    let folder = tempfile::tempdir().unwrap();
    with_simulation("hls-sim", simulated::hls(folder.path()), check_briefly);
}

#[test]
fn every_hls_kernel_passes_its_test_bench() {
    for (kernel, _) in KERNELS.iter().filter(|(_, forms)| forms.contains(&Form::Hls)) {
        let folder = tempfile::tempdir().unwrap();
        with("hls-sim", simulated::test_bench(folder.path(), kernel), |program| {
            let status = std::process::Command::new(program).status().unwrap();
            assert!(status.success(), "{kernel}: {status}");
        });
    }
}

/// The numbers of `registers` in a kernel's `hls/<kernel>/qor.json`.
fn claimed(kernel: &str, name: &str) -> i64 {
    let path = format!("{}/hls/{kernel}/qor.json", env!("CARGO_MANIFEST_DIR"));
    let quality: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    quality["registers"][name].as_i64().expect("a number of cycles")
}

#[test]
fn designs_in_registers_take_the_cycles_they_claim() {
    with("rtl-sim", simulated::rtl_cycles(), |said| {
        assert_eq!(said.lines().count(), 7, "{said}");
        for line in said.lines() {
            let (kernel, numbers) = line.split_once(' ').unwrap();
            let numbers: Vec<i64> = numbers.split(' ').map(|n| n.parse().unwrap()).collect();
            let claim = |name| claimed(kernel, name);
            let (cycles, expected, unit) = match (kernel, &numbers[..]) {
                ("otp", &[blocks, cycles]) => (cycles, blocks * claim("cycles_a_block"), blocks),
                ("align", &[rows, width, cycles]) => {
                    let by_shape =
                        rows * claim("cycles_a_row") + width * claim("cycles_a_diagonal");
                    (cycles, by_shape + claim("cycles_besides"), rows * width)
                }
                _ => panic!("{line}"),
            };
            let each = |cycles: i64| cycles as f64 / unit as f64;
            eprintln!("{line}: {:.3} a word or cell, claimed {:.3}", each(cycles), each(expected));
            assert_eq!(cycles, expected, "{line}");
        }
    });
}

/// Cycle by cycle; more or fewer cycles than the designs claim end the simulation.
#[test]
fn designs_in_registers_equal_the_twins() {
    with_simulation("rtl-sim", simulated::rtl(), |device| {
        let mut queue = device.queue(20_000).unwrap();
        let noise = &mut Noise(3);
        assert_eq!(jobs::check_align(queue.as_mut(), 40, noise), Ok(()));
        for length in [0, 1, 16, 511, 512, 513, 20_000, 70_001] {
            assert_eq!(check_sealing(queue.as_mut(), length, noise), Ok(()));
        }
    });
}

#[test]
fn a_card_that_disappears_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    with_simulation("cuda-sim", simulated::cuda(folder.path(), &["-DEXIT_AT_ONCE"]), |device| {
        let mut queue = device.queue(1000).unwrap();
        let outcome = queue.xor(&mut [0; 5000], &[1; 5000]);
        assert!(matches!(outcome, Err(Error::Failed { .. })));
    });
}

#[test]
fn the_pieces_of_a_job_equal_the_twins() {
    for piece_bytes in [1, 16, 1000, 1 << 20] {
        let outcome = check_columns(lane::host::queue(piece_bytes).as_mut(), 5, 30_000);
        assert_eq!(outcome, Ok(()), "pieces of {piece_bytes}");
    }
}

#[test]
fn only_devices_of_the_registry_can_be_required() {
    let list = std::env::var(REQUIRE).unwrap_or_default();
    for word in list.split(',').map(str::trim).filter(|word| !word.is_empty()) {
        let mut known = BACKENDS.iter().map(|(name, _)| *name).chain(SIMULATIONS);
        assert!(known.any(|name| name == word), "{REQUIRE} names '{word}'");
    }
    let Err(Error::Unknown { .. }) = open("abacus") else { panic!("there is no abacus") };
}

#[test]
fn a_queue_refuses_what_the_twin_refuses() {
    let refused = |what: &mut dyn FnMut(&mut dyn Queue)| {
        for mut queue in [lane::host::queue(16), open("cpu").unwrap().queue(16).unwrap()] {
            let run = std::panic::AssertUnwindSafe(|| what(queue.as_mut()));
            assert!(std::panic::catch_unwind(run).is_err());
        }
    };
    let ab = (ShareLetter::A, ShareLetter::B);
    refused(&mut |queue| queue.xor(&mut [0; 9], &[0; 8]).unwrap());
    refused(&mut |queue| queue.restore(&mut [0; 9], &[0; 9], ab).unwrap());
    refused(&mut |queue| queue.rebuild(&mut [0; 8], &[0; 10], ab).unwrap());
    refused(&mut |queue| queue.split(&mut [0; 8], &[0; 8], &mut [0; 6]).unwrap());
    refused(&mut |queue| queue.restore(&mut [0; 8], &[0; 8], (ab.0, ab.0)).unwrap());
}

/// Changes one bit of what a kernel gave: of the last byte in place, or else of the last one written.
fn spoil(given: Given<'_>, in_place: bool) {
    match given {
        Given::Bytes(data, other) => {
            let bytes = if in_place { data } else { other };
            bytes.last_mut().into_iter().for_each(|last| *last ^= 0x80);
        }
        Given::Alignments(placed) => {
            placed.last_mut().into_iter().flatten().for_each(|last| last.target_start ^= 1);
        }
        Given::Penalties(penalties) => *penalties.last_mut().unwrap() ^= 1,
        Given::Packed(packed) => packed.last_mut().unwrap().backward[0].low ^= 1 << 63,
        Given::Segments(segments) => segments.last_mut().unwrap().crowded ^= true,
        Given::Entries(found) => found.last_mut().unwrap().1 ^= 1,
    }
}

#[test]
fn a_device_one_bit_off_is_caught() {
    let outcome = |hook: &(dyn Fn(Kernel, Given<'_>) + Sync)| {
        let cpu = open("cpu").unwrap();
        let tables = jobs::tables(cpu.as_ref(), &mut Noise(77)).unwrap();
        let queue = cpu.queue(0).unwrap();
        let hook = |kernel: Kernel, given: Given<'_>| {
            hook(kernel, given);
            Ok(())
        };
        check(&tables, &mut Double { queue, hook }, 1, 4096)
    };
    assert_eq!(outcome(&|_, _| ()), Ok(()));
    let writes_more = [Kernel::Split, Kernel::Seal, Kernel::Open];
    let places = Kernel::ALL.map(|kernel| (kernel, true));
    for (wrong, in_place) in places.into_iter().chain(writes_more.map(|kernel| (kernel, false))) {
        let hook = |kernel: Kernel, given: Given<'_>| {
            if kernel == wrong {
                spoil(given, in_place);
            }
        };
        assert!(outcome(&hook).is_err(), "{wrong:?}, in place: {in_place}");
    }
}
