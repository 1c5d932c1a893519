//! The pods of a namespace that are being deleted, as the API server has them at the moment.
//!
//! Owns one list, ahead of the watch: a pod that ends asks before the watch has told of it. Refuses to keep anything,
//! and to know which Service selects a pod.

use std::net::IpAddr;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{ApiResource, ListParams, Object, ObjectMeta};
use kube::{Api, Client};
use serde::Deserialize;
use twinspan_core::Timestamp;
use twinspan_core::model::Labels;

use super::{ClusterError, Result};

/// Pods in one page, as in client-go.
const PAGE: u32 = 500;
/// Pages at most: a namespace with more pods than 20,000 is beyond what Kubernetes is made for.
const PAGES: usize = 40;
/// The grace period of a pod that names none (`DefaultTerminationGracePeriodSeconds` of k8s.io/api/core/v1).
const DEFAULT_GRACE: Duration = Duration::from_secs(30);

/// A pod that is being deleted, and whose containers have not all ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndingPod {
    pub name: String,
    pub uid: String,
    pub labels: Labels,
    /// Whether its addresses are those of its Node, which others have too.
    pub host_network: bool,
    pub ips: Vec<IpAddr>,
    /// When its grace period ends, by the API server's clock.
    pub until: Timestamp,
    /// The grace period, which its kubelet counts from the moment at which it begins to end the pod.
    pub grace: Duration,
}

/// The fields of a pod's spec that are read.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    host_network: bool,
}

/// The fields of a pod's status that are read. The rest of a pod is not decoded.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    phase: Option<String>,
    #[serde(rename = "podIP")]
    pod_ip: Option<String>,
    #[serde(rename = "podIPs")]
    pod_ips: Vec<Ip>,
}

#[derive(Clone, Debug, Deserialize)]
struct Ip {
    ip: String,
}

/// Lists them, page by page. The caller sets a deadline.
///
/// # Errors
/// [`ClusterError`] if the API server refuses or cannot be reached; [`ClusterError::Rejected`] for a namespace with
/// more pods than are read.
pub async fn ending_pods(client: &Client, namespace: &str) -> Result<Vec<EndingPod>> {
    let what = || format!("list the pods of {namespace}");
    let resource = ApiResource::erase::<Pod>(&());
    let api: Api<Object<Spec, Status>> = Api::namespaced_with(client.clone(), namespace, &resource);
    let mut params = ListParams::default().limit(PAGE);
    let mut found = Vec::new();
    for _ in 0..PAGES {
        let page = api.list(&params).await.map_err(|error| ClusterError::of(what(), error))?;
        found.extend(
            page.items.into_iter().filter_map(|pod| ending(pod.metadata, &pod.spec, &pod.status.unwrap_or_default())),
        );
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(found),
        }
    }
    Err(ClusterError::Rejected { what: what(), message: "there are too many to read".to_owned() })
}

fn ending(meta: ObjectMeta, spec: &Spec, status: &Status) -> Option<EndingPod> {
    let until = meta.deletion_timestamp?.0;
    if matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
        return None;
    }
    let ips = status.pod_ips.iter().map(|ip| ip.ip.as_str()).chain(status.pod_ip.as_deref());
    let grace = meta.deletion_grace_period_seconds.and_then(|seconds| u64::try_from(seconds).ok());
    Some(EndingPod {
        name: meta.name.unwrap_or_default(),
        uid: meta.uid.unwrap_or_default(),
        labels: meta.labels.as_ref().map(Labels::new).unwrap_or_default(),
        host_network: spec.host_network,
        ips: ips.filter_map(|ip| ip.parse().ok()).collect(),
        until,
        grace: grace.map_or(DEFAULT_GRACE, Duration::from_secs),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::cluster::fake_api::FakeApi;

    fn pod(name: &str, deleted: bool, phase: &str) -> Value {
        let mut pod = json!({
            "metadata": {"name": name, "namespace": "shop", "uid": name, "labels": {"app": "echo"}},
            "spec": {"containers": [{"name": "main", "image": "none"}]},
            "status": {"phase": phase, "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd77::1"}]},
        });
        if deleted {
            pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:30Z");
            pod["metadata"]["deletionGracePeriodSeconds"] = json!(45);
        }
        pod
    }

    #[tokio::test]
    async fn only_pods_that_are_being_deleted_and_have_not_ended_are_found() {
        let api = FakeApi::default();
        let items = [
            pod("a", true, "Running"),
            pod("b", false, "Running"),
            pod("c", true, "Succeeded"),
            pod("d", true, "Failed"),
            json!({"metadata": {"name": "e", "deletionTimestamp": "2026-01-01T00:00:30Z"},
                "spec": {"hostNetwork": true}}),
        ];
        let list = json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items});
        api.put("/api/v1/namespaces/shop/pods", list);
        let found = ending_pods(&api.client(), "shop").await.unwrap();
        let names: Vec<&str> = found.iter().map(|pod| pod.name.as_str()).collect();
        assert_eq!(names, ["a", "e"]);
        assert!(
            found[0].ips.contains(&"10.0.0.1".parse().unwrap()) && found[0].ips.contains(&"fd77::1".parse().unwrap())
        );
        assert_eq!((found[0].grace.as_secs(), found[1].grace.as_secs()), (45, 30));
        assert_eq!(
            (found[0].until.to_string().as_str(), found[0].labels.get("app")),
            ("2026-01-01T00:00:30Z", Some("echo"))
        );
        assert!(found[1].ips.is_empty());
        assert_eq!((found[0].host_network, found[1].host_network), (false, true));
    }

    #[tokio::test]
    async fn a_list_without_an_end_is_given_up() {
        let api = FakeApi::default();
        let list = json!({"kind": "PodList", "apiVersion": "v1", "metadata": {"continue": "more"}, "items": []});
        api.put("/api/v1/namespaces/shop/pods", list);
        let error = ending_pods(&api.client(), "shop").await.unwrap_err();
        assert!(error.to_string().contains("too many"), "{error}");
        assert_eq!(api.take("/pods").len(), PAGES);
        api.refuse("/pods", 403);
        assert_eq!(ending_pods(&api.client(), "shop").await.unwrap_err().label(), "forbidden");
    }
}
