use std::collections::BTreeSet;
use std::time::Duration;

use tokio::sync::mpsc;
use twinspan_core::codec::{Format, Layout};
use twinspan_core::model::{LeaseId, Owner, RecordKey, RegistryName, ServiceKey};
use twinspan_core::plan::RecordOp;
use twinspan_core::plan::departure::Evidence;

use super::*;
use crate::leadership::Leadership;
use crate::registry::commits::WriteReport;
use crate::registry::handle::{Identity, RegistryEvent};
use crate::registry::keepalive;
use crate::registry::phase::SessionStatus;
use crate::registry::testing::{FakeEtcd, Faults};
use twinspan_core::plan::service::{Snapshot, ViewState};

#[path = "session_ends_tests.rs"]
mod ends;
#[path = "session_leases_tests.rs"]
mod leases;
#[path = "session_ranges_tests.rs"]
mod ranges;
#[path = "session_scope_tests.rs"]
mod scope;
#[path = "session_turns_tests.rs"]
mod turns;

struct Bench {
    server: FakeEtcd,
    handle: Arc<RegistryHandle>,
    _events: mpsc::UnboundedReceiver<RegistryEvent>,
    stop: CancellationToken,
}

fn identity(layout: Layout, fence_prefix: Option<String>) -> Identity {
    Identity { uid: "u".into(), cluster_id: "c1".into(), layout, ttl_seconds: 60, fence_prefix }
}

/// A session and a keepalive task on a fake etcd; leases last 60 s.
fn bench() -> Bench {
    bench_of(Layout::new(Format::Kitex, "p"), &[])
}

fn bench_of(layout: Layout, registered: &[&str]) -> Bench {
    let server = FakeEtcd::new();
    let (sender, events) = mpsc::unbounded_channel();
    let handle = RegistryHandle::new("main", &identity(layout, None), None, sender);
    handle.asked.set_registered(names(registered));
    let stop = CancellationToken::new();
    tokio::spawn(run(handle.clone(), Arc::new(server.clone()), Env::real(), stop.clone()));
    tokio::spawn(keepalive::run(handle.clone(), stop.clone()));
    Bench { server, handle, _events: events, stop }
}

fn names(names: &[&str]) -> BTreeSet<RegistryName> {
    names.iter().map(|name| RegistryName::new(*name).unwrap()).collect()
}

