//! Passes before, within and between terms of leadership.

use std::sync::Arc;
use std::time::Duration;

use twinspan_core::Timestamp;
use twinspan_core::model::ObjectKey;

use super::bench::{Bench, SLICES, STATUS_PACE, bench, key};
use super::report::until;
use crate::api::conditions::{DELETIONS_HELD, find};
use crate::controllers::queue::Action;
use crate::registry::testing::Faults;

/// Twelve servers, imported.
async fn twelve() -> (Bench, Vec<String>) {
    let bench = bench(&["main"]).await;
    let servers: Vec<String> = (0..12).map(|n| format!("192.0.2.{n}:9000")).collect();
    for server in &servers {
        bench.server_registers(server).await;
    }
    bench.pass().await;
    assert_eq!(bench.status().instances.imported, 12);
    (bench, servers.iter().map(|server| format!("p/echo/{server}")).collect())
}

fn delete(bench: &Bench, keys: &[String]) {
    bench.etcd().delete(&keys.iter().map(String::as_str).collect::<Vec<_>>());
}

fn held_since(bench: &Bench) -> Option<Timestamp> {
    let status = bench.status();
    let condition = find(&status.conditions, DELETIONS_HELD)?;
    (condition.status == "True").then_some(condition.last_transition_time.0)
}

#[tokio::test(start_paused = true)]
async fn no_hold_begins_or_ends_where_nobody_leads() {
    let (bench, keys) = twelve().await;
    let guards = bench.controller.views.guards.clone();
    bench.stand_by();
    delete(&bench, &keys);
    bench.api.take("");
    for _ in 0..4 {
        bench.after(Duration::from_secs(100)).await;
        assert_eq!(bench.pass().await.action, Action::Await, "nothing ends by itself");
        assert_eq!(guards.held("main", &bench.controller.views.env), None);
        assert_eq!(bench.metric("twinspan_held_deletions"), "0");
    }
    assert_eq!(bench.api.take(SLICES), []);
    bench.lead();
    bench.pass().await;
    let now = bench.controller.views.env.now();
    assert!(held_since(&bench).is_some_and(|since| now.duration_since(since).as_secs() < 1), "{:?}", bench.status());
    assert_eq!(guards.held("main", &bench.controller.views.env).map(|held| held.deletions), Some(12));
    assert_eq!(bench.api.take(SLICES), []);
}

#[tokio::test(start_paused = true)]
async fn a_hold_goes_on_in_the_next_term_also_if_the_registry_is_away_when_it_begins() {
    let (bench, keys) = twelve().await;
    delete(&bench, &keys);
    bench.after(STATUS_PACE).await;
    bench.pass().await;
    let since = held_since(&bench).unwrap();
    bench.stand_by();
    bench.pass().await;
    assert_eq!(bench.metric("twinspan_held_deletions"), "0", "another process has it");
    bench.after(Duration::from_secs(100)).await;
    bench.etcd().set_faults(Faults { away: true, ..Faults::default() });
    bench.after(Duration::from_secs(30)).await;
    bench.lead();
    bench.pass().await;
    bench.etcd().set_faults(Faults::default());
    bench.after(Duration::from_secs(30)).await;
    bench.pass().await;
    assert_eq!(held_since(&bench), Some(since), "{:?}", bench.status());
    let left = bench.status().hold.unwrap().until.0.duration_since(bench.controller.views.env.now());
    assert!(left.as_secs() < 150, "its time went on: {left:?}");
}

/// The hold of the whole registry began after that of the service. The guard of the registry hears of the deletions
/// when the pass ends.
#[tokio::test(start_paused = true)]
async fn the_first_pass_of_a_term_keeps_the_end_of_a_joint_hold() {
    let (bench, keys) = twelve().await;
    delete(&bench, &keys);
    bench.after(STATUS_PACE).await;
    bench.pass().await;
    let since = held_since(&bench).unwrap();
    let until = since + Duration::from_secs(360);
    let mut held = find(&bench.status().conditions, DELETIONS_HELD).unwrap().clone();
    held.last_transition_time.0 = since + Duration::from_secs(60);
    {
        let mut view = bench.controller.views.cluster();
        let registry = Arc::make_mut(view.service_registries.get_mut("main").unwrap());
        registry.status.get_or_insert_default().conditions = vec![held];
        let service = Arc::make_mut(view.registered_services.get_mut(&key()).unwrap());
        service.status.as_mut().unwrap().hold.as_mut().unwrap().until.0 = until;
    }
    bench.stand_by();
    bench.pass().await;
    bench.after(Duration::from_secs(70)).await;
    bench.lead();
    bench.pass().await;
    assert_eq!(bench.status().hold.map(|hold| (hold.since.0, hold.until.0)), Some((since, until)));
}

#[tokio::test(start_paused = true)]
async fn a_standby_puts_back_nothing_that_the_leader_removed() {
    let (bench, keys) = twelve().await;
    bench.stand_by();
    delete(&bench, &keys[..2]);
    bench.after(Duration::from_secs(1)).await;
    bench.pass().await;
    // The leader removes the two, and ends.
    let slice = ObjectKey::new("shop", slice_name(&bench));
    bench.controller.views.cluster().slices.remove(&slice);
    bench.pass().await;
    bench.api.take("");
    bench.lead();
    bench.pass().await;
    let written = bench.api.take(SLICES);
    let endpoints = |body: &serde_json::Value| body["endpoints"].as_array().map_or(0, Vec::len);
    assert_eq!(written.iter().map(|request| endpoints(&request.body)).sum::<usize>(), 10, "{written:?}");
}

fn slice_name(bench: &Bench) -> String {
    let view = bench.controller.views.cluster();
    let slices = view.slices.of_owner("uid-1");
    assert_eq!(slices.len(), 1);
    slices[0].name.clone()
}

#[test]
fn a_time_that_has_passed_is_no_wait() {
    let now = Timestamp::from_second(1_000_000).unwrap();
    let at = |seconds: i64| until(Timestamp::from_second(1_000_000 + seconds).unwrap(), now).as_secs();
    assert_eq!((at(0), at(7), at(-7), at(-3_000_000), at(100_000_000)), (0, 7, 0, 0, 86_400));
}
