use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::mpsc;
use twinspan_core::codec::{Format, Layout};
use twinspan_core::model::{RegistryName, ServiceKey};
use twinspan_core::plan::RecordOp;
use twinspan_core::plan::service::Incarnation;

use super::*;
use crate::registry::Fence;
use crate::registry::handle::{Identity, RegistryEvent};
use crate::registry::testing::{FakeEtcd, Faults};
use crate::registry::{keepalive, session};

const KEY: &str = "twinspan/c1/main";

/// One replica on a fake etcd.
struct Replica {
    handle: Arc<RegistryHandle>,
    leadership: Leadership,
    lease_history: LeaseHistory,
    ending: CancellationToken,
    stop: CancellationToken,
    _events: mpsc::UnboundedReceiver<RegistryEvent>,
}

fn replica(server: &FakeEtcd, name: &str) -> Replica {
    replica_as(server, name, Leadership::none())
}

fn replica_as(server: &FakeEtcd, name: &str, leadership: Leadership) -> Replica {
    replica_with(server, leadership, LeaseHistory::alone(name))
}

fn replica_with(server: &FakeEtcd, leadership: Leadership, lease_history: LeaseHistory) -> Replica {
    replica_at(Layout::new(Format::Kitex, "p"), server, leadership, lease_history)
}

fn replica_at(layout: Layout, server: &FakeEtcd, leadership: Leadership, lease_history: LeaseHistory) -> Replica {
    let (sender, events) = mpsc::unbounded_channel();
    let identity = Identity {
        uid: "u".into(),
        cluster_id: "c1".into(),
        layout,
        ttl_seconds: 60,
        fence_prefix: Some("twinspan/".into()),
    };
    let handle = RegistryHandle::new("main", &identity, None, sender);
    let (stop, ending) = (CancellationToken::new(), CancellationToken::new());
    let (env, history) = (Env::real(), lease_history.clone());
    let leader = Takeover { leadership: leadership.clone(), lease_history: history, env, ending: ending.clone() };
    tokio::spawn(session::run(handle.clone(), Arc::new(server.clone()), Env::real(), stop.clone()));
    tokio::spawn(keepalive::run(handle.clone(), stop.clone()));
    tokio::spawn(super::run(handle.clone(), leader, stop.clone()));
    Replica { handle, leadership, lease_history, ending, stop, _events: events }
}

impl Replica {
    /// Leads from now on, as if it had won the Lease.
    fn lead(&self) {
        self.leadership.acquired();
    }

