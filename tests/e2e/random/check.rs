//! The invariants of a registry after any sequence of operations.
//!
//! Owns the violations. Refuses to look at anything but the records of a witness.

use std::collections::BTreeSet;

use twinspan_testbed::Request;

use super::witness::{Event, History, Record};

/// The writes of the test itself; every other write is Twinspan's.
#[derive(Clone, Debug, Default)]
pub struct Written {
    /// Revisions of the test's puts and deletes.
    pub revisions: BTreeSet<i64>,
    /// Leases that the test revoked.
    pub revoked: BTreeSet<i64>,
    /// The number of puts and deletes that the test requested; it requests no transactions.
    pub requests: usize,
}

#[derive(Clone, Debug)]
pub struct Violation {
    pub kind: Kind,
    /// The event or request.
    pub seen: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Twinspan wrote or deleted a foreign record.
    ForeignTouched,
    /// Twinspan wrote a record without a lease, which would outlive its process.
    NoLease,
    /// Twinspan wrote without comparing the epoch.
    Unfenced,
    /// A write outside of a transaction that the test did not request.
    Untransacted,
}

impl Violation {
    fn new(kind: Kind, seen: impl std::fmt::Debug) -> Self {
        Self { kind, seen: format!("{seen:?}") }
    }
}

/// The default of `spec.fence.keyPrefix`.
const EPOCHS: &str = "twinspan/";

pub fn check(history: &History, written: &Written) -> Vec<Violation> {
    let mut violations = Vec::new();
    let expired = |event: &Event| {
        event.now.is_none() && event.before.as_ref().is_some_and(|before| written.revoked.contains(&before.lease))
    };
    let theirs = |event: &&Event| {
        !written.revisions.contains(&event.revision) && !expired(event) && !event.key.starts_with(EPOCHS)
    };
    for event in history.events.iter().filter(theirs) {
        let foreign = |record: &Record| !record.value.contains("\"twinspan.dev/owner\"");
        if event.before.as_ref().is_some_and(foreign) || event.now.as_ref().is_some_and(foreign) {
            violations.push(Violation::new(Kind::ForeignTouched, event));
        } else if event.now.as_ref().is_some_and(|now| now.lease == 0) {
            violations.push(Violation::new(Kind::NoLease, event));
        }
    }
    let (transactions, others): (Vec<&Request>, Vec<&Request>) =
        history.requests.iter().partition(|request| request.kind == "Txn");
    let unfenced = transactions.into_iter().filter(|request| !fenced(&request.content));
    violations.extend(unfenced.map(|request| Violation::new(Kind::Unfenced, request)));
    if others.len() != written.requests {
        let seen = format!("{} puts and deletes, of which the test asked for {}", others.len(), written.requests);
        violations.push(Violation::new(Kind::Untransacted, seen));
    }
    violations
}

/// True if a transaction first compares that the epoch has the expected value, or raises an epoch and so names no other
/// key. Reads the format of `NewLoggableTxnRequest`, etcd v3.7.
fn fenced(content: &str) -> bool {
    let epoch = format!("key:\"{EPOCHS}");
    let first = content.strip_prefix("compare:<").and_then(|rest| rest.split(" > ").next()).unwrap_or_default();
    let compares = first.starts_with("target:VALUE ") && first.contains(&epoch) && !first.contains("result:");
    let keys = content.matches("key:\"").count();
    compares || (keys > 0 && keys == content.matches(&epoch).count())
}
