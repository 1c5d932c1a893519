//! Own records that nothing refers to any more, found through their leases.
//!
//! If each service is a range of its own, no session watches the range of a RegisteredService that was deleted while
//! Twinspan was down (`docs/decisions/0018`). Owns the search: our leases have derived IDs, and every own record is
//! attached to one. Refuses to delete the records: watching their names brings them into the view.

use std::collections::BTreeSet;

use futures::StreamExt;
use tracing::{debug, warn};
use twinspan_core::model::{LeaseId, RecordKey, RegistryName};

use super::handle::RegistryHandle;
use super::{Registry, RegistryError, Result};

/// Leases looked up concurrently.
const AT_ONCE: usize = 32;

/// Requests the ranges of all names with records on our leases.
pub async fn find(handle: &RegistryHandle, registry: &dyn Registry) -> Result<()> {
    let ours = handle.leases.ids();
    let found: Vec<LeaseId> = match registry.leases().await {
        Ok(all) => all.into_iter().filter(|lease| ours.contains(lease)).collect(),
        // etcd lists no leases for a user that may not read every key on every lease (`checkLeaseLeases` of
        // server/etcdserver, 3.7), and very many are too large for one answer; but it answers for each of ours.
        Err(RegistryError::PermissionDenied(_) | RegistryError::TooLarge(_)) => ours.into_iter().collect(),
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
            // A single key without read permission fails the look-up.
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
    handle.asked.set_orphaned(names);
    Ok(())
}