    async fn write(&self, address: &str) -> Option<RegistryError> {
        let value =
            format!(r#"{{"network":"tcp","address":"{address}","tags":{{"twinspan.dev/owner":"c1/shop/echo"}}}}"#);
        let op = RecordOp::Create { key: format!("p/echo/{address}").into(), value: value.into() };
        // A process that was frozen still takes itself for the leader.
        let leadership = Leadership::none();
        leadership.acquired();
        self.handle.confirm_sole(self.handle.etcd());
        self.handle.write(&leadership, &ServiceKey::new("shop", "echo"), vec![op]).await.error
    }

    async fn until(&self, what: &str, holds: impl Fn(&Result<Option<Fence>>) -> bool) {
        for _ in 0..2000 {
            if holds(&self.handle.fence()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("never: {what}; {:?}", self.handle.fence());
    }

    async fn holds_epoch(&self, value: &str) {
        self.until(value, |fence| matches!(fence, Ok(Some(fence)) if fence.value == value)).await;
    }
}

fn epoch(server: &FakeEtcd) -> Option<String> {
    server.records().get(KEY).map(|record| String::from_utf8_lossy(&record.value).into_owned())
}

#[tokio::test(start_paused = true)]
async fn only_a_leader_raises_and_only_behind_its_epoch_is_anything_written() {
    let server = FakeEtcd::new();
    let a = replica(&server, "a");
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!((epoch(&server), a.write("10.0.0.1:80").await), (None, Some(RegistryError::NoEpoch)));
    a.lead();
    a.holds_epoch("1/a").await;
    assert_eq!(a.write("10.0.0.1:80").await, None);
    assert_eq!(server.records()[KEY].lease, LeaseId::NONE);

    // The next leader raises the epoch. The first one was frozen meanwhile and resumes: etcd rejects its batch as a
    // whole.
    let b = replica(&server, "b");
    b.lead();
    b.holds_epoch("2/b").await;
    assert_eq!(a.write("10.0.0.2:80").await, Some(RegistryError::Fenced));
    assert_eq!(b.write("10.0.0.3:80").await, None);
    assert!(!server.records().contains_key("p/echo/10.0.0.2:80"));
    for replica in [a, b] {
        replica.stop.cancel();
    }
}

#[tokio::test(start_paused = true)]
async fn of_two_leaders_one_holds_the_epoch_and_the_other_reports_the_conflict() {
    let server = FakeEtcd::new();
    let (a, b) = (replica(&server, "a"), replica(&server, "b"));
    a.lead();
    b.lead();
    // Each raises the epoch that it finds, until one finds an epoch that no Lease explains.
    let settled = |fence: &Result<Option<Fence>>| fence.is_ok();
    a.until("a has it, or b", |fence| settled(fence) || b.handle.fence().is_ok()).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (x, y) = (a.write("10.0.0.1:80").await, b.write("10.0.0.2:80").await);
    tokio::time::sleep(Duration::from_secs(5)).await;
    let writers = [a.handle.fence().is_ok(), b.handle.fence().is_ok()];
    assert_eq!(writers.iter().filter(|writes| **writes).count(), 1, "{x:?} {y:?} {writers:?}");
    let loser = if writers[0] { &b } else { &a };
    assert!(matches!(loser.handle.fence(), Err(RegistryError::ClusterIdInUse { .. })), "{:?}", loser.handle.fence());
    let error = loser.handle.fence().unwrap_err();
    assert!(error.to_string().contains("approve-epoch") && error.label() == "ClusterIDInUse", "{error}");

    // An administrator who knows that the other cluster is gone approves its epoch.
    if let Some(fence) = &loser.handle.fence {
        fence.approve(epoch(&server));
    }
    loser.until("approved", |fence| fence.is_ok()).await;
    assert_eq!(loser.write("10.0.0.4:80").await, None);
    for replica in [a, b] {
        replica.stop.cancel();
    }
}

#[tokio::test(start_paused = true)]
async fn a_missing_or_older_epoch_is_raised_again() {
    let server = FakeEtcd::new();
    let a = replica(&server, "a");
    server.put(KEY, "6/", LeaseId::NONE);
    a.lead();
    a.holds_epoch("7/a").await;
    assert_eq!(
        a.handle.fence.as_deref().and_then(FenceState::orphan_grace_until),
        None,
        "the last leader gave it back"
    );
    for change in ["deleted", "set back"] {
        match change {
            "deleted" => server.delete(&[KEY]),
            _ => server.put(KEY, "3/x", LeaseId::NONE),
        }
        assert_eq!(a.write("10.0.0.1:80").await, Some(RegistryError::Fenced), "{change}");
        a.until(change, |fence| fence.is_ok()).await;
    }
    assert_eq!(epoch(&server).as_deref(), Some("9/a"));
    a.stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_was_lost_is_read_again() {
    let server = FakeEtcd::new();
    server.set_faults(Faults { answers_lost: true, ..Faults::default() });
    let a = replica(&server, "a");
    a.lead();
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert!(a.handle.fence().is_err());
    server.set_faults(Faults::default());
    a.until("raised in the end", |fence| fence.is_ok()).await;
    assert_eq!(a.write("10.0.0.1:80").await, None);
    a.stop.cancel();
}

/// A leader that raised the epoch to this one, and got no answer.
async fn raises_without_an_answer(server: &FakeEtcd, to: &str) -> Replica {
    let a = replica(server, "a");
    tokio::time::sleep(Duration::from_secs(1)).await;
    server.set_faults(Faults { answers_lost: true, ..Faults::default() });
    a.lead();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(epoch(server).as_deref(), Some(to));
    a
}

#[tokio::test(start_paused = true)]
async fn a_clone_that_displaced_an_epoch_whose_answer_was_lost_stops_its_leader() {
    let server = FakeEtcd::new();
    let a = raises_without_an_answer(&server, "1/a").await;
    server.put(KEY, "2/clone", LeaseId::NONE);
    server.set_faults(Faults::default());
    a.until("a clone", |fence| matches!(fence, Err(RegistryError::ClusterIdInUse { .. }))).await;
    assert_eq!(epoch(&server).as_deref(), Some("2/clone"));
    a.stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn an_unexplained_epoch_spares_orphans_although_the_answer_of_its_successor_was_lost() {
    let server = FakeEtcd::new();
    server.put(KEY, "4/somebody", LeaseId::NONE);
    let a = raises_without_an_answer(&server, "5/a").await;
    server.set_faults(Faults::default());
    a.holds_epoch("6/a").await;
    assert!(a.handle.fence.as_deref().and_then(FenceState::orphan_grace_until).is_some());
    a.stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn the_epoch_is_released_at_the_end_and_an_unexplained_one_spares_orphans() {
    let server = FakeEtcd::new();
    let a = replica(&server, "a");
    a.lead();
    a.holds_epoch("1/a").await;
    a.ending.cancel();
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(epoch(&server).as_deref(), Some("1/"));
    a.stop.cancel();
    server.put(KEY, "4/somebody", LeaseId::NONE);
    let b = replica(&server, "b");
    b.lead();
    b.holds_epoch("5/b").await;
    let after = b.handle.fence.as_deref().and_then(FenceState::orphan_grace_until).unwrap();
    let seconds = after.duration_since(Timestamp::now()).as_secs();
    assert!((50..=60).contains(&seconds), "one lease TTL: {seconds} s");
    b.stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_stops_leading_clears_the_epoch_error() {
    let server = FakeEtcd::new();
    server.set_faults(Faults { answers_lost: true, ..Faults::default() });
    let a = replica(&server, "a");
    a.lead();
    a.until("it cannot be raised", |fence| matches!(fence, Err(RegistryError::Timeout { .. }))).await;
    a.leadership.lost();
    a.until("it need not be", |fence| *fence == Err(RegistryError::NoEpoch)).await;
    a.stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_keeps_leases_alive_and_writes_nothing() {
    let server = FakeEtcd::new();
    server.grant_for(LeaseId(7), Duration::from_secs(60));
    let own = r#"{"network":"tcp","address":"10.0.0.1:80","tags":{"twinspan.dev/owner":"c1/shop/echo"}}"#;
    server.put("p/echo/10.0.0.1:80", own, LeaseId(7));
    let before = (server.records(), server.revision());
    let dry = replica_as(&server, "dry", Leadership::dry_run());
    dry.lead();
    tokio::time::sleep(Duration::from_secs(200)).await;
    assert!(dry.leadership.is_leader());
    let op = RecordOp::Delete { key: "p/echo/10.0.0.1:80".into(), if_revision: 1, lease: LeaseId(7) };
    dry.handle.confirm_sole(dry.handle.etcd());
    let by = ServiceKey::new("shop", "echo");
    assert_eq!(dry.handle.write(&dry.leadership, &by, vec![op]).await.error, Some(RegistryError::NotLeader));
    dry.ending.cancel();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!((server.records(), server.revision(), server.leases()), (before.0, before.1, vec![LeaseId(7)]));
    dry.stop.cancel();
}

const INCARNATION: &str = "twinspan/c1//incarnation";

fn text_of(server: &FakeEtcd, key: &str) -> Option<String> {
    server.records().get(key).map(|record| String::from_utf8_lossy(&record.value).into_owned())
}

#[tokio::test(start_paused = true)]
async fn the_incarnation_is_created_once_with_the_epoch() {
    let server = FakeEtcd::new();
    let a = replica(&server, "a");
    a.lead();
    a.holds_epoch("1/a").await;
    let first = text_of(&server, INCARNATION).unwrap();
    let [epoch, incarnation] = [KEY, INCARNATION].map(|key| server.records()[key].mod_revision);
    assert_eq!((first.len(), epoch, server.records()[INCARNATION].lease), (32, incarnation, LeaseId::NONE));
    let known = a.handle.view().last_known().cloned().unwrap();
    assert_eq!((known.incarnation.as_ref(), known.epoch), (Some(&first), Some(1)));
    let b = replica(&server, "b");
    b.lead();
    b.holds_epoch("2/b").await;
    assert_eq!(text_of(&server, INCARNATION), Some(first));
    assert_eq!(a.handle.view().incarnation(), Incarnation::AsItWas);
    for replica in [a, b] {
        replica.stop.cancel();
    }
}

#[tokio::test(start_paused = true)]
async fn an_emptied_etcd_with_a_higher_revision_is_told_by_its_missing_incarnation() {
    let server = FakeEtcd::new();
    let a = replica(&server, "a");
    let empty = server.backup();
    a.lead();
    a.holds_epoch("1/a").await;
    assert_eq!(a.write("10.0.0.1:80").await, None);
    let first = text_of(&server, INCARNATION);
    let known = server.revision();
    server.restore(&empty);
    for n in 0..known + 5 {
        server.put("somebody/else", &n.to_string(), LeaseId::NONE);
    }
    a.until("the epoch is raised there", |fence| fence.is_ok() && text_of(&server, INCARNATION).is_some()).await;
    assert_eq!(a.handle.view().incarnation(), Incarnation::RolledBack);
    assert_ne!(text_of(&server, INCARNATION), first);
    // A session after that finds what it knows, once no hold is to follow.
    assert!(a.handle.settles(BTreeMap::new));
    server.cut();
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(a.handle.view().incarnation(), Incarnation::AsItWas);
    a.stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn an_incarnation_that_is_missing_alone_is_told_and_created_again() {
    let server = FakeEtcd::new();
    let a = replica(&server, "a");
    a.lead();
    a.holds_epoch("1/a").await;
    let first = text_of(&server, INCARNATION);
    server.delete(&[INCARNATION]);
    server.cut();
    a.until("created again", |fence| fence.is_ok() && text_of(&server, INCARNATION).is_some()).await;
    assert_eq!((a.handle.view().incarnation(), epoch(&server).as_deref()), (Incarnation::RolledBack, Some("1/a")));
    let known = a.handle.view().last_known().cloned().unwrap();
    assert_eq!(known.incarnation, text_of(&server, INCARNATION));
    assert_ne!(known.incarnation, first);
    a.stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn a_refused_leader_stays_refused_in_its_successor() {
    let server = FakeEtcd::new();
    let a = replica(&server, "a");
    a.lead();
    a.holds_epoch("1/a").await;
    server.put(KEY, "2/clone", LeaseId::NONE);
    assert_eq!(a.write("10.0.0.1:80").await, Some(RegistryError::Fenced));
    a.until("refused", |fence| matches!(fence, Err(RegistryError::ClusterIdInUse { .. }))).await;
    a.stop.cancel();
    // Its successor reads the value in the status of the ServiceRegistry; the clone raised it again since.
    server.put(KEY, "3/clone", LeaseId::NONE);
    let b = replica(&server, "b");
    let fence = b.handle.fence.as_ref().unwrap();
    fence.refuse("2/clone");
    b.lead();
    b.until("refused too", |fence| matches!(fence, Err(RegistryError::ClusterIdInUse { .. }))).await;
    assert_eq!(epoch(&server).as_deref(), Some("3/clone"));
    fence.approve(epoch(&server));
    b.holds_epoch("4/b").await;
    assert_eq!(fence.orphan_grace_until(), None, "an administrator says that the clone is gone");
    b.stop.cancel();
}

/// The other state has more revisions than the known one, and the watch says nothing of it.
#[tokio::test(start_paused = true)]
async fn a_lost_incarnation_key_is_not_created_before_the_session_has_judged() {
    let server = FakeEtcd::new();
    let backup = server.backup();
    let a = replica(&server, "a");
    a.lead();
    a.holds_epoch("1/a").await;
    server.set_faults(Faults { silent: true, ..Faults::default() });
    server.restore(&backup);
    (0..30).for_each(|n| server.put("p/echo/10.0.0.9:80", &format!("{n}"), LeaseId::NONE));
    let (registry, fence) = (a.handle.connection().unwrap(), a.handle.fence.as_ref().unwrap());
    let (lease_history, records) = (LeaseHistory::alone("a"), server.records());
    let leader =
        Takeover { leadership: a.leadership.clone(), lease_history, env: Env::real(), ending: a.ending.clone() };
    let taken = take_over(&a.handle, fence, registry.as_ref(), &leader).await;
    assert!(matches!(taken, Err(RegistryError::WatchEnded(_))), "{taken:?}");
    assert_eq!(server.records(), records);
    server.set_faults(Faults::default());
    a.holds_epoch("2/a").await;
    assert_eq!(a.handle.view().incarnation(), Incarnation::RolledBack);
    assert_eq!(server.records().len(), 3, "the epoch and the incarnation are there again");
    a.stop.cancel();
}

/// Without a prefix, and as long as no RegisteredService refers to it, there is nothing to list.
#[tokio::test(start_paused = true)]
async fn a_session_that_has_nothing_to_list_judges_by_the_keys_of_the_fence() {
    for emptied in [false, true] {
        let server = FakeEtcd::new();
        let a = replica_at(Layout::new(Format::Kitex, ""), &server, Leadership::none(), LeaseHistory::alone("a"));
        a.lead();
        a.holds_epoch("1/a").await;
        let backup = server.backup();
        a.handle.asked.set_registered([RegistryName::new("echo").unwrap()].into());
        (0..30).for_each(|n| server.put("/echo/10.0.0.9:80", &format!("{n}"), LeaseId::NONE));
        tokio::time::sleep(Duration::from_secs(1)).await;
        a.handle.asked.set_registered([].into());
        if emptied {
            server.replace_with_empty();
        } else {
            server.restore(&backup);
        }
        a.leadership.lost();
        tokio::time::sleep(Duration::from_secs(1)).await;
        a.lead();
        a.holds_epoch("2/a").await;
        assert_ne!(a.handle.view().incarnation(), Incarnation::AsItWas, "emptied: {emptied}");
        let requests = server.calls("status");
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(server.calls("status") < requests + 10, "one session goes on: only its signs of life");
        a.stop.cancel();
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_that_follows_another_keeps_its_epoch_and_knows_a_clones_that_nobody_met() {
    let server = FakeEtcd::new();
    let follow = |former: &Replica, same_etcd: bool| {
        former.stop.cancel();
        let next = replica(&server, "a");
        let fences = next.handle.fence.as_ref().zip(former.handle.fence.as_ref());
        let (fence, former) = fences.unwrap();
        fence.succeed(former, same_etcd);
        next.lead();
        next
    };
    let first = replica(&server, "a");
    first.lead();
    first.holds_epoch("1/a").await;
    let second = follow(&first, true);
    second.holds_epoch("1/a").await;

    server.put(KEY, "7/clone", LeaseId::NONE);
    let third = follow(&second, true);
    third.until("a clone", |fence| matches!(fence, Err(RegistryError::ClusterIdInUse { .. }))).await;
    assert_eq!(epoch(&server).as_deref(), Some("7/clone"));

    // At another etcd, the epoch that was held says nothing; what was refused still counts.
    server.put(KEY, "7/somebody", LeaseId::NONE);
    let fourth = follow(&third, false);
    fourth.holds_epoch("8/a").await;
    fourth.stop.cancel();
}

#[path = "takeover_lease_tests.rs"]
mod lease;
#[path = "takeover_scope_tests.rs"]
mod scope;
