use std::collections::BTreeMap;

use tokio::sync::mpsc;
use twinspan_core::codec::{Format, Layout};
use twinspan_core::model::{LeaseId, Owner, RegistryName, ServiceKey};
use twinspan_core::plan::departure::Evidence;
use twinspan_core::plan::service::{Snapshot, ViewState};

use super::*;
use crate::registry::handle::Identity;
use crate::registry::session;
use crate::registry::testing::{FakeEtcd, Faults};

const INTERVAL: Duration = Duration::from_secs(60);

struct Bench {
    server: FakeEtcd,
    handle: Arc<RegistryHandle>,
    _events: mpsc::UnboundedReceiver<RegistryEvent>,
    stop: CancellationToken,
}

/// A session and its audits on a fake etcd.
fn bench() -> Bench {
    let server = FakeEtcd::new();
    let (sender, events) = mpsc::unbounded_channel();
    let layout = Layout::new(Format::Kitex, "p");
    let identity = Identity { uid: "u".into(), cluster_id: "c1".into(), layout, ttl_seconds: 60, fence_prefix: None };
    let handle = RegistryHandle::new("main", &identity, None, sender);
    let stop = CancellationToken::new();
    tokio::spawn(session::run(handle.clone(), Arc::new(server.clone()), Env::real(), stop.clone()));
    tokio::spawn(run(handle.clone(), INTERVAL, Env::real(), stop.clone()));
    Bench { server, handle, _events: events, stop }
}

