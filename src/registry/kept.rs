//! The time for which a registry is kept although its ServiceRegistry is gone.
//!
//! Owns the hold. Refuses to know why the ServiceRegistry is gone, and what follows.

use std::sync::{Mutex, PoisonError};

use twinspan_core::plan::departure::held::Hold;

/// The hold of a registry whose ServiceRegistry is gone, perhaps lost with other objects.
#[derive(Debug, Default)]
pub struct Kept(Mutex<Option<Hold>>);

impl Kept {
    /// `None` while the ServiceRegistry exists, and once it is gone for good.
    pub fn hold(&self) -> Option<Hold> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn set(&self, hold: Option<Hold>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = hold;
    }
}
