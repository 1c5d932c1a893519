//! Departures: a record disappears, and evidence decides whether its endpoint does too. These stories are the rows of
//! the table in `docs/departures.md`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use twinspan_testbed::{Call, Framework, Server, ServerOptions, TwinspanOptions, eventually, holds, next_v4};

use crate::harness::{Record, SOON, Sandbox, Suite, TWINSPAN, part_name, record, stories};

stories![
    expired_and_refused_goes_at_once,
    expired_and_accepted_is_lost_and_stays,
    expired_and_silent_goes_in_the_end,
    a_lost_one_that_falls_silent_goes,
    a_failover_brings_nothing_back,
    a_restart_neither_forgets_nor_extends,
    the_last_one_that_left_may_come_back,
    healed_within_10_s,
    pods_are_never_kept,
    gozero_leaves_by_revoking,
];

/// Long enough for a slow machine to import it, short enough to wait for.
const BRIEF_TTL: i64 = 10;

fn blue(address: SocketAddr) -> Record {
    record(address).tags(json!({"lane": "blue"}))
}

/// A service that imports, with one instance that stays registered and never answers.
async fn service(sandbox: &Sandbox<'_>, import: Value) -> Result<SocketAddr> {
    sandbox.headless_without_selector("echo", 8888).await?;
    sandbox.register("echo", json!({"import": import})).await?;
    let stays = SocketAddr::from((next_v4(), 9000));
    sandbox.put("echo", blue(stays)).await?;
    sandbox.imports_become("echo", &[stays]).await?;
    Ok(stays)
}

/// A listener whose connections the kernel accepts until it is dropped.
async fn listener() -> Result<(TcpListener, SocketAddr)> {
    let address = SocketAddr::from((next_v4(), 9000));
    Ok((TcpListener::bind(address).await?, address))
}

pub async fn expired_and_refused_goes_at_once(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let sandbox = Sandbox::new(bed, "refused").await?;
    let stays = service(&sandbox, json!({})).await?;
    let dead = SocketAddr::from((next_v4(), 9000));
    let lease = sandbox.put("echo", blue(dead)).await?;
    sandbox.imports_become("echo", &[stays, dead]).await?;
    bed.registry.revoke(lease).await?;
    let gone = Instant::now();
    sandbox.imports_become("echo", &[stays]).await?;
    // Without the refusal the endpoint would have waited for 10 quiet seconds.
    ensure!(gone.elapsed() < Duration::from_secs(10), "{:?}", gone.elapsed());
    sandbox.nothing_foreign_was_touched().await
}

pub async fn expired_and_accepted_is_lost_and_stays(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let sandbox = Sandbox::new(bed, "lost").await?;
    let stays = service(&sandbox, json!({"keepLostSeconds": 25})).await?;
    let (_listener, alive) = listener().await?;
    sandbox.put_for("echo", blue(alive), BRIEF_TTL).await?;
    sandbox.imports_become("echo", &[stays, alive]).await?;
    let until = eventually("it is lost", SOON, || async {
        let counts = sandbox.counts("echo").await?;
        ensure!((counts.lost, counts.registry, counts.imported) == (1, 1, 2), "{counts:?}");
        lost_until(&sandbox, alive).await?.context("no deadline on the slice")
    })
    .await?;
    let object = sandbox.registered().get("echo").await?;
    let ready = object.status.unwrap_or_default().conditions;
    ensure!(ready.iter().any(|c| c.type_ == "Ready" && c.status == "True"), "it is nobody's fault: {ready:?}");
    holds("it stays while it accepts", Duration::from_secs(5), || async { sandbox.imported("echo").await }).await?;
    ensure!(lost_until(&sandbox, alive).await?.as_ref() == Some(&until), "the deadline moves");
    // After the deadline, and below the limits of the guard, the endpoint is deleted.
    sandbox.imports_become_within("echo", &[stays], Duration::from_secs(60)).await?;
    // A new record brings the endpoint back for good.
    sandbox.put("echo", blue(alive)).await?;
    sandbox.imports_become("echo", &[stays, alive]).await?;
    ensure!(lost_until(&sandbox, alive).await?.is_none());
    sandbox.nothing_foreign_was_touched().await
}

