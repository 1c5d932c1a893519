//! The far side's door: every request to a service registry goes through here.
//!
//! - [`Registry`]: the calls of one connection. [`etcd`] is the real one, `fake` the one for fault injection; both pass the same contract
//!   test.
//! - [`session`]: list → `Reset` → watch, for ever; keeps the [`view`] true. [`incarnation`]: whether the registry that answers is the one
//!   that was known.
//! - [`leases`]: the leases that own records hang on; [`keepalive`] keeps them alive, [`orphans`] finds the records on them.
//! - [`fence`]: the epoch that every batch compares; [`takeover`]: raises it.
//! - [`writer`]: compare-and-swap batches, which ask the Lease, the fence and the keyspace first.
//! - [`health`]: refusals of a registry although its session stands.
//! - [`handle`]: the operator's hold of one registry; [`sessions`]: all that run; [`guards`]: the deletion guard of each.
//!
//! Refuses to decide: the operations come from the planners.

pub mod error;
pub mod etcd;
#[cfg(any(test, feature = "fake"))]
pub mod fake;
pub mod fence;
pub mod guards;
pub mod handle;
pub mod health;
pub mod incarnation;
pub mod keepalive;
pub mod leases;
pub mod orphans;
pub mod records;
pub mod session;
pub mod sessions;
pub mod takeover;
pub mod view;
pub mod writer;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use twinspan_core::model::{LeaseId, RawRecord, RecordKey, Revision};
use twinspan_core::plan::RecordOp;

pub use error::RegistryError;

pub type Result<T> = std::result::Result<T, RegistryError>;

/// etcd allows 128 operations in one request, and the outer transaction is one of them (`--max-txn-ops`).
pub const MAX_BATCH: usize = 127;

/// One connection to a registry. Every call has a deadline of its own; none retries.
#[async_trait]
pub trait Registry: Send + Sync + fmt::Debug {
    async fn status(&self) -> Result<ServerStatus>;

    /// Every record whose key has this prefix, at one revision.
    async fn list(&self, key_prefix: &str) -> Result<ListResponse>;

    /// Every change of keys with this prefix from the revision on, that revision included. A sign of life can be asked for only
    /// once the registry has reached the revision.
    async fn watch(&self, first: &WatchRange) -> Result<Box<dyn Watch>>;

    /// Each key as it is now; `None` where there is no such key.
    async fn read(&self, keys: &[RecordKey]) -> Result<ReadResponse>;

    /// One transaction; an operation that loses its race leaves its neighbours alone.
    ///
    /// # Errors
    /// [`RegistryError::Fenced`] where the fence does not hold, and nothing is written.
    /// [`RegistryError::is_ambiguous`] errors leave open whether the batch was written.
    async fn commit(&self, batch: &Batch) -> Result<TxnResponse>;

    async fn grant(&self, lease: LeaseId, ttl_seconds: i64) -> Result<Grant>;

    async fn keep_alive(&self, lease: LeaseId) -> Result<KeepAlive>;

    /// Whether the lease exists, without prolonging it.
    async fn look_up(&self, lease: LeaseId) -> Result<LeaseState>;

    /// Every lease of the registry, whosever it is.
    async fn leases(&self) -> Result<Vec<LeaseId>>;

    /// The keys that hang on a lease; none where it does not exist.
    async fn keys_of(&self, lease: LeaseId) -> Result<Vec<RecordKey>>;
}

/// A key prefix to follow, under a number by which it can be given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchRange {
    /// Positive, and never used before on the same stream.
    pub number: i64,
    pub key_prefix: String,
    pub from: Revision,
}

/// Opens connections, each time to the next endpoint that answers.
#[async_trait]
pub trait Connector: Send + Sync {
    async fn connect(&self) -> Result<Arc<dyn Registry>>;
}

/// A stream of changes. It ends with its first error. Only for the next item one may have to wait for ever.
#[async_trait]
pub trait Watch: Send {
    async fn next(&mut self) -> Result<WatchItem>;

    /// Follows another key prefix on the same stream.
    async fn follow(&mut self, another: &WatchRange) -> Result<()>;

    /// Gives one up.
    async fn unwatch(&mut self, number: i64) -> Result<()>;

    /// Asks for a [`WatchItem::Progress`], which shows that the stream is alive.
    async fn request_progress(&mut self) -> Result<()>;
}

/// What answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerStatus {
    /// Of the etcd cluster, not of ours.
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
    /// In the order in which they happened; several may share a revision.
    Changes(Vec<Change>),
    /// Everything up to the revision has been delivered.
    Progress(Revision),
    /// Nothing new, but a sign of life.
    Alive,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    Put(RawRecord),
    Delete { key: RecordKey, revision: Revision },
}

impl Change {
    pub fn revision(&self) -> Revision {
        match self {
            Self::Put(record) => record.mod_revision,
            Self::Delete { revision, .. } => *revision,
        }
    }
}

/// Operations that are written together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Must hold for anything to be written: the epoch of the leader that writes.
    pub fence: Option<Fence>,
    /// For creates, and for updates of records that have none.
    pub lease: LeaseId,
    /// At most [`MAX_BATCH`], each key once.
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
    /// The key had another revision; this is the key now.
    Conflict(Option<RawRecord>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grant {
    /// The TTL that the server chose, in seconds; it may be longer than asked for.
    Granted(i64),
    /// There is a lease with this ID already.
    Exists,
}

/// The answer to a keepalive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeepAlive {
    /// It lives for its whole TTL from now on, in seconds.
    For(i64),
    Gone,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseState {
    Lives,
    Gone,
}
