use std::sync::Arc;

use serde_json::{Value, json};

use super::bench::{Bench, SLICES, STATUS_PACE, bench};
use crate::leadership::Leadership;

/// A RegisteredService that has a record and a slice, whose administrator then takes the name back.
async fn revoked(spec: &Value) -> Bench {
    let mut bench = bench(&["main"]).await;
    bench.ready(&["10.0.0.1"]);
    bench.server_registers("192.0.2.7:9000").await;
    bench.pass().await;
    assert_eq!((bench.keys("main").len(), bench.api.take(SLICES).len()), (2, 1));
    bench.register(spec);
    bench.after(STATUS_PACE).await;
    bench.pass().await;
    assert_eq!(bench.keys("main").len(), 2, "{spec}: the name is allowed");
    assert_eq!(bench.api.take(SLICES), []);
    bench.allow("main", &["other"]);
    bench.after(STATUS_PACE).await;
    bench
}

#[tokio::test(start_paused = true)]
async fn a_name_that_was_taken_back_goes_whatever_the_spec_says() {
    for more in [
        json!({}),
        json!({"suspend": true}),
        json!({"policy": "Observe"}),
        json!({"service": {"ports": [{"name": "rpc", "scheme": "http"}]}}),
        json!({"suspend": true, "service": {"ports": [{"name": "nowhere"}]}}),
    ] {
        let mut spec = more.clone();
        spec["registryRef"] = json!({"name": "main"});
        let bench = revoked(&spec).await;
        bench.pass().await;
        assert_eq!(bench.keys("main"), ["p/echo/192.0.2.7:9000"], "{more}");
        let slices = bench.api.take(SLICES);
        assert_eq!((slices.len(), slices[0].method.as_str()), (1, "DELETE"), "{more}");
        assert_eq!(bench.condition("Accepted").0, "False NotAllowed", "{more}");
        bench.pass().await;
        assert_eq!(bench.api.take(SLICES), [], "{more}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_name_that_was_taken_back_goes_from_a_namespace_that_is_being_deleted_too() {
    let bench = revoked(&json!({"registryRef": {"name": "main"}, "suspend": true})).await;
    {
        let mut view = bench.controller.views.cluster();
        Arc::make_mut(view.namespaces.get_mut("shop").unwrap()).deleting = true;
    }
    bench.pass().await;
    assert_eq!(bench.keys("main"), ["p/echo/192.0.2.7:9000"]);
    assert_eq!(bench.condition("Accepted").0, "False NotAllowed");
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_withdraws_nothing_either() {
    let mut bench = revoked(&json!({"registryRef": {"name": "main"}, "suspend": true})).await;
    let leadership = Leadership::dry_run();
    leadership.acquired();
    bench.run_as(&leadership);
    bench.pass().await;
    assert_eq!((bench.keys("main").len(), bench.api.take(SLICES)), (2, Vec::new()));
}

#[tokio::test(start_paused = true)]
async fn a_former_name_or_registry_is_no_refuge() {
    for to in [
        json!({"registryRef": {"name": "main"}, "registryName": "other", "suspend": true}),
        json!({"registryRef": {"name": "second"}, "policy": "Observe"}),
        json!({"registryRef": {"name": "second"}, "registryName": "a/b", "suspend": true}),
        json!({"registryRef": {"name": "second"}, "service": {"ports": [{"name": "rpc", "scheme": "http"}]}}),
    ] {
        let mut bench = bench(&["main", "second"]).await;
        bench.ready(&["10.0.0.1"]);
        bench.pass().await;
        bench.register(&to);
        bench.pass().await;
        assert_eq!(bench.keys("main"), ["p/echo/10.0.0.1:80"], "{to}");
        bench.allow("main", &["other"]);
        bench.pass().await;
        assert_eq!((bench.keys("main").len(), bench.keys("second").len()), (0, 0), "{to}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_move_away_from_a_name_that_was_taken_back_waits_for_nothing() {
    let mut bench = bench(&["main"]).await;
    bench.ready(&["10.0.0.1"]);
    bench.pass().await;
    bench.register(&json!({"registryRef": {"name": "main"}, "registryName": "other"}));
    bench.allow("main", &["other"]);
    bench.pass().await;
    assert_eq!(bench.keys("main"), ["p/other/10.0.0.1:80"]);
}
