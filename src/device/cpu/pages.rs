//! Large tables on huge pages: fewer misses in the translation buffer where accesses are random.
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

#[cfg(test)]
mod tests {
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
