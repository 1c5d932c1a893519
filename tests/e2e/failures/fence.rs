//! Fencing: one leader of one cluster writes, whatever stops, freezes or is cloned.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::discovery::v1::Endpoint;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::json;
use twinspan::api::ServiceRegistry;
use twinspan_testbed::{TwinspanOptions, eventually, holds, next_v4};

use crate::harness::{LEASE_TTL, SOON, Sandbox, Suite, TWINSPAN, part_name, stories};

stories![
    a_leader_that_was_frozen_writes_nothing,
    a_cloned_cluster_is_told_apart,
    two_clusters_on_one_etcd,
    two_service_registries_for_one_registry,
    two_etcds_with_one_cluster_id,
    two_formats_without_a_prefix_on_one_etcd,
];

/// A ready pod of `echo`, without a process.
async fn pod(sandbox: &Sandbox<'_>, name: &str) -> Result<SocketAddr> {
    let address = SocketAddr::from((next_v4(), 80));
    sandbox.run(name, &BTreeMap::from([("app".to_owned(), "echo".to_owned())]), address.ip()).await?;
    sandbox.pods.set_ready(name, true).await?;
    Ok(address)
}

async fn vm(sandbox: &Sandbox<'_>) -> Result<SocketAddr> {
    let vm = SocketAddr::from((next_v4(), 9000));
    sandbox.put("echo", vm).await?;
    Ok(vm)
}

/// Every key of the registry, and every object that Twinspan writes, each with its revision.
async fn everything(sandbox: &Sandbox<'_>) -> Result<BTreeMap<String, String>> {
    let mut all: BTreeMap<String, String> = sandbox
        .registry
        .dump("")
        .await?
        .into_iter()
        .map(|(key, (value, revision, _))| (key, format!("{revision} {value}")))
        .collect();
    for slice in sandbox.slices().list(&ListParams::default()).await? {
        let meta = slice.metadata;
        all.insert(format!("slice {}", meta.name.unwrap_or_default()), meta.resource_version.unwrap_or_default());
    }
    for object in sandbox.registered().list(&ListParams::default()).await? {
        let meta = object.metadata;
        all.insert(format!("registered {}", meta.name.unwrap_or_default()), meta.resource_version.unwrap_or_default());
    }
    let object = sandbox.registries().get(&sandbox.name).await?;
    all.insert("registry".to_owned(), object.metadata.resource_version.unwrap_or_default());
    Ok(all)
}

/// A frozen leader still believes that it leads when it wakes up, and its views are outdated.
pub async fn a_leader_that_was_frozen_writes_nothing(suite: Arc<Suite>) -> Result<()> {
    let bed = suite.own_bed().await?;
    let first = bed.start_twinspan(TWINSPAN, &TwinspanOptions::default())?;
    first.ready().await?;
    let sandbox = Sandbox::new(&bed, "frozenleader").await?;
    sandbox.selector_service("echo", 80).await?;
    sandbox.register("echo", json!({})).await?;
    let (a, b) = (pod(&sandbox, "a").await?, pod(&sandbox, "b").await?);
    let (x, y) = (vm(&sandbox).await?, vm(&sandbox).await?);
    sandbox.imports_become("echo", &[x, y]).await?;
    sandbox.records_become("echo", &[a, b, x, y]).await?;
    let second = bed.start_twinspan(TWINSPAN, &TwinspanOptions::default())?;
    second.ready().await?;

    for round in 0..3 {
        // Each side loses one instance and gets one, unseen by the frozen replica.
        let (leader, standby) = if round % 2 == 0 { (&first, &second) } else { (&second, &first) };
        leader.part().freeze()?;
        eventually("the other one leads", Duration::from_secs(60), || async {
            ensure!(standby.metric("twinspan_leader").await? == Some(1.0), "it does not");
            Ok(())
        })
        .await?;
        sandbox.pods.set_ready("a", round % 2 == 1).await?;
        let gone = vm(&sandbox).await?;
        let ours = if round % 2 == 1 { vec![a, b] } else { vec![b] };
        sandbox.imports_become("echo", &[x, y, gone]).await?;
        sandbox.records_become("echo", &[&ours[..], &[x, y, gone]].concat()).await?;
        bed.registry.delete(&sandbox.key("echo", gone)).await?;
        sandbox.imports_become("echo", &[x, y]).await?;
        sandbox.condition("echo", "Ready", "True", "Synced").await?;
        eventually("status has come to rest", SOON, || async {
            let counts = sandbox.counts("echo").await?;
            ensure!((counts.imported, counts.exported) == (2, i64::try_from(ours.len())?), "{counts:?}");
            let records = sandbox.registries().get(&sandbox.name).await?.status.and_then(|status| status.records);
            let records = records.context("no counts")?;
            ensure!(usize::try_from(records.own)? == ours.len() && records.foreign == 3, "{records:?}");
            Ok(())
        })
        .await?;
        leader.part().thaw()?;
        holds("everything, at its revision", Duration::from_secs(12), || everything(&sandbox)).await?;
        leader.ready().await?;
        ensure!(leader.metric("twinspan_leader").await? == Some(0.0), "it leads again");
    }
    sandbox.nothing_foreign_was_touched().await
}

