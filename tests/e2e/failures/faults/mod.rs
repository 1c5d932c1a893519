//! Faults of a real etcd: nothing is lost or deleted, status shows a lasting fault, and sync goes on by itself. A
//! restart is in `outages`, an empty data directory in `guard`.

mod credentials;
mod restores;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use twinspan_testbed::{Etcd, Link, TwinspanOptions, eventually, holds, next_v4};

use crate::harness::{SOON, Sandbox, Suite, TWINSPAN, stories};

stories![
    frozen_past_every_timeout,
    compacted_while_disconnected,
    restored_to_an_older_revision,
    restores::a_snapshot_with_a_bumped_revision,
    restores::a_new_cluster_of_a_member_that_lagged,
    restores::an_emptied_volume_with_more_writes,
    restores::emptied_between_two_runs,
    restores::bumped_between_two_runs,
    credentials::the_password_changes,
    credentials::tokens_expire,
    credentials::certificates_expire_and_are_rotated,
    a_member_of_three_is_killed_and_frozen,
    an_endpoints_name_leads_elsewhere,
    our_lease_is_revoked,
    the_quota_is_used_up;
    long: restores::bumped_between_two_runs_of_one_leader,
];

/// A service with one exported pod and three imported servers.
struct Scene<'a> {
    sandbox: Sandbox<'a>,
    pod: SocketAddr,
    vms: Vec<SocketAddr>,
}

