//! Own records that nothing refers to any more, found through their leases.
//!
//! Where every service is a range of its own, the records of a RegisteredService that was deleted while nobody ran lie in a range that
//! nobody would follow. Owns how they are found: our leases have derived IDs, and every own record hangs on one.

use std::collections::BTreeSet;

use tracing::debug;
use twinspan_core::model::{LeaseId, RegistryName};

use super::handle::RegistryHandle;
use super::{Registry, Result};

/// Has the names followed under which records hang on leases of ours.
pub async fn adopt(handle: &RegistryHandle, registry: &dyn Registry) -> Result<()> {
    let ours = handle.leases.ids();
    let all = registry.leases().await?;
    let found: Vec<LeaseId> = all.into_iter().filter(|lease| ours.contains(lease)).collect();
    let mut names = BTreeSet::new();
    for lease in &found {
        for key in registry.keys_of(*lease).await? {
            let name = handle.layout.split_key(&key).and_then(|(name, _)| std::str::from_utf8(name).ok());
            names.extend(name.and_then(|name| RegistryName::new(name).ok()));
        }
    }
    debug!(registry = handle.name, leases = found.len(), names = names.len(), "own leases");
    handle.adopt_names(names);
    Ok(())
}
