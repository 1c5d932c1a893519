//! The addresses that the owner of a namespace can publish under a granted name: those of pods and of Nodes, no other.
//!
//! Owns the ways to try. Every one of them is tried while exports have addresses of Nodes, and of a load balancer.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Endpoints, Node, Pod, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::Client;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use twinspan::api::RegisteredService;
use twinspan_testbed::{eventually, next_v4};

use crate::harness::{SOON, Sandbox, Suite, stories};
use crate::sync::addresses::{Nodes, pod_on};

stories![only_addresses_of_pods_and_nodes_are_published];

/// An address that is neither a pod's nor a Node's.
const VICTIM: Ipv4Addr = Ipv4Addr::new(10, 77, 250, 66);

/// The owner of a namespace: the cluster's role `admin` there, and what Twinspan's documents add to it.
async fn owner(sandbox: &Sandbox<'_>) -> Result<Client> {
    let (client, namespace) = (sandbox.client(), sandbox.name.as_str());
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    accounts.create(&PostParams::default(), &from(json!({"metadata": {"name": "owner"}}))?).await?;
    let bindings: Api<RoleBinding> = Api::namespaced(client, namespace);
    let binding = json!({
        "metadata": {"name": "owner"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "admin"},
        "subjects": [{"kind": "ServiceAccount", "name": "owner", "namespace": namespace}],
    });
    bindings.create(&PostParams::default(), &from(binding)?).await?;
    sandbox.bed.cluster.account(sandbox.bed.dir(), namespace, "owner").await?.client().await
}

fn from<T: DeserializeOwned>(value: Value) -> Result<T> {
    Ok(serde_json::from_value(value)?)
}

/// The API server's answer to a try: it takes it, or forbids it.
async fn tries(what: &str, attempt: impl Future<Output = kube::Result<()>>) -> Result<bool> {
    match attempt.await {
        Ok(()) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 403 || status.code == 422 => Ok(false),
        Err(error) => Err(error).with_context(|| what.to_owned()),
    }
}

async fn patched<K>(api: Api<K>, name: &str, patch: Value) -> kube::Result<()>
where
    K: Clone + DeserializeOwned + std::fmt::Debug,
{
    api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.map(drop)
}

async fn status_patched<K>(api: Api<K>, name: &str, patch: Value) -> kube::Result<()>
where
    K: Clone + DeserializeOwned + std::fmt::Debug,
{
    api.patch_status(name, &PatchParams::default(), &Patch::Merge(patch)).await.map(drop)
}

