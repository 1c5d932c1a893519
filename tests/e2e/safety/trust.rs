//! Trust: a hostile registry writer cannot get forbidden addresses into a Service, and a hostile namespace cannot
//! publish a foreign name.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::authorization::v1::SelfSubjectAccessReview;
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use twinspan::api::RegisteredService;
use twinspan::api::discovered::DISCOVERED_BY;
use twinspan_testbed::{apply_file, discovery_manifest, eventually, next_v4};

use crate::harness::{SOON, Sandbox, Suite, merge, record, stories};

stories![a_hostile_registry_writer, import_policy, networks_are_followed, a_hostile_namespace, admission_policy];

async fn create_node(sandbox: &Sandbox<'_>, name: &str, address: &str, pod_cidr: Option<&str>) -> Result<()> {
    let nodes: Api<Node> = Api::all(sandbox.client());
    let spec = pod_cidr.map_or(json!({}), |cidr| json!({"podCIDR": cidr, "podCIDRs": [cidr]}));
    let node = serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec}))?;
    nodes.create(&PostParams::default(), &node).await?;
    let status = json!({"status": {"addresses": [{"type": "InternalIP", "address": address}]}});
    nodes.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await?;
    Ok(())
}

/// Waits for the expected number of skipped addresses, and compares their reasons.
async fn skipped_are(sandbox: &Sandbox<'_>, name: &str, expected: &BTreeMap<String, &str>) -> Result<()> {
    eventually("each refusal has its reason", SOON, || async {
        let status = sandbox.registered().get(name).await?.status.unwrap_or_default();
        let wanted = i64::try_from(expected.len())?;
        ensure!(status.instances.skipped == wanted, "{} skipped, want {wanted}", status.instances.skipped);
        for shown in status.differences.iter() {
            let reason = expected.get(&shown.instance).with_context(|| format!("{shown:?} should not be skipped"))?;
            ensure!(*reason == shown.reason, "{shown:?}, want {reason}");
        }
        Ok(())
    })
    .await
}

async fn a_hostile_registry_writer(suite: Arc<Suite>) -> Result<()> {
    let shared = suite.shared().await?;
    let bed = &shared.bed;
    let sandbox = Sandbox::new(bed, "hostile").await?;
    let victim = Sandbox::new(bed, "victim").await?;
    let (others, node_ip, mine) = (next_v4(), next_v4(), next_v4());
    victim.pods.run("victim", &BTreeMap::new(), &[others.into()]).await?;
    sandbox.pods.run("mine", &BTreeMap::new(), &[mine.into()]).await?;
    create_node(&sandbox, &format!("{}-node", sandbox.name), &node_ip.to_string(), Some("10.78.0.0/24")).await?;

    let api_server =
        bed.cluster.server().rsplit_once(':').context("host:port")?.0.trim_start_matches("https://").to_owned();
    let cases: Vec<(String, &str)> = vec![
        (format!("{api_server}:6443"), "APIServerAddress"),
        (format!("{node_ip}:10250"), "NodeAddress"),
        (format!("{others}:80"), "OtherNamespacesPod"),
        ("10.78.0.77:80".to_owned(), "NoSuchPod"),
        ("10.96.0.1:443".to_owned(), "ServiceAddress"),
        ("[fd96::1]:443".to_owned(), "ServiceAddress"),
        ("169.254.169.254:80".to_owned(), "LinkLocalAddress"),
        ("[fe80::1]:80".to_owned(), "LinkLocalAddress"),
        ("[fe80::1%eth0]:80".to_owned(), "ZoneIdentifier"),
        ("224.0.0.251:5353".to_owned(), "MulticastAddress"),
        ("239.1.2.3:80".to_owned(), "MulticastAddress"),
        ("[ff0e::1]:80".to_owned(), "MulticastAddress"),
        ("255.255.255.255:80".to_owned(), "BroadcastAddress"),
        (format!("[::ffff:{others}]:80"), "Ipv4MappedAddress"),
        ("010.077.000.001:6443".to_owned(), "NonCanonicalAddress"),
        ("[FD77::1]:80".to_owned(), "NonCanonicalAddress"),
        ("127.0.0.1:80".to_owned(), "LoopbackAddress"),
        ("[::1]:80".to_owned(), "LoopbackAddress"),
        ("0.0.0.0:80".to_owned(), "UnspecifiedAddress"),
        ("kubernetes.default.svc:443".to_owned(), "HostnameAddress"),
        (format!("{others}:0"), "PortZero"),
    ];
    // Five at a time, because status names five; each service is a neighbour of the others.
    for (n, chunk) in cases.chunks(5).enumerate() {
        let name = format!("target-{n}");
        sandbox.headless_without_selector(&name, 80).await?;
        sandbox.register(&name, json!({})).await?;
        for (address, _) in chunk {
            bed.registry
                .put(&sandbox.key(&name, format!("as-{}", address.replace('/', "_"))), &record(address).to_string())
                .await?;
        }
        let good = format!("{mine}:{}", 9000 + n);
        bed.registry.put(&sandbox.key(&name, &good), &record(good).to_string()).await?;
    }
    for (n, chunk) in cases.chunks(5).enumerate() {
        let name = format!("target-{n}");
        let good: SocketAddr = format!("{mine}:{}", 9000 + n).parse()?;
        sandbox.imports_become(&name, &[good]).await?;
        skipped_are(&sandbox, &name, &chunk.iter().map(|(address, reason)| (address.clone(), *reason)).collect())
            .await?;
    }
    let reasons: BTreeSet<&str> = cases.iter().map(|(_, reason)| *reason).collect();
    for reason in reasons {
        let metric = shared.twinspan.metric(&format!("twinspan_skipped_instances{{reason=\"{reason}\"}}")).await?;
        ensure!(metric.is_some_and(|n| n >= 1.0), "{reason} is not counted: {metric:?}");
    }
    sandbox.nothing_foreign_was_touched().await
}

