//! Volumes on files and on simulated disks that fail.

use std::collections::BTreeMap;

use crate::base::{ByteCount, Faulty};
use crate::io::sim::{Faults, Random};
use crate::store::conformance::{self, Bench, STRIPE_BYTES, check_share, id, put, stripe};
use crate::store::verify;

use super::*;

const VOLUME_BYTES: u64 = 12 << 20;

/// For the tests that crash it often.
const SMALL_BYTES: u64 = 1 << 20;

struct OnFile(tempfile::TempDir, DiskKind);

impl OnFile {
    fn make(disk: DiskKind) -> Box<dyn Bench> {
        let folder = tempfile::tempdir().unwrap();
        Volume::create(&folder.path().join("volume"), Some(VOLUME_BYTES), disk).unwrap();
        Box::new(OnFile(folder, disk))
    }

    fn volume(&self) -> Volume {
        Volume::open(&self.0.path().join("volume"), self.1).unwrap()
    }
}

/// Where a stripe begins, in bytes.
fn offset_of(volume: &Volume, id: &ShareId, stripe: u64) -> u64 {
    let mut disk = volume.0.disk(Mode::Read, &preference()).unwrap();
    locate(volume.0.read_catalogue(&mut *disk).unwrap().find(id).unwrap())(stripe)
}

impl Bench for OnFile {
    fn open(&self) -> Box<dyn ShareStore> {
        Box::new(self.volume())
    }

    fn damage(&self, id: &ShareId, stripe: u64) {
        let path = self.0.path().join("volume");
        flip(&path, offset_of(&self.volume(), id, stripe) + 99);
    }

    fn room_bytes(&self) -> Option<u64> {
        Some(VOLUME_BYTES)
    }
}

fn flip(path: &Path, offset: u64) {
    use std::os::unix::fs::FileExt;
    let file = File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 1], offset).unwrap();
    file.sync_all().unwrap();
}

struct OnSim(SimMedium);

impl OnSim {
    fn make(seed: u64) -> Self {
        Self::of(VOLUME_BYTES, seed)
    }

    fn of(bytes: u64, seed: u64) -> Self {
        let medium = SimMedium::new(bytes as usize, seed);
        Volume::create_simulated(&medium, bytes).unwrap();
        OnSim(medium)
    }
}

impl Bench for OnSim {
    fn open(&self) -> Box<dyn ShareStore> {
        Box::new(Volume::open_simulated(&self.0).unwrap())
    }

    fn damage(&self, id: &ShareId, stripe: u64) {
        let volume = Volume::open_simulated(&self.0).unwrap();
        self.0.flip(offset_of(&volume, id, stripe) as usize + 99, 3);
    }

    fn room_bytes(&self) -> Option<u64> {
        Some(VOLUME_BYTES)
    }
}

#[test]
fn passes_the_suite_on_every_disk() {
    for disk in [DiskKind::Auto, DiskKind::Blocking] {
        conformance::suite(&mut || OnFile::make(disk)).unwrap();
    }
    let mut seed = 0;
    conformance::suite(&mut || {
        seed += 1;
        Box::new(OnSim::make(seed))
    })
    .unwrap();
}

/// A block device named by `DSGD_BLOCK_DEVICE`, whose content is lost; for instance a loop device.
struct OnDevice(std::path::PathBuf);

impl Bench for OnDevice {
    fn open(&self) -> Box<dyn ShareStore> {
        Box::new(Volume::open(&self.0, DiskKind::Auto).unwrap())
    }

    fn damage(&self, id: &ShareId, stripe: u64) {
        let volume = Volume::open(&self.0, DiskKind::Auto).unwrap();
        flip(&self.0, offset_of(&volume, id, stripe) + 99);
    }

    fn room_bytes(&self) -> Option<u64> {
        Some(VOLUME_BYTES)
    }
}

#[test]
fn passes_the_suite_on_a_block_device() {
    let Some(device) = std::env::var_os("DSGD_BLOCK_DEVICE").map(std::path::PathBuf::from) else {
        eprintln!("skipped: DSGD_BLOCK_DEVICE names no block device");
        return;
    };
    conformance::suite(&mut || {
        let mut file = File::options().write(true).open(&device).unwrap();
        std::io::Write::write_all(&mut file, &[0; BLANK_BYTES]).unwrap();
        file.sync_all().unwrap();
        Volume::create(&device, Some(VOLUME_BYTES), DiskKind::Auto).unwrap();
        Box::new(OnDevice(device.clone()))
    })
    .unwrap();
}

