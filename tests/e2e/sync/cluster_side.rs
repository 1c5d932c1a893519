//! Whatever a Kubernetes user can put on the cluster side is read and written.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use twinspan_testbed::{Framework, eventually, holds, next_v4, resolve};

use crate::harness::{Corner, SOON, Suite, stories};

stories![
    hand_written_slices,
    weights_and_tags_of_pods,
    tag_selectors_zones_and_hints,
    pods_that_only_register_themselves,
    selector_and_back,
    services_of_others_are_never_changed,
    allowed_follows_labels,
    drift_is_repaired,
    a_slice_that_somebody_holds_up,
    not_ready_addresses_that_are_published,
    a_port_without_a_name_and_another_port,
    a_created_service_follows_its_spec,
];

fn value(address: SocketAddr, tags: &Value) -> String {
    json!({"network": "tcp", "address": address.to_string(), "weight": 10, "tags": tags}).to_string()
}

async fn hand_written_slices(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let corner = Corner::new(bed, "handmade").await?;
    corner
        .service(
            "echo",
            json!({"clusterIP": "None", "ports": [{"name": "rpc", "port": 80}, {"name": "web", "port": 81}]}),
        )
        .await?;
    corner.register("echo", json!({"service": {"ports": [{"name": "rpc"}]}})).await?;
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
        let api = corner.slices();
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
    corner.records_become(&bed.registry, "echo", &[at(0, 8000), at(2, 8001)]).await?;
    let ready = json!([{"addresses": [ips[1]], "conditions": {"ready": true}}]);
    corner.slices().patch("a", &PatchParams::default(), &Patch::Merge(json!({"endpoints": ready}))).await?;
    corner.records_become(&bed.registry, "echo", &[at(1, 8000), at(2, 8001)]).await?;
    corner.slices().delete("b", &DeleteParams::default()).await?;
    corner.records_become(&bed.registry, "echo", &[at(1, 8000)]).await?;
    corner.nothing_foreign_was_touched(&bed.registry).await
}

