use super::bench::{bench_side_by_side, key};
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
    for (shares, records) in [(true, 1), (false, 2)] {
        let mut bench = bench_side_by_side(&["main", "other"]).await;
        bench.ready(&["10.0.0.1"]);
        bench.pass().await;
        bench.replace_by_one_without_a_session("main");
        bench.handle("main").set_server(ServerStatus { cluster_id: 99, version: String::new() });
        if shares {
            bench.share_an_endpoint(&["main", "other"]);
        }
        bench.ready(&["10.0.0.1", "10.0.0.2"]);
        bench.pass().await;
        assert_eq!(bench.keys("other").len(), records, "another etcd is a former place");
    }
}
