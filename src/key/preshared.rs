//! A link whose keys were carried: all pads that were imported for it.

use std::cell::RefCell;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::base::{BitRate, SiteId};
use crate::device::cpu::otp;

use super::chunks::LeaseChunks;
use super::expansion::{self, Body, Seeds};
use super::journal::link_folder;
use super::pad::{self, Pad, PadHeader};
use super::source::Opening;
use super::{
    AtRest, Class, Error, KeyLease, KeyRange, KeySource, Kind, Provenance, Source, StreamId,
};

/// The name of this kind of link in the configuration.
pub const KIND: &str = "preshared";

/// The imported pads of one link.
pub struct PresharedLink {
    /// In the order of their positions.
    pads: Vec<Pad>,
    folder: PathBuf,
    provenance: Provenance,
    /// The keeper, where a pad needs it.
    seeds: Option<Box<dyn Seeds>>,
    /// What this session overwrote: number of the pad, stream and range.
    wiped: RefCell<Vec<(u64, StreamId, KeyRange)>>,
}

/// Moves the pad at `file` into the state folder of `site`, as key for the link to `peer`. Sessions
/// that are running do not see it.
///
/// Errors: [`Error::Pad`] when it is damaged, truncated, for other sites, or was imported before.
pub fn import(site: &SiteId, state: &Path, peer: &SiteId, file: &Path) -> Result<PadHeader, Error> {
    let seeds = || expansion::connect(state);
    pad::import(site, peer, &pads_folder(&link_folder(state, peer)), file, seeds)
}

fn pads_folder(link: &Path) -> PathBuf {
    link.join("pads")
}

/// Opens the link that the settings name, for [`SOURCES`](super::SOURCES).
pub fn open(opening: &Opening<'_>) -> Result<Box<dyn KeySource>, Error> {
    let folder = pads_folder(opening.folder);
    let failed = |source| Error::PadFile { path: folder.clone(), source };
    let mut pads = Vec::new();
    let entries = match fs::read_dir(&folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        entries => Some(entries.map_err(failed)?),
    };
    for entry in entries.into_iter().flatten() {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|extension| extension == "pad") {
            pads.push(Pad::open(&path)?);
        }
    }
    pads.sort_by_key(|pad| pad.header.number);
    let headers = || pads.iter().map(|pad| &pad.header);
    let provenance = Provenance {
        kind: Kind::Key,
        source: Source::Preshared,
        class: headers().map(|header| header.class).min().unwrap_or(Class::Computational),
        known_to: headers()
            .flat_map(|header| header.known_to.iter().cloned())
            .chain([opening.site.clone(), opening.settings.peer.clone()])
            .collect(),
    };
    let expanded = headers().any(|header| header.expansion.is_some());
    let seeds = expanded.then(|| expansion::connect(opening.state())).transpose()?;
    Ok(Box::new(PresharedLink { pads, folder, provenance, seeds, wiped: RefCell::default() }))
}

impl PresharedLink {
    /// The pads that have a part of `range`, with that part.
    fn parts(&self, range: KeyRange) -> impl Iterator<Item = (&Pad, KeyRange)> {
        let parts = self.pads.iter().map(move |pad| {
            let whole = pad.header.range();
            let start = whole.position.max(range.position);
            (pad, KeyRange::between(start, whole.end().min(range.end())))
        });
        parts.filter(|(_, part)| part.units > 0)
    }

    /// What is expanded in a pad, and who has its seeds.
    fn expanded(&self, pad: &Pad, stream: &StreamId) -> Option<(Body, &dyn Seeds)> {
        pad.body(stream).zip(self.seeds.as_deref())
    }

    fn pad(&self, range: KeyRange) -> Result<&Pad, Error> {
        let absent = || Error::Pad {
            path: self.folder.clone(),
            what: "no imported pad has the keys that the peer uses",
        };
        self.pads.iter().find(|pad| pad.header.range().contains(&range)).ok_or_else(absent)
    }

    /// Wipes the part of a range that one pad has: what is in memory first, which is enough against
    /// whoever takes the disk, then what is on the disk.
    fn wipe(&self, pad: &Pad, stream: &StreamId, part: KeyRange) -> Result<(), Error> {
        if let Some((body, seeds)) = self.expanded(pad, stream) {
            body.spend(seeds, part)?;
        }
        pad.wipe(stream, part)?;
        let mut wiped = self.wiped.borrow_mut();
        match wiped.last_mut() {
            Some((number, of, last))
                if (*number, &*of, last.end()) == (pad.header.number, stream, part.position) =>
            {
                last.units += part.units;
            }
            _ => wiped.push((pad.header.number, stream.clone(), part)),
        }
        Ok(())
    }

