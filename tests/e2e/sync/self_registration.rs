//! Self-registration: a pod that also registers itself is one instance on both sides, before, during and after its
//! registration.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::json;
use twinspan_testbed::{Framework, eventually, holds, next_v4, resolve};

use crate::harness::{SOON, Sandbox, Suite, record, stories};

stories![seen_once, a_pod_that_lost_its_lease_is_exported_at_once, a_dead_pods_record_does_not_bring_it_back];

async fn seen_once(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let sandbox = Sandbox::new(bed, "selfreg").await?;
    sandbox.headless_on("echo", 8888).await?;
    sandbox.register("echo", json!({})).await?;
    let address = SocketAddr::from((next_v4(), 8888));
    let labels = BTreeMap::from([("app".to_owned(), "echo".to_owned())]);
    sandbox.pods.run("pod", &labels, &[address.ip()]).await?;
    sandbox.pods.set_ready("pod", true).await?;

    // Before its registration: we export the pod.
    sandbox.records_become("echo", &[address]).await?;
    let once = || async {
        let seen = resolve(
            Framework::Kitex,
            sandbox.registry.endpoint(),
            "echo",
            Some(&sandbox.name),
            &["twinspan.dev/owner"],
        )
        .await?;
        ensure!(seen.len() == 1 && seen[0].address == address.to_string(), "Kitex sees {seen:?}");
        ensure!(sandbox.imported("echo").await?.is_empty(), "imported although it is a pod of the Service");
        let dns = bed.dns.srv(&sandbox.srv_name("echo")).await?;
        ensure!(dns.len() == 1, "DNS sees {dns:?}");
        Ok(seen[0].tags.contains_key("twinspan.dev/owner"))
    };
    let ours = || async {
        ensure!(once().await?, "the record is not ours");
        Ok(())
    };
    eventually("the record is ours", SOON, ours).await?;

    // During its registration: the pod's own server takes the record over, at the same key.
    let server = sandbox.vm("echo", address, None).await?;
    eventually("the record is the server's own", SOON, || async {
        ensure!(!once().await?, "still ours");
        Ok(())
    })
    .await?;
    holds("it stays the server's own, seen once", Duration::from_secs(3), once).await?;

    // A second key for the same address does not make a second instance.
    let copy = sandbox.key("echo", "some-pod-name");
    bed.registry.put(&copy, &record(address).to_string()).await?;
    server.part().stop().await?;
    holds("the copy is enough", Duration::from_secs(2), || async { sandbox.registered_addresses("echo").await })
        .await?;

    // After its registration: the server deregistered while its pod stays ready. After 10 s without a record we export
    // the pod again.
    let left = Instant::now();
    bed.registry.delete(&copy).await?;
    let mut told = false;
    loop {
        let records = sandbox.registered_addresses("echo").await?;
        told |= sandbox.counts("echo").await?.held == 1;
        if left.elapsed() > Duration::from_secs(9) {
            break;
        }
        ensure!(records.is_empty(), "{records:?} after {:?}", left.elapsed());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    ensure!(told, "status does not say that it waits");
    sandbox.records_become("echo", &[address]).await?;
    eventually("the record is ours again", SOON, ours).await?;
    sandbox.nothing_foreign_was_touched().await
}

/// The server gave up after an outage and will never register again; the cluster knows that the pod is ready.
async fn a_pod_that_lost_its_lease_is_exported_at_once(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let sandbox = Sandbox::new(bed, "lostlease").await?;
    sandbox.selector_service("echo", 80).await?;
    let address = SocketAddr::from((next_v4(), 80));
    let labels = BTreeMap::from([("app".to_owned(), "echo".to_owned())]);
    sandbox.pods.run("pod", &labels, &[address.ip()]).await?;
    sandbox.pods.set_ready("pod", true).await?;
    let lease = sandbox.put("echo", address).await?;
    sandbox.register("echo", json!({})).await?;
    eventually("its own record is the one", SOON, || async {
        let counts = sandbox.counts("echo").await?;
        ensure!((counts.registry, counts.exported, counts.cluster) == (1, 0, 1), "{counts:?}");
        Ok(())
    })
    .await?;
    bed.registry.revoke(lease).await?;
    let lost = Instant::now();
    sandbox.records_become("echo", &[address]).await?;
    ensure!(lost.elapsed() < Duration::from_secs(10), "one that deregisters is waited for: {:?}", lost.elapsed());
    let records = sandbox.records("echo").await?;
    ensure!(records.values().all(|(value, ..)| value.contains("twinspan.dev/owner")), "{records:?}");
    sandbox.nothing_foreign_was_touched().await
}

async fn a_dead_pods_record_does_not_bring_it_back(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let sandbox = Sandbox::new(bed, "deadpod").await?;
    sandbox.headless_on("echo", 8888).await?;
    sandbox.register("echo", json!({})).await?;
    let ip = IpAddr::V4(next_v4());
    let address = SocketAddr::new(ip, 8888);
    let labels = BTreeMap::from([("app".to_owned(), "echo".to_owned())]);
    sandbox.pods.run("pod", &labels, &[ip]).await?;
    sandbox.pods.set_ready("pod", true).await?;
    sandbox.records_become("echo", &[address]).await?;

    // The pod's own record, on a lease that outlives the pod.
    sandbox.put("echo", address).await?;
    eventually("the record is foreign to us", SOON, || async {
        let counts = sandbox.registered().get("echo").await?.status.unwrap_or_default().instances;
        ensure!((counts.registry, counts.exported) == (1, 0), "{counts:?}");
        Ok(())
    })
    .await?;
    sandbox.pods.remove("pod").await?;
    let object = eventually("the dead pod is counted as skipped", SOON, || async {
        let object = sandbox.registered().get("echo").await?;
        let status = object.status.clone().unwrap_or_default();
        ensure!(status.differences.iter().any(|s| s.reason == "FormerEndpoint"), "{status:?}");
        Ok(object)
    })
    .await?;
    ensure!(object.status.is_some_and(|s| s.instances.imported == 0));
    holds("it does not come back", Duration::from_secs(2), || async { sandbox.imported("echo").await }).await?;
    ensure!(sandbox.imported("echo").await?.is_empty());

    // A new registration of the address is an instance again.
    sandbox.put("echo", address).await?;
    sandbox.imports_become("echo", &[address]).await?;
    sandbox.nothing_foreign_was_touched().await
}
