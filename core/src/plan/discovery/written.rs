//! RegisteredServices that people wrote, which win over discovered ones for the same Service or name.
//!
//! Owns which of them is a rival, which has a name that a new one may not join, and when a discovered one may go:
//! once the other has its instances, so that they are put before they are withdrawn. Refuses to move a record,
//! which the passes over both do.

use std::collections::BTreeMap;

use super::facts::{Carries, Facts, Lag, Object, Origin, Wanted};
use crate::model::ServiceKey;

/// One that wins over a discovered object.
pub(super) type Rival<'a> = (&'a ServiceKey, &'a Object);

/// RegisteredServices of people that refer to the ServiceRegistry.
pub(super) struct Written<'a> {
    by_service: BTreeMap<&'a ServiceKey, Vec<Rival<'a>>>,
    /// The ones that import.
    by_name: BTreeMap<&'a str, Vec<Rival<'a>>>,
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
            all.by_service.entry(&object.service).or_default().push((key, object));
            if object.imports {
                all.by_name.entry(&object.registry_name).or_default().push((key, object));
            }
            if object.exports {
                all.exported.entry(&object.registry_name).or_insert(key);
            }
        }
        all
    }

    /// The ones that win over a wanted object.
    pub fn rivals(&self, wanted: &Wanted) -> Vec<Rival<'a>> {
        if wanted.imports() {
            self.by_name.get(wanted.registry_name.as_str()).cloned().unwrap_or_default()
        } else {
            self.of_service(&wanted.key)
        }
    }

    /// The ones that stand for a Service.
    pub fn of_service(&self, service: &ServiceKey) -> Vec<Rival<'a>> {
        self.by_service.get(service).cloned().unwrap_or_default()
    }

    /// The object that exports a name, unless one stands for this Service, which wins anyway.
    pub fn exporter(&self, name: &str, service: &ServiceKey) -> Option<&'a ServiceKey> {
        self.exported.get(name).copied().filter(|_| !self.by_service.contains_key(service))
    }

    pub fn imports(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }
}

/// The reason why a discovered object stays beside one that a person wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wait {
    pub rival: ServiceKey,
    pub lag: Lag,
}

/// The wait of a discovered object for its rivals; `None` where nothing depends on it any more: it carries nothing, the
/// others leave its direction out on purpose, or one has its instances and none is on its way. Only whether a rival
/// has any is compared: a person may ask for others, or for fewer.
pub(super) fn wait(rivals: &[Rival<'_>], object: &Object, imports: bool) -> Option<Wait> {
    let side = |of: &Carries| if imports { of.imported } else { of.exported };
    let takers = rivals.iter().filter(|(_, rival)| if imports { rival.imports } else { rival.exports });
    let lacks = |rival: &Object| {
        let lag = if imports { rival.lags.import } else { rival.lags.export };
        lag.or_else(|| (side(&rival.carries) == 0).then_some(Lag::Empty))
    };
    let lags: Vec<(&ServiceKey, Option<Lag>)> = takers.map(|(key, rival)| (*key, lacks(rival))).collect();
    if object.carries.is_empty() || lags.is_empty() {
        return None;
    }
    let lagging = || lags.iter().filter_map(|(key, lag)| Some(Wait { rival: (*key).clone(), lag: (*lag)? }));
    let has_one = lags.iter().any(|(_, lag)| lag.is_none());
    lagging().find(|wait| !wait.lag.is_open()).or_else(|| lagging().next().filter(|_| !has_one))
}
