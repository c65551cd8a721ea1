//! Folders as stores: the suite, and what is particular to them.

use super::*;
use crate::io::{Completion, Op, Ticket};
use crate::store::conformance::{self, Bench, STRIPE_BYTES, id, put, stripe};

struct Folder {
    folder: tempfile::TempDir,
    disk: DiskKind,
    room_bytes: Option<u64>,
}

impl Bench for Folder {
    fn open(&self) -> Box<dyn ShareStore> {
        let mut store = DirStore::open(self.folder.path(), self.disk).unwrap();
        if let Some(room) = self.room_bytes {
            let root = self.folder.path().to_path_buf();
            store.reserve_bytes = 0;
            store.wrap = Some(Arc::new(move |disk| {
                Box::new(Bounded { disk, root: root.clone(), room, refused: None })
            }));
        }
        Box::new(store)
    }

    fn damage(&self, id: &ShareId, stripe: u64) {
        let store = DirStore::open(self.folder.path(), self.disk).unwrap();
        let path = store.folder(id).join("stripes");
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[stripe as usize * STRIPE_BYTES as usize + 1000] ^= 16;
        std::fs::write(&path, bytes).unwrap();
    }

    fn room_bytes(&self) -> Option<u64> {
        self.room_bytes
    }
}

/// A disk in a file system that holds only so much.
struct Bounded {
    disk: Box<dyn Disk>,
    root: PathBuf,
    room: u64,
    refused: Option<Completion>,
}

fn bytes_under(folder: &Path) -> u64 {
    std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| match path.is_dir() {
            true => bytes_under(&path),
            false => std::fs::metadata(&path).unwrap().len(),
        })
        .sum()
}

impl Disk for Bounded {
    fn submit(&mut self, op: Op) -> Ticket {
        if let Op::Write { chunk, offset } = op {
            if bytes_under(&self.root) > self.room {
                let result = Err(std::io::ErrorKind::StorageFull.into());
                let ticket = Ticket(u64::MAX);
                self.refused = Some(Completion { ticket, chunk: Some(chunk), result });
                return ticket;
            }
            return self.disk.submit(Op::Write { chunk, offset });
        }
        self.disk.submit(op)
    }

    fn wait(&mut self) -> Option<Completion> {
        self.disk.wait().or_else(|| self.refused.take())
    }

    fn poll(&mut self) -> Option<Completion> {
        self.disk.poll()
    }

    fn alignment(&self) -> usize {
        self.disk.alignment()
    }

    fn size(&mut self) -> Result<u64, std::io::Error> {
        self.disk.size()
    }
}

fn bench(disk: DiskKind, room_bytes: Option<u64>) -> Box<dyn Bench> {
    Box::new(Folder { folder: tempfile::tempdir().unwrap(), disk, room_bytes })
}

#[test]
fn passes_the_suite_on_every_disk() {
    for disk in [DiskKind::Auto, DiskKind::Blocking] {
        conformance::suite(&mut || bench(disk, None)).unwrap();
    }
    conformance::suite(&mut || bench(DiskKind::Auto, Some(8 << 20))).unwrap();
}

#[test]
fn the_suite_notices_broken_stores() {
    conformance::notices_broken_stores(&mut || bench(DiskKind::Blocking, None));
}

#[test]
fn stripes_lie_one_after_the_other_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let store = DirStore::open(folder.path(), DiskKind::Auto).unwrap();
    put(&store, &id("g1/0/A"), STRIPE_BYTES, 3).unwrap();
    let expected: Vec<u8> =
        (0..3).flat_map(|n| stripe(&id("g1/0/A"), n, STRIPE_BYTES).to_vec()).collect();
    assert!(std::fs::read(folder.path().join("g1/0.A/stripes")).unwrap() == expected);
    assert_eq!(std::fs::read_dir(store.partial()).unwrap().count(), 0);
}

#[test]
fn a_newer_attempt_supersedes_an_older_one() {
    let folder = tempfile::tempdir().unwrap();
    let store = DirStore::open(folder.path(), DiskKind::Auto).unwrap();
    let share = id("g1/0/A");
    let mut older = store.create(&share, 1, STRIPE_BYTES).unwrap();
    older.append(stripe(&share, 0, STRIPE_BYTES)).unwrap();
    put(&store, &share, STRIPE_BYTES, 2).unwrap();
    assert!(matches!(older.commit(), Err(Error::Superseded { .. })));
    conformance::check_share(&store, &share, 2).unwrap();
}

#[test]
fn leftovers_of_a_killed_process_go_and_those_of_a_living_one_stay() {
    let folder = tempfile::tempdir().unwrap();
    let store = DirStore::open(folder.path(), DiskKind::Auto).unwrap();
    let left = store.partial().join("g9~0~A~1-1");
    std::fs::create_dir(&left).unwrap();
    std::fs::write(left.join("stripes"), b"half").unwrap();
    let mut writer = store.create(&id("g1/0/A"), 1, STRIPE_BYTES).unwrap();
    DirStore::open(folder.path(), DiskKind::Auto).unwrap();
    assert!(left.exists());
    writer.append(stripe(&id("g1/0/A"), 0, STRIPE_BYTES)).unwrap();
    writer.commit().unwrap();
    DirStore::open(folder.path(), DiskKind::Auto).unwrap();
    assert!(!left.exists());
}

#[test]
fn a_damaged_record_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let store = DirStore::open(folder.path(), DiskKind::Auto).unwrap();
    put(&store, &id("g1/0/A"), STRIPE_BYTES, 3).unwrap();
    for name in ["digests", "share.json"] {
        std::fs::write(folder.path().join("g1/0.A").join(name), b"{}").unwrap();
        let error = store.open(&id("g1/0/A")).err().unwrap();
        assert!(matches!(&error, Error::Catalogue { place, .. } if place.ends_with(name)));
    }
}
