//! Import, registry → cluster: DNS clients find a real Kitex server "on a VM".

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use std::time::{Duration, Instant};
use twinspan_testbed::{eventually, next_v4, next_v6};

use crate::harness::{SOON, Sandbox, Suite, stories};

stories![
    headless,
    cluster_ip,
    leaves_and_comes_back,
    ports_and_families,
    a_missing_service_is_created;
    long: killed_with_the_default_ttl,
];

fn address(port: u16) -> SocketAddr {
    SocketAddr::from((next_v4(), port))
}

async fn headless(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let sandbox = Sandbox::new(bed, "headless").await?;
    sandbox.headless_without_selector("user", 8888).await?;
    sandbox.register("user", json!({"registryName": "douyinec.user"})).await?;
    let server = sandbox.vm("douyinec.user", address(9000), None).await?;
    sandbox.imports_become("user", &[server.address()]).await?;

    let slice = sandbox.our_slices("user").await?.pop().context("a slice")?;
    let endpoint = slice.endpoints.first().context("an endpoint")?;
    let conditions = endpoint.conditions.as_ref().context("conditions")?;
    ensure!(
        (conditions.ready, conditions.serving, conditions.terminating) == (Some(true), Some(true), Some(false)),
        "all three conditions are said: {conditions:?}"
    );
    let labels = slice.metadata.labels.unwrap_or_default();
    ensure!(labels.get("service.kubernetes.io/headless").is_some_and(String::is_empty), "{labels:?}");
    let owner = slice.metadata.owner_references.unwrap_or_default();
    ensure!(owner.iter().any(|o| o.kind == "RegisteredService" && o.name == "user"), "{owner:?}");

    sandbox.dns_becomes("user", &[server.address()]).await?;
    let a = bed.dns.addresses(&sandbox.dns_name("user")).await?;
    ensure!(a == BTreeSet::from([server.address().ip()]), "A answers {a:?}");
    let object = sandbox.condition("user", "Imported", "True", "Synced").await?;
    eventually("status counts", SOON, || async {
        let counts = sandbox.registered().get("user").await?.status.unwrap_or_default().instances;
        ensure!((counts.imported, counts.registry, counts.exported, counts.cluster) == (1, 1, 0, 0), "{counts:?}");
        Ok(())
    })
    .await?;
    ensure!(object.status.is_some());
    eventually("an Event says so", SOON, || async {
        let events = sandbox.events("user").await?;
        ensure!(events.iter().any(|(reason, _)| reason == "Imported"), "{events:?}");
        Ok(())
    })
    .await?;
    sandbox.nothing_foreign_was_touched().await
}

async fn cluster_ip(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let sandbox = Sandbox::new(bed, "clusterip").await?;
    sandbox
        .service("user", json!({"ports": [{"name": "rpc", "port": 8888}, {"name": "metrics", "port": 9090}]}))
        .await?;
    sandbox.register("user", json!({"service": {"ports": [{"name": "rpc"}]}, "direction": "Import"})).await?;
    let server = sandbox.vm("user", address(9000), None).await?;
    sandbox.imports_become("user", &[server.address()]).await?;

    let slice = sandbox.our_slices("user").await?.pop().context("a slice")?;
    let port = slice.ports.unwrap_or_default().pop().context("a port")?;
    ensure!(
        (port.name.as_deref(), port.port, port.protocol.as_deref()) == (Some("rpc"), Some(9000), Some("TCP")),
        "under the name of the Service port, at the instance's own number: {port:?}"
    );
    ensure!(!slice.metadata.labels.unwrap_or_default().contains_key("service.kubernetes.io/headless"));
    // DNS answers for a ClusterIP Service with the Service's own address and port, whatever its endpoints are.
    let service = sandbox.services().get("user").await?;
    let ip: IpAddr = service.spec.and_then(|s| s.cluster_ip).context("a cluster IP")?.parse()?;
    eventually("DNS answers with it", SOON, || async {
        let a = bed.dns.addresses(&sandbox.dns_name("user")).await?;
        ensure!(a == BTreeSet::from([ip]), "A answers {a:?}, want {ip}");
        let srv = bed.dns.srv_addresses(&sandbox.srv_name("user")).await?;
        ensure!(srv == BTreeSet::from([SocketAddr::new(ip, 8888)]), "SRV answers {srv:?}");
        Ok(())
    })
    .await?;
    sandbox.nothing_foreign_was_touched().await
}

