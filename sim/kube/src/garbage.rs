//! The garbage collector: objects whose owners are gone are deleted.
//!
//! Owns when an owner counts as gone (`pkg/controller/garbagecollector/garbagecollector.go`, v1.37.2). Refuses
//! foreground deletion and orphans by request.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::sleep;

use crate::cluster::Cluster;
use crate::kinds::Kind;
use crate::store::{Change, Store};

const AUTHOR: &str = "garbage-collector";

/// An object of which an owner is gone.
struct Garbage {
    resource: String,
    namespace: String,
    name: String,
    /// The preconditions of its end.
    wanted: Value,
    owners_left: Vec<Value>,
}

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
        for Garbage { resource, namespace, name, wanted, owners_left } in self.garbage() {
            // An object that changed meanwhile is looked at again for that change.
            let _ = if owners_left.is_empty() {
                let options = json!({"preconditions": wanted});
                self.delete_with(AUTHOR, &resource, &namespace, &name, &options).map(drop)
            } else {
                let mut patch = json!({"metadata": wanted});
                patch["metadata"]["ownerReferences"] = json!(owners_left);
                self.patch(AUTHOR, &resource, &namespace, &name, patch).map(drop)
            };
        }
    }

    /// The objects of which an owner is gone.
    fn garbage(&self) -> Vec<Garbage> {
        let (state, kinds) = (self.state(), &self.shared().kinds);
        let store = &state.store;
        let mut garbage = Vec::new();
        for (number, rules) in kinds.iter().enumerate() {
            for (_, object) in store.all(number) {
                let metadata = &object["metadata"];
                let text = |field: &str| metadata[field].as_str().unwrap_or_default().to_owned();
                let namespace = text("namespace");
                let has_owner = |owner: &&Value| has_owner(store, kinds, &namespace, owner);
                let left: Vec<Value> = owners(object).filter(has_owner).cloned().collect();
                if left.len() < owners(object).count() {
                    let wanted = json!({"uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"]});
                    let (resource, name) = (rules.plural.clone(), text("name"));
                    garbage.push(Garbage { resource, namespace, name, wanted, owners_left: left });
                }
            }
        }
        garbage
    }
}

/// Whether the owner is there; an owner of a kind that is not served may be.
fn has_owner(store: &Store, kinds: &[Kind], namespace: &str, owner: &Value) -> bool {
    let is_kind = |kind: &Kind| owner["kind"] == kind.kind && owner["apiVersion"] == kind.api_version();
    let Some(number) = kinds.iter().position(is_kind) else { return true };
    let key = kinds[number].key(namespace, owner["name"].as_str().unwrap_or_default());
    store.get(number, &key).is_some_and(|found| found["metadata"]["uid"] == owner["uid"])
}

fn owners(object: &Value) -> impl Iterator<Item = &Value> {
    object["metadata"]["ownerReferences"].as_array().into_iter().flatten()
}