    /// Gives the disk back what this session wiped, once the zeros are on it.
    fn give_back(&self) -> Result<(), Error> {
        for pad in &self.pads {
            let wiped = self.wiped.borrow();
            let mut here = wiped.iter().filter(|(number, ..)| *number == pad.header.number);
            if here.clone().next().is_some() {
                pad.sync()?;
                here.try_for_each(|(_, stream, range)| pad.punch(stream, *range))?;
            }
        }
        Ok(())
    }
}

impl Drop for PresharedLink {
    fn drop(&mut self) {
        // What is not given back stays as zeros.
        let _ = self.give_back();
    }
}

impl KeySource for PresharedLink {
    fn provenance(&self) -> &Provenance {
        &self.provenance
    }

    fn at_rest(&self) -> AtRest {
        let expanded = self.pads.iter().all(|pad| pad.header.expansion.is_some());
        if expanded && !self.pads.is_empty() { AtRest::Computational } else { AtRest::Exposed }
    }

    fn rate(&self) -> BitRate {
        BitRate(0)
    }

    fn ready(&self, stream: &StreamId) -> Result<Vec<KeyRange>, Error> {
        let mut ranges = Vec::with_capacity(self.pads.len());
        for pad in &self.pads {
            match self.expanded(pad, stream) {
                Some((body, seeds)) => ranges.extend(body.ready(seeds)?),
                None => ranges.push(pad.header.range()),
            }
        }
        Ok(ranges)
    }

    fn read(&self, stream: &StreamId, range: KeyRange, out: &mut [u8]) -> Result<(), Error> {
        assert_eq!(out.len() as u64, range.bytes(), "the caller made room for the range");
        let lease = self.lease(stream, range, &Arc::default())?;
        otp::write(&lease.pad(), out);
        Ok(())
    }

    fn lease(
        &self,
        stream: &StreamId,
        range: KeyRange,
        chunks: &Arc<LeaseChunks>,
    ) -> Result<KeyLease, Error> {
        let pad = self.pad(range)?;
        let mut stored = chunks.take(range.bytes() as usize);
        stored.mark_secret();
        pad.read(stream, range, &mut stored)?;
        match self.expanded(pad, stream) {
            Some((body, seeds)) => body.lease(seeds, stream, range, stored, chunks),
            None => Ok(KeyLease::new(range, stored)),
        }
    }

    fn erase(&self, stream: &StreamId, range: KeyRange) -> Result<(), Error> {
        self.parts(range).try_for_each(|(pad, part)| self.wipe(pad, stream, part))
    }

