//! The bound on RegisteredServices that share one name of a registry.
//!
//! Owns the number and the rule that the oldest have the name. A change of one is a change for all, and each looks at
//! all, so the work of a change grows with the square of their number; anybody who may create them could keep all other
//! passes waiting. Refuses to know the consequence, which [`super::validate`] does.

use std::collections::BTreeSet;

use twinspan_core::Timestamp;
use twinspan_core::model::ServiceKey;
use twinspan_core::plan::service::Age;

use crate::cluster::view::ClusterView;

/// The RegisteredServices that may share one name of a registry.
pub(super) const MOST: usize = 32;

/// The RegisteredServices of a name that are not crowded out.
pub(super) fn oldest(view: &ClusterView, registry: &str, name: &[u8]) -> BTreeSet<ServiceKey> {
    let mut keys: Vec<&ServiceKey> = view.index.of_name(registry, name).filter(|key| view.stays(key)).collect();
    if keys.len() > MOST {
        keys.sort_by_cached_key(|key| age_in(view, key));
        keys.truncate(MOST);
    }
    keys.into_iter().cloned().collect()
}

/// Whether enough older RegisteredServices have its name.
pub(super) fn is_crowded_out(view: &ClusterView, key: &ServiceKey) -> bool {
    let Some((registry, name)) = view.index.registry_and_name(key) else { return false };
    let all = || view.index.of_name(&registry, name.as_bytes()).filter(|other| view.stays(other));
    let ours = age_in(view, key);
    all().count() > MOST && all().filter(|other| age_in(view, other) < ours).count() >= MOST
}

fn age_in(view: &ClusterView, key: &ServiceKey) -> Age {
    let object = view.registered_services.get(key);
    let created = object.and_then(|object| object.metadata.creation_timestamp.as_ref());
    (created.map_or(Timestamp::MAX, |time| time.0), key.clone())
}