async fn import_policy(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let sandbox = Sandbox::new(bed, "policy").await?;
    sandbox.headless_without_selector("user", 80).await?;
    sandbox.register("user", json!({})).await?;
    let (pod, inside, outside) = (next_v4(), "192.0.2.10", "198.51.100.10");
    sandbox.pods.run("pod", &BTreeMap::new(), &[pod.into()]).await?;
    let at = |ip: &str| format!("{ip}:9000").parse::<SocketAddr>();
    let all = [at(&pod.to_string())?, at(inside)?, at(outside)?];
    for address in &all {
        bed.registry.put(&sandbox.key("user", address), &record(address).to_string()).await?;
    }
    sandbox.imports_become("user", &all).await?;
    let policy = |policy: Value| {
        let (api, name) = (sandbox.registries(), sandbox.name.clone());
        let body = Patch::Merge(json!({"spec": {"importPolicy": policy}}));
        async move { api.patch(&name, &PatchParams::default(), &body).await }
    };
    // Listed networks and pods are allowed; denied networks win; a pod network contains pods only.
    policy(json!({"allowCIDRs": ["192.0.2.0/24"]})).await?;
    sandbox.imports_become("user", &all[..2]).await?;
    skipped_are(&sandbox, "user", &BTreeMap::from([(all[2].to_string(), "NotInAllowCIDRs")])).await?;
    policy(json!({"denyCIDRs": ["192.0.2.0/24"]})).await?;
    sandbox.imports_become("user", &all[..1]).await?;
    policy(json!({"allowCIDRs": null, "denyCIDRs": null, "podCIDRs": ["198.51.100.0/24"]})).await?;
    sandbox.imports_become("user", &all[..2]).await?;
    skipped_are(&sandbox, "user", &BTreeMap::from([(all[2].to_string(), "NoSuchPod")])).await?;
    policy(Value::Null).await?;
    sandbox.imports_become("user", &all).await?;
    sandbox.nothing_foreign_was_touched().await
}

