//! RegisteredServices that people wrote, which win over discovered ones for the same Service or name.
//!
//! Owns which of them is a rival, which has a name that a new one may not join, and when a discovered one may go:
//! once the other carries its instances, so that they are put before they are withdrawn. Refuses to move a record,
//! which the passes over both do.

use std::collections::BTreeMap;

use super::facts::{Facts, Object, Origin, Wanted};
use crate::model::ServiceKey;

/// RegisteredServices of people that refer to the ServiceRegistry.
pub(super) struct Written<'a> {
    by_service: BTreeMap<&'a ServiceKey, Vec<&'a Object>>,
    /// The ones that import.
    by_name: BTreeMap<&'a str, Vec<&'a Object>>,
    /// The names that are exported, with the first object of each.
    exported: BTreeMap<&'a str, &'a ServiceKey>,
}

impl<'a> Written<'a> {
    pub fn of(facts: &'a Facts<'a>) -> Self {
        let mut all = Self { by_service: BTreeMap::new(), by_name: BTreeMap::new(), exported: BTreeMap::new() };
        // One without a grant writes nothing, so that nobody may win with it.
        let counts =
            |object: &Object| object.origin == Origin::Written && object.refers && !object.deleting && !object.denied;
        for (key, object) in facts.objects.iter().filter(|(_, object)| counts(object)) {
            all.by_service.entry(&object.service).or_default().push(object);
            if object.imports {
                all.by_name.entry(&object.registry_name).or_default().push(object);
            }
            if object.exports {
                all.exported.entry(&object.registry_name).or_insert(key);
            }
        }
        all
    }

    /// The ones that win over a wanted object.
    pub fn rivals(&self, wanted: &Wanted) -> Vec<&'a Object> {
        let found = if wanted.imports() {
            self.by_name.get(wanted.registry_name.as_str())
        } else {
            self.by_service.get(&wanted.key)
        };
        found.cloned().unwrap_or_default()
    }

    /// The object that exports a name, unless one stands for this Service, which wins anyway.
    pub fn exporter(&self, name: &str, service: &ServiceKey) -> Option<&'a ServiceKey> {
        self.exported.get(name).copied().filter(|_| !self.by_service.contains_key(service))
    }

    pub fn imports(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }
}

/// Whether nothing depends on a discovered object any more: it carries nothing, the others carry as much, or they leave
/// its direction out on purpose.
pub(super) fn carry(rivals: &[&Object], object: &Object, imports: bool) -> bool {
    let takes_over = |rival: &&Object| if imports { rival.imports } else { rival.exports };
    if !rivals.iter().any(takes_over) {
        return true;
    }
    let carries = object.carries;
    let carried = if imports { carries.imported } else { carries.exported };
    let sum: i64 = rivals
        .iter()
        .filter(|rival| rival.carries.is_current)
        .map(|rival| if imports { rival.carries.imported } else { rival.carries.exported })
        .sum();
    carries.is_empty() || (carries.is_current && carried > 0 && sum >= carried)
}
