use serde_json::json;

use super::bench::{SLICES, bench};
use crate::controllers::queue::{Action, Finished};


#[tokio::test(start_paused = true)]
async fn one_pass_writes_both_sides_and_the_next_one_nothing() {
    let mut bench = bench(&["main"]).await;
    bench.ready(&["10.0.0.1"]);
    bench.server_registers("192.0.2.7:9000").await;
    assert_eq!(bench.pass().await, Finished { action: Action::Await, keep_trigger_time: false });
    assert_eq!(bench.keys("main"), ["p/echo/10.0.0.1:80", "p/echo/192.0.2.7:9000"]);
    let slices = bench.api.take(SLICES);
    assert_eq!(slices.len(), 1, "{slices:?}");
    assert_eq!(slices[0].method, "POST");
    assert_eq!(slices[0].body["endpoints"][0]["addresses"], json!(["192.0.2.7"]));
    assert_eq!(slices[0].body["metadata"]["ownerReferences"][0]["uid"], "uid-1");
    assert_eq!(bench.metric(r#"twinspan_reconcile_total{outcome="synced"}"#), "1");
    assert_eq!(bench.metric(r#"twinspan_writes_total{side="registry",op="create",result="ok"}"#), "1");
    assert_eq!(bench.metric(r#"twinspan_writes_total{side="cluster",op="create",result="ok"}"#), "1");

    bench.api.take("");
    let revision = bench.etcd().revision();
    bench.pass().await;
    bench.pass().await;
    assert_eq!(bench.etcd().revision(), revision);
    assert_eq!(bench.api.take(SLICES), []);
    assert_eq!(bench.metric(r#"twinspan_reconcile_total{outcome="unchanged"}"#), "2");
}
