//! The contract of a registry that the operator relies on: the same test on a real etcd and on the fake one.

mod sizes;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use etcd_client::{Channel, Client, ConnectOptions, DeleteOptions, Error, Txn, TxnOp};
use sim_etcd::{Etcd as FakeEtcd, Options};
use tower::util::BoxCloneSyncService;
use twinspan::registry::etcd::{Dialer, EtcdConnector, Settings};
use twinspan::registry::{
    Batch, Change, Connector, Fence, Grant, KeepAlive, LeaseState, MAX_BATCH, Outcome, Registry, RegistryError,
    TxnResponse, Watch, WatchItem, WatchRange,
};
use twinspan_core::model::{LeaseId, RawRecord, RecordKey};
use twinspan_core::plan::RecordOp;
use twinspan_testbed::{Etcd, eventually};

use crate::harness::{SOON, Suite, stories};

stories![etcd, fake, few_operations, etcd_behind_its_proxy; modules: sizes];

async fn etcd(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let etcd = bed.start_registry("registry-contract").await?;
    let settings = Settings { endpoints: vec![etcd.endpoint().to_owned()], tls: None, user: None };
    contract(&EtcdConnector::new(settings), Server::Etcd(&etcd)).await
}

async fn fake(_: Arc<Suite>) -> Result<()> {
    let etcd = FakeEtcd::new(Options::default());
    contract(&connector_to_fake(&etcd), Server::Fake(&etcd)).await
}

/// The way to the fake etcd.
#[derive(Debug)]
struct ToFake(FakeEtcd);

#[async_trait::async_trait]
impl Dialer for ToFake {
    async fn dial(&self, _: &str, options: ConnectOptions) -> Result<Client, Error> {
        Client::from_channel(Channel::Custom(BoxCloneSyncService::new(self.0.member(0))), Some(options)).await
    }
}

fn connector_to_fake(etcd: &FakeEtcd) -> EtcdConnector {
    let settings = Settings { endpoints: vec!["http://fake:2379".to_owned()], tls: None, user: None };
    EtcdConnector::over(settings, Arc::new(ToFake(etcd.clone())))
}

/// The proxy numbers watches itself, and answers no progress request.
async fn etcd_behind_its_proxy(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let etcd = bed.start_registry("registry-proxied-contract").await?;
    let proxy = bed.start_grpc_proxy("grpc-proxy-contract", &etcd)?;
    let settings = Settings { endpoints: vec![proxy.endpoint().to_owned()], tls: None, user: None };
    let connector = EtcdConnector::new(settings);
    let answers = || async { Ok(connector.connect().await?) };
    eventually("the proxy answers", SOON, answers).await?;
    contract(&connector, Server::Proxy).await
}

fn connector_to(etcd: &Etcd) -> EtcdConnector {
    EtcdConnector::new(Settings { endpoints: vec![etcd.endpoint().to_owned()], tls: None, user: None })
}

/// The next changes, at least so many.
async fn changes(watch: &mut dyn Watch, count: usize) -> Result<Vec<Change>> {
    let mut found = Vec::new();
    while found.len() < count {
        match next(watch).await? {
            WatchItem::Changes(more) => found.extend(more),
            WatchItem::Progress(_) | WatchItem::Alive => {}
            WatchItem::Lost { error, .. } => return Err(error.into()),
        }
    }
    Ok(found)
}

