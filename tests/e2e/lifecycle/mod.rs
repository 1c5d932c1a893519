//! The life of objects: what is changed or deleted leaves nothing behind.

mod deletion_orders;
mod replicas;

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Result, ensure};
use kube::api::DeleteParams;
use serde_json::json;
use twinspan_testbed::{Framework, eventually, next_v4, resolve};

use crate::harness::{Corner, SOON, Suite, stories};

stories![
    a_registered_service,
    a_service_registry,
    what_we_write_is_what_kitex_reads;
    modules: deletion_orders, replicas,
];

async fn a_registered_service(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let corner = Corner::new(bed, "life").await?;
    corner.selector_service("echo", 80).await?;
    let pod = corner.pod("echo", "pod", 80).await?;
    corner.pods.set_ready("pod", true).await?;
    corner.register("echo", json!({})).await?;
    let vm = corner.vm("echo", SocketAddr::from((next_v4(), 9000)), None).await?;
    corner.imports_become("echo", &[vm.address()]).await?;
    corner.records_become(&bed.registry, "echo", &[pod.address(), vm.address()]).await?;

    // Another name: the old one is cleaned.
    corner.patch("echo", json!({"registryName": "other"})).await?;
    corner.records_become(&bed.registry, "other", &[pod.address()]).await?;
    corner.records_become(&bed.registry, "echo", &[vm.address()]).await?;
    corner.imports_become("echo", &[]).await?;
    corner.patch("echo", json!({"registryName": "echo"})).await?;
    corner.imports_become("echo", &[vm.address()]).await?;

    // One direction, then the other.
    corner.patch("echo", json!({"direction": "Export"})).await?;
    corner.imports_become("echo", &[]).await?;
    corner.records_become(&bed.registry, "echo", &[pod.address(), vm.address()]).await?;
    corner.patch("echo", json!({"direction": "Import"})).await?;
    corner.records_become(&bed.registry, "echo", &[vm.address()]).await?;
    corner.imports_become("echo", &[vm.address()]).await?;
    corner.patch("echo", json!({"direction": "Both"})).await?;
    corner.records_become(&bed.registry, "echo", &[pod.address(), vm.address()]).await?;

    // The Service goes: there is nothing to export, and nothing to import into.
    corner.services().delete("echo", &DeleteParams::default()).await?;
    corner.condition("echo", "Accepted", "False", "ServiceMissing").await?;
    corner.imports_become("echo", &[]).await?;
    corner.records_become(&bed.registry, "echo", &[vm.address()]).await?;
    corner.selector_service("echo", 80).await?;
    corner.records_become(&bed.registry, "echo", &[pod.address(), vm.address()]).await?;
    corner.imports_become("echo", &[vm.address()]).await?;

    corner.unregister("echo").await?;
    corner.records_become(&bed.registry, "echo", &[vm.address()]).await?;
    corner.imports_become("echo", &[]).await?;
    corner.nothing_foreign_was_touched(&bed.registry).await
}

async fn a_service_registry(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let corner = Corner::new(bed, "reglife").await?;
    corner.selector_service("echo", 80).await?;
    let pod = corner.pod("echo", "pod", 80).await?;
    corner.pods.set_ready("pod", true).await?;
    corner.register("echo", json!({})).await?;
    let vm = corner.vm("echo", SocketAddr::from((next_v4(), 9000)), None).await?;
    corner.imports_become("echo", &[vm.address()]).await?;
    corner.records_become(&bed.registry, "echo", &[pod.address(), vm.address()]).await?;
    let object = corner.registry_condition("Synced", "True", "Synced").await?;
    let status = object.status.unwrap_or_default();
    ensure!(
        status.cluster_id.as_deref().is_some_and(|id| id.len() == 36),
        "the UID of kube-system: {:?}",
        status.cluster_id
    );
    ensure!(status.prefix.as_deref() == Some(corner.name.as_str()));
    ensure!(status.etcd.is_some_and(|etcd| etcd.version == "3.7.3" && etcd.revision_at_last_session > 0));
    eventually("its records are counted", SOON, || async {
        let records = corner.registries().get(&corner.name).await?.status.and_then(|s| s.records).unwrap_or_default();
        // One of the bystanders decodes and one does not.
        ensure!((records.own, records.foreign, records.undecodable) == (1, 2, 1), "{records:?}");
        Ok(())
    })
    .await?;

    corner.registries().delete(&corner.name, &DeleteParams::default()).await?;
    corner.condition("echo", "Accepted", "False", "RegistryNotFound").await?;
    corner.records_become(&bed.registry, "echo", &[vm.address()]).await?;
    corner.imports_become("echo", &[]).await?;
    corner.create_registry(json!({})).await?;
    corner.records_become(&bed.registry, "echo", &[pod.address(), vm.address()]).await?;
    corner.imports_become("echo", &[vm.address()]).await?;
    corner.nothing_foreign_was_touched(&bed.registry).await
}

async fn what_we_write_is_what_kitex_reads(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let corner = Corner::new(bed, "kitexreads").await?;
    corner
        .service(
            "echo",
            json!({"selector": {"app": "echo"}, "ports": [{"name": "rpc", "port": 80}], "ipFamilyPolicy": "RequireDualStack", "clusterIP": "None"}),
        )
        .await?;
    let (v4, v6) = (next_v4(), twinspan_testbed::next_v6()?);
    let labels = [("app".to_owned(), "echo".to_owned())].into();
    corner.pods.run("pod", &labels, &[v4.into(), v6.into()]).await?;
    corner.pods.set_ready("pod", true).await?;
    let odd = "<x>&y \"q\" \\ żółć 雪 😀 \u{2028}";
    corner
        .register(
            "echo",
            json!({"export": {"weight": 25, "tags": {"lane": "blue", "odd": odd}, "ipFamilyPolicy": "All"}}),
        )
        .await?;
    let addresses = [SocketAddr::from((v4, 80)), SocketAddr::from((v6, 80))];
    corner.records_become(&bed.registry, "echo", &addresses).await?;
    let seen =
        resolve(Framework::Kitex, &corner.etcd, "echo", Some(&corner.name), &["lane", "odd", "twinspan.dev/owner"])
            .await?;
    ensure!(seen.len() == 2, "{seen:?}");
    for instance in &seen {
        ensure!(addresses.iter().any(|a| a.to_string() == instance.address), "{instance:?}");
        ensure!(instance.network == "tcp" && instance.weight == 25, "{instance:?}");
        ensure!(instance.tags["lane"] == "blue" && instance.tags["odd"] == odd, "{instance:?}");
        ensure!(instance.tags["twinspan.dev/owner"].ends_with(&format!("/{}/echo", corner.name)), "{instance:?}");
    }
    // Only the primary family unless asked for all, and a changed weight is written in place.
    corner.patch("echo", json!({"export": {"weight": 7, "ipFamilyPolicy": "Primary"}})).await?;
    corner.records_become(&bed.registry, "echo", &addresses[..1]).await?;
    eventually("the new weight", SOON, || async {
        let seen = resolve(Framework::Kitex, &corner.etcd, "echo", Some(&corner.name), &[]).await?;
        ensure!(seen.len() == 1 && seen[0].weight == 7, "{seen:?}");
        Ok(())
    })
    .await?;
    corner.nothing_foreign_was_touched(&bed.registry).await
}
