//! The far side's door: every request to a service registry goes through here.
//!
//! - [`Registry`]: the calls of one connection, which [`etcd`] implements. [`Connect`]: makes the connector of a
//!   session.
//! - [`observed`]: the same connections, whose calls somebody counts.
//! - [`session`]: list → `Reset` → watch, repeated until it is stopped; keeps the [`view`] and its [`records`] true.
//!   [`incarnation`]: detects an etcd that did not come back as it was; [`settling`]: until its holds are reported.
//!   `silence`: until when its watch counts; [`phase`]: how far it is.
//! - [`scope`]: whether that is the whole registry or the [`asked_names`] alone; `record_count`: the count on which it
//!   rests. `waits`: the waits of a session.
//! - [`foreign_names`]: the names under which others have records.
//! - [`audit`]: compares the view with etcd from time to time, because watches have lost events; [`verified`]: what
//!   is known of the last ones.
//! - `look_ups`: how a departed record went, by its lease.
//! - `reached`: how far the watch has told each name, which older answers must not undo.
//! - [`leases`]: the leases of own records; [`keepalive`] keeps them alive, [`orphans`] finds records through them.
//! - [`fence`]: the epoch that every batch compares; [`takeover`] raises it. [`rivals`]: tells by it whether two
//!   ServiceRegistries lead to one etcd; [`taken_names`]: the names that an older one serves there. [`known_clusters`]:
//!   the other clusters that write there, which `neighbours` looks for.
//! - [`writer`]: compare-and-swap batches, which check the Lease, the keyspace and the fence first. [`commits`]: the
//!   services that share one; `batch`: what fits into it; `outcomes`: what its answer means.
//! - [`health`]: the writes and keepalives that a connected registry rejects; [`refused_writes`] has them tried again.
//! - [`handle`]: one registry for the rest of the operator; [`sessions`]: all handles; [`guards`]: their deletion
//!   guards; [`kept`]: those whose ServiceRegistry is gone.
//!
//! Owns the connections, the views and the writes of every registry. Refuses to plan: the operations come from the
//! planners.

pub mod asked_names;
pub mod audit;
mod batch;
pub mod commits;
#[cfg(test)]
mod commits_tests;
mod connect;
pub mod error;
pub mod etcd;
pub mod fence;
pub mod foreign_names;
pub mod guards;
pub mod handle;
pub mod health;
pub mod incarnation;
pub mod keepalive;
pub mod kept;
pub mod known_clusters;
pub mod leases;
mod look_ups;
mod neighbours;
pub mod observed;
pub mod orphans;
mod outcomes;
pub mod phase;
mod reached;
mod record_count;
pub mod records;
pub mod refused_writes;
pub mod rivals;
pub mod scope;
pub mod session;
pub mod sessions;
pub mod settling;
mod silence;
pub mod taken_names;
pub mod takeover;
#[cfg(test)]
pub mod testing;
pub mod verified;
pub mod view;
mod waits;
pub mod writer;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use twinspan_core::model::{LeaseId, RawRecord, RecordKey, Revision};
use twinspan_core::plan::RecordOp;

pub use connect::Connect;
pub use error::RegistryError;

pub type Result<T> = std::result::Result<T, RegistryError>;

/// etcd allows 128 operations in one request by default, and the outer transaction counts as one (`--max-txn-ops`).
pub const MAX_BATCH: usize = 127;

/// Whether two cluster IDs are those of two etcds. 0 is none, as a proxy may tell.
pub const fn are_two_etcds(a: u64, b: u64) -> bool {
    a != b && a != 0 && b != 0
}

/// One connection to a registry. Every call has its own deadline; none retries.
#[async_trait]
pub trait Registry: Send + Sync + fmt::Debug {
    async fn status(&self) -> Result<ServerStatus>;

    /// Every record whose key has this prefix, at one revision.
    async fn list(&self, key_prefix: &str) -> Result<ListResponse>;

    /// The number of records whose keys have this prefix.
    async fn count(&self, key_prefix: &str) -> Result<usize>;

    /// The first keys with this prefix, in key order, at most `limit`.
    async fn keys(&self, key_prefix: &str, limit: usize) -> Result<Vec<RecordKey>>;

    /// The records whose keys have this prefix, in key order, at a revision that this connection has delivered. Any
    /// member may answer.
    fn pages(&self, key_prefix: &str, at: Revision) -> Box<dyn RecordPages>;

    /// Every change of keys with this prefix from the revision on, that revision included.
    async fn watch(&self, first: &WatchRange) -> Result<Box<dyn Watch>>;

    /// The current record of each key; `None` if the key does not exist.
    async fn read(&self, keys: &[RecordKey]) -> Result<ReadResponse>;

    /// One transaction; an operation that loses its race does not affect the others.
    ///
    /// # Errors
    /// [`RegistryError::Fenced`] if the fence does not hold; then nothing was written.
    /// After an [`RegistryError::is_ambiguous`] error the batch may have been written.
    /// After [`RegistryError::TooManyOps`] nothing was written, and [`Registry::max_batch`] is smaller.
    async fn commit(&self, batch: &Batch) -> Result<TxnResponse>;