#[test]
fn the_suite_notices_broken_stores() {
    conformance::notices_broken_stores(&mut || Box::new(OnSim::make(1)));
}

/// What may be found of each share: the numbers of stripes, 0 for a share that is not there.
type Expected = BTreeMap<ShareId, Vec<u64>>;

/// Puts and removes shares until something fails; says what may be found afterwards.
fn story(medium: &SimMedium) -> (Expected, Option<Error>) {
    let mut expected = Expected::new();
    let outcome = tell(medium, &mut expected).err();
    (expected, outcome)
}

fn tell(medium: &SimMedium, expected: &mut Expected) -> Result<(), Error> {
    let volume = Volume::open_simulated(medium)?;
    // Only the step that fails is in doubt, so it says before what may come of it.
    let mut put_next = |name: &str, stripes: u64| {
        let share = id(name);
        expected.insert(share.clone(), vec![0, stripes]);
        put(&volume, &share, STRIPE_BYTES, stripes)?;
        expected.insert(share, vec![stripes]);
        Ok(())
    };
    put_next("g1/0/A", 3)?;
    put_next("g1/0/B", 9)?;
    expected.insert(id("g1/0/A"), vec![0, 3]);
    volume.remove(&id("g1/0/A"))?;
    expected.insert(id("g1/0/A"), vec![0]);
    let mut abandoned = volume.create(&id("g2/0/A"), 1, STRIPE_BYTES)?;
    expected.insert(id("g2/0/A"), vec![0]);
    let share = id("g3/0/C");
    expected.insert(share.clone(), vec![0, 7]);
    let mut writer = volume.create(&share, 1, STRIPE_BYTES)?;
    for number in 0..7 {
        abandoned.append(stripe(&id("g2/0/A"), number, STRIPE_BYTES))?;
        writer.append(stripe(&share, number, STRIPE_BYTES))?;
    }
    drop(abandoned);
    writer.commit()?;
    expected.insert(share, vec![7]);
    volume.replace(&id("g1/0/B"), &stripe(&id("g1/0/B"), 4, STRIPE_BYTES))?;
    expected.insert(id("g1/0/A"), vec![0, 5]);
    put(&volume, &id("g1/0/A"), STRIPE_BYTES, 5)?;
    expected.insert(id("g1/0/A"), vec![5]);
    Ok(())
}

/// Checks that every share is there whole, or not at all, as it may be; and that the volume works.
fn check(medium: &SimMedium, expected: &Expected, when: &str) {
    let volume = Volume::open_simulated(medium).unwrap();
    let listed = volume.list().unwrap();
    for info in &listed {
        assert!(expected.contains_key(&info.id), "{when}: {} came from nowhere", info.id);
    }
    for (share, possible) in expected {
        let stripes = match listed.iter().find(|info| info.id == *share) {
            Some(info) => info.stripes,
            None => 0,
        };
        assert!(possible.contains(&stripes), "{when}: {share} has {stripes}, not {possible:?}");
        if stripes > 0 {
            check_share(&volume, share, stripes).unwrap_or_else(|e| panic!("{when}: {share}: {e}"));
        } else {
            assert!(matches!(volume.open(share), Err(Error::Missing { .. })), "{when}: {share}");
        }
    }
    let used: u64 = listed.iter().map(|info| info.stripes + 1).sum();
    let data = volume.0.layout.data().blocks;
    assert_eq!(volume.free_bytes().unwrap(), (data - used) * BLOCK_BYTES, "{when}: space is lost");
    put(&volume, &id("new/0/A"), STRIPE_BYTES, 30).unwrap();
    check_share(&volume, &id("new/0/A"), 30).unwrap();
    for info in listed {
        check_share(&volume, &info.id, info.stripes).unwrap();
    }
}

#[test]
fn a_crash_at_any_step_leaves_every_share_whole_or_absent() {
    let whole = OnSim::of(SMALL_BYTES, 3).0;
    let before = whole.steps();
    let (expected, error) = story(&whole);
    assert!(error.is_none());
    check(&whole, &expected, "no crash");
    let steps = whole.steps() - before;
    let mut crashes = 0;
    for step in 0..=steps {
        let medium = OnSim::of(SMALL_BYTES, 3).0;
        medium.set_faults(Faults { power_for: Some(step), ..Faults::default() });
        let (expected, error) = story(&medium);
        // Beyond its last step the story is over; the steps counted are those of the checks.
        crashes += u64::from(error.is_some());
        for seed in 0..4 {
            check(&medium.crash(seed), &expected, &format!("step {step}, seed {seed}"));
        }
    }
    assert!(crashes > 30, "{crashes} crashes");
}

