use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use twinspan_core::model::LeaseId;

use super::Command;
use super::bench::{STATUS_PACE, alias, bench, bench_of, echo, etcd, put_own, registry, sessions_only};
use crate::api::Unreadable;
use crate::cluster::convert::NamespaceView;
use crate::cluster::status_queue::Object;
use crate::cluster::view::{ClusterEvent, ClusterView, Kind};
use crate::leadership::Leadership;
use crate::registry::RegistryError;
use crate::registry::phase::Phase;
use crate::registry::testing::Faults;

const MAIN: &str = "http://main:2379";

#[tokio::test(start_paused = true)]
async fn a_changed_connection_keeps_the_view_and_another_identity_does_not() {
    alias(MAIN, "http://other:2379");
    put_own(&etcd(MAIN), "p/echo/10.0.0.1:80", LeaseId::NONE);
    let bench = bench();
    bench.put(registry("main", 1, &json!({}))).await;
    let first = bench.handle("main").unwrap();
    bench.put(registry("main", 1, &json!({}))).await;
    assert!(Arc::ptr_eq(&first, &bench.handle("main").unwrap()), "nothing changed");
    bench.put(registry("main", 1, &json!({"spec": {"etcd": {"endpoints": ["http://other:2379"]}}}))).await;
    let second = bench.handle("main").unwrap();
    assert!(Arc::ptr_eq(&first, &second));
    assert_eq!((second.status().phase, second.view().counts().own), (Phase::Watching, 1));
    bench.put(registry("main", 1, &json!({"spec": {"prefix": "q"}}))).await;
    assert!(bench.handle("main").is_none(), "its old place is withdrawn first");
    bench.after(Duration::from_secs(31)).await;
    let third = bench.handle("main").unwrap();
    assert!(!Arc::ptr_eq(&first, &third));
    assert_eq!((third.layout.prefix(), third.view().counts().own), ("q", 0));
}

