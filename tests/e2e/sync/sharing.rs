//! Sharing: several RegisteredServices under one registry name, and several into one Service; and those that a person
//! writes beside discovered ones.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use etcd_client::{EventType, WatchOptions};
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;
use twinspan::api::discovered::DISCOVERED_BY;
use twinspan_testbed::{eventually, holds, next_v4};

use crate::harness::{SOON, Sandbox, Suite, stories};

stories![
    canary_and_stable_under_one_name,
    one_service_fed_from_two_registries,
    a_hand_written_one_takes_over_what_discovered_ones_have,
];

/// Waits for another second: creation times have whole seconds, and the age of two objects must not depend on their
/// names.
async fn a_second_later() {
    tokio::time::sleep(Duration::from_millis(1100)).await;
}

async fn canary_and_stable_under_one_name(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let sandbox = Sandbox::new(bed, "canary").await?;
    // Both Services select the shared pod; each also has a pod of its own.
    sandbox
        .service(
            "stable",
            json!({"selector": {"app": "echo", "stable": "yes"}, "ports": [{"name": "rpc", "port": 80}]}),
        )
        .await?;
    sandbox
        .service(
            "canary",
            json!({"selector": {"app": "echo", "canary": "yes"}, "ports": [{"name": "rpc", "port": 80}]}),
        )
        .await?;
    let pod = |name: &'static str, labels: &[&str]| {
        let mut all = BTreeMap::from([("app".to_owned(), "echo".to_owned())]);
        all.extend(labels.iter().map(|l| ((*l).to_owned(), "yes".to_owned())));
        let (ip, pods) = (next_v4(), sandbox.pods.clone());
        async move {
            pods.run(name, &all, &[ip.into()]).await?;
            pods.set_ready(name, true).await?;
            Ok::<_, anyhow::Error>(SocketAddr::from((ip, 80)))
        }
    };
    let only_stable = pod("only-stable", &["stable"]).await?;
    let only_canary = pod("only-canary", &["canary"]).await?;
    let shared = pod("shared", &["stable", "canary"]).await?;
    sandbox.register("stable", json!({"registryName": "echo", "export": {"tags": {"lane": "stable"}}})).await?;
    a_second_later().await;
    sandbox.register("canary", json!({"registryName": "echo", "export": {"tags": {"lane": "canary"}}})).await?;
    sandbox.records_become("echo", &[only_stable, only_canary, shared]).await?;
    let owner = |address: SocketAddr| {
        let sandbox = &sandbox;
        async move {
            let records = sandbox.records("echo").await?;
            let (value, revision, _) = records.get(&sandbox.key("echo", address)).cloned().unwrap_or_default();
            Ok::<_, anyhow::Error>((value.contains("/stable\""), value.contains("/canary\""), revision))
        }
    };
    ensure!(matches!(owner(shared).await?, (true, false, _)), "the older one has the shared address");
    eventually("the younger counts it as a conflict", SOON, || async {
        let status = sandbox.registered().get("canary").await?.status.unwrap_or_default();
        ensure!(
            status.differences.iter().any(|s| s.reason == "Conflict" && s.instance == shared.to_string()),
            "{status:?}"
        );
        ensure!(status.instances.exported == 1, "{:?}", status.instances);
        Ok(())
    })
    .await?;

    // The older RegisteredService gives the record up: the owner changes in one update, and the record is never
    // missing.
    let mut client = bed.registry.client().await?;
    let key = sandbox.key("echo", shared);
    let mut watch = client.watch(key.clone(), Some(WatchOptions::new())).await?;
    sandbox.unregister("stable").await?;
    sandbox.records_become("echo", &[only_canary, shared]).await?;
    eventually("the younger has it now", SOON, || async {
        ensure!(matches!(owner(shared).await?, (false, true, _)));
        Ok(())
    })
    .await?;
    // A RegisteredService that is created again is the younger one, so it gets nothing.
    sandbox.register("stable", json!({"registryName": "echo", "export": {"tags": {"lane": "stable"}}})).await?;
    sandbox.records_become("echo", &[only_stable, only_canary, shared]).await?;
    ensure!(matches!(owner(shared).await?, (false, true, _)));
    sandbox.unregister("canary").await?;
    sandbox.records_become("echo", &[only_stable, shared]).await?;
    eventually("it changes hands again", SOON, || async {
        ensure!(matches!(owner(shared).await?, (true, false, _)));
        Ok(())
    })
    .await?;
    let mut puts = 0;
    while let Ok(Ok(Some(response))) = tokio::time::timeout(Duration::from_secs(1), watch.message()).await {
        for event in response.events() {
            ensure!(event.event_type() == EventType::Put, "the shared record was away");
            puts += 1;
        }
    }
    ensure!(puts == 2, "two changes of hands are two writes, not {puts}");
    sandbox.nothing_foreign_was_touched().await
}

