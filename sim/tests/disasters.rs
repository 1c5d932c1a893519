//! Disasters, each by its name: what an on-call engineer meets.
//!
//! In all of them T1 holds, and everything else that the oracles judge: a scene only makes the disaster, and says what
//! has to be true besides.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::sleep;
use twinspan_sim::check::{Violation, rest};
use twinspan_sim::plan::{Op, Size};
use twinspan_sim::run::{begin, equal_within, stage};
use twinspan_sim::world::keys::PREFIX;
use twinspan_sim::world::{NAMESPACE, REGISTRY, World, service_name};

const SIZE: Size = Size { vms: 4, pods: 3, ..Size::SCENE };
/// Time for both sides to be equal again.
const SOON: Duration = Duration::from_secs(100);

/// Plays a scene in a world that has come to rest, then waits until both sides are equal.
fn play<F>(size: Size, spec: Value, scene: impl FnOnce(World) -> F + Send + 'static)
where
    F: Future<Output = Vec<String>> + Send,
{
    let outcome = stage(1, size, spec, std::env::var_os("TRACE").is_some(), move |world| async move {
        let mut violations = begin(&world).await;
        if violations.is_empty() {
            let wrong = scene(world.clone()).await;
            violations.extend(wrong.into_iter().map(|text| Violation::new("scene", world.now(), text)));
            violations.extend(equal_within(&world, SOON, "at the end").await);
        }
        violations
    });
    let last = outcome.lines.len().saturating_sub(40);
    let (violations, lines) = (&outcome.violations, outcome.lines[last..].join("\n"));
    assert!(violations.is_empty(), "{violations:#?}\n{lines}");
}

async fn seconds(count: u64) {
    sleep(Duration::from_secs(count)).await;
}

fn unless(holds: bool, text: impl Into<String>) -> Vec<String> {
    if holds { Vec::new() } else { vec![text.into()] }
}

/// The keys of own records and of servers outside.
fn keys(world: &World) -> Vec<String> {
    let keys = world.etcd.records().into_keys().map(|key| String::from_utf8_lossy(&key).into_owned());
    keys.filter(|key| key.starts_with(PREFIX)).collect()
}

fn endpoints(world: &World) -> usize {
    let slices = world.clusters[0].kube.all("endpointslices");
    let ours =
        slices.iter().filter(|s| s["metadata"]["labels"]["endpointslice.kubernetes.io/managed-by"] == "twinspan.dev");
    ours.map(|slice| slice["endpoints"].as_array().map_or(0, Vec::len)).sum()
}

fn do_(world: &World, op: Op) {
    let backup = world.etcd.snapshot();
    world.apply(op, &backup);
}

#[test]
fn registry_down_at_start() {
    play(SIZE, json!({}), |world| async move {
        let before = keys(&world);
        world.replicas.iter().for_each(|replica| replica.crash(&world));
        do_(&world, Op::EtcdDown { member: 0, seconds: 30 });
        world.replicas.iter().for_each(|replica| replica.start(&world));
        seconds(25).await;
        let kept = unless(endpoints(&world) == 2, "an endpoint went while the registry was away");
        seconds(20).await;
        kept.into_iter().chain(unless(keys(&world) == before, "records changed")).collect()
    });
}

#[test]
fn emptied_while_running() {
    play(SIZE, json!({}), |world| async move {
        do_(&world, Op::EtcdEmptied { new_cluster_id: false });
        seconds(20).await;
        unless(endpoints(&world) == 2, "an endpoint went with the emptied registry")
    });
}

#[test]
fn restored() {
    play(SIZE, json!({}), |world| async move {
        let backup = world.etcd.snapshot();
        world.vms[3].start(&world);
        do_(&world, Op::PodAdd { cluster: 0, service: 0 });
        seconds(20).await;
        world.apply(Op::EtcdRestored { new_cluster_id: false, bumped: false }, &backup);
        seconds(20).await;
        unless(endpoints(&world) == 3, "an endpoint went with the restored registry")
    });
}

#[test]
fn one_slice_of_a_service_deleted() {
    play(SIZE, json!({}), |world| async move {
        do_(&world, Op::DeleteSlice { cluster: 0, service: 0 });
        seconds(3).await;
        unless(endpoints(&world) == 2, "the slice did not come back")
    });
}

#[test]
fn restart_of_the_bridge() {
    play(SIZE, json!({}), |world| async move {
        let (records, revision) = (world.etcd.records(), world.clusters[0].kube.all("endpointslices"));
        world.replicas.iter().for_each(|replica| replica.stop(&world));
        seconds(20).await;
        let ended = unless(world.replicas.iter().all(|replica| !replica.is_running()), "a replica did not end");
        world.replicas.iter().for_each(|replica| replica.start(&world));
        seconds(60).await;
        let own = |records: std::collections::BTreeMap<Vec<u8>, sim_etcd::Record>| {
            let kept = records.into_iter().filter(|(key, _)| key.starts_with(PREFIX.as_bytes()));
            kept.map(|(key, record)| (key, record.mod_revision)).collect::<Vec<_>>()
        };
        let slices = world.clusters[0].kube.all("endpointslices");
        let mut wrong = ended;
        wrong.extend(unless(own(world.etcd.records()) == own(records), "the restart wrote a record"));
        wrong.extend(unless(slices == revision, "the restart wrote a slice"));
        wrong
    });
}

#[test]
fn scale_to_zero() {
    play(SIZE, json!({}), |world| async move {
        do_(&world, Op::ScaleToZero { cluster: 0, service: 0, seconds: 60 });
        seconds(10).await;
        let gone = keys(&world).iter().filter(|key| key.contains("203.0.113.")).count();
        seconds(60).await;
        unless(gone == 0, format!("{gone} records of pods that were deleted"))
    });
}

#[test]
fn two_clusters_with_the_same_names() {
    let size = Size { clusters: 2, ..SIZE };
    play(size, json!({}), |world| async move {
        do_(&world, Op::PodDelete { pod: 0 });
        do_(&world, Op::ScaleToZero { cluster: 1, service: 0, seconds: 20 });
        seconds(40).await;
        Vec::new()
    });
}

#[test]
fn one_undecodable_value() {
    play(SIZE, json!({}), |world| async move {
        for value in [&b"{"[..], b"\xff\xfe", b""] {
            // The registry is well.
            let put = world.etcd.put("person", format!("{PREFIX}/echo-0/junk-{}", value.len()), value, 0);
            assert!(put.is_ok());
        }
        world.vms[2].start(&world);
        seconds(5).await;
        unless(endpoints(&world) == 3, "a neighbour of the junk is missing")
    });
}

#[test]
fn watch_lost_over_a_compaction() {
    play(SIZE, json!({}), |world| async move {
        for (replica, side) in [0, 1].map(|n| (n, twinspan_sim::plan::Side::Registry)) {
            let way = twinspan_sim::plan::Way::Both;
            do_(&world, Op::Partition { replica, side, way, seconds: 40 });
        }
        world.vms[0].stop(&world);
        world.vms[2].start(&world);
        seconds(5).await;
        do_(&world, Op::EtcdCompacted);
        do_(&world, Op::ApiCompacted { cluster: 0 });
        seconds(60).await;
        Vec::new()
    });
}

#[test]
fn leader_lost_and_found() {
    play(SIZE, json!({}), |world| async move {
        do_(&world, Op::Freeze { replica: 0, seconds: 60 });
        seconds(20).await;
        world.vms[0].stop(&world);
        do_(&world, Op::PodDelete { pod: 0 });
        seconds(50).await;
        Vec::new()
    });
}

#[test]
fn deletes_missed_while_down() {
    play(SIZE, json!({}), |world| async move {
        world.replicas.iter().for_each(|replica| replica.crash(&world));
        world.vms[0].stop(&world);
        do_(&world, Op::PodDelete { pod: 0 });
        seconds(20).await;
        world.replicas.iter().for_each(|replica| replica.start(&world));
        seconds(5).await;
        Vec::new()
    });
}

#[test]
fn registry_away_while_the_api_server_lists_again() {
    play(SIZE, json!({}), |world| async move {
        do_(&world, Op::EtcdDown { member: 0, seconds: 40 });
        seconds(2).await;
        do_(&world, Op::ApiCompacted { cluster: 0 });
        world.clusters[0].kube.restart(0);
        seconds(20).await;
        unless(endpoints(&world) == 2, "an endpoint went while the registry was away")
    });
}

#[test]
fn leader_frozen_between_winning_and_its_first_write() {
    play(SIZE, json!({}), |world| async move {
        world.replicas[0].crash(&world);
        let lease = |world: &World| {
            let lease = world.clusters[0].kube.get("leases", "twinspan-system", "twinspan");
            lease.and_then(|lease| lease["spec"]["holderIdentity"].as_str().map(ToOwned::to_owned)).unwrap_or_default()
        };
        let before = lease(&world);
        while lease(&world) == before {
            sleep(Duration::from_millis(1)).await;
        }
        do_(&world, Op::Freeze { replica: 1, seconds: 40 });
        world.replicas[0].start(&world);
        world.vms[0].stop(&world);
        seconds(60).await;
        Vec::new()
    });
}

#[test]
fn clock_one_hour_ahead_during_a_hold() {
    let spec = json!({"import": {"onExpiry": "Remove"}, "deletionGuard": {"holdSeconds": 300}});
    play(Size { vms: 24, ..SIZE }, spec, |world| async move {
        world.etcd.delete_prefix("person", format!("{PREFIX}/{}/198", service_name(0)).as_bytes());
        seconds(15).await;
        let held = rest::holds(&world);
        world.replicas.iter().for_each(|replica| {
            replica.set_skew(3600);
            replica.crash(&world);
        });
        seconds(1).await;
        world.replicas.iter().for_each(|replica| replica.start(&world));
        seconds(60).await;
        let kept = endpoints(&world);
        // The servers register again, so that the end is as before.
        world.vms.iter().take(12).for_each(|vm| {
            vm.stop(&world);
            vm.start(&world);
        });
        let mut wrong = unless(held, "nothing was held");
        wrong.extend(unless(kept == 12, format!("{kept} of 12 endpoints are left of the hold")));
        wrong
    });
}

#[test]
fn a_status_that_comes_late() {
    play(SIZE, json!({}), |world| async move {
        let late = json!({"status": {"conditions": [{
            "type": "Ready", "status": "False", "reason": "RegistryUnavailable", "message": "late",
            "lastTransitionTime": "2026-01-01T00:00:00Z", "observedGeneration": 1,
        }]}});
        let kube = &world.clusters[0].kube;
        let patched = kube.patch_status("a deposed leader", "registeredservices", NAMESPACE, &service_name(0), late);
        assert!(patched.is_ok(), "{patched:?}");
        seconds(30).await;
        let object = kube.get("registeredservices", NAMESPACE, &service_name(0)).unwrap_or_default();
        let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let ready = conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True");
        unless(ready, format!("the late status stands: {conditions:?}"))
    });
}

#[test]
fn objects_of_a_newer_version_after_a_rollback() {
    play(SIZE, json!({}), |world| async move {
        let newer = json!({
            "apiVersion": "twinspan.dev/v1alpha1", "kind": "RegisteredService",
            "metadata": {"name": "newer", "namespace": NAMESPACE},
            "spec": {"registryRef": {"name": REGISTRY}, "direction": "Sideways"},
        });
        let created = world.clusters[0].kube.create("person", newer);
        assert!(created.is_ok(), "{created:?}");
        seconds(5).await;
        world.replicas.iter().for_each(|replica| replica.crash(&world));
        seconds(1).await;
        world.replicas.iter().for_each(|replica| replica.start(&world));
        seconds(150).await;
        let own = keys(&world).iter().filter(|key| key.contains("203.0.113.")).count();
        unless(own == 3, format!("{own} of 3 own records are left"))
    });
}
