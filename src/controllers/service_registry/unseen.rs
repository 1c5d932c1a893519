//! The parts of the cluster that this process cannot see although something rests on them: namespaces at which a
//! release in namespaced mode does not look, and ranges of Services that no API server tells.
//!
//! Owns the words about them, in the message of Ready and once in the log. Refuses to keep or withdraw records, which
//! passes do.

use std::collections::BTreeSet;

use tracing::warn;

use super::status::{Reporter, Told};
use crate::api::APPROVE_WITHDRAWAL;
use crate::registry::handle::RegistryHandle;

/// The number of namespaces that a message names.
const NAMED: usize = 5;

impl Reporter {
    /// The message about ranges of Services that nothing shows.
    pub(super) fn without_service_range(&self) -> Option<String> {
        let families = self.views.cluster().families_without_service_range();
        (!families.is_empty()).then(|| {
            format!(
                "no range of {} ClusterIPs is known, for this API server has no ServiceCIDRs: the addresses that Services have now are refused, \
                 and a record may be imported whose address a Service gets later. Set serviceCIDRs of the chart (--service-cidrs)",
                families.into_iter().collect::<Vec<_>>().join(" and ")
            )
        })
    }

    /// The message about own records of namespaces that this release does not look at, if there are any.
    pub(super) fn out_of_sight(&self, name: &str, handle: Option<&RegistryHandle>) -> Option<String> {
        let handle = handle.filter(|_| self.views.cluster().reach().is_limited())?;
        let mut namespaces: BTreeSet<String> = handle.owners().into_iter().map(|owner| owner.namespace).collect();
        let view = self.views.cluster();
        namespaces.retain(|namespace| view.is_out_of_sight(name, namespace));
        let more = namespaces.len().saturating_sub(NAMED);
        let mut named: Vec<String> = namespaces.into_iter().take(NAMED).collect();
        if more > 0 {
            named.push(format!("{more} more"));
        }
        (!named.is_empty()).then(|| {
            format!(
                "records of some namespaces stay as they are, for this release does not look there: {}; name them in \
                 namespaced.namespaces of the chart (--watch-namespaces), or let their records go by the annotation {APPROVE_WITHDRAWAL} \
                 with their names, separated by commas",
                named.join(", ")
            )
        })
    }

    /// Says it once for each set of namespaces.
    pub(super) fn tell_out_of_sight(&self, name: &str, handle: Option<&RegistryHandle>, told: &mut Told) {
        let Some(message) = self.out_of_sight(name, handle) else {
            told.out_of_sight.remove(name);
            return;
        };
        if told.out_of_sight.get(name) != Some(&message) {
            warn!(registry = name, "{message}");
            told.out_of_sight.insert(name.to_owned(), message);
        }
    }
}
