//! The garbage collector: objects whose owners are gone are deleted.
//!
//! Owns when an owner counts as gone (`pkg/controller/garbagecollector/garbagecollector.go`, v1.37.2). Refuses
//! foreground deletion and orphans by request.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::sleep;

use crate::cluster::Cluster;
use crate::store::Change;

const AUTHOR: &str = "garbage-collector";

impl Cluster {
    /// The garbage collector, which acts so long after a change. It never ends; its caller runs and stops it.
    pub fn garbage_collector(&self, delay: Duration) -> impl Future<Output = ()> + Send + use<> {
        let cluster = self.clone();
        async move {
            let mut seen = 0;
            loop {
                let until = cluster.more_changes(seen).await;
                let concerns = cluster.any_change_in(seen, until, |change: &Change| {
                    let owned = change.after.as_ref().is_some_and(|object| owners(object).next().is_some());
                    owned || change.after.is_none()
                });
                seen = until;
                if concerns {
                    sleep(delay).await;
                    cluster.collect_garbage();
                }
            }
        }
    }

    fn collect_garbage(&self) {
        if !self.is_any_up() {
            return;
        }
        for rules in &self.shared().kinds {
            for object in self.all(&rules.plural) {
                let all: Vec<&Value> = owners(&object).collect();
                let metadata = &object["metadata"];
                let namespace = metadata["namespace"].as_str().unwrap_or_default();
                let name = metadata["name"].as_str().unwrap_or_default();
                let left: Vec<&Value> = all.iter().copied().filter(|owner| self.has_owner(namespace, owner)).collect();
                if left.len() == all.len() {
                    continue;
                }
                let wanted = json!({"uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"]});
                // An object that changed meanwhile is looked at again for that change.
                let _ = if left.is_empty() {
                    let options = json!({"preconditions": wanted});
                    self.delete_with(AUTHOR, &rules.plural, namespace, name, &options).map(drop)
                } else {
                    let mut patch = json!({"metadata": wanted});
                    patch["metadata"]["ownerReferences"] = json!(left);
                    self.patch(AUTHOR, &rules.plural, namespace, name, patch).map(drop)
                };
            }
        }
    }

    /// Whether the owner is there; an owner of a kind that is not served may be.
    fn has_owner(&self, namespace: &str, owner: &Value) -> bool {
        let mut kinds = self.shared().kinds.iter();
        let Some(rules) = kinds.find(|kind| owner["kind"] == kind.kind && owner["apiVersion"] == kind.api_version())
        else {
            return true;
        };
        let namespace = if rules.namespaced { namespace } else { "" };
        let found = self.get(&rules.plural, namespace, owner["name"].as_str().unwrap_or_default());
        found.is_some_and(|found| found["metadata"]["uid"] == owner["uid"])
    }
}

fn owners(object: &Value) -> impl Iterator<Item = &Value> {
    object["metadata"]["ownerReferences"].as_array().into_iter().flatten()
}
