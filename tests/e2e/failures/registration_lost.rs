//! Lost registrations: real servers of Kitex, Hertz and Kratos survive an outage of 90 s and never register again.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::json;
use twinspan_testbed::{Etcd, Framework, Server, ServerOptions, eventually, next_v4};

use crate::harness::{SOON, Sandbox, Suite, stories};
use crate::sync::formats::sandbox_of;

stories![long: frameworks_that_gave_up_are_kept_or_put_back];

const AWAY: Duration = Duration::from_secs(90);
/// Kitex and Hertz grant leases of 60 s. etcd renews them when it starts, and expires them up to a few seconds late.
const EXPIRES_WITHIN: Duration = Duration::from_secs(100);

/// One framework's service under one policy: a server that survives, and one that dies during the outage.
struct Case<'a> {
    framework: Framework,
    sandbox: &'a Sandbox<'a>,
    service: &'static str,
    lives: Server,
    dies: Server,
}

impl Case<'_> {
    /// The value and the lease of the surviving server's record, if there is one.
    async fn record(&self, etcd: &Etcd) -> Result<Option<String>> {
        let address = self.lives.address().to_string();
        let all = etcd.dump("").await?;
        let found = all.into_iter().find(|(key, (value, ..))| key.contains(self.service) && value.contains(&address));
        Ok(found.map(|(_, (value, ..))| value))
    }
}

async fn frameworks_that_gave_up_are_kept_or_put_back(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let etcd = bed.start_registry("registry-abandoned").await?;
    let mut sandboxes = Vec::new();
    for framework in [Framework::Kitex, Framework::Hertz, Framework::Kratos] {
        let name = format!("abandoned{}", framework.format().to_lowercase());
        sandboxes.push((framework, sandbox_of(bed, &name, &etcd, framework, json!({})).await?));
    }
    let mut cases = Vec::new();
    for (framework, sandbox) in &sandboxes {
        for (service, policy) in [("keeps", "Probe"), ("heals", "Heal")] {
            sandbox.headless_without_selector(service, 8888).await?;
            sandbox.register(service, json!({"import": {"onExpiry": policy}})).await?;
            let options = ServerOptions { framework: *framework, ..ServerOptions::default() };
            let start = || async {
                let address = SocketAddr::from((next_v4(), 9000));
                Server::start(bed.dir(), sandbox.registry.endpoint(), service, address, &options).await
            };
            let (lives, dies) = (start().await?, start().await?);
            sandbox.dns_becomes(service, &[lives.address(), dies.address()]).await?;
            cases.push(Case { framework: *framework, sandbox, service, lives, dies });
        }
    }

    etcd.part().kill().await?;
    let gone = Instant::now();
    for case in &cases {
        case.dies.part().kill().await?;
    }
    while gone.elapsed() < AWAY {
        in_dns(&cases).await?;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    etcd.start_again().await?;

    // The registrations end one lease after etcd is back. Before and afterwards the surviving servers are in DNS.
    let back = Instant::now();
    let mut missing: BTreeMap<(&str, &str), Instant> = BTreeMap::new();
    let mut healed = BTreeSet::new();
    while back.elapsed() < EXPIRES_WITHIN && (missing.len() < 6 || healed.len() < 3) {
        in_dns(&cases).await?;
        for case in &cases {
            let id = (case.framework.format(), case.service);
            match case.record(&etcd).await? {
                None => {
                    missing.entry(id).or_insert_with(Instant::now);
                    if let Some(since) = missing.get(&id).filter(|_| case.service == "heals" && !healed.contains(&id)) {
                        ensure!(
                            since.elapsed() < Duration::from_secs(10),
                            "{id:?} is not back {:?} after",
                            since.elapsed()
                        );
                    }
                }
                Some(value) if value.contains("twinspan.dev/healed") => {
                    ensure!(case.service == "heals", "{id:?}: {value}");
                    // The record may have been missing for less time than one look takes.
                    missing.entry(id).or_insert_with(Instant::now);
                    healed.insert(id);
                }
                Some(_) => ensure!(!missing.contains_key(&id), "{id:?} registered itself again: it had not given up"),
            }
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    ensure!(missing.len() == 6 && healed.len() == 3, "went: {missing:?}, came back: {healed:?}");

    // Dead servers disappear everywhere; surviving servers are counted, and healed records end with their servers.
    for case in &cases {
        case.sandbox.imports_become(case.service, &[case.lives.address()]).await?;
        case.sandbox.dns_becomes(case.service, &[case.lives.address()]).await?;
        let expected = if case.service == "heals" { (0, 1) } else { (1, 0) };
        eventually("status counts it", SOON, || async {
            let counts = case.sandbox.counts(case.service).await?;
            ensure!((counts.lost, counts.healed) == expected, "{counts:?}");
            Ok(())
        })
        .await?;
        if case.service == "heals" {
            case.lives.part().kill().await?;
            eventually("its record goes with it", SOON, || async {
                let record = case.record(&etcd).await?;
                ensure!(record.is_none(), "{record:?}");
                Ok(())
            })
            .await?;
            case.sandbox.imports_become(case.service, &[]).await?;
        }
    }
    for (_, sandbox) in &sandboxes {
        sandbox.nothing_foreign_was_touched().await?;
    }
    Ok(())
}

async fn in_dns(cases: &[Case<'_>]) -> Result<()> {
    for case in cases {
        let found = case.sandbox.bed.dns.srv_addresses(&case.sandbox.srv_name(case.service)).await?;
        ensure!(
            found.contains(&case.lives.address()),
            "{} {}: a healthy server is not in DNS: {found:?}",
            case.framework.format(),
            case.service
        );
    }
    Ok(())
}
