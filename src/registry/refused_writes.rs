//! The retries of writes that a registry refused, beside the backoff of each service.
//!
//! Owns their pace: while writes are refused, one of the waiting services is tried every few seconds, and all of them
//! once a write works again ([`RegistryHandle::record_write_result`]). A full database or a lost permission refuses
//! every service, whose backoffs have grown by the time that it is mended. Refuses to write: it only has services
//! reconciled.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use twinspan_core::model::ServiceKey;

use super::handle::RegistryHandle;
use super::records::Affected;

/// Time between two tries. Each costs one refused request.
const PACE: Duration = Duration::from_secs(10);

/// Has services reconciled until it is stopped.
pub async fn run(handle: Arc<RegistryHandle>, stop: CancellationToken) {
    let mut last: Option<ServiceKey> = None;
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = handle.writes_refused.notified() => {}
        }
        // Until none waits any more.
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep(PACE) => {}
            }
            let waiting = handle.refused_services();
            // In turn, because a service may have a reason of its own.
            let next = waiting.iter().find(|service| last.as_ref().is_none_or(|last| *service > last));
            let Some(service) = next.or_else(|| waiting.first()).cloned() else { break };
            handle.notify(Affected { owners: [service.clone()].into(), ..Affected::default() });
            last = Some(service);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;
    use tokio::time::Instant;
    use twinspan_core::codec::{Format, Layout};

    use super::*;
    use crate::registry::RegistryError;
    use crate::registry::handle::{Identity, RegistryEvent};

    fn handle() -> (Arc<RegistryHandle>, mpsc::UnboundedReceiver<RegistryEvent>) {
        let (sender, events) = mpsc::unbounded_channel();
        let (uid, cluster_id, layout) = ("u".into(), "c1".into(), Layout::new(Format::Kitex, "p"));
        let identity = Identity { uid, cluster_id, layout, ttl_seconds: 300, fence_prefix: None };
        (RegistryHandle::new("main", &identity, None, sender), events)
    }

    /// The services that are reconciled next, if any are within a minute.
    async fn reconciled(events: &mut mpsc::UnboundedReceiver<RegistryEvent>) -> Vec<String> {
        let next = async {
            loop {
                if let Some(RegistryEvent::Affected { affected, .. }) = events.recv().await {
                    return affected.owners.into_iter().map(|owner| owner.name).collect();
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(60), next).await.unwrap_or_default()
    }

    fn service(name: &str) -> ServiceKey {
        ServiceKey::new("shop", name)
    }

    fn full() -> Option<RegistryError> {
        Some(RegistryError::NoSpace("3 GB".into()))
    }

    #[tokio::test(start_paused = true)]
    async fn refused_services_are_tried_in_turn_and_all_once_a_write_works() {
        let ((handle, mut events), stop, began) = (handle(), CancellationToken::new(), Instant::now());
        let task = tokio::spawn(run(handle.clone(), stop.clone()));
        for name in ["a", "b", "c"] {
            handle.record_write_result(&service(name), full());
        }
        for (name, at) in [("a", 10), ("b", 20), ("c", 30), ("a", 40)] {
            assert_eq!((reconciled(&mut events).await, began.elapsed().as_secs()), (vec![name.to_owned()], at));
            handle.record_write_result(&service(name), full());
        }
        handle.record_write_result(&service("b"), None);
        assert_eq!(
            (reconciled(&mut events).await, began.elapsed().as_secs()),
            (vec!["a".to_owned(), "c".to_owned()], 40)
        );
        handle.record_write_result(&service("a"), None);
        handle.record_write_result(&service("c"), None);
        stop.cancel();
        task.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn all_refused_services_are_tried_once_keepalives_work_again() {
        let ((handle, mut events), began) = (handle(), Instant::now());
        for name in ["a", "b"] {
            handle.record_write_result(&service(name), full());
        }
        handle.record_keepalive_result(full());
        handle.record_keepalive_result(None);
        assert_eq!(
            (reconciled(&mut events).await, began.elapsed().as_secs()),
            (vec!["a".to_owned(), "b".to_owned()], 0)
        );
    }
}
