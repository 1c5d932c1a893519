use std::time::Duration;

use serde_json::{Value, json};
use twinspan_core::model::LeaseId;

use super::bench::{Bench, STATUS_PACE, bench, settle};
use crate::api::conditions::{SHARE_LIMITED, find};
use crate::registry::handle::RegistryEvent;
use crate::registry::testing::Faults;

/// Two pods with a share, which import nothing.
async fn with_share(percent: i32) -> Bench {
    let mut bench = bench(&["main"]).await;
    let export = json!({"share": percent});
    bench.register(&json!({"registryRef": {"name": "main"}, "direction": "Export", "export": export}));
    bench.ready(&["10.0.0.1", "10.0.0.2"]);
    bench
}

async fn server(bench: &Bench, address: &str, weight: i64) {
    let value = json!({"network": "tcp", "address": address, "weight": weight, "tags": {}});
    bench.etcd().put(&format!("p/echo/{address}"), &value.to_string(), LeaseId::NONE);
    settle().await;
}

/// The weights of own records, in the order of their addresses.
fn weights(bench: &Bench) -> Vec<i64> {
    let records = bench.etcd().records();
    let values = records.values().map(|record| serde_json::from_slice::<Value>(&record.value).unwrap());
    let own = values.filter(|value| value["tags"]["twinspan.dev/owner"].is_string());
    own.map(|value| value["weight"].as_i64().unwrap()).collect()
}

fn is_told(bench: &mut Bench) -> bool {
    let mut told = false;
    while let Ok(event) = bench.events.try_recv() {
        if let RegistryEvent::Affected { affected, by: None, .. } = event {
            told |= affected.names.iter().any(|name| &**name == b"echo");
        }
    }
    told
}

#[tokio::test(start_paused = true)]
async fn weights_follow_the_records_of_others_and_a_restart_writes_nothing() {
    let mut bench = with_share(50).await;
    server(&bench, "192.0.2.7:9000", 100).await;
    bench.pass().await;
    assert_eq!(weights(&bench), [50, 50]);
    is_told(&mut bench);
    // A service that only exports is told of another weight.
    server(&bench, "192.0.2.7:9000", 200).await;
    assert!(is_told(&mut bench));
    bench.pass().await;
    assert_eq!(weights(&bench), [100, 100]);
    is_told(&mut bench);
    bench.etcd().delete(&["p/echo/192.0.2.7:9000"]);
    settle().await;
    assert!(is_told(&mut bench));
    server(&bench, "192.0.2.8:9000", 190).await;
    bench.pass().await;
    assert_eq!(weights(&bench), [100, 100], "51.3 %");
    let revision = bench.etcd().revision();
    let bench = bench.restarted(0).await;
    bench.pass().await;
    assert_eq!((weights(&bench), bench.etcd().revision()), (vec![100, 100], revision));
}

#[tokio::test(start_paused = true)]
async fn where_nothing_is_written_no_weight_is() {
    let bench = with_share(50).await;
    server(&bench, "192.0.2.7:9000", 100).await;
    bench.pass().await;
    let spec = |extra: Value| {
        let mut spec = json!({"registryRef": {"name": "main"}, "direction": "Export", "export": {"share": 50}});
        spec.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        spec
    };
    for extra in [json!({"suspend": true}), json!({"policy": "Observe"})] {
        bench.register(&spec(extra));
        server(&bench, "192.0.2.7:9000", 400).await;
        bench.pass().await;
        bench.after(STATUS_PACE).await;
        assert_eq!(weights(&bench), [50, 50]);
        assert_eq!(bench.condition("Exported").0, "False NotWritten");
    }
    bench.stand_by();
    bench.register(&spec(json!({})));
    bench.pass().await;
    assert_eq!(weights(&bench), [50, 50], "only a leader writes");
    bench.lead();
    bench.pass().await;
    assert_eq!(weights(&bench), [200, 200]);
}

#[tokio::test(start_paused = true)]
async fn a_share_that_cannot_be_reached_is_a_condition_until_it_can_be() {
    let bench = with_share(10).await;
    server(&bench, "192.0.2.7:9000", 8).await;
    bench.pass().await;
    assert_eq!(weights(&bench), [1, 1]);
    let (status, message) = bench.condition(SHARE_LIMITED);
    assert_eq!(status, "True ForeignWeightsTooLow");
    let expected = "weights of 1 give the exported instances 20.0 % instead of 10 %; give each foreign record a weight of 18 or more, or \
                    run fewer pods";
    assert_eq!(message, expected);
    assert_eq!(bench.condition("Ready").0, "True Synced");
    // The condition outlasts a registry that is away.
    bench.etcd().set_faults(Faults { away: true, ..Faults::default() });
    bench.after(Duration::from_secs(60)).await;
    bench.pass().await;
    bench.after(STATUS_PACE).await;
    assert_eq!(bench.condition("Exported").0, "Unknown RegistryUnavailable");
    assert_eq!(bench.condition(SHARE_LIMITED), (status, message));
    bench.etcd().set_faults(Faults::default());
    bench.after(Duration::from_secs(60)).await;
    server(&bench, "192.0.2.7:9000", 18).await;
    bench.pass().await;
    bench.after(STATUS_PACE).await;
    assert_eq!(find(&bench.status().conditions, SHARE_LIMITED), None);
}
