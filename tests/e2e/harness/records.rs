//! Records in the registry of a sandbox.
//!
//! Owns writing them in the place of a server, and listing them by service. Refuses to wait for anything.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;

use anyhow::Result;
use serde_json::{Value, json};

use super::Sandbox;

/// Seconds that a record lives without a keep-alive: longer than any story.
const LASTING: i64 = 600;

/// A record as a Kitex server writes it; `to_string` is its value in etcd.
#[derive(Debug, Clone)]
pub struct Record {
    address: String,
    tags: Value,
}

/// A record of weight 10 without tags.
pub fn record(address: impl fmt::Display) -> Record {
    Record { address: address.to_string(), tags: Value::Null }
}

impl Record {
    pub fn tags(self, tags: Value) -> Self {
        Self { tags, ..self }
    }
}

impl From<SocketAddr> for Record {
    fn from(address: SocketAddr) -> Self {
        record(address)
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, tags } = self;
        write!(f, r#"{{"network":"tcp","address":{},"weight":10,"tags":{tags}}}"#, json!(address))
    }
}

impl Sandbox<'_> {
    /// Writes a record under its own address, on a lease that outlives the story; returns the lease.
    pub async fn put(&self, service: &str, record: impl Into<Record>) -> Result<i64> {
        self.put_for(service, record, LASTING).await
    }

    /// Writes a record on a lease of `ttl` seconds.
    pub async fn put_for(&self, service: &str, record: impl Into<Record>, ttl: i64) -> Result<i64> {
        let record = record.into();
        self.registry.put_leased(&self.key(service, &record.address), &record.to_string(), ttl).await
    }

    /// Every record under a service's name.
    pub async fn records(&self, service: &str) -> Result<BTreeMap<String, (String, i64, i64)>> {
        self.registry.dump(&self.key(service, "")).await
    }

    /// The addresses under which a service is registered.
    pub async fn registered_addresses(&self, service: &str) -> Result<BTreeSet<String>> {
        let prefix = self.key(service, "");
        Ok(self.records(service).await?.keys().map(|k| k.trim_start_matches(&prefix).to_owned()).collect())
    }
}
