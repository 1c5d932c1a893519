use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use super::bench::{Bench, bench, etcd, put_own, registry};
use crate::api::APPROVE_HOLDER;
use crate::cluster::reach::{Limits, Reach};
use crate::cluster::view::{ClusterEvent, Kind};
use twinspan_core::model::LeaseId;

const MAIN: &str = "http://main:2379";

/// The release of a namespace, in namespaced mode or not.
fn of_release(is_limited: bool) -> Bench {
    let bench = bench();
    let limits = Limits { namespaces: ["shop".to_owned()].into(), cluster_id: "c1".into(), ..Limits::default() };
    let reach =
        Reach { release: Some("team-a".into()), registries: BTreeSet::new(), limits: is_limited.then_some(limits) };
    {
        let mut view = bench.views.cluster();
        view.set_reach(reach);
        for kind in Kind::ALL {
            for part in view.reach().parts(kind) {
                view.watching.set_listed(kind, &part);
            }
        }
    }
    bench
}

fn held_by(holder: Option<&str>, approved: Option<&str>) -> Value {
    let mut changes = json!({"status": {"holder": holder}});
    if let Some(approved) = approved {
        changes["metadata"] = json!({"annotations": {APPROVE_HOLDER: approved}});
    }
    changes
}

#[tokio::test(start_paused = true)]
async fn in_namespaced_mode_a_session_begins_once_the_status_names_its_release() {
    let bench = of_release(true);
    bench.api.refuse("serviceregistries", 503);
    bench.put(registry("main", 1, &json!({}))).await;
    assert!(bench.handle("main").is_none(), "the status could not be written");
    bench.api.accept();
    bench.after(Duration::from_secs(60)).await;
    assert_eq!(bench.status("main").holder.as_deref(), Some("team-a"));
    assert!(bench.handle("main").is_some());
}

#[tokio::test(start_paused = true)]
async fn what_another_release_holds_has_neither_session_nor_status_of_ours_until_it_is_handed_over() {
    etcd(MAIN);
    let bench = of_release(true);
    bench.put(registry("main", 1, &held_by(Some("team-b"), None))).await;
    bench.after(Duration::from_secs(60)).await;
    assert!(bench.handle("main").is_none());
    assert_eq!(bench.api.take("serviceregistries").len(), 0, "no status was written");
    bench.put(registry("main", 1, &held_by(Some("team-b"), Some("team-a")))).await;
    bench.after(Duration::from_secs(10)).await;
    assert_eq!(bench.status("main").holder.as_deref(), Some("team-a"));
    assert!(bench.handle("main").is_some());
}

#[tokio::test(start_paused = true)]
async fn a_release_that_is_told_to_hand_over_stops_and_leaves_its_records() {
    for is_limited in [true, false] {
        put_own(&etcd(MAIN), "p/echo/10.0.0.1:80", LeaseId::NONE);
        let bench = of_release(is_limited);
        bench.put(registry("main", 1, &held_by(Some("team-a"), None))).await;
        assert!(bench.handle("main").is_some(), "{is_limited}");
        bench.api.take("");
        bench.put(registry("main", 1, &held_by(Some("team-a"), Some("team-b")))).await;
        bench.after(Duration::from_secs(60)).await;
        assert!(bench.handle("main").is_none(), "{is_limited}");
        assert_eq!(bench.api.take("serviceregistries").len(), 0, "{is_limited}");
        assert!(etcd(MAIN).records().contains_key("p/echo/10.0.0.1:80"), "{is_limited}");
    }
}

#[tokio::test(start_paused = true)]
async fn over_the_whole_cluster_the_holder_before_is_gone_and_is_followed_at_once() {
    let bench = of_release(false);
    bench.put(registry("main", 1, &held_by(Some("twinspan-before"), None))).await;
    assert!(bench.handle("main").is_some());
    assert_eq!(bench.status("main").holder.as_deref(), Some("team-a"));
}

#[tokio::test(start_paused = true)]
async fn a_release_in_namespaced_mode_has_one_cluster_id() {
    let bench = of_release(true);
    bench.put(registry("main", 1, &json!({"spec": {"clusterID": "c2"}}))).await;
    bench.cluster_shows(ClusterEvent::ServiceRegistry("main".into())).await;
    bench.after(Duration::from_secs(10)).await;
    assert!(bench.handle("main").is_none());
    assert!(bench.message("main", "Connected").starts_with("spec.clusterID is c2, and the release"));
}