async fn weights_and_tags_of_pods(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let corner = Corner::new(bed, "weights").await?;
    corner.selector_service("echo", 80).await?;
    let tags = json!({"tags": {"lane": "base", "team": "a"}, "tagsFromPodLabels": [{"label": "lane", "tag": "lane"}], "weight": 20});
    corner.register("echo", json!({"export": tags})).await?;
    let labels =
        |lane: &str| BTreeMap::from([("app".to_owned(), "echo".to_owned()), ("lane".to_owned(), lane.to_owned())]);
    let (a, b) = (next_v4(), next_v4());
    corner.pods.run("a", &labels("blue"), &[a.into()]).await?;
    corner.pods.run("b", &BTreeMap::from([("app".to_owned(), "echo".to_owned())]), &[b.into()]).await?;
    corner.pods.set_ready("a", true).await?;
    corner.pods.set_ready("b", true).await?;
    let seen = |what: &'static str, expected: BTreeMap<String, (i64, String)>| {
        let corner = &corner;
        async move {
            eventually(what, SOON, || async {
                let found =
                    resolve(Framework::Kitex, &corner.etcd, "echo", Some(&corner.name), &["lane", "team"]).await?;
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
    // Neither of these changes a slice: the pod itself is followed.
    let pods: Api<Pod> = Api::namespaced(corner.client(), &corner.name);
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
        let object = corner.registered().get("echo").await?;
        let conditions = object.status.unwrap_or_default().conditions;
        let exported = conditions.iter().find(|c| c.type_ == "Exported").context("no condition")?;
        ensure!(exported.message.contains("twinspan.dev/weight") && exported.message.contains("heavy"), "{exported:?}");
        Ok(())
    })
    .await?;
    corner.nothing_foreign_was_touched(&bed.registry).await
}

async fn tag_selectors_zones_and_hints(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let corner = Corner::new(bed, "zones").await?;
    corner
        .service("user", json!({"ports": [{"name": "rpc", "port": 80}], "trafficDistribution": "PreferClose"}))
        .await?;
    let selector = json!({"matchExpressions": [{"key": "lane", "operator": "In", "values": ["blue"]}]});
    corner.register("user", json!({"import": {"tagSelector": selector, "zoneTag": "zone"}})).await?;
    let (blue, green) = (SocketAddr::from((next_v4(), 9000)), SocketAddr::from((next_v4(), 9000)));
    bed.registry.put(&corner.key("user", blue), &value(blue, &json!({"lane": "blue", "zone": "eu-1a"}))).await?;
    bed.registry.put(&corner.key("user", green), &value(green, &json!({"lane": "green", "zone": "eu-1b"}))).await?;
    corner.imports_become("user", &[blue]).await?;
    let endpoint = || async {
        let slice = corner.our_slices("user").await?.pop().context("a slice")?;
        slice.endpoints.into_iter().next().context("an endpoint")
    };
    let first = endpoint().await?;
    ensure!(first.zone.as_deref() == Some("eu-1a"), "{first:?}");
    let zones = first.hints.and_then(|h| h.for_zones).unwrap_or_default();
    ensure!(zones.len() == 1 && zones[0].name == "eu-1a", "the Service asked for hints: {zones:?}");
    corner
        .services()
        .patch("user", &PatchParams::default(), &Patch::Merge(json!({"spec": {"trafficDistribution": null}})))
        .await?;
    eventually("no hints any more", SOON, || async {
        ensure!(endpoint().await?.hints.is_none());
        Ok(())
    })
    .await?;
    eventually("the other one is skipped", SOON, || async {
        let status = corner.registered().get("user").await?.status.unwrap_or_default();
        ensure!(
            status.skipped.iter().any(|s| s.reason == "NotSelected" && s.instance == green.to_string()),
            "{status:?}"
        );
        Ok(())
    })
    .await?;
    corner.patch("user", json!({"import": {"tagSelector": {"matchExpressions": null}}})).await?;
    corner.imports_become("user", &[blue, green]).await?;
    corner.nothing_foreign_was_touched(&bed.registry).await
}

async fn pods_that_only_register_themselves(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let corner = Corner::new(bed, "podsonly").await?;
    // A Service without a selector: its pods are known to the registry alone.
    corner.service("user", json!({"clusterIP": "None", "ports": [{"name": "rpc", "port": 80}]})).await?;
    corner.register("user", json!({})).await?;
    let address = SocketAddr::from((next_v4(), 9000));
    corner.pods.run("loner", &BTreeMap::new(), &[address.ip()]).await?;
    bed.registry.put_leased(&corner.key("user", address), &value(address, &Value::Null), 600).await?;
    corner.imports_become("user", &[address]).await?;
    let slice = corner.our_slices("user").await?.pop().context("a slice")?;
    let endpoint = slice.endpoints.into_iter().next().context("an endpoint")?;
    let target = endpoint.target_ref.context("a targetRef")?;
    ensure!(target.kind.as_deref() == Some("Pod") && target.name.as_deref() == Some("loner"), "{target:?}");
    ensure!(endpoint.node_name.is_some());
    // Its record outlives it, and must not.
    corner.pods.remove("loner").await?;
    corner.imports_become("user", &[]).await?;
    corner.nothing_foreign_was_touched(&bed.registry).await
}

async fn selector_and_back(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let corner = Corner::new(bed, "selector").await?;
    corner
        .service(
            "echo",
            json!({"clusterIP": "None", "selector": {"app": "echo"}, "ports": [{"name": "rpc", "port": 80}]}),
        )
        .await?;
    corner.register("echo", json!({})).await?;
    let pod = corner.pod("echo", "pod", 80).await?;
    corner.pods.set_ready("pod", true).await?;
    let vm = SocketAddr::from((next_v4(), 9000));
    bed.registry.put_leased(&corner.key("echo", vm), &value(vm, &Value::Null), 600).await?;
    corner.records_become(&bed.registry, "echo", &[pod.address(), vm]).await?;
    corner.imports_become("echo", &[vm]).await?;

    let selector = |selector: Value| {
        let (api, body) = (corner.services(), json!({"spec": {"selector": selector}}));
        async move { api.patch("echo", &PatchParams::default(), &Patch::Merge(body)).await }
    };
    selector(Value::Null).await?;
    // The built-in controller leaves its slice behind; nobody looks after what it says, so it is no word to go by.
    corner.records_become(&bed.registry, "echo", &[vm]).await?;
    let left = corner.slices().list(&ListParams::default().labels("kubernetes.io/service-name=echo")).await?;
    ensure!(
        left.items.len() == 2,
        "the built-in controller's slice is still there, and was not touched: {}",
        left.items.len()
    );
    corner.imports_become("echo", &[vm]).await?;
    selector(json!({"app": "echo"})).await?;
    corner.records_become(&bed.registry, "echo", &[pod.address(), vm]).await?;
    corner.imports_become("echo", &[vm]).await?;

    // Deleted and created again it has another UID; nothing is adopted and nothing is lost.
    corner.services().delete("echo", &DeleteParams::default()).await?;
    corner
        .service(
            "echo",
            json!({"clusterIP": "None", "selector": {"app": "echo"}, "ports": [{"name": "rpc", "port": 80}]}),
        )
        .await?;
    corner.records_become(&bed.registry, "echo", &[pod.address(), vm]).await?;
    corner.imports_become("echo", &[vm]).await?;
    corner.dns_becomes("echo", &[pod.address(), vm]).await?;
    corner.nothing_foreign_was_touched(&bed.registry).await
}

async fn services_of_others_are_never_changed(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let corner = Corner::new(bed, "others").await?;
    corner.service("there", json!({"ports": [{"name": "rpc", "port": 80}]})).await?;
    let before = corner.services().get("there").await?;
    let create = json!({"service": {"create": "Headless", "ports": [{"name": "rpc", "number": 8888}]}});
    corner.register("there", create.clone()).await?;
    corner.condition("there", "Ready", "True", "Synced").await?;
    // One of ours, and then another name for it: the old one goes, for we made it.
    corner.register("ours", create).await?;
    corner.condition("ours", "Ready", "True", "Synced").await?;
    let vm = SocketAddr::from((next_v4(), 9000));
    bed.registry.put_leased(&corner.key("ours", vm), &value(vm, &Value::Null), 600).await?;
    corner.imports_become("ours", &[vm]).await?;
    corner.patch("ours", json!({"service": {"name": "renamed"}})).await?;
    corner.imports_become("renamed", &[vm]).await?;
    eventually("the Service that we made under the old name is gone", SOON, || async {
        ensure!(corner.services().get_opt("ours").await?.is_none());
        ensure!(corner.our_slices("ours").await?.is_empty());
        Ok(())
    })
    .await?;
    corner.unregister("there").await?;
    holds("the Service of others", Duration::from_secs(2), || async {
        Ok(corner.services().get("there").await?.metadata.resource_version)
    })
    .await?;
    let after: Service = corner.services().get("there").await?;
    ensure!(after == before, "{after:?}\nwas\n{before:?}");
    corner.nothing_foreign_was_touched(&bed.registry).await
}

async fn allowed_follows_labels(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let corner = Corner::new(bed, "labels").await?;
    corner.selector_service("echo", 80).await?;
    let pod = corner.pod("echo", "pod", 80).await?;
    corner.pods.set_ready("pod", true).await?;
    corner.register("echo", json!({})).await?;
    let vm = SocketAddr::from((next_v4(), 9000));
    bed.registry.put_leased(&corner.key("echo", vm), &value(vm, &Value::Null), 600).await?;
    corner.records_become(&bed.registry, "echo", &[pod.address(), vm]).await?;
    corner.imports_become("echo", &[vm]).await?;
    let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(corner.client());
    let label = |value: Value| {
        let (api, name) = (namespaces.clone(), corner.name.clone());
        let body = json!({"metadata": {"labels": {"story": value}}});
        async move { api.patch(&name, &PatchParams::default(), &Patch::Merge(body)).await }
    };
    label(json!("another")).await?;
    corner.condition("echo", "Accepted", "False", "NotAllowed").await?;
    corner.records_become(&bed.registry, "echo", &[vm]).await?;
    corner.imports_become("echo", &[]).await?;
    label(json!(corner.name)).await?;
    corner.records_become(&bed.registry, "echo", &[pod.address(), vm]).await?;
    corner.imports_become("echo", &[vm]).await?;
    corner.nothing_foreign_was_touched(&bed.registry).await
}

async fn drift_is_repaired(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let corner = Corner::new(bed, "drift").await?;
    corner.service("user", json!({"clusterIP": "None", "ports": [{"name": "rpc", "port": 80}]})).await?;
    corner
        .services()
        .patch("user", &PatchParams::default(), &Patch::Merge(json!({"metadata": {"labels": {"team": "a"}}})))
        .await?;
    corner.register("user", json!({})).await?;
    let vm = SocketAddr::from((next_v4(), 9000));
    bed.registry.put_leased(&corner.key("user", vm), &value(vm, &Value::Null), 600).await?;
    corner.imports_become("user", &[vm]).await?;
    let name = corner.our_slices("user").await?.pop().and_then(|s| s.metadata.name).context("a slice")?;
    let labels_are_copied = |team: &'static str| {
        let corner = &corner;
        async move {
            eventually("labels of the Service are copied", SOON, || async {
                let slice = corner.our_slices("user").await?.pop().context("a slice")?;
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
    corner
        .services()
        .patch("user", &PatchParams::default(), &Patch::Merge(json!({"metadata": {"labels": {"team": "b"}}})))
        .await?;
    labels_are_copied("b").await?;
    // Somebody edits our slice, then deletes it: both are repaired.
    let stray = json!({"endpoints": [{"addresses": ["10.77.252.252"]}]});
    corner.slices().patch(&name, &PatchParams::default(), &Patch::Merge(stray)).await?;
    corner.imports_become("user", &[vm]).await?;
    corner.slices().delete(&name, &DeleteParams::default()).await?;
    eventually("the slice is there again", SOON, || async {
        ensure!(corner.imported("user").await? == BTreeSet::from([vm]));
        Ok(())
    })
    .await?;
    corner.nothing_foreign_was_touched(&bed.registry).await
}

/// A finalizer of somebody else keeps a deleted slice: it no longer counts, and its endpoints are somewhere else at once.
async fn a_slice_that_somebody_holds_up(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let corner = Corner::new(bed, "heldup").await?;
    corner.service("user", json!({"clusterIP": "None", "ports": [{"name": "rpc", "port": 80}]})).await?;
    corner.register("user", json!({})).await?;
    let vm = SocketAddr::from((next_v4(), 9000));
    bed.registry.put_leased(&corner.key("user", vm), &value(vm, &Value::Null), 600).await?;
    corner.imports_become("user", &[vm]).await?;
    let held = corner.our_slices("user").await?.pop().and_then(|s| s.metadata.name).context("a slice")?;
    let finalizers = |all: Value| {
        let (api, held) = (corner.slices(), held.clone());
        let body = Patch::Merge(json!({"metadata": {"finalizers": all}}));
        async move { api.patch(&held, &PatchParams::default(), &body).await }
    };
    finalizers(json!(["somebody.example/waits"])).await?;
    corner.slices().delete(&held, &DeleteParams::default()).await?;
    let others = || async {
        let slices = corner.our_slices("user").await?.into_iter();
        Ok::<_, anyhow::Error>(slices.filter(|s| s.metadata.name.as_deref() != Some(held.as_str())).collect::<Vec<_>>())
    };
    eventually("another slice has the endpoint", SOON, || async {
        let others = others().await?;
        let addresses: Vec<_> = others.iter().flat_map(|s| s.endpoints.iter().flat_map(|e| &e.addresses)).collect();
        ensure!(addresses == [&vm.ip().to_string()], "{addresses:?}");
        Ok(())
    })
    .await?;
    let still = corner.slices().get(&held).await?;
    holds("the held slice is left alone", Duration::from_secs(2), || async {
        Ok(corner.slices().get(&held).await?.metadata.resource_version)
    })
    .await?;
    ensure!(still.metadata.deletion_timestamp.is_some());
    finalizers(Value::Null).await?;
    corner.imports_become("user", &[vm]).await?;
    corner.nothing_foreign_was_touched(&bed.registry).await
}

async fn not_ready_addresses_that_are_published(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let corner = Corner::new(bed, "notready").await?;
    let ports = json!([{"name": "rpc", "port": 80}]);
    corner
        .service("echo", json!({"selector": {"app": "echo"}, "ports": ports, "publishNotReadyAddresses": true}))
        .await?;
    corner.register("echo", json!({})).await?;
    let ip = next_v4();
    corner.pods.run("pod", &BTreeMap::from([("app".to_owned(), "echo".to_owned())]), &[ip.into()]).await?;
    corner.records_become(&bed.registry, "echo", &[SocketAddr::from((ip, 80))]).await?;
    let publish = Patch::Merge(json!({"spec": {"publishNotReadyAddresses": false}}));
    corner.services().patch("echo", &PatchParams::default(), &publish).await?;
    corner.records_become(&bed.registry, "echo", &[]).await?;
    corner.nothing_foreign_was_touched(&bed.registry).await
}

/// The only port needs no name; its number on the pods may be another; and another port may be chosen at any time.
async fn a_port_without_a_name_and_another_port(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let corner = Corner::new(bed, "whichport").await?;
    corner.service("echo", json!({"selector": {"app": "echo"}, "ports": [{"port": 80, "targetPort": 8080}]})).await?;
    corner.register("echo", json!({})).await?;
    let ip = next_v4();
    corner.pods.run("pod", &BTreeMap::from([("app".to_owned(), "echo".to_owned())]), &[ip.into()]).await?;
    corner.pods.set_ready("pod", true).await?;
    let at = |port: u16| SocketAddr::from((ip, port));
    corner.records_become(&bed.registry, "echo", &[at(8080)]).await?;
    let vm = SocketAddr::from((next_v4(), 9000));
    bed.registry.put_leased(&corner.key("echo", vm), &value(vm, &Value::Null), 600).await?;
    let imported_as = |name: &'static str| {
        let corner = &corner;
        async move {
            corner.imports_become("echo", &[vm]).await?;
            eventually("the port name of the slice", SOON, || async {
                let slice = corner.our_slices("echo").await?.pop().context("a slice")?;
                let port = slice.ports.unwrap_or_default().pop().context("a port")?;
                ensure!(port.name.as_deref().unwrap_or_default() == name, "{port:?}");
                Ok(())
            })
            .await
        }
    };
    imported_as("").await?;
    let two = json!([{"name": "web", "port": 80, "targetPort": 8080}, {"name": "rpc", "port": 81, "targetPort": 8081}]);
    corner.services().patch("echo", &PatchParams::default(), &Patch::Merge(json!({"spec": {"ports": two}}))).await?;
    corner.condition("echo", "Accepted", "False", "PortAmbiguous").await?;
    // Not understood is not gone: what is there stays.
    corner.records_become(&bed.registry, "echo", &[at(8080), vm]).await?;
    for (name, number) in [("rpc", 8081), ("web", 8080)] {
        corner.patch("echo", json!({"service": {"ports": [{"name": name}]}})).await?;
        corner.records_become(&bed.registry, "echo", &[at(number), vm]).await?;
        imported_as(name).await?;
    }
    corner.nothing_foreign_was_touched(&bed.registry).await
}

async fn a_created_service_follows_its_spec(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let corner = Corner::new(bed, "follows").await?;
    let create = |how: &str, name: &str, number: u16| json!({"service": {"create": how, "ports": [{"name": name, "number": number}]}});
    corner.register("user", create("ClusterIP", "rpc", 8888)).await?;
    let vm = SocketAddr::from((next_v4(), 9000));
    bed.registry.put_leased(&corner.key("user", vm), &value(vm, &Value::Null), 600).await?;
    let becomes = |what: &'static str, headless: bool, name: &'static str, number: i32| {
        let corner = &corner;
        async move {
            eventually(what, SOON, || async {
                let service = corner.services().get("user").await?;
                let spec = service.spec.context("a spec")?;
                ensure!((spec.cluster_ip.as_deref() == Some("None")) == headless, "{:?}", spec.cluster_ip);
                let ports = spec.ports.unwrap_or_default();
                ensure!(
                    ports.len() == 1 && ports[0].name.as_deref() == Some(name) && ports[0].port == number,
                    "{ports:?}"
                );
                let slice = corner.our_slices("user").await?.pop().context("a slice")?;
                let port = slice.ports.unwrap_or_default().pop().context("a port")?;
                ensure!(port.name.as_deref() == Some(name), "{port:?}");
                Ok(service.metadata.uid)
            })
            .await
        }
    };
    let first = becomes("it is created", false, "rpc", 8888).await?;
    corner.patch("user", create("ClusterIP", "grpc", 8889)).await?;
    let second = becomes("its port follows", false, "grpc", 8889).await?;
    ensure!(first == second, "the Service keeps its address");
    corner.imports_become("user", &[vm]).await?;
    corner.patch("user", create("Headless", "grpc", 8889)).await?;
    let third = becomes("it is made anew", true, "grpc", 8889).await?;
    ensure!(third != second);
    corner.imports_become("user", &[vm]).await?;
    // Once it should not be created any more, what is there stays: the rule is for a Service that is missing.
    corner.patch("user", json!({"service": {"create": "Never", "ports": [{"name": "grpc", "number": null}]}})).await?;
    corner.condition("user", "Ready", "True", "Synced").await?;
    ensure!(corner.services().get("user").await?.metadata.uid == third);
    corner.nothing_foreign_was_touched(&bed.registry).await
}