/// The deadline of an address in the annotation `twinspan.dev/lost-until` of its slice.
async fn lost_until(sandbox: &Sandbox<'_>, address: SocketAddr) -> Result<Option<String>> {
    for slice in sandbox.our_slices("echo").await? {
        if slice.endpoints.iter().any(|e| e.addresses.contains(&address.ip().to_string())) {
            let annotations = slice.metadata.annotations.unwrap_or_default();
            return Ok(annotations.get("twinspan.dev/lost-until").cloned());
        }
    }
    Ok(None)
}

pub async fn expired_and_silent_goes_in_the_end(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let sandbox = Sandbox::new(bed, "silent").await?;
    let stays = service(&sandbox, json!({})).await?;
    let address = SocketAddr::from((next_v4(), 9000));
    let listener = short_backlog(address)?;
    let _waiting = fall_silent(&listener).await?;
    let registered = Instant::now();
    sandbox.put_for("echo", blue(address), BRIEF_TTL).await?;
    sandbox.imports_become("echo", &[stays, address]).await?;
    eventually("it waits", SOON, || async {
        let counts = sandbox.counts("echo").await?;
        ensure!((counts.held, counts.lost) == (1, 0), "{counts:?}");
        Ok(())
    })
    .await?;
    sandbox.imports_become_within("echo", &[stays], Duration::from_secs(60)).await?;
    let waited = registered.elapsed();
    ensure!(waited > Duration::from_secs(29), "its TTL, 10 s of silence, then 10 quiet ones: {waited:?}");
    sandbox.nothing_foreign_was_touched().await
}

/// A listener whose backlog is soon full.
fn short_backlog(address: SocketAddr) -> Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(address)?;
    Ok(socket.listen(0)?)
}

/// Fills the backlog: from now on a connection is neither refused nor accepted.
async fn fall_silent(listener: &TcpListener) -> Result<Vec<TcpStream>> {
    let (address, mut waiting) = (listener.local_addr()?, Vec::new());
    while let Ok(Ok(stream)) = tokio::time::timeout(Duration::from_millis(300), TcpStream::connect(address)).await {
        waiting.push(stream);
    }
    Ok(waiting)
}

/// The server lives on without its registration, and then its machine is switched off.
pub async fn a_lost_one_that_falls_silent_goes(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let sandbox = Sandbox::new(bed, "lostsilent").await?;
    let mut stay = vec![service(&sandbox, json!({})).await?];
    stay.push(SocketAddr::from((next_v4(), 9000)));
    sandbox.put("echo", blue(stay[1])).await?;
    let address = SocketAddr::from((next_v4(), 9000));
    let listener = Arc::new(short_backlog(address)?);
    let accepting = tokio::spawn({
        let listener = listener.clone();
        async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                // Open until the other side closes it.
                tokio::spawn(async move { tokio::io::copy(&mut stream, &mut tokio::io::sink()).await });
            }
        }
    });
    let lease = sandbox.put("echo", blue(address)).await?;
    sandbox.imports_become("echo", &[&stay[..], &[address]].concat()).await?;
    bed.registry.revoke(lease).await?;
    eventually("it is lost", SOON, || async {
        let counts = sandbox.counts("echo").await?;
        ensure!(counts.lost == 1, "{counts:?}");
        Ok(())
    })
    .await?;
    // By now it is asked seldom.
    holds("it stays", Duration::from_secs(12), || async { sandbox.imported("echo").await }).await?;
    accepting.abort();
    let _waiting = fall_silent(&listener).await?;
    let silent = Instant::now();
    sandbox.imports_become_within("echo", &stay, Duration::from_secs(40)).await?;
    ensure!(silent.elapsed() > Duration::from_secs(15), "10 s of silence, then 10 quiet ones: {:?}", silent.elapsed());
    sandbox.nothing_foreign_was_touched().await
}

