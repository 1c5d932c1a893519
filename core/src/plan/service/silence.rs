//! Silence: nothing is deleted because of a kind of object that was not heard of for long.
//!
//! Owns which deletions of a plan rest on which kind, and takes them out; additions stay. A later pass plans them again
//! from what it then knows. Refuses to know when a kind counts as silent.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::accepted::Goal;
use super::facts::Facts;
use crate::model::{EndpointAddress, Slice};
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
            Goal::Sync(_) | Goal::Reduce(_) => silent.endpoints,
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
        if self.imports {
            slices.ops.retain(|op| self.only_adds(op, ours));
            slices.removed = 0;
        }
    }

    /// Whether every address of a slice stays in it that has to.
    fn only_adds(self, op: &SliceOp, ours: &[Arc<Slice>]) -> bool {
        let stay: BTreeSet<&EndpointAddress> = match op {
            SliceOp::Create(spec) | SliceOp::Update { spec, .. } => spec.endpoints.iter().map(|e| &e.address).collect(),
            SliceOp::Delete { .. } => BTreeSet::new(),
        };
        let mut before = ours.iter().filter(|slice| slice.name == op.name()).flat_map(|slice| &slice.endpoints);
        before.all(|endpoint| stay.contains(&endpoint.address) || (endpoint.mirrored && !self.mirrored))
    }
}
