//! Who may write: one leader of one cluster, whatever stops, freezes or is cloned.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::json;
use twinspan::api::ServiceRegistry;
use twinspan_testbed::{Etcd, TwinspanOptions, eventually, holds, next_v4};

use crate::harness::{Corner, SOON, Suite, TWINSPAN, stories};

stories![
    a_leader_that_was_frozen_writes_nothing,
    a_cloned_cluster_is_told_apart,
    two_clusters_on_one_etcd,
    two_service_registries_for_one_registry,
];

fn value(address: SocketAddr) -> String {
    json!({"network": "tcp", "address": address.to_string(), "weight": 10, "tags": null}).to_string()
}

/// A pod of `echo` that is ready, without anybody in it.
async fn pod(corner: &Corner<'_>, name: &str) -> Result<SocketAddr> {
    let address = SocketAddr::from((next_v4(), 80));
    corner.pods.run(name, &BTreeMap::from([("app".to_owned(), "echo".to_owned())]), &[address.ip()]).await?;
    corner.pods.set_ready(name, true).await?;
    Ok(address)
}

async fn vm(corner: &Corner<'_>, registry: &Etcd) -> Result<SocketAddr> {
    let vm = SocketAddr::from((next_v4(), 9000));
    registry.put_leased(&corner.key("echo", vm), &value(vm), 600).await?;
    Ok(vm)
}

/// Every key of the registry, and every object that Twinspan writes, at its revision.
async fn everything(corner: &Corner<'_>, registry: &Etcd) -> Result<BTreeMap<String, String>> {
    let mut all: BTreeMap<String, String> = registry
        .dump("")
        .await?
        .into_iter()
        .map(|(key, (value, revision, _))| (key, format!("{revision} {value}")))
        .collect();
    for slice in corner.slices().list(&ListParams::default()).await? {
        let meta = slice.metadata;
        all.insert(format!("slice {}", meta.name.unwrap_or_default()), meta.resource_version.unwrap_or_default());
    }
    for object in corner.registered().list(&ListParams::default()).await? {
        let meta = object.metadata;
        all.insert(format!("registered {}", meta.name.unwrap_or_default()), meta.resource_version.unwrap_or_default());
    }
    let object = corner.registries().get(&corner.name).await?;
    all.insert("registry".to_owned(), object.metadata.resource_version.unwrap_or_default());
    Ok(all)
}

/// It believes that it leads when it wakes up, and what it remembers is no longer so.
async fn a_leader_that_was_frozen_writes_nothing(suite: Arc<Suite>) -> Result<()> {
    let bed = suite.own_bed().await?;
    let first = bed.start_twinspan(TWINSPAN, &TwinspanOptions::default())?;
    first.ready().await?;
    let corner = Corner::new(&bed, "frozenleader").await?;
    corner.selector_service("echo", 80).await?;
    corner.register("echo", json!({})).await?;
    let (a, b) = (pod(&corner, "a").await?, pod(&corner, "b").await?);
    let (x, y) = (vm(&corner, &bed.registry).await?, vm(&corner, &bed.registry).await?);
    corner.imports_become("echo", &[x, y]).await?;
    corner.records_become(&bed.registry, "echo", &[a, b, x, y]).await?;
    let second = bed.start_twinspan(TWINSPAN, &TwinspanOptions::default())?;
    second.ready().await?;

    for round in 0..3 {
        // Each side loses one and gets one, of which the frozen one knows nothing.
        let (leader, standby) = if round % 2 == 0 { (&first, &second) } else { (&second, &first) };
        leader.part().freeze()?;
        eventually("the other one leads", Duration::from_secs(60), || async {
            ensure!(standby.metric("twinspan_leader").await? == Some(1.0), "it does not");
            Ok(())
        })
        .await?;
        corner.pods.set_ready("a", round % 2 == 1).await?;
        let gone = vm(&corner, &bed.registry).await?;
        let ours = if round % 2 == 1 { vec![a, b] } else { vec![b] };
        corner.imports_become("echo", &[x, y, gone]).await?;
        corner.records_become(&bed.registry, "echo", &[&ours[..], &[x, y, gone]].concat()).await?;
        bed.registry.delete(&corner.key("echo", gone)).await?;
        corner.imports_become("echo", &[x, y]).await?;
        corner.condition("echo", "Ready", "True", "Synced").await?;
        eventually("status has come to rest", SOON, || async {
            let counts = corner.counts("echo").await?;
            ensure!((counts.imported, counts.exported) == (2, i64::try_from(ours.len())?), "{counts:?}");
            let records = corner.registries().get(&corner.name).await?.status.and_then(|status| status.records);
            let records = records.context("no counts")?;
            ensure!(usize::try_from(records.own)? == ours.len() && records.foreign == 3, "{records:?}");
            Ok(())
        })
        .await?;
        leader.part().thaw()?;
        holds("everything, at its revision", Duration::from_secs(12), || everything(&corner, &bed.registry)).await?;
        leader.ready().await?;
        ensure!(leader.metric("twinspan_leader").await? == Some(0.0), "it leads again");
    }
    corner.nothing_foreign_was_touched(&bed.registry).await
}

