//! The news that the built-in controllers wait for.
//!
//! Owns when a controller is told: never while no API server answers. Refuses to know what a controller does.

use crate::cluster::Cluster;
use crate::store::Change;

impl Cluster {
    /// Waits until there were more changes than `seen` and a server answers. Returns how many there were.
    pub async fn more_changes(&self, seen: usize) -> usize {
        self.until(|| {
            let changes = self.state().store.changes().len();
            (changes > seen && self.is_any_up()).then_some(changes)
        })
        .await
    }

    /// Waits for a result, and looks again after every change.
    pub(crate) async fn until<T>(&self, mut look: impl FnMut() -> Option<T>) -> T {
        loop {
            let changed = self.any_change();
            let told = changed.notified();
            if let Some(found) = look() {
                return found;
            }
            told.await;
        }
    }

    /// Whether a change in a range is of a certain kind.
    pub(crate) fn any_change_in(&self, from: usize, until: usize, is: impl Fn(&Change) -> bool) -> bool {
        self.state().store.changes()[from..until].iter().any(is)
    }
}