fn value(address: &str, owner: &str) -> String {
    format!(r#"{{"network":"tcp","address":"{address}","weight":10,"tags":{{{owner}}}}}"#)
}

const OURS: &str = r#""twinspan.dev/owner":"c1/shop/echo""#;

impl Bench {
    fn snapshot(&self) -> Snapshot {
        let owner = Owner { cluster_id: "c1".into(), service: ServiceKey::new("shop", "echo") };
        self.handle.view().snapshot(&RegistryName::new("echo").unwrap(), &owner)
    }

    fn keys(&self) -> Vec<String> {
        self.snapshot().records.keys().map(|key| key.last_segment().into_owned()).collect()
    }

    fn put(&self, address: &str, owner: &str) {
        self.server.put(&format!("p/echo/{address}"), &value(address, owner), LeaseId::NONE);
    }

    async fn until(&self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        for _ in 0..4000 {
            if holds(self) {
                return;
            }
            sleep(Duration::from_millis(50)).await;
        }
        panic!("never: {what}; {:?}", self.keys());
    }

    /// The results of the next audits.
    async fn audited(&self) -> BTreeMap<AuditResult, u64> {
        self.handle.audit.take_results();
        let mut found = BTreeMap::new();
        self.until("an audit", |bench| {
            found = bench.handle.audit.take_results();
            !found.is_empty()
        })
        .await;
        found
    }
}

#[tokio::test(start_paused = true)]
async fn a_delete_that_the_watch_swallows_is_found_and_unexplained() {
    let bench = bench();
    for address in ["10.0.0.1:80", "10.0.0.2:80"] {
        bench.put(address, "");
    }
    bench.until("listed", |b| b.keys().len() == 2 && b.snapshot().state == ViewState::Fresh).await;
    assert_eq!(bench.audited().await, [(AuditResult::Agrees, 1)].into());
    bench.server.swallow("p/echo/10.0.0.1:80");
    bench.server.delete(&["p/echo/10.0.0.1:80"]);
    sleep(Duration::from_secs(5)).await;
    assert_eq!(bench.keys().len(), 2, "no event told");
    assert_eq!(bench.audited().await, [(AuditResult::Differs, 1)].into());
    assert_eq!(bench.keys(), ["10.0.0.2:80"]);
    let evidence: Vec<Evidence> = bench.snapshot().departures.values().map(|departure| departure.evidence).collect();
    assert_eq!(evidence, [Evidence::LeaseUnreadable], "the guard decides");
    assert_eq!(bench.audited().await, [(AuditResult::Agrees, 1)].into());
    assert_eq!(bench.server.calls("list"), 1, "the session goes on");
    bench.stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn what_the_watch_swallows_is_learnt() {
    let bench = bench();
    bench.put("10.0.0.1:80", "");
    bench.until("listed", |b| b.keys().len() == 1).await;
    bench.server.swallow("p/echo/10.0.0.2:80");
    bench.put("10.0.0.2:80", OURS);
    assert_eq!(bench.audited().await, [(AuditResult::Differs, 1)].into());
    assert_eq!(bench.keys(), ["10.0.0.1:80", "10.0.0.2:80"]);
    assert_eq!(bench.handle.owners().len(), 1);

    // An own record that is gone is put again as after a list.
    bench.server.swallow("p/echo/10.0.0.2:80");
    bench.server.delete(&["p/echo/10.0.0.2:80"]);
    assert_eq!(bench.audited().await, [(AuditResult::Differs, 1)].into());
    assert_eq!(bench.handle.owners().len(), 0);
    let evidence: Vec<Evidence> = bench.snapshot().departures.values().map(|departure| departure.evidence).collect();
    assert_eq!(evidence, [Evidence::Deregistered]);
    bench.stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn churn_and_outages_are_no_differences() {
    let bench = bench();
    bench.until("listed", |b| b.snapshot().state == ViewState::Fresh).await;
    for n in 0..4000 {
        let address = format!("10.0.0.{}:80", n % 50 + 1);
        if n % 3 == 0 {
            bench.server.delete(&[&format!("p/echo/{address}")]);
        } else {
            bench.put(&address, "");
        }
        if n == 1500 {
            bench.server.cut();
        }
        sleep(Duration::from_millis(97)).await;
    }
    let results = bench.handle.audit.take_results();
    assert!(results.get(&AuditResult::Agrees).is_some_and(|count| *count >= 4), "{results:?}");
    assert_eq!(results.get(&AuditResult::Differs), None, "{results:?}");

    bench.server.set_faults(Faults { silent: true, ..Faults::default() });
    bench.put("10.0.1.1:80", "");
    bench.until("the session noticed", |b| b.snapshot().state != ViewState::Fresh).await;
    assert_eq!(bench.handle.audit.take_results().get(&AuditResult::Differs), None, "progress was not answered");
    bench.stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn a_moment_stands_for_progress_that_is_not_answered() {
    let bench = bench();
    bench.server.set_faults(Faults { no_progress: true, ..Faults::default() });
    bench.put("10.0.0.1:80", "");
    bench.until("listed", |b| b.keys().len() == 1).await;
    // The watch begins at the revision of the list.
    sleep(Duration::from_secs(1)).await;
    bench.server.swallow("p/echo/10.0.0.1:80");
    bench.server.delete(&["p/echo/10.0.0.1:80"]);
    assert_eq!(bench.audited().await, [(AuditResult::Differs, 1)].into());
    assert!(bench.keys().is_empty());
    assert!(bench.handle.audit.last_verified().is_some());
    bench.stop.cancel();
}

/// A RegisteredService that goes and comes back while an audit runs takes its range along.
#[tokio::test(start_paused = true)]
async fn a_range_that_is_forgotten_meanwhile_is_no_difference() {
    let bench = bench();
    for n in 0..=MOST_DIFFERENCES {
        bench.put(&format!("10.0.{}.{}:80", n / 250, n % 250 + 1), "");
    }
    bench.until("listed", |b| b.keys().len() == MOST_DIFFERENCES + 1).await;
    let registry = bench.handle.connection().unwrap();
    let mut audit = Audit { handle: &bench.handle, registry: &registry, env: &Env::real(), found: 0, records: 0 };
    bench.handle.view().forget(&Range::Everything);
    let at = audit.begin(&Range::Everything).await.unwrap();
    audit.range(&Range::Everything, at).await.unwrap();
    assert_eq!((audit.found, audit.records), (0, MOST_DIFFERENCES + 1));
    bench.server.delete(&["p/echo/10.0.0.1:80"]);
    let at = audit.begin(&Range::Everything).await.unwrap();
    audit.range(&Range::Everything, at).await.unwrap();
    assert_eq!((audit.found, bench.keys().len()), (0, 0), "nothing is entered before the list is there");
    bench.stop.cancel();
}
