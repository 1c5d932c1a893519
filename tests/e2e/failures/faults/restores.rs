//! etcd comes back as an older or another one while its cluster ID and its revision say nothing: what it lacks is held
//! where it is not ours, put back where it is, and no record of a pod that ended stays.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;
use tokio::net::TcpListener;
use twinspan_testbed::{Etcd, Link, TwinspanOptions, eventually, next_v4};

use super::Scene;
use crate::harness::{LEASE_TTL, SOON, Sandbox, Suite, TWINSPAN};

/// The change of etcd's files that nobody announces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Restore {
    /// A snapshot with a higher revision than any before.
    Bumped,
    /// A member that lacked the last entries is a cluster of its own.
    NewCluster,
    /// Nothing is left, and others have written more than was known.
    Emptied,
}

pub async fn a_snapshot_with_a_bumped_revision(suite: Arc<Suite>) -> Result<()> {
    while_running(suite, "bumped", Restore::Bumped).await
}

pub async fn a_new_cluster_of_a_member_that_lagged(suite: Arc<Suite>) -> Result<()> {
    while_running(suite, "new-cluster", Restore::NewCluster).await
}

pub async fn an_emptied_volume_with_more_writes(suite: Arc<Suite>) -> Result<()> {
    while_running(suite, "refilled", Restore::Emptied).await
}

/// Changes the files of an etcd that was killed, and lets others write past the known revision.
async fn restore(registry: &Etcd, how: Restore, known: i64) -> Result<()> {
    match how {
        Restore::Bumped => registry.start_bumped().await?,
        Restore::NewCluster => registry.start_as_new_cluster().await?,
        Restore::Emptied => registry.start_empty().await?,
    }
    registry.write_past(known).await
}

async fn while_running(suite: Arc<Suite>, name: &str, how: Restore) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let registry = bed.start_registry(&format!("registry-{name}")).await?;
    let beyond: SocketAddr = registry.endpoint().trim_start_matches("http://").parse()?;
    let link = Link::start(SocketAddr::from((next_v4(), 2379)), beyond).await?;
    let sandbox = Sandbox::without_registry_object(bed, name, &registry).await?;
    sandbox.create_registry(json!({"etcd": {"endpoints": [format!("http://{}", link.address())]}})).await?;
    let mut scene = Scene::set(sandbox).await?;
    take_snapshot(&registry).await?;

    // Written since: the record of the pod anew, another pod, and another server.
    scene.goes_on().await?;
    let new_pod = scene.add_pod("new-pod").await?;
    let everything = [&scene.vms[..], &[scene.pod, new_pod]].concat();
    scene.sandbox.records_become("echo", &everything).await?;
    let known = registry.revision().await?;
    link.cut();
    scene.sandbox.registry_condition("Connected", "False", "Unreachable").await?;
    registry.part().kill().await?;
    restore(&registry, how, known).await?;
    link.mend();

    scene.sandbox.registry_condition("Synced", "True", "RolledBack").await?;
    scene.sandbox.condition("echo", "DeletionsHeld", "True", "Held").await?;
    let left = if how == Restore::Emptied { 0 } else { 3 };
    scene.sandbox.records_become("echo", &[&scene.vms[..left], &[scene.pod, new_pod]].concat()).await?;
    scene.nothing_is_lost(Duration::from_secs(5)).await?;
    // Pods that end leave no record, whatever revision it has on this line.
    scene.sandbox.pods.remove("new-pod").await?;
    scene.sandbox.pods.set_ready("pod", false).await?;
    scene.sandbox.records_become("echo", &scene.vms[..left]).await?;
    scene.sandbox.pods.set_ready("pod", true).await?;
    // The servers register again.
    for vm in &scene.vms[left..] {
        scene.sandbox.put("echo", *vm).await?;
    }
    scene.sandbox.condition("echo", "DeletionsHeld", "False", "NothingHeld").await?;
    scene.synced().await?;
    scene.goes_on().await?;
    if how == Restore::Emptied {
        // The records of bystanders went with the volume.
        return Ok(());
    }
    scene.sandbox.nothing_foreign_was_touched().await
}