    /// The maximum of operations in one batch.
    fn max_batch(&self) -> usize {
        MAX_BATCH
    }

    async fn grant(&self, lease: LeaseId, ttl_seconds: i64) -> Result<Grant>;

    async fn keep_alive(&self, lease: LeaseId) -> Result<KeepAlive>;

    /// Looks the lease up without prolonging it.
    async fn look_up(&self, lease: LeaseId) -> Result<LeaseState>;

    /// Every lease of the registry, those of other clients included.
    async fn leases(&self) -> Result<Vec<LeaseId>>;

    /// The keys attached to a lease; none if it does not exist.
    async fn keys_of(&self, lease: LeaseId) -> Result<Vec<RecordKey>>;
}

/// A list, page by page.
#[async_trait]
pub trait RecordPages: Send {
    /// `None` after the last page.
    async fn next_page(&mut self) -> Result<Option<Vec<RawRecord>>>;
}

/// A key prefix to watch, and the ID that cancels the watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchRange {
    /// Positive, and unique on the stream.
    pub watch_id: i64,
    pub key_prefix: String,
    /// The revision after the one of the list.
    pub from: Revision,
    /// The cluster ID of the list; 0 if the server told none, as a proxy may.
    pub cluster_id: u64,
}

/// Opens connections, each time to the next endpoint that answers.
#[async_trait]
pub trait Connector: Send + Sync {
    async fn connect(&self) -> Result<Arc<dyn Registry>>;

    /// A session over a connection of this connector ended, and another one follows.
    fn session_ended(&self, _: &RegistryError) {}
}

/// A stream of changes that ends with its first error. Only [`Watch::next`] has no deadline.
#[async_trait]
pub trait Watch: Send {
    async fn next(&mut self) -> Result<WatchItem>;

    /// Watches another key prefix on the same stream.
    async fn follow(&mut self, another: &WatchRange) -> Result<()>;

    /// Stops watching one of the key prefixes.
    async fn unwatch(&mut self, watch_id: i64) -> Result<()>;

    /// Requests a [`WatchItem::Progress`], which shows that the stream is alive. Returns false if the server does not
    /// answer such requests.
    async fn request_progress(&mut self) -> Result<bool>;
}

/// The etcd member that answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerStatus {
    /// ID of the etcd cluster, not of the Kubernetes cluster.
    pub cluster_id: u64,
    pub version: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListResponse {
    pub cluster_id: u64,
    pub revision: Revision,
    pub records: Vec<RawRecord>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadResponse {
    pub revision: Revision,
    pub records: Vec<(RecordKey, Option<RawRecord>)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchItem {
    /// In the order of their revisions; several may share one.
    Changes(Vec<Change>),
    /// Everything up to the revision has been delivered.
    Progress(Revision),
    /// The stream is alive, without any change.
    Alive,
    /// One watch ended; the others go on.
    Lost { watch_id: i64, error: RegistryError },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    Put(RawRecord),
    Delete { key: RecordKey, revision: Revision },
}

impl Change {
    pub fn key(&self) -> &RecordKey {
        match self {
            Self::Put(record) => &record.key,
            Self::Delete { key, .. } => key,
        }
    }

    /// The record that a put leaves.
    pub fn record(&self) -> Option<&RawRecord> {
        match self {
            Self::Put(record) => Some(record),
            Self::Delete { .. } => None,
        }
    }

    pub fn revision(&self) -> Revision {
        match self {
            Self::Put(record) => record.mod_revision,
            Self::Delete { revision, .. } => *revision,
        }
    }
}

/// Operations of one transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The epoch of the leader that writes; if the key has another value, nothing is written.
    pub fence: Option<Fence>,
    /// For creates, and for updates of records without a lease.
    pub lease: LeaseId,
    /// At most [`MAX_BATCH`], with distinct keys.
    pub ops: Vec<RecordOp>,
}

/// A key that must have this value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fence {
    pub key: String,
    pub value: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TxnResponse {
    pub revision: Revision,
    /// One for each operation, in order.
    pub outcomes: Vec<Outcome>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Written,
    /// The key had another revision; this is its current record.
    Conflict(Option<RawRecord>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grant {
    Granted {
        /// Chosen by the server, in seconds; it may exceed the requested one.
        ttl: i64,
        /// The registry's revision at that time, 0 if the server told none.
        revision: Revision,
    },
    /// A lease with this ID exists already.
    Exists,
}

/// The answer to a keepalive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeepAlive {
    /// The lease lives for its whole TTL from now on, in seconds.
    For(i64),
    /// The lease is gone, and with it every record on it up to this revision, which the registry had reached when it
    /// was asked. A later record is on a lease that was granted again.
    Gone { revision: Revision },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseState {
    Lives,
    Gone,
}
