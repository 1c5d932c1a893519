//! The namespace controller: a namespace that terminates loses its content, and then itself.
//!
//! Owns the order of the two (`pkg/controller/namespace/deletion`, v1.37.2). Refuses the refusal of creations, which
//! every write checks.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::sleep;

use crate::cluster::Cluster;

const AUTHOR: &str = "namespace-controller";

impl Cluster {
    /// The namespace controller, which acts so long after a change. It never ends; its caller runs and stops it.
    pub fn namespace_controller(&self, delay: Duration) -> impl Future<Output = ()> + Send + use<> {
        let cluster = self.clone();
        async move {
            let mut seen = 0;
            loop {
                let until = cluster.more_changes(seen).await;
                seen = until;
                if cluster.terminating().is_empty() {
                    continue;
                }
                sleep(delay).await;
                if cluster.is_any_up() {
                    cluster.terminating().iter().for_each(|name| cluster.empty_namespace(name));
                }
            }
        }
    }

    fn terminating(&self) -> Vec<String> {
        let all = self.all("namespaces").into_iter();
        let terminating = all.filter(|namespace| namespace["status"]["phase"] == "Terminating");
        terminating.filter_map(|namespace| Some(namespace["metadata"]["name"].as_str()?.to_owned())).collect()
    }

    /// Deletes what is in a namespace; the namespace itself once nothing is.
    fn empty_namespace(&self, name: &str) {
        let mut left = false;
        for rules in self.shared().kinds.iter().filter(|rules| rules.namespaced) {
            for object in self.all(&rules.plural) {
                let metadata = &object["metadata"];
                if metadata["namespace"] != name {
                    continue;
                }
                let object_name = metadata["name"].as_str().unwrap_or_default();
                if metadata.get("deletionTimestamp").is_none() {
                    let options: Value = json!({"preconditions": {"uid": metadata["uid"]}});
                    // An object that is gone already needs no deletion.
                    let _ = self.delete_with(AUTHOR, &rules.plural, name, object_name, &options);
                }
                left |= self.get(&rules.plural, name, object_name).is_some();
            }
        }
        if let Some(kind) = self.kind("namespaces").filter(|_| !left) {
            self.write(AUTHOR, |writer| writer.finalize_namespace(kind, name));
        }
    }
}
