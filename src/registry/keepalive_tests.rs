use tokio::sync::mpsc;
use twinspan_core::codec::{Format, Layout};

use super::*;
use crate::env::Env;
use crate::registry::handle::{Identity, RegistryEvent};
use crate::registry::session;
use crate::registry::testing::{FakeEtcd, Faults};

const OWN: &str =
    r#"{"network":"tcp","address":"10.0.0.1:80","weight":10,"tags":{"twinspan.dev/owner":"c1/shop/echo"}}"#;

/// A replica that requests leases with this TTL.
fn replica(
    server: &FakeEtcd,
    ttl_seconds: i64,
) -> (Arc<RegistryHandle>, mpsc::UnboundedReceiver<RegistryEvent>, CancellationToken) {
    let (sender, events) = mpsc::unbounded_channel();
    let (uid, cluster_id, layout) = ("u".into(), "c1".into(), Layout::new(Format::Kitex, "p"));
    let identity = Identity { uid, cluster_id, layout, ttl_seconds, fence_prefix: None };
    let (handle, stop) = (RegistryHandle::new("main", &identity, None, sender), CancellationToken::new());
    tokio::spawn(session::run(handle.clone(), Arc::new(server.clone()), Env::real(), stop.clone()));
    tokio::spawn(run(handle.clone(), stop.clone()));
    (handle, events, stop)
}

