//! The count of a registry's records, from which the scope of its session follows.
//!
//! Owns the time at which they are counted: as a session begins, and with each audit. Refuses to choose, which
//! [`super::scope`] does.

use std::time::Duration;

use tokio::time::timeout;

use super::handle::RegistryHandle;
use super::scope::{SMALL, Scope};
use super::{Registry, RegistryError, Result};

/// Time in which the RegisteredServices are listed, before a large registry is followed without their names.
const NAMES: Duration = Duration::from_secs(10);

/// Chooses the scope of a session that begins.
///
/// # Errors
/// The records cannot be counted.
pub async fn choose_scope(handle: &RegistryHandle, registry: &dyn Registry) -> Result<Scope> {
    let Some(root) = handle.layout.root() else { return Ok(Scope::FollowedNames) };
    let records = match registry.count(&root).await {
        Ok(records) => records,
        // The list meets the same error, and tells it.
        Err(RegistryError::PermissionDenied(_)) => {
            handle.asked.set_scope(Scope::Everything);
            return Ok(Scope::Everything);
        }
        Err(error) => return Err(error),
    };
    handle.asked.set_records(records);
    if records >= SMALL && handle.asked.scope().is_none() {
        // Only the names tell whether most of a large registry is asked for.
        let _ = timeout(NAMES, handle.asked.known()).await;
    }
    Ok(handle.asked.begin())
}

/// Counts the records for the scope of a session that runs.
///
/// # Errors
/// The records cannot be counted.
pub async fn count_again(handle: &RegistryHandle, registry: &dyn Registry) -> Result<()> {
    let Some(root) = handle.layout.root() else { return Ok(()) };
    let records = match handle.asked.scope() {
        Some(Scope::Everything) | None => handle.view().counts().all(),
        Some(Scope::FollowedNames) => registry.count(&root).await?,
    };
    handle.asked.set_records(records);
    Ok(())
}
