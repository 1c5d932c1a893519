//! The limit of operations in one transaction, as a connection has found it.
//!
//! Owns the limit: etcd's default at first, and half of it each time that the server refuses a transaction for its
//! operations (`--max-txn-ops`, which no API tells). Refuses to send requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::registry::{MAX_BATCH, RegistryError};

/// Clones share the limit.
#[derive(Clone, Debug)]
pub struct TxnLimit(Arc<AtomicUsize>);

impl TxnLimit {
    pub fn new() -> Self {
        Self(Arc::new(AtomicUsize::new(MAX_BATCH)))
    }

    pub fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Takes the error of a transaction with this number of operations. Returns true if a smaller one may be sent.
    pub fn learn(&self, error: &RegistryError, operations: usize) -> bool {
        if *error != RegistryError::TooManyOps || operations < 2 {
            return false;
        }
        self.0.fetch_min(operations / 2, Ordering::Relaxed);
        true
    }
}
