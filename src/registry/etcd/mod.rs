//! etcd behind the far side's door.
//!
//! Owns the translation between our values and etcd's API. Refuses to retry, which the
//! session does.
//!
//! - [`settings`]: endpoints, TLS and user.
//! - [`connect`]: one endpoint at a time. [`dial`]: the way to one. [`tls`]: TLS with it. [`alert`]: the reason why a
//!   member ends TLS.
//! - [`call`]: the deadlines and limits of each call. [`limit`]: the operations that one transaction may have.
//! - [`kv`]: read and commit. [`pages`]: the pages of a list.
//! - [`watch`]: the watch stream. [`fragments`]: the events of one watch.
//! - [`examine`]: the checks of `doctor`. [`error`]: the translation of errors.

mod alert;
mod call;
mod connect;
mod dial;
mod error;
mod examine;
mod fragments;
mod kv;
mod limit;
mod pages;
mod settings;
mod tls;
mod watch;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use async_trait::async_trait;
use etcd_client::{Client, LeaseGrantOptions, LeaseTimeToLiveOptions, ResponseHeader};
use twinspan_core::model::{LeaseId, RecordKey, Revision};

pub use connect::EtcdConnector;
pub use dial::Dialer;
pub use examine::{Examined, Member};
pub use settings::{Settings, TlsSettings};

use self::call::{CALL, call};
use self::limit::TxnLimit;
use self::pages::Pages;
use super::{
    Batch, Grant, KeepAlive, LeaseState, ListResponse, ReadResponse, RecordPages, Registry, RegistryError, Result,
    ServerStatus, TxnResponse, Watch, WatchRange,
};

/// A connection to one member.
#[derive(Clone)]
pub struct EtcdRegistry {
    client: Client,
    endpoint: String,
    /// From the answer that proved the connection. A proxy leaves it out of some answers.
    cluster_id: u64,
    /// A watch has ended with an event that was too large.
    too_large: Arc<AtomicBool>,
    limit: TxnLimit,
    /// The highest revision in an answer of this connection.
    reached: Arc<AtomicI64>,
}

impl EtcdRegistry {
    fn new(client: Client, endpoint: &str, too_large: Arc<AtomicBool>) -> Self {
        let (endpoint, limit, reached) = (endpoint.to_owned(), TxnLimit::new(), Arc::default());
        Self { client, endpoint, cluster_id: 0, too_large, limit, reached }
    }

    fn reached(&self, revision: Revision) {
        self.reached.fetch_max(revision, Ordering::Relaxed);
    }
}

impl fmt::Debug for EtcdRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdRegistry").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

#[async_trait]
impl Registry for EtcdRegistry {
    async fn status(&self) -> Result<ServerStatus> {
        let mut client = self.client.clone();
        let status = call("status", CALL, client.status()).await?;
        let header = status.header();
        self.reached(header.map(ResponseHeader::revision).unwrap_or_default());
        Ok(ServerStatus {
            cluster_id: header.map(ResponseHeader::cluster_id).unwrap_or_default(),
            version: status.version().to_owned(),
        })
    }

    async fn list(&self, key_prefix: &str) -> Result<ListResponse> {
        let listing = kv::list(self.client.kv_client(), key_prefix, self.cluster_id).await?;
        self.reached(listing.revision);
        Ok(listing)
    }

    async fn count(&self, key_prefix: &str) -> Result<usize> {
        kv::count(self.client.kv_client(), key_prefix).await
    }

    async fn keys(&self, key_prefix: &str, limit: usize) -> Result<Vec<RecordKey>> {
        kv::keys(self.client.kv_client(), key_prefix, limit).await
    }

    fn pages(&self, key_prefix: &str, at: Revision) -> Box<dyn RecordPages> {
        Box::new(Pages::at(self.client.kv_client(), key_prefix, at))
    }

    async fn watch(&self, first: &WatchRange) -> Result<Box<dyn Watch>> {
        watch::open(self.client.watch_client(), first, self.too_large.clone()).await
    }