#[tokio::test(start_paused = true)]
async fn names_that_come_later_are_followed_too() {
    etcd(MAIN).put("late/10.0.0.1:80", r#"{"Addr":"10.0.0.1:80"}"#, LeaseId::NONE);
    let bench = bench();
    bench.put(registry("main", 1, &json!({"spec": {"format": "GRPC", "prefix": ""}}))).await;
    let handle = bench.handle("main").unwrap();
    assert_eq!(handle.view().counts().foreign, 0);
    let object = serde_json::from_value(json!({
        "apiVersion": "twinspan.dev/v1alpha1", "kind": "RegisteredService",
        "metadata": {"name": "late", "namespace": "shop", "uid": "uid-2"}, "spec": {"registryRef": {"name": "main"}},
    }));
    bench.views.cluster().index.put(&twinspan_core::model::ServiceKey::new("shop", "late"), &object.unwrap());
    bench.cluster_shows(ClusterEvent::Name { registry: "main".into(), name: "late".into() }).await;
    assert_eq!(handle.view().counts().foreign, 1);
    bench.cluster_shows(ClusterEvent::Name { registry: "nowhere".into(), name: "echo".into() }).await;
}

#[tokio::test(start_paused = true)]
async fn a_viewer_follows_sessions_and_keeps_nothing_alive() {
    etcd(MAIN).grant_for(LeaseId(5), Duration::from_secs(3600));
    put_own(&etcd(MAIN), "p/echo/10.0.0.1:80", LeaseId(5));
    let (bench, stop) = (bench(), CancellationToken::new());
    let views = bench.views.clone();
    views.cluster().service_registries.insert("main".into(), Arc::new(registry("main", 1, &json!({}))));
    let (commands, queue) = mpsc::unbounded_channel();
    let following = tokio::spawn(sessions_only(&views, &stop).follow(queue));
    commands.send(Command::ReconcileAll).unwrap();
    bench.after(Duration::from_secs(120)).await;
    assert_eq!(views.registries.get("main").unwrap().view().counts().own, 1);
    assert_eq!(etcd(MAIN).calls("keep_alive"), 0);
    assert!(!views.registries.get("main").unwrap().is_sole());
    commands.send(Command::Report("main".into())).unwrap();
    commands.send(Command::UpdateName { registry: "main".into(), name: "echo".into() }).unwrap();
    bench.after(Duration::from_secs(1)).await;
    assert!(views.registries.get("main").unwrap().is_sole(), "it has learnt which etcd answers");
    views.cluster().service_registries.remove("main");
    commands.send(Command::Reconcile("main".into())).unwrap();
    bench.after(Duration::from_secs(31)).await;
    assert!(views.registries.all().is_empty());
    drop(commands);
    following.await.unwrap();
}

/// Two that are released at the same moment: the older one learns its etcd between the judgement of the younger one and
/// its own.
#[tokio::test(start_paused = true)]
async fn one_that_learns_its_etcd_while_others_are_judged_is_weighed_all_the_same() {
    alias(MAIN, "http://alias:2379");
    let (bench, stop) = (bench(), CancellationToken::new());
    let shows = |name: &str, day| {
        let object = Arc::new(registry(name, day, &json!({})));
        bench.views.cluster().service_registries.insert(name.into(), object);
    };
    let mut sessions = sessions_only(&bench.views, &stop);
    shows("alias", 2);
    sessions.reconcile("alias");
    bench.after(Duration::from_secs(1)).await;
    sessions.confirm("alias");
    assert!(bench.handle("alias").unwrap().is_sole());
    shows("main", 1);
    sessions.reconcile("main");
    bench.after(Duration::from_secs(1)).await;
    sessions.reconcile_one("main");
    for name in ["alias", "main"] {
        assert!(bench.handle(name).unwrap().is_sole(), "{name}");
    }
    // The event that it knows its etcd comes now.
    assert_eq!(sessions.confirm("main"), ["alias".to_owned(), "main".to_owned()].into());
    assert!(bench.handle("alias").is_none() && bench.handle("main").unwrap().is_sole());
    assert!(sessions.confirm("main").is_empty(), "once");
    stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn an_incomplete_view_of_the_cluster_ends_no_session() {
    let bench = bench();
    bench.put(registry("main", 1, &json!({}))).await;
    *bench.views.cluster() = ClusterView::default();
    let stop = CancellationToken::new();
    let mut sessions = sessions_only(&bench.views, &stop);
    assert_eq!(sessions.names(), ["main".to_owned()].into(), "its session runs");
    sessions.reconcile("main");
    assert!(bench.handle("main").is_some());
}

#[tokio::test(start_paused = true)]
async fn sessions_wait_for_the_kinds_that_make_their_settings_and_for_no_other() {
    etcd(MAIN).grant_for(LeaseId(5), Duration::from_secs(3600));
    put_own(&etcd(MAIN), "p/echo/10.0.0.1:80", LeaseId(5));
    let mut bench = bench();
    *bench.views.cluster() = ClusterView::default();
    bench.views.cluster().set_synced(Kind::ServiceRegistry);
    bench.put(registry("main", 1, &json!({}))).await;
    assert!(bench.handle("main").is_none(), "its Secrets may not be known yet");
    bench.views.cluster().set_synced(Kind::Secret);
    bench.cluster_shows(ClusterEvent::Synced(Kind::Secret)).await;
    assert!(bench.handle("main").is_some());
    assert!(etcd(MAIN).calls("keep_alive") > 0, "no other kind is waited for");
    assert_eq!(bench.queue.take_enqueued(), [], "and no pass runs");

    // Without spec.clusterID the namespace kube-system is needed too.
    bench.put(registry("west", 2, &json!({"spec": {"clusterID": null}}))).await;
    assert!(bench.handle("west").is_none());
    let system = NamespaceView { uid: "u".into(), labels: BTreeMap::new(), export: None, deleting: false };
    bench.views.cluster().namespaces.insert("kube-system".into(), Arc::new(system));
    bench.cluster_shows(ClusterEvent::Namespace("kube-system".into())).await;
    assert_eq!(bench.handle("west").unwrap().cluster_id, "u");
}

fn unreadable(field: &str) -> Arc<Unreadable> {
    let problems = vec![format!("spec.{field}: unknown variant `New`")];
    Arc::new(Unreadable { fields: [field.to_owned()].into(), problems, raw: json!({"spec": {}}) })
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_cannot_be_read_keeps_its_session_where_its_connection_can() {
    let bench = bench();
    bench.views.cluster().unreadable_registries.insert("main".into(), unreadable("allowed"));
    bench.put(registry("main", 1, &json!({}))).await;
    bench.after(STATUS_PACE).await;
    assert!(bench.handle("main").unwrap().connection().is_ok());
    assert_eq!(bench.conditions("main"), ["False NotSupported", "True Connected", "True Synced"]);
    assert!(bench.message("main", "Ready").contains("spec.allowed: unknown variant `New`"));
    assert!(bench.events().iter().any(|event| event.starts_with("main NotAccepted: NotSupported: ")));

    bench.views.cluster().unreadable_registries.insert("west".into(), unreadable("etcd"));
    bench.put(registry("west", 2, &json!({}))).await;
    assert!(bench.handle("west").is_none());
    assert_eq!(bench.conditions("west"), ["False NotSupported"; 3]);

    // A session that runs already goes on.
    let before = bench.handle("main").unwrap();
    bench.views.cluster().unreadable_registries.insert("main".into(), unreadable("etcd"));
    bench.cluster_shows(ClusterEvent::ServiceRegistry("main".into())).await;
    assert!(Arc::ptr_eq(&before, &bench.handle("main").unwrap()) && before.connection().is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_registry_whose_place_cannot_be_read_is_a_duplicate_only_by_its_session() {
    // As the stand-ins have it: Kitex with its default prefix.
    let of = |name, day, format: &str| {
        registry(name, day, &json!({"spec": {"format": format, "prefix": null, "etcd": {"endpoints": [MAIN]}}}))
    };
    let bench = bench();
    // After a restart nothing tells what the older one means.
    bench.views.cluster().unreadable_registries.insert("older".into(), unreadable("format"));
    bench.put(of("older", 1, "Kitex")).await;
    bench.put(of("main", 2, "Kitex")).await;
    let main = bench.handle("main").unwrap();
    assert_eq!(bench.conditions("older"), ["False NotSupported"; 3]);
    assert_eq!(bench.conditions("main")[0], "True Connected");
    assert!(main.connection().is_ok() && main.is_sole());

    // Its session does tell: of an older one, of a younger one, and of one that shares the etcd by its names.
    bench.put(of("zero", 1, "GoZero")).await;
    for (name, day, format) in [("older", 1, "Hertz"), ("younger", 3, "Kratos"), ("names", 4, "GRPC")] {
        bench.views.cluster().unreadable_registries.remove(name);
        bench.put(of(name, day, format)).await;
        let handle = bench.handle(name).unwrap();
        bench.views.cluster().unreadable_registries.insert(name.into(), unreadable("format"));
        bench.put(of(name, day, "Kitex")).await;
        bench.put(of("main", 2, "Kitex")).await;
        for (name, handle) in [(name, &handle), ("main", &main)] {
            assert!(bench.handle(name).is_some_and(|it| Arc::ptr_eq(&it, handle)), "{name}");
            assert!(handle.connection().is_ok() && handle.is_sole(), "{name}");
        }
    }
    bench.put(of("same", 5, "Hertz")).await;
    assert_eq!(bench.conditions("same")[0], "False Conflict", "the session of the older one has the place");
    bench.put(of("oldest", 1, "Kratos")).await;
    assert!(bench.handle("younger").is_none() && bench.handle("oldest").unwrap().is_sole(), "and gives way with it");
}

#[tokio::test(start_paused = true)]
async fn a_status_that_is_not_answered_delays_no_session() {
    let bench = bench();
    bench.api.stall("/serviceregistries/main/status");
    bench.put(registry("main", 1, &json!({}))).await;
    let object = registry("west", 2, &json!({"spec": {"prefix": "q"}}));
    bench.views.cluster().service_registries.insert("west".into(), Arc::new(object));
    let began = tokio::time::Instant::now();
    bench.commands.send(Command::Reconcile("west".into())).unwrap();
    while bench.handle("west").is_none_or(|west| west.connection().is_err()) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_former_ttl_is_known_until_nothing_hangs_on_its_leases() {
    let bench = bench();
    let with_ttl = |ttl: u32| registry("main", 1, &json!({"spec": {"lease": {"ttlSeconds": ttl}}}));
    bench.put(with_ttl(3600)).await;
    bench.after(STATUS_PACE).await;
    let former = bench.handle("main").unwrap().leases.id(7);
    etcd(MAIN).grant_for(former, Duration::from_secs(3600));
    put_own(&etcd(MAIN), "p/echo/10.0.0.1:80", former);
    assert_eq!(bench.status("main").lease_ttls, [3600]);
    let again = |ttl: u32| {
        let mut object = with_ttl(ttl);
        object.status = Some(bench.status("main"));
        object
    };
    for ttl in [60, 120] {
        bench.put(again(ttl)).await;
        bench.after(STATUS_PACE).await;
        assert_eq!(bench.status("main").lease_ttls, [3600, i64::from(ttl)]);
        let handle = bench.handle("main").unwrap();
        assert!(handle.leases.is_ours(former) && handle.leases.is_ours(handle.leases.id(0)));
    }
    etcd(MAIN).delete(&["p/echo/10.0.0.1:80"]);
    bench.after(STATUS_PACE).await;
    bench.put(again(60)).await;
    bench.after(STATUS_PACE).await;
    assert_eq!(bench.status("main").lease_ttls, [60]);
}

#[tokio::test(start_paused = true)]
async fn a_task_of_a_registry_that_breaks_off_begins_again() {
    let breaks_off = |call| etcd(MAIN).set_faults(Faults { breaks_off: Some(call), ..Faults::default() });
    let bench = bench();
    breaks_off("commit");
    let fenced = json!({"spec": {"fence": {"mode": "Epoch", "keyPrefix": "twinspan/"}}});
    bench.put(registry("main", 1, &fenced)).await;
    let handle = bench.handle("main").unwrap();
    assert!(matches!(handle.fence(), Ok(Some(_))), "the take-over");
    let lease = handle.leases.id(0);
    etcd(MAIN).grant_for(lease, handle.leases.ttl());
    put_own(&etcd(MAIN), "p/echo/10.0.0.1:80", lease);
    breaks_off("keep_alive");
    bench.after(3 * handle.leases.ttl()).await;
    assert!(etcd(MAIN).records().contains_key("p/echo/10.0.0.1:80"), "the keepalives");
    breaks_off("page");
    let pages = etcd(MAIN).calls("page");
    bench.after(Duration::from_secs(1200)).await;
    assert!(etcd(MAIN).calls("page") > pages, "the audits");
}

#[tokio::test(start_paused = true)]
async fn a_service_whose_write_was_refused_is_tried_again_soon() {
    let mut bench = bench();
    bench.put(registry("main", 1, &json!({}))).await;
    bench.queue.take_enqueued();
    let full = RegistryError::NoSpace("3 GB".into());
    bench.handle("main").unwrap().record_write_result(&echo(), Some(full));
    bench.after(Duration::from_secs(9)).await;
    assert!(!bench.queue.take_enqueued().contains(&echo()));
    bench.after(Duration::from_secs(2)).await;
    assert!(bench.queue.take_enqueued().contains(&echo()));
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_waits_for_a_finalizer_has_no_session() {
    let bench = bench();
    bench.put(registry("main", 1, &json!({}))).await;
    assert!(bench.handle("main").is_some());
    let waits = json!({"metadata": {"deletionTimestamp": "2026-01-01T12:00:00Z", "finalizers": ["example.org/wait"]}});
    bench.put(registry("main", 1, &waits)).await;
    assert!(bench.handle("main").is_none());
}

/// A registry was emptied and its leader ended before it could raise the epoch again: its successor knows only what the
/// status tells. A backup that is restored later has the former epoch, which must be lower than the successor's.
#[tokio::test(start_paused = true)]
async fn the_highest_epoch_outlives_the_registry_and_the_process() {
    let bench = bench();
    let met = json!({"clusterID": "1", "version": "3.7.3", "revisionAtLastSession": 1, "highestEpoch": 3});
    bench.put(registry("main", 1, &json!({"spec": {"fence": {"mode": "Epoch"}}, "status": {"etcd": met}}))).await;
    assert_eq!(bench.handle("main").unwrap().fence.as_ref().unwrap().highest(), 4, "it raised its own above");
}

/// The session met no epoch. The leader raised it since, and the registry lost it before this replica leads: a backup
/// that comes back has to have a lower one than ours.
#[tokio::test(start_paused = true)]
async fn a_replica_that_does_not_lead_learns_from_the_status_how_often_the_epoch_was_raised() {
    let leadership = Leadership::none();
    let bench = bench_of(leadership.clone());
    let fenced = |status| registry("main", 1, &json!({"spec": {"fence": {"mode": "Epoch"}}, "status": status}));
    bench.put(fenced(json!({}))).await;
    assert_eq!(bench.handle("main").unwrap().fence.as_ref().unwrap().highest(), 0);
    let met = json!({"clusterID": "1", "version": "3.7.3", "revisionAtLastSession": 1, "epoch": 3});
    bench.views.cluster().service_registries.insert("main".into(), Arc::new(fenced(json!({"etcd": met}))));
    bench.cluster_shows(ClusterEvent::StatusChanged(Object::ServiceRegistry("main".into()))).await;
    leadership.acquired();
    bench.after(Duration::from_secs(1)).await;
    let epoch = etcd(MAIN).records().remove("twinspan/c1/main").map(|record| record.value);
    assert_eq!(epoch.as_deref().map(String::from_utf8_lossy).as_deref(), Some("4/me"));
}

#[tokio::test(start_paused = true)]
async fn a_status_that_comes_while_a_session_begins_tells_it_of_the_incarnation_once_it_has_begun() {
    let bench = bench_of(Leadership::none());
    etcd(MAIN).fail_lists("p/", true);
    bench.put(registry("main", 1, &json!({}))).await;
    let met = json!({"clusterID": "0", "version": "3.7.3", "revisionAtLastSession": 1, "incarnation": "a", "epoch": 3});
    let object = registry("main", 1, &json!({"status": {"etcd": met}}));
    bench.views.cluster().service_registries.insert("main".into(), Arc::new(object));
    bench.cluster_shows(ClusterEvent::StatusChanged(Object::ServiceRegistry("main".into()))).await;
    let incarnation = || {
        let handle = bench.handle("main").unwrap();
        handle.view().last_known().and_then(|known| known.incarnation.clone())
    };
    assert_eq!(incarnation(), None);
    etcd(MAIN).fail_lists("p/", false);
    bench.after(Duration::from_secs(31)).await;
    assert_eq!(incarnation().as_deref(), Some("a"));
}
