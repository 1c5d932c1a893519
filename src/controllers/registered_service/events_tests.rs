use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use twinspan_core::model::{InstanceAddr, LeaseId};
use twinspan_core::plan::departure::Answer;

use super::bench::{STATUS_PACE, bench, key, settle};
use crate::controllers::queue::Action;
use crate::probe::Prober;

#[tokio::test(start_paused = true)]
async fn each_direction_tells_its_changes_at_once_and_then_sums_them_up() {
    let mut bench = bench(&["main"]).await;
    bench.ready(&["10.0.0.1"]);
    bench.server_registers("192.0.2.7:9000").await;
    bench.pass().await;
    bench.after(STATUS_PACE).await;
    let events = bench.events();
    assert_eq!(events[..2], ["Exported: exported +1 -0; 1 in all", "Imported: imported +1 -0; 1 in all"]);
    // The server listens on another port than the pod.
    let risks: Vec<&str> = events[2..].iter().filter_map(|event| event.split(':').next()).collect();
    assert_eq!(risks, ["SecondSlice", "PortDiffers"]);
    bench.ready(&["10.0.0.2", "10.0.0.3"]);
    assert_eq!(bench.pass().await.action, Action::Await, "no pass runs because an Event waits");
    bench.after(STATUS_PACE).await;
    bench.ready(&["10.0.0.2", "10.0.0.3", "10.0.0.4"]);
    bench.pass().await;
    assert_eq!(bench.events(), [""; 0]);
    bench.after(Duration::from_secs(30)).await;
    assert_eq!(bench.events(), ["Exported: exported +3 -1; 3 in all"]);
    bench.after(Duration::from_secs(60)).await;
    bench.pass().await;
    assert_eq!(bench.events(), [""; 0], "nothing changed");
}

