//! Libraries of others that panic where they should give an error.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

thread_local! {
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// What `work` gives; `None` when it panicked, of which nothing is printed where [`hush`] was called.
///
/// What `work` was changing then is in no state to be used.
pub fn caught<T>(work: impl FnOnce() -> T) -> Option<T> {
    let outer = INSIDE.replace(true);
    let done = catch_unwind(AssertUnwindSafe(work));
    INSIDE.set(outer);
    done.ok()
}

/// For a program: panics that become errors are not printed. All others are, as before.
pub fn hush() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !INSIDE.get() {
            print(panic);
        }
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_nothing_and_the_next_one_is_as_before() {
        assert_eq!(caught(|| 7), Some(7));
        assert!(
            caught(|| caught(|| panic!("inner")).map_or_else(|| panic!("outer"), |()| ()))
                .is_none()
        );
        assert!(!INSIDE.get());
    }
}
