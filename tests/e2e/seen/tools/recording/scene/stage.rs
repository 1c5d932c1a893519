//! A stage: a sandbox for a part of the scene, and the questions about it.
//!
//! Owns the creation of objects and records, and the list of those that are asked about. Refuses to know the scene.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use twinspan_testbed::{Etcd, eventually};

use super::super::super::json_of;
use crate::harness::{SOON, Sandbox, merge, record};

/// Longer than any run.
const LEASE_SECONDS: i64 = 36_000;

pub struct Stage<'a> {
    pub sandbox: Sandbox<'a>,
    pub registry: &'a Etcd,
    /// Addresses and keys that `explain` is asked about.
    pub asked: Vec<String>,
    /// RegisteredServices that `parity` is asked about.
    pub services: Vec<String>,
}

/// An instance on the network of the scene, which no other story uses.
pub fn at(host: u8, port: u16) -> SocketAddr {
    SocketAddr::from(([10, 77, 240, host], port))
}

impl<'a> Stage<'a> {
    pub fn new(sandbox: Sandbox<'a>, registry: &'a Etcd) -> Self {
        Self { sandbox, registry, asked: Vec::new(), services: Vec::new() }
    }

    /// The ServiceRegistry of the stage, with a cluster ID that is the same in every run.
    pub async fn open(&self, extra: Value) -> Result<()> {
        let mut spec = json!({"clusterID": "recording"});
        merge(&mut spec, extra);
        self.sandbox.create_registry(spec).await
    }

    /// A headless Service of the name with one port, unless `extra` says more.
    pub async fn headless(&self, name: &str, extra: Value) -> Result<()> {
        let mut spec = json!({"clusterIP": "None", "selector": {"app": name}, "ports": [{"name": "rpc", "port": 80}]});
        merge(&mut spec, extra);
        self.sandbox.service(name, spec).await
    }

    pub async fn register(&mut self, name: &str, extra: Value) -> Result<()> {
        self.services.push(name.to_owned());
        self.sandbox.register(name, extra).await
    }

    /// A headless Service and a RegisteredService of one name.
    pub async fn both(&mut self, name: &str, extra: Value) -> Result<()> {
        self.headless(name, json!({})).await?;
        self.register(name, extra).await
    }

    /// A pod, named for its first address, with a label `app` and others.
    pub async fn pod(&mut self, app: &str, labels: &[&str], ips: &[IpAddr], ready: bool) -> Result<()> {
        let first = ips.first().context("an address")?;
        let name = format!("{app}-{}", first.to_string().rsplit('.').next().unwrap_or_default());
        let mut all = BTreeMap::from([("app".to_owned(), app.to_owned())]);
        all.extend(labels.iter().map(|label| ((*label).to_owned(), "yes".to_owned())));
        self.sandbox.pods.run(&name, &all, ips).await?;
        self.sandbox.pods.set_ready(&name, ready).await?;
        Ok(())
    }

    /// A ready pod at a host of the network, with a question about it.
    pub async fn ready(&mut self, app: &str, host: u8) -> Result<SocketAddr> {
        let address = at(host, 80);
        self.pod(app, &[], &[address.ip()], true).await?;
        self.asked.push(address.to_string());
        Ok(address)
    }

    /// A ready pod, once its record is written.
    pub async fn exported(&mut self, app: &str, host: u8) -> Result<SocketAddr> {
        let address = self.ready(app, host).await?;
        self.becomes(address, "Exported").await?;
        Ok(address)
    }

    /// A record as a server of Kitex writes it, whose lease outlives the run.
    pub async fn put(&mut self, service: &str, end: &str, record: &str) -> Result<i64> {
        let key = self.sandbox.key(service, end);
        self.registry.put_leased(&key, record, LEASE_SECONDS).await
    }

    /// A server that registered itself, with a question about it.
    pub async fn foreign(&mut self, service: &str, address: SocketAddr) -> Result<i64> {
        self.asked.push(address.to_string());
        self.put(service, &address.to_string(), &record(address).tags(json!({"lane": "blue"})).to_string()).await
    }

    /// A server that loses its registration while it accepts connections.
    pub async fn loses_its_registration(
        &mut self,
        service: &str,
        address: SocketAddr,
        state: &str,
    ) -> Result<TcpListener> {
        let listener = TcpListener::bind(address).await?;
        let lease = self.foreign(service, address).await?;
        self.becomes(address, "Imported").await?;
        self.registry.revoke(lease).await?;
        self.becomes(address, state).await?;
        Ok(listener)
    }

    /// Adds a question about a key.
    pub fn ask_key(&mut self, service: &str, end: impl std::fmt::Display) {
        self.asked.push(self.sandbox.key(service, end));
    }

    pub async fn becomes(&self, about: impl ToString, state: &str) -> Result<()> {
        let about = about.to_string();
        eventually(&format!("{about} is {state}"), SOON * 2, || async {
            let (_, answer) = json_of(self.sandbox.bed, &["explain", &about]).await?;
            let services = answer["services"].as_array().context("services")?;
            ensure!(services.iter().any(|by| by["state"] == state), "{answer:#}");
            Ok(())
        })
        .await
    }
}