#[tokio::test(start_paused = true)]
async fn a_reason_to_skip_is_told_once() {
    let bench = bench(&["main"]).await;
    bench.server_registers("127.0.0.1:80").await;
    bench.pass().await;
    assert_eq!(bench.events(), ["InstanceSkipped: LoopbackAddress: 127.0.0.1:80; status.differences has more"]);
    bench.server_registers("127.0.0.1:81").await;
    bench.pass().await;
    assert_eq!(bench.events(), [""; 0]);
    bench.server_registers("224.0.0.1:80").await;
    bench.pass().await;
    bench.server_registers("0.0.0.0:80").await;
    bench.pass().await;
    bench.after(Duration::from_secs(30)).await;
    let both =
        "InstanceSkipped: UnspecifiedAddress: 0.0.0.0:80, MulticastAddress: 224.0.0.1:80; status.differences has more";
    assert_eq!(bench.events(), [both]);
    bench.after(Duration::from_secs(30)).await;
    for times in 1..=2 {
        bench.etcd().delete(&["p/echo/224.0.0.1:80"]);
        settle().await;
        bench.pass().await;
        bench.server_registers("224.0.0.1:80").await;
        bench.pass().await;
        bench.after(Duration::from_secs(31)).await;
        let events = bench.events();
        let once = ["InstanceSkipped: MulticastAddress: 224.0.0.1:80; status.differences has more", "again"][times - 1];
        assert_eq!(events, [once], "it had gone in between");
    }

    // The leader before has told it, as the status shows.
    bench.after(STATUS_PACE).await;
    bench.controller.checkpoints.remove(&key());
    bench.pass().await;
    bench.after(Duration::from_secs(31)).await;
    assert_eq!(bench.events(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn what_stands_by_and_what_gives_way_to_this_clusters_own_is_told_as_no_loss() {
    let mut bench = bench(&["main"]).await;
    let clusters = json!({"preference": "LocalFirst"});
    bench.register(&json!({"registryRef": {"name": "main"}, "import": {"otherClusters": "All", "clusters": clusters}}));
    let tags = json!({"twinspan.dev/owner": "c2/shop/echo"});
    let value = json!({"network": "tcp", "address": "192.0.2.9:80", "weight": 10, "tags": tags});
    bench.etcd().put("p/echo/192.0.2.9:80", &value.to_string(), LeaseId::NONE);
    bench.ready(&["10.0.0.1"]);
    settle().await;
    bench.pass().await;
    assert_eq!(bench.events(), ["Exported: exported +1 -0; 1 in all"]);
    let standing_by = r#"twinspan_skipped_instances{reason="Standby"}"#;
    assert_eq!(bench.metric(standing_by), "1");
    bench.ready(&[]);
    bench.pass().await;
    bench.after(Duration::from_secs(31)).await;
    let events = bench.events();
    assert!(events.contains(&"Imported: imported +1 -0; 1 in all".to_owned()), "{events:?}");
    assert_eq!(bench.metric(standing_by), "0");

    bench.ready(&["10.0.0.1"]);
    let stay = Duration::from_secs(30);
    assert_eq!(bench.pass().await.action, Action::RequeueAfter(stay + Duration::from_millis(5)));
    bench.after(stay).await;
    bench.pass().await;
    assert_eq!(bench.metric(standing_by), "1", "it is gone");
    bench.after(Duration::from_secs(31)).await;
    let events = bench.events();
    assert!(events.iter().all(|event| !event.contains("mported") && !event.contains("Skipped")), "{events:?}");
}

/// A busy writer of the registry makes no Event for each write.
#[tokio::test(start_paused = true)]
async fn bad_records_that_come_and_go_are_told_now_and_then() {
    let bench = bench(&["main"]).await;
    let mut told = Vec::new();
    for n in 0..60 {
        let address = format!("127.0.0.{}:80", n + 1);
        bench.server_registers(&address).await;
        bench.pass().await;
        bench.etcd().delete(&[&format!("p/echo/{address}")]);
        bench.after(Duration::from_millis(430)).await;
        bench.pass().await;
    }
    bench.after(Duration::from_secs(60)).await;
    told.extend(bench.events());
    assert!((1..=3).contains(&told.len()), "60 in half a minute: {told:?}");
}

#[tokio::test(start_paused = true)]
async fn a_rejection_is_told_once_and_another_one_again() {
    let bench = bench(&["main"]).await;
    let rejected = |name: &str| json!({"registryRef": {"name": name}});
    bench.register(&rejected("nowhere"));
    bench.pass().await;
    let told =
        "NotAccepted: RegistryNotFound: there is no ServiceRegistry nowhere; create it or correct spec.registryRef";
    assert_eq!(bench.events(), [told]);
    assert_eq!(bench.condition("Accepted").0, "False RegistryNotFound");
    assert_eq!(bench.condition("Exported"), ("False NotAccepted".into(), "see the condition Accepted".into()));
    assert_eq!(bench.condition("Ready").0, "False RegistryNotFound");
    assert_eq!(bench.metric(r#"twinspan_reconcile_total{outcome="rejected"}"#), "1");
    bench.after(STATUS_PACE).await;
    bench.pass().await;
    assert_eq!(bench.events(), [""; 0]);
    bench.register(&rejected("elsewhere"));
    bench.pass().await;
    bench.after(Duration::from_secs(30)).await;
    assert_eq!(bench.events().len(), 1);
}

/// An Event that was told does not depend on a status that waits to be written.
#[tokio::test(start_paused = true)]
async fn a_rejection_and_a_hold_are_told_once_while_no_status_can_be_written() {
    let bench = bench(&["main"]).await;
    bench.server_registers("192.0.2.7:9000").await;
    bench.server_registers("192.0.2.8:9000").await;
    bench.pass().await;
    bench.events();
    bench.api.refuse("/status", 500);
    bench.etcd().delete(&["p/echo/192.0.2.7:9000", "p/echo/192.0.2.8:9000"]);
    for _ in 0..10 {
        bench.after(Duration::from_secs(10)).await;
        bench.pass().await;
    }
    let events = bench.events();
    assert_eq!(events.len(), 1, "{events:?}");
    assert!(events[0].starts_with("DeletionsHeld: "), "{events:?}");
    bench.register(&json!({"registryRef": {"name": "nowhere"}}));
    for _ in 0..10 {
        bench.after(Duration::from_secs(10)).await;
        bench.pass().await;
    }
    let events = bench.events();
    assert_eq!(events.len(), 1, "{events:?}");
    assert!(events[0].starts_with("NotAccepted: RegistryNotFound"), "{events:?}");
}

#[tokio::test(start_paused = true)]
async fn a_hold_is_told_once_with_the_annotation_that_releases_it() {
    let mut bench = bench(&["main"]).await;
    bench.server_registers("192.0.2.7:9000").await;
    bench.server_registers("192.0.2.8:9000").await;
    bench.pass().await;
    bench.events();
    bench.after(STATUS_PACE).await;
    bench.etcd().delete(&["p/echo/192.0.2.7:9000", "p/echo/192.0.2.8:9000"]);
    settle().await;
    let action = bench.pass().await.action;
    assert!(matches!(action, Action::RequeueAfter(wait) if wait <= Duration::from_secs(301)), "{action:?}");
    assert_eq!(bench.metric("twinspan_held_deletions"), "2");
    let (held, message) = bench.condition("DeletionsHeld");
    assert_eq!(held, "True Held");
    let annotation = message.split_whitespace().find(|word| word.starts_with("twinspan.dev/")).unwrap().to_owned();
    let events = bench.events();
    assert_eq!(events.len(), 1, "{events:?}");
    assert!(events[0].starts_with("DeletionsHeld: 2 deletions are held until "), "{events:?}");
    assert!(events[0].contains(&annotation), "{events:?} {annotation}");
    bench.after(STATUS_PACE).await;
    bench.pass().await;
    assert_eq!(bench.events(), [""; 0]);

    // Another process finds the hold in the status, and goes on with it without another Event.
    bench.controller.checkpoints.remove(&key());
    bench.controller.writers.metrics = Arc::default();
    bench.pass().await;
    assert_eq!((bench.events(), bench.condition("DeletionsHeld").0.as_str()), (vec![], "True Held"));

    let (name, hash) = annotation.split_once('=').unwrap();
    bench.annotate(name, hash);
    bench.after(Duration::from_secs(31)).await;
    bench.pass().await;
    assert_eq!(bench.condition("DeletionsHeld").0, "False NothingHeld");
    assert_eq!(bench.events(), ["Imported: imported +0 -2; 0 in all"]);
    assert_eq!(bench.metric("twinspan_held_deletions"), "0");
}

struct Alive;

#[async_trait]
impl Prober for Alive {
    async fn probe(&self, _: InstanceAddr) -> Answer {
        Answer::Accepted
    }
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_lost_its_registration_is_probed_and_told_once() {
    let bench = bench(&["main"]).await;
    let (views, stop) = (&bench.controller.views, CancellationToken::new());
    let (events, _probed) = mpsc::unbounded_channel();
    let leadership = bench.controller.writers.leadership.clone();
    tokio::spawn(views.probes.clone().run(Arc::new(Alive), leadership, events, views.env.clone(), stop.clone()));
    let lease = LeaseId(77);
    bench.etcd().grant_for(lease, Duration::from_secs(3600));
    let value = json!({"network": "tcp", "address": "192.0.2.7:9000", "weight": 10, "tags": {}}).to_string();
    bench.etcd().put("p/echo/192.0.2.7:9000", &value, lease);
    bench.server_registers("192.0.2.8:9000").await;
    bench.pass().await;
    bench.events();
    bench.etcd().revoke(lease);
    bench.after(Duration::from_secs(1)).await;
    bench.pass().await;
    bench.after(STATUS_PACE).await;
    bench.pass().await;
    let told =
        "LostRegistration: 192.0.2.7:9000 lost its registration and lives; it is kept while it accepts connections";
    assert_eq!(bench.events(), [told]);
    bench.after(STATUS_PACE).await;
    assert_eq!(bench.status().instances.lost, 1);
    assert_eq!(bench.metric("twinspan_lost_instances"), "1");
    bench.after(Duration::from_secs(31)).await;
    bench.pass().await;
    assert_eq!(bench.events(), [""; 0]);
    bench.unregister();
    bench.pass().await;
    assert_eq!(bench.metric("twinspan_lost_instances"), "0");
    stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn events_are_the_leaders_alone() {
    let mut bench = bench(&["main"]).await;
    bench.controller.writers.leadership.lost();
    bench.ready(&["10.0.0.1"]);
    bench.server_registers("127.0.0.1:80").await;
    bench.register(&json!({"registryRef": {"name": "nowhere"}}));
    bench.pass().await;
    bench.register(&json!({"registryRef": {"name": "main"}}));
    bench.pass().await;
    assert_eq!(bench.events(), [""; 0]);
}
