use twinspan_core::model::RegistryName;

use super::bench::{Bench, bench_side_by_side, key};
use crate::controllers::queue::Action;
use crate::registry::ServerStatus;

/// Without a common prefix two ServiceRegistries of one etcd follow names of their own, and may see each other's.
#[tokio::test(start_paused = true)]
async fn a_record_leaves_a_refused_lease_through_its_own_service_registry() {
    let mut bench = bench_side_by_side(&["main", "other"]).await;
    bench.ready(&["10.0.0.1"]);
    bench.pass().await;
    let lease = bench.etcd().records()["/echo/10.0.0.1:80"].lease;
    bench.handle("other").lease_refused(lease);
    let revision = bench.etcd().revision();
    bench.pass().await;
    assert_eq!(bench.etcd().revision(), revision, "the leases of the other one end with it");
    bench.handle("main").lease_refused(lease);
    bench.pass().await;
    assert_ne!(bench.etcd().records()["/echo/10.0.0.1:80"].lease, lease);
}

/// A new process follows the other one's names at once, and its own once its etcd has answered.
#[tokio::test(start_paused = true)]
async fn another_service_registry_of_the_same_keys_is_no_former_place_before_the_own_one_has_answered() {
    let mut bench = bench_side_by_side(&["main", "other"]).await;
    bench.ready(&["10.0.0.1"]);
    bench.pass().await;
    assert!(bench.handle("other").view().owned_by(&key()).next().is_some(), "the other one sees the record too");
    bench.replace_by_one_without_a_session("main");
    bench.ready(&["10.0.0.1", "10.0.0.2"]);
    bench.pass().await;
    assert_eq!(bench.keys("other"), ["/echo/10.0.0.1:80"]);
}

/// etcd came back with another cluster ID, and only the session of the other one has met it.
#[tokio::test(start_paused = true)]
async fn another_service_registry_at_the_same_endpoint_is_no_former_place_whatever_etcd_each_has_met() {
    let (one, three) = ("/echo/10.0.0.1:80", "/echo/10.0.0.3:80");
    for (shares, records) in [(true, vec![one, three]), (false, vec![three])] {
        let mut bench = bench_side_by_side(&["main", "other"]).await;
        bench.ready(&["10.0.0.1", "10.0.0.3"]);
        bench.pass().await;
        bench.replace_by_one_without_a_session("main");
        bench.handle("main").set_server(ServerStatus { cluster_id: 99, version: String::new() });
        if shares {
            bench.share_an_endpoint(&["main", "other"]);
        }
        bench.ready(&["10.0.0.2", "10.0.0.3"]);
        bench.pass().await;
        assert_eq!(bench.keys("other"), records, "from another etcd it withdraws what ended, and adds nothing");
    }
}

/// A RegisteredService is gone, and the ServiceRegistry that wrote its record cannot withdraw it at the moment.
#[tokio::test(start_paused = true)]
async fn what_is_left_behind_is_withdrawn_by_the_service_registry_on_whose_lease_it_hangs() {
    let mut bench = bench_side_by_side(&["main", "other"]).await;
    bench.ready(&["10.0.0.1"]);
    bench.pass().await;
    let lease = bench.etcd().records()["/echo/10.0.0.1:80"].lease;
    bench.unregister();
    bench.handle("other").lease_refused(lease);
    bench.handle("main").confirm_sole(None);
    let revision = bench.etcd().revision();
    bench.pass().await;
    assert_eq!(bench.etcd().revision(), revision, "neither deleted nor moved to a lease of the other one");
    bench.handle("main").confirm_sole(bench.handle("main").etcd());
    bench.pass().await;
    assert!(bench.keys("main").is_empty());
}

/// The ServiceRegistry exists, but nothing leads to its etcd: a Secret is missing, for example.
#[tokio::test(start_paused = true)]
async fn records_of_a_service_registry_without_a_session_wait_for_it_and_then_what_ended_goes() {
    let mut bench = bench_side_by_side(&["main", "other"]).await;
    bench.ready(&["10.0.0.1", "10.0.0.3"]);
    bench.pass().await;
    let before = bench.etcd().records();
    bench.controller.views.registries.running().remove("main");
    bench.ready(&["10.0.0.1", "10.0.0.2"]);
    let finished = bench.pass().await;
    assert_eq!(bench.etcd().records(), before, "its session may begin at any moment");
    let Action::RequeueAfter(wait) = finished.action else { panic!("{finished:?}") };
    bench.after(wait).await;
    bench.pass().await;
    assert_eq!(bench.keys("other"), ["/echo/10.0.0.1:80"], "what lives stays, what ended goes, and nothing is added");
}