/// A Node, a pod or a Service range that appears later makes an imported address forbidden, without any other event.
async fn networks_are_followed(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let sandbox = Sandbox::new(bed, "networks").await?;
    let victim = Sandbox::new(bed, "networks-victim").await?;
    sandbox.headless_without_selector("user", 80).await?;
    sandbox.register("user", json!({})).await?;
    let addresses = ["10.79.1.1:80", "10.79.2.1:80", "10.79.3.1:80", "10.79.4.1:80"];
    let all: Vec<SocketAddr> = addresses.iter().map(|a| a.parse()).collect::<Result<_, _>>()?;
    for address in &all {
        bed.registry.put(&sandbox.key("user", address), &record(address).to_string()).await?;
    }
    sandbox.imports_become("user", &all).await?;
    create_node(&sandbox, &format!("{}-late", sandbox.name), "10.79.1.1", Some("10.79.2.0/24")).await?;
    sandbox.imports_become("user", &all[2..]).await?;
    victim.pods.run("late", &BTreeMap::new(), &["10.79.3.1".parse()?]).await?;
    sandbox.imports_become("user", &all[3..]).await?;
    let cidrs: Api<k8s_openapi::api::networking::v1::ServiceCIDR> = Api::all(sandbox.client());
    let name = format!("{}-late", sandbox.name);
    let cidr = serde_json::from_value(json!({"metadata": {"name": name}, "spec": {"cidrs": ["10.79.4.0/24"]}}))?;
    cidrs.create(&PostParams::default(), &cidr).await?;
    sandbox.imports_become("user", &[]).await?;
    skipped_are(
        &sandbox,
        "user",
        &BTreeMap::from([
            (addresses[0].to_owned(), "NodeAddress"),
            (addresses[1].to_owned(), "NoSuchPod"),
            (addresses[2].to_owned(), "OtherNamespacesPod"),
            (addresses[3].to_owned(), "ServiceAddress"),
        ]),
    )
    .await?;
    // An object that is deleted frees its addresses.
    let nodes: Api<Node> = Api::all(sandbox.client());
    nodes.delete(&name, &DeleteParams::default()).await?;
    victim.pods.remove("late").await?;
    sandbox.imports_become("user", &all[..3]).await?;
    sandbox.nothing_foreign_was_touched().await
}

async fn a_hostile_namespace(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let sandbox = Sandbox::new(bed, "owner").await?;
    let intruder = Sandbox::new(bed, "intruder").await?;
    intruder.selector_service("payment", 80).await?;
    let pod = intruder.pod("payment", "pod", 80).await?;
    intruder.pods.set_ready("pod", true).await?;
    // A foreign registry that does not list this namespace.
    let spec =
        json!({"registryRef": {"name": sandbox.name}, "registryName": "payment", "service": {"name": "payment"}});
    intruder.register("payment", spec).await?;
    intruder.condition("payment", "Accepted", "False", "NotAllowed").await?;
    ensure!(sandbox.records("payment").await?.is_empty());
    // The namespace may use its own registry.
    intruder.patch("payment", json!({"registryRef": {"name": intruder.name}})).await?;
    intruder.records_become("payment", &[pod.address()]).await?;
    ensure!(sandbox.records("payment").await?.is_empty());
    // A move to where the name is not allowed changes nothing, here or there.
    intruder.patch("payment", json!({"registryRef": {"name": sandbox.name}})).await?;
    intruder.condition("payment", "Accepted", "False", "NotAllowed").await?;
    intruder.records_become("payment", &[pod.address()]).await?;
    ensure!(sandbox.records("payment").await?.is_empty());
    // The permission is withdrawn, and so are the records.
    let nobody = json!({"spec": {"allowed": [{"namespaceSelector": {}, "registryNames": ["other"]}]}});
    intruder.registries().patch(&intruder.name, &PatchParams::default(), &Patch::Merge(nobody)).await?;
    intruder.records_become("payment", &[]).await?;
    sandbox.nothing_foreign_was_touched().await
}

/// The policies limit the operator's ServiceAccount to its own objects, whatever its RBAC says.
async fn admission_policy(suite: Arc<Suite>) -> Result<()> {
    let bed = suite.own_bed().await?;
    let sandbox = Sandbox::new(&bed, "vap").await?;
    let operator = bed.operator().client().await?;
    slices_of_its_own(&sandbox, Api::namespaced(operator.clone(), &sandbox.name)).await?;
    services_of_its_own(&sandbox, Api::namespaced(operator.clone(), &sandbox.name)).await?;
    objects_of_its_discovery(&sandbox, Api::namespaced(operator, &sandbox.name)).await
}

