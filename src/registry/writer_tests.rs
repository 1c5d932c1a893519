use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use twinspan_core::codec::{Format, Layout};
use twinspan_core::model::ServiceKey;
use twinspan_core::plan::service::{Incarnation, ViewState};

use super::*;
use crate::env::Env;
use crate::registry::batch::{MAX_BATCH_BYTES, bytes_of};
use crate::registry::handle::{Identity, RegistryEvent};
use crate::registry::outcomes::learn_by_reading;
use crate::registry::session;
use crate::registry::testing::{FakeEtcd, Faults};
use crate::registry::{Outcome, TxnResponse};

/// A session on a fake etcd.
struct Bench {
    server: FakeEtcd,
    handle: Arc<RegistryHandle>,
    events: mpsc::UnboundedReceiver<RegistryEvent>,
    stop: CancellationToken,
}

async fn bench() -> Bench {
    let server = FakeEtcd::new();
    let (sender, events) = mpsc::unbounded_channel();
    let (uid, cluster_id, layout) = ("u".into(), "c1".into(), Layout::new(Format::Kitex, "p"));
    let identity = Identity { uid, cluster_id, layout, ttl_seconds: 60, fence_prefix: None };
    let (handle, stop) = (RegistryHandle::new("main", &identity, None, sender), CancellationToken::new());
    tokio::spawn(session::run(handle.clone(), Arc::new(server.clone()), Env::real(), stop.clone()));
    while handle.connection().is_err() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Bench { server, handle, events, stop }
}