fn value(address: &str) -> String {
    format!(r#"{{"network":"tcp","address":"{address}","weight":10,"tags":null}}"#)
}

fn create(address: &str) -> RecordOp {
    let value = format!(
        r#"{{"network":"tcp","address":"{address}","weight":10,"tags":{{"twinspan.dev/owner":"c1/shop/echo"}}}}"#
    );
    RecordOp::Create { key: format!("p/echo/{address}").into(), value: value.into() }
}

impl Bench {
    fn snapshot(&self) -> Snapshot {
        self.snapshot_of("echo")
    }

    fn refusal(&self, name: &str) -> Option<RegistryError> {
        self.handle.view().refusal(&RegistryName::new(name).unwrap()).cloned()
    }

    fn snapshot_of(&self, name: &str) -> Snapshot {
        let owner = Owner { cluster_id: "c1".into(), service: ServiceKey::new("shop", "echo") };
        self.handle.view().snapshot(&RegistryName::new(name).unwrap(), &owner)
    }

    fn evidence_of(&self, name: &str) -> Vec<Evidence> {
        self.snapshot_of(name).departures.values().map(|departure| departure.evidence).collect()
    }

    fn keys(&self) -> Vec<String> {
        self.snapshot().records.keys().map(ToString::to_string).collect()
    }

    async fn write(&self, ops: Vec<RecordOp>) -> WriteReport {
        let leadership = Leadership::none();
        leadership.acquired();
        self.handle.confirm_sole(self.handle.etcd());
        self.handle.write(&leadership, &ServiceKey::new("shop", "echo"), ops).await
    }

    /// Waits on the paused clock.
    async fn until(&self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        for _ in 0..2000 {
            if holds(self) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("never: {what}; {:?}", self.handle.status());
    }

    async fn fresh(&self) {
        self.until("fresh", |b| b.snapshot().state == ViewState::Fresh && b.handle.connection().is_ok()).await;
    }
}

#[tokio::test(start_paused = true)]
async fn lists_then_follows() {
    let bench = bench();
    bench.server.put("p/echo/10.0.0.1:80", &value("10.0.0.1:80"), LeaseId::NONE);
    bench.fresh().await;
    assert_eq!(bench.keys(), ["p/echo/10.0.0.1:80"]);
    bench.server.put("p/echo/10.0.0.2:80", &value("10.0.0.2:80"), LeaseId::NONE);
    bench.server.delete(&["p/echo/10.0.0.1:80"]);
    bench.until("the events", |b| b.keys() == ["p/echo/10.0.0.2:80"]).await;
    let SessionStatus { phase, server, revision_at_last_session } = bench.handle.status();
    assert_eq!((phase, server.unwrap().cluster_id), (Phase::Watching, 1));
    assert!(revision_at_last_session <= 2);
    bench.stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn nothing_at_rest_but_keepalives_and_progress() {
    let bench = bench();
    bench.fresh().await;
    bench.write(vec![create("10.0.0.1:80")]).await;
    let before = (bench.server.calls("list"), bench.server.calls("commit"), bench.server.revision());
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!((bench.server.calls("list"), bench.server.calls("commit"), bench.server.revision()), before);
    assert!(bench.server.calls("progress") >= 50, "a quiet watch is asked for a sign of life");
    let keepalives = bench.server.calls("keep_alive");
    assert!((29..=33).contains(&keepalives), "a third of the TTL: {keepalives} in 600 s");
    assert_eq!(bench.server.records().len(), 1);
    bench.stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn every_end_of_a_session_is_the_start_of_the_next() {
    let bench = bench();
    bench.server.put("p/echo/10.0.0.1:80", &value("10.0.0.1:80"), LeaseId::NONE);
    bench.fresh().await;
    for (end, broken) in [("cut", false), ("away", true), ("silent", true), ("refused", true), ("compacted", false)] {
        let lists = bench.server.calls("list");
        match end {
            "cut" => bench.server.cut(),
            "away" => bench.server.set_faults(Faults { away: true, ..Faults::default() }),
            "silent" => bench.server.set_faults(Faults { silent: true, ..Faults::default() }),
            "refused" => {
                bench.server.cut();
                bench.server.set_faults(Faults { refused: true, ..Faults::default() });
            }
            _ => {
                bench.server.cut();
                bench.server.put("p/other/x", "{}", LeaseId::NONE);
                bench.server.compact();
            }
        }
        if broken {
            bench.until(end, |b| b.snapshot().state == ViewState::Stale).await;
            assert_eq!(bench.keys(), ["p/echo/10.0.0.1:80"], "{end}: what was there is kept");
            tokio::time::sleep(Duration::from_secs(120)).await;
            bench.server.set_faults(Faults::default());
        }
        bench.until(end, |b| b.server.calls("list") > lists && b.snapshot().state == ViewState::Fresh).await;
        assert_eq!(bench.keys(), ["p/echo/10.0.0.1:80"], "{end}");
    }
    bench.stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn a_read_is_the_sign_of_life_where_progress_is_not_answered() {
    let bench = bench();
    bench.server.set_faults(Faults { no_progress: true, ..Faults::default() });
    bench.fresh().await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(bench.server.calls("list"), 1, "no session ended");
    assert!(bench.server.calls("read") >= 50);
    bench.server.put("p/echo/10.0.0.1:80", &value("10.0.0.1:80"), LeaseId::NONE);
    bench.until("the event", |b| b.keys().len() == 1).await;
    bench.server.set_faults(Faults { no_progress: true, away: true, ..Faults::default() });
    bench.until("the end", |b| b.snapshot().state == ViewState::Stale).await;
    bench.stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn the_lease_of_a_departed_record_is_looked_up() {
    let bench = bench();
    bench.server.grant_for(LeaseId(5), Duration::from_secs(3600));
    bench.server.grant_for(LeaseId(6), Duration::from_secs(30));
    bench.server.put("p/echo/10.0.0.1:80", &value("10.0.0.1:80"), LeaseId(5));
    bench.server.put("p/echo/10.0.0.2:80", &value("10.0.0.2:80"), LeaseId(6));
    bench.fresh().await;
    bench.server.delete(&["p/echo/10.0.0.1:80"]);
    bench
        .until("both are explained", |b| b.evidence_of("echo") == [Evidence::Deregistered, Evidence::LeaseExpired])
        .await;
    bench.stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn writes_use_leases_with_derived_ids_and_at_most_500_records() {
    let bench = bench();
    bench.fresh().await;
    let ops: Vec<RecordOp> = (0..600).map(|n| create(&format!("10.0.{}.{}:80", n / 250, n % 250 + 1))).collect();
    let report = bench.write(ops).await;
    assert_eq!((report.created, report.error, report.conflicts), (600, None, 0));
    let expected = [bench.handle.leases.id(0), bench.handle.leases.id(1)];
    let mut counts: Vec<(LeaseId, usize)> =
        bench.handle.view().own_leases().iter().map(|(lease, keys)| (*lease, keys.len())).collect();
    counts.sort_by_key(|(_, n)| *n);
    assert_eq!(counts, [(expected[1], 100), (expected[0], 500)]);
    assert!(bench.server.records().values().all(|r| expected.contains(&r.lease)), "no own record without a lease");
    assert_eq!(bench.server.calls("commit"), 5, "127 operations a batch, one lease each");
    bench.stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn a_lost_race_does_not_affect_other_operations_and_returns_the_record() {
    let bench = bench();
    bench.fresh().await;
    bench.server.put("p/echo/10.0.0.1:80", &value("10.0.0.1:80"), LeaseId::NONE);
    let report = bench.write(vec![create("10.0.0.1:80"), create("10.0.0.2:80")]).await;
    assert_eq!((report.created, report.conflicts, report.error), (1, 1, None));
    assert_eq!(bench.keys(), ["p/echo/10.0.0.1:80", "p/echo/10.0.0.2:80"]);
    let records = bench.server.records();
    assert_eq!(records["p/echo/10.0.0.1:80"].lease, LeaseId::NONE, "the foreign record is as it was");
    bench.stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_was_lost_is_read_again_before_anything_is_repeated() {
    let bench = bench();
    bench.fresh().await;
    bench.server.set_faults(Faults { answers_lost: true, ..Faults::default() });
    let report = bench.write(vec![create("10.0.0.1:80")]).await;
    assert!(report.error.is_some_and(|e| e.is_ambiguous()));
    assert_eq!(bench.keys(), ["p/echo/10.0.0.1:80"], "it was written, and we know it");
    assert_eq!(bench.server.calls("read"), 1);
    bench.stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_gone_is_granted_again_before_it_is_used() {
    let bench = bench();
    bench.fresh().await;
    bench.write(vec![create("10.0.0.1:80")]).await;
    bench.server.replace_with_empty();
    bench.until("listed again", |b| b.keys().is_empty() && b.snapshot().state == ViewState::Fresh).await;
    let first = bench.write(vec![create("10.0.0.1:80")]).await;
    let second = if first.error.is_some() { bench.write(vec![create("10.0.0.1:80")]).await } else { first };
    assert_eq!((second.created, second.error), (1, None));
    assert_eq!(bench.server.leases(), [bench.handle.leases.id(0)]);
    bench.stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn every_replica_keeps_leases_alive_and_empty_ones_expire() {
    let bench = bench();
    bench.fresh().await;
    bench.write(vec![create("10.0.0.1:80")]).await;
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!(bench.server.records().len(), 1);
    // Leases survive a short outage; a keepalive is the first request after it.
    bench.server.set_faults(Faults { away: true, ..Faults::default() });
    tokio::time::sleep(Duration::from_secs(30)).await;
    bench.server.set_faults(Faults::default());
    tokio::time::sleep(Duration::from_secs(50)).await;
    assert_eq!(bench.server.records().len(), 1);

    let key: RecordKey = "p/echo/10.0.0.1:80".into();
    let seen = bench.server.records()["p/echo/10.0.0.1:80"].mod_revision;
    let report = bench.write(vec![RecordOp::Delete { key, if_revision: seen, lease: bench.handle.leases.id(0) }]).await;
    assert_eq!(report.deleted, 1);
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!(bench.server.leases(), [], "an empty lease expires by itself");
    assert_eq!(bench.snapshot().departures.len(), 0, "our own delete is no departure");
    bench.stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn nothing_is_written_without_the_lease() {
    let bench = bench();
    bench.fresh().await;
    let by = ServiceKey::new("shop", "echo");
    let refused = bench.handle.write(&Leadership::none(), &by, vec![create("10.0.0.1:80")]).await;
    assert_eq!(refused.error, Some(RegistryError::NotLeader));
    assert!(bench.server.records().is_empty());
    bench.stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn a_session_waits_for_the_one_that_it_replaces() {
    let bench = bench();
    bench.fresh().await;
    let (lists, stop) = (bench.server.calls("list"), CancellationToken::new());
    tokio::spawn(run(bench.handle.clone(), Arc::new(bench.server.clone()), Env::real(), stop.clone()));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(bench.server.calls("list"), lists, "the first session continues");
    bench.stop.cancel();
    bench.until("the second one", |b| b.server.calls("list") > lists && b.snapshot().state == ViewState::Fresh).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(bench.handle.connection().is_ok(), "the next session stays connected");
    stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn an_answer_lost_with_its_connection_does_not_end_the_next_session() {
    let bench = bench();
    bench.fresh().await;
    // Each of these requests may end the session.
    for _ in 0..10 {
        let (lists, connection) = (bench.server.calls("list"), bench.handle.connection().unwrap());
        bench.handle.write_unknown(connection.as_ref());
        bench.server.cut();
        bench.until("the next session", |b| b.server.calls("list") > lists && b.handle.connection().is_ok()).await;
        bench.handle.write_unknown(connection.as_ref());
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(bench.server.calls("list"), lists + 1);
    }
    let (lists, connection) = (bench.server.calls("list"), bench.handle.connection().unwrap());
    bench.handle.write_unknown(connection.as_ref());
    bench.until("started over", |b| b.server.calls("list") == lists + 1).await;
    bench.stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn silence_counts_whatever_else_the_session_does() {
    let bench = bench_of(Layout::new(Format::GoZero, ""), &["echo"]);
    bench.fresh().await;
    bench.server.set_faults(Faults { progress_lost: true, ..Faults::default() });
    // RegisteredServices come more often than the watch may be silent.
    for n in 0..6 {
        tokio::time::sleep(Duration::from_secs(5)).await;
        bench.handle.asked.set_registered(names(&["echo", &format!("other-{n}")]));
        if bench.snapshot().state == ViewState::Stale {
            break;
        }
    }
    let failed = |b: &Bench| matches!(b.handle.status().phase, Phase::Failed(RegistryError::Silent { .. }));
    assert!(failed(&bench), "{:?}", bench.handle.status());
    bench.stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn a_change_that_waited_while_the_session_was_busy_ends_no_silence() {
    let bench = bench_of(Layout::new(Format::GoZero, ""), &["echo"]);
    bench.fresh().await;
    // Slow lists last longer than one silence, and the watch has news meanwhile.
    bench.server.set_faults(Faults { slow: true, ..Faults::default() });
    let many: Vec<String> = (0..400).map(|n| format!("other-{n}")).chain(["echo".to_owned()]).collect();
    bench.handle.asked.set_registered(names(&many.iter().map(String::as_str).collect::<Vec<_>>()));
    tokio::time::sleep(Duration::from_secs(2)).await;
    bench.server.put("echo/1", "10.0.0.1:80", LeaseId::NONE);
    bench.until("the change", |b| b.keys().len() == 1).await;
    assert_eq!(bench.handle.status().phase, Phase::Watching);
    bench.stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn a_session_without_ranges_is_not_taken_for_a_silent_one() {
    let bench = bench_of(Layout::new(Format::GoZero, ""), &["echo"]);
    bench.fresh().await;
    bench.handle.asked.set_registered(names(&[]));
    bench.until("given up", |b| b.snapshot().state == ViewState::Unknown).await;
    let statuses = bench.server.calls("status");
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!(bench.handle.status().phase, Phase::Watching);
    assert!((11..=13).contains(&(bench.server.calls("status") - statuses)), "a sign of life from time to time");
    bench.handle.asked.set_registered(names(&["echo"]));
    bench.server.put("echo/1", "10.0.0.1:80", LeaseId::NONE);
    bench.until("followed again", |b| b.keys().len() == 1).await;
    bench.stop.cancel();
}

/// A session of one name, and a record of ours under another one that nobody asks for, on a lease of so many seconds.
fn bench_with_an_orphan(faults: Faults, ttl: u64) -> Bench {
    let bench = bench_of(Layout::new(Format::GoZero, ""), &["echo"]);
    bench.server.set_faults(faults);
    let lease = bench.handle.leases.id(5);
    bench.server.grant_for(lease, Duration::from_secs(ttl));
    bench.server.put("lost/twinspan~c1~shop~gone~10.0.0.9:80", "10.0.0.9:80", lease);
    bench
}

#[tokio::test(start_paused = true)]
async fn a_search_for_orphans_that_fails_neither_ends_nor_delays_the_session() {
    let bench = bench_with_an_orphan(Faults { no_lease_list: true, ..Faults::default() }, 3600);
    bench.fresh().await;
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!((bench.handle.status().phase, bench.server.calls("list")), (Phase::Watching, 1));
    bench.server.set_faults(Faults::default());
    bench.until("found", |b| b.handle.owners().len() == 1).await;
    bench.stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn own_records_are_found_among_more_leases_than_one_answer_has() {
    let bench = bench_with_an_orphan(Faults { many_leases: true, ..Faults::default() }, 60);
    bench.until("found", |b| b.handle.owners().len() == 1).await;
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!(
        (bench.server.records().len(), bench.server.calls("leases")),
        (1, 2),
        "kept, and asked for once by each"
    );
    bench.stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn a_look_up_that_breaks_off_leaves_the_lease_unreadable() {
    let bench = bench();
    bench.server.grant_for(LeaseId(5), Duration::from_secs(3600));
    bench.server.put("p/echo/10.0.0.1:80", &value("10.0.0.1:80"), LeaseId(5));
    bench.fresh().await;
    bench.server.set_faults(Faults { breaks_off: Some("look_up"), ..Faults::default() });
    bench.server.delete(&["p/echo/10.0.0.1:80"]);
    bench.until("unreadable", |b| b.evidence_of("echo") == [Evidence::LeaseUnreadable]).await;
    bench.stop.cancel();
}