/// Two clusters that think that they are one, as after a clone: they race for the epoch, one of them writes, and the other waits for a
/// person.
async fn a_cloned_cluster_is_told_apart(suite: Arc<Suite>) -> Result<()> {
    let here = &suite.shared().await?.bed;
    let there = suite.own_bed().await?;
    let other = there.start_twinspan(TWINSPAN, &TwinspanOptions::default())?;
    other.ready().await?;
    let registry = here.start_registry("registry-cloned").await?;
    let one = Corner::without_registry_object(here, "cloned", &registry).await?;
    let two = one.twin(&there, &registry).await?;
    let mut pods = Vec::new();
    for corner in [&one, &two] {
        corner.selector_service("echo", 80).await?;
        pods.push(pod(corner, "pod").await?);
        corner.register("echo", json!({})).await?;
    }
    let spec = || json!({"clusterID": "production"});
    tokio::try_join!(one.create_registry(spec()), two.create_registry(spec()))?;

    let clones = [&one, &two];
    let standing = || async {
        let mut all = Vec::new();
        for corner in clones {
            let object = corner.registries().get(&corner.name).await?;
            let conditions = object.status.unwrap_or_default().conditions;
            let ready = conditions.iter().find(|c| c.type_ == "Ready").context("no condition yet")?;
            all.push((ready.status.clone(), ready.reason.clone(), ready.message.clone()));
        }
        Ok::<Vec<(String, String, String)>, anyhow::Error>(all)
    };
    let loser = eventually("one of them stands back", SOON * 2, || async {
        let all = standing().await?;
        let loser = all.iter().position(|(_, reason, _)| reason == "ClusterIDInUse").context(format!("{all:?}"))?;
        ensure!(all[1 - loser].0 == "True", "{all:?}");
        Ok(loser)
    })
    .await?;
    let winner = 1 - loser;
    clones[winner].records_become(&registry, "echo", &[pods[winner]]).await?;
    holds("only one of them writes", Duration::from_secs(8), || registry.dump("")).await?;
    clones[loser].condition("echo", "Exported", "False", "ClusterIDInUse").await?;

    // A person says which of them is the real one.
    let message = standing().await?[loser].2.clone();
    let (_, rest) = message.split_once("twinspan.dev/approve-epoch=").context(message.clone())?;
    let approved = rest.split(' ').next().context("a value")?;
    let patch = Patch::Merge(json!({"metadata": {"annotations": {"twinspan.dev/approve-epoch": approved}}}));
    clones[loser].registries().patch(&one.name, &PatchParams::default(), &patch).await?;
    clones[loser].registry_condition("Ready", "True", "Connected").await?;
    // What one clone wrote belongs to the owner that both have: the real one puts its own in its place.
    clones[loser].records_become(&registry, "echo", &[pods[loser]]).await?;
    clones[winner].pods.set_ready("pod", false).await?;
    clones[winner].pods.set_ready("pod", true).await?;
    eventually("the other one stands back now", Duration::from_secs(60), || async {
        let all = standing().await?;
        ensure!(all[winner].1 == "ClusterIDInUse" && all[loser].0 == "True", "{all:?}");
        Ok(())
    })
    .await?;
    holds("and writes nothing", Duration::from_secs(5), || registry.dump("")).await?;
    clones[loser].records_become(&registry, "echo", &[pods[loser]]).await?;
    one.nothing_foreign_was_touched(&registry).await
}

