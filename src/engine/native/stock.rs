//! Objects that the threads of a stage use in turn: made when all are lent, kept from item to item.

use std::sync::{Mutex, PoisonError};

/// Objects for threads, such as scratch memory: as many as work at once.
pub struct Stock<T>(Mutex<Vec<T>>);

impl<T> Stock<T> {
    /// An empty stock.
    pub fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    /// Works with an object that nobody else has; `make` makes one when all are lent.
    ///
    /// Errors: those of both. An object whose work failed is not used again.
    pub fn with<R, E>(
        &self,
        make: impl FnOnce() -> Result<T, E>,
        work: impl FnOnce(&mut T) -> Result<R, E>,
    ) -> Result<R, E> {
        let kept = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = kept().pop();
        let mut object = known.map_or_else(make, Ok)?;
        let result = work(&mut object)?;
        kept().push(object);
        Ok(result)
    }
}
