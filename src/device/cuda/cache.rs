//! Compiled kernels, kept on the disk: compiling takes seconds, loading milliseconds.
//!
//! A file is named by the BLAKE3 digest of everything that its content depends on, and has in it that digest,
//! the image's digest and the image. What was cut short or changed is compiled again; so is what lies in a
//! folder or file that somebody else could have written, since it would run with this program's data. A folder
//! that cannot be written costs the time only.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

const DIGEST_BYTES: usize = blake3::OUT_LEN;
/// Larger files are none of ours.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// A folder of compiled kernels, if there is one.
pub(super) struct Cache {
    folder: Option<PathBuf>,
}

impl Cache {
    /// `$XDG_CACHE_HOME/dsgd/cuda`, or `~/.cache/dsgd/cuda`.
    pub(super) fn of_user() -> Self {
        let absolute =
            |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let caches =
            absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache")));
        Self { folder: caches.map(|caches| caches.join("dsgd/cuda")) }
    }

    /// The image that `compile` makes from `parts`, from the disk if it is there.
    ///
    /// Errors: those of `compile`.
    pub(super) fn image<E>(
        &self,
        parts: &[&[u8]],
        compile: impl FnOnce() -> Result<Vec<u8>, E>,
    ) -> Result<Vec<u8>, E> {
        let name = digest(parts);
        let path = self.folder.as_ref().map(|folder| folder.join(name.to_hex().as_str()));
        if let Some(image) = path.as_deref().and_then(|path| read(path, &name)) {
            return Ok(image);
        }
        let image = compile()?;
        if let Some(path) = path {
            // Without it the next start compiles again, which is all.
            let _ = write(&path, &name, &image);
        }
        Ok(image)
    }
}

/// The digest of the parts, each with its length.
fn digest(parts: &[&[u8]]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
    }
    hasher.finalize()
}

fn read(path: &Path, name: &blake3::Hash) -> Option<Vec<u8>> {
    let ours = |metadata: fs::Metadata| {
        metadata.uid() == rustix::process::geteuid().as_raw() && metadata.mode() & 0o022 == 0
    };
    // Whose the folder is comes first, and what is opened is not waited for: it may be somebody's pipe.
    if !ours(fs::metadata(path.parent()?).ok()?) {
        return None;
    }
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC;
    let mut file = OpenOptions::new().read(true).custom_flags(flags).open(path).ok()?;
    let metadata = file.metadata().ok()?;
    let sound = metadata.is_file() && metadata.len() <= FILE_BYTES_MAX;
    if !sound || !ours(metadata) {
        return None;
    }
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).ok()?;
    let (own_name, rest) = bytes.split_at_checked(DIGEST_BYTES)?;
    let (of_image, image) = rest.split_at_checked(DIGEST_BYTES)?;
    let whole = own_name == name.as_bytes() && of_image == blake3::hash(image).as_bytes();
    whole.then(|| image.to_vec())
}

/// Whole or not at all: under another name first.
fn write(path: &Path, name: &blake3::Hash, image: &[u8]) -> io::Result<()> {
    static WRITTEN: AtomicU32 = AtomicU32::new(0);
    let folder = path.parent().ok_or(io::ErrorKind::NotFound)?;
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let number = WRITTEN.fetch_add(1, Ordering::Relaxed);
    let part = path.with_extension(format!("{}-{number}.part", std::process::id()));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part)?;
    let fill = |file: &mut File| {
        file.write_all(name.as_bytes())?;
        file.write_all(blake3::hash(image).as_bytes())?;
        file.write_all(image)
    };
    let written = fill(&mut file).and_then(|()| fs::rename(&part, path));
    if written.is_err() {
        let _ = fs::remove_file(&part);
    }
    written
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// Asks for an image; says whether it was compiled.
    fn ask(cache: &Cache, parts: &[&[u8]]) -> bool {
        let mut compiled = false;
        let image = cache.image(parts, || {
            compiled = true;
            Ok::<_, ()>(parts.concat())
        });
        assert_eq!(image, Ok(parts.concat()));
        compiled
    }

    fn in_folder(folder: &Path) -> Cache {
        Cache { folder: Some(folder.join("dsgd/cuda")) }
    }

    #[test]
    fn an_image_is_compiled_once_for_all_it_depends_on() {
        let folder = tempfile::tempdir().unwrap();
        let cache = in_folder(folder.path());
        for parts in
            [[b"source".as_slice(), b"sm_90"], [b"source", b"sm_80"], [b"sourcesm_9", b"0"]]
        {
            assert!(ask(&cache, &parts));
            assert!(!ask(&in_folder(folder.path()), &parts));
        }
        let names = fs::read_dir(folder.path().join("dsgd/cuda")).unwrap();
        let names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
        assert!(names.len() == 3 && names.iter().all(|name| name.len() == 64), "{names:?}");
        assert!(cache.image(&[b"other"], || Err("no")).is_err());
    }

    #[test]
    fn a_file_that_is_not_whole_or_not_ours_is_compiled_again() {
        let folder = tempfile::tempdir().unwrap();
        let cache = in_folder(folder.path());
        let parts = [b"a long enough source".as_slice()];
        assert!(ask(&cache, &parts));
        let path = fs::read_dir(folder.path().join("dsgd/cuda")).unwrap().next().unwrap();
        let path = path.unwrap().path();
        let whole = fs::read(&path).unwrap();
        for at in [0, DIGEST_BYTES, 2 * DIGEST_BYTES, whole.len() - 1] {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            for spoilt in [&changed[..], &whole[..at]] {
                fs::write(&path, spoilt).unwrap();
                assert!(ask(&cache, &parts), "byte {at}");
                assert_eq!(fs::read(&path).unwrap(), whole, "and written again");
            }
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        assert!(ask(&cache, &parts), "anybody could have written it");
        assert!(!ask(&cache, &parts));
        fs::set_permissions(path.parent().unwrap(), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(ask(&cache, &parts), "anybody could have put it there");
    }

    #[test]
    fn a_pipe_in_the_place_of_an_image_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let cache = in_folder(folder.path());
        assert!(ask(&cache, &[b"source"]));
        let path = folder.path().join("dsgd/cuda").join(digest(&[b"source"]).to_hex().as_str());
        fs::remove_file(&path).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        let (told, answer) = std::sync::mpsc::channel();
        std::thread::spawn(move || told.send(ask(&cache, &[b"source"])));
        let compiled = answer.recv_timeout(std::time::Duration::from_secs(60));
        assert!(compiled.expect("it waits for the pipe"));
    }

    #[test]
    fn without_a_folder_everything_is_compiled() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("dsgd"), "not a folder").unwrap();
        for cache in [in_folder(folder.path()), Cache { folder: None }] {
            assert!(ask(&cache, &[b"source"]));
            assert!(ask(&cache, &[b"source"]));
        }
    }
}