fn refused<T: Debug>(outcome: kube::Result<T>, says: &str) -> Result<()> {
    match outcome {
        Err(kube::Error::Api(status)) if status.message.contains(says) => Ok(()),
        other => anyhow::bail!("{says:?} was expected: {other:?}"),
    }
}

fn dry_run() -> PostParams {
    PostParams { dry_run: true, ..PostParams::default() }
}

async fn slices_of_its_own(sandbox: &Sandbox<'_>, operator: Api<EndpointSlice>) -> Result<()> {
    let label = "endpointslice.kubernetes.io/managed-by";
    let slice = |name: &str, manager: &str| {
        serde_json::from_value::<EndpointSlice>(json!({
            "metadata": {"name": name, "labels": {"kubernetes.io/service-name": "x", label: manager}},
            "addressType": "IPv4", "endpoints": [], "ports": [],
        }))
    };
    let theirs = slice("theirs", "somebody-else.example")?;
    eventually("the policy is in force", SOON, || async { refused(operator.create(&dry_run(), &theirs).await, label) })
        .await?;
    let stored = sandbox.slices().get("bystander").await?;
    refused(operator.replace("bystander", &PostParams::default(), &stored).await, label)?;
    refused(operator.delete("bystander", &DeleteParams::default()).await, label)?;
    let mut taken = stored.clone();
    taken.metadata.labels.get_or_insert_default().insert(label.into(), "twinspan.dev".into());
    refused(operator.replace("bystander", &PostParams::default(), &taken).await, label)?;
    // The operator may write its own slices, and other users may write as before.
    let ours = operator.create(&PostParams::default(), &slice("ours", "twinspan.dev")?).await?;
    let ours = operator.replace("ours", &PostParams::default(), &ours).await?;
    let mut given_away = ours.clone();
    given_away.metadata.labels.get_or_insert_default().insert(label.into(), "x".into());
    refused(operator.replace("ours", &PostParams::default(), &given_away).await, label)?;
    operator.delete("ours", &DeleteParams::default()).await?;
    sandbox.slices().create(&PostParams::default(), &theirs).await?;
    Ok(())
}

/// With `discovery.enabled` the operator makes, changes and deletes RegisteredServices of its discovery, and no others.
async fn objects_of_its_discovery(sandbox: &Sandbox<'_>, operator: Api<RegisteredService>) -> Result<()> {
    let says = "that its discovery made";
    let object = |name: &str, labels: Value| {
        serde_json::from_value::<RegisteredService>(json!({
            "apiVersion": "twinspan.dev/v1alpha1", "kind": "RegisteredService", "metadata": {"name": name, "labels": labels},
            "spec": {"registryRef": {"name": sandbox.name}, "suspend": true},
        }))
    };
    let (by_hand, found) = (object("by-hand", json!({}))?, object("found", json!({DISCOVERED_BY: "uid"}))?);
    apply_file(&sandbox.client(), &discovery_manifest()).await?;
    let create = json!({"group": "twinspan.dev", "resource": "registeredservices", "verb": "create"});
    let asked: SelfSubjectAccessReview = serde_json::from_value(json!({"spec": {"resourceAttributes": create}}))?;
    let reviews: Api<SelfSubjectAccessReview> = Api::all(operator.clone().into_client());
    eventually("the role is in force", SOON, || async {
        let answer = reviews.create(&PostParams::default(), &asked).await?;
        ensure!(answer.status.is_some_and(|status| status.allowed));
        Ok(())
    })
    .await?;
    eventually("the policy is in force", SOON, || async { refused(operator.create(&dry_run(), &by_hand).await, says) })
        .await?;
    let once = PostParams::default();
    let stored = sandbox.registered().create(&once, &by_hand).await?;
    refused(operator.replace("by-hand", &once, &stored).await, says)?;
    refused(operator.delete("by-hand", &DeleteParams::default()).await, says)?;
    let mut taken = stored.clone();
    taken.labels_mut().insert(DISCOVERED_BY.to_owned(), "uid".to_owned());
    refused(operator.replace("by-hand", &once, &taken).await, says)?;

    let made = operator.create(&once, &found).await?;
    let mut given_away = made.clone();
    given_away.metadata.labels = None;
    refused(operator.replace("found", &once, &given_away).await, says)?;
    // The ServiceRegistry may have been made anew.
    let mut another = made.clone();
    another.labels_mut().insert(DISCOVERED_BY.to_owned(), "another".to_owned());
    let made = operator.replace("found", &once, &another).await?;
    // A person keeps it by removing the label.
    let mut kept = made.clone();
    kept.metadata.labels = None;
    sandbox.registered().replace("found", &once, &kept).await?;
    refused(operator.delete("found", &DeleteParams::default()).await, says)?;
    operator.create(&once, &object("another", json!({DISCOVERED_BY: "uid"}))?).await?;
    operator.delete("another", &DeleteParams::default()).await?;
    Ok(())
}

