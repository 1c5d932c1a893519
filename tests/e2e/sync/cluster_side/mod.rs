//! Every form of endpoint that a Kubernetes user can create is exported, and every form of Service is imported into;
//! what stands in the way costs nothing else.

mod obstacles;
mod services;
mod slices_of_ours;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use twinspan_testbed::{Framework, eventually, holds, next_v4, resolve};

use crate::harness::{SOON, Sandbox, Suite, record, stories};

stories![
    hand_written_slices,
    weights_and_tags_of_pods,
    tag_selectors_zones_and_hints,
    pods_that_only_register_themselves,
    services::selector_and_back,
    services::services_of_others_are_never_changed,
    allowed_follows_labels,
    drift_is_repaired,
    a_slice_that_somebody_holds_up,
    not_ready_addresses_that_are_published,
    services::a_port_without_a_name_and_another_port,
    services::a_created_service_follows_its_spec,
    obstacles::a_port_that_a_policy_refuses,
    obstacles::a_service_that_a_quota_refuses,
    obstacles::a_renamed_port_keeps_no_dead_instance,
    obstacles::a_name_that_was_taken_back,
    slices_of_ours::what_others_put_there_stays,
    slices_of_ours::slices_go_without_the_garbage_collector,
    slices_of_ours::servers_in_hand_written_endpoints_stay,
    slices_of_ours::an_address_that_changes_hands,
];

async fn hand_written_slices(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let sandbox = Sandbox::new(bed, "handmade").await?;
    sandbox
        .service(
            "echo",
            json!({"clusterIP": "None", "ports": [{"name": "rpc", "port": 80}, {"name": "web", "port": 81}]}),
        )
        .await?;
    sandbox.register("echo", json!({"service": {"ports": [{"name": "rpc"}]}})).await?;
    let slice = |name: &str, number: u16, ips: &[(IpAddr, Value)]| {
        let endpoints: Vec<Value> = ips.iter().map(|(ip, c)| json!({"addresses": [ip], "conditions": c})).collect();
        serde_json::from_value::<EndpointSlice>(json!({
            "metadata": {"name": name, "labels": {"kubernetes.io/service-name": "echo",
                "endpointslice.kubernetes.io/managed-by": "by-hand.example"}},
            "addressType": "IPv4", "endpoints": endpoints,
            "ports": [{"name": "rpc", "port": number}, {"name": "web", "port": 81}],
        }))
    };
    let ips: Vec<IpAddr> = (0..4).map(|_| next_v4().into()).collect();
    let create = |slice: EndpointSlice| {
        let api = sandbox.slices();
        async move { api.create(&PostParams::default(), &slice).await }
    };
    create(slice("a", 8000, &[(ips[0], json!({})), (ips[1], json!({"ready": false}))])?).await?;
    create(slice(
        "b",
        8001,
        &[(ips[2], json!({"ready": true})), (ips[3], json!({"ready": true, "terminating": true}))],
    )?)
    .await?;
    let at = |n: usize, port: u16| SocketAddr::new(ips[n], port);
    sandbox.records_become("echo", &[at(0, 8000), at(2, 8001)]).await?;
    let ready = json!([{"addresses": [ips[1]], "conditions": {"ready": true}}]);
    sandbox.slices().patch("a", &PatchParams::default(), &Patch::Merge(json!({"endpoints": ready}))).await?;
    sandbox.records_become("echo", &[at(1, 8000), at(2, 8001)]).await?;
    sandbox.slices().delete("b", &DeleteParams::default()).await?;
    sandbox.records_become("echo", &[at(1, 8000)]).await?;
    sandbox.nothing_foreign_was_touched().await
}

