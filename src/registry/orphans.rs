//! Own records that nothing refers to any more, found through their leases.
//!
//! Where every service is a range of its own, the records of a RegisteredService that was deleted while nobody ran lie in a range that
//! nobody would follow. Owns how they are found: our leases have derived IDs, and every own record hangs on one.

use std::collections::BTreeSet;

use futures::StreamExt;
use tracing::{debug, warn};
use twinspan_core::model::{LeaseId, RecordKey, RegistryName};

use super::handle::RegistryHandle;
use super::{Registry, RegistryError, Result};

/// Leases that are asked about at once.
const AT_ONCE: usize = 32;

/// Has the names followed under which records hang on leases of ours.
pub async fn find(handle: &RegistryHandle, registry: &dyn Registry) -> Result<()> {
    let ours = handle.leases.ids();
    let found: Vec<LeaseId> = match registry.leases().await {
        Ok(all) => all.into_iter().filter(|lease| ours.contains(lease)).collect(),
        // A user that may not read every key on every lease, whosever they are, is told of none (`checkLeaseLeases` of
        // server/etcdserver, 3.7). Of ours each can be asked about by itself.
        Err(RegistryError::PermissionDenied(_)) => ours.into_iter().collect(),
        Err(error) => return Err(error),
    };
    let leases = found.len();
    let asked = futures::stream::iter(found).map(|lease| registry.keys_of(lease)).buffer_unordered(AT_ONCE);
    let answers: Vec<Result<Vec<RecordKey>>> = asked.collect().await;
    let (mut names, mut unreadable) = (BTreeSet::new(), 0);
    for answer in answers {
        match answer {
            Ok(keys) => {
                let split = keys.iter().filter_map(|key| handle.layout.split_key(key));
                let legal = split.filter_map(|(name, _)| RegistryName::new(std::str::from_utf8(name).ok()?).ok());
                names.extend(legal);
            }
            // One key that our user may not read is enough.
            Err(RegistryError::PermissionDenied(_)) => unreadable += 1,
            Err(error) => return Err(error),
        }
    }
    if unreadable > 0 {
        warn!(
            registry = handle.name,
            leases = unreadable,
            "our user may not read every record on leases of ours; where their RegisteredServices are gone, nobody withdraws them"
        );
    }
    debug!(registry = handle.name, leases, names = names.len(), "own leases");
    handle.set_orphaned(names);
    Ok(())
}
