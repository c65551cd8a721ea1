//! Memory for what must never be in a file: not swapped, not dumped, gone in a forked child, and where
//! the kernel allows it, in no other mapping at all.
//!
//! Source: Linux manual pages memfd_secret(2), mlock(2), madvise(2).
#![allow(unsafe_code)]

use std::io;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

/// How well the kernel keeps the memory to itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Guard {
    /// In no dump; it may be swapped out, because the limit on locked memory is reached.
    Undumped,
    /// In no dump and never swapped out.
    Locked,
    /// Besides, unmapped from the kernel itself: neither a debugger nor `/proc/PID/mem` reads it.
    Secret,
}

/// Pages of zeros at first, wiped on drop.
pub struct SecretPages {
    start: NonNull<u8>,
    bytes: usize,
    guard: Guard,
}

// SAFETY: the pages belong to this value alone, like those of a boxed slice.
unsafe impl Send for SecretPages {}
// SAFETY: shared access only reads.
unsafe impl Sync for SecretPages {}

impl SecretPages {
    /// Maps `bytes` bytes, with the best guard that the system gives now.
    ///
    /// Errors: the system's, when not even plain memory is left.
    pub fn new(bytes: usize) -> io::Result<Self> {
        os::secret(bytes).or_else(|_| os::plain(bytes))
    }

    /// How well they are kept.
    pub fn guard(&self) -> Guard {
        self.guard
    }
}

impl Deref for SecretPages {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the mapping has `bytes` readable bytes for as long as this value lives.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.bytes) }
    }
}

impl DerefMut for SecretPages {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, writable, and nobody else has a reference.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.bytes) }
    }
}

impl Drop for SecretPages {
    fn drop(&mut self) {
        crate::base::chunk::wipe(self);
        os::unmap(self.start, self.bytes);
    }
}

/// Keeps memory that others own out of core dumps and, where the limit permits, in memory: for buffers
/// of key that live long. Whether it is locked.
pub fn protect(bytes: &mut [u8]) -> bool {
    os::protect(bytes)
}

#[cfg(target_os = "linux")]
mod os {
    use std::io;
    use std::os::fd::{FromRawFd, OwnedFd};
    use std::ptr::NonNull;

    use rustix::mm::{
        Advice, MapFlags, MlockFlags, ProtFlags, madvise, mlock_with, mmap, mmap_anonymous, munmap,
    };

    use super::{Guard, SecretPages};

    fn read_write() -> ProtFlags {
        ProtFlags::READ | ProtFlags::WRITE
    }

    fn pages(start: *mut std::ffi::c_void, bytes: usize, guard: Guard) -> io::Result<SecretPages> {
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(SecretPages { start, bytes, guard })
    }

    /// Pages that only this process's own mapping has.
    pub fn secret(bytes: usize) -> io::Result<SecretPages> {
        // SAFETY: the call takes flags and gives a new descriptor or -1; it touches no memory.
        let file = unsafe {
            let file = libc::syscall(libc::SYS_memfd_secret, libc::O_CLOEXEC);
            let file = i32::try_from(file).ok().filter(|file| *file >= 0);
            OwnedFd::from_raw_fd(file.ok_or_else(io::Error::last_os_error)?)
        };
        rustix::fs::ftruncate(&file, bytes as u64)?;
        // SAFETY: a new mapping at an address of the kernel's choice; no other memory is affected.
        let start =
            unsafe { mmap(std::ptr::null_mut(), bytes, read_write(), MapFlags::SHARED, &file, 0)? };
        let mut secret = pages(start, bytes, Guard::Secret)?;
        advise(&mut secret, &[Advice::LinuxDontFork]);
        Ok(secret)
    }

    /// Ordinary pages, locked if the limit permits.
    pub fn plain(bytes: usize) -> io::Result<SecretPages> {
        // SAFETY: a new mapping at an address of the kernel's choice; no other memory is affected.
        let start = unsafe {
            mmap_anonymous(std::ptr::null_mut(), bytes, read_write(), MapFlags::PRIVATE)?
        };
        let mut plain = pages(start, bytes, Guard::Undumped)?;
        advise(&mut plain, &[Advice::LinuxWipeOnFork]);
        if protect(&mut plain) {
            plain.guard = Guard::Locked;
        }
        Ok(plain)
    }

    pub fn unmap(start: NonNull<u8>, bytes: usize) {
        // SAFETY: the mapping was made by this module with this length, and its only owner is dropped.
        // A failure leaves wiped pages mapped.
        let _ = unsafe { munmap(start.as_ptr().cast(), bytes) };
    }

    /// Advice that an older kernel does not know is not followed.
    fn advise(bytes: &mut [u8], advice: &[Advice]) {
        for advice in advice {
            // SAFETY: the range is whole pages of this module's own; the advice acts on forks and dumps
            // only.
            let _ = unsafe { madvise(bytes.as_mut_ptr().cast(), bytes.len(), *advice) };
        }
    }

    pub fn protect(bytes: &mut [u8]) -> bool {
        const PAGE: usize = crate::base::chunk::PAGE_BYTES;
        let start = bytes.as_mut_ptr() as usize;
        let (first, last) = (start.next_multiple_of(PAGE), (start + bytes.len()) / PAGE * PAGE);
        if first >= last {
            return false;
        }
        // SAFETY: whole pages within the caller's memory; neither call changes their content or their
        // protection.
        unsafe {
            let _ = madvise(first as *mut _, last - first, Advice::LinuxDontDump);
            mlock_with(first as *mut _, last - first, MlockFlags::ONFAULT).is_ok()
        }
    }
}

#[cfg(not(target_os = "linux"))]
compile_error!("secret pages are written for Linux");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_hold_what_is_written_and_begin_as_zeros() {
        for make in [SecretPages::new, os::plain] {
            let mut pages = make(2 * 4096).unwrap();
            assert!(pages.iter().all(|byte| *byte == 0));
            pages[4095..4098].copy_from_slice(b"key");
            assert_eq!((&pages[4095..4098], pages.len()), (&b"key"[..], 8192));
        }
    }

    /// The process reads all of its own memory; what is there with the best guard it does not find.
    #[test]
    fn secret_pages_are_in_no_file_of_the_process() {
        use std::io::{Read, Seek, SeekFrom};
        let Ok(mut pages) = os::secret(4096) else {
            eprintln!("skipped: this kernel gives no memfd_secret");
            return;
        };
        assert_eq!(pages.guard(), Guard::Secret);
        pages[..4].copy_from_slice(b"seed");
        let read = |address: usize| {
            let mut memory = std::fs::File::open("/proc/self/mem").unwrap();
            memory.seek(SeekFrom::Start(address as u64)).unwrap();
            let mut bytes = [0; 4];
            memory.read_exact(&mut bytes).map(|()| bytes)
        };
        let ordinary = Box::new(*b"seed");
        assert_eq!(read(ordinary.as_ptr() as usize).unwrap(), *b"seed", "the reading works");
        assert!(read(pages.as_ptr() as usize).is_err());
    }
}
