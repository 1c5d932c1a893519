//! The lifecycle of objects: a change or a deletion leaves nothing behind.

mod deletion_orders;
mod dry_run;
mod moves;
mod replicas;
mod start_up;
mod upgrade;

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Result, ensure};
use kube::api::DeleteParams;
use serde_json::json;
use twinspan_testbed::{Framework, eventually, next_v4, resolve};

use crate::harness::{SOON, Sandbox, Suite, stories};

stories![
    a_registered_service,
    a_service_registry,
    what_we_write_is_what_kitex_reads;
    modules: deletion_orders, dry_run, moves, replicas, start_up, upgrade,
];

async fn a_registered_service(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let sandbox = Sandbox::new(bed, "life").await?;
    sandbox.selector_service("echo", 80).await?;
    let pod = sandbox.pod("echo", "pod", 80).await?;
    sandbox.pods.set_ready("pod", true).await?;
    sandbox.register("echo", json!({})).await?;
    let vm = sandbox.vm("echo", SocketAddr::from((next_v4(), 9000)), None).await?;
    sandbox.imports_become("echo", &[vm.address()]).await?;
    sandbox.records_become("echo", &[pod.address(), vm.address()]).await?;

    // Another name: the records under the old name are deleted.
    sandbox.patch("echo", json!({"registryName": "other"})).await?;
    sandbox.records_become("other", &[pod.address()]).await?;
    sandbox.records_become("echo", &[vm.address()]).await?;
    sandbox.imports_become("echo", &[]).await?;
    sandbox.patch("echo", json!({"registryName": "echo"})).await?;
    sandbox.imports_become("echo", &[vm.address()]).await?;

    // One direction, then the other.
    sandbox.patch("echo", json!({"direction": "Export"})).await?;
    sandbox.imports_become("echo", &[]).await?;
    sandbox.records_become("echo", &[pod.address(), vm.address()]).await?;
    sandbox.patch("echo", json!({"direction": "Import"})).await?;
    sandbox.records_become("echo", &[vm.address()]).await?;
    sandbox.imports_become("echo", &[vm.address()]).await?;
    sandbox.patch("echo", json!({"direction": "Both"})).await?;
    sandbox.records_become("echo", &[pod.address(), vm.address()]).await?;

    // The Service is deleted: there is nothing to export, and nothing to import into.
    sandbox.services().delete("echo", &DeleteParams::default()).await?;
    sandbox.condition("echo", "Accepted", "False", "ServiceMissing").await?;
    sandbox.imports_become("echo", &[]).await?;
    sandbox.records_become("echo", &[vm.address()]).await?;
    sandbox.selector_service("echo", 80).await?;
    sandbox.records_become("echo", &[pod.address(), vm.address()]).await?;
    sandbox.imports_become("echo", &[vm.address()]).await?;

    sandbox.unregister("echo").await?;
    sandbox.records_become("echo", &[vm.address()]).await?;
    sandbox.imports_become("echo", &[]).await?;
    sandbox.nothing_foreign_was_touched().await
}

async fn a_service_registry(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let sandbox = Sandbox::new(bed, "reglife").await?;
    sandbox.selector_service("echo", 80).await?;
    let pod = sandbox.pod("echo", "pod", 80).await?;
    sandbox.pods.set_ready("pod", true).await?;
    sandbox.register("echo", json!({})).await?;
    let vm = sandbox.vm("echo", SocketAddr::from((next_v4(), 9000)), None).await?;
    sandbox.imports_become("echo", &[vm.address()]).await?;
    sandbox.records_become("echo", &[pod.address(), vm.address()]).await?;
    let object = sandbox.registry_condition("Synced", "True", "Synced").await?;
    let status = object.status.unwrap_or_default();
    ensure!(
        status.cluster_id.as_deref().is_some_and(|id| id.len() == 36),
        "the UID of kube-system: {:?}",
        status.cluster_id
    );
    ensure!(status.prefix.as_deref() == Some(sandbox.name.as_str()));
    ensure!(status.etcd.is_some_and(|etcd| etcd.version == "3.7.3" && etcd.revision_at_last_session > 0));
    eventually("its records are counted", SOON, || async {
        let records = sandbox.registries().get(&sandbox.name).await?.status.and_then(|s| s.records).unwrap_or_default();
        // One of the bystanders decodes and one does not.
        ensure!((records.own, records.foreign, records.undecodable) == (1, 2, 1), "{records:?}");
        Ok(())
    })
    .await?;

    sandbox.registries().delete(&sandbox.name, &DeleteParams::default()).await?;
    sandbox.condition("echo", "Accepted", "False", "RegistryNotFound").await?;
    sandbox.records_become("echo", &[vm.address()]).await?;
    sandbox.imports_become("echo", &[]).await?;
    sandbox.create_registry(json!({})).await?;
    sandbox.records_become("echo", &[pod.address(), vm.address()]).await?;
    sandbox.imports_become("echo", &[vm.address()]).await?;
    sandbox.nothing_foreign_was_touched().await
}

async fn what_we_write_is_what_kitex_reads(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let sandbox = Sandbox::new(bed, "kitexreads").await?;
    sandbox
        .service(
            "echo",
            json!({"selector": {"app": "echo"}, "ports": [{"name": "rpc", "port": 80}], "ipFamilyPolicy": "RequireDualStack", "clusterIP": "None"}),
        )
        .await?;
    let (v4, v6) = (next_v4(), twinspan_testbed::next_v6()?);
    let labels = [("app".to_owned(), "echo".to_owned())].into();
    sandbox.pods.run("pod", &labels, &[v4.into(), v6.into()]).await?;
    sandbox.pods.set_ready("pod", true).await?;
    let odd = "<x>&y \"q\" \\ żółć 雪 😀 \u{2028}";
    sandbox
        .register(
            "echo",
            json!({"export": {"weight": 25, "tags": {"lane": "blue", "odd": odd}, "ipFamilyPolicy": "All"}}),
        )
        .await?;
    let addresses = [SocketAddr::from((v4, 80)), SocketAddr::from((v6, 80))];
    sandbox.records_become("echo", &addresses).await?;
    let seen = resolve(
        Framework::Kitex,
        sandbox.registry.endpoint(),
        "echo",
        Some(&sandbox.name),
        &["lane", "odd", "twinspan.dev/owner"],
    )
    .await?;
    ensure!(seen.len() == 2, "{seen:?}");
    for instance in &seen {
        ensure!(addresses.iter().any(|a| a.to_string() == instance.address), "{instance:?}");
        ensure!(instance.network == "tcp" && instance.weight == 25, "{instance:?}");
        ensure!(instance.tags["lane"] == "blue" && instance.tags["odd"] == odd, "{instance:?}");
        ensure!(instance.tags["twinspan.dev/owner"].ends_with(&format!("/{}/echo", sandbox.name)), "{instance:?}");
    }
    // Only the primary family unless the spec asks for all; a changed weight is written in place.
    sandbox.patch("echo", json!({"export": {"weight": 7, "ipFamilyPolicy": "Primary"}})).await?;
    sandbox.records_become("echo", &addresses[..1]).await?;
    eventually("the new weight", SOON, || async {
        let seen = resolve(Framework::Kitex, sandbox.registry.endpoint(), "echo", Some(&sandbox.name), &[]).await?;
        ensure!(seen.len() == 1 && seen[0].weight == 7, "{seen:?}");
        Ok(())
    })
    .await?;
    sandbox.nothing_foreign_was_touched().await
}