/// A server died and its machine is off; the leader removed it, and then the leader dies too.
pub async fn a_failover_brings_nothing_back(suite: Arc<Suite>) -> Result<()> {
    let bed = suite.own_bed().await?;
    let first = bed.start_twinspan(TWINSPAN, &TwinspanOptions::default())?;
    first.ready().await?;
    eventually("the first leads", SOON, || async {
        ensure!(first.metric("twinspan_leader").await? == Some(1.0));
        Ok(())
    })
    .await?;
    let second = bed.start_twinspan(TWINSPAN, &TwinspanOptions::default())?;
    second.ready().await?;
    let sandbox = Sandbox::new(&bed, "failover").await?;
    let stays = service(&sandbox, json!({})).await?;
    let dead = SocketAddr::from((next_v4(), 9000));
    let lease = sandbox.put("echo", blue(dead)).await?;
    sandbox.imports_become("echo", &[stays, dead]).await?;
    bed.registry.revoke(lease).await?;
    sandbox.imports_become("echo", &[stays]).await?;
    let listener = short_backlog(dead)?;
    let _waiting = fall_silent(&listener).await?;
    sandbox.condition("echo", "Ready", "True", "Synced").await?;

    let versions = async || -> Result<BTreeMap<String, String>> {
        let slices = sandbox.our_slices("echo").await?.into_iter().map(|slice| slice.metadata);
        Ok(slices.map(|m| (m.name.unwrap_or_default(), m.resource_version.unwrap_or_default())).collect())
    };
    let before = versions().await?;
    first.part().kill().await?;
    eventually("the second leads", Duration::from_secs(40), || async {
        ensure!(second.metric("twinspan_leader").await? == Some(1.0));
        Ok(())
    })
    .await?;
    // It works: another service is imported.
    sandbox.headless_without_selector("other", 8888).await?;
    sandbox.register("other", json!({})).await?;
    let other = SocketAddr::from((next_v4(), 9000));
    sandbox.put("other", blue(other)).await?;
    sandbox.imports_become("other", &[other]).await?;
    // Each write would have changed a version, also one that was taken back.
    ensure!(versions().await? == before, "was {before:?}, is {:?}", versions().await?);
    sandbox.nothing_foreign_was_touched().await
}