/// The server that answers.
#[derive(Clone, Copy)]
enum Server<'a> {
    Etcd(&'a Etcd),
    Fake(&'a FakeEtcd),
    /// It answers no progress requests, and its watches follow those of others.
    Proxy,
}

/// An etcd that allows fewer operations in a transaction than ours have: the limit is found out.
async fn few_operations(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let etcd = bed.start_registry_with("registry-few-operations", &["--max-txn-ops=16"]).await?;
    let settings = Settings { endpoints: vec![etcd.endpoint().to_owned()], tls: None, user: None };
    few(&EtcdConnector::new(settings)).await?;
    let fake = FakeEtcd::new(Options { max_txn_ops: 16, ..Options::default() });
    few(&connector_to_fake(&fake)).await
}

async fn few(connector: &dyn Connector) -> Result<()> {
    let registry = connector.connect().await?;
    registry.grant(LEASE, 600).await?;
    let ops = |n: usize| (0..n).map(|n| create(&format!("few/{n}"), "1")).collect();
    ensure!(registry.max_batch() == MAX_BATCH);
    let mut tries = 0;
    loop {
        tries += 1;
        ensure!(tries < 6, "the limit is not found: {}", registry.max_batch());
        match registry.commit(&batch(ops(registry.max_batch()))).await {
            Err(RegistryError::TooManyOps) => {}
            Ok(committed) => {
                ensure!(committed.outcomes.iter().all(|o| *o == Outcome::Written), "{committed:?}");
                break;
            }
            Err(error) => bail!("{error}"),
        }
    }
    ensure!(registry.max_batch() == 15, "{}", registry.max_batch());
    // A new connection reads many keys at first.
    let keys: Vec<RecordKey> = (0..MAX_BATCH).map(|n| key(&format!("few/{n}"))).collect();
    let reading = connector.connect().await?.read(&keys).await?;
    ensure!(reading.records.len() == MAX_BATCH);
    ensure!(reading.records.iter().filter(|(_, record)| record.is_some()).count() == 15);
    Ok(())
}

const ROOT: &str = "root/";
const LEASE: LeaseId = LeaseId(77);

fn follow(watch_id: i64, key_prefix: &str, from: i64) -> WatchRange {
    WatchRange { watch_id, key_prefix: key_prefix.to_owned(), from, cluster_id: 0 }
}

fn key(name: &str) -> RecordKey {
    format!("{ROOT}{name}").into()
}

fn create(name: &str, value: &str) -> RecordOp {
    RecordOp::Create { key: key(name), value: value.into() }
}

fn batch(ops: Vec<RecordOp>) -> Batch {
    Batch { fence: None, lease: LEASE, ops }
}

fn found(name: &str, value: &str, mod_revision: i64) -> RawRecord {
    RawRecord { key: key(name), value: value.into(), mod_revision, lease: LEASE }
}

async fn contract(connector: &dyn Connector, server: Server<'_>) -> Result<()> {
    let progress = !matches!(server, Server::Proxy);
    let registry = connector.connect().await?;
    let registry = registry.as_ref();
    let status = registry.status().await?;
    ensure!(status.cluster_id != 0);
    let empty = registry.list(ROOT).await?;
    ensure!(empty.records.is_empty() && empty.cluster_id == status.cluster_id, "{empty:?}");
    ensure!(empty.revision == 1, "an empty etcd is at revision 1: {empty:?}");
    let mut watch = registry.watch(&follow(1, ROOT, empty.revision + 1)).await?;

    quiet(watch.as_mut(), progress).await?;
    leases(registry).await?;
    let first = compare_and_swap(registry).await?;
    seen(watch.as_mut(), first, progress).await?;
    fences(registry).await?;
    several(registry, progress).await?;
    dead_leases(registry).await?;
    refusals(registry, server).await?;
    compaction(registry, server).await?;
    large(registry).await?;
    expiry(registry).await
}

/// A watch without events reports progress on request, also after a wait that timed out.
async fn quiet(watch: &mut dyn Watch, progress: bool) -> Result<()> {
    let nothing = tokio::time::timeout(Duration::from_secs(1), watch.next()).await;
    ensure!(nothing.is_err(), "nothing happened: {nothing:?}");
    ensure!(watch.request_progress().await? == progress);
    if !progress {
        return Ok(());
    }
    match next(watch).await? {
        WatchItem::Progress(_) => Ok(()),
        other => bail!("nothing happened: {other:?}"),
    }
}

async fn leases(registry: &dyn Registry) -> Result<()> {
    ensure!(registry.look_up(LEASE).await? == LeaseState::Gone);
    ensure!(matches!(registry.keep_alive(LEASE).await?, KeepAlive::Gone { revision: 1 }));
    let missing = registry.commit(&batch(vec![create("a", "1")])).await;
    ensure!(missing == Err(RegistryError::LeaseGone), "{missing:?}");
    ensure!(matches!(registry.grant(LEASE, 600).await?, Grant::Granted { ttl: 600, revision } if revision > 0));
    ensure!(registry.grant(LEASE, 600).await? == Grant::Exists);
    ensure!(registry.look_up(LEASE).await? == LeaseState::Lives);
    ensure!(registry.leases().await?.contains(&LEASE));
    ensure!(registry.keys_of(LEASE).await?.is_empty() && registry.keys_of(LeaseId(999)).await?.is_empty());
    ensure!(registry.keep_alive(LEASE).await? == KeepAlive::For(600));
    Ok(())
}

/// Returns the revision of the first write.
async fn compare_and_swap(registry: &dyn Registry) -> Result<i64> {
    let TxnResponse { revision: first, outcomes } =
        registry.commit(&batch(vec![create("a", "1"), create("b", "1")])).await?;
    ensure!(outcomes == [Outcome::Written, Outcome::Written], "{outcomes:?}");
    let listing = registry.list(ROOT).await?;
    ensure!(
        listing.records == [found("a", "1", first), found("b", "1", first)] && listing.revision == first,
        "{listing:?}"
    );

    // One lost race does not affect its neighbours, and returns the record that it found.
    let update = RecordOp::Update { key: key("b"), value: b"2".to_vec(), if_revision: first, lease: LEASE };
    let late = RecordOp::Update { key: key("a"), value: b"x".to_vec(), if_revision: first - 1, lease: LEASE };
    let gone = RecordOp::Delete { key: key("z"), if_revision: first, lease: LEASE };
    let second = registry.commit(&batch(vec![create("c", "1"), late, update, gone])).await?;
    let lost = Outcome::Conflict(Some(found("a", "1", first)));
    ensure!(
        second.outcomes == [Outcome::Written, lost, Outcome::Written, Outcome::Conflict(None)],
        "{:?}",
        second.outcomes
    );
    ensure!(second.revision == first + 1, "one revision for the whole batch");

    let exists = registry.commit(&batch(vec![create("c", "x")])).await?;
    ensure!(matches!(exists.outcomes[..], [Outcome::Conflict(Some(_))]), "{exists:?}");
    let delete = RecordOp::Delete { key: key("a"), if_revision: first, lease: LEASE };
    let third = registry.commit(&batch(vec![delete])).await?;
    ensure!(third.outcomes == [Outcome::Written] && third.revision == first + 2, "{third:?}");

    let mut on_lease = registry.keys_of(LEASE).await?;
    on_lease.sort();
    ensure!(on_lease == [key("b"), key("c")], "{on_lease:?}");
    let reading = registry.read(&[key("a"), key("b"), key("c")]).await?;
    let expected =
        [(key("a"), None), (key("b"), Some(found("b", "2", first + 1))), (key("c"), Some(found("c", "1", first + 1)))];
    ensure!(reading.records == expected && reading.revision == first + 2, "{reading:?}");
    Ok(first)
}

/// The watch reports all changes in order, and then progress.
async fn seen(watch: &mut dyn Watch, first: i64, progress: bool) -> Result<()> {
    let told = changes(watch, 5).await?;
    let put = |name, value, revision| Change::Put(found(name, value, revision));
    let expected = [
        put("a", "1", first),
        put("b", "1", first),
        put("c", "1", first + 1),
        put("b", "2", first + 1),
        Change::Delete { key: key("a"), revision: first + 2 },
    ];
    ensure!(told == expected, "{told:?}");
    ensure!(watch.request_progress().await? == progress);
    if !progress {
        return Ok(());
    }
    match next(watch).await? {
        WatchItem::Progress(revision) => ensure!(revision >= first + 2, "{revision}"),
        other => bail!("nothing else happened: {other:?}"),
    }
    Ok(())
}

async fn next(watch: &mut dyn Watch) -> Result<WatchItem> {
    Ok(tokio::time::timeout(Duration::from_secs(10), watch.next()).await.context("the watch says nothing")??)
}

async fn fences(registry: &dyn Registry) -> Result<()> {
    let fence = |value: &str| Some(Fence { key: format!("{ROOT}epoch"), value: value.to_owned() });
    registry.commit(&batch(vec![create("epoch", "2/me")])).await?;
    let before = registry.list(ROOT).await?;
    let fenced = registry.commit(&Batch { fence: fence("1/other"), ..batch(vec![create("d", "1")]) }).await;
    ensure!(fenced == Err(RegistryError::Fenced), "{fenced:?}");
    ensure!(registry.list(ROOT).await? == before, "nothing is written");
    let mine = registry.commit(&Batch { fence: fence("2/me"), ..batch(vec![create("d", "1")]) }).await?;
    ensure!(mine.outcomes == [Outcome::Written]);
    Ok(())
}

/// The next item but signs of life is progress up to the revision.
async fn progress_to(watch: &mut dyn Watch, from: i64) -> Result<()> {
    loop {
        match next(watch).await? {
            WatchItem::Progress(revision) if revision >= from => return Ok(()),
            WatchItem::Progress(_) | WatchItem::Alive => {}
            other => bail!("nothing else happened: {other:?}"),
        }
    }
}

/// Several ranges on one stream: each gets its own changes, also a range that is added later; a range that was given up
/// gets none.
async fn several(registry: &dyn Registry, progress: bool) -> Result<()> {
    let from = registry.list(ROOT).await?.revision + 1;
    let (one, two) = (format!("{ROOT}one/"), format!("{ROOT}two/"));
    let mut watch = registry.watch(&follow(1, &one, from)).await?;
    registry.commit(&batch(vec![create("one/a", "1"), create("two/a", "1"), create("other", "1")])).await?;
    watch.follow(&follow(2, &two, from)).await?;
    let told = changes(watch.as_mut(), 2).await?;
    let mut keys: Vec<String> =
        told.iter().map(|c| if let Change::Put(record) = c { record.key.to_string() } else { String::new() }).collect();
    keys.sort();
    ensure!(keys == [format!("{one}a"), format!("{two}a")], "{keys:?}");
    ensure!(watch.request_progress().await? == progress);
    if progress {
        progress_to(watch.as_mut(), from).await?;
    }
    watch.unwatch(1).await?;
    registry.commit(&batch(vec![create("one/b", "1"), create("two/b", "1")])).await?;
    let told = changes(watch.as_mut(), 1).await?;
    ensure!(matches!(&told[..], [Change::Put(record)] if record.key.to_string() == format!("{two}b")), "{told:?}");
    Ok(())
}

/// A missing lease fails the whole batch, but not for an operation that loses its race.
async fn dead_leases(registry: &dyn Registry) -> Result<()> {
    let first = registry.commit(&batch(vec![create("dead/a", "1"), create("dead/b", "1")])).await?.revision;
    let dead = |ops| Batch { fence: None, lease: LeaseId(99), ops };
    let update = || RecordOp::Update { key: key("dead/b"), value: b"2".to_vec(), if_revision: first, lease: LEASE };
    let failed = registry.commit(&dead(vec![create("dead/c", "1"), update()])).await;
    ensure!(failed == Err(RegistryError::LeaseGone), "{failed:?}");
    ensure!(registry.list(ROOT).await?.revision == first, "nothing is written");
    let lost = registry.commit(&dead(vec![create("dead/a", "x"), update()])).await?;
    let expected = [Outcome::Conflict(Some(found("dead/a", "1", first))), Outcome::Written];
    ensure!(lost.outcomes == expected, "{lost:?}");
    Ok(())
}

/// A key that is put twice in one batch is refused, as is a request that is too large. Nothing is written.
async fn refusals(registry: &dyn Registry, server: Server<'_>) -> Result<()> {
    let before = registry.list(ROOT).await?;
    let never = |value: &str| RecordOp::Update {
        key: key("twice"),
        value: value.into(),
        if_revision: -1,
        lease: LeaseId::NONE,
    };
    let delete = || RecordOp::Delete { key: key("twice"), if_revision: 1, lease: LEASE };
    for twice in [vec![create("twice", "1"), never("2")], vec![delete(), create("twice", "1")]] {
        let refused = registry.commit(&batch(twice)).await;
        ensure!(matches!(&refused, Err(RegistryError::Rejected(why)) if why.contains("duplicate key")), "{refused:?}");
    }
    // etcd refuses what is above `--max-request-bytes`, and gRPC what is far above it. The proxy sends neither on.
    for (bytes, far_above) in [(1600 * 1024, false), (3 * 1024 * 1024, true)] {
        let refused = registry.commit(&batch(vec![create("huge", &"x".repeat(bytes))])).await;
        let expected = match &refused {
            Err(RegistryError::Rejected(why)) if matches!(server, Server::Proxy) => why.contains("trying to send"),
            Err(RegistryError::Rejected(why)) => !far_above && why.contains("request is too large"),
            Err(RegistryError::TooLarge(_)) => far_above,
            _ => false,
        };
        ensure!(expected, "{bytes} bytes: {refused:?}");
    }
    // No key ever has that revision: this asks for permission, and writes nothing.
    let nothing = registry.commit(&Batch { fence: None, lease: LeaseId::NONE, ops: vec![never("1")] }).await?;
    ensure!(nothing.outcomes == [Outcome::Conflict(None)], "{nothing:?}");
    let after = registry.list(ROOT).await?;
    ensure!(after == before, "{} records", after.records.len());
    // A delete behind a put of the same key is no duplicate. It is compared with the state before the batch, and its
    // answer has the state after the put.
    let TxnResponse { revision, outcomes } = registry.commit(&batch(vec![create("twice", "1"), delete()])).await?;
    let conflict = Outcome::Conflict(Some(found("twice", "1", revision)));
    ensure!(outcomes == [Outcome::Written, conflict], "{outcomes:?}");
    Ok(())
}

/// A compaction ends a watch that has still to catch up from an earlier revision, and no other.
async fn compaction(registry: &dyn Registry, server: Server<'_>) -> Result<()> {
    let quiet_range = format!("{ROOT}quiet/");
    let from = registry.list(&quiet_range).await?.revision;
    let mut watch = registry.watch(&follow(1, &quiet_range, from)).await?;
    // etcd answers once the watch has caught up, and otherwise not at all.
    let mut reached = false;
    while !reached {
        if !watch.request_progress().await? {
            ensure!(matches!(server, Server::Proxy), "progress is not answered");
            return Ok(());
        }
        let item = tokio::time::timeout(Duration::from_secs(1), next(watch.as_mut())).await;
        reached = matches!(item, Ok(Ok(WatchItem::Progress(_))));
    }
    registry.commit(&batch(vec![create("loud/a", "1")])).await?;
    registry.commit(&batch(vec![create("loud/b", "1")])).await?;
    match server {
        Server::Etcd(etcd) => etcd.compact().await?,
        Server::Fake(etcd) => etcd.compact(None),
        Server::Proxy => bail!("the proxy answers no progress request"),
    }
    let mut late = registry.watch(&follow(1, &quiet_range, from)).await?;
    let ended = next(late.as_mut()).await;
    let reason = ended.as_ref().err().and_then(|error| error.downcast_ref::<RegistryError>());
    ensure!(matches!(reason, Some(RegistryError::Compacted(_) | RegistryError::WatchEnded(_))), "{ended:?}");
    registry.commit(&batch(vec![create("quiet/a", "1")])).await?;
    loop {
        match next(watch.as_mut()).await? {
            WatchItem::Changes(changes) => {
                ensure!(matches!(&changes[..], [Change::Put(put)] if put.key == key("quiet/a")), "{changes:?}");
                return Ok(());
            }
            WatchItem::Progress(_) | WatchItem::Alive => {}
            WatchItem::Lost { error, .. } => bail!("{error}"),
        }
    }
}

/// The largest batch, a list of several pages, and responses larger than the 4 MB that gRPC accepts by default: one
/// page, and the backlog of a watch.
async fn large(registry: &dyn Registry) -> Result<()> {
    const RECORDS: usize = 20 * MAX_BATCH;
    let (many, value) = (format!("{ROOT}many/"), "x".repeat(3 * 1024));
    let from = registry.list(&many).await?.revision + 1;
    for n in 0..20 {
        let ops = (0..MAX_BATCH).map(|m| create(&format!("many/{:05}", n * MAX_BATCH + m), &value)).collect();
        let committed = registry.commit(&batch(ops)).await?;
        ensure!(committed.outcomes.iter().all(|o| *o == Outcome::Written));
    }
    let listing = registry.list(&many).await?;
    ensure!(listing.records.len() == RECORDS, "{} records", listing.records.len());
    ensure!(listing.records.is_sorted_by(|a, b| a.key < b.key));
    let mut watch = registry.watch(&follow(1, &many, from)).await?;
    ensure!(changes(watch.as_mut(), RECORDS).await?.len() == RECORDS);
    Ok(())
}

/// A lease that ends deletes its records.
async fn expiry(registry: &dyn Registry) -> Result<()> {
    let short = LeaseId(78);
    let from = registry.list(ROOT).await?.revision + 1;
    ensure!(matches!(registry.grant(short, 5).await?, Grant::Granted { ttl, .. } if ttl >= 5));
    registry.commit(&Batch { fence: None, lease: short, ops: vec![create("short", "1")] }).await?;
    let mut watch = registry.watch(&follow(1, ROOT, from)).await?;
    let mut deleted = false;
    while !deleted {
        if let WatchItem::Changes(changes) = next(watch.as_mut()).await? {
            deleted = changes.iter().any(|c| matches!(c, Change::Delete { key: gone, .. } if *gone == key("short")));
        }
    }
    ensure!(registry.look_up(short).await? == LeaseState::Gone);
    let reached = registry.list(ROOT).await?.revision;
    ensure!(registry.keep_alive(short).await? == KeepAlive::Gone { revision: reached });
    Ok(())
}