    fn sweep(&self, stream: &StreamId, range: KeyRange) -> Result<(), Error> {
        for (pad, part) in self.parts(range) {
            if !pad.is_wiped(stream, part)? {
                self.wipe(pad, stream, part)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;
    use std::time::Duration;

    use tempfile::TempDir;

    use super::super::random::OperatingSystem;
    use super::super::{KeyStore, LinkSettings};
    use super::*;
    use crate::base::{ByteCount, Clock};

    const HEADER: usize = pad::HEADER_BYTES;

    fn site(name: &str) -> SiteId {
        name.parse().unwrap()
    }

    fn generate(folder: &TempDir, bytes: u64, clock: &Clock) -> [PathBuf; 2] {
        let mut random = OperatingSystem::new(site("a"));
        let sites = [site("a"), site("b")];
        pad::generate(sites, ByteCount(bytes), &mut random, folder.path(), clock).unwrap()
    }

    fn clock() -> Clock {
        Clock::simulated(Duration::from_secs(1_795_000_000))
    }

    fn store(folder: &TempDir, name: &str, peer: &str) -> KeyStore {
        let links = [LinkSettings::preshared(site(peer))];
        KeyStore::open(site(name), &folder.path().join(name), &links, clock()).unwrap()
    }

    #[test]
    fn used_keys_are_zeros_in_the_file_and_no_others() {
        let folder = tempfile::tempdir().unwrap();
        let [path, other] = generate(&folder, 1 << 20, &clock());
        let before = fs::read(&path).unwrap();
        assert!(before == fs::read(&other).unwrap());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let header = import(&site("a"), &folder.path().join("a"), &site("b"), &path).unwrap();
        assert!(!path.exists());
        let target = folder.path().join("a/keys/b/pads").join(format!("{}.pad", header.number));

        let mut sender = store(&folder, "a", "b").sender(&site("b")).unwrap();
        sender.expect(ByteCount(40_000));
        let lease = sender.take(30_000).unwrap();
        assert!(lease.bytes() == &before[HEADER..HEADER + 30_000]);
        let after = fs::read(&target).unwrap();
        assert!(after[HEADER..HEADER + 30_000].iter().all(|byte| *byte == 0));
        assert!(after[HEADER + 30_000..] == before[HEADER + 30_000..]);
        drop(sender);
        let after = fs::read(&target).unwrap();
        assert!(after[HEADER..HEADER + 40_000].iter().all(|byte| *byte == 0), "the rest as well");
        assert!(after[HEADER + 40_000..] == before[HEADER + 40_000..]);

        let mut follower = store(&folder, "a", "b").follower(&site("b")).unwrap();
        let first = KeyRange { position: header.range().position, units: 5 };
        let half = HEADER + (1 << 19);
        assert!(follower.fetch(first).unwrap().bytes() == &before[half..half + 80]);
        follower.accept(first, KeyRange { units: 9, ..first }).unwrap();
        drop(follower);
        let after = fs::read(&target).unwrap();
        assert!(after[half..half + 144].iter().all(|byte| *byte == 0));
        assert!(after[half + 144..] == before[half + 144..]);
    }

    #[test]
    fn what_a_crash_left_is_wiped_when_no_session_is_open() {
        let folder = tempfile::tempdir().unwrap();
        let [path, _] = generate(&folder, 1 << 20, &clock());
        let header = import(&site("a"), &folder.path().join("a"), &site("b"), &path).unwrap();
        let target = folder.path().join("a/keys/b/pads").join(format!("{}.pad", header.number));
        let before = fs::read(&target).unwrap();
        let store = store(&folder, "a", "b");
        let mut open = store.sender(&site("b")).unwrap();
        open.take(16).unwrap();
        let reserved = HEADER..HEADER + open.reservation().bytes() as usize;
        let mut second = store.sender(&site("b")).unwrap();
        assert!(open.take(16).unwrap().bytes().iter().any(|byte| *byte != 0), "still its own");
        second.take(16).unwrap();
        drop((open, second));

        fs::write(&target, &before).unwrap();
        drop(store.sender(&site("b")).unwrap());
        let after = fs::read(&target).unwrap();
        assert!(after[reserved].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn pads_follow_each_other_and_wiped_keys_are_never_handed_out() {
        let folder = tempfile::tempdir().unwrap();
        let (first, second) = (generate(&folder, 96, &clock()), generate(&folder, 320, &clock()));
        assert_ne!(first, second, "made in the same second");
        for (name, end, peer) in [("a", 0, "b"), ("b", 1, "a")] {
            // In another order than they were made in.
            for paths in [&second, &first] {
                let state = folder.path().join(name);
                import(&site(name), &state, &site(peer), &paths[end]).unwrap();
            }
        }
        let (a, b) = (store(&folder, "a", "b"), store(&folder, "b", "a"));
        let (mut sender, mut follower) =
            (a.sender(&site("b")).unwrap(), b.follower(&site("a")).unwrap());
        assert_eq!(a.level(&site("b")).unwrap().outgoing.remaining, ByteCount(208));
        for bytes in [32, 32, 64] {
            let lease = sender.take(bytes).unwrap();
            assert!(follower.fetch(lease.range()).unwrap().bytes() == lease.bytes());
            follower.accept(lease.range(), sender.reservation()).unwrap();
        }
        let level = a.level(&site("b")).unwrap().outgoing;
        assert_eq!((level.remaining, level.spent), (ByteCount(0), ByteCount(208)));
        let rest = sender.take(64).unwrap().range();
        drop((sender, follower));

        let back = b.sender(&site("a")).unwrap().stream().clone();
        fs::remove_file(folder.path().join("a/keys/b/sent")).unwrap();
        let removed = store(&folder, "a", "b").sender(&site("b")).err().unwrap();
        assert!(matches!(removed, Error::Quarantined { .. }), "{removed}");
        for name in ["sent", "sent.sessions"] {
            fs::remove_file(folder.path().join("a/keys/b").join(name)).unwrap();
        }
        let mut again = store(&folder, "a", "b").sender(&site("b")).unwrap();
        let wiped = again.take(16).err().unwrap();
        assert!(matches!(wiped, Error::Pad { .. }), "{wiped} {rest} {back}");
    }

    #[test]
    fn pads_that_are_damaged_foreign_or_known_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let [path, copy] = generate(&folder, 1000, &clock());
        let good = fs::read(&path).unwrap();
        assert_eq!(good.len(), HEADER + 1024);
        let state = folder.path().join("a");
        let attempt = |bytes: &[u8], site_name, peer| {
            fs::File::create(&path).unwrap().write_all(bytes).unwrap();
            import(&site(site_name), &state, &site(peer), &path)
        };
        assert!(attempt(&good[..good.len() - 1], "a", "b").is_err());
        assert!(attempt(&good[..100], "a", "b").is_err());
        assert!(attempt(&[&good[..], b"x"].concat(), "a", "b").is_err());
        for bit in [3, 20, 90, HEADER - 1] {
            let mut bad = good.clone();
            bad[bit] ^= 1;
            assert!(attempt(&bad, "a", "b").is_err(), "{bit}");
        }
        assert!(attempt(&good, "a", "c").is_err());
        assert!(attempt(&good, "c", "b").is_err());
        attempt(&good, "a", "b").unwrap();
        assert!(import(&site("a"), &state, &site("b"), &copy).is_err(), "the other site's copy");
        assert!(copy.exists(), "a refused pad is left alone");
    }
}
