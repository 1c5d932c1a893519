//! The bound on RegisteredServices that share one name of a registry.
//!
//! Owns the number and the rule that the first in precedence have the name. A change of one is a change for all, and
//! each looks at all, so the work of a change grows with the square of their number; anybody who may create them could
//! keep all other passes waiting. Refuses to know the consequence, which [`super::validate`] does.

use std::collections::BTreeSet;

use twinspan_core::model::ServiceKey;

use crate::cluster::view::ClusterView;

/// The RegisteredServices that may share one name of a registry.
pub(super) const MOST: usize = 32;

/// The RegisteredServices of a name that are not crowded out.
pub(super) fn first(view: &ClusterView, registry: &str, name: &[u8]) -> BTreeSet<ServiceKey> {
    view.index.first_of_name(registry, name, MOST).cloned().collect()
}

/// Whether enough RegisteredServices that precede it have its name.
pub(super) fn is_crowded_out(view: &ClusterView, key: &ServiceKey) -> bool {
    view.index.is_preceded(key, MOST)
}
