//! Sessions, writes and keepalives that share leases.

use super::*;
use crate::registry::{Change, KeepAlive, WatchRange};
use tokio::time::timeout_at;
use twinspan_core::model::RawRecord;

/// Every change below the prefix, from now on.
async fn witness(server: &FakeEtcd) -> Box<dyn Watch> {
    let from = server.revision() + 1;
    let range = WatchRange { watch_id: 1, key_prefix: "p/".to_owned(), from, cluster_id: 0 };
    server.connect().await.unwrap().watch(&range).await.unwrap()
}

async fn deletes_within(witness: &mut dyn Watch, wait: Duration) -> usize {
    let until = Instant::now() + wait;
    let mut deletes = 0;
    while let Ok(Ok(item)) = timeout_at(until, witness.next()).await {
        if let WatchItem::Changes(changes) = item {
            deletes += changes.iter().filter(|change| matches!(change, Change::Delete { .. })).count();
        }
    }
    deletes
}

fn create_of(name: &str, n: usize) -> RecordOp {
    let address = format!("10.0.{}.{}:80", n / 250, n % 250 + 1);
    let owner = format!("c1/shop/{name}");
    let value =
        format!(r#"{{"network":"tcp","address":"{address}","weight":10,"tags":{{"twinspan.dev/owner":"{owner}"}}}}"#);
    RecordOp::Create { key: format!("p/{name}/{address}").into(), value: value.into() }
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_was_empty_for_long_is_kept_alive_before_it_carries_a_record_again() {
    for empty_for in (5..120).step_by(5) {
        let bench = bench();
        bench.fresh().await;
        bench.write(vec![create("10.0.0.1:80")]).await;
        tokio::time::sleep(Duration::from_secs(21)).await;
        let seen = bench.server.records()["p/echo/10.0.0.1:80"].mod_revision;
        let (key, lease) = ("p/echo/10.0.0.1:80".into(), bench.handle.leases.id(0));
        bench.write(vec![RecordOp::Delete { key, if_revision: seen, lease }]).await;
        tokio::time::sleep(Duration::from_secs(empty_for)).await;
        let mut witness = witness(&bench.server).await;
        let report = bench.write(vec![create("10.0.0.1:80")]).await;
        assert_eq!((report.created, report.error), (1, None), "{empty_for} s");
        assert_eq!(deletes_within(witness.as_mut(), Duration::from_secs(90)).await, 0, "after {empty_for} s");
        bench.stop.cancel();
    }
}

#[tokio::test(start_paused = true)]
async fn six_hundred_writes_after_an_emptied_etcd_fill_two_leases_by_two_grants() {
    let bench = bench();
    bench.fresh().await;
    bench.write(vec![create_of("echo", 9999)]).await;
    bench.server.replace_with_empty();
    bench.server.set_faults(Faults { slow_grants: true, slow_commits: true, ..Faults::default() });
    bench.until("listed again", |b| b.keys().is_empty() && b.snapshot().state == ViewState::Fresh).await;
    let grants = bench.server.calls("grant");
    let all = || futures::future::join_all((0..600).map(|n| bench.write(vec![create_of(&format!("s{n}"), n)])));
    let mut reports = all().await;
    if reports.iter().any(|report| report.error.is_some()) {
        // The keeper had not yet heard that its lease is gone.
        reports = all().await;
    }
    assert!(reports.iter().all(|report| report.error.is_none()), "{:?}", reports.iter().find(|r| r.error.is_some()));
    let mut counts: Vec<usize> = bench.handle.view().own_leases().values().map(BTreeSet::len).collect();
    counts.sort_unstable();
    assert_eq!(counts, [100, 500]);
    assert_eq!(bench.server.records().len(), 600);
    assert!(bench.server.calls("grant") - grants <= 3, "{} grants", bench.server.calls("grant") - grants);
    assert_eq!(bench.server.most_commits(), 4, "commits under way are bounded");
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!(bench.server.records().len(), 600);
    bench.stop.cancel();
}

/// The write of another name had it granted, and its answer comes after the look-up, or before.
#[tokio::test(start_paused = true)]
async fn what_was_on_a_lease_that_was_granted_again_went_with_the_former_one() {
    for slow_grants in [true, false] {
        let bench = bench();
        bench.fresh().await;
        let lease = bench.handle.leases.id(0);
        assert_eq!(bench.write(vec![create_of("echo", 0)]).await.created, 1);
        bench.until("the own record", |b| b.keys().len() == 1).await;
        bench.server.set_faults(Faults { silent: true, slow_grants, ..Faults::default() });
        bench.server.revoke(lease);
        let tell = async {
            bench.until("granted", |b| b.server.leases() == [lease]).await;
            bench.server.set_faults(Faults::default());
        };
        let other = bench.write(vec![create_of("order", 1)]);
        let (report, ()) = if slow_grants { tokio::join!(other, tell) } else { (other.await, tell.await) };
        assert_eq!((report.created, report.error), (1, None));
        bench.until("explained", |b| b.evidence_of("echo") == [Evidence::LeaseExpired]).await;

        // The deletion of the new record proves a deregistration: the lease is still the same.
        let written = bench.server.records()["p/order/10.0.0.2:80"].mod_revision;
        bench.server.delete(&["p/order/10.0.0.2:80"]);
        assert!(!bench.handle.leases.is_granted_since(lease, written).await);
        bench.until("explained", |b| b.evidence_of("order") == [Evidence::Deregistered]).await;
        bench.stop.cancel();
    }
}

/// Whether the lease is one of the settings in force or of earlier ones.
#[tokio::test(start_paused = true)]
async fn healed_records_that_go_with_a_lease_of_ours_have_expired() {
    let bench = bench();
    let in_force = bench.handle.leases.ids();
    bench.handle.set_former_ttls(&[90]);
    let former = bench.handle.leases.ids().difference(&in_force).next().copied().unwrap();
    bench.fresh().await;
    for (n, lease) in [bench.handle.leases.id(3), former].into_iter().enumerate() {
        bench.server.grant_for(lease, Duration::from_secs(3600));
        for address in [format!("10.0.{n}.1:80"), format!("10.0.{n}.2:80")] {
            let healed = value(&address)
                .replace("null", r#"{"twinspan.dev/owner":"c1/shop/echo","twinspan.dev/healed":"true"}"#);
            bench.server.put(&format!("p/echo/{address}"), &healed, lease);
        }
        bench.until("both are known", |b| b.keys().len() == 2).await;
        bench.server.revoke(lease);
        let expired = vec![Evidence::LeaseExpired; 2 * (n + 1)];
        bench.until("both are explained", |b| b.evidence_of("echo") == expired).await;
    }
    bench.stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn a_name_that_is_lost_does_not_take_its_neighbours_along() {
    let bench = bench();
    bench.fresh().await;
    for (n, name) in ["order", "payment", "user"].into_iter().enumerate() {
        assert_eq!(bench.write(vec![create_of(name, n)]).await.created, 1);
    }
    let lease = bench.handle.leases.id(0);
    assert!(bench.server.records().values().all(|record| record.lease == lease));
    bench.server.forbid_writes(&["p/payment/"]);
    let mut witness = witness(&bench.server).await;
    // A write of another name: the lease is refused, and none of its keys is the cause.
    let report = bench.write(vec![create_of("user", 7)]).await;
    assert_eq!((report.created, report.error), (1, None));
    assert_eq!(bench.server.records()["p/user/10.0.0.8:80"].lease, bench.handle.leases.id(1));
    // A write of the name itself says so.
    let report = bench.write(vec![create_of("payment", 8)]).await;
    assert!(matches!(report.error, Some(RegistryError::PermissionDenied(_))), "{report:?}");
    let leadership = Leadership::none();
    leadership.acquired();
    for (name, moved) in [("order", 1), ("payment", 0), ("user", 1)] {
        let report = bench.handle.leave_refused_leases(&leadership, &ServiceKey::new("shop", name), None).await;
        assert_eq!((report.updated, report.error.is_some()), (moved, name == "payment"), "{name}: {report:?}");
    }
    let values = |name: &str| bench.server.records().into_iter().filter(|(key, _)| key.contains(name)).count();
    tokio::time::sleep(Duration::from_secs(180)).await;
    assert_eq!([values("order"), values("payment"), values("user")], [1, 0, 2]);
    assert_eq!(deletes_within(witness.as_mut(), Duration::from_secs(1)).await, 1, "the one that nobody may write");
    // It may be written again: its lease is a new one.
    bench.server.forbid_writes(&[]);
    assert_eq!(bench.write(vec![create_of("payment", 8)]).await.created, 1);
    bench.stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn an_update_of_a_record_on_a_refused_lease_moves_it() {
    let bench = bench();
    bench.fresh().await;
    for (n, name) in ["order", "payment"].into_iter().enumerate() {
        bench.write(vec![create_of(name, n)]).await;
    }
    bench.server.forbid_writes(&["p/payment/"]);
    let RawRecord { key, value, mod_revision, lease } = bench.server.records()["p/order/10.0.0.1:80"].clone();
    let report = bench.write(vec![RecordOp::Update { key, value, if_revision: mod_revision, lease }]).await;
    assert_eq!((report.updated, report.error), (1, None));
    let [first, second] = [0, 1].map(|n| bench.handle.leases.id(n));
    assert_eq!((lease, bench.server.records()["p/order/10.0.0.1:80"].lease), (first, second));
    bench.stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn a_refused_keepalive_has_the_owners_on_the_lease_reconciled() {
    let mut bench = bench();
    bench.fresh().await;
    for (n, name) in ["order", "payment"].into_iter().enumerate() {
        bench.write(vec![create_of(name, n)]).await;
    }
    while bench._events.try_recv().is_ok() {}
    bench.server.forbid_writes(&["p/payment/"]);
    tokio::time::sleep(Duration::from_secs(25)).await;
    let mut owners = BTreeSet::new();
    while let Ok(event) = bench._events.try_recv() {
        if let RegistryEvent::Affected { affected, .. } = event {
            owners.extend(affected.owners.into_iter().map(|owner| owner.name));
        }
    }
    assert_eq!(owners, ["order".to_owned(), "payment".to_owned()].into());
    assert!(matches!(bench.handle.problem(true), Some(RegistryError::PermissionDenied(_))));
    bench.stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn an_etcd_that_allows_few_operations_gets_smaller_batches() {
    let bench = bench();
    bench.server.set_max_txn_ops(16);
    bench.fresh().await;
    let lists = bench.server.calls("list");
    let report = bench.write((0..100).map(|n| create_of("echo", n)).collect()).await;
    assert_eq!((report.created, report.error), (100, None));
    assert!(bench.server.calls("commit") <= 3 + 9, "the limit is found once: {}", bench.server.calls("commit"));
    bench.server.set_max_txn_ops(1);
    let report = bench.write(vec![create_of("echo", 200)]).await;
    assert_eq!(report.error, Some(RegistryError::TooManyOps));
    assert_eq!(bench.server.calls("list"), lists, "the session goes on");
    bench.stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn our_leases_are_told_by_their_ids() {
    let bench = bench();
    bench.fresh().await;
    bench.write(vec![create("10.0.0.1:80")]).await;
    let leases: Vec<LeaseId> = bench.handle.view().own_leases().keys().copied().collect();
    assert!(leases.iter().all(|lease| bench.handle.leases.is_ours(*lease)));
    let registry = bench.handle.connection().unwrap();
    assert!(matches!(registry.keep_alive(LeaseId(9)).await, Ok(KeepAlive::Gone { .. })));
    assert!(!bench.handle.leases.is_ours(LeaseId(9)));
    bench.stop.cancel();
}
