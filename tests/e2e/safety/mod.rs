//! Security: what Twinspan must never do, whatever the registry and the cluster contain, and the audit log that proves
//! it.

pub mod audit;
mod bad_input;
mod crowd;
mod large_values;
mod namespaced;
mod published;
pub mod rbac;
mod trust;

use crate::harness::stories;

stories![modules: bad_input, crowd, large_values, namespaced, published, rbac, trust];
