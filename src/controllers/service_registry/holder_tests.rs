use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::bench::{Bench, bench, etcd, put_own, registry};
use crate::api::{APPROVE_HOLDER, APPROVE_WITHDRAWAL};
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
async fn a_release_goes_on_until_the_status_names_the_next_one_and_leaves_its_records() {
    for is_limited in [true, false] {
        put_own(&etcd(MAIN), "p/echo/10.0.0.1:80", LeaseId::NONE);
        let bench = of_release(is_limited);
        bench.put(registry("main", 1, &held_by(Some("team-a"), None))).await;
        assert!(bench.handle("main").is_some(), "{is_limited}");
        bench.put(registry("main", 1, &held_by(Some("team-a"), Some("team-b")))).await;
        bench.after(Duration::from_secs(60)).await;
        assert!(bench.handle("main").is_some(), "{is_limited}: the next one may never begin");
        assert_eq!(bench.status("main").holder.as_deref(), Some("team-a"));
        bench.api.take("");
        bench.put(registry("main", 1, &held_by(Some("team-b"), Some("team-b")))).await;
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

#[tokio::test(start_paused = true)]
async fn over_the_whole_cluster_too_a_release_that_another_one_follows_stops() {
    let bench = of_release(false);
    bench.put(registry("main", 1, &json!({}))).await;
    assert_eq!(bench.status("main").holder.as_deref(), Some("team-a"));
    bench.api.take("");
    bench.put(registry("main", 1, &held_by(Some("team-b"), None))).await;
    bench.after(Duration::from_secs(60)).await;
    assert!(bench.handle("main").is_none());
    assert_eq!(bench.api.take("serviceregistries").len(), 0, "they would write it in turns");
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_comes_too_late_overwrites_none() {
    let bench = of_release(true);
    let at = |version: &str, holder: Option<&str>| {
        registry("main", 1, &json!({"metadata": {"resourceVersion": version}, "status": {"holder": holder}}))
    };
    let path = "/apis/twinspan.dev/v1alpha1/serviceregistries/main";
    bench.api.put(path, serde_json::to_value(at("2", Some("team-b"))).unwrap());
    // The watch is late.
    bench.views.cluster().service_registries.insert("main".into(), Arc::new(at("1", None)));
    bench.cluster_shows(ClusterEvent::ServiceRegistry("main".into())).await;
    bench.after(Duration::from_secs(60)).await;
    assert!(!bench.api.take("serviceregistries").is_empty(), "it was tried");
    assert_eq!(bench.api.object(path).unwrap()["status"]["holder"], "team-b");
    assert!(bench.handle("main").is_none());
}

#[tokio::test(start_paused = true)]
async fn the_status_of_another_cluster_id_tells_nothing_of_our_registry() {
    let bench = of_release(true);
    let held = json!({"type": "DeletionsHeld", "status": "True", "reason": "Held", "message": "12 instances",
        "lastTransitionTime": "2026-01-01T11:59:00Z"});
    let status = json!({
        "holder": "team-b", "clusterID": "team-b", "epochInUse": "7/somebody", "returnedAs": "RolledBack",
        "etcd": {"clusterID": "a", "version": "3.6.0", "revisionAtLastSession": 1_000_000, "epoch": 900},
        "hold": {"since": "2026-01-01T11:59:00Z", "until": "2026-01-01T12:04:00Z", "hash": "0a1b"},
        "conditions": [held], "leaseTTLs": [60],
    });
    let changes = json!({"metadata": {"annotations": {APPROVE_HOLDER: "team-a"}}, "status": status});
    bench.put(registry("main", 1, &changes)).await;
    bench.after(Duration::from_secs(20)).await;
    assert_eq!(bench.conditions("main"), ["True Connected", "True Connected", "True Synced"]);
    let status = bench.status("main");
    assert_eq!((status.holder.as_deref(), status.cluster_id.as_deref()), (Some("team-a"), Some("c1")));
    assert_eq!((status.returned_as, status.epoch_in_use, status.hold), (None, None, None));
}

#[tokio::test(start_paused = true)]
async fn records_of_namespaces_out_of_sight_are_told_until_a_person_lets_them_go() {
    for n in 0..7 {
        let tags = json!({"twinspan.dev/owner": format!("c1/pay-{n}/echo")});
        let value = json!({"network": "tcp", "address": format!("10.0.0.{n}:80"), "weight": 10, "tags": tags});
        etcd(MAIN).put(&format!("p/echo/10.0.0.{n}:80"), &value.to_string(), LeaseId::NONE);
    }
    let bench = of_release(true);
    bench.put(registry("main", 1, &held_by(Some("team-a"), None))).await;
    bench.after(Duration::from_secs(20)).await;
    let told = bench.message("main", "Ready");
    assert!(told.contains("does not look there: pay-0, pay-1, pay-2, pay-3, pay-4, 2 more;"), "{told}");
    let mut object = registry("main", 1, &held_by(Some("team-a"), None));
    let let_go = "pay-0,pay-1,pay-2, pay-3,pay-4,pay-5,pay-6";
    object.metadata.annotations = Some([(APPROVE_WITHDRAWAL.to_owned(), let_go.to_owned())].into());
    bench.put(object).await;
    bench.after(Duration::from_secs(20)).await;
    assert_eq!(bench.message("main", "Ready"), "");
}
