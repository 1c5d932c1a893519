//! The history of all changes, for whoever judges a run.
//!
//! Owns the form of a change. Refuses to forget: a compaction does not reach it.

use std::time::Duration;

use crate::store::Record;

/// A change of one key that was applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// How often the data was replaced before, by [`Etcd::restore`](crate::Etcd::restore) or
    /// [`Etcd::empty`](crate::Etcd::empty): revisions rise within one incarnation only.
    pub incarnation: u32,
    pub revision: i64,
    /// The time since the cluster was made.
    pub time: Duration,
    /// The name of the caller: the header `sim-author` of a request, or the name that a direct call gave; `etcd` for an
    /// expired lease.
    pub author: String,
    pub key: Vec<u8>,
    pub before: Option<Record>,
    pub after: Option<Record>,
    /// The lease that expired, if that was the cause.
    pub expired_lease: Option<i64>,
}
