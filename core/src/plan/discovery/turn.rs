//! The part of a plan that is done now: what the paces let through, and what was not just done.
//!
//! Owns the paces, and how long a write is left alone whose effect the view does not show yet, or that the API server
//! refused. Refuses to send anything.

use std::collections::{BTreeMap, BTreeSet};

use jiff::SignedDuration;

use super::facts::{SHOWN, Wanted};
use super::refusals::{Refusals, Why};
use super::{Delete, Plan, Update};
use crate::Timestamp;
use crate::model::ServiceKey;
use crate::plan::earlier;

/// RegisteredServices for names that are created in a second: strangers choose the names.
pub const IMPORTS_PER_SECOND: u32 = 10;
/// RegisteredServices for Services that are created or changed in a second: the API server has other work.
pub const EXPORTS_PER_SECOND: u32 = 50;
/// RegisteredServices that are deleted in a second.
pub const DELETIONS_PER_SECOND: u32 = 10;
/// The time after which a refused write is tried again.
const AGAIN: SignedDuration = SignedDuration::from_secs(30);
const SECOND: SignedDuration = SignedDuration::from_secs(1);

/// A bucket that is filled anew each second.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Bucket {
    size: u32,
    left: u32,
    filled: Option<Timestamp>,
}

impl Bucket {
    fn new(size: u32) -> Self {
        Self { size, left: size, filled: None }
    }

    fn take(&mut self, now: Timestamp) -> bool {
        if self.filled.is_none_or(|filled| now.duration_since(filled) >= SECOND) {
            (self.filled, self.left) = (Some(now), self.size);
        }
        let takes = self.left > 0;
        self.left -= u32::from(takes);
        takes
    }
}

/// The paces of all ServiceRegistries together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paces {
    imports: Bucket,
    exports: Bucket,
    deletions: Bucket,
}

impl Default for Paces {
    fn default() -> Self {
        Self {
            imports: Bucket::new(IMPORTS_PER_SECOND),
            exports: Bucket::new(EXPORTS_PER_SECOND),
            deletions: Bucket::new(DELETIONS_PER_SECOND),
        }
    }
}

/// A write of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    Create(Wanted),
    Update(Update),
    Delete(Delete),
}

impl Op {
    pub fn key(&self) -> &ServiceKey {
        match self {
            Self::Create(wanted) => &wanted.key,
            Self::Update(update) => &update.wanted.key,
            Self::Delete(delete) => &delete.key,
        }
    }

    /// The version that it rests on; `None` where there is no object.
    fn version(&self) -> Option<&str> {
        match self {
            Self::Create(_) => None,
            Self::Update(update) => Some(&update.version),
            Self::Delete(delete) => Some(&delete.version),
        }
    }
}

/// A write that was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Sent {
    version: Option<String>,
    until: Timestamp,
    refused: Option<String>,
}

/// The writes that were sent a moment ago, of one ServiceRegistry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History(BTreeMap<ServiceKey, Sent>);

impl History {
    /// A write was answered, or may have been done; `refused` has the words of a refusal.
    pub fn note(&mut self, op: &Op, refused: Option<String>, now: Timestamp) {
        let until = now.checked_add(if refused.is_some() { AGAIN } else { SHOWN }).unwrap_or(Timestamp::MAX);
        self.0.insert(op.key().clone(), Sent { version: op.version().map(ToOwned::to_owned), until, refused });
    }

    /// When the first write may be tried again, or has to show.
    pub fn next(&self) -> Option<Timestamp> {
        self.0.values().map(|sent| sent.until).min()
    }

    /// Forgets what is over.
    fn forget(&mut self, now: Timestamp) {
        self.0.retain(|_, sent| now < sent.until);
    }

    /// Until when a write waits, because it was sent and nothing has changed since.
    fn waits(&self, op: &Op) -> Option<Timestamp> {
        let sent = self.0.get(op.key()).filter(|sent| sent.version.as_deref() == op.version());
        sent.map(|sent| sent.until)
    }

    /// Adds what the API server refused.
    pub fn tell(&self, refusals: &mut Refusals) {
        for (key, sent) in &self.0 {
            if let Some(message) = &sent.refused {
                refusals.add(&format!("RegisteredService {key}"), Why::Refused, message);
            }
        }
    }
}

/// The writes of now, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Turn {
    pub ops: Vec<Op>,
    /// When the rest has its turn.
    pub look_again: Option<Timestamp>,
}

/// Takes the part of a plan that may be done now. `let_go` are the sweeps that the guard lets go. What is put comes
/// before what is withdrawn.
pub fn turn(
    plan: &Plan,
    let_go: &BTreeSet<ServiceKey>,
    history: &mut History,
    paces: &mut Paces,
    now: Timestamp,
) -> Turn {
    history.forget(now);
    let mut turn = Turn::default();
    let creates = plan.creates.iter().cloned().map(Op::Create);
    let updates = plan.updates.iter().cloned().map(Op::Update);
    let sweeps = plan.sweeps.iter().filter(|delete| let_go.contains(&delete.key));
    let deletes = plan.yields.iter().chain(sweeps).cloned().map(Op::Delete);
    for op in creates.chain(updates).chain(deletes) {
        if let Some(until) = history.waits(&op) {
            turn.look_again = earlier(turn.look_again, Some(until));
            continue;
        }
        let bucket = match &op {
            Op::Create(wanted) if wanted.imports() => &mut paces.imports,
            Op::Create(_) | Op::Update(_) => &mut paces.exports,
            Op::Delete(_) => &mut paces.deletions,
        };
        if bucket.take(now) {
            turn.ops.push(op);
        } else {
            turn.look_again = earlier(turn.look_again, now.checked_add(SECOND).ok());
        }
    }
    turn
}
