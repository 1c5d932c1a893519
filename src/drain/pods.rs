//! The pods that are being deleted, by one list for everybody who asks within a moment.
//!
//! A rollout ends many pods of a namespace together, and each asks. A list is only good for those who asked before it
//! began: a pod that asks is marked as deleted already, and a list from before may not show it yet. So a list begins a
//! moment after the first request, and all that come until then share it.
//!
//! Owns the number and the deadline of lists. Refuses to know who waits for which pods.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use kube::Client;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tracing::debug;

use crate::cluster::ending_pods::{EndingPod, ending_pods};

/// The time in which requests gather.
const GATHER: Duration = Duration::from_millis(100);
/// Lists under way at once.
const LISTS: usize = 4;
/// The deadline of a list, with the wait for its turn.
const LIST: Duration = Duration::from_secs(5);

/// `None` if the API server could not tell.
pub type Listed = Option<Arc<[EndingPod]>>;
type Listing = Shared<BoxFuture<'static, Listed>>;

/// The lists; clones share them.
#[derive(Clone)]
pub struct Pods {
    client: Client,
    /// The list of each namespace that has not begun yet.
    next: Arc<Mutex<BTreeMap<String, Listing>>>,
    turns: Arc<Semaphore>,
}

impl fmt::Debug for Pods {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pods")
    }
}

impl Pods {
    pub fn new(client: Client) -> Self {
        Self { client, next: Arc::default(), turns: Arc::new(Semaphore::new(LISTS)) }
    }

    fn next(&self) -> MutexGuard<'_, BTreeMap<String, Listing>> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The pods of a namespace that are being deleted now.
    pub async fn ending_in(&self, namespace: &str) -> Listed {
        let listing = {
            let mut next = self.next();
            let begun = || self.clone().list(namespace.to_owned()).boxed().shared();
            next.entry(namespace.to_owned()).or_insert_with(begun).clone()
        };
        listing.await
    }

    async fn list(self, namespace: String) -> Listed {
        sleep(GATHER).await;
        // A pod that asks from now on may be missing in this list.
        self.next().remove(&namespace);
        let listed = async {
            // Nobody closes it.
            let _turn = self.turns.acquire().await.ok()?;
            match ending_pods(&self.client, &namespace).await {
                Ok(pods) => Some(pods.into()),
                Err(error) => {
                    debug!(%error, "pods that end are not waited for");
                    None
                }
            }
        };
        timeout(LIST, listed).await.ok().flatten()
    }
}

#[cfg(test)]
mod tests {
    use futures::future::join_all;
    use serde_json::json;
    use tokio::time::Instant;

    use super::*;
    use crate::cluster::fake_api::FakeApi;

    fn show(api: &FakeApi, namespace: &str, pods: &[&str]) {
        let items: Vec<_> = pods
            .iter()
            .map(|name| json!({"metadata": {"name": name, "deletionTimestamp": "2026-01-01T00:00:30Z"}, "spec": {}}))
            .collect();
        let list = json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items});
        api.put(&format!("/api/v1/namespaces/{namespace}/pods"), list);
    }

    fn names(listed: &Listed) -> Vec<&str> {
        listed.iter().flat_map(|pods| pods.iter()).map(|pod| pod.name.as_str()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn requests_of_a_moment_share_a_list_that_begins_after_all_of_them() {
        let api = FakeApi::default();
        show(&api, "shop", &["a"]);
        show(&api, "other", &["c"]);
        let pods = Pods::new(api.client());
        let first = tokio::spawn({
            let pods = pods.clone();
            async move { pods.ending_in("shop").await }
        });
        sleep(GATHER / 2).await;
        // Another pod ends, and asks, before the list.
        show(&api, "shop", &["a", "b"]);
        let more = join_all((0..50).map(|_| pods.ending_in("shop"))).await;
        assert!(more.iter().all(|listed| names(listed) == ["a", "b"]), "{more:?}");
        assert_eq!(names(&first.await.unwrap()), ["a", "b"]);
        assert_eq!(api.take("/pods").len(), 1);
        // A later request has a list of its own, and so has another namespace.
        show(&api, "shop", &[]);
        assert!(names(&pods.ending_in("shop").await).is_empty());
        assert_eq!(names(&pods.ending_in("other").await), ["c"]);
        assert_eq!(api.take("/pods").len(), 2);
        assert!(pods.next().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_after_a_list_began_does_not_share_it() {
        let api = FakeApi::default();
        show(&api, "shop", &[]);
        api.delay(Duration::from_secs(1));
        let pods = Pods::new(api.client());
        let first = tokio::spawn({
            let pods = pods.clone();
            async move { pods.ending_in("shop").await }
        });
        sleep(GATHER * 2).await;
        show(&api, "shop", &["a"]);
        assert_eq!(names(&pods.ending_in("shop").await), ["a"]);
        assert!(names(&first.await.unwrap()).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn lists_have_a_number_and_a_deadline_and_one_that_nobody_awaits_is_still_shared() {
        let api = FakeApi::default();
        let namespaces: Vec<String> = (0..20).map(|n| format!("n{n}")).collect();
        namespaces.iter().for_each(|namespace| show(&api, namespace, &["a"]));
        api.delay(Duration::from_millis(500));
        let pods = Pods::new(api.client());
        let all = join_all(namespaces.iter().map(|namespace| pods.ending_in(namespace))).await;
        assert!(all.iter().all(|listed| names(listed) == ["a"]));
        assert_eq!(api.most_at_once(), LISTS);

        // The first who asked goes away.
        drop(timeout(GATHER / 2, pods.ending_in("n1")).await);
        assert_eq!(names(&pods.ending_in("n1").await), ["a"]);

        api.stall("/pods");
        let began = Instant::now();
        assert!(pods.ending_in("n1").await.is_none());
        assert_eq!(began.elapsed(), GATHER + LIST);
        assert!(pods.next().is_empty());
    }
}