/// Two clusters under one name: each sees the other's instances where it asks for them, and neither touches what is the other's.
async fn two_clusters_on_one_etcd(suite: Arc<Suite>) -> Result<()> {
    let here = &suite.shared().await?.bed;
    let there = suite.own_bed().await?;
    let other = there.start_twinspan(TWINSPAN, &TwinspanOptions::default())?;
    other.ready().await?;
    let registry = here.start_registry("registry-two-clusters").await?;
    let one = Corner::with_registry(here, "twoclusters", &registry).await?;
    let two = one.twin(&there, &registry).await?;
    two.create_registry(json!({})).await?;
    for corner in [&one, &two] {
        corner
            .service(
                "echo",
                json!({"clusterIP": "None", "selector": {"app": "echo"}, "ports": [{"name": "rpc", "port": 80}]}),
            )
            .await?;
    }
    one.register("echo", json!({"import": {"otherClusters": "All"}})).await?;
    two.register("echo", json!({})).await?;
    let (a, b, c) = (pod(&one, "a").await?, pod(&one, "b").await?, pod(&two, "c").await?);
    let outside = vm(&one, &registry).await?;
    one.records_become(&registry, "echo", &[a, b, c, outside]).await?;
    one.imports_become("echo", &[outside, c]).await?;
    one.dns_becomes("echo", &[a, b, c, outside]).await?;
    // Unless it is asked for, a pod of another cluster is none: its address may lead nowhere.
    two.imports_become("echo", &[outside]).await?;
    eventually("it is counted as left out", SOON, || async {
        let status = two.registered().get("echo").await?.status.unwrap_or_default();
        ensure!(status.skipped.iter().any(|s| s.reason == "OtherCluster"), "{status:?}");
        Ok(())
    })
    .await?;
    two.patch("echo", json!({"import": {"otherClusters": "All"}})).await?;
    two.imports_become("echo", &[outside, a, b]).await?;
    two.dns_becomes("echo", &[a, b, c, outside]).await?;

    let of = |name: &str, all: &BTreeMap<String, (String, i64, i64)>| {
        all.iter()
            .filter(|(_, (value, ..))| value.contains(name))
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect::<BTreeMap<_, _>>()
    };
    let id = |object: ServiceRegistry| object.status.and_then(|status| status.cluster_id).context("a cluster ID");
    let ids = (id(one.registries().get(&one.name).await?)?, id(two.registries().get(&two.name).await?)?);
    ensure!(ids.0 != ids.1, "{ids:?}");
    let before = one.records(&registry, "echo").await?;
    ensure!((of(&ids.0, &before).len(), of(&ids.1, &before).len()) == (2, 1), "{before:?}");

    // What ends in one cluster ends in the other, and nobody is asked whether it lives.
    one.pods.set_ready("a", false).await?;
    two.imports_become("echo", &[outside, b]).await?;
    // One cluster withdraws everything, is gone, and comes back: the other's records are as they were.
    two.unregister("echo").await?;
    one.imports_become("echo", &[outside]).await?;
    other.part().kill().await?;
    let records = one.records(&registry, "echo").await?;
    let kept: BTreeSet<String> = of(&ids.0, &records).into_keys().collect();
    ensure!(kept == BTreeSet::from([one.key("echo", b)]), "{kept:?}");
    ensure!(records[&one.key("echo", b)] == before[&one.key("echo", b)], "it was written again");
    let again = there.start_twinspan(TWINSPAN, &TwinspanOptions::default())?;
    again.ready().await?;
    two.register("echo", json!({})).await?;
    eventually("it exports again", Duration::from_secs(60), || async {
        let found = one.registered_addresses(&registry, "echo").await?;
        ensure!(found == [b, c, outside].iter().map(ToString::to_string).collect(), "{found:?}");
        Ok(())
    })
    .await?;
    one.imports_become("echo", &[outside, c]).await?;
    ensure!(one.records(&registry, "echo").await?[&one.key("echo", b)] == before[&one.key("echo", b)]);
    two.nothing_foreign_was_touched(&registry).await?;
    one.nothing_foreign_was_touched(&registry).await
}