#[test]
fn failing_operations_leave_every_share_whole_or_absent() {
    let mut failures = 0;
    for seed in 0..60 {
        let medium = OnSim::of(SMALL_BYTES, seed).0;
        let mut random = Random(seed);
        let mut often = || if random.chance(0.5) { 0.03 } else { 0.0 };
        medium.set_faults(Faults {
            failed_writes: often(),
            short_writes: often(),
            failed_syncs: often(),
            ..Faults::default()
        });
        let (expected, error) = story(&medium);
        failures += u32::from(error.is_some());
        medium.set_faults(Faults::default());
        check(&medium.crash(seed), &expected, &format!("crash after faults, seed {seed}"));
        check(&medium, &expected, &format!("faults, seed {seed}"));
    }
    assert!(failures > 15, "{failures} failures");
}

/// A catalogue that was written and not synced may count after a crash: nobody may write over the
/// space of its shares meanwhile, not even a writer that was at work before.
#[test]
fn nothing_is_built_on_a_commit_in_doubt() {
    let (mut doubts, share) = (0, id("g1/0/A"));
    for seed in 0..60 {
        let medium = OnSim::of(SMALL_BYTES, seed).0;
        let volume = Volume::open_simulated(&medium).unwrap();
        let mut writer = volume.create(&share, 1, STRIPE_BYTES).unwrap();
        writer.append(stripe(&share, 0, STRIPE_BYTES)).unwrap();
        medium.set_faults(Faults { failed_syncs: 0.5, ..Faults::default() });
        let other = put(&volume, &id("g1/0/B"), STRIPE_BYTES, 5);
        medium.set_faults(Faults { power_for: Some(5 + seed % 15), ..Faults::default() });
        doubts += u32::from(other.is_err());
        let appended =
            (1..10).try_for_each(|number| writer.append(stripe(&share, number, STRIPE_BYTES)));
        let committed = appended.and_then(|()| writer.commit());
        let possible = |done: bool, stripes| if done { vec![stripes] } else { vec![0, stripes] };
        let expected = Expected::from([
            (share.clone(), possible(committed.is_ok(), 10)),
            (id("g1/0/B"), possible(other.is_ok(), 5)),
        ]);
        check(&medium.crash(seed), &expected, &format!("seed {seed}"));
    }
    assert!(doubts > 20, "{doubts} doubts");
}

/// The proof that the checks above can fail: a disk that forgets what it was told to keep.
#[test]
#[should_panic(expected = "g1/0/B")]
fn a_lying_sync_is_noticed() {
    let medium = OnSim::of(SMALL_BYTES, 3).0;
    let (expected, _) = story(&medium);
    let volume = Volume::open_simulated(&medium).unwrap();
    medium.flip(offset_of(&volume, &id("g1/0/B"), 2) as usize, 1);
    check(&medium, &expected, "a sector lost");
}

#[test]
fn one_damaged_catalogue_is_survived_and_two_are_named() {
    let medium = OnSim::make(1).0;
    let volume = Volume::open_simulated(&medium).unwrap();
    put(&volume, &id("g1/0/A"), STRIPE_BYTES, 2).unwrap();
    put(&volume, &id("g1/0/B"), STRIPE_BYTES, 2).unwrap();
    let layout = volume.0.layout;
    medium.flip(layout.slot(2) as usize + 70, 0);
    // The newest is gone: what it added is, the rest is there.
    assert_eq!(volume.list().unwrap().len(), 1);
    check_share(&volume, &id("g1/0/A"), 2).unwrap();
    medium.flip(layout.slot(1) as usize + 70, 0);
    let error = Volume::open_simulated(&medium).err().unwrap();
    assert!(matches!(error, Error::Catalogue { .. }));
    assert!(error.to_string().contains("both copies"), "{error}");
    assert_eq!(error.fault().exit_code(), 76);
    medium.flip(0, 0);
    let error = Volume::open_simulated(&medium).err().unwrap();
    assert!(error.to_string().contains("magic"), "{error}");
}