async fn one_service_fed_from_two_registries(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let sandbox = Sandbox::new(bed, "tworeg").await?;
    let second = bed.start_registry("registry-second").await?;
    let other = Sandbox::with_registry(bed, "tworeg-second", &second).await?;
    // The second ServiceRegistry serves the first sandbox's namespace.
    let allowed = json!({"spec": {"allowed": [{"namespaceSelector": {"matchLabels": {"story": sandbox.name}}, "registryNames": ["*"]}]}});
    other.registries().patch(&other.name, &Default::default(), &kube::api::Patch::Merge(allowed)).await?;
    sandbox.headless_without_selector("user", 80).await?;
    sandbox.register("first", json!({"registryName": "user", "service": {"name": "user"}})).await?;
    a_second_later().await;
    let spec = json!({"registryRef": {"name": other.name}, "registryName": "user", "service": {"name": "user"}});
    sandbox.register("second", spec).await?;
    let (one, two, both) =
        (SocketAddr::from((next_v4(), 9000)), SocketAddr::from((next_v4(), 9000)), SocketAddr::from((next_v4(), 9000)));
    sandbox.put("user", one).await?;
    sandbox.put("user", both).await?;
    other.put("user", two).await?;
    other.put("user", both).await?;
    // `imported` fails where an address is in two slices.
    sandbox.imports_become("user", &[one, two, both]).await?;
    sandbox.dns_becomes("user", &[one, two, both]).await?;
    eventually("the younger counts it as a conflict", SOON, || async {
        let status = sandbox.registered().get("second").await?.status.unwrap_or_default();
        ensure!(
            status.differences.iter().any(|s| s.reason == "Conflict" && s.instance == both.to_string()),
            "{status:?}"
        );
        Ok(())
    })
    .await?;
    // The first registry loses the instance: the second registry is enough, and DNS never misses it.
    let watching = async {
        let started = std::time::Instant::now();
        while started.elapsed() < Duration::from_secs(4) {
            let found = bed.dns.srv_addresses(&sandbox.srv_name("user")).await?;
            ensure!(found.contains(&both), "it was away: {found:?}");
        }
        Ok(())
    };
    let changing = async {
        bed.registry.delete(&sandbox.key("user", both)).await?;
        eventually("it changed hands", SOON, || async {
            let slices = sandbox.our_slices("user").await?;
            let of = |owner: &str| -> BTreeSet<String> {
                let owned =
                    slices.iter().filter(|s| s.metadata.owner_references.iter().flatten().any(|o| o.name == owner));
                owned.flat_map(|s| s.endpoints.iter().flat_map(|e| e.addresses.clone())).collect()
            };
            ensure!(
                of("second").contains(&both.ip().to_string()) && !of("first").contains(&both.ip().to_string()),
                "{slices:?}"
            );
            Ok(())
        })
        .await
    };
    tokio::try_join!(watching, changing)?;
    sandbox.imports_become("user", &[one, two, both]).await?;
    sandbox.nothing_foreign_was_touched().await?;
    other.nothing_foreign_was_touched().await
}