fn value(address: &str, tags: &str) -> Vec<u8> {
    format!(r#"{{"network":"tcp","address":"{address}","weight":10,"tags":{{{tags}}}}}"#).into()
}

fn create(address: &str) -> RecordOp {
    let value = value(address, r#""twinspan.dev/owner":"c1/shop/echo""#);
    RecordOp::Create { key: format!("p/echo/{address}").into(), value }
}

impl Bench {
    async fn write(&self, ops: Vec<RecordOp>) -> WriteReport {
        let leadership = Leadership::none();
        leadership.acquired();
        self.handle.confirm_sole(self.handle.etcd());
        self.handle.write(&leadership, &ServiceKey::new("shop", "echo"), ops).await
    }

    /// Without faults the session lists so many records of another etcd.
    async fn lists_another_etcd(&self, records: usize) {
        self.server.set_faults(Faults::default());
        tokio::time::sleep(Duration::from_secs(60)).await;
        let view = self.handle.view();
        assert_eq!((view.state(), view.all().count()), (ViewState::Fresh, records));
        assert_ne!(view.incarnation(), Incarnation::AsItWas);
        drop(view);
        self.stop.cancel();
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_affects_the_same_services_as_a_watch_event() {
    let mut bench = bench().await;
    bench.server.set_faults(Faults { silent: true, ..Faults::default() });
    let theirs = value("10.0.0.1:80", "");
    bench.server.put("p/echo/10.0.0.1:80", &String::from_utf8_lossy(&theirs), LeaseId::NONE);
    let report = bench.write(vec![create("10.0.0.1:80")]).await;
    assert_eq!((report.conflicts, report.wrote.is_empty()), (1, true));
    assert!(report.found.names.contains(&b"echo"[..]), "{:?}", report.found);
    let report = bench.write(vec![create("10.0.0.2:80")]).await;
    assert_eq!((report.created, report.found.is_empty()), (1, true));
    assert_eq!(report.wrote.owners, [ServiceKey::new("shop", "echo")].into());
    assert!(report.wrote.names.contains(&b"echo"[..]), "{:?}", report.wrote);
    // The watch then reports both, which changes nothing.
    bench.server.set_faults(Faults::default());
    tokio::time::sleep(Duration::from_secs(1)).await;
    while let Ok(event) = bench.events.try_recv() {
        assert!(!matches!(&event, RegistryEvent::Affected { .. }), "{event:?}");
    }
    bench.stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn a_full_database_accepts_the_deletes_behind_a_create() {
    let bench = bench().await;
    assert_eq!(bench.write(vec![create("10.0.0.1:80"), create("10.0.0.2:80")]).await.created, 2);
    bench.server.set_faults(Faults { full: true, ..Faults::default() });
    let records = bench.server.records();
    let delete = |address: &str| {
        let record = &records[&format!("p/echo/{address}")];
        RecordOp::Delete { key: record.key.clone(), if_revision: record.mod_revision, lease: record.lease }
    };
    let report = bench.write(vec![create("10.0.0.3:80"), delete("10.0.0.1:80"), delete("10.0.0.2:80")]).await;
    assert_eq!((report.created, report.deleted), (0, 2));
    assert!(matches!(report.error, Some(RegistryError::NoSpace(_))), "{:?}", report.error);
    assert!(bench.server.records().is_empty());
    bench.server.set_faults(Faults::default());
    assert_eq!(bench.write(vec![create("10.0.0.3:80")]).await.created, 1);
    bench.stop.cancel();
}

#[test]
fn a_batch_fits_into_one_request() {
    let of = |n: usize, bytes: usize| RecordOp::Create { key: format!("p/echo/{n}").into(), value: vec![b'x'; bytes] };
    let mut ops: Vec<RecordOp> = (0..100).map(|n| of(n, 60 * 1024)).collect();
    // An operation that is too large by itself gets a batch of its own.
    ops.insert(50, of(100, 2 * MAX_BATCH_BYTES));
    let mut group = [Submission::new(&ServiceKey::new("shop", "echo"), ops)];
    let mut sizes = Vec::new();
    while !group[0].ops.is_empty() {
        let (batch, _) = next_batch(&mut group, LeaseId(1), 500, MAX_BATCH);
        sizes.push((batch.len(), batch.iter().map(bytes_of).sum::<usize>()));
    }
    let alone = sizes.iter().filter(|(_, bytes)| *bytes > MAX_BATCH_BYTES).collect::<Vec<_>>();
    assert!(matches!(alone[..], [(1, _)]), "{sizes:?}");
    assert_eq!(sizes.iter().map(|(ops, _)| ops).sum::<usize>(), 101);
    assert!(sizes.len() <= 8, "{sizes:?}");
    group[0].ops = (0..200).map(|n| of(n, 100)).collect();
    assert_eq!(next_batch(&mut group, LeaseId(1), 500, MAX_BATCH).0.len(), MAX_BATCH);
}

#[test]
fn services_share_a_batch_but_for_a_key_and_each_keeps_its_order() {
    let submission = |name: &str, ops| Submission::new(&ServiceKey::new("shop", name), ops);
    let delete =
        |address: &str| RecordOp::Delete { key: format!("p/echo/{address}").into(), if_revision: 1, lease: LeaseId(1) };
    let mut group = [
        submission("a", vec![create("10.0.0.1:80")]),
        submission("b", vec![create("10.0.0.1:80"), delete("10.0.0.2:80")]),
        submission("c", vec![delete("10.0.0.3:80"), create("10.0.0.4:80")]),
    ];
    let (ops, of) = next_batch(&mut group, LeaseId(1), 500, MAX_BATCH);
    assert_eq!((ops.len(), of), (3, vec![0, 2, 2]));
    assert_eq!(group.each_ref().map(|submission| submission.ops.len()), [0, 2, 0], "a delete never goes ahead");
    assert_eq!(next_batch(&mut group, LeaseId(1), 500, MAX_BATCH).1, [1, 1]);
}

#[tokio::test(start_paused = true)]
async fn a_write_that_the_watch_did_not_tell_of_is_read() {
    let bench = bench().await;
    let registry = bench.handle.connection().unwrap();
    let ours = create("10.0.0.1:80");
    let batch = Batch { fence: None, lease: LeaseId::NONE, ops: vec![ours.clone()] };
    let answer = registry.commit(&batch);
    // Its event is lost, and a later one comes before the answer does.
    bench.server.swallow("p/echo/10.0.0.1:80");
    let answer = answer.await;
    bench.server.put("p/echo/10.0.0.2:80", &String::from_utf8_lossy(&value("10.0.0.2:80", "")), LeaseId::NONE);
    while bench.handle.view().counts().foreign == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(bench.handle.view().counts().own, 0);
    let mut reports = [WriteReport::default()];
    learn_answer(&bench.handle, registry.as_ref(), 0, (&batch, &[0]), answer, &mut reports).await.unwrap();
    assert_eq!(bench.handle.view().counts().own, 1);
    assert!(reports[0].found.owners.contains(&ServiceKey::new("shop", "echo")));
    bench.stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn an_answer_of_an_earlier_connection_is_not_learnt() {
    let bench = bench().await;
    let first = bench.handle.connection().unwrap();
    bench.server.cut();
    while bench.handle.connection().map_or(true, |now| Arc::ptr_eq(&now, &first)) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // The revision of an etcd that is gone: no event and no list would remove its record again.
    let batch = Batch { fence: None, lease: LeaseId(7), ops: vec![create("10.0.0.1:80")] };
    let answer = Ok(TxnResponse { revision: 9000, outcomes: vec![Outcome::Written] });
    let mut reports = [WriteReport::default()];
    learn_answer(&bench.handle, first.as_ref(), 0, (&batch, &[0]), answer.clone(), &mut reports).await.unwrap();
    assert_eq!(bench.handle.view().counts().own, 0);
    let now = bench.handle.connection().unwrap();
    learn_answer(&bench.handle, now.as_ref(), 0, (&batch, &[0]), answer, &mut reports).await.unwrap();
    assert_eq!(bench.handle.view().counts().own, 1);
    bench.stop.cancel();
}

/// The list of the next session may be older than the write, and the answer tells the view nothing.
#[tokio::test(start_paused = true)]
async fn nothing_is_written_for_a_session_that_ended_while_a_lease_was_granted() {
    let bench = bench().await;
    bench.server.set_faults(Faults { slow_grants: true, ..Faults::default() });
    let ends = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        bench.server.cut();
    };
    let (report, ()) = tokio::join!(bench.write(vec![create("10.0.0.1:80")]), ends);
    assert_eq!((report.error, bench.server.calls("commit")), (Some(RegistryError::NotConnected), 0));
    tokio::time::sleep(Duration::from_secs(1)).await;
    let report = bench.write(vec![create("10.0.0.1:80")]).await;
    assert_eq!((report.error, report.created), (None, 1));
    bench.stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn a_record_whose_lease_is_gone_gets_it_again_at_once() {
    let bench = bench().await;
    assert_eq!(bench.write(vec![create("10.0.0.1:80")]).await.created, 1);
    let lease = bench.handle.leases.id(0);
    bench.server.revoke(lease);
    let began = tokio::time::Instant::now();
    let report = bench.write(vec![create("10.0.0.2:80")]).await;
    assert_eq!((report.created, report.error), (1, None));
    assert!(began.elapsed() < std::time::Duration::from_millis(50), "{:?}", began.elapsed());
    assert_eq!(bench.server.records()["p/echo/10.0.0.2:80"].lease, lease);
    bench.stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn a_write_with_a_revision_that_was_known_before_tells_of_another_etcd() {
    let bench = bench().await;
    for n in 0..9 {
        bench.server.put("p/echo/10.0.0.9:80", &format!("{n}"), LeaseId::NONE);
    }
    assert_eq!(bench.write(vec![create("10.0.0.1:80")]).await.created, 1);
    // The watch tells of them.
    tokio::time::sleep(Duration::from_secs(1)).await;
    bench.server.set_faults(Faults { silent: true, ..Faults::default() });
    bench.server.replace_with_empty();
    let report = bench.write(vec![create("10.0.0.2:80")]).await;
    assert_eq!(report.created, 1, "{report:?}");
    assert_ne!(bench.handle.view().state(), ViewState::Fresh, "no plan may rest on what the other etcd had");
    bench.lists_another_etcd(1).await;
}

/// A delete that lost its race, and a read after an answer was lost, show nothing but an older revision.
#[tokio::test(start_paused = true)]
async fn an_answer_that_is_older_than_what_was_known_before_tells_of_another_etcd() {
    for reads in [false, true] {
        let bench = bench().await;
        assert_eq!(bench.write(vec![create("10.0.0.1:80")]).await.created, 1);
        let record = bench.server.records()["p/echo/10.0.0.1:80"].clone();
        let delete =
            RecordOp::Delete { key: record.key.clone(), if_revision: record.mod_revision, lease: record.lease };
        bench.server.set_faults(Faults { silent: true, ..Faults::default() });
        bench.server.replace_with_empty();
        if reads {
            let registry = bench.handle.connection().unwrap();
            let (keys, mut reports) = ([(record.key, 0)].into(), [WriteReport::default()]);
            learn_by_reading(&bench.handle, registry.as_ref(), &keys, &mut reports).await;
        } else {
            assert_eq!(bench.write(vec![delete]).await.conflicts, 1);
        }
        assert_ne!(bench.handle.view().state(), ViewState::Fresh, "reads: {reads}");
        bench.lists_another_etcd(0).await;
    }
}
