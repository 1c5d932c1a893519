//! Holds of a whole controller: over steps of the machine's clock, over restarts, and approvals.

use std::time::Duration;

use serde_json::json;
use twinspan_core::plan::service::Incarnation;

use super::bench::{Bench, STATUS_PACE, bench, key};
use crate::api::conditions::{DELETIONS_HELD, find};
use crate::api::{APPROVE_DELETIONS, HoldStatus};

/// Too few for the guard of the whole registry.
const SERVERS: usize = 9;

fn keys() -> Vec<String> {
    (0..SERVERS).map(|n| format!("p/echo/192.0.2.{n}:9000")).collect()
}

/// Imported servers.
async fn imported() -> Bench {
    let bench = bench(&["main"]).await;
    come(&bench).await;
    bench
}

async fn come(bench: &Bench) {
    for n in 0..SERVERS {
        bench.server_registers(&format!("192.0.2.{n}:9000")).await;
    }
    bench.after(STATUS_PACE).await;
    bench.pass().await;
    assert_eq!((bench.status().instances.imported, bench.status().hold), (9, None));
}

/// Their records are deleted in one revision.
async fn vanish(bench: &Bench) {
    let keys = keys();
    bench.etcd().delete(&keys.iter().map(String::as_str).collect::<Vec<_>>());
    bench.after(STATUS_PACE).await;
    bench.pass().await;
}

/// Exported pods, none of which the cluster has any more when another process starts.
async fn exported_and_gone() -> Bench {
    let mut bench = bench(&["main"]).await;
    let pods: Vec<String> = (0..SERVERS).map(|n| format!("10.0.0.{n}")).collect();
    bench.ready(&pods.iter().map(String::as_str).collect::<Vec<_>>());
    bench.pass().await;
    assert_eq!(bench.keys("main").len(), SERVERS);
    let mut bench = bench.restarted(0).await;
    bench.ready(&[]);
    bench.pass().await;
    bench
}

fn hold(bench: &Bench) -> HoldStatus {
    let status = bench.status();
    let hold = status.hold.unwrap_or_else(|| panic!("no hold: {:?}", status.conditions));
    let condition = find(&status.conditions, DELETIONS_HELD).unwrap();
    assert_eq!((condition.status.as_str(), &condition.last_transition_time), ("True", &hold.since));
    assert!(condition.message.contains(&format!("{APPROVE_DELETIONS}={} ", hold.hash)), "{}", condition.message);
    hold
}

async fn seconds(bench: &Bench, seconds: u64) {
    bench.after(Duration::from_secs(seconds)).await;
    bench.pass().await;
}

#[tokio::test(start_paused = true)]
async fn a_step_of_the_machines_clock_neither_ends_nor_prolongs_a_hold() {
    for step in [301, -3600] {
        let bench = imported().await;
        vanish(&bench).await;
        let before = hold(&bench);
        bench.step_clock(step);
        seconds(&bench, 10).await;
        assert_eq!((hold(&bench), bench.status().instances.held), (before.clone(), 9), "a step of {step} s");
        seconds(&bench, 270).await;
        assert_eq!((hold(&bench), bench.status().instances.imported), (before, 9), "a step of {step} s");
        seconds(&bench, 25).await;
        assert_eq!((bench.status().hold, bench.status().instances.imported), (None, 0), "a step of {step} s");
    }
}

#[tokio::test(start_paused = true)]
async fn another_process_resumes_a_hold_by_the_api_servers_clock() {
    for wrong_by in [0, 301, -3600] {
        let bench = exported_and_gone().await;
        let before = hold(&bench);
        bench.after(Duration::from_secs(100)).await;
        let bench = bench.restarted(wrong_by).await;
        bench.api.take("/events");
        bench.pass().await;
        assert_eq!(hold(&bench), before, "a clock that is wrong by {wrong_by} s");
        assert_eq!(bench.events(), Vec::<String>::new(), "it is the same hold");
        seconds(&bench, 195).await;
        assert_eq!((hold(&bench), bench.keys("main").len()), (before, SERVERS), "wrong by {wrong_by} s");
        seconds(&bench, 10).await;
        assert_eq!((bench.status().hold, bench.keys("main").len()), (None, 0), "wrong by {wrong_by} s");
    }
}

#[tokio::test(start_paused = true)]
async fn a_hold_that_a_former_version_began_goes_on() {
    let bench = exported_and_gone().await;
    let before = hold(&bench);
    bench.after(Duration::from_secs(100)).await;
    // It wrote the condition only.
    let mut object = (*bench.object().unwrap()).clone();
    object.status.as_mut().unwrap().hold = None;
    bench.controller.views.cluster().registered_services.insert(super::bench::key(), object.into());
    let bench = bench.restarted(0).await;
    bench.pass().await;
    assert_eq!((hold(&bench), bench.keys("main").len()), (before, SERVERS));
}

