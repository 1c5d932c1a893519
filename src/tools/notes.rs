//! The notes beside a table: about a RegisteredService as a whole, about the leader, about missing parts.
//!
//! Owns their words. Refuses to explain single instances, which [`super::explanation`] does.

use super::preview::Preview;
use super::viewer::Unsynced;

/// The reasons why nothing, or not everything, can be done for a RegisteredService.
pub fn of_service(preview: &Preview) -> Vec<String> {
    let key = format!("{}/{}", preview.namespace, preview.name);
    let refused = preview.refused.as_ref();
    let refused =
        refused.map(|(reason, message)| format!("RegisteredService {key} is not accepted ({reason}): {message}"));
    let unavailable = preview.unavailable.as_ref().map(|error| format!("RegisteredService {key}: {error}"));
    refused.into_iter().chain(unavailable).collect()
}

/// A note if no replica leads.
pub fn of_leader(leader: Option<&str>) -> Option<String> {
    leader.is_none().then(|| "no leader, so nothing is written; see twinspan doctor".to_owned())
}

/// A note about a registry of which only a part is watched.
pub fn followed_names(registry: &str) -> String {
    format!("of registry {registry}, only the names of RegisteredServices are watched; others may have it there")
}

pub fn unsynced(unsynced: &Unsynced) -> String {
    format!("could not be seen in time: {unsynced}")
}
