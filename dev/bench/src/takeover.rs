//! A warm standby takes over: the time from the Lease to its first write, and its memory beside the leader's.
//!
//! Owns the moment at which the Lease is won: the event of its new holder. Refuses to count the wait for the Lease,
//! which the protocol of the election decides.

use std::time::Duration;

use anyhow::{Context, Result};
use futures::StreamExt;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::Api;
use kube::runtime::watcher::{self, watcher};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use twinspan_testbed::OPERATOR_NAMESPACE;

use crate::bed::{BASE, Bridge, Direction, Shape, service};
use crate::cold::{self, GROUP};
use crate::feed::Instance;
use crate::process::Process;
use crate::records;
use crate::report::{Row, number};
use crate::run::Run;

const LEASE: &str = "twinspan";
/// The Lease lasts 15 s, and a standby asks for it each 2 s at the end.
const WON: Duration = Duration::from_secs(60);
const WRITTEN: Duration = Duration::from_secs(30);
const QUIET: Duration = Duration::from_secs(120);

pub async fn run(run: &mut Run, direction: Direction, shape: Shape) -> Result<()> {
    cold::settle(run, direction, shape).await?;
    let (mut samples, mut memory) = (Vec::new(), Vec::new());
    for _ in 0..run.form.pick(1, 5) {
        run.bed.process(Bridge::Twinspan, GROUP)?.quiet(QUIET).await?;
        let standby = run.bed.start_standby()?;
        standby.ready().await?;
        let process = Process::of(standby.part())?;
        process.quiet(QUIET).await?;
        let leader = run.bed.process(Bridge::Twinspan, GROUP)?.memory()?.now;
        memory.push(format!("{} beside {} MiB", number(process.memory()?.now), number(leader)));

        let mut written = run.bed.written(Bridge::Twinspan, BASE, Direction::Import).await?;
        let won = new_holder(Api::namespaced(run.bed.admin.clone(), OPERATOR_NAMESPACE)).await?;
        run.bed.kill_leader().await?;
        // The work that waits for the next leader.
        let instance = Instance { service: service(BASE, Direction::Import, 0), address: run.bed.fresh(1)[0] };
        let key = Bridge::Twinspan.place(BASE).key(&instance.service, instance.address);
        run.bed.etcd.put(key.as_str(), records::value(instance.address, None), None).await?;
        let won = timeout(WON, won).await.context("nobody took the Lease")???;
        let seen = written.until(&instance, true, Instant::now() + WRITTEN).await?;
        samples.push(seen.saturating_duration_since(won).as_secs_f64() * 1000.0);
        run.bed.etcd.delete(key, None).await?;
        written.until(&instance, false, Instant::now() + WRITTEN).await?;
    }
    let scenario = format!("take-over by a warm standby, {} {shape}", direction.label());
    let row = Row::new(&scenario, "Lease won → first write", Bridge::Twinspan.label()).samples(&samples);
    run.report.rows.push(row.fact("RSS of the standby and of the leader", memory.join(", ")));
    Ok(())
}

/// The moment of the event by which the Lease has another holder, as soon as it is known who holds it now.
async fn new_holder(api: Api<Lease>) -> Result<JoinHandle<Result<Instant>>> {
    let now = holder(&api.get(LEASE).await?);
    let config = watcher::Config::default().fields(&format!("metadata.name={LEASE}"));
    Ok(tokio::spawn(async move {
        let mut events = std::pin::pin!(watcher(api, config));
        while let Some(event) = events.next().await {
            let at = Instant::now();
            if let watcher::Event::Apply(lease) | watcher::Event::InitApply(lease) = event?
                && holder(&lease).is_some_and(|holder| Some(holder) != now)
            {
                return Ok(at);
            }
        }
        anyhow::bail!("the watch of the Lease ended")
    }))
}

fn holder(lease: &Lease) -> Option<String> {
    lease.spec.as_ref()?.holder_identity.clone().filter(|holder| !holder.is_empty())
}
