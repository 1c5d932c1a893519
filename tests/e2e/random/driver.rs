//! The driver of a random run: operations on both sides, and the state that both must reach once they stop.
//!
//! Owns the choice of operations and the expected state. Refuses to check invariants, which [`super::check`] does.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use etcd_client::PutOptions;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use twinspan_testbed::{Bed, Twinspan, TwinspanOptions, eventually, next_v4};

use super::below;
use super::check::Written;
use crate::harness::{Sandbox, TWINSPAN, record};

const SERVICES: usize = 5;
const MOST_PODS: usize = 6;
const MOST_VMS: usize = 12;
/// One operation in so many hits a replica or the registry.
const BLOWS: usize = 200;
/// The longest wait for the last change: holds are short here, and a frozen leader is replaced within 20 s.
const REST: Duration = Duration::from_secs(120);

#[derive(Debug, Default)]
struct Service {
    /// Leases of servers that registered themselves, by address.
    vms: BTreeMap<SocketAddr, i64>,
    /// Pods by name: their addresses, and whether they are ready.
    pods: BTreeMap<String, (SocketAddr, bool)>,
    /// Pods that registered themselves, over our record or instead of it.
    selves: BTreeSet<SocketAddr>,
    /// Keys under the name that are not records.
    junk: BTreeSet<String>,
    direction: &'static str,
}

pub struct Driver<'a> {
    sandbox: &'a Sandbox<'a>,
    etcd: etcd_client::Client,
    /// The revision of the last compaction.
    compacted: i64,
    rng: StdRng,
    services: Vec<Service>,
    replicas: Vec<Twinspan>,
    written: Written,
    names: usize,
    pub restarts: usize,
}

fn name(n: usize) -> String {
    format!("echo-{n}")
}

fn replica(bed: &Bed) -> Result<Twinspan> {
    // Audits find nothing, whatever happens meanwhile.
    let args = vec!["--audit-interval=5s".to_owned()];
    bed.start_twinspan(TWINSPAN, &TwinspanOptions { args, ..TwinspanOptions::default() })
}

