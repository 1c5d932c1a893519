//! The other clusters that a session knows to write into its etcd.
//!
//! Owns what was found, and the request for another look. Refuses to look, which [`super::neighbours`] does.

use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

/// The clusters that were found.
#[derive(Debug, Default)]
pub struct Neighbours {
    /// `None` before somebody looked.
    known: Mutex<Option<Vec<String>>>,
    wanted: Notify,
}

impl Neighbours {
    /// The IDs of the others in their order; `None` before this process has looked.
    pub fn known(&self) -> Option<Vec<String>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Asks for a look, for which nobody waits.
    pub(super) fn look(&self) {
        self.wanted.notify_one();
    }

    /// Waits until a look is asked for.
    pub(super) async fn wanted(&self) {
        self.wanted.notified().await;
    }

    /// Returns whether these are others than before.
    pub(super) fn set(&self, found: Vec<String>) -> bool {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let before = known.replace(found);
        before.unwrap_or_default() != known.clone().unwrap_or_default()
    }
}
