//! The examination of one endpoint for `doctor`.
//!
//! Owns the measurement of round trips and the tests of permissions. Refuses to write: the transaction that tests a
//! permission cannot succeed.

use std::time::Duration;

use etcd_client::{Compare, CompareOp, GetOptions, ResponseHeader, Txn, TxnOp};
use tokio::time::Instant;
use twinspan_core::model::RawRecord;

use super::call::{CALL, call};
use super::connect::EtcdConnector;
use super::pages::Pages;
use crate::registry::{Registry, Result, ServerStatus};

/// The findings.
#[derive(Debug)]
pub struct Examined {
    pub status: ServerStatus,
    /// Sorted.
    pub round_trips: Vec<Duration>,
    /// The number of keys with each prefix.
    pub read: Vec<(String, Result<i64>)>,
    /// The permission to write each key.
    pub write: Vec<(String, Result<()>)>,
}

/// The findings about a member, before anything is installed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Member {
    pub cluster_id: u64,
    pub version: String,
    pub has_leader: bool,
    pub is_learner: bool,
    /// Bytes of the database, those in use, and the most that it may have; 0 if the member does not tell.
    pub size: i64,
    pub in_use: i64,
    pub quota: i64,
    /// Alarms, in etcd's words.
    pub alarms: Vec<String>,
}

const ROUND_TRIPS: usize = 5;

impl EtcdConnector {
    /// # Errors
    /// The endpoint cannot be reached.
    pub async fn examine(&self, endpoint: &str, key_prefixes: &[String], keys: &[String]) -> Result<Examined> {
        let registry = self.open(endpoint).await?;
        let mut round_trips = Vec::new();
        let mut status = registry.status().await?;
        for _ in 0..ROUND_TRIPS {
            let began = Instant::now();
            status = registry.status().await?;
            round_trips.push(began.elapsed());
        }
        round_trips.sort();
        let mut client = registry.client.kv_client();
        let mut read = Vec::new();
        for key_prefix in key_prefixes {
            let options = GetOptions::new().with_prefix().with_count_only();
            let answer = call("count", CALL, client.get(key_prefix.as_str(), Some(options))).await;
            read.push((key_prefix.clone(), answer.map(|answer| answer.count())));
        }
        let mut write = Vec::new();
        for key in keys {
            // etcd checks the permissions of both branches before it takes one, and no key has this revision.
            let never = Compare::mod_revision(key.as_str(), CompareOp::Equal, i64::MAX);
            let txn = Txn::new().when([never]).and_then([TxnOp::put(key.as_str(), "", None)]);
            let answer = call("permission", CALL, client.txn(txn)).await;
            write.push((key.clone(), answer.map(|_| ())));
        }
        Ok(Examined { status, round_trips, read, write })
    }

    /// The state of a member.
    ///
    /// # Errors
    /// The endpoint cannot be reached.
    pub async fn member(&self, endpoint: &str) -> Result<Member> {
        let mut client = self.open(endpoint).await?.client.clone();
        let status = call("status", CALL, client.status()).await?;
        Ok(Member {
            cluster_id: status.header().map(ResponseHeader::cluster_id).unwrap_or_default(),
            version: status.version().to_owned(),
            has_leader: status.leader() != 0,
            is_learner: status.is_learner(),
            size: status.db_size(),
            in_use: status.raft_used_db_size(),
            quota: status.db_size_quota(),
            alarms: status.errors().to_vec(),
        })
    }

    /// The number of keys with a prefix, and the first of them.
    ///
    /// # Errors
    /// The endpoint cannot be reached, or our user may not read there.
    pub async fn sample(&self, endpoint: &str, key_prefix: &str) -> Result<(usize, Vec<RawRecord>)> {
        let registry = self.open(endpoint).await?;
        let count = registry.count(key_prefix).await?;
        let page = Pages::new(registry.client.kv_client(), key_prefix).page().await?;
        Ok((count, page.unwrap_or_default()))
    }
}