async fn leaves_and_comes_back(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let sandbox = Sandbox::new(bed, "leaves").await?;
    sandbox.headless_without_selector("user", 8888).await?;
    sandbox.register("user", json!({})).await?;
    let stays = sandbox.vm("user", address(9000), None).await?;
    let stops = sandbox.vm("user", address(9000), None).await?;
    let dies = sandbox.vm("user", address(9000), Some(5)).await?;
    sandbox.dns_becomes("user", &[stays.address(), stops.address(), dies.address()]).await?;

    stops.part().stop().await?;
    sandbox.dns_becomes("user", &[stays.address(), dies.address()]).await?;
    // A killed server cannot deregister: it leaves when its lease ends.
    dies.part().kill().await?;
    sandbox.dns_becomes("user", &[stays.address()]).await?;
    sandbox.imports_become("user", &[stays.address()]).await?;

    let back = sandbox.vm("user", address(9001), Some(5)).await?;
    sandbox.dns_becomes("user", &[stays.address(), back.address()]).await?;
    // The last server leaves too: an empty answer is an answer.
    back.part().stop().await?;
    stays.part().stop().await?;
    sandbox.dns_becomes("user", &[]).await?;
    ensure!(sandbox.our_slices("user").await?.is_empty());
    sandbox.nothing_foreign_was_touched().await
}

async fn ports_and_families(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let sandbox = Sandbox::new(bed, "ports").await?;
    sandbox.headless_without_selector("user", 8888).await?;
    sandbox.register("user", json!({})).await?;
    let mut all = vec![address(9000), address(9000), address(9000), address(9001), address(9002)];
    all.push(SocketAddr::from((next_v6()?, 9000)));
    let mut servers = Vec::new();
    for address in &all {
        servers.push(sandbox.vm("user", *address, None).await?);
    }
    sandbox.imports_become("user", &all).await?;
    // Instances on one port share a slice. Each other port and each family has a slice of its own, all under one port
    // name.
    let mut shapes: Vec<(String, Option<i32>, Option<String>, usize)> = sandbox
        .our_slices("user")
        .await?
        .into_iter()
        .map(|s| {
            let port = s.ports.unwrap_or_default().pop().unwrap_or_default();
            (s.address_type, port.port, port.name, s.endpoints.len())
        })
        .collect();
    shapes.sort();
    let rpc = || Some("rpc".to_owned());
    ensure!(
        shapes
            == [
                ("IPv4".to_owned(), Some(9000), rpc(), 3),
                ("IPv4".to_owned(), Some(9001), rpc(), 1),
                ("IPv4".to_owned(), Some(9002), rpc(), 1),
                ("IPv6".to_owned(), Some(9000), rpc(), 1),
            ],
        "{shapes:?}"
    );
    sandbox.dns_becomes("user", &all).await?;
    sandbox.nothing_foreign_was_touched().await
}

async fn a_missing_service_is_created(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let sandbox = Sandbox::new(bed, "creates").await?;
    let create = |how: &str| json!({"service": {"create": how, "ports": [{"name": "rpc", "number": 8888}]}});
    sandbox.register("headless", create("Headless")).await?;
    sandbox.register("virtual", create("ClusterIP")).await?;
    let one = sandbox.vm("headless", address(9000), None).await?;
    let two = sandbox.vm("virtual", address(9000), None).await?;
    sandbox.dns_becomes("headless", &[one.address()]).await?;
    sandbox.imports_become("virtual", &[two.address()]).await?;
    sandbox.condition("headless", "Ready", "True", "Synced").await?;

    let headless = sandbox.services().get("headless").await?;
    ensure!(headless.spec.as_ref().is_some_and(|s| s.cluster_ip.as_deref() == Some("None") && s.selector.is_none()));
    let cluster_ip = sandbox.services().get("virtual").await?;
    ensure!(cluster_ip.spec.as_ref().is_some_and(|s| s.cluster_ip.as_deref() != Some("None")));

    // A Service that we created goes with its RegisteredService.
    sandbox.unregister("headless").await?;
    eventually("the Service and its slices are gone", SOON, || async {
        ensure!(sandbox.services().get_opt("headless").await?.is_none(), "the Service is still there");
        ensure!(sandbox.our_slices("headless").await?.is_empty(), "slices are still there");
        Ok(())
    })
    .await?;
    sandbox.nothing_foreign_was_touched().await
}

async fn killed_with_the_default_ttl(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let sandbox = Sandbox::new(bed, "default-ttl").await?;
    sandbox.headless_without_selector("user", 8888).await?;
    sandbox.register("user", json!({})).await?;
    let stays = sandbox.vm("user", address(9000), None).await?;
    let dies = sandbox.vm("user", address(9000), None).await?;
    sandbox.dns_becomes("user", &[stays.address(), dies.address()]).await?;
    dies.part().kill().await?;
    let killed = Instant::now();
    // registry-etcd v0.2.6 grants 60 s; etcd expires leases a little late, never early.
    eventually("the killed server leaves DNS", Duration::from_secs(80), || async {
        let found = bed.dns.srv_addresses(&sandbox.srv_name("user")).await?;
        ensure!(found == BTreeSet::from([stays.address()]), "{found:?}");
        Ok(())
    })
    .await?;
    ensure!(killed.elapsed() > Duration::from_secs(35), "not before its lease ended: {:?}", killed.elapsed());
    sandbox.nothing_foreign_was_touched().await
}