#[tokio::test(start_paused = true)]
async fn an_approval_releases_one_hold_once() {
    let bench = imported().await;
    vanish(&bench).await;
    let first = hold(&bench);
    bench.annotate(APPROVE_DELETIONS, &first.hash);
    seconds(&bench, 6).await;
    assert_eq!((bench.status().hold, bench.status().instances.imported), (None, 0));
    let cleared = bench.api.take("/status").pop().unwrap();
    assert!(cleared.body["status"]["hold"].is_null(), "a merge patch keeps what it does not name: {cleared:?}");
    // The annotation is still there when the same servers vanish again.
    come(&bench).await;
    bench.events();
    vanish(&bench).await;
    let second = hold(&bench);
    assert!(second.since > first.since && second.hash != first.hash, "{first:?} {second:?}");
    assert_eq!(bench.status().instances.imported, 9);
    bench.after(Duration::from_secs(31)).await;
    let held: Vec<String> = bench.events().into_iter().filter(|event| event.starts_with("DeletionsHeld")).collect();
    assert!(held.len() == 1 && held[0].contains(&second.hash), "{held:?}");
    bench.annotate(APPROVE_DELETIONS, &second.hash);
    seconds(&bench, 6).await;
    assert_eq!(bench.status().instances.imported, 0);
}

#[tokio::test(start_paused = true)]
async fn an_approval_of_a_former_version_is_refused_and_an_event_has_the_new_hash() {
    let bench = imported().await;
    vanish(&bench).await;
    let before = hold(&bench);
    let of_set = bench.controller.checkpoints.get(&super::bench::key()).unwrap().planned.held.hash_of_set();
    bench.events();
    bench.annotate(APPROVE_DELETIONS, &of_set);
    for _ in 0..3 {
        seconds(&bench, 20).await;
    }
    assert_eq!((hold(&bench), bench.status().instances.imported), (before.clone(), 9));
    let told = bench.events();
    let refused: Vec<&String> = told.iter().filter(|event| event.starts_with("ApprovalRefused")).collect();
    assert!(refused.len() == 1 && refused[0].contains(&before.hash), "{told:?}");
    assert!(!told.contains(&"again".to_owned()), "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn another_wave_begins_another_hold_when_the_first_ends() {
    let bench = imported().await;
    bench.register(&json!({"registryRef": {"name": "main"}, "deletionGuard": {"minInstances": 2}}));
    let (first, second) = (&keys()[..6], &keys()[6..]);
    bench.etcd().delete(&first.iter().map(String::as_str).collect::<Vec<_>>());
    bench.after(STATUS_PACE).await;
    bench.pass().await;
    let before = hold(&bench);
    seconds(&bench, 280).await;
    bench.etcd().delete(&second.iter().map(String::as_str).collect::<Vec<_>>());
    seconds(&bench, 6).await;
    assert_eq!(hold(&bench).since, before.since);
    bench.events();
    seconds(&bench, 15).await;
    let after = hold(&bench);
    assert!(after.since > before.since && after.hash != before.hash, "{before:?} {after:?}");
    assert_eq!(bench.status().instances.imported, 3, "the first wave went");
    assert!(bench.events().iter().any(|event| event.starts_with("DeletionsHeld: 3 deletions")));
    seconds(&bench, 290).await;
    assert_eq!((bench.status().hold, bench.status().instances.imported), (None, 0));
}

/// A standby sees the rollback too, and what follows from it is still to do when it wins the Lease, however many
/// sessions came in between.
#[tokio::test(start_paused = true)]
async fn a_rollback_that_a_standby_saw_is_held_once_it_leads() {
    let bench = bench(&["main"]).await;
    let backup = bench.etcd().backup();
    come(&bench).await;
    bench.stand_by();
    bench.etcd().restore(&backup);
    for _ in 0..2 {
        bench.etcd().cut();
        bench.after(Duration::from_secs(30)).await;
        bench.pass().await;
        assert_eq!(bench.handle("main").view().incarnation(), Incarnation::RolledBack);
        assert!(!bench.handle("main").settles(|| [(key(), false)].into()), "a standby holds nothing");
    }
    bench.lead();
    bench.pass().await;
    bench.after(STATUS_PACE).await;
    bench.pass().await;
    assert_eq!((bench.status().instances.imported, bench.status().hold.is_some()), (9, true));
    assert!(bench.handle("main").settles(|| [(key(), true)].into()));
}