/// The stories of `spec.service.create` run under the same policy and cover the writes at work.
async fn services_of_its_own(sandbox: &Sandbox<'_>, operator: Api<Service>) -> Result<()> {
    let (owned, kind, addresses) = ("that a RegisteredService owns", "of type ClusterIP", "externalIPs");
    // The garbage collector deletes an object whose owner does not exist.
    sandbox.register("owner", json!({})).await?;
    let owner = sandbox.registered().get("owner").await?;
    let owner = json!({"apiVersion": "twinspan.dev/v1alpha1", "kind": "RegisteredService", "name": "owner", "uid": owner.uid()});
    let service = |name: &str, owners: Value, spec: Value| {
        let mut all = json!({"metadata": {"name": name, "ownerReferences": owners}, "spec": {"ports": [{"port": 80}]}});
        merge(&mut all["spec"], spec);
        serde_json::from_value::<Service>(all)
    };
    let nobodys = service("new", json!([]), json!({}))?;
    eventually("the policy is in force", SOON, || async {
        refused(operator.create(&dry_run(), &nobodys).await, owned)
    })
    .await?;
    let other = json!([{"apiVersion": "apps/v1", "kind": "RegisteredService", "name": "x", "uid": "u"}]);
    refused(operator.create(&dry_run(), &service("new", other, json!({}))?).await, owned)?;
    for (spec, says) in [
        (json!({"type": "NodePort"}), kind),
        (json!({"type": "LoadBalancer"}), kind),
        (json!({"type": "ExternalName", "externalName": "example.com"}), kind),
        (json!({"externalIPs": ["192.0.2.1"]}), addresses),
    ] {
        refused(operator.create(&dry_run(), &service("new", json!([owner]), spec)?).await, says)?;
    }

    let patch =
        async |name: &str, patch: Value| operator.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await;
    sandbox.services().create(&PostParams::default(), &service("theirs", json!([]), json!({}))?).await?;
    refused(patch("theirs", json!({"spec": {"ports": [{"port": 81}]}})).await, owned)?;
    refused(patch("theirs", json!({"metadata": {"ownerReferences": [owner]}})).await, owned)?;
    refused(operator.delete("theirs", &DeleteParams::default()).await, owned)?;

    operator.create(&PostParams::default(), &service("ours", json!([owner]), json!({}))?).await?;
    patch("ours", json!({"spec": {"ports": [{"port": 81}]}})).await?;
    refused(patch("ours", json!({"metadata": {"ownerReferences": null}})).await, owned)?;
    refused(patch("ours", json!({"spec": {"type": "LoadBalancer"}})).await, kind)?;
    refused(patch("ours", json!({"spec": {"externalIPs": ["192.0.2.1"]}})).await, addresses)?;
    // A user's changes of the Service stay, and its ports still follow.
    let theirs = Patch::Merge(json!({"spec": {"type": "NodePort", "externalIPs": ["192.0.2.1"]}}));
    sandbox.services().patch("ours", &PatchParams::default(), &theirs).await?;
    patch("ours", json!({"spec": {"ports": [{"port": 82}]}})).await?;
    refused(patch("ours", json!({"spec": {"externalIPs": ["192.0.2.1", "192.0.2.2"]}})).await, addresses)?;
    operator.delete("ours", &DeleteParams::default()).await?;
    Ok(())
}