#[tokio::test(start_paused = true)]
async fn leases_from_before_a_change_of_the_ttl_are_kept_too() {
    let server = FakeEtcd::new();
    server.grant_for(LeaseId(7), Duration::from_secs(60));
    server.put("p/echo/10.0.0.1:80", OWN, LeaseId(7));
    let (handle, _events, stop) = replica(&server, 300);
    tokio::time::sleep(Duration::from_secs(1000)).await;
    assert_eq!(server.leases(), [LeaseId(7)]);
    assert_eq!(handle.view().own_leases().len(), 1);
    stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn the_ttl_of_the_server_counts_also_after_a_restart() {
    let server = FakeEtcd::with_least_ttl(120);
    let (first, _events, stop) = replica(&server, 60);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let connection = first.connection().unwrap();
    let lease = first.leases.room(connection.as_ref(), |_| 0, 1).await.unwrap().lease;
    server.put("p/echo/10.0.0.1:80", OWN, lease);
    stop.cancel();
    let (_second, _events, stop) = replica(&server, 60);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = server.calls("keep_alive");
    tokio::time::sleep(Duration::from_secs(600)).await;
    let keepalives = server.calls("keep_alive") - before;
    assert!((14..=16).contains(&keepalives), "a third of 120 s: {keepalives} in 600 s");
    stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn keepalives_wait_for_no_list() {
    let server = FakeEtcd::new();
    let (handle, _events, stop) = replica(&server, 60);
    let [own, former] = [handle.leases.id(700), handle.leases.id(0)];
    for (n, lease) in [own, former].into_iter().enumerate() {
        server.grant_for(lease, Duration::from_secs(60));
        server.put(&format!("p/echo/10.0.0.{n}:80"), OWN, lease);
    }
    server.grant_for(LeaseId(7), Duration::from_secs(60));
    tokio::time::sleep(Duration::from_secs(1)).await;
    // An outage of 30 s, after which lists fail: the view names the leases.
    server.set_faults(Faults { away: true, ..Faults::default() });
    server.fail_lists("p/", true);
    tokio::time::sleep(Duration::from_secs(30)).await;
    server.set_faults(Faults::default());
    tokio::time::sleep(Duration::from_secs(3 * 60)).await;
    assert!(handle.connection().is_err());
    assert_eq!((server.records().len(), server.leases().contains(&LeaseId(7))), (2, false), "only ours are kept");
    stop.cancel();
    // A fresh process has no view: the registry shows its leases. Then it may not show them.
    for hidden in [false, true] {
        if hidden {
            server.grant_for(LeaseId(8), Duration::from_secs(86_400));
            server.put("hidden/1", "", LeaseId(8));
            server.forbid_reads(&["hidden/"]);
        }
        let (handle, _events, stop) = replica(&server, 60);
        tokio::time::sleep(Duration::from_secs(3 * 60)).await;
        assert!(handle.connection().is_err());
        assert_eq!(server.records().len(), 2 + usize::from(hidden), "hidden: {hidden}");
        stop.cancel();
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_that_ends_again_and_again_asks_for_each_possible_lease_once_in_a_third_of_a_ttl() {
    let server = FakeEtcd::new();
    server.grant_for(LeaseId(8), Duration::from_secs(86_400));
    server.put("hidden/1", "", LeaseId(8));
    server.forbid_reads(&["hidden/", "p/"]);
    let (handle, _events, stop) = replica(&server, 60);
    tokio::time::sleep(Duration::from_secs(15)).await;
    assert!(handle.connection().is_err());
    assert!(server.calls("leases") > 3, "the sessions: {}", server.calls("leases"));
    assert_eq!(server.calls("keep_alive"), handle.leases.ids().len());
    stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn once_everything_is_listed_only_leases_with_records_are_kept() {
    let server = FakeEtcd::new();
    // The list comes after the first look for leases.
    server.set_faults(Faults { slow: true, ..Faults::default() });
    let (handle, _events, stop) = replica(&server, 60);
    server.grant_for(handle.leases.id(0), Duration::from_secs(60));
    server.grant_for(handle.leases.id(1), Duration::from_secs(60));
    server.put("p/echo/10.0.0.1:80", OWN, handle.leases.id(1));
    tokio::time::sleep(Duration::from_secs(150)).await;
    assert_eq!(server.leases(), [handle.leases.id(1)]);
    stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn a_lease_of_another_leader_is_kept_by_a_standby_from_then_on() {
    let server = FakeEtcd::new();
    let (handle, _events, stop) = replica(&server, 60);
    tokio::time::sleep(Duration::from_secs(10)).await;
    server.grant_for(handle.leases.id(0), Duration::from_secs(60));
    server.put("p/echo/10.0.0.1:80", OWN, handle.leases.id(0));
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(server.records().len(), 1);
    stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn a_late_answer_that_a_lease_is_gone_removes_nothing_newer() {
    let server = FakeEtcd::new();
    let (handle, _events, stop) = replica(&server, 60);
    let lease = handle.leases.id(0);
    server.grant_for(lease, Duration::from_secs(60));
    server.put("p/echo/10.0.0.1:80", OWN, lease);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut keeper = Keeper::new(handle.clone());
    let written = server.revision();
    keeper.take(lease, Instant::now(), Ok(KeepAlive::Gone { revision: written - 1 }));
    assert_eq!(handle.view().own_leases().len(), 1, "the lease was granted again, and the record is newer");
    keeper.take(lease, Instant::now(), Ok(KeepAlive::Gone { revision: written }));
    assert_eq!(handle.view().own_leases().len(), 0);
    stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_cannot_be_kept_delays_no_other() {
    let server = FakeEtcd::new();
    let (handle, _events, stop) = replica(&server, 60);
    for n in 0..3 {
        server.grant_for(handle.leases.id(n), Duration::from_secs(60));
        server.put(&format!("p/echo/10.0.0.{n}:80"), OWN, handle.leases.id(n));
    }
    server.stall_keepalives(handle.leases.id(1), true);
    tokio::time::sleep(Duration::from_secs(40)).await;
    assert!(matches!(handle.problem(false), Some(RegistryError::Timeout { .. })));
    server.stall_keepalives(handle.leases.id(1), false);
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!((handle.problem(false), server.records().len()), (None, 3), "tried again before it expired");
    let before = server.calls("keep_alive");
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert!((80..=100).contains(&(server.calls("keep_alive") - before)), "{}", server.calls("keep_alive") - before);
    stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_a_lease_is_gone_waits_for_no_other_answer() {
    let server = FakeEtcd::new();
    let (handle, _events, stop) = replica(&server, 60);
    let [gone, slow] = [0, 1].map(|n| handle.leases.id(n));
    for (n, lease) in [gone, slow].into_iter().enumerate() {
        server.grant_for(lease, Duration::from_secs(60));
        server.put(&format!("p/echo/10.0.0.{n}:80"), OWN, lease);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    // No event tells what happens to the records.
    server.set_faults(Faults { silent: true, ..Faults::default() });
    server.revoke(gone);
    server.stall_keepalives(slow, true);
    let (connection, mut keeper) = (handle.connection().unwrap(), Keeper::new(handle.clone()));
    keeper.all_due();
    let round = tokio::time::timeout(Duration::from_secs(1), keeper.round(connection.as_ref())).await;
    assert!(round.is_err(), "the other lease is not answered yet");
    assert_eq!(handle.view().own_leases().keys().collect::<Vec<_>>(), [&slow]);
    stop.cancel();
}