async fn only_addresses_of_pods_and_nodes_are_published(suite: Arc<Suite>) -> Result<()> {
    let sandbox = Sandbox::new(&suite.shared().await?.bed, "published").await?;
    let apart = json!({"node.kubernetes.io/exclude-from-external-load-balancers": ""});
    let nodes = Nodes::create(&sandbox, &["a"], apart).await?;
    let ports = json!([{"name": "rpc", "port": 8888}]);
    let spec =
        json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local", "selector": {"app": "echo"}, "ports": ports});
    sandbox.service("echo", spec).await?;
    sandbox.register("echo", json!({"export": {"address": "Node"}})).await?;
    let node = nodes.name(&sandbox, "a");
    pod_on(&sandbox, &node, "one", json!([])).await?;
    let service = sandbox.services().get("echo").await?;
    let port = service.spec.and_then(|spec| spec.ports?.first()?.node_port).context("no nodePort")?;
    let lawful = nodes.at(&sandbox, "a", u16::try_from(port)?)?;
    sandbox.records_become("echo", &[lawful]).await?;

    let client = owner(&sandbox).await?;
    let namespace = sandbox.name.as_str();
    let (services, pods): (Api<Service>, Api<Pod>) =
        (Api::namespaced(client.clone(), namespace), Api::namespaced(client.clone(), namespace));
    let balanced = json!({"status": {"loadBalancer": {"ingress": [{"ip": VICTIM.to_string()}]}}});
    let annotated = json!({"metadata": {"annotations": {"twinspan.dev/export-address": VICTIM.to_string()}}});
    let host_ip = json!([{"containerPort": 8888, "hostPort": 8888, "hostIP": VICTIM.to_string()}]);
    let by_hand = json!({
        "metadata": {"name": "by-hand", "labels": {"kubernetes.io/service-name": "echo"}}, "addressType": "IPv4",
        "ports": [{"name": "rpc", "port": 8888, "protocol": "TCP"}],
        "endpoints": [{"addresses": [VICTIM.to_string()], "nodeName": VICTIM.to_string(), "conditions": {"ready": true}}],
    });
    let old = json!({
        "metadata": {"name": "echo"},
        "subsets": [{"addresses": [{"ip": VICTIM.to_string()}], "ports": [{"name": "rpc", "port": 8888}]}],
    });
    let create = PostParams::default();
    let with_host_ip = json!({"metadata": {"name": "two", "labels": {"app": "echo"}},
        "spec": {"nodeName": node, "containers": [{"name": "main", "image": "none", "ports": host_ip}]}});
    let registered: Api<RegisteredService> = Api::namespaced(client.clone(), namespace);
    let nodes_of_all: Api<Node> = Api::all(client.clone());
    let (slices, endpoints): (Api<EndpointSlice>, Api<Endpoints>) =
        (Api::namespaced(client.clone(), namespace), Api::namespaced(client.clone(), namespace));

    let mut taken = BTreeMap::new();
    let external = json!({"spec": {"externalIPs": [VICTIM.to_string()]}});
    taken.insert("externalIPs", tries("externalIPs", patched(services.clone(), "echo", external)).await?);
    let wished = json!({"spec": {"loadBalancerIP": VICTIM.to_string()}});
    taken.insert("loadBalancerIP", tries("loadBalancerIP", patched(services.clone(), "echo", wished)).await?);
    let status = status_patched(services.clone(), "echo", balanced);
    taken.insert("status of the Service", tries("status of the Service", status).await?);
    let annotation = patched(services, "echo", annotated.clone());
    taken.insert("annotation of the Service", tries("annotation of the Service", annotation).await?);
    let annotation = patched(pods.clone(), "one", annotated.clone());
    taken.insert("annotation of a pod", tries("annotation of a pod", annotation).await?);
    let ips = json!({"status": {"podIP": VICTIM.to_string(), "podIPs": [{"ip": VICTIM.to_string()}],
        "hostIP": VICTIM.to_string(), "hostIPs": [{"ip": VICTIM.to_string()}]}});
    taken.insert("status of a pod", tries("status of a pod", status_patched(pods.clone(), "one", ips)).await?);
    let annotation = patched(registered, "echo", annotated.clone());
    taken.insert("annotation of the RegisteredService", tries("annotation of ours", annotation).await?);
    let annotation = patched(nodes_of_all.clone(), &node, annotated);
    taken.insert("annotation of a Node", tries("annotation of a Node", annotation).await?);
    let addresses = json!({"status": {"addresses": [{"type": "InternalIP", "address": VICTIM.to_string()}]}});
    taken.insert("status of a Node", tries("status of a Node", status_patched(nodes_of_all, &node, addresses)).await?);
    let slice = from(by_hand.clone())?;
    let attempt = async { slices.create(&create, &slice).await.map(drop) };
    taken.insert("EndpointSlice", tries("EndpointSlice", attempt).await?);
    let subsets = from(old)?;
    let attempt = async { endpoints.create(&create, &subsets).await.map(drop) };
    taken.insert("Endpoints", tries("Endpoints", attempt).await?);
    let pod = from(with_host_ip)?;
    let attempt = async { pods.create(&create, &pod).await.map(drop) };
    taken.insert("hostIP of a pod", tries("hostIP of a pod", attempt).await?);
    let may: BTreeSet<&str> = taken.iter().filter(|(_, taken)| **taken).map(|(what, _)| *what).collect();
    let expected =
        ["annotation of a pod", "annotation of the Service", "externalIPs", "hostIP of a pod", "loadBalancerIP"];
    ensure!(expected.iter().all(|what| may.contains(what)), "the API server took {may:?}");

    // Somebody with more rights writes the slice; its endpoint is ready, on a Node that does not exist.
    if !may.contains("EndpointSlice") {
        sandbox.slices().create(&create, &from(by_hand)?).await?;
    }
    let ip = IpAddr::V4(next_v4());
    let status = json!({"status": {"podIP": ip, "podIPs": [{"ip": ip}],
        "conditions": [{"type": "Ready", "status": "True"}]}});
    status_patched(Api::<Pod>::namespaced(sandbox.client(), namespace), "two", status).await?;
    // All of it was read: a change behind it shows. The balancer has no address, so the record stays where it is.
    for address in ["Node", "LoadBalancer"] {
        sandbox.patch("echo", json!({"export": {"address": address}})).await?;
        sandbox.seen("echo").await?;
        sandbox.records_become("echo", &[lawful]).await?;
        eventually("the victim is left out", SOON, || async {
            let status = sandbox.registered().get("echo").await?.status.unwrap_or_default();
            let found = status.differences.iter().any(|skipped| skipped.instance.starts_with(&VICTIM.to_string()));
            ensure!(found, "not looked at: {:?}", status.differences);
            Ok(())
        })
        .await?;
        let found = sandbox.registered_addresses("echo").await?;
        ensure!(!found.iter().any(|addr| addr.starts_with(&VICTIM.to_string())), "published {found:?}");
    }
    nodes.delete().await?;
    sandbox.nothing_foreign_was_touched().await
}
