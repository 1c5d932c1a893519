//! Silence: nothing is deleted because of a kind of object that was not heard of for long.
//!
//! Owns which deletions of a plan rest on which kind, and takes them out; additions stay. A later pass plans them again
//! from what it then knows. Refuses to know when a kind counts as silent.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::accepted::Goal;
use super::facts::Facts;
use crate::model::{EndpointAddress, Slice, SliceEndpoint};
use crate::plan::RecordOp;
use crate::plan::slices::{self, SliceOp};

/// The directions in which nothing may be deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    pub exports: bool,
    pub imports: bool,
    /// Endpoints that rest on the slices of others alone.
    pub mirrored: bool,
}

impl Kept {
    pub fn of(facts: &Facts, goal: &Goal) -> Self {
        let silent = facts.cluster.silent;
        let (exports, imports) = match goal {
            // The spec says that nothing belongs there.
            Goal::Withdraw { guarded: None } => (silent.specs, silent.specs),
            // The ServiceRegistry says so, whatever the spec says.
            Goal::Revoke => (false, false),
            // The Service is missing.
            Goal::Withdraw { guarded: Some(_) } => {
                let any = silent.exports() || silent.imports();
                (any, any)
            }
            Goal::Sync(_) | Goal::Reduce(_) => (silent.exports(), silent.imports()),
        };
        let mirrored = match goal {
            Goal::Sync(_) | Goal::Reduce(_) => silent.slices,
            Goal::Withdraw { .. } | Goal::Revoke => imports,
        };
        Self { exports, imports, mirrored }
    }

    pub fn keep_records(self, ops: &mut Vec<RecordOp>) {
        if self.exports {
            ops.retain(|op| !matches!(op, RecordOp::Delete { .. }));
        }
    }

    pub fn keep_endpoints(self, slices: &mut slices::Plan, ours: &[Arc<Slice>]) {
        if !self.imports && !self.mirrored {
            return;
        }
        slices.ops.retain_mut(|op| match ours.iter().find(|slice| slice.name == op.name()) {
            Some(slice) => self.put_back(op, slice),
            None => true,
        });
        if self.imports {
            slices.removed = 0;
        }
    }

    /// Puts the endpoints that have to stay back into the write of a slice. Returns whether there is one left.
    fn put_back(self, op: &mut SliceOp, slice: &Slice) -> bool {
        let has_to = |endpoint: &&SliceEndpoint| if endpoint.mirrored { self.mirrored } else { self.imports };
        let stay = slice.endpoints.iter().filter(has_to);
        match op {
            SliceOp::Create(_) => true,
            SliceOp::Delete { .. } if stay.clone().next().is_none() => true,
            SliceOp::Delete { .. } => {
                // The others go without it.
                let left: Vec<SliceEndpoint> = stay.cloned().collect();
                let some_go = left.len() < slice.endpoints.len();
                let rewritten = some_go.then(|| slices::rewritten(slice, left)).flatten();
                rewritten.map(|rewritten| *op = rewritten).is_some()
            }
            SliceOp::Update { spec, .. } => {
                let there: BTreeSet<EndpointAddress> = spec.endpoints.iter().map(|e| e.address.clone()).collect();
                let missing: Vec<SliceEndpoint> = stay.filter(|e| !there.contains(&e.address)).cloned().collect();
                if missing.is_empty() {
                    return true;
                }
                // Its place goes to another port, or to other endpoints.
                if slice.ports != [spec.port.clone()] || spec.endpoints.len() + missing.len() > slices::MAX_ENDPOINTS {
                    return false;
                }
                spec.add(missing);
                spec.endpoints != slice.endpoints
            }
        }
    }
}
