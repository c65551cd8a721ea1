//! Values that are wiped on drop and never printed.

use zeroize::Zeroize;

/// A secret value: no `Debug`, no `Clone`, wiped when dropped.
///
/// Use a fixed-size or boxed value: a growing `Vec` leaves copies behind.
pub struct Secret<T: Zeroize>(T);

impl<T: Zeroize> Secret<T> {
    /// Takes charge of `value`.
    pub fn new(value: T) -> Self {
        Self(value)
    }

    /// The value, for the one who has to compute with it.
    pub fn expose(&self) -> &T {
        &self.0
    }

    /// The value, to be changed in place.
    pub fn expose_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

impl<T: Zeroize> Drop for Secret<T> {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}