pub async fn a_restart_neither_forgets_nor_extends(suite: Arc<Suite>) -> Result<()> {
    let bed = suite.own_bed().await?;
    let first = bed.start_twinspan(TWINSPAN, &TwinspanOptions::default())?;
    first.ready().await?;
    let sandbox = Sandbox::new(&bed, "restart").await?;
    let stays = service(&sandbox, json!({"keepLostSeconds": 3600})).await?;
    let (_listener, alive) = listener().await?;
    sandbox.put_for("echo", blue(alive), BRIEF_TTL).await?;
    let until = eventually("it is lost", SOON, || async {
        lost_until(&sandbox, alive).await?.context("no deadline on the slice")
    })
    .await?;

    // While no replica runs, a live instance and a dead one lose their records.
    let (_second, forgotten) = listener().await?;
    let dead = SocketAddr::from((next_v4(), 9000));
    for address in [forgotten, dead] {
        sandbox.put("echo", blue(address)).await?;
    }
    sandbox.imports_become("echo", &[stays, alive, forgotten, dead]).await?;
    first.part().kill().await?;
    for address in [forgotten, dead] {
        bed.registry.delete(&sandbox.key("echo", address)).await?;
    }
    let second = bed.start_twinspan(TWINSPAN, &TwinspanOptions::default())?;
    second.ready().await?;
    // The killed replica has not released its Lease.
    sandbox.imports_become_within("echo", &[stays, alive, forgotten], Duration::from_secs(60)).await?;
    eventually("both are lost", SOON, || async {
        let counts = sandbox.counts("echo").await?;
        ensure!(counts.lost == 2, "{counts:?}");
        Ok(())
    })
    .await?;
    let now = lost_until(&sandbox, alive).await?.context("the deadline is gone")?;
    let of = |text: &str| -> BTreeMap<String, String> {
        text.split(',').filter_map(|pair| pair.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
    };
    let (before, after) = (of(&until), of(&now));
    ensure!(!before.is_empty(), "{until}");
    ensure!(before.iter().all(|(address, at)| after.get(address) == Some(at)), "was {until}, is {now}");
    sandbox.nothing_foreign_was_touched().await
}

/// Kitex puts a deleted record back at its 30 s tick. The last instance of a service is kept for that long.
pub async fn the_last_one_that_left_may_come_back(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let sandbox = Sandbox::new(bed, "lastone").await?;
    sandbox.headless_without_selector("echo", 8888).await?;
    sandbox.register("echo", json!({})).await?;
    let server = sandbox.vm("echo", SocketAddr::from((next_v4(), 9000)), None).await?;
    sandbox.imports_become("echo", &[server.address()]).await?;
    let key = sandbox.key("echo", server.address());
    bed.registry.delete(&key).await?;
    eventually("it is put back, and was there all the time", Duration::from_secs(60), || async {
        ensure!(sandbox.imported("echo").await?.len() == 1, "it went");
        ensure!(bed.registry.dump(&key).await?.len() == 1, "not registered again");
        Ok(())
    })
    .await?;

    // A live server that does not come back is deleted after 35 s.
    server.part().stop().await?;
    sandbox.imports_become("echo", &[]).await?;
    let (_listener, alive) = listener().await?;
    let key = sandbox.key("echo", alive);
    sandbox.put("echo", blue(alive)).await?;
    sandbox.imports_become("echo", &[alive]).await?;
    let left = Instant::now();
    bed.registry.delete(&key).await?;
    holds("it stays", Duration::from_secs(25), || async { sandbox.imported("echo").await }).await?;
    sandbox.imports_become_within("echo", &[], Duration::from_secs(30)).await?;
    ensure!(left.elapsed() > Duration::from_secs(34), "{:?}", left.elapsed());
    sandbox.nothing_foreign_was_touched().await
}

/// Two servers outlive their leases: their records are put back, and end with the servers.
pub async fn healed_within_10_s(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let registry = bed.start_registry(&part_name("registry-heal")).await?;
    let sandbox = Sandbox::with_registry(bed, "heal", &registry).await?;
    let stays = service(&sandbox, json!({"onExpiry": "Heal"})).await?;
    let mut servers = Vec::new();
    let mut leases = Vec::new();
    for _ in 0..3 {
        let address = SocketAddr::from((next_v4(), 9000));
        let options = ServerOptions { silent: true, ..ServerOptions::default() };
        servers.push(Server::start(bed.dir(), registry.endpoint(), "echo", address, &options).await?);
        leases.push(sandbox.put("echo", blue(address)).await?);
    }
    let addresses: Vec<SocketAddr> = servers.iter().map(Server::address).collect();
    sandbox.imports_become("echo", &[&[stays], &addresses[..]].concat()).await?;
    // Each in a revision of its own, as leases end; one revision for all would be a bulk deletion.
    for lease in &leases {
        registry.revoke(*lease).await?;
    }
    let expired = Instant::now();
    let marks = |value: &str| -> Result<(bool, bool)> {
        let value: Value = serde_json::from_str(value)?;
        ensure!(value["tags"]["lane"] == "blue" && value["weight"] == 10, "it has the old value: {value}");
        let tag = |name: &str| value["tags"].get(name).is_some();
        Ok((tag("twinspan.dev/owner"), tag("twinspan.dev/healed")))
    };
    eventually("all three are back", SOON, || async {
        let records = sandbox.records("echo").await?;
        for address in &addresses {
            let (value, _, lease) = records.get(&sandbox.key("echo", address)).context("not yet")?;
            ensure!(marks(value)? == (true, true) && *lease != 0, "{value} on lease {lease}");
        }
        Ok(())
    })
    .await?;
    ensure!(expired.elapsed() < Duration::from_secs(10), "within 10 s of their expiry: {:?}", expired.elapsed());
    eventually("counted", SOON, || async {
        let counts = sandbox.counts("echo").await?;
        ensure!((counts.lost, counts.healed, counts.imported, counts.registry) == (0, 3, 4, 1), "{counts:?}");
        Ok(())
    })
    .await?;

    // A client that knows only the registry reaches them.
    registry.delete(&sandbox.key("echo", stays)).await?;
    sandbox.imports_become("echo", &addresses).await?;
    let client = sandbox.kitex_client("echo")?;
    client.answered_by(&addresses.iter().copied().collect(), SOON).await?;

    // The first dies: its record and its endpoint are deleted. The second registers itself again. The third loses its
    // record.
    servers[0].part().kill().await?;
    sandbox.imports_become("echo", &addresses[1..]).await?;
    sandbox.put("echo", blue(addresses[1])).await?;
    eventually("two are left, and one of them is ours", SOON, || async {
        let counts = sandbox.counts("echo").await?;
        ensure!((counts.lost, counts.healed, counts.registry) == (0, 1, 1), "{counts:?}");
        let records = sandbox.registered_addresses("echo").await?;
        ensure!(records.len() == 2, "{records:?}");
        Ok(())
    })
    .await?;
    registry.delete(&sandbox.key("echo", addresses[2])).await?;
    sandbox.imports_become("echo", &addresses[1..2]).await?;
    holds("it stays deleted", Duration::from_secs(3), || async { sandbox.registered_addresses("echo").await }).await?;
    let mark = client.mark();
    client.answered_by(&addresses[1..2].iter().copied().collect(), SOON).await?;
    ensure!(client.calls_since(mark)?.iter().any(|call| matches!(call, Call::From(_))));
    sandbox.nothing_foreign_was_touched().await
}

/// The cluster knows whether a pod is alive: the pod's own registration does not bring it back, whatever answers at its
/// address.
pub async fn pods_are_never_kept(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let sandbox = Sandbox::new(bed, "podskept").await?;
    let stays = service(&sandbox, json!({"onExpiry": "Heal"})).await?;
    let (_listener, address) = listener().await?;
    sandbox.pods.run("pod", &BTreeMap::new(), &[address.ip()]).await?;
    sandbox.pods.set_ready("pod", true).await?;
    let lease = sandbox.put("echo", blue(address)).await?;
    sandbox.imports_become("echo", &[stays, address]).await?;
    bed.registry.revoke(lease).await?;
    sandbox.imports_become_within("echo", &[stays], Duration::from_secs(30)).await?;
    sandbox.records_become("echo", &[stays]).await?;
    sandbox.nothing_foreign_was_touched().await
}

pub async fn gozero_leaves_by_revoking(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let registry = bed.start_registry(&part_name("registry-gozero-leaves")).await?;
    let sandbox = Sandbox::without_registry_object(bed, "gozeroleaves", &registry).await?;
    sandbox.create_registry(json!({"format": Framework::GoZero.format(), "prefix": null})).await?;
    sandbox.headless_without_selector("echo", 8888).await?;
    sandbox.register("echo", json!({})).await?;
    let mut all = Vec::new();
    for n in 0..2 {
        let (listener, address) = listener().await?;
        // go-zero's key ends with the decimal ID of its lease; any text serves here.
        let lease = registry.put_leased(&format!("echo/758700000000000{n}"), &address.to_string(), 600).await?;
        all.push((listener, address, lease));
    }
    sandbox.imports_become("echo", &[all[0].1, all[1].1]).await?;
    registry.revoke(all[0].2).await?;
    let left = Instant::now();
    sandbox.imports_become("echo", &[all[1].1]).await?;
    // The listener still accepts and is not probed: go-zero's own Stop revokes the lease first.
    ensure!(left.elapsed() < Duration::from_secs(10), "{:?}", left.elapsed());
    sandbox.nothing_foreign_was_touched().await
}
