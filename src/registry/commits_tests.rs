use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use twinspan_core::codec::{Format, Layout};
use twinspan_core::model::ServiceKey;
use twinspan_core::plan::RecordOp;

use super::RegistryError;
use super::commits::WriteReport;
use super::handle::{Identity, RegistryHandle};
use super::testing::{FakeEtcd, Faults};
use crate::env::Env;
use crate::leadership::Leadership;
use crate::registry::session;

/// A session on a fake etcd, and its writer.
struct Bench {
    server: FakeEtcd,
    handle: Arc<RegistryHandle>,
    leadership: Leadership,
    stop: CancellationToken,
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn bench() -> Bench {
    let (server, leadership, stop) = (FakeEtcd::new(), Leadership::none(), CancellationToken::new());
    let (uid, cluster_id, layout) = ("u".into(), "c1".into(), Layout::new(Format::Kitex, "p"));
    let identity = Identity { uid, cluster_id, layout, ttl_seconds: 60, fence_prefix: None };
    let handle = RegistryHandle::new("main", &identity, None, mpsc::unbounded_channel().0);
    tokio::spawn(session::run(handle.clone(), Arc::new(server.clone()), Env::real(), stop.clone()));
    while handle.connection().is_err() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    leadership.acquired();
    handle.confirm_sole(handle.etcd());
    Bench { server, handle, leadership, stop }
}

impl Bench {
    /// Each of these services writes one record.
    async fn all_write(&self, names: &[String], port: u16) -> Vec<WriteReport> {
        let write = |name: &String| {
            let key = ServiceKey::new("shop", name);
            let value = format!(
                r#"{{"network":"tcp","address":"10.0.0.1:{port}","weight":10,"tags":{{"twinspan.dev/owner":"c1/{key}"}}}}"#
            );
            let op = RecordOp::Create { key: format!("p/{name}/10.0.0.1:{port}").into(), value: value.into() };
            async move { self.handle.write(&self.leadership, &key, vec![op]).await }
        };
        join_all(names.iter().map(write)).await
    }
}

fn names(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("echo-{n}")).collect()
}

#[tokio::test(start_paused = true)]
async fn writes_that_wait_share_a_transaction_and_each_has_its_own_report() {
    let bench = bench().await;
    bench.server.set_faults(Faults { slow_commits: true, ..Faults::default() });
    let all = names(400);
    let before = bench.server.calls("commit");
    let reports = bench.all_write(&all, 80).await;
    assert!(reports.iter().all(|report| (report.created, &report.error) == (1, &None)), "{:?}", reports[0]);
    for (name, report) in all.iter().zip(&reports) {
        assert_eq!(report.wrote.owners, [ServiceKey::new("shop", name)].into(), "nobody else's");
    }
    assert_eq!(bench.server.records().len(), 400);
    // Three full ones and those that the first found alone.
    let commits = bench.server.calls("commit") - before;
    assert!((4..=8).contains(&commits), "{commits} transactions for 400 writes");
}

#[tokio::test(start_paused = true)]
async fn a_service_that_etcd_refuses_costs_those_beside_it_nothing() {
    let bench = bench().await;
    let all = names(60);
    bench.server.forbid_writes(&["p/echo-33/"]);
    for port in [80, 81] {
        bench.server.set_faults(Faults { slow_commits: true, ..Faults::default() });
        let before = bench.server.calls("commit");
        let reports = bench.all_write(&all, port).await;
        let failed: Vec<&String> =
            all.iter().zip(&reports).filter(|(_, report)| report.error.is_some()).map(|(name, _)| name).collect();
        assert_eq!(failed, ["echo-33"]);
        assert!(matches!(reports[33].error, Some(RegistryError::PermissionDenied(_))), "{:?}", reports[33]);
        let commits = bench.server.calls("commit") - before;
        // Those that were refused together write alone once, and only the guilty one goes on to.
        assert!(port == 80 || commits <= 8, "{commits} transactions");
    }
    bench.server.forbid_writes(&[]);
    assert_eq!(bench.all_write(&all[33..34], 82).await[0].created, 1);
    assert_eq!(bench.server.records().len(), 59 * 2 + 1);
}

#[tokio::test(start_paused = true)]
async fn the_deletes_of_a_service_wait_for_no_create_that_a_full_database_refuses() {
    let bench = bench().await;
    let all = names(20);
    bench.all_write(&all[..10], 80).await;
    bench.server.set_faults(Faults { full: true, slow_commits: true, ..Faults::default() });
    let records = bench.server.records();
    let delete = |name: &String| {
        let record = &records[&format!("p/{name}/10.0.0.1:80")];
        let op = RecordOp::Delete { key: record.key.clone(), if_revision: record.mod_revision, lease: record.lease };
        let key = ServiceKey::new("shop", name);
        let bench = &bench;
        async move { bench.handle.write(&bench.leadership, &key, vec![op]).await }
    };
    let (created, deleted) = tokio::join!(bench.all_write(&all[10..], 80), join_all(all[..10].iter().map(delete)));
    assert!(created.iter().all(|report| matches!(report.error, Some(RegistryError::NoSpace(_)))), "{:?}", created[0]);
    assert!(deleted.iter().all(|report| (report.deleted, &report.error) == (1, &None)), "{:?}", deleted[0]);
}

#[tokio::test(start_paused = true)]
async fn a_write_whose_task_is_stopped_keeps_no_other_waiting() {
    let bench = bench().await;
    bench.server.set_faults(Faults { slow_commits: true, ..Faults::default() });
    let all = names(40);
    // Each of the four under way may be stopped, and takes along those who share its transaction.
    let stopped = tokio::time::timeout(Duration::from_millis(50), bench.all_write(&all, 80)).await;
    assert!(stopped.is_err());
    let reports = bench.all_write(&names(80)[40..], 80).await;
    assert!(reports.iter().all(|report| report.created == 1), "{:?}", reports[0]);
}
