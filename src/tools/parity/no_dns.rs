//! DNS in a build without the feature `dns`: no server is asked.
//!
//! Owns the words for it. Refuses to ask the system's resolver instead, which knows no SRV records.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use twinspan_core::model::InstanceAddr;

/// The reason why DNS has no answer.
#[derive(Debug, thiserror::Error)]
#[error("this build of twinspan has no DNS client (its feature dns is off)")]
pub struct DnsError;

/// The resolver of a build that has none.
#[derive(Debug)]
pub struct Resolver;

impl Resolver {
    /// # Errors
    /// The user named a server.
    pub fn new(server: Option<SocketAddr>) -> Result<Self, DnsError> {
        if server.is_some() { Err(DnsError) } else { Ok(Self) }
    }

    /// # Errors
    /// None.
    pub async fn unfit(&self, _: &str) -> Result<Option<String>, DnsError> {
        Ok(Some(DnsError.to_string()))
    }

    /// # Errors
    /// In any case.
    pub async fn instances(&self, _: &str, _: &str) -> Result<BTreeSet<InstanceAddr>, DnsError> {
        Err(DnsError)
    }
}
