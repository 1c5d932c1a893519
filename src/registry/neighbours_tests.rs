use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use twinspan_core::codec::{Format, Layout};
use twinspan_core::model::LeaseId;

use super::*;
use crate::env::Env;
use crate::leadership::{Leadership, LeaseHistory};
use crate::registry::handle::{Identity, RegistryEvent};
use crate::registry::phase::Phase;
use crate::registry::takeover::Takeover;
use crate::registry::testing::FakeEtcd;
use crate::registry::verified::AuditResult;
use crate::registry::{audit, session, takeover};

const INTERVAL: Duration = Duration::from_secs(600);

struct Bench {
    server: FakeEtcd,
    handle: Arc<RegistryHandle>,
    leadership: Leadership,
    stop: CancellationToken,
    _events: mpsc::UnboundedReceiver<RegistryEvent>,
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// The session of cluster `c1` on a fake etcd, its audits and its take-over.
fn bench(fence_prefix: Option<&str>) -> Bench {
    let (server, (sender, events)) = (FakeEtcd::new(), mpsc::unbounded_channel());
    let identity = Identity {
        uid: "u".into(),
        cluster_id: "c1".into(),
        layout: Layout::new(Format::Kitex, "p"),
        ttl_seconds: 60,
        fence_prefix: fence_prefix.map(str::to_owned),
    };
    let handle = RegistryHandle::new("main", &identity, None, sender);
    let (leadership, stop) = (Leadership::none(), CancellationToken::new());
    let (lease_history, ending) = (LeaseHistory::alone("a"), CancellationToken::new());
    let leader = Takeover { leadership: leadership.clone(), lease_history, env: Env::real(), ending };
    tokio::spawn(session::run(handle.clone(), Arc::new(server.clone()), Env::real(), stop.clone()));
    tokio::spawn(takeover::run(handle.clone(), leader, stop.clone()));
    tokio::spawn(audit::run(handle.clone(), INTERVAL, Env::real(), stop.clone()));
    Bench { server, handle, leadership, stop, _events: events }
}

impl Bench {
    fn epoch_of(&self, cluster: &str) {
        self.server.put(&format!("twinspan/{cluster}/main"), "1/a", LeaseId::NONE);
    }

    async fn leads(&self) {
        tokio::time::sleep(Duration::from_secs(1)).await;
        self.leadership.acquired();
        tokio::time::sleep(Duration::from_secs(1)).await;
    }

    /// Waits until there was one more audit.
    async fn audited(&self) {
        self.handle.audit.take_results();
        tokio::time::sleep(INTERVAL * 2).await;
        assert!(self.handle.audit.take_results().contains_key(&AuditResult::Agrees));
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_leader_and_each_audit_look_for_the_others_and_nobody_else_does() {
    let bench = bench(Some("twinspan/"));
    bench.epoch_of("c2");
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!((bench.handle.neighbours.known(), bench.server.calls("keys")), (None, 0));
    bench.leads().await;
    assert!(bench.server.records().contains_key("twinspan/c1/main"));
    assert_eq!(bench.handle.neighbours.known(), Some(vec!["c2".to_owned()]), "ours is no other");
    bench.epoch_of("c3");
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(bench.server.calls("keys"), 1, "nothing at rest");
    bench.audited().await;
    assert_eq!(bench.handle.neighbours.known(), Some(vec!["c2".to_owned(), "c3".to_owned()]));
    bench.server.delete(&["twinspan/c2/main"]);
    bench.audited().await;
    assert_eq!(bench.handle.neighbours.known(), Some(vec!["c3".to_owned()]));
}

#[tokio::test(start_paused = true)]
async fn a_user_that_may_not_read_the_epochs_of_others_costs_nothing() {
    let bench = bench(Some("twinspan/"));
    bench.epoch_of("c2");
    bench.leads().await;
    bench.server.forbid_reads(&["twinspan/c2/"]);
    bench.audited().await;
    assert_eq!(bench.handle.neighbours.known(), Some(Vec::new()));
    assert!(matches!(bench.handle.status().phase, Phase::Watching));
    assert!(bench.handle.fence().is_ok() && bench.handle.problem(true).is_none());
}

#[tokio::test(start_paused = true)]
async fn without_a_fence_nobody_looks() {
    let bench = bench(None);
    bench.epoch_of("c2");
    bench.leads().await;
    bench.audited().await;
    assert_eq!((bench.handle.neighbours.known(), bench.server.calls("keys")), (None, 0));
}
