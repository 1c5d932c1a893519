//! Sessions with one range for each service.

use super::*;

/// A session with these registered names.
fn bench_of_ranges(registered: &[&str]) -> Bench {
    bench_of(Layout::new(Format::GoZero, ""), registered)
}

#[tokio::test(start_paused = true)]
async fn a_range_is_watched_while_its_name_is_registered_or_has_own_records() {
    let bench = bench_of_ranges(&[]);
    // An orphaned own record, on one of our leases.
    let (lost, lease) = ("lost/twinspan~c1~shop~gone~10.0.0.9:80", bench.handle.leases.id(5));
    bench.server.grant_for(lease, Duration::from_secs(3600));
    bench.server.put(lost, "10.0.0.9:80", lease);
    bench.server.put("echo/1", "10.0.0.1:80", LeaseId::NONE);
    bench.server.put("else/1", "10.0.0.2:80", LeaseId::NONE);
    bench.until("the record that nothing refers to is found", |b| b.handle.owners().len() == 1).await;
    assert_eq!(bench.snapshot().state, ViewState::Unknown, "the name is not registered yet");
    bench.handle.asked.set_registered(names(&["echo"]));
    bench.fresh().await;
    assert_eq!(bench.keys(), ["echo/1"]);
    bench.server.put("echo/2", "10.0.0.3:80", LeaseId::NONE);
    bench.until("the watch of a range that came later", |b| b.keys().len() == 2).await;
    let lists = bench.server.calls("list");
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!(bench.server.calls("list"), lists, "nothing at rest");
    // Compaction ends all watches, and the next session opens all again.
    bench.server.cut();
    bench
        .until("listed again", |b| b.server.calls("list") == lists + 2 && b.snapshot().state == ViewState::Fresh)
        .await;
    bench.handle.asked.set_registered(names(&[]));
    bench.until("given up", |b| b.snapshot().state == ViewState::Unknown).await;
    assert_eq!(bench.handle.view().counts().own, 1, "what is ours is followed on");
    bench.stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn a_name_added_while_others_are_listed_is_watched_after_them() {
    let bench = bench_of_ranges(&["echo", "order"]);
    bench.server.set_faults(Faults { slow: true, ..Faults::default() });
    bench.until("the first lists", |b| b.server.calls("list") == 2).await;
    bench.handle.asked.set_registered(names(&["echo", "order", "late"]));
    bench.until("followed", |b| b.snapshot_of("late").state == ViewState::Fresh).await;
    bench.stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn another_etcd_counts_until_every_hold_is_in_a_status() {
    for (emptied, expected) in [(true, Incarnation::ClusterChanged), (false, Incarnation::RolledBack)] {
        let bench = bench_of_ranges(&["echo", "order"]);
        let backup = bench.server.backup();
        for key in ["echo/1", "echo/2", "order/1"] {
            bench.server.put(key, &format!("10.0.0.{}:80", bench.server.revision() + 1), LeaseId::NONE);
        }
        bench.fresh().await;
        // The first session with the other etcd lists one of two services, the next ones list none.
        bench.server.fail_lists("order/", true);
        if emptied {
            bench.server.replace_with_empty();
        } else {
            bench.server.restore(&backup);
        }
        bench.until("the first list", |b| b.keys().is_empty()).await;
        bench.server.fail_lists("echo/", true);
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert_eq!(bench.snapshot_of("order").records.len(), 1, "what was there is kept");
        let server = bench.handle.status();
        assert_eq!(server.revision_at_last_session, 0, "nothing to compare with yet");

        bench.server.fail_lists("echo/", false);
        bench.server.fail_lists("order/", false);
        bench.fresh().await;
        let rolled_back = Evidence::RolledBack;
        assert_eq!(bench.evidence_of("echo"), [rolled_back, rolled_back], "{expected:?}");
        assert_eq!(bench.evidence_of("order"), [rolled_back], "{expected:?}");
        assert!(bench.snapshot_of("order").records.is_empty());
        assert_eq!(bench.snapshot().incarnation, expected);
        // A standby has listed everything, and held nothing.
        for _ in 0..2 {
            let session = bench.handle.connection().unwrap();
            bench.server.cut();
            let is_next = |now: Arc<dyn Registry>| !Arc::ptr_eq(&now, &session);
            bench.until("the next session", |b| b.handle.connection().is_ok_and(is_next)).await;
            assert_eq!(bench.snapshot().incarnation, expected);
        }
        assert!(bench.handle.settles(BTreeMap::new), "no RegisteredService has a hold");
        assert!(bench.handle.settles(|| unreachable!("nothing is left to settle, so nobody is asked")));
        bench.server.cut();
        bench.until("the session after", |b| b.snapshot().incarnation == Incarnation::AsItWas).await;
        bench.stop.cancel();
    }
}

#[tokio::test(start_paused = true)]
async fn the_lease_of_a_record_missing_from_a_list_is_looked_up_even_if_the_session_ends() {
    let bench = bench_of(Layout::new(Format::Kitex, ""), &["echo", "order"]);
    bench.server.grant_for(LeaseId(6), Duration::from_secs(3600));
    bench.server.put("/echo/10.0.0.1:80", &value("10.0.0.1:80"), LeaseId(6));
    bench.until("listed", |b| b.keys().len() == 1 && b.handle.connection().is_ok()).await;
    bench.server.fail_lists("/order/", true);
    bench.server.set_faults(Faults { away: true, ..Faults::default() });
    bench.until("cut off", |b| b.snapshot().state == ViewState::Stale).await;
    bench.server.delete(&["/echo/10.0.0.1:80"]);
    bench.server.set_faults(Faults::default());
    bench.until("the list", |b| b.keys().is_empty()).await;
    bench.until("explained", |b| b.evidence_of("echo") == [Evidence::DeregisteredUnseen]).await;
    bench.stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn a_name_without_read_permission_affects_only_its_service() {
    let bench = bench_of_ranges(&["echo", "order"]);
    for key in ["echo/1", "order/1", "other/1"] {
        bench.server.put(key, "10.0.0.1:80", LeaseId::NONE);
    }
    bench.server.forbid_reads(&["other/"]);
    bench.fresh().await;
    // A RegisteredService with a name that our user may not read.
    bench.handle.asked.set_registered(names(&["echo", "order", "other"]));
    bench.until("refused", |b| b.refusal("other").is_some()).await;
    let is = |b: &Bench, name: &str| (b.snapshot_of(name).state, b.snapshot_of(name).records.len());
    assert_eq!(is(&bench, "other"), (ViewState::Unknown, 0));
    assert_eq!((is(&bench, "echo"), bench.handle.status().phase), ((ViewState::Fresh, 1), Phase::Watching));

    // Another name loses its permission while no session is connected: its records stay.
    bench.server.forbid_reads(&["order/", "other/"]);
    bench.server.cut();
    bench.until("refused as well", |b| b.refusal("order").is_some() && b.handle.connection().is_ok()).await;
    assert_eq!((is(&bench, "order"), is(&bench, "echo")), ((ViewState::Unknown, 1), (ViewState::Fresh, 1)));
    let (lists, phase) = (bench.server.calls("list"), bench.handle.status().phase);
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!((bench.server.calls("list") - lists, phase), (2 * 10, Phase::Watching), "tried again from time to time");

    // One name gets its permission back, and no RegisteredService requests the other any more.
    bench.server.forbid_reads(&["other/"]);
    bench.until("read again", |b| is(b, "order") == (ViewState::Fresh, 1)).await;
    assert_eq!(bench.refusal("order"), None);
    bench.handle.asked.set_registered(names(&["echo", "order"]));
    bench.until("forgotten", |b| b.refusal("other").is_none()).await;

    // If no range may be read, the error is the registry's.
    bench.server.forbid_reads(&["echo/", "order/", "other/"]);
    bench.server.cut();
    let failed = |b: &Bench| matches!(b.handle.status().phase, Phase::Failed(RegistryError::PermissionDenied(_)));
    bench.until("failed", failed).await;
    assert!(bench.handle.connection().is_err());
    bench.stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_ends_concerns_only_its_range() {
    let bench = bench_of_ranges(&["echo", "order"]);
    bench.server.put("echo/1", "10.0.0.1:80", LeaseId::NONE);
    bench.fresh().await;
    let (lists, connections) = (bench.server.calls("list"), bench.server.calls("status"));

    // A revision of more than 16 MiB is not delivered; the list shows what it did.
    let long = "x".repeat(20_000);
    for n in 0..900 {
        bench.server.put(&format!("echo/long-{n}-{long}"), "10.0.0.2:80", LeaseId::NONE);
    }
    bench.until("the long keys", |b| b.keys().len() == 901).await;
    bench.server.delete_prefix("echo/long-");
    bench.until("listed again", |b| b.keys().len() == 1).await;
    bench.server.put("echo/3", "10.0.0.3:80", LeaseId::NONE);
    bench.until("watched again", |b| b.keys().len() == 2).await;
    assert_eq!(bench.server.calls("list"), lists + 1, "the other range is not listed again");

    // A range loses its permission between its list and its watch, which waits for the answer to the one before.
    bench.server.set_faults(Faults { silent: true, ..Faults::default() });
    bench.handle.asked.set_registered(names(&["echo", "late", "later", "order"]));
    bench.until("both are listed", |b| b.server.calls("list") == lists + 3).await;
    bench.server.forbid_reads(&["later/"]);
    bench.server.set_faults(Faults::default());
    bench.until("refused", |b| b.refusal("later").is_some()).await;
    assert_eq!(bench.server.calls("list"), lists + 3, "by its watch");
    bench.server.forbid_reads(&[]);
    bench.until("permitted again", |b| b.refusal("later").is_none()).await;
    assert_eq!(bench.server.calls("status"), connections, "the session goes on");
    bench.stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn no_session_ends_because_its_last_range_was_given_up() {
    let bench = bench_of_ranges(&["echo"]);
    bench.fresh().await;
    bench.handle.asked.set_registered(names(&[]));
    let requests = bench.server.calls("progress");
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!(bench.handle.status().phase, Phase::Watching);
    assert_eq!(bench.server.calls("progress"), requests, "etcd answers none on a stream without watches");
    bench.handle.asked.set_registered(names(&["echo"]));
    bench.fresh().await;
    assert!(bench.server.calls("list") == 2, "one session");
    bench.stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn own_records_are_found_even_if_etcd_does_not_list_leases() {
    let bench = bench_of_ranges(&[]);
    let (readable, unreadable) = (bench.handle.leases.id(700), bench.handle.leases.id(3));
    for (lease, key) in
        [(readable, "lost/twinspan~c1~shop~a~10.0.0.9:80"), (unreadable, "else/twinspan~c1~shop~b~10.0.0.8:80")]
    {
        bench.server.grant_for(lease, Duration::from_secs(3600));
        bench.server.put(key, "10.0.0.9:80", lease);
    }
    bench.server.forbid_reads(&["else/"]);
    bench.until("the record that nothing refers to is found", |b| b.handle.owners().len() == 1).await;
    bench.stop.cancel();
}

/// etcd was replaced after the session had met it, or between two lists, and the connection made anew below the
/// session.
#[tokio::test(start_paused = true)]
async fn a_list_of_another_etcd_than_the_one_that_the_session_met_ends_it() {
    let server = FakeEtcd::new();
    let (sender, _events) = mpsc::unbounded_channel();
    let handle = RegistryHandle::new("main", &identity(Layout::new(Format::GoZero, ""), None), None, sender);
    handle.asked.set_registered(names(&["echo"]));
    let look_ups = Arc::new(Semaphore::new(LOOK_UPS));
    let registry = server.connect().await.unwrap();
    let mut session = Session::begin(handle.clone(), registry, Env::real(), look_ups).await.unwrap();
    for (met, ends) in [(7, true), (0, false), (1, false)] {
        session.cluster_id = met;
        handle.asked.set_registered(names(&["echo", &format!("met-{met}")]));
        let listed = session.catch_up().await;
        assert_eq!(matches!(listed, Err(RegistryError::WatchEnded(_))), ends, "{met}: {listed:?}");
        assert_eq!(listed.is_err(), ends, "{met}");
    }
}

/// The list after a watch that was too large shows it, while the session goes on.
#[tokio::test(start_paused = true)]
async fn grants_are_forgotten_when_an_older_state_of_the_registry_answers() {
    let (server, (sender, _events)) = (FakeEtcd::new(), mpsc::unbounded_channel());
    let handle = RegistryHandle::new("main", &identity(Layout::new(Format::GoZero, ""), None), None, sender);
    handle.asked.set_registered(names(&["echo"]));
    let put = |n: usize| server.put("echo/1", &format!("10.0.0.{n}:80"), LeaseId::NONE);
    put(0);
    let backup = server.backup();
    (1..5).for_each(put);
    let (registry, look_ups) = (server.connect().await.unwrap(), Arc::new(Semaphore::new(LOOK_UPS)));
    let mut session = Session::begin(handle.clone(), registry.clone(), Env::real(), look_ups).await.unwrap();
    let lease = handle.leases.room(registry.as_ref(), |_| 0, 1).await.unwrap().lease;
    assert!(handle.leases.is_granted_since(lease, 2).await);
    server.restore(&backup);
    (1..9).for_each(|n| server.put("order/1", &format!("10.0.1.{n}:80"), LeaseId::NONE));
    let listed = session.start_following(Scope::FollowedNames.ranges(names(&["echo"]))).await;
    assert_eq!(handle.view().incarnation(), Incarnation::RolledBack, "{listed:?}");
    assert!(!handle.leases.is_granted_since(lease, 2).await, "its revision counts in the state that is gone");
}