impl<'a> Scene<'a> {
    async fn set(sandbox: Sandbox<'a>) -> Result<Scene<'a>> {
        sandbox.headless("echo").await?;
        sandbox.register("echo", json!({})).await?;
        let mut scene = Self { sandbox, pod: SocketAddr::from((next_v4(), 80)), vms: Vec::new() };
        scene.pod = scene.add_pod("pod").await?;
        for _ in 0..3 {
            scene.add_vm().await?;
        }
        scene.synced().await?;
        Ok(scene)
    }

    async fn add_pod(&self, name: &str) -> Result<SocketAddr> {
        let address = SocketAddr::from((next_v4(), 80));
        let labels = [("app".to_owned(), "echo".to_owned())].into();
        self.sandbox.pods.run(name, &labels, &[address.ip()]).await?;
        self.sandbox.pods.set_ready(name, true).await?;
        Ok(address)
    }

    async fn add_vm(&mut self) -> Result<SocketAddr> {
        let vm = SocketAddr::from((next_v4(), 9000));
        self.sandbox.put("echo", vm).await?;
        self.vms.push(vm);
        Ok(vm)
    }

    async fn synced(&self) -> Result<()> {
        self.sandbox.imports_become("echo", &self.vms).await?;
        self.sandbox.records_become("echo", &[&self.vms[..], &[self.pod]].concat()).await?;
        self.sandbox.condition("echo", "Ready", "True", "Synced").await?;
        Ok(())
    }

    /// Value, `mod_revision` and lease of the pod's record.
    async fn own_record(&self) -> Result<(String, i64, i64)> {
        let key = self.sandbox.key("echo", self.pod);
        self.sandbox.records("echo").await?.remove(&key).context("the own record is not there")
    }

    async fn nothing_is_lost(&self, throughout: Duration) -> Result<()> {
        let expected: BTreeSet<SocketAddr> = self.vms.iter().copied().collect();
        holds("the imported endpoints", throughout, || async {
            let found = self.sandbox.imported("echo").await?;
            ensure!(found == expected, "imported {found:?}, want {expected:?}");
            Ok(found)
        })
        .await
    }

    /// Both directions go on.
    async fn goes_on(&mut self) -> Result<()> {
        self.sandbox.pods.set_ready("pod", false).await?;
        self.sandbox.records_become("echo", &self.vms).await?;
        self.sandbox.pods.set_ready("pod", true).await?;
        self.add_vm().await?;
        self.synced().await
    }
}

async fn frozen_past_every_timeout(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let registry = bed.start_registry("registry-frozen").await?;
    let mut scene = Scene::set(Sandbox::with_registry(bed, "frozen", &registry).await?).await?;
    registry.part().freeze()?;
    let since = Instant::now();
    // The connections stay open, and no error is reported.
    eventually("the silence is noticed", Duration::from_secs(60), || async {
        let object = scene.sandbox.registries().get(&scene.sandbox.name).await?;
        let conditions = object.status.unwrap_or_default().conditions;
        let connected = conditions.iter().find(|c| c.type_ == "Connected").context("the condition")?;
        ensure!((connected.status.as_str(), connected.reason.as_str()) == ("False", "Unreachable"), "{connected:?}");
        Ok(())
    })
    .await?;
    scene.sandbox.condition("echo", "Ready", "False", "RegistryUnavailable").await?;
    scene.nothing_is_lost(Duration::from_secs(45).saturating_sub(since.elapsed())).await?;
    registry.part().thaw()?;
    scene.sandbox.registry_condition("Ready", "True", "Connected").await?;
    scene.synced().await?;
    scene.goes_on().await?;
    scene.sandbox.nothing_foreign_was_touched().await
}

async fn compacted_while_disconnected(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let registry = bed.start_registry("registry-compacted").await?;
    let beyond: SocketAddr = registry.endpoint().trim_start_matches("http://").parse()?;
    let link = Link::start(SocketAddr::from((next_v4(), 2379)), beyond).await?;
    let sandbox = Sandbox::without_registry_object(bed, "compacted", &registry).await?;
    sandbox.create_registry(json!({"etcd": {"endpoints": [format!("http://{}", link.address())]}})).await?;
    let mut scene = Scene::set(sandbox).await?;
    let before = scene.own_record().await?;
    link.cut();
    scene.sandbox.registry_condition("Connected", "False", "Unreachable").await?;

    // One server leaves and another one comes; etcd compacts the history of both.
    let left = scene.vms.remove(0);
    registry.delete(&scene.sandbox.key("echo", left)).await?;
    scene.add_vm().await?;
    registry.compact().await?;
    let imported = scene.sandbox.imported("echo").await?;
    ensure!(imported.contains(&left) && imported.len() == 3, "nobody could see that: {imported:?}");
    link.mend();
    scene.synced().await?;
    ensure!(scene.own_record().await? == before, "what did not change was written");
    scene.goes_on().await?;
    scene.sandbox.nothing_foreign_was_touched().await
}

/// A restore lacks the newest records: ours are put back, imported endpoints stay until the guard releases them.
async fn restored_to_an_older_revision(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let registry = bed.start_registry("registry-restored").await?;
    let mut scene = Scene::set(Sandbox::with_registry(bed, "restored", &registry).await?).await?;
    registry.part().kill().await?;
    registry.save()?;
    registry.start_again().await?;
    let newer = scene.add_vm().await?;
    scene.synced().await?;
    let new_pod = scene.add_pod("new-pod").await?;
    let everything = [&scene.vms[..], &[scene.pod, new_pod]].concat();
    scene.sandbox.records_become("echo", &everything).await?;

    registry.part().kill().await?;
    registry.start_restored().await?;
    let older = [&scene.vms[..3], &[scene.pod, new_pod]].concat();
    scene.sandbox.records_become("echo", &older).await?;
    scene.sandbox.condition("echo", "DeletionsHeld", "True", "Held").await?;
    eventually("it is told, and both own records are counted", SOON, || async {
        let object = scene.sandbox.registry_condition("Synced", "True", "RolledBack").await?;
        let records = object.status.and_then(|status| status.records);
        ensure!(records.as_ref().is_some_and(|records| records.own == 2), "{records:?}");
        Ok(())
    })
    .await?;
    scene.nothing_is_lost(Duration::from_secs(5)).await?;
    // The server registers again.
    scene.sandbox.put("echo", newer).await?;
    scene.sandbox.condition("echo", "DeletionsHeld", "False", "NothingHeld").await?;
    scene.sandbox.pods.remove("new-pod").await?;
    scene.goes_on().await?;
    scene.sandbox.nothing_foreign_was_touched().await
}

/// Each member is killed and frozen in turn, so the one that the operator is connected to is among them.
async fn a_member_of_three_is_killed_and_frozen(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let three = bed.start_three("registry-three").await?;
    let endpoints: Vec<&str> = three.iter().map(Etcd::endpoint).collect();
    let sandbox = Sandbox::without_registry_object(bed, "members", &three[0]).await?;
    sandbox.create_registry(json!({"etcd": {"endpoints": endpoints}})).await?;
    let mut scene = Scene::set(sandbox).await?;
    let before = scene.own_record().await?;
    for (n, member) in three.iter().enumerate() {
        let another = &three[(n + 1) % 3];
        scene.sandbox.look_through(another);
        for kill in [true, false] {
            if kill {
                member.part().kill().await?;
            } else {
                member.part().freeze()?;
            }
            // The other members may have to elect a leader first, and a frozen member is detected only after a timeout.
            let pod = scene.add_pod("second").await?;
            let all: BTreeSet<String> = scene.vms.iter().chain([&scene.pod, &pod]).map(ToString::to_string).collect();
            eventually("sync goes on with the others", Duration::from_secs(60), || async {
                let found = scene.sandbox.registered_addresses("echo").await?;
                ensure!(found == all, "{found:?}");
                Ok(())
            })
            .await?;
            if kill {
                member.start_again().await?;
            } else {
                member.part().thaw()?;
            }
            scene.sandbox.pods.remove("second").await?;
            eventually("they have a leader", SOON, || another.put("anything", "")).await?;
            scene.add_vm().await?;
            scene.synced().await?;
        }
    }
    scene.sandbox.look_through(&three[0]);
    ensure!(scene.own_record().await? == before, "what did not change was written");
    scene.sandbox.nothing_foreign_was_touched().await
}

/// The name of the only endpoint changes its address to another member, as behind a Service or after a move.
async fn an_endpoints_name_leads_elsewhere(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.own_bed().await?;
    let three = bed.start_three("registry-renamed").await?;
    let hosts = bed.dir().join("hosts");
    let leads_to = |member: &Etcd| {
        let (ip, port) = member.endpoint().trim_start_matches("http://").split_once(':').context("no port")?;
        // The file is mounted, so it is written in place.
        std::fs::write(&hosts, format!("{ip} etcd.test\n"))?;
        Ok::<_, anyhow::Error>(format!("http://etcd.test:{port}"))
    };
    let endpoint = leads_to(&three[0])?;
    let options = TwinspanOptions { hosts: Some(hosts.clone()), ..TwinspanOptions::default() };
    let twinspan = bed.start_twinspan(TWINSPAN, &options)?;
    twinspan.ready().await?;
    let sandbox = Sandbox::without_registry_object(bed, "renamed", &three[0]).await?;
    sandbox.create_registry(json!({"etcd": {"endpoints": [endpoint]}})).await?;
    let mut scene = Scene::set(sandbox).await?;
    scene.sandbox.look_through(&three[1]);
    let before = scene.own_record().await?;

    leads_to(&three[1])?;
    three[0].part().kill().await?;
    eventually("the others have a leader", SOON, || three[1].put("anything", "")).await?;
    scene.add_vm().await?;
    scene.synced().await?;
    ensure!(scene.own_record().await? == before, "what did not change was written");
    scene.goes_on().await?;
    std::fs::remove_file(hosts)?;
    scene.sandbox.nothing_foreign_was_touched().await
}

async fn our_lease_is_revoked(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let registry = bed.start_registry("registry-revoked").await?;
    let mut scene = Scene::set(Sandbox::with_registry(bed, "revoked", &registry).await?).await?;
    for _ in 0..3 {
        let (value, revision, lease) = scene.own_record().await?;
        registry.revoke(lease).await?;
        eventually("the record is back", SOON, || async {
            let (again, newer, lease) = scene.own_record().await?;
            ensure!(again == value && newer > revision && lease != 0, "{again} at {newer} on {lease}");
            Ok(())
        })
        .await?;
        scene.synced().await?;
    }
    scene.goes_on().await?;
    scene.sandbox.nothing_foreign_was_touched().await
}

async fn the_quota_is_used_up(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let registry = bed.start_registry("registry-quota").await?;
    let mut scene = Scene::set(Sandbox::with_registry(bed, "quota", &registry).await?).await?;
    let before = scene.own_record().await?;
    registry.no_space(true).await?;
    let pod = scene.add_pod("second").await?;
    let object = scene.sandbox.condition("echo", "Exported", "False", "NoSpace").await?;
    let conditions = object.status.unwrap_or_default().conditions;
    let exported = conditions.iter().find(|c| c.type_ == "Exported").context("the condition")?;
    ensure!(exported.message.contains("defrag"), "it says what to do: {}", exported.message);
    // The watch works and writes do not: the status of the registry says so too.
    let object = scene.sandbox.registry_condition("Ready", "False", "NoSpace").await?;
    let connected = object.status.unwrap_or_default().conditions.into_iter().find(|c| c.type_ == "Connected");
    ensure!(connected.is_some_and(|connected| connected.status == "True"));
    // Reading and deleting still work.
    let left = scene.vms.remove(0);
    registry.delete(&scene.sandbox.key("echo", left)).await?;
    scene.sandbox.imports_become("echo", &scene.vms).await?;
    ensure!(scene.own_record().await? == before);
    // A deletion does not wait behind a put that cannot succeed.
    scene.sandbox.pods.set_ready("pod", false).await?;
    scene.sandbox.records_become("echo", &scene.vms).await?;
    scene.sandbox.pods.set_ready("pod", true).await?;
    registry.no_space(false).await?;
    let all: BTreeSet<String> = scene.vms.iter().chain([&scene.pod, &pod]).map(ToString::to_string).collect();
    eventually("what waited is written", Duration::from_secs(60), || async {
        let found = scene.sandbox.registered_addresses("echo").await?;
        ensure!(found == all, "{found:?}");
        Ok(())
    })
    .await?;
    scene.sandbox.registry_condition("Ready", "True", "Connected").await?;
    scene.sandbox.pods.remove("second").await?;
    scene.goes_on().await?;
    scene.sandbox.nothing_foreign_was_touched().await
}