/// Two objects as discovery makes them, one for each direction; then a person writes one for the same Service, and one
/// for the same name. Nothing is away meanwhile, and nothing changes when the discovered ones go. Discovery itself only
/// observes: it would give them up as soon as it may, and here they have to be seen beside the others.
async fn a_hand_written_one_takes_over_what_discovered_ones_have(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let sandbox = Sandbox::new(bed, "discovered").await?;
    sandbox.headless("web").await?;
    let ip = next_v4();
    sandbox.pods.run("web-1", &BTreeMap::from([("app".to_owned(), "web".to_owned())]), &[ip.into()]).await?;
    sandbox.pods.set_ready("web-1", true).await?;
    let (pod, server) = (SocketAddr::from((ip, 80)), SocketAddr::from((next_v4(), 9000)));
    let discovery = json!({"policy": "Observe", "export": {"namespaceSelector": {"matchLabels": {"story": "none"}}}});
    let registry = sandbox.registries();
    let patch = Patch::Merge(json!({"spec": {"discovery": discovery}}));
    let uid = registry.patch(&sandbox.name, &PatchParams::default(), &patch).await?.metadata.uid.context("no UID")?;
    eventually("discovery observes", SOON, || async {
        let status = registry.get_status(&sandbox.name).await?.status.unwrap_or_default();
        ensure!(status.discovery.is_some(), "{status:?}");
        Ok(())
    })
    .await?;
    let exports = json!({"registryName": "web", "service": {"name": "web"}, "direction": "Export"});
    let created = json!({"name": "user", "create": "Headless", "ports": [{"name": "rpc", "number": 80}]});
    let imports = json!({"registryName": "user", "service": created, "direction": "Import"});
    sandbox.put("user", server).await?;
    for (name, spec) in [("found-web", &exports), ("found-user", &imports)] {
        let mut spec = spec.clone();
        spec["registryRef"] = json!({"name": sandbox.name});
        let object = serde_json::from_value(json!({
            "apiVersion": "twinspan.dev/v1alpha1", "kind": "RegisteredService", "spec": spec,
            "metadata": {"name": name, "labels": {DISCOVERED_BY: uid}},
        }))?;
        sandbox.registered().create(&PostParams::default(), &object).await?;
    }
    sandbox.records_become("web", &[pod]).await?;
    sandbox.imports_become("user", &[server]).await?;
    sandbox.dns_becomes("user", &[server]).await?;
    let service = sandbox.services().get("user").await?.metadata.uid;
    let key = sandbox.key("web", pod);
    let mut client = bed.registry.client().await?;
    let before = client.get(key.clone(), None).await?.take_kvs().pop().context("no record")?;
    let mut watch = client.watch(key.clone(), Some(WatchOptions::new())).await?;

    a_second_later().await;
    let owners = || async {
        let mut all: BTreeSet<String> = BTreeSet::new();
        for slice in sandbox.our_slices("user").await? {
            ensure!(slice.endpoints.iter().all(|e| e.addresses == [server.ip().to_string()]), "{slice:?}");
            all.extend(slice.metadata.owner_references.into_iter().flatten().map(|owner| owner.name));
        }
        let created = sandbox.services().get("user").await?.metadata;
        ensure!(created.uid == service, "the Service was created again");
        all.extend(created.owner_references.into_iter().flatten().map(|owner| owner.name));
        Ok::<_, anyhow::Error>(all)
    };
    let done = std::sync::atomic::AtomicBool::new(false);
    let watching = async {
        while !done.load(std::sync::atomic::Ordering::Relaxed) {
            let found = bed.dns.srv_addresses(&sandbox.srv_name("user")).await?;
            ensure!(found == BTreeSet::from([server]), "DNS answers {found:?}");
            let slices = sandbox.our_slices("user").await?;
            ensure!(slices.iter().any(|slice| !slice.endpoints.is_empty()), "no slice has it: {slices:?}");
        }
        Ok(())
    };
    let changing = async {
        sandbox.register("web", exports.clone()).await?;
        sandbox.register("user", imports.clone()).await?;
        eventually("the hand-written ones have everything", SOON, || async {
            let value = sandbox.records("web").await?.remove(&key).unwrap_or_default().0;
            ensure!(value.contains("/web\""), "{value}");
            ensure!(owners().await? == BTreeSet::from(["user".to_owned()]), "{:?}", owners().await?);
            Ok(())
        })
        .await?;
        for (name, address) in [("found-web", pod), ("found-user", server)] {
            eventually("the discovered one counts it as a conflict", SOON, || async {
                let status = sandbox.registered().get(name).await?.status.unwrap_or_default();
                let mut conflicts = status.differences.iter().filter(|difference| difference.reason == "Conflict");
                ensure!(conflicts.any(|conflict| conflict.instance == address.to_string()), "{status:?}");
                Ok(())
            })
            .await?;
        }
        let slices = sandbox.our_slices("user").await?;
        for name in ["found-web", "found-user"] {
            sandbox.unregister(name).await?;
        }
        // Longer than the garbage collector takes.
        holds("both sides", Duration::from_secs(8), || async {
            ensure!(sandbox.our_slices("user").await? == slices, "slices changed");
            owners().await
        })
        .await?;
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        Ok(())
    };
    tokio::try_join!(watching, changing)?;
    let after = client.get(key.clone(), None).await?.take_kvs().pop().context("no record any more")?;
    ensure!(after.create_revision() == before.create_revision(), "the record was away");
    ensure!(after.version() == before.version() + 1, "{} writes", after.version() - before.version());
    ensure!(after.lease() == before.lease() && after.mod_revision() > before.mod_revision());
    let mut told = Vec::new();
    while told.is_empty() {
        let response = tokio::time::timeout(SOON, watch.message()).await??.context("the watch ended")?;
        told.extend(response.events().iter().map(etcd_client::Event::event_type));
    }
    ensure!(told == [EventType::Put], "{told:?}");
    sandbox.nothing_foreign_was_touched().await
}