impl<'a> Driver<'a> {
    pub async fn start(sandbox: &'a Sandbox<'a>, rng: StdRng) -> Result<Driver<'a>> {
        let replicas = vec![replica(sandbox.bed)?, replica(sandbox.bed)?];
        let etcd = sandbox.registry.client().await?;
        let mut driver = Self {
            sandbox,
            etcd,
            compacted: 0,
            rng,
            services: Vec::new(),
            replicas,
            written: Written { requests: 3, ..Written::default() },
            names: 0,
            restarts: 0,
        };
        // The writes of the sandbox itself, before the first operation.
        driver.written.revisions.extend(1..=4);
        for n in 0..SERVICES {
            let ports = json!([{"name": "rpc", "port": 80}]);
            sandbox
                .service(&name(n), json!({"clusterIP": "None", "selector": {"app": name(n)}, "ports": ports}))
                .await?;
            sandbox.register(&name(n), spec()).await?;
            driver.services.push(Service { direction: "Both", ..Service::default() });
        }
        for replica in &driver.replicas {
            replica.ready().await?;
        }
        Ok(driver)
    }

    /// The writes that the driver has requested so far.
    pub async fn written(&self) -> Result<Written> {
        Ok(self.written.clone())
    }

    pub async fn step(&mut self) -> Result<()> {
        if below(&mut self.rng, BLOWS) == 0 {
            return self.blow().await;
        }
        let n = below(&mut self.rng, SERVICES);
        match below(&mut self.rng, 100) {
            0..20 => self.register(n).await,
            20..30 => self.deregister(n).await,
            30..38 => self.expire(n).await,
            38..58 => self.turn_pod(n).await,
            58..64 => self.add_or_remove_pod(n).await,
            64..72 => self.pod_registers_itself(n).await,
            72..80 => self.pod_deregisters_itself(n).await,
            80..86 => self.junk(n).await,
            86..91 => self.delete_ours(n).await,
            91..94 => self.revoke_ours(n).await,
            94..98 => self.change_spec(n).await,
            _ => self.register_anew(n).await,
        }
    }

    async fn put(&mut self, key: &str, value: &str, lease: i64) -> Result<()> {
        let options = (lease != 0).then(|| PutOptions::new().with_lease(lease));
        let response = self.etcd.put(key, value, options).await?;
        self.written.revisions.insert(response.header().context("no header")?.revision());
        self.written.requests += 1;
        Ok(())
    }

    async fn delete(&mut self, key: &str) -> Result<()> {
        let response = self.etcd.delete(key, None).await?;
        if response.deleted() > 0 {
            self.written.revisions.insert(response.header().context("no header")?.revision());
        }
        self.written.requests += 1;
        Ok(())
    }

    async fn grant(&mut self) -> Result<i64> {
        // Longer than any run: a lease ends only when it is revoked.
        Ok(self.etcd.lease_grant(3600, None).await?.id())
    }

    fn key(&self, n: usize, address: impl std::fmt::Display) -> String {
        self.sandbox.key(&name(n), address)
    }

    fn vm(&mut self, n: usize) -> Option<SocketAddr> {
        let vms = &self.services[n].vms;
        vms.keys().nth(below(&mut self.rng, vms.len())).copied()
    }

    fn pod(&mut self, n: usize) -> Option<(String, SocketAddr, bool)> {
        let pods = &self.services[n].pods;
        let (name, (address, ready)) = pods.iter().nth(below(&mut self.rng, pods.len()))?;
        Some((name.clone(), *address, *ready))
    }

    async fn register(&mut self, n: usize) -> Result<()> {
        if self.services[n].vms.len() >= MOST_VMS {
            return self.deregister(n).await;
        }
        let address = SocketAddr::from((next_v4(), 9000 + u16::try_from(below(&mut self.rng, 3))?));
        let lease = self.grant().await?;
        self.put(&self.key(n, address), &record(address).to_string(), lease).await?;
        self.services[n].vms.insert(address, lease);
        Ok(())
    }

    async fn deregister(&mut self, n: usize) -> Result<()> {
        let Some(address) = self.vm(n) else { return Ok(()) };
        self.delete(&self.key(n, address)).await?;
        self.services[n].vms.remove(&address);
        Ok(())
    }

    async fn expire(&mut self, n: usize) -> Result<()> {
        let Some(address) = self.vm(n) else { return Ok(()) };
        let Some(lease) = self.services[n].vms.remove(&address) else { return Ok(()) };
        self.written.revoked.insert(lease);
        self.etcd.lease_revoke(lease).await?;
        Ok(())
    }

    async fn turn_pod(&mut self, n: usize) -> Result<()> {
        let Some((name, address, ready)) = self.pod(n) else { return self.add_or_remove_pod(n).await };
        self.sandbox.pods.set_ready(&name, !ready).await?;
        self.services[n].pods.insert(name, (address, !ready));
        Ok(())
    }

    async fn add_or_remove_pod(&mut self, n: usize) -> Result<()> {
        if self.services[n].pods.len() >= MOST_PODS {
            let Some((name, address, _)) = self.pod(n) else { return Ok(()) };
            if self.services[n].selves.remove(&address) {
                self.delete(&self.key(n, address)).await?;
            }
            self.sandbox.pods.remove(&name).await?;
            self.services[n].pods.remove(&name);
            return Ok(());
        }
        self.names += 1;
        let (pod, address) = (format!("pod-{}", self.names), SocketAddr::from((next_v4(), 80)));
        let labels = BTreeMap::from([("app".to_owned(), name(n))]);
        self.sandbox.pods.run(&pod, &labels, &[address.ip()]).await?;
        self.sandbox.pods.set_ready(&pod, true).await?;
        self.services[n].pods.insert(pod, (address, true));
        Ok(())
    }

    async fn pod_registers_itself(&mut self, n: usize) -> Result<()> {
        let Some((_, address, _)) = self.pod(n) else { return Ok(()) };
        let lease = self.grant().await?;
        self.put(&self.key(n, address), &record(address).to_string(), lease).await?;
        self.services[n].selves.insert(address);
        Ok(())
    }

    async fn pod_deregisters_itself(&mut self, n: usize) -> Result<()> {
        let Some(address) = self.services[n].selves.pop_first() else { return Ok(()) };
        self.delete(&self.key(n, address)).await
    }

    async fn junk(&mut self, n: usize) -> Result<()> {
        if self.services[n].junk.len() > 3 {
            let Some(key) = self.services[n].junk.pop_first() else { return Ok(()) };
            return self.delete(&key).await;
        }
        self.names += 1;
        let values =
            ["", "{", "null", "[]", r#"{"network":"tcp","address":"127.0.0.1:80"}"#, r#"{"address":7}"#, "\u{0}"];
        let key = self.key(n, format!("junk-{}", self.names));
        let value = values[below(&mut self.rng, values.len())];
        self.put(&key, value, 0).await?;
        self.services[n].junk.insert(key);
        Ok(())
    }

    /// Key and lease of one of our current records.
    async fn ours(&mut self, n: usize) -> Result<Option<(String, i64)>> {
        let options = etcd_client::GetOptions::new().with_prefix();
        let found = self.etcd.get(self.key(n, ""), Some(options)).await?;
        let ours = found.kvs().iter().filter(|kv| String::from_utf8_lossy(kv.value()).contains("twinspan.dev/owner"));
        let ours: Vec<(String, i64)> =
            ours.map(|kv| (String::from_utf8_lossy(kv.key()).into_owned(), kv.lease())).collect();
        Ok((!ours.is_empty()).then(|| ours[below(&mut self.rng, ours.len())].clone()))
    }

    async fn delete_ours(&mut self, n: usize) -> Result<()> {
        let Some((key, _)) = self.ours(n).await? else { return Ok(()) };
        self.delete(&key).await
    }

    async fn revoke_ours(&mut self, n: usize) -> Result<()> {
        let Some((_, lease)) = self.ours(n).await? else { return Ok(()) };
        self.written.revoked.insert(lease);
        // The lease may have ended by itself meanwhile.
        let _ = self.etcd.lease_revoke(lease).await;
        Ok(())
    }

    async fn change_spec(&mut self, n: usize) -> Result<()> {
        if below(&mut self.rng, 2) == 0 {
            let weight = 1 + below(&mut self.rng, 20);
            return self.sandbox.patch(&name(n), json!({"export": {"weight": weight}})).await;
        }
        let direction = ["Both", "Import", "Export"][below(&mut self.rng, 3)];
        self.services[n].direction = direction;
        self.sandbox.patch(&name(n), json!({"direction": direction})).await
    }

    async fn register_anew(&mut self, n: usize) -> Result<()> {
        self.sandbox.unregister(&name(n)).await?;
        self.services[n].direction = "Both";
        self.sandbox.register(&name(n), spec()).await
    }

    async fn blow(&mut self) -> Result<()> {
        self.restarts += 1;
        let n = below(&mut self.rng, self.replicas.len());
        match below(&mut self.rng, 4) {
            0 => {
                self.replicas[n].part().kill().await?;
                self.replicas[n] = replica(self.sandbox.bed)?;
            }
            1 => {
                self.replicas[n].part().stop().await?;
                self.replicas[n] = replica(self.sandbox.bed)?;
            }
            2 => {
                self.replicas[n].part().freeze()?;
                let wakes = tokio::time::Instant::now() + Duration::from_secs(below(&mut self.rng, 20) as u64);
                while tokio::time::Instant::now() < wakes {
                    let n = below(&mut self.rng, SERVICES);
                    Box::pin(self.register(n)).await?;
                    Box::pin(self.turn_pod(n)).await?;
                }
                self.replicas[n].part().thaw()?;
            }
            _ => {
                let response = self.etcd.status().await?;
                let revision = response.header().context("no header")?.revision();
                // Nothing was written since the last compaction, so there is nothing to compact.
                if revision > self.compacted {
                    self.etcd.compact(revision, None).await?;
                    self.compacted = revision;
                }
            }
        }
        Ok(())
    }

    /// Ends what is unfinished, and waits until both sides agree.
    pub async fn comes_to_rest(&mut self) -> Result<()> {
        for n in 0..SERVICES {
            while !self.services[n].selves.is_empty() {
                self.pod_deregisters_itself(n).await?;
            }
            for key in std::mem::take(&mut self.services[n].junk) {
                self.delete(&key).await?;
            }
        }
        for (n, service) in self.services.iter().enumerate() {
            let ready: BTreeSet<SocketAddr> =
                service.pods.values().filter(|(_, ready)| *ready).map(|(address, _)| *address).collect();
            let vms: BTreeSet<SocketAddr> = service.vms.keys().copied().collect();
            let exported = if service.direction == "Import" { BTreeSet::new() } else { ready };
            let imported = if service.direction == "Export" { BTreeSet::new() } else { vms.clone() };
            let registered: BTreeSet<String> = vms.union(&exported).map(ToString::to_string).collect();
            let prefix = self.key(n, "");
            eventually(&format!("{} agrees on both sides", name(n)), REST, || async {
                let found = self.sandbox.imported(&name(n)).await?;
                ensure!(found == imported, "imported {found:?}, want {imported:?}");
                let options = etcd_client::GetOptions::new().with_prefix().with_keys_only();
                let response = self.etcd.clone().get(prefix.as_str(), Some(options)).await?;
                let keys = response.kvs().iter().map(|kv| String::from_utf8_lossy(kv.key()).into_owned());
                let found: BTreeSet<String> = keys.map(|key| key.trim_start_matches(&prefix).to_owned()).collect();
                ensure!(found == registered, "registered {found:?}, want {registered:?}");
                Ok(())
            })
            .await?;
        }
        Ok(())
    }
}

/// A hold ends soon here.
fn spec() -> Value {
    json!({"deletionGuard": {"holdSeconds": 10}})
}
