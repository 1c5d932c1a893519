//! News of own records, for those who wait until one changes.
//!
//! Owns the way from the router to whoever waits, by RegisteredService, so that a change wakes only those that it
//! concerns. Refuses to know what changed: each looks at the views by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use twinspan_core::model::ServiceKey;

/// Clones share everything.
#[derive(Clone, Debug, Default)]
pub struct RecordChanges(Arc<Mutex<BTreeMap<ServiceKey, watch::Sender<()>>>>);

impl RecordChanges {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<ServiceKey, watch::Sender<()>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A receiver that changes when an own record of the RegisteredService may have.
    pub fn of(&self, key: &ServiceKey) -> watch::Receiver<()> {
        let mut waiting = self.lock();
        waiting.retain(|_, sender| sender.receiver_count() > 0);
        waiting.entry(key.clone()).or_insert_with(|| watch::Sender::new(())).subscribe()
    }

    /// Own records of these RegisteredServices changed.
    pub fn tell(&self, owners: &BTreeSet<ServiceKey>) {
        let waiting = self.lock();
        for sender in owners.iter().filter_map(|owner| waiting.get(owner)) {
            sender.send_replace(());
        }
    }

    /// Any may have changed.
    pub fn tell_all(&self) {
        for sender in self.lock().values() {
            sender.send_replace(());
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_change_wakes_those_that_it_concerns_and_nobody_is_remembered() {
        let (a, b) = (ServiceKey::new("shop", "a"), ServiceKey::new("shop", "b"));
        let changes = RecordChanges::default();
        let mut of_a = [changes.of(&a), changes.of(&a)];
        let mut of_b = changes.of(&b);
        changes.tell(&[a].into());
        assert!(of_a.iter_mut().all(|it| it.changed().now_or_never().is_some()));
        assert!(of_b.changed().now_or_never().is_none());
        changes.tell_all();
        assert!(of_b.changed().now_or_never().is_some());
        drop(of_a);
        let _of_b = changes.of(&b);
        assert_eq!(changes.lock().keys().collect::<Vec<_>>(), [&b]);
    }
}