/// Another ServiceRegistry for the etcd of the corner.
async fn another(corner: &Corner<'_>, name: &str, endpoint: &str, prefix: &str) -> Result<()> {
    let object: ServiceRegistry = serde_json::from_value(json!({
        "apiVersion": "twinspan.dev/v1alpha1", "kind": "ServiceRegistry", "metadata": {"name": name},
        "spec": {"etcd": {"endpoints": [endpoint]}, "format": "Kitex", "prefix": prefix, "lease": {"ttlSeconds": 60},
            "allowed": [{"namespaceSelector": {}, "registryNames": ["*"]}]},
    }))?;
    corner.registries().create(&Default::default(), &object).await?;
    Ok(())
}

async fn ready(corner: &Corner<'_>, name: &str, status: &str, reason: &str, within: Duration) -> Result<String> {
    eventually("Ready of a ServiceRegistry", within, || async {
        let conditions = corner.registries().get(name).await?.status.unwrap_or_default().conditions;
        let ready = conditions.iter().find(|c| c.type_ == "Ready").context("no condition yet")?;
        ensure!(ready.status == status && ready.reason == reason, "{ready:?}");
        Ok(ready.message.clone())
    })
    .await
}

/// The second ServiceRegistry for the same place and cluster is refused, for each would take the other's records for its own. When
/// the first one goes, the second has its turn.
async fn two_service_registries_for_one_registry(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let corner = Corner::new(bed, "conflict").await?;
    corner.selector_service("echo", 80).await?;
    let address = pod(&corner, "pod").await?;
    corner.register("echo", json!({})).await?;
    corner.records_become(&bed.registry, "echo", &[address]).await?;
    let before = corner.records(&bed.registry, "echo").await?;

    // Only etcd itself can tell that the second spelling leads to it too.
    let (again, mapped) = (format!("{}-again", corner.name), format!("{}-mapped", corner.name));
    let (ip, port) = corner.etcd.trim_start_matches("http://").split_once(':').context("no port")?;
    another(&corner, &again, &corner.etcd, &corner.name).await?;
    another(&corner, &mapped, &format!("http://[::ffff:{ip}]:{port}"), &corner.name).await?;
    for name in [&again, &mapped] {
        let message = ready(&corner, name, "False", "Conflict", SOON).await?;
        ensure!(message.contains(&corner.name), "{message}");
    }
    // Whoever refers to them waits; the first one is as it was.
    let to = |name: &String| json!({"registryRef": {"name": name}, "service": {"name": "echo"}});
    corner.register("late", to(&again)).await?;
    corner.register("later", to(&mapped)).await?;
    for name in ["late", "later"] {
        corner.condition(name, "Ready", "False", "RegistryUnavailable").await?;
    }
    ensure!(corner.records(&bed.registry, "echo").await? == before);
    corner.registry_condition("Ready", "True", "Connected").await?;

    // A place inside the first one's is another place.
    let nested = format!("{}-nested", corner.name);
    another(&corner, &nested, &corner.etcd, &format!("{}/staging", corner.name)).await?;
    corner.register("deep", to(&nested)).await?;
    corner.condition("deep", "Ready", "True", "Synced").await?;
    ready(&corner, &nested, "True", "Connected", SOON).await?;
    let all = format!("{}/", corner.name);
    holds("the records of both", Duration::from_secs(5), || bed.registry.dump(&all)).await?;
    let key = format!("{}/staging/deep/{address}", corner.name);
    ensure!(bed.registry.dump(&key).await?.contains_key(&key), "nothing in the inner place");
    ensure!(corner.records(&bed.registry, "echo").await? == before);

    corner.registries().delete(&corner.name, &Default::default()).await?;
    corner.condition("echo", "Accepted", "False", "RegistryNotFound").await?;
    ready(&corner, &again, "True", "Connected", SOON).await?;
    corner.records_become(&bed.registry, "late", &[address]).await?;
    let message = ready(&corner, &mapped, "False", "Conflict", SOON).await?;
    ensure!(message.contains(&again), "{message}");
    corner.registries().delete(&again, &Default::default()).await?;
    ready(&corner, &mapped, "True", "Connected", SOON).await?;
    corner.records_become(&bed.registry, "later", &[address]).await?;
    corner.nothing_foreign_was_touched(&bed.registry).await
}