async fn weights_and_tags_of_pods(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let sandbox = Sandbox::new(bed, "weights").await?;
    sandbox.selector_service("echo", 80).await?;
    let tags = json!({"tags": {"lane": "base", "team": "a"}, "tagsFromPodLabels": [{"label": "lane", "tag": "lane"}], "weight": 20});
    sandbox.register("echo", json!({"export": tags})).await?;
    let labels =
        |lane: &str| BTreeMap::from([("app".to_owned(), "echo".to_owned()), ("lane".to_owned(), lane.to_owned())]);
    let (a, b) = (next_v4(), next_v4());
    sandbox.pods.run("a", &labels("blue"), &[a.into()]).await?;
    sandbox.pods.run("b", &BTreeMap::from([("app".to_owned(), "echo".to_owned())]), &[b.into()]).await?;
    sandbox.pods.set_ready("a", true).await?;
    sandbox.pods.set_ready("b", true).await?;
    let seen = |what: &'static str, expected: BTreeMap<String, (i64, String)>| {
        let sandbox = &sandbox;
        async move {
            eventually(what, SOON, || async {
                let found = resolve(
                    Framework::Kitex,
                    sandbox.registry.endpoint(),
                    "echo",
                    Some(&sandbox.name),
                    &["lane", "team"],
                )
                .await?;
                ensure!(found.iter().all(|i| i.tags["team"] == "a"), "{found:?}");
                let found: BTreeMap<_, _> =
                    found.into_iter().map(|i| (i.address, (i.weight, i.tags["lane"].clone()))).collect();
                ensure!(found == expected, "{found:?}, want {expected:?}");
                Ok(())
            })
            .await
        }
    };
    let both = |a_weight: i64, a_lane: &str| {
        BTreeMap::from([
            (format!("{a}:80"), (a_weight, a_lane.to_owned())),
            (format!("{b}:80"), (20, "base".to_owned())),
        ])
    };
    seen("labels become tags", both(20, "blue")).await?;
    // Neither change touches a slice: Twinspan follows the pod itself.
    let pods: Api<Pod> = Api::namespaced(sandbox.client(), &sandbox.name);
    let patch = |body: Value| {
        let pods = pods.clone();
        async move { pods.patch("a", &PatchParams::default(), &Patch::Merge(json!({"metadata": body}))).await }
    };
    patch(json!({"annotations": {"twinspan.dev/weight": "7"}})).await?;
    seen("the annotation overrides the weight", both(7, "blue")).await?;
    patch(json!({"labels": {"lane": "green"}})).await?;
    seen("a changed label changes the tag", both(7, "green")).await?;
    patch(json!({"annotations": {"twinspan.dev/weight": "heavy"}})).await?;
    seen("a weight that is none is not used", both(20, "green")).await?;
    eventually("and is remarked upon", SOON, || async {
        let object = sandbox.registered().get("echo").await?;
        let conditions = object.status.unwrap_or_default().conditions;
        let exported = conditions.iter().find(|c| c.type_ == "Exported").context("no condition")?;
        ensure!(exported.message.contains("twinspan.dev/weight") && exported.message.contains("heavy"), "{exported:?}");
        Ok(())
    })
    .await?;
    sandbox.nothing_foreign_was_touched().await
}

async fn tag_selectors_zones_and_hints(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let sandbox = Sandbox::new(bed, "zones").await?;
    sandbox
        .service("user", json!({"ports": [{"name": "rpc", "port": 80}], "trafficDistribution": "PreferClose"}))
        .await?;
    let selector = json!({"matchExpressions": [{"key": "lane", "operator": "In", "values": ["blue"]}]});
    sandbox.register("user", json!({"import": {"tagSelector": selector, "zoneTag": "zone"}})).await?;
    let (blue, green) = (SocketAddr::from((next_v4(), 9000)), SocketAddr::from((next_v4(), 9000)));
    bed.registry
        .put(&sandbox.key("user", blue), &record(blue).tags(json!({"lane": "blue", "zone": "eu-1a"})).to_string())
        .await?;
    bed.registry
        .put(&sandbox.key("user", green), &record(green).tags(json!({"lane": "green", "zone": "eu-1b"})).to_string())
        .await?;
    sandbox.imports_become("user", &[blue]).await?;
    let endpoint = || async {
        let slice = sandbox.our_slices("user").await?.pop().context("a slice")?;
        slice.endpoints.into_iter().next().context("an endpoint")
    };
    let first = endpoint().await?;
    ensure!(first.zone.as_deref() == Some("eu-1a"), "{first:?}");
    let zones = first.hints.and_then(|h| h.for_zones).unwrap_or_default();
    ensure!(zones.len() == 1 && zones[0].name == "eu-1a", "the Service asked for hints: {zones:?}");
    sandbox
        .services()
        .patch("user", &PatchParams::default(), &Patch::Merge(json!({"spec": {"trafficDistribution": null}})))
        .await?;
    eventually("no hints any more", SOON, || async {
        ensure!(endpoint().await?.hints.is_none());
        Ok(())
    })
    .await?;
    eventually("the other one is skipped", SOON, || async {
        let status = sandbox.registered().get("user").await?.status.unwrap_or_default();
        ensure!(
            status.differences.iter().any(|s| s.reason == "NotSelected" && s.instance == green.to_string()),
            "{status:?}"
        );
        Ok(())
    })
    .await?;
    sandbox.patch("user", json!({"import": {"tagSelector": {"matchExpressions": null}}})).await?;
    sandbox.imports_become("user", &[blue, green]).await?;
    sandbox.nothing_foreign_was_touched().await
}