/// The incarnation in the status tells the next process.
pub async fn emptied_between_two_runs(suite: Arc<Suite>) -> Result<()> {
    let bed = suite.own_bed().await?;
    let first = bed.start_twinspan(TWINSPAN, &TwinspanOptions::default())?;
    first.ready().await?;
    let mut scene = Scene::set(Sandbox::new(&bed, "emptied").await?).await?;
    eventually("the incarnation is in the status", SOON, || async {
        let status = scene.sandbox.registries().get(&scene.sandbox.name).await?.status.unwrap_or_default();
        ensure!(status.etcd.is_some_and(|etcd| etcd.incarnation.is_some() && etcd.epoch.is_some()));
        Ok(())
    })
    .await?;
    first.part().stop().await?;
    let known = bed.registry.revision().await?;
    bed.registry.part().kill().await?;
    restore(&bed.registry, Restore::Emptied, known).await?;

    let second = bed.start_twinspan(TWINSPAN, &TwinspanOptions::default())?;
    second.ready().await?;
    scene.sandbox.registry_condition("Synced", "True", "RolledBack").await?;
    scene.sandbox.condition("echo", "DeletionsHeld", "True", "Held").await?;
    scene.sandbox.records_become("echo", &[scene.pod]).await?;
    scene.nothing_is_lost(Duration::from_secs(5)).await?;
    for vm in scene.vms.clone() {
        scene.sandbox.put("echo", vm).await?;
    }
    scene.sandbox.condition("echo", "DeletionsHeld", "False", "NothingHeld").await?;
    scene.goes_on().await
}

/// The epoch in the status tells of a snapshot that was taken before the last change of leader.
pub async fn bumped_between_two_runs(suite: Arc<Suite>) -> Result<()> {
    let bed = suite.own_bed().await?;
    let first = bed.start_twinspan(TWINSPAN, &TwinspanOptions::default())?;
    first.ready().await?;
    let mut scene = Scene::set(Sandbox::new(&bed, "told").await?).await?;
    first.part().stop().await?;
    take_snapshot(&bed.registry).await?;
    let second = bed.start_twinspan(TWINSPAN, &TwinspanOptions::default())?;
    second.ready().await?;
    let newer = scene.add_vm().await?;
    scene.synced().await?;
    eventually("the second epoch is in the status", SOON, || async {
        let status = scene.sandbox.registries().get(&scene.sandbox.name).await?.status.unwrap_or_default();
        let epoch = status.etcd.and_then(|etcd| etcd.epoch);
        ensure!(epoch == Some(2), "{epoch:?}");
        Ok(())
    })
    .await?;
    second.part().stop().await?;
    bed.registry.part().kill().await?;
    bed.registry.start_bumped().await?;

    let third = bed.start_twinspan(TWINSPAN, &TwinspanOptions::default())?;
    third.ready().await?;
    scene.sandbox.registry_condition("Synced", "True", "RolledBack").await?;
    scene.sandbox.condition("echo", "DeletionsHeld", "True", "Held").await?;
    scene.nothing_is_lost(Duration::from_secs(5)).await?;
    scene.sandbox.put("echo", newer).await?;
    scene.sandbox.condition("echo", "DeletionsHeld", "False", "NothingHeld").await?;
    scene.goes_on().await
}

/// Nothing tells of a snapshot of the same leader: an endpoint without a record is probed and stays while its server
/// lives, and the record of a pod that ended goes.
pub async fn bumped_between_two_runs_of_one_leader(suite: Arc<Suite>) -> Result<()> {
    let bed = suite.own_bed().await?;
    let first = bed.start_twinspan(TWINSPAN, &TwinspanOptions::default())?;
    first.ready().await?;
    let mut scene = Scene::set(Sandbox::new(&bed, "untold").await?).await?;
    let ended = scene.add_pod("ended").await?;
    scene.sandbox.records_become("echo", &[&scene.vms[..], &[scene.pod, ended]].concat()).await?;
    take_snapshot(&bed.registry).await?;
    let newer = scene.add_vm().await?;
    let listener = TcpListener::bind(newer).await?;
    let server = tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((connection, _)) = listener.accept().await {
            open.push(connection);
        }
    });
    scene.sandbox.pods.remove("ended").await?;
    scene.synced().await?;
    first.part().stop().await?;
    bed.registry.part().kill().await?;
    bed.registry.start_bumped().await?;

    let second = bed.start_twinspan(TWINSPAN, &TwinspanOptions::default())?;
    second.ready().await?;
    scene.nothing_is_lost(Duration::from_secs(15)).await?;
    eventually("the server without a record is counted as lost", SOON, || async {
        let lost = scene.sandbox.counts("echo").await?.lost;
        ensure!(lost == 1, "{lost}");
        Ok(())
    })
    .await?;
    // The snapshot is older than the end of its leader, whose epoch nothing explains: for one TTL only what was seen to
    // end goes.
    let left = [&scene.vms[..3], &[scene.pod]].concat();
    scene.sandbox.records_become_within("echo", &left, LEASE_TTL + SOON).await?;
    scene.sandbox.put("echo", newer).await?;
    scene.goes_on().await?;
    server.abort();
    Ok(())
}

/// Saves the data that [`Etcd::start_bumped`] restores. etcd runs again afterwards.
async fn take_snapshot(registry: &Etcd) -> Result<()> {
    // An etcd that is killed may leave its newest writes in the log alone, where no snapshot has them.
    registry.part().stop().await?;
    registry.save()?;
    registry.start_again().await
}