/// A RegisteredService that is gone says nothing of the ServiceRegistry that it named.
#[tokio::test(start_paused = true)]
async fn records_of_a_registered_service_that_is_gone_wait_for_the_session_of_their_service_registry_too() {
    let mut bench = bench_side_by_side(&["main", "other"]).await;
    bench.ready(&["10.0.0.1"]);
    bench.pass().await;
    bench.controller.views.registries.running().remove("main");
    bench.unregister();
    let finished = bench.pass().await;
    assert_eq!(bench.keys("other"), ["/echo/10.0.0.1:80"]);
    let Action::RequeueAfter(wait) = finished.action else { panic!("{finished:?}") };
    bench.after(wait).await;
    bench.pass().await;
    assert!(bench.keys("other").is_empty(), "{:?}", bench.keys("other"));
}

/// Two ServiceRegistries have records of one RegisteredService under one name, and another name is its own now.
#[tokio::test(start_paused = true)]
async fn of_a_name_with_records_of_two_service_registries_each_withdraws_its_own() {
    let mut bench = bench_side_by_side(&["main", "other"]).await;
    bench.ready(&["10.0.0.1"]);
    bench.pass().await;
    bench.register(&serde_json::json!({"registryRef": {"name": "other"}}));
    bench.ready(&["10.0.0.1", "10.0.0.2"]);
    bench.pass().await;
    let lease = |bench: &Bench, key: &str| bench.etcd().records()[key].lease;
    let [one, two] = ["/echo/10.0.0.1:80", "/echo/10.0.0.2:80"];
    assert_ne!(lease(&bench, one), lease(&bench, two), "the first one stays on the lease of its writer");
    bench.register(&serde_json::json!({"registryRef": {"name": "other"}, "registryName": "echo2"}));
    bench.handle("other").asked.set_registered(["echo", "echo2"].map(|name| RegistryName::new(name).unwrap()).into());
    bench.after(std::time::Duration::from_secs(1)).await;
    bench.handle("other").confirm_sole(None);
    bench.ready(&["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
    bench.pass().await;
    assert_eq!(bench.keys("main"), [one, two], "nothing is added where another one has keys");
    bench.ready(&[]);
    bench.pass().await;
    bench.pass().await;
    assert_eq!(bench.keys("main"), [two], "the other one cannot withdraw its own at the moment");
    bench.handle("other").confirm_sole(bench.handle("other").etcd());
    bench.pass().await;
    assert!(bench.keys("main").is_empty(), "{:?}", bench.keys("main"));
}

/// The session of a ServiceRegistry that is gone ended before it had withdrawn everything.
#[tokio::test(start_paused = true)]
async fn what_nobody_claims_any_more_is_withdrawn_and_not_taken_over() {
    let mut bench = bench_side_by_side(&["main", "other"]).await;
    bench.ready(&["10.0.0.1"]);
    bench.pass().await;
    bench.controller.views.registries.running().remove("main");
    bench.controller.views.cluster().service_registries.remove("main");
    bench.ready(&["10.0.0.1", "10.0.0.2"]);
    bench.pass().await;
    assert!(bench.keys("other").is_empty(), "{:?}", bench.keys("other"));
}

/// A RegisteredService that refers to another ServiceRegistry now leaves the place that was its own.
#[tokio::test(start_paused = true)]
async fn a_former_place_of_the_same_keys_goes_on_until_everything_has_moved() {
    let mut bench = bench_side_by_side(&["main", "other"]).await;
    bench.ready(&["10.0.0.1"]);
    bench.pass().await;
    let lease = bench.etcd().records()["/echo/10.0.0.1:80"].lease;
    bench.register(&serde_json::json!({"registryRef": {"name": "other"}, "registryName": "echo2"}));
    bench.handle("other").asked.set_registered(["echo", "echo2"].map(|name| RegistryName::new(name).unwrap()).into());
    bench.after(std::time::Duration::from_secs(1)).await;
    bench.handle("other").confirm_sole(None);
    bench.ready(&["10.0.0.1", "10.0.0.2"]);
    bench.pass().await;
    assert_eq!(bench.keys("main"), ["/echo/10.0.0.1:80", "/echo/10.0.0.2:80"], "the new place cannot be written");
    assert!(bench.etcd().records().values().all(|record| record.lease == lease));
    bench.handle("other").confirm_sole(bench.handle("other").etcd());
    bench.pass().await;
    bench.pass().await;
    assert_eq!(bench.keys("main"), ["/echo2/10.0.0.1:80", "/echo2/10.0.0.2:80"]);
    assert!(bench.etcd().records().values().all(|record| record.lease != lease));
}