#[test]
fn only_one_process_writes_and_all_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("volume");
    let first = Volume::create(&path, Some(VOLUME_BYTES), DiskKind::Auto).unwrap();
    // A lock belongs to the opened file, so a second opening stands for a second process.
    let second = Volume::open(&path, DiskKind::Auto).unwrap();
    put(&first, &id("g1/0/A"), STRIPE_BYTES, 5).unwrap();
    let mut writer = first.create(&id("g1/0/B"), 1, STRIPE_BYTES).unwrap();
    check_share(&second, &id("g1/0/A"), 5).unwrap();
    let busy = second.create(&id("g1/0/C"), 1, STRIPE_BYTES).err().unwrap();
    assert!(matches!(&busy, Error::Busy { .. }) && busy.fault().exit_code() == 75);
    assert!(matches!(second.remove(&id("g1/0/A")), Err(Error::Busy { .. })));
    writer.append(stripe(&id("g1/0/B"), 0, STRIPE_BYTES)).unwrap();
    writer.commit().unwrap();
    check_share(&second, &id("g1/0/B"), 1).unwrap();
    put(&second, &id("g1/0/C"), STRIPE_BYTES, 2).unwrap();
    check_share(&first, &id("g1/0/C"), 2).unwrap();
}

#[test]
fn a_volume_is_made_only_where_nothing_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("volume");
    std::fs::write(&path, b"somebody's only copy").unwrap();
    let made = Volume::create(&path, Some(VOLUME_BYTES), DiskKind::Auto);
    assert!(matches!(made, Err(Error::Occupied { .. })));
    assert_eq!(std::fs::read(&path).unwrap(), b"somebody's only copy");
    let opened = Volume::open(&path, DiskKind::Auto);
    assert!(matches!(opened, Err(Error::Catalogue { .. })));
    std::fs::remove_file(&path).unwrap();
    assert!(Volume::create(&path, Some(1000), DiskKind::Auto).is_err());
    assert!(!path.exists());
    let settings = |bytes| StoreSettings {
        name: "local".into(),
        kind: "volume".into(),
        path: path.clone(),
        bytes,
        disk: DiskKind::Auto,
    };
    assert!(open(&settings(None)).is_err());
    let (store, _) = open(&settings(Some(ByteCount(VOLUME_BYTES)))).unwrap();
    put(&*store, &id("g1/0/A"), STRIPE_BYTES, 5).unwrap();
    let (store, backend) = open(&settings(Some(ByteCount(VOLUME_BYTES)))).unwrap();
    assert!(verify(&*store, &id("g1/0/A")).unwrap().is_empty());
    assert!(["uring", "blocking"].contains(&backend.name));
    assert!(Volume::create(&path, None, DiskKind::Auto).is_err());
    File::options().write(true).open(&path).unwrap().set_len(VOLUME_BYTES / 2).unwrap();
    assert!(matches!(Volume::open(&path, DiskKind::Auto), Err(Error::Catalogue { .. })));
}

#[test]
fn shares_that_were_removed_leave_room_for_others_in_pieces() {
    let bench = OnSim::make(1);
    let store = bench.open();
    let names: Vec<_> = (0..60).map(|n| id(&format!("g{n}/0/A"))).collect();
    for name in &names {
        put(&*store, name, STRIPE_BYTES, 40).unwrap();
    }
    for name in names.iter().step_by(2) {
        store.remove(name).unwrap();
    }
    put(&*store, &id("large/0/A"), STRIPE_BYTES, 1300).unwrap();
    check_share(&*store, &id("large/0/A"), 1300).unwrap();
    for name in names.iter().skip(1).step_by(2) {
        check_share(&*store, name, 40).unwrap();
    }
}

#[test]
fn a_full_catalogue_refuses_and_stays() {
    let bench = OnSim::make(1);
    let store = bench.open();
    let refused = (0..2000).find_map(|n| {
        let share = id(&format!("{n:064}/0/A"));
        put(&*store, &share, STRIPE_BYTES, 0).err()
    });
    assert!(matches!(refused, Some(Error::Full { place, .. }) if place.contains("catalogue")));
    let listed = bench.open().list().unwrap();
    assert!(listed.len() > 100);
    store.remove(&listed[0].id).unwrap();
    put(&*store, &listed[0].id, STRIPE_BYTES, 0).unwrap();
}
