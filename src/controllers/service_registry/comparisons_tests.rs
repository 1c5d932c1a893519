use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use twinspan_core::model::LeaseId;

use super::bench::{Bench, RECONNECT, STATUS_PACE, alias, bench, bench_of, echo, etcd, put_own, registry};
use super::comparisons::Comparisons;
use super::duplicates::Older;
use crate::cluster::view::ClusterEvent;
use crate::leadership::Leadership;
use crate::registry::handle::RegistryHandle;
use crate::registry::rivals::Comparison;
use crate::registry::testing::Faults;

const MAIN: &str = "http://main:2379";
const WEST: &str = "http://west:2379";
/// A comparison that proves nothing so long waits minutes for its next attempt.
const SLEEPY: Duration = Duration::from_secs(1800);

async fn alias_is_rejected(bench: &Bench) {
    bench.after(STATUS_PACE).await;
    assert_eq!(bench.conditions("alias"), ["False Conflict"; 3]);
    assert!(bench.handle("alias").is_none() && bench.handle("main").unwrap().is_sole());
}

#[tokio::test(start_paused = true)]
async fn of_two_for_one_keyspace_the_older_one_runs_and_the_younger_follows_it() {
    let bench = bench();
    let same = json!({"spec": {"etcd": {"endpoints": [MAIN]}}});
    bench.put(registry("main", 2, &json!({}))).await;
    assert_eq!(bench.conditions("main")[0], "True Connected");
    // One that is older comes back later: the younger one gives way.
    bench.put(registry("older", 1, &same)).await;
    bench.after(STATUS_PACE).await;
    assert_eq!(
        (bench.conditions("older")[0].as_str(), bench.conditions("main")),
        ("True Connected", ["False Conflict"; 3].map(String::from))
    );
    assert!(
        bench.message("main", "Ready").starts_with("ServiceRegistry older has the same etcd, prefix and cluster ID")
    );
    assert!(bench.handle("main").is_none());
    bench.delete("older").await;
    bench.after(STATUS_PACE).await;
    assert_eq!(bench.conditions("main")[0], "True Connected");
    assert!(bench.handle("main").unwrap().is_sole());
}

#[tokio::test(start_paused = true)]
async fn two_names_of_one_etcd_are_found_out_before_anything_is_written() {
    alias(MAIN, "http://alias:2379");
    let mut bench = bench();
    bench.put(registry("main", 1, &json!({}))).await;
    bench.put(registry("alias", 2, &json!({}))).await;
    alias_is_rejected(&bench).await;
    // The younger one stays so while the older one is connected elsewhere for a while: its records are there.
    etcd(MAIN).cut();
    bench.after(RECONNECT).await;
    assert_eq!(bench.conditions("alias")[0], "False Conflict");
    // Another place in the same etcd is another registry.
    bench.put(registry("alias", 2, &json!({"spec": {"prefix": "q"}}))).await;
    bench.after(STATUS_PACE).await;
    assert_eq!(bench.conditions("alias")[0], "True Connected");
    bench.queue.take_enqueued();
}

fn fenced(name: &str, day: u32, changes: &serde_json::Value) -> crate::api::ServiceRegistry {
    let mut object = registry(name, day, changes);
    object.spec.fence = crate::api::Fence::default();
    object
}

#[tokio::test(start_paused = true)]
async fn two_etcds_with_one_cluster_id_serve_two_registries() {
    let bench = bench();
    for endpoint in [MAIN, WEST] {
        etcd(endpoint).put("somebody/else", "", LeaseId::NONE);
    }
    bench.put(fenced("main", 1, &json!({}))).await;
    bench.put(fenced("west", 2, &json!({}))).await;
    bench.after(STATUS_PACE).await;
    assert_eq!(etcd(WEST).records().len(), 3, "an epoch and an incarnation");
    for name in ["main", "west"] {
        assert_eq!(bench.conditions(name)[0], "True Connected", "{name}");
        assert!(bench.handle(name).unwrap().is_sole(), "{name}");
    }
    assert_eq!(bench.status("main").etcd.unwrap().cluster_id, bench.status("west").etcd.unwrap().cluster_id);
}

#[tokio::test(start_paused = true)]
async fn an_etcd_that_was_made_of_the_others_snapshot_is_another_one() {
    let bench = bench();
    etcd(MAIN).put("somebody/else", "", LeaseId::NONE);
    let west = json!({"metadata": {"creationTimestamp": "2025-12-02T00:00:00Z"}});
    bench.put(fenced("main", 1, &json!({}))).await;
    bench.put(fenced("west", 2, &json!({"spec": {"etcd": {"endpoints": [MAIN]}}}))).await;
    assert_eq!(bench.conditions("west")[0], "False Conflict", "the same endpoint");
    etcd(WEST).restore(&etcd(MAIN).backup());
    bench.put(fenced("west", 2, &west)).await;
    bench.after(STATUS_PACE).await;
    assert_eq!(bench.conditions("west")[0], "True Connected");
    let incarnation = |name: &str| bench.status(name).etcd.unwrap().incarnation;
    assert_eq!(incarnation("main"), incarnation("west"), "a snapshot carries it along");
    assert!(bench.handle("west").unwrap().is_sole());
}