    async fn read(&self, keys: &[RecordKey]) -> Result<ReadResponse> {
        let reading = kv::read(self.client.kv_client(), keys, &self.limit).await?;
        self.reached(reading.revision);
        Ok(reading)
    }

    async fn commit(&self, batch: &Batch) -> Result<TxnResponse> {
        let committed = kv::commit(self.client.kv_client(), batch).await;
        match &committed {
            Ok(committed) => self.reached(committed.revision),
            Err(error) => drop(self.limit.learn(error, batch.ops.len())),
        }
        committed
    }

    fn max_batch(&self) -> usize {
        self.limit.get()
    }

    async fn grant(&self, lease: LeaseId, ttl_seconds: i64) -> Result<Grant> {
        let mut client = self.client.lease_client();
        let options = LeaseGrantOptions::new().with_id(lease.0);
        let answer = tokio::time::timeout(CALL, client.grant(ttl_seconds, Some(options))).await;
        match answer {
            Ok(Ok(granted)) => Ok(Grant::Granted {
                ttl: granted.ttl(),
                revision: granted.header().map(ResponseHeader::revision).unwrap_or_default(),
            }),
            Ok(Err(error)) if error::is_lease_exists(&error) => Ok(Grant::Exists),
            Ok(Err(error)) => Err(error::meaning(&error)),
            Err(_) => Err(RegistryError::Timeout { what: "lease grant", seconds: CALL.as_secs() }),
        }
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<KeepAlive> {
        let mut client = self.client.lease_client();
        // One stream for each keepalive: keepalives are minutes apart, and an old stream may outlive its token. The
        // client hides the answer, which has the TTL. A second request on the stream would tell it, but etcd's proxy
        // answers that one after a third of the TTL, so the look-up does.
        let kept = async {
            let stream = client.keep_alive(lease.0).await?;
            let found = client.time_to_live(lease.0, None).await?;
            drop(stream);
            Ok(found)
        };
        // The client drops the header of an answer that the lease is gone. When it was asked, the server had reached
        // every revision of an earlier answer.
        let revision = self.reached.load(Ordering::Relaxed);
        match tokio::time::timeout(CALL, kept).await {
            Ok(Ok(found)) if found.ttl() > 0 => {
                self.reached(found.header().map(ResponseHeader::revision).unwrap_or_default());
                Ok(KeepAlive::For(found.granted_ttl()))
            }
            Ok(Ok(_) | Err(etcd_client::Error::LeaseKeepAliveError(_))) => Ok(KeepAlive::Gone { revision }),
            Ok(Err(error)) => Err(error::meaning(&error)),
            Err(_) => Err(RegistryError::Timeout { what: "lease keepalive", seconds: CALL.as_secs() }),
        }
    }

    async fn look_up(&self, lease: LeaseId) -> Result<LeaseState> {
        let mut client = self.client.lease_client();
        match call("lease look-up", CALL, client.time_to_live(lease.0, None)).await {
            // The server answers -1 if the lease does not exist.
            Ok(answer) if answer.ttl() > 0 => Ok(LeaseState::Lives),
            Ok(_) | Err(RegistryError::LeaseGone) => Ok(LeaseState::Gone),
            Err(error) => Err(error),
        }
    }

    async fn leases(&self) -> Result<Vec<LeaseId>> {
        let mut client = self.client.lease_client();
        let answer = call("lease list", CALL, client.leases()).await?;
        Ok(answer.leases().iter().map(|lease| LeaseId(lease.id())).collect())
    }

    async fn keys_of(&self, lease: LeaseId) -> Result<Vec<RecordKey>> {
        let mut client = self.client.lease_client();
        let options = LeaseTimeToLiveOptions::new().with_keys();
        match call("lease look-up", CALL, client.time_to_live(lease.0, Some(options))).await {
            Ok(answer) => Ok(answer.keys().iter().map(|key| RecordKey::new(key.as_slice())).collect()),
            Err(RegistryError::LeaseGone) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }
}
