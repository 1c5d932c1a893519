//! The EndpointSlice controller: the slices of each Service that selects pods.
//!
//! Owns when it reconciles and on which state. After a break of its watches it lists its kinds one after the other, in
//! any order, and acts on what it has between two lists. Refuses to know which slices a Service needs
//! ([`crate::reconcile`]).

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::time::sleep;

use crate::cluster::Cluster;
use crate::reconcile::{MANAGER, SliceOp, plan};

const AUTHOR: &str = "endpointslice-controller";
/// The kinds that it watches.
const WATCHED: [&str; 3] = ["services", "pods", "endpointslices"];
/// The longest time between two lists.
const BETWEEN_LISTS: u64 = 500;

/// The state that the controller has seen: so many changes of each kind.
struct View {
    cluster: Cluster,
    kinds: [usize; 3],
    seen: [usize; 3],
}

impl Cluster {
    /// The EndpointSlice controller, which acts so long after a change. `seed` draws the order of its lists after its
    /// watches broke. It never ends; its caller runs and stops it, and a new one begins like a restarted process.
    pub fn endpoint_slice_controller(&self, delay: Duration, seed: u64) -> impl Future<Output = ()> + Send + use<> {
        let cluster = self.clone();
        let mut draw = Draw(seed);
        async move {
            let kinds = WATCHED.map(|resource| cluster.kind(resource).unwrap_or_default());
            let mut view = View { cluster: cluster.clone(), kinds, seen: [0; 3] };
            let (mut seen, mut breaks, mut retry) = (0, cluster.watch_breaks(), false);
            loop {
                if !retry {
                    cluster.until(|| (cluster.has_news(seen, breaks) && cluster.is_any_up()).then_some(())).await;
                }
                sleep(delay).await;
                let until = cluster.more_changes(0).await;
                let concerned = seen == 0
                    || retry
                    || cluster.any_change_in(seen, until, |change| WATCHED.contains(&&*change.resource));
                seen = until;
                if cluster.watch_breaks() != breaks {
                    breaks = cluster.watch_breaks();
                    retry = false;
                    for index in draw.order() {
                        view.seen[index] = cluster.more_changes(0).await;
                        retry |= view.sync();
                        sleep(Duration::from_millis(draw.below(BETWEEN_LISTS))).await;
                    }
                    // Changes of that time are news.
                    seen = seen.min(until.saturating_sub(1));
                } else if concerned {
                    view.seen = [until; 3];
                    retry = view.sync();
                }
            }
        }
    }

    fn has_news(&self, seen: usize, breaks: u64) -> bool {
        self.state().store.changes().len() > seen || self.watch_breaks() != breaks
    }

    fn watch_breaks(&self) -> u64 {
        self.state().servers.iter().map(|faults| faults.cuts).sum()
    }
}

impl View {
    fn list(&self, index: usize) -> Vec<Arc<Value>> {
        let state = self.cluster.state();
        state.store.list_at(self.kinds[index], self.seen[index]).into_iter().map(|(_, object)| object).collect()
    }

    /// Reconciles every Service. Returns whether a write failed, after which it tries again.
    fn sync(&self) -> bool {
        let [services, pods, slices] = [0, 1, 2].map(|index| self.list(index));
        let mut failed = false;
        for service in services {
            let metadata = &service["metadata"];
            let (namespace, name) = (&metadata["namespace"], &metadata["name"]);
            let is_ours = |slice: &&Arc<Value>| {
                let labels = &slice["metadata"]["labels"];
                slice["metadata"]["namespace"] == *namespace
                    && labels["kubernetes.io/service-name"] == *name
                    && labels["endpointslice.kubernetes.io/managed-by"] == MANAGER
                    && slice["metadata"].get("deletionTimestamp").is_none()
            };
            let pods: Vec<&Value> = pods
                .iter()
                .map(AsRef::as_ref)
                .filter(|pod: &&Value| pod["metadata"]["namespace"] == *namespace)
                .collect();
            let existing: Vec<&Value> = slices.iter().filter(is_ours).map(AsRef::as_ref).collect();
            for op in plan(&service, &pods, &existing) {
                failed |= self.write(op);
            }
        }
        failed
    }

    /// Returns whether it failed and is worth another attempt.
    fn write(&self, op: SliceOp) -> bool {
        let result = match op {
            SliceOp::Create(slice) => self.cluster.create(AUTHOR, slice).map(drop),
            SliceOp::Replace(slice) => self.cluster.replace(AUTHOR, slice).map(drop),
            SliceOp::Delete(slice) => {
                let text = |field: &str| slice["metadata"][field].as_str().unwrap_or_default().to_owned();
                self.cluster.delete(AUTHOR, "endpointslices", &text("namespace"), &text("name"))
            }
        };
        // A conflict is settled by the next event, which brings another plan.
        result.is_err_and(|status| status.code >= 500)
    }
}

/// Numbers from a seed (xorshift*).
struct Draw(u64);

impl Draw {
    fn below(&mut self, limit: u64) -> u64 {
        let mut state = self.0.max(1);
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        self.0 = state;
        (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) % limit.max(1)
    }

    /// The three kinds in any order.
    fn order(&mut self) -> [usize; 3] {
        let mut order = [0, 1, 2];
        for last in [2_usize, 1] {
            let other = usize::try_from(self.below(last as u64 + 1)).unwrap_or_default();
            order.swap(last, other);
        }
        order
    }
}