#[tokio::test(start_paused = true)]
async fn one_etcd_behind_two_endpoints_is_proven_by_an_epoch() {
    alias(MAIN, "http://alias:2379");
    let bench = bench();
    bench.put(fenced("main", 1, &json!({}))).await;
    bench.put(fenced("alias", 2, &json!({}))).await;
    alias_is_rejected(&bench).await;
    // The name stays refused while the older one reconnects, and goes on when that one is gone.
    etcd(MAIN).cut();
    bench.after(RECONNECT).await;
    assert_eq!(bench.conditions("alias")[0], "False Conflict");
    bench.delete("main").await;
    bench.after(STATUS_PACE).await;
    assert_eq!(bench.conditions("alias")[0], "True Connected");
}

#[tokio::test(start_paused = true)]
async fn without_a_prefix_two_registries_share_an_etcd_and_only_a_name_in_both_is_a_conflict() {
    let bench = bench();
    let of = |format: &str| json!({"spec": {"format": format, "prefix": null, "etcd": {"endpoints": [MAIN]}}});
    bench.put(fenced("main", 1, &of("GoZero"))).await;
    bench.put(fenced("grpc", 2, &of("GRPC"))).await;
    bench.after(STATUS_PACE).await;
    for name in ["main", "grpc"] {
        assert_eq!(bench.conditions(name)[0], "True Connected", "{name}");
        assert!(bench.handle(name).unwrap().is_sole(), "{name}");
    }
    let name = |text: &str| twinspan_core::model::RegistryName::new(text).unwrap();
    let taken =
        |name_: &str| bench.handle("grpc").unwrap().taken.get(&name(name_)).map(|taken| (taken.by, taken.proven));
    assert_eq!(taken("echo"), Some(("main".to_owned(), true)), "shop/echo refers to main");
    assert_eq!(taken("pay"), None);
    assert_eq!(bench.handle("main").unwrap().taken.get(&name("echo")), None, "the older one serves it");
    // The name is free once nobody exports it to the older one.
    bench.views.cluster().index.remove(&echo());
    bench.cluster_shows(ClusterEvent::Name { registry: "main".into(), name: "echo".into() }).await;
    assert_eq!(taken("echo"), None);
}

/// Two etcds with one cluster ID.
async fn main_and_west(bench: &Bench) {
    for endpoint in [MAIN, WEST] {
        etcd(endpoint).put("somebody/else", "", LeaseId::NONE);
    }
    bench.put(fenced("main", 1, &json!({}))).await;
    bench.put(fenced("west", 2, &json!({}))).await;
    bench.after(STATUS_PACE).await;
}

/// Begins to compare them, apart from what the controller compares.
fn start(comparisons: &Comparisons, bench: &Bench) {
    let older = Older { name: "main".into(), proven: false, endpoints: (vec![MAIN.into()], vec![WEST.into()]) };
    comparisons.start(&bench.views, "west", older, &TaskTracker::new(), &CancellationToken::new());
}

fn verdicts(comparisons: &Comparisons) -> Vec<Comparison> {
    comparisons.verdicts().into_values().map(|(_, found)| found).collect()
}

#[tokio::test(start_paused = true)]
async fn a_comparison_from_before_says_nothing_about_those_that_are_there_now() {
    let (bench, comparisons) = (bench(), Comparisons::default());
    main_and_west(&bench).await;
    start(&comparisons, &bench);
    comparisons.forget("main");
    bench.after(STATUS_PACE).await;
    assert_eq!(verdicts(&comparisons), []);
    assert!(!comparisons.is_decided("west"));
    start(&comparisons, &bench);
    comparisons.forget("west");
    start(&comparisons, &bench);
    bench.after(STATUS_PACE).await;
    assert_eq!(verdicts(&comparisons), [Comparison::OtherEtcd], "by the second task");
}

#[tokio::test(start_paused = true)]
async fn another_session_does_not_wait_for_the_comparison_of_the_one_before() {
    let (bench, comparisons) = (bench(), Comparisons::default());
    main_and_west(&bench).await;
    let west = bench.views.registries.running()["west"].clone();
    let mut idle = west.clone();
    idle.handle = RegistryHandle::new("west", &west.settings.identity, None, mpsc::unbounded_channel().0);
    bench.views.registries.running().insert("west".into(), idle);
    start(&comparisons, &bench);
    bench.after(SLEEPY).await;
    assert_eq!(verdicts(&comparisons), []);
    bench.views.registries.running().insert("west".into(), west);
    start(&comparisons, &bench);
    bench.after(STATUS_PACE).await;
    assert_eq!(verdicts(&comparisons), [Comparison::OtherEtcd]);
}

#[tokio::test(start_paused = true)]
async fn a_comparison_that_breaks_off_begins_again() {
    let (bench, comparisons) = (bench(), Comparisons::default());
    main_and_west(&bench).await;
    etcd(MAIN).set_faults(Faults { breaks_off: Some("read"), ..Faults::default() });
    start(&comparisons, &bench);
    bench.after(STATUS_PACE).await;
    assert_eq!(verdicts(&comparisons), [Comparison::OtherEtcd]);
}

#[tokio::test(start_paused = true)]
async fn the_younger_one_does_not_wait_for_an_older_one_that_is_gone() {
    put_own(&etcd(MAIN), "p/echo/10.0.0.1:80", LeaseId::NONE);
    // Only a leader could tell them apart.
    let bench = bench_of(Leadership::none());
    main_and_west(&bench).await;
    bench.after(SLEEPY).await;
    let west = bench.handle("west").unwrap();
    assert!(!west.is_sole());
    bench.delete("main").await;
    assert_eq!(bench.views.registries.draining().len(), 1);
    assert!(Arc::ptr_eq(&west, &bench.handle("west").unwrap()) && west.is_sole());
}