async fn pods_that_only_register_themselves(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let sandbox = Sandbox::new(bed, "podsonly").await?;
    // A Service without a selector: only the registry knows its pods.
    sandbox.headless_without_selector("user", 80).await?;
    sandbox.register("user", json!({})).await?;
    let address = SocketAddr::from((next_v4(), 9000));
    sandbox.pods.run("loner", &BTreeMap::new(), &[address.ip()]).await?;
    sandbox.put("user", address).await?;
    sandbox.imports_become("user", &[address]).await?;
    let slice = sandbox.our_slices("user").await?.pop().context("a slice")?;
    let endpoint = slice.endpoints.into_iter().next().context("an endpoint")?;
    let target = endpoint.target_ref.context("a targetRef")?;
    ensure!(target.kind.as_deref() == Some("Pod") && target.name.as_deref() == Some("loner"), "{target:?}");
    ensure!(endpoint.node_name.is_some());
    // The record outlives its pod, and the instance must not.
    sandbox.pods.remove("loner").await?;
    sandbox.imports_become("user", &[]).await?;
    sandbox.nothing_foreign_was_touched().await
}

async fn allowed_follows_labels(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let sandbox = Sandbox::new(bed, "labels").await?;
    sandbox.selector_service("echo", 80).await?;
    let pod = sandbox.pod("echo", "pod", 80).await?;
    sandbox.pods.set_ready("pod", true).await?;
    sandbox.register("echo", json!({})).await?;
    let vm = SocketAddr::from((next_v4(), 9000));
    sandbox.put("echo", vm).await?;
    sandbox.records_become("echo", &[pod.address(), vm]).await?;
    sandbox.imports_become("echo", &[vm]).await?;
    let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(sandbox.client());
    let label = |value: Value| {
        let (api, name) = (namespaces.clone(), sandbox.name.clone());
        let body = json!({"metadata": {"labels": {"story": value}}});
        async move { api.patch(&name, &PatchParams::default(), &Patch::Merge(body)).await }
    };
    label(json!("another")).await?;
    sandbox.condition("echo", "Accepted", "False", "NotAllowed").await?;
    sandbox.records_become("echo", &[vm]).await?;
    sandbox.imports_become("echo", &[]).await?;
    label(json!(sandbox.name)).await?;
    sandbox.records_become("echo", &[pod.address(), vm]).await?;
    sandbox.imports_become("echo", &[vm]).await?;
    sandbox.nothing_foreign_was_touched().await
}

