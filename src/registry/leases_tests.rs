use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::registry::Connector;
use crate::registry::testing::{FakeEtcd, Faults};
use twinspan_core::codec::Format;

fn pool(cluster: &str, name: &str, prefix: &str, ttl: i64) -> LeasePool {
    LeasePool::new(cluster, name, &Layout::new(Format::Kitex, prefix), ttl)
}

#[test]
fn ids_follow_from_the_settings_and_from_nothing_else() {
    let main = pool("c", "main", "p", 300);
    assert_eq!(main.id(3), pool("c", "main", "p", 300).id(3));
    let others = [
        main.id(1),
        pool("d", "main", "p", 300).id(0),
        pool("c", "x", "p", 300).id(0),
        pool("c", "main", "q", 300).id(0),
        pool("c", "main", "p", 60).id(0),
    ];
    for other in others {
        assert!(other.0 > 0);
        assert_ne!(other, main.id(0));
    }
    // Every release has to find the leases of the one before.
    assert_eq!(main.id(0), LeaseId(122_755_174_640_999_171));
}

#[test]
fn a_lease_is_ours_by_its_id_whatever_the_ttl_was() {
    let (main, former) = (pool("c", "main", "p", 300), pool("c", "main", "p", 60).id(1023));
    assert!(main.is_ours(main.id(0)) && main.is_ours(main.id(1023)));
    assert!(!main.is_ours(former) && !main.is_ours(LeaseId(7)) && !main.is_ours(LeaseId::NONE));
    main.set_former(&[60]);
    assert!(main.is_ours(former) && main.is_ours(main.id(0)));
    assert_eq!(main.ttls_of([former, LeaseId(7)]), [60, 300].into());
    main.set_former(&[]);
    assert!(!main.is_ours(former) && main.is_ours(main.id(0)));
}

#[tokio::test(start_paused = true)]
async fn concurrent_writes_never_share_room_nor_a_grant() {
    let server = FakeEtcd::new();
    server.set_faults(Faults { slow_grants: true, ..Faults::default() });
    let (registry, main) = (server.connect().await.unwrap(), pool("c", "main", "p", 60));
    let rooms = (0..1200).map(|_| main.room(registry.as_ref(), |_| 0, 1));
    let rooms: Vec<Room<'_>> = futures::future::join_all(rooms).await.into_iter().map(Result::unwrap).collect();
    let on = |n| rooms.iter().filter(|room| room.lease == main.id(n)).count();
    assert_eq!(([on(0), on(1), on(2)], server.calls("grant")), ([500, 500, 200], 3));
    drop(rooms);
    assert_eq!(
        (main.reserved(), main.room(registry.as_ref(), |_| 0, 9).await.unwrap().records()),
        (BTreeSet::new(), 9)
    );
}

#[tokio::test(start_paused = true)]
async fn full_leases_are_asked_once_a_second_and_their_room_counts_again() {
    let server = FakeEtcd::new();
    let (registry, main) = (server.connect().await.unwrap(), pool("c", "main", "p", 60));
    let (asked, carried) = (AtomicUsize::new(0), AtomicUsize::new(500));
    let count = |id: LeaseId| {
        asked.fetch_add(1, Ordering::Relaxed);
        if (0..100).any(|n| main.id(n) == id) { carried.load(Ordering::Relaxed) } else { 0 }
    };
    let mut on = Vec::new();
    for _ in 0..50 {
        on.push(main.room(registry.as_ref(), count, 1).await.unwrap().lease);
    }
    assert!(on.iter().all(|lease| *lease == main.id(100)));
    assert_eq!(asked.load(Ordering::Relaxed), 101 + 49, "100 full leases, and the one with room each time");
    carried.store(499, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(main.room(registry.as_ref(), count, 1).await.unwrap().lease, main.id(0));
}

#[tokio::test(start_paused = true)]
async fn a_grant_that_fails_fails_for_all_that_waited_and_is_tried_again_later() {
    let server = FakeEtcd::new();
    let (registry, main) = (server.connect().await.unwrap(), pool("c", "main", "p", 60));
    server.set_faults(Faults { slow_grants: true, away: true, ..Faults::default() });
    let rooms = (0..100).map(|_| main.room(registry.as_ref(), |_| 0, 1));
    let failed = futures::future::join_all(rooms).await.iter().filter(|room| room.is_err()).count();
    assert_eq!((failed, server.calls("grant"), main.reserved()), (100, 1, BTreeSet::new()));
    server.set_faults(Faults::default());
    assert!(main.room(registry.as_ref(), |_| 0, 1).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_lease_is_used_only_with_two_thirds_of_its_ttl_left() {
    let server = FakeEtcd::new();
    let (registry, main) = (server.connect().await.unwrap(), pool("c", "main", "p", 60));
    let requests = || (server.calls("grant"), server.calls("keep_alive"));
    let seen = AtomicUsize::new(0);
    let carried = |_| {
        seen.fetch_add(1, Ordering::Relaxed);
        0
    };
    for (after, expected) in [(0, (1, 0)), (19, (1, 0)), (2, (1, 1)), (45, (1, 2)), (61, (2, 2))] {
        tokio::time::sleep(Duration::from_secs(after)).await;
        drop(main.room(registry.as_ref(), carried, 1).await.unwrap());
        assert_eq!(requests(), expected, "{after} s later");
    }
    // Another process granted it: its age is not known.
    let other = pool("c", "main", "p", 60);
    drop(other.room(registry.as_ref(), carried, 1).await.unwrap());
    assert_eq!(requests(), (3, 3));
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_etcd_refuses_is_left_for_the_next_one() {
    let server = FakeEtcd::new();
    let (registry, main) = (server.connect().await.unwrap(), pool("c", "main", "p", 60));
    server.grant_for(main.id(0), Duration::from_secs(60));
    server.put("p/payment/1", "", main.id(0));
    server.forbid_writes(&["p/payment/"]);
    assert_eq!(main.room(registry.as_ref(), |_| 1, 1).await.unwrap().lease, main.id(1));
    assert_eq!(main.refused(), [main.id(0)].into());
    tokio::time::sleep(Duration::from_secs(121)).await;
    assert_eq!(main.room(registry.as_ref(), |_| 0, 1).await.unwrap().lease, main.id(0), "it has expired");
}

#[tokio::test(start_paused = true)]
async fn the_ttl_of_a_lease_counts_from_the_request_on() {
    let server = FakeEtcd::new();
    server.set_faults(Faults { slow_grants: true, ..Faults::default() });
    let (registry, main) = (server.connect().await.unwrap(), pool("c", "main", "p", 60));
    let began = Instant::now();
    drop(main.room(registry.as_ref(), |_| 0, 1).await.unwrap());
    assert_eq!(began.elapsed(), Duration::from_secs(1), "the answer took a second");
    tokio::time::sleep_until(began + Duration::from_millis(20_500)).await;
    drop(main.room(registry.as_ref(), |_| 0, 1).await.unwrap());
    assert_eq!(server.calls("keep_alive"), 1, "a third of its TTL is over");
}
