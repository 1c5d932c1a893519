//! The part of a plan that is done now: what the paces let through, and what was not just done.
//!
//! Owns the paces, and the order in which writes have their turn: what was never tried comes before what was refused.
//! [`History`] tells which of them waits. Refuses to send anything.

use std::collections::BTreeSet;

use jiff::SignedDuration;

use super::Plan;
use super::history::{History, Op};
use crate::Timestamp;
use crate::model::ServiceKey;
use crate::plan::earlier;

/// RegisteredServices for names that are created in a second: strangers choose the names.
pub const IMPORTS_PER_SECOND: u32 = 10;
/// RegisteredServices for Services that are created or changed in a second: the API server has other work.
pub const EXPORTS_PER_SECOND: u32 = 50;
/// RegisteredServices that are deleted in a second.
pub const DELETIONS_PER_SECOND: u32 = 10;
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

/// The order in which ServiceRegistries have their turns at the paces in one pass. Each is first once in as many passes
/// as there are, so that none takes every turn from the others: it begins behind the one that was first before.
pub fn in_turns(names: BTreeSet<String>, first_before: Option<&str>) -> Vec<String> {
    let is_before = |name: &String| first_before.is_some_and(|first| name.as_str() <= first);
    let (before, mut order): (Vec<String>, Vec<String>) = names.into_iter().partition(is_before);
    order.extend(before);
    order
}

/// The writes of now, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Turn {
    pub ops: Vec<Op>,
    /// When the rest has its turn.
    pub look_again: Option<Timestamp>,
}

/// Takes the part of a plan that may be done now. `let_go` are the sweeps that the guard lets go. What is put comes
/// before what is withdrawn, and what the API server has not refused before what it has.
pub fn turn(
    plan: &Plan,
    let_go: &BTreeSet<ServiceKey>,
    history: &mut History,
    paces: &mut Paces,
    now: Timestamp,
) -> Turn {
    let creates = plan.creates.iter().cloned().map(Op::Create);
    let updates = plan.updates.iter().cloned().map(Op::Update);
    let sweeps = plan.sweeps.iter().filter(|delete| let_go.contains(&delete.key));
    let deletes = plan.yields.iter().chain(sweeps).cloned().map(Op::Delete);
    let (puts, deletes): (Vec<Op>, Vec<Op>) = (creates.chain(updates).collect(), deletes.collect());
    history.forget(puts.iter().chain(&deletes), now);
    let mut turn = Turn::default();
    for ops in [puts, deletes] {
        let (mut fresh, mut again) = (Vec::new(), Vec::new());
        for op in ops {
            if let Some(until) = history.waits(&op, now) {
                turn.look_again = earlier(turn.look_again, Some(until));
            } else if let Some(due) = history.refused_until(&op) {
                again.push((due, op));
            } else {
                fresh.push(op);
            }
        }
        // The one that has waited longest is first.
        again.sort_by_key(|(due, _)| *due);
        for op in fresh.into_iter().chain(again.into_iter().map(|(_, op)| op)) {
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
    }
    turn
}
