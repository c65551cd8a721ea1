//! The suite on every device and simulation there is, and proof that it can fail.

use crate::base::ShareLetter;
use crate::device::process::Simulated;
use crate::device::table::{Genome, Resident, SeedTable};
use crate::device::{BACKENDS, Device, Error, Open, Queue, lane, open};
use crate::kernel::otp::{BLOCK_BYTES, Pad};
use crate::kernel::{align, pack, pairhmm, ungapped};

use super::{Noise, check, check_at, check_columns, check_device, check_sealing, jobs, simulated};

/// Names the devices, separated by commas, whose absence is a failure and not a skip.
const REQUIRE: &str = "DSGD_REQUIRE_DEVICES";
/// What else it may name: simulations of a device on the CPU, here and in `tests/kernel_forms.rs`.
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
    match simulation {
        Ok(simulation) => check(&simulation),
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

/// A device that gives one wrong bit, in one of its kernels.
struct OneBitOff {
    right: Box<dyn Queue>,
    kernel: &'static str,
}

impl OneBitOff {
    fn spoil(&self, kernel: &str, bytes: &mut [u8]) -> Result<(), Error> {
        if let (true, Some(last)) = (self.kernel == kernel, bytes.last_mut()) {
            *last ^= 0x80;
        }
        Ok(())
    }
}

impl Queue for OneBitOff {
    fn split(&mut self, secret_to_a: &mut [u8], random: &[u8], b: &mut [u8]) -> Result<(), Error> {
        self.right.split(secret_to_a, random, b)?;
        self.spoil("split a", secret_to_a)?;
        self.spoil("split b", b)
    }

    fn restore(
        &mut self,
        first: &mut [u8],
        second: &[u8],
        letters: (ShareLetter, ShareLetter),
    ) -> Result<(), Error> {
        self.right.restore(first, second, letters)?;
        self.spoil("restore", first)
    }

    fn rebuild(
        &mut self,
        first: &mut [u8],
        second: &[u8],
        letters: (ShareLetter, ShareLetter),
    ) -> Result<(), Error> {
        self.right.rebuild(first, second, letters)?;
        self.spoil("rebuild", first)
    }

    fn xor(&mut self, data: &mut [u8], pad: &[u8]) -> Result<(), Error> {
        self.right.xor(data, pad)?;
        self.spoil("xor", data)
    }

    fn seal(
        &mut self,
        data: &mut [u8],
        pad: Pad<'_>,
        key: &[u8; BLOCK_BYTES],
    ) -> Result<[u8; BLOCK_BYTES], Error> {
        let mut tag = self.right.seal(data, pad, key)?;
        self.spoil("seal", data)?;
        self.spoil("seal tag", &mut tag)?;
        Ok(tag)
    }

    fn open(
        &mut self,
        data: &mut [u8],
        pad: Pad<'_>,
        key: &[u8; BLOCK_BYTES],
    ) -> Result<[u8; BLOCK_BYTES], Error> {
        let mut tag = self.right.open(data, pad, key)?;
        self.spoil("open", data)?;
        self.spoil("open tag", &mut tag)?;
        Ok(tag)
    }

    fn align(
        &mut self,
        pairs: &[align::Pair<'_>],
        scores: &align::Scores,
    ) -> Result<Vec<Option<align::Placement>>, Error> {
        let mut placed = self.right.align(pairs, scores)?;
        if let (true, Some(Some(last))) = (self.kernel == "align", placed.last_mut()) {
            last.target_start ^= 1;
        }
        Ok(placed)
    }

    fn pairhmm(&mut self, batch: &pairhmm::Batch<'_>) -> Result<Vec<i32>, Error> {
        let mut penalties = self.right.pairhmm(batch)?;
        if let (true, Some(last)) = (self.kernel == "pairhmm", penalties.last_mut()) {
            *last ^= 1;
        }
        Ok(penalties)
    }

    fn pack(&mut self, reads: &[pack::Read<'_>]) -> Result<Vec<pack::Packed>, Error> {
        let mut packed = self.right.pack(reads)?;
        if let (true, Some(last)) = (self.kernel == "pack", packed.last_mut()) {
            last.backward[0].low ^= 1 << 63;
        }
        Ok(packed)
    }

    fn ungapped(
        &mut self,
        genome: &Genome,
        reads: &[pack::ReadWord],
        jobs: &[ungapped::Job],
        scores: &align::Scores,
    ) -> Result<Vec<ungapped::Segment>, Error> {
        let mut compared = self.right.ungapped(genome, reads, jobs, scores)?;
        if let (true, Some(last)) = (self.kernel == "ungapped", compared.last_mut()) {
            last.crowded ^= true;
        }
        Ok(compared)
    }

    fn lookup(&mut self, table: &SeedTable, hashes: &[u64]) -> Result<Vec<(u32, u32)>, Error> {
        let mut found = self.right.lookup(table, hashes)?;
        if let (true, Some(last)) = (self.kernel == "lookup", found.last_mut()) {
            last.1 ^= 1;
        }
        Ok(found)
    }
}

#[test]
fn a_device_one_bit_off_is_caught() {
    for (kernel, caught) in [
        ("none", false),
        ("split a", true),
        ("split b", true),
        ("restore", true),
        ("rebuild", true),
        ("xor", true),
        ("align", true),
        ("pairhmm", true),
        ("seal", true),
        ("seal tag", true),
        ("open", true),
        ("open tag", true),
        ("pack", true),
        ("ungapped", true),
        ("lookup", true),
    ] {
        let cpu = open("cpu").unwrap();
        let tables = jobs::tables(cpu.as_ref(), &mut Noise(77)).unwrap();
        let right = cpu.queue(0).unwrap();
        let outcome = check(&tables, &mut OneBitOff { right, kernel }, 1, 4096);
        assert_eq!(outcome.is_err(), caught, "{kernel}");
    }
}
