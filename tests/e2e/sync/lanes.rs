//! Lanes: instances of one registry name in several versions, told apart by a tag on both sides.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::json;
use twinspan_testbed::{Caller, Framework, NODE, Server, ServerOptions, eventually, next_v4, resolve};

use crate::harness::{SOON, Sandbox, Suite, stories};

stories![a_lane_of_pods_and_servers];

const BASE: &str = "base";
const GREEN: &str = "green";

/// A pod of a lane, with a real server in it.
async fn pod(sandbox: &Sandbox<'_>, lane: &str, name: &str, node: &str) -> Result<Server> {
    let address = SocketAddr::from((next_v4(), 8888));
    let options = ServerOptions { silent: true, ..ServerOptions::default() };
    let server = Server::start(sandbox.bed.dir(), sandbox.registry.endpoint(), "echo", address, &options).await?;
    let labels = [("app", "echo"), ("lane", lane)].map(|(label, value)| (label.to_owned(), value.to_owned()));
    sandbox.pods.run_on(node, name, &labels.into(), &[address.ip()], json!([])).await?;
    sandbox.pods.set_ready(name, true).await?;
    Ok(server)
}

/// A server on a VM that registers itself in a lane.
async fn vm(sandbox: &Sandbox<'_>, lane: &str) -> Result<Server> {
    let tags = vec![("lane".to_owned(), lane.to_owned())];
    let options = ServerOptions { prefix: Some(sandbox.name.clone()), tags, ..ServerOptions::default() };
    let address = SocketAddr::from((next_v4(), 9000));
    Server::start(sandbox.bed.dir(), sandbox.registry.endpoint(), "echo", address, &options).await
}

async fn a_lane_of_pods_and_servers(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let sandbox = Sandbox::new(bed, "lanes").await?;
    let zoned = format!("{}-node", sandbox.name);
    let nodes: Api<Node> = Api::all(sandbox.client());
    let node = json!({"metadata": {"name": zoned, "labels": {
        "topology.kubernetes.io/zone": "eu-1a", "node.kubernetes.io/exclude-from-external-load-balancers": ""}}});
    nodes.create(&PostParams::default(), &serde_json::from_value(node)?).await?;
    for lane in [BASE, GREEN] {
        let ports = json!([{"name": "rpc", "port": 8888}]);
        let selector = json!({"app": "echo", "lane": lane});
        sandbox.service(lane, json!({"clusterIP": "None", "selector": selector, "ports": ports})).await?;
        let export = json!({"tagsFromPodLabels": [{"label": "lane", "tag": "lane"}], "zoneTag": "zone"});
        let import = json!({"tagSelector": {"matchLabels": {"lane": lane}}});
        sandbox.register(lane, json!({"registryName": "echo", "export": export, "import": import})).await?;
    }
    let (base_pod, green_pod) = (pod(&sandbox, BASE, "a", NODE).await?, pod(&sandbox, GREEN, "b", &zoned).await?);
    let (base_vm, green_vm) = (vm(&sandbox, BASE).await?, vm(&sandbox, GREEN).await?);
    let client = |lane: &str| {
        let (etcd, prefix, lane) = (sandbox.registry.endpoint(), Some(sandbox.name.as_str()), format!("lane={lane}"));
        Caller::start_in_lane(bed.dir(), etcd, "echo", prefix, &lane)
    };
    sandbox.dns_becomes(BASE, &[base_pod.address(), base_vm.address()]).await?;
    sandbox.dns_becomes(GREEN, &[green_pod.address(), green_vm.address()]).await?;
    let tags = |expected: BTreeMap<SocketAddr, (&'static str, Option<&'static str>)>| {
        let sandbox = &sandbox;
        async move {
            eventually("the framework's own resolver returns the tags", SOON, || async {
                let (etcd, prefix) = (sandbox.registry.endpoint(), Some(sandbox.name.as_str()));
                let found = resolve(Framework::Kitex, etcd, "echo", prefix, &["lane", "zone"]).await?;
                let tag = |tags: &BTreeMap<String, String>, tag: &str| tags.get(tag).cloned();
                let found: BTreeMap<String, _> =
                    found.iter().map(|i| (i.address.clone(), (tag(&i.tags, "lane"), tag(&i.tags, "zone")))).collect();
                let text = |text: &str| text.to_owned();
                let expected: BTreeMap<String, _> = expected
                    .iter()
                    .map(|(address, (lane, zone))| (address.to_string(), (Some(text(lane)), zone.map(text))))
                    .collect();
                ensure!(found == expected, "{found:?}, want {expected:?}");
                Ok(())
            })
            .await
        }
    };
    // The Node of one pod has a zone.
    let others = [(base_pod.address(), (BASE, None)), (base_vm.address(), (BASE, None))];
    let with = |of_pod: (&'static str, Option<&'static str>)| {
        let green = [(green_pod.address(), of_pod), (green_vm.address(), (GREEN, None))];
        green.into_iter().chain(others).collect::<BTreeMap<_, _>>()
    };
    tags(with((GREEN, Some("eu-1a")))).await?;
    let (base, green) = (client(BASE)?, client(GREEN)?);
    base.answered_by(&[base_pod.address(), base_vm.address()].into(), SOON).await?;
    green.answered_by(&[green_pod.address(), green_vm.address()].into(), SOON).await?;

    // The pod changes its lane: its record changes hands and its tag in one update.
    let pods: Api<Pod> = Api::namespaced(sandbox.client(), &sandbox.name);
    let label = Patch::Merge(json!({"metadata": {"labels": {"lane": BASE}}}));
    pods.patch("b", &PatchParams::default(), &label).await?;
    sandbox.dns_becomes(GREEN, &[green_vm.address()]).await?;
    tags(with((BASE, Some("eu-1a")))).await?;
    base.answered_by(&[base_pod.address(), base_vm.address(), green_pod.address()].into(), SOON).await?;
    green.answered_by(&[green_vm.address()].into(), SOON).await?;
    sandbox.nothing_foreign_was_touched().await
}