/// Two clusters with one cluster ID, as after a clone: they race for the epoch, one of them writes, and the other waits
/// for approval.
pub async fn a_cloned_cluster_is_told_apart(suite: Arc<Suite>) -> Result<()> {
    let here = &suite.shared().await?.bed;
    let there = suite.own_bed().await?;
    let other = there.start_twinspan(TWINSPAN, &TwinspanOptions::default())?;
    other.ready().await?;
    let registry = here.start_registry(&part_name("registry-cloned")).await?;
    let one = Sandbox::without_registry_object(here, "cloned", &registry).await?;
    let two = one.twin(&there).await?;
    let mut pods = Vec::new();
    for sandbox in [&one, &two] {
        sandbox.selector_service("echo", 80).await?;
        let address = pod(sandbox, "pod").await?;
        // A clone whose Service has no ready endpoint yet holds the records that it finds, for longer than a TTL.
        eventually("the pod is ready in a slice", SOON, || async {
            let slices = sandbox.slices().list(&Default::default()).await?.items;
            let mut endpoints = slices.iter().flat_map(|slice| &slice.endpoints);
            let ready = |endpoint: &Endpoint| endpoint.conditions.as_ref().and_then(|is| is.ready) == Some(true);
            ensure!(endpoints.any(ready), "{slices:?}");
            Ok(())
        })
        .await?;
        pods.push(address);
        sandbox.register("echo", json!({})).await?;
    }
    let spec = || json!({"clusterID": "production"});
    tokio::try_join!(one.create_registry(spec()), two.create_registry(spec()))?;

    let clones = [&one, &two];
    let standing = || async {
        let mut all = Vec::new();
        for sandbox in clones {
            let object = sandbox.registries().get(&sandbox.name).await?;
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
    // If the loser led first, the winner found an epoch that nothing explains: for one TTL it removes only records
    // whose endpoint it saw end.
    clones[winner].records_become_within("echo", &[pods[winner]], LEASE_TTL + SOON).await?;
    holds("only one of them writes", Duration::from_secs(8), || registry.dump("")).await?;
    clones[loser].condition("echo", "Exported", "False", "ClusterIDInUse").await?;

    // An administrator approves one of them.
    let message = standing().await?[loser].2.clone();
    let (_, rest) = message.split_once("twinspan.dev/approve-epoch=").context(message.clone())?;
    let approved = rest.split(' ').next().context("a value")?;
    let patch = Patch::Merge(json!({"metadata": {"annotations": {"twinspan.dev/approve-epoch": approved}}}));
    clones[loser].registries().patch(&one.name, &PatchParams::default(), &patch).await?;
    clones[loser].registry_condition("Ready", "True", "Connected").await?;
    // The records of one clone belong to the owner that both have: the approved clone replaces them by its own.
    clones[loser].records_become("echo", &[pods[loser]]).await?;
    clones[winner].pods.set_ready("pod", false).await?;
    clones[winner].pods.set_ready("pod", true).await?;
    eventually("the other one stands back now", Duration::from_secs(60), || async {
        let all = standing().await?;
        ensure!(all[winner].1 == "ClusterIDInUse" && all[loser].0 == "True", "{all:?}");
        Ok(())
    })
    .await?;
    holds("and writes nothing", Duration::from_secs(5), || registry.dump("")).await?;
    clones[loser].records_become("echo", &[pods[loser]]).await?;
    one.nothing_foreign_was_touched().await
}

/// Two clusters under one name: each imports the other's instances if its spec asks for them, and neither changes the
/// other's records.
pub async fn two_clusters_on_one_etcd(suite: Arc<Suite>) -> Result<()> {
    let here = &suite.shared().await?.bed;
    let there = suite.own_bed().await?;
    let other = there.start_twinspan(TWINSPAN, &TwinspanOptions::default())?;
    other.ready().await?;
    let registry = here.start_registry(&part_name("registry-two-clusters")).await?;
    let one = Sandbox::with_registry(here, "twoclusters", &registry).await?;
    let two = one.twin(&there).await?;
    two.create_registry(json!({})).await?;
    for sandbox in [&one, &two] {
        sandbox.headless("echo").await?;
    }
    one.register("echo", json!({"import": {"otherClusters": "All"}})).await?;
    two.register("echo", json!({})).await?;
    let (a, b, c) = (pod(&one, "a").await?, pod(&one, "b").await?, pod(&two, "c").await?);
    let outside = vm(&one).await?;
    one.records_become("echo", &[a, b, c, outside]).await?;
    one.imports_become("echo", &[outside, c]).await?;
    one.dns_becomes("echo", &[a, b, c, outside]).await?;
    // Unless the spec asks for them, pods of another cluster are not imported: their addresses may not be reachable.
    two.imports_become("echo", &[outside]).await?;
    eventually("it is counted as left out", SOON, || async {
        let status = two.registered().get("echo").await?.status.unwrap_or_default();
        ensure!(status.differences.iter().any(|s| s.reason == "OtherCluster"), "{status:?}");
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
    let before = one.records("echo").await?;
    ensure!((of(&ids.0, &before).len(), of(&ids.1, &before).len()) == (2, 1), "{before:?}");

    // An instance that ends in one cluster ends in the other, without a probe.
    one.pods.set_ready("a", false).await?;
    two.imports_become("echo", &[outside, b]).await?;
    // One cluster withdraws everything, stops, and comes back: the other cluster's records are unchanged.
    two.unregister("echo").await?;
    one.imports_become("echo", &[outside]).await?;
    other.part().kill().await?;
    let records = one.records("echo").await?;
    let kept: BTreeSet<String> = of(&ids.0, &records).into_keys().collect();
    ensure!(kept == BTreeSet::from([one.key("echo", one.exported(b))]), "{kept:?}");
    ensure!(
        records[&one.key("echo", one.exported(b))] == before[&one.key("echo", one.exported(b))],
        "it was written again"
    );
    let again = there.start_twinspan(TWINSPAN, &TwinspanOptions::default())?;
    again.ready().await?;
    two.register("echo", json!({})).await?;
    eventually("it exports again", Duration::from_secs(60), || async {
        let found = one.registered_addresses("echo").await?;
        ensure!(found == [b, c, outside].map(|addr| one.exported(addr).to_string()).into(), "{found:?}");
        Ok(())
    })
    .await?;
    one.imports_become("echo", &[outside, c]).await?;
    ensure!(one.records("echo").await?[&one.key("echo", one.exported(b))] == before[&one.key("echo", one.exported(b))]);
    two.nothing_foreign_was_touched().await?;
    one.nothing_foreign_was_touched().await
}

/// Another ServiceRegistry for the etcd of the sandbox.
async fn another(sandbox: &Sandbox<'_>, name: &str, endpoint: &str, prefix: &str) -> Result<()> {
    let object: ServiceRegistry = serde_json::from_value(json!({
        "apiVersion": "twinspan.dev/v1alpha1", "kind": "ServiceRegistry", "metadata": {"name": name},
        "spec": {"etcd": {"endpoints": [endpoint]}, "format": "Kitex", "prefix": prefix, "lease": {"ttlSeconds": 60},
            "allowed": [{"namespaceSelector": {}, "registryNames": ["*"]}]},
    }))?;
    sandbox.registries().create(&Default::default(), &object).await?;
    Ok(())
}

async fn ready(sandbox: &Sandbox<'_>, name: &str, status: &str, reason: &str, within: Duration) -> Result<String> {
    eventually("Ready of a ServiceRegistry", within, || async {
        let conditions = sandbox.registries().get(name).await?.status.unwrap_or_default().conditions;
        let ready = conditions.iter().find(|c| c.type_ == "Ready").context("no condition yet")?;
        ensure!(ready.status == status && ready.reason == reason, "{ready:?}");
        Ok(ready.message.clone())
    })
    .await
}

/// A second ServiceRegistry for the same keyspace and cluster is refused, because each would take the other's records
/// for its own. When the first one is deleted, the second takes over.
pub async fn two_service_registries_for_one_registry(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let sandbox = Sandbox::new(bed, "conflict").await?;
    sandbox.selector_service("echo", 80).await?;
    let address = pod(&sandbox, "pod").await?;
    sandbox.register("echo", json!({})).await?;
    sandbox.records_become("echo", &[address]).await?;
    let before = sandbox.records("echo").await?;

    // Only etcd itself can show that the second spelling leads to it too.
    let (again, mapped) = (format!("{}-again", sandbox.name), format!("{}-mapped", sandbox.name));
    let (ip, port) = sandbox.registry.endpoint().trim_start_matches("http://").split_once(':').context("no port")?;
    another(&sandbox, &again, sandbox.registry.endpoint(), &sandbox.name).await?;
    another(&sandbox, &mapped, &format!("http://[::ffff:{ip}]:{port}"), &sandbox.name).await?;
    for name in [&again, &mapped] {
        let message = ready(&sandbox, name, "False", "Conflict", SOON).await?;
        ensure!(message.contains(&sandbox.name), "{message}");
    }
    // RegisteredServices that refer to the second one wait; the first one is unchanged.
    let to = |name: &String| json!({"registryRef": {"name": name}, "service": {"name": "echo"}});
    sandbox.register("late", to(&again)).await?;
    sandbox.register("later", to(&mapped)).await?;
    for name in ["late", "later"] {
        sandbox.condition(name, "Ready", "False", "RegistryUnavailable").await?;
    }
    ensure!(sandbox.records("echo").await? == before);
    sandbox.registry_condition("Ready", "True", "Connected").await?;

    // A prefix inside the first one's prefix is another keyspace.
    let nested = format!("{}-nested", sandbox.name);
    another(&sandbox, &nested, sandbox.registry.endpoint(), &format!("{}/staging", sandbox.name)).await?;
    sandbox.register("deep", to(&nested)).await?;
    sandbox.condition("deep", "Ready", "True", "Synced").await?;
    ready(&sandbox, &nested, "True", "Connected", SOON).await?;
    let all = format!("{}/", sandbox.name);
    holds("the records of both", Duration::from_secs(5), || bed.registry.dump(&all)).await?;
    let key = format!("{}/staging/deep/{}", sandbox.name, sandbox.exported(address));
    ensure!(bed.registry.dump(&key).await?.contains_key(&key), "nothing in the inner place");
    ensure!(sandbox.records("echo").await? == before);

    sandbox.registries().delete(&sandbox.name, &Default::default()).await?;
    sandbox.condition("echo", "Accepted", "False", "RegistryNotFound").await?;
    ready(&sandbox, &again, "True", "Connected", SOON).await?;
    sandbox.records_become("late", &[address]).await?;
    let message = ready(&sandbox, &mapped, "False", "Conflict", SOON).await?;
    ensure!(message.contains(&again), "{message}");
    sandbox.registries().delete(&again, &Default::default()).await?;
    ready(&sandbox, &mapped, "True", "Connected", SOON).await?;
    sandbox.records_become("later", &[address]).await?;
    sandbox.nothing_foreign_was_touched().await
}

/// etcd's cluster ID is a hash of peer URLs and a token, so that two may have the same one.
pub async fn two_etcds_with_one_cluster_id(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let peer = "http://127.0.0.1:2380";
    let flags = [format!("--initial-cluster=bed={peer}"), format!("--initial-advertise-peer-urls={peer}")];
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let east = bed.start_registry_with(&part_name("registry-east"), &flags).await?;
    let west = bed.start_registry_with(&part_name("registry-west"), &flags).await?;
    let sandbox = Sandbox::with_registry(bed, "east", &east).await?;
    sandbox.selector_service("echo", 80).await?;
    let address = pod(&sandbox, "pod").await?;
    sandbox.register("echo", json!({})).await?;
    let other = format!("{}-west", sandbox.name);
    another(&sandbox, &other, west.endpoint(), &sandbox.name).await?;
    sandbox.register("far", json!({"registryRef": {"name": other}, "service": {"name": "echo"}})).await?;
    sandbox.records_become("echo", &[address]).await?;
    sandbox.condition("far", "Ready", "True", "Synced").await?;
    let key = sandbox.key("far", sandbox.exported(address));
    ensure!(west.dump(&key).await?.contains_key(&key), "nothing in the other etcd");
    let mut ids = BTreeSet::new();
    for name in [&sandbox.name, &other] {
        ready(&sandbox, name, "True", "Connected", SOON).await?;
        let status = sandbox.registries().get(name).await?.status.unwrap_or_default();
        ids.insert(status.etcd.context("no etcd in the status")?.cluster_id);
    }
    ensure!(ids.len() == 1, "the etcds were to have one ID: {ids:?}");
    sandbox.nothing_foreign_was_touched().await
}

/// Without a common prefix the place of a ServiceRegistry is its names.
pub async fn two_formats_without_a_prefix_on_one_etcd(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let registry = bed.start_registry(&part_name("registry-shared")).await?;
    let sandbox = Sandbox::without_registry_object(bed, "shared", &registry).await?;
    let (gozero, grpc) = (format!("{}-a", sandbox.name), format!("{}-b", sandbox.name));
    for (name, format) in [(&gozero, "GoZero"), (&grpc, "GRPC")] {
        let object: ServiceRegistry = serde_json::from_value(json!({
            "apiVersion": "twinspan.dev/v1alpha1", "kind": "ServiceRegistry", "metadata": {"name": name},
            "spec": {"etcd": {"endpoints": [registry.endpoint()]}, "format": format,
                "allowed": [{"namespaceSelector": {}, "registryNames": ["*"]}]},
        }))?;
        sandbox.registries().create(&Default::default(), &object).await?;
    }
    sandbox.selector_service("echo", 80).await?;
    let address = pod(&sandbox, "pod").await?;
    let to = |registry: &String, name: &str| json!({"registryRef": {"name": registry}, "registryName": name, "service": {"name": "echo"}});
    sandbox.register("user", to(&gozero, "user.rpc")).await?;
    sandbox.register("pay", to(&grpc, "pay.Payment")).await?;
    for name in ["user", "pay"] {
        sandbox.condition(name, "Ready", "True", "Synced").await?;
    }
    for name in ["user.rpc/", "pay.Payment/"] {
        let records = registry.dump(name).await?;
        ensure!(
            records.len() == 1
                && records.values().all(|(value, ..)| value.contains(&sandbox.exported(address).to_string()))
        );
    }
    for name in [&gozero, &grpc] {
        ready(&sandbox, name, "True", "Connected", SOON).await?;
    }
    sandbox.register("both", to(&grpc, "user.rpc")).await?;
    sandbox.condition("both", "Accepted", "False", "Conflict").await?;
    sandbox.unregister("user").await?;
    sandbox.condition("both", "Ready", "True", "Synced").await?;
    sandbox.nothing_foreign_was_touched().await
}
