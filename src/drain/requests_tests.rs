//! Requests from their arrival to their answer, over the views of a replica that may stand by, and a fake API server.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::Drain;
use super::bench::{Bench, key};
use super::requests::WAITING;
use super::wait::{MARGIN, Outcome, PATIENCE};

/// The outcome of a request, and the milliseconds until its answer.
fn asked(drain: &Arc<Drain>) -> JoinHandle<(Outcome, u128)> {
    let (drain, began) = (drain.clone(), Instant::now());
    tokio::spawn(async move { (drain.drained(&key()).await, began.elapsed().as_millis()) })
}

async fn after(milliseconds: u64) {
    sleep(Duration::from_millis(milliseconds)).await;
}

const POD: (&str, &str, &str, u64) = ("a", "echo", "10.0.0.1", 30);

#[tokio::test(start_paused = true)]
async fn a_pod_that_ends_is_answered_when_its_record_is_gone_and_clients_know() {
    for (format, refresh) in [("Kratos", 500), ("Kitex", 5_500)] {
        let bench = Bench::of_format(format);
        bench.put_record("main", "10.0.0.1", true);
        bench.put_record("main", "10.0.0.2", true);
        bench.ending(&[POD]);
        let asked = asked(&bench.drain);
        after(3_050).await;
        assert_eq!(bench.metrics.drains_waiting.get(), 1);
        assert!(!asked.is_finished());
        // Between two looks: the change itself wakes it.
        bench.delete_record("main", "10.0.0.1");
        assert_eq!(asked.await.unwrap(), (Outcome::Drained, 3_050 + refresh), "{format}");
        assert_eq!((bench.counted("drained"), bench.metrics.drains_waiting.get()), (1, 0));
        assert_eq!(bench.api.take("/pods").len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_record_that_went_before_is_given_the_time_of_a_refresh_and_a_new_one_begins_the_wait_again() {
    let bench = Bench::of_format("Kitex");
    bench.ending(&[POD]);
    // 100 ms for those who ask with it.
    assert_eq!(asked(&bench.drain).await.unwrap(), (Outcome::Drained, 5_600));
    let asked = asked(&bench.drain);
    after(2_000).await;
    // The write was under way when the pod was deleted.
    bench.put_record("main", "10.0.0.1", true);
    after(5_000).await;
    bench.delete_record("main", "10.0.0.1");
    assert_eq!(asked.await.unwrap(), (Outcome::Drained, 7_000 + 5_500));
}

#[tokio::test(start_paused = true)]
async fn the_watch_may_be_behind_and_the_pods_are_found_all_the_same() {
    let bench = Bench::new();
    // Neither the pod nor a slice is in the views: the Service selects it.
    bench.ending(&[POD, ("b", "user", "10.0.0.9", 1)]);
    assert_eq!(asked(&bench.drain).await.unwrap().0, Outcome::Drained);
    // The Service selects others, which is all that changes of it.
    bench.put_service(Some("other"));
    assert_eq!(asked(&bench.drain).await.unwrap(), (Outcome::Nothing, 100));
    // The Service selects nothing, and nothing else tells whose it is.
    bench.put_service(None);
    assert_eq!(asked(&bench.drain).await.unwrap(), (Outcome::Nothing, 100));
    // A slice that names it does.
    bench.name_in_a_slice("a", "10.0.0.1");
    assert_eq!(asked(&bench.drain).await.unwrap(), (Outcome::Drained, 600));
    bench.name_in_a_slice("z", "10.0.0.2");
    assert_eq!(asked(&bench.drain).await.unwrap().0, Outcome::Nothing);
    // A record at its address does so too.
    bench.put_record("main", "10.0.0.1", true);
    let asked = asked(&bench.drain);
    after(1_000).await;
    assert!(!asked.is_finished());
    bench.delete_record("main", "10.0.0.1");
    assert_eq!(asked.await.unwrap(), (Outcome::Drained, 1_500));
}

#[tokio::test(start_paused = true)]
async fn without_a_pod_that_ends_it_answers_at_once() {
    let bench = Bench::new();
    // A container that starts anew, beside a pod of another service that ends.
    bench.put_record("main", "10.0.0.1", true);
    bench.ending(&[("b", "user", "10.0.0.9", 30)]);
    assert_eq!(asked(&bench.drain).await.unwrap(), (Outcome::Nothing, 100));
    // Nobody asks for a pod whose grace period ended long ago.
    bench.ending_until("2026-01-01T00:00:00Z", &[("a", "echo", "10.0.0.1", 1)]);
    assert_eq!(asked(&bench.drain).await.unwrap().0, Outcome::Nothing);
}

#[tokio::test(start_paused = true)]
async fn where_nothing_is_exported_it_answers_at_once_and_asks_nobody() {
    let rejected = json!({"observedGeneration": 1, "conditions": [{"type": "Accepted", "status": "False",
        "reason": "NotAllowed", "message": "m", "lastTransitionTime": "2026-01-01T00:00:00Z"}]});
    let bench = Bench::new();
    bench.put_record("main", "10.0.0.1", true);
    bench.ending(&[POD]);
    for spec in [
        json!({"registryRef": {"name": "main"}, "suspend": true}),
        json!({"registryRef": {"name": "main"}, "policy": "Observe"}),
        json!({"registryRef": {"name": "main"}, "export": {"address": "Node"}}),
        json!({"registryRef": {"name": "main"}, "export": {"address": "LoadBalancer"}}),
        json!({"registryRef": {"name": "nowhere"}}),
    ] {
        bench.register(&spec);
        assert_eq!(asked(&bench.drain).await.unwrap(), (Outcome::Nothing, 0), "{spec}");
    }
    let dry = Drain::new(&bench.views, bench.api.client(), bench.metrics.clone(), true, bench.stopping.clone());
    bench.register(&json!({"registryRef": {"name": "main"}}));
    assert_eq!(asked(&dry).await.unwrap(), (Outcome::Nothing, 0));
    let unknown = twinspan_core::model::ServiceKey::new("shop", "nobody");
    assert_eq!(bench.drain.drained(&unknown).await, Outcome::Nothing);
    assert!(bench.api.take("/pods").is_empty());

    // Remains of an export go, and are waited for; then nothing is.
    for (spec, status) in [
        (json!({"registryRef": {"name": "main"}, "direction": "Import"}), json!(null)),
        (json!({"registryRef": {"name": "main"}}), rejected),
    ] {
        bench.register_with(&spec, &status);
        bench.put_record("main", "10.0.0.1", true);
        let waits = asked(&bench.drain);
        after(1_000).await;
        assert!(!waits.is_finished(), "{spec}");
        bench.delete_record("main", "10.0.0.1");
        assert_eq!(waits.await.unwrap(), (Outcome::Nothing, 1_000), "{spec}");
        assert_eq!(asked(&bench.drain).await.unwrap(), (Outcome::Nothing, 100), "{spec}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_servers_own_record_is_not_waited_for() {
    let bench = Bench::new();
    bench.put_record("main", "10.0.0.1", false);
    bench.ending(&[POD]);
    assert_eq!(asked(&bench.drain).await.unwrap(), (Outcome::Drained, 600));
}

#[tokio::test(start_paused = true)]
async fn a_record_in_a_former_registry_is_waited_for_while_that_answers() {
    let bench = Bench::new();
    let former = bench.start("old", "Kratos");
    bench.put_record("old", "10.0.0.1", true);
    bench.ending(&[POD]);
    let waits = asked(&bench.drain);
    after(1_000).await;
    bench.delete_record("old", "10.0.0.1");
    assert_eq!(waits.await.unwrap(), (Outcome::Drained, 1_500));
    bench.put_record("old", "10.0.0.1", true);
    former.view().set_stale();
    assert_eq!(asked(&bench.drain).await.unwrap(), (Outcome::Drained, 600));
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_is_away_delays_no_end_by_more_than_five_seconds() {
    let bench = Bench::new();
    bench.put_record("main", "10.0.0.1", true);
    bench.ending(&[POD]);
    let patience = PATIENCE.as_millis();
    bench.handle("main").view().set_stale();
    assert_eq!(asked(&bench.drain).await.unwrap(), (Outcome::Unreachable, patience));
    // The registry comes back in time.
    let waits = asked(&bench.drain);
    after(2_000).await;
    bench.list("main");
    bench.put_record("main", "10.0.0.1", true);
    after(3_000).await;
    bench.delete_record("main", "10.0.0.1");
    assert_eq!(waits.await.unwrap(), (Outcome::Drained, 5_500));
    // The registry goes while a pod waits.
    bench.put_record("main", "10.0.0.1", true);
    let waits = asked(&bench.drain);
    after(10_000).await;
    bench.handle("main").view().set_stale();
    let (outcome, waited) = waits.await.unwrap();
    assert_eq!(outcome, Outcome::Unreachable);
    assert!((10_000 + patience..11_000 + patience + 100).contains(&waited), "{waited}");
    // The session has not begun.
    bench.views.registries.running().clear();
    assert_eq!(asked(&bench.drain).await.unwrap(), (Outcome::Unreachable, patience));
}

#[tokio::test(start_paused = true)]
async fn views_that_are_not_complete_are_no_answer() {
    let bench = Bench::new();
    bench.ending(&[POD]);
    *bench.views.cluster() = crate::cluster::view::ClusterView::default();
    assert_eq!(asked(&bench.drain).await.unwrap(), (Outcome::Unreachable, PATIENCE.as_millis()));
    let waits = asked(&bench.drain);
    after(1_500).await;
    // The views become complete, and there is no such RegisteredService.
    bench.complete();
    assert_eq!(waits.await.unwrap(), (Outcome::Nothing, 2_100));
}

#[tokio::test(start_paused = true)]
async fn while_nothing_is_known_the_wait_ends_before_the_shortest_grace_period_of_the_namespace() {
    let bench = Bench::new();
    bench.put_record("main", "10.0.0.1", true);
    bench.ending(&[POD, ("b", "user", "10.0.0.9", 5)]);
    bench.handle("main").view().set_stale();
    let most = 5_000 - MARGIN.as_millis();
    assert_eq!(asked(&bench.drain).await.unwrap(), (Outcome::Timeout, most));
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_does_not_answer_ends_the_wait() {
    let bench = Bench::new();
    bench.api.refuse("/pods", 500);
    assert_eq!(asked(&bench.drain).await.unwrap(), (Outcome::Unreachable, 5_100), "it is asked again meanwhile");
    bench.api.accept();
    bench.api.stall("/pods");
    assert_eq!(asked(&bench.drain).await.unwrap(), (Outcome::Unreachable, 5_100));
}

#[tokio::test(start_paused = true)]
async fn a_record_that_is_held_ends_the_wait_before_the_shortest_grace_period() {
    let bench = Bench::new();
    bench.put_record("main", "10.0.0.1", true);
    // The shortest of the two of this service counts; the third is another's.
    bench.ending(&[POD, ("c", "echo", "10.0.0.3", 12), ("b", "user", "10.0.0.9", 3)]);
    let most = 12_000 - MARGIN.as_millis();
    assert_eq!(asked(&bench.drain).await.unwrap(), (Outcome::Timeout, most));
    assert_eq!(bench.counted("timeout"), 1);
    // A spec that changes meanwhile ends it too.
    let waits = asked(&bench.drain);
    after(3_000).await;
    bench.register(&json!({"registryRef": {"name": "main"}, "suspend": true}));
    assert_eq!(waits.await.unwrap().0, Outcome::Nothing);
}

#[tokio::test(start_paused = true)]
async fn so_many_wait_and_the_rest_are_told_at_once() {
    let bench = Bench::new();
    bench.put_record("main", "10.0.0.1", true);
    bench.ending(&[POD]);
    let waiting: Vec<_> = (0..WAITING).map(|_| asked(&bench.drain)).collect();
    after(1_000).await;
    assert_eq!(bench.api.take("/pods").len(), 1);
    assert_eq!(bench.metrics.drains_waiting.get(), i64::try_from(WAITING).unwrap());
    assert_eq!(asked(&bench.drain).await.unwrap(), (Outcome::Busy, 0));
    // A request that goes away makes room.
    waiting[0].abort();
    after(1).await;
    let late = asked(&bench.drain);
    after(1_000).await;
    assert!(!late.is_finished());
    // An answer without a wait needs no room.
    let unknown = twinspan_core::model::ServiceKey::new("shop", "nobody");
    assert_eq!(bench.drain.drained(&unknown).await, Outcome::Nothing);
    bench.delete_record("main", "10.0.0.1");
    for waits in waiting.into_iter().skip(1).chain([late]) {
        assert_eq!(waits.await.unwrap().0, Outcome::Drained);
    }
    assert_eq!((bench.counted("busy"), bench.metrics.drains_waiting.get()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_process_answers_everybody() {
    let bench = Bench::new();
    bench.put_record("main", "10.0.0.1", true);
    bench.ending(&[POD]);
    let waits = asked(&bench.drain);
    after(1_000).await;
    bench.stopping.cancel();
    assert_eq!(waits.await.unwrap(), (Outcome::Stopping, 1_000));
    let now = timeout(Duration::from_millis(1), bench.drain.drained(&key())).await.unwrap();
    assert_eq!(now, Outcome::Stopping);
}
