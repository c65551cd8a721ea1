//! Large tables on huge pages, where there are fewer misses in the translation buffer at random
//! accesses; or as the system has them in its cache of a file, where memory is shared.
#![allow(unsafe_code)]

/// A vector of `count` values made by `value`, on huge pages where the system has them.
pub fn vector<T>(count: usize, value: impl FnMut() -> T) -> Vec<T> {
    let mut values = Vec::new();
    values.reserve_exact(count);
    advise(&mut values);
    values.resize_with(count, value);
    values
}

/// An empty vector with room for `count` values, on huge pages where the system has them.
pub fn with_capacity<T>(count: usize) -> Vec<T> {
    let mut values = Vec::new();
    values.reserve_exact(count);
    advise(&mut values);
    values
}

/// A huge page on most systems, and a multiple of every smaller page.
#[cfg(target_os = "linux")]
const HUGE_BYTES: usize = 2 << 20;

/// Asks for huge pages under a vector's memory; whether they come is the system's choice.
#[cfg(target_os = "linux")]
fn advise<T>(values: &mut Vec<T>) {
    use rustix::mm::{Advice, madvise};
    let start = values.as_mut_ptr() as usize;
    let end = start + values.capacity() * size_of::<T>();
    let (first, last) = (start.next_multiple_of(HUGE_BYTES), end / HUGE_BYTES * HUGE_BYTES);
    if first < last {
        // SAFETY: the range lies within the vector's own memory, and this advice changes neither
        // its content nor its protection, only what pages the system puts under it.
        let _ = unsafe { madvise(first as *mut _, last - first, Advice::LinuxHugepage) };
    }
}

#[cfg(not(target_os = "linux"))]
fn advise<T>(_values: &mut Vec<T>) {}

/// A file's bytes as they are in the system's cache: read when they are touched, and in memory once
/// for all programs that map the file.
#[derive(Debug)]
pub struct Mapped {
    start: std::ptr::NonNull<std::ffi::c_void>,
    bytes: usize,
}

// SAFETY: the memory is only read, and is this object's until it is dropped.
unsafe impl Send for Mapped {}
// SAFETY: as above.
unsafe impl Sync for Mapped {}

impl Mapped {
    /// Maps a whole file. As long as it is mapped the file may be replaced, but not changed or cut:
    /// the program would read other bytes, or be ended by the system.
    ///
    /// Errors: the system's; a file without bytes cannot be mapped.
    pub fn new(file: &std::fs::File) -> std::io::Result<Self> {
        use rustix::mm::{MapFlags, ProtFlags, mmap};
        let bytes = usize::try_from(file.metadata()?.len()).map_err(std::io::Error::other)?;
        let (protection, flags) = (ProtFlags::READ, MapFlags::SHARED);
        // SAFETY: the system chooses the place, so no other memory is touched.
        let start = unsafe { mmap(std::ptr::null_mut(), bytes, protection, flags, file, 0) }?;
        let start = std::ptr::NonNull::new(start)
            .ok_or_else(|| std::io::Error::other("the file was mapped at address 0"))?;
        Ok(Self { start, bytes })
    }

    /// The file's bytes. They begin at a multiple of the system's page size.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: these bytes are mapped for reading until the object is dropped.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().cast(), self.bytes) }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: the mapping is this object's own, and nothing refers to it any more.
        let _ = unsafe { rustix::mm::munmap(self.start.as_ptr(), self.bytes) };
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_mapped_file_has_its_bytes() {
        use std::io::Write;
        let mut file = tempfile::tempfile().unwrap();
        assert!(super::Mapped::new(&file).is_err());
        let text: Vec<u8> = (0..100_000u32).map(|number| number as u8).collect();
        file.write_all(&text).unwrap();
        let mapped = super::Mapped::new(&file).unwrap();
        drop(file);
        assert!(mapped.bytes() == text);
    }

    #[test]
    fn the_vector_holds_its_values() {
        let mut next = 0u32;
        let values = super::vector(3 << 20, || {
            next += 1;
            next
        });
        assert_eq!((values.len(), values[0], values[(3 << 20) - 1]), (3 << 20, 1, 3 << 20));
        assert!(super::vector(0, || 1u8).is_empty());
        assert!(super::with_capacity::<u64>(5000).capacity() >= 5000);
    }
}
