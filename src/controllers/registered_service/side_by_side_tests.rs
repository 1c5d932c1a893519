use super::bench::bench_side_by_side;

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