async fn drift_is_repaired(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let sandbox = Sandbox::new(bed, "drift").await?;
    sandbox.headless_without_selector("user", 80).await?;
    sandbox
        .services()
        .patch("user", &PatchParams::default(), &Patch::Merge(json!({"metadata": {"labels": {"team": "a"}}})))
        .await?;
    sandbox.register("user", json!({})).await?;
    let vm = SocketAddr::from((next_v4(), 9000));
    sandbox.put("user", vm).await?;
    sandbox.imports_become("user", &[vm]).await?;
    let name = sandbox.our_slices("user").await?.pop().and_then(|s| s.metadata.name).context("a slice")?;
    let labels_are_copied = |team: &'static str| {
        let sandbox = &sandbox;
        async move {
            eventually("labels of the Service are copied", SOON, || async {
                let slice = sandbox.our_slices("user").await?.pop().context("a slice")?;
                let labels = slice.metadata.labels.unwrap_or_default();
                ensure!(labels.get("team").is_some_and(|t| t == team), "{labels:?}");
                let annotations = slice.metadata.annotations.unwrap_or_default();
                ensure!(
                    annotations.contains_key("endpoints.kubernetes.io/last-change-trigger-time"),
                    "{annotations:?}"
                );
                Ok(())
            })
            .await
        }
    };
    labels_are_copied("a").await?;
    sandbox
        .services()
        .patch("user", &PatchParams::default(), &Patch::Merge(json!({"metadata": {"labels": {"team": "b"}}})))
        .await?;
    labels_are_copied("b").await?;
    // A user edits our slice, then deletes it: both are repaired.
    let stray = json!({"endpoints": [{"addresses": ["10.77.252.252"]}]});
    sandbox.slices().patch(&name, &PatchParams::default(), &Patch::Merge(stray)).await?;
    sandbox.imports_become("user", &[vm]).await?;
    sandbox.slices().delete(&name, &DeleteParams::default()).await?;
    eventually("the slice is there again", SOON, || async {
        ensure!(sandbox.imported("user").await? == BTreeSet::from([vm]));
        Ok(())
    })
    .await?;
    sandbox.nothing_foreign_was_touched().await
}

/// A foreign finalizer keeps a deleted slice: the slice no longer counts, and its endpoints move to another slice.
async fn a_slice_that_somebody_holds_up(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let sandbox = Sandbox::new(bed, "heldup").await?;
    sandbox.headless_without_selector("user", 80).await?;
    sandbox.register("user", json!({})).await?;
    let vm = SocketAddr::from((next_v4(), 9000));
    sandbox.put("user", vm).await?;
    sandbox.imports_become("user", &[vm]).await?;
    let held = sandbox.our_slices("user").await?.pop().and_then(|s| s.metadata.name).context("a slice")?;
    let finalizers = |all: Value| {
        let (api, held) = (sandbox.slices(), held.clone());
        let body = Patch::Merge(json!({"metadata": {"finalizers": all}}));
        async move { api.patch(&held, &PatchParams::default(), &body).await }
    };
    finalizers(json!(["somebody.example/waits"])).await?;
    sandbox.slices().delete(&held, &DeleteParams::default()).await?;
    let others = || async {
        let slices = sandbox.our_slices("user").await?.into_iter();
        Ok::<_, anyhow::Error>(slices.filter(|s| s.metadata.name.as_deref() != Some(held.as_str())).collect::<Vec<_>>())
    };
    eventually("another slice has the endpoint", SOON, || async {
        let others = others().await?;
        let addresses: Vec<_> = others.iter().flat_map(|s| s.endpoints.iter().flat_map(|e| &e.addresses)).collect();
        ensure!(addresses == [&vm.ip().to_string()], "{addresses:?}");
        Ok(())
    })
    .await?;
    let still = sandbox.slices().get(&held).await?;
    holds("the held slice is left alone", Duration::from_secs(2), || async {
        Ok(sandbox.slices().get(&held).await?.metadata.resource_version)
    })
    .await?;
    ensure!(still.metadata.deletion_timestamp.is_some());
    finalizers(Value::Null).await?;
    sandbox.imports_become("user", &[vm]).await?;
    sandbox.nothing_foreign_was_touched().await
}

async fn not_ready_addresses_that_are_published(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let sandbox = Sandbox::new(bed, "notready").await?;
    let ports = json!([{"name": "rpc", "port": 80}]);
    sandbox
        .service("echo", json!({"selector": {"app": "echo"}, "ports": ports, "publishNotReadyAddresses": true}))
        .await?;
    sandbox.register("echo", json!({})).await?;
    let ip = next_v4();
    sandbox.pods.run("pod", &BTreeMap::from([("app".to_owned(), "echo".to_owned())]), &[ip.into()]).await?;
    sandbox.records_become("echo", &[SocketAddr::from((ip, 80))]).await?;
    let publish = Patch::Merge(json!({"spec": {"publishNotReadyAddresses": false}}));
    sandbox.services().patch("echo", &PatchParams::default(), &publish).await?;
    sandbox.records_become("echo", &[]).await?;
    sandbox.nothing_foreign_was_touched().await
}
