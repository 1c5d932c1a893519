//! The names of each session: those that RegisteredServices refer to, and those that an older ServiceRegistry serves.
//!
//! Owns when a session is told of them. Refuses to know their records.

use std::collections::BTreeMap;

use twinspan_core::model::RegistryName;

use super::Sessions;
use crate::cluster::view::Kind;
use crate::registry::taken_names::Taken;

impl Sessions {
    /// Tells a session the names of all RegisteredServices that refer to its registry, once they are listed.
    pub(super) fn update_names(&self, registry: &str) {
        let Some(handle) = self.views.registries.get(registry) else { return };
        let names = {
            let view = self.views.cluster();
            let legal = |name: &String| RegistryName::new(name).ok();
            let are_listed = !view.unsynced().contains(&Kind::RegisteredService);
            are_listed.then(|| view.index.names_of_registry(registry).filter_map(legal).collect())
        };
        names.into_iter().for_each(|names| handle.asked.set_registered(names));
        self.update_taken_from(registry);
    }

    /// Tells a session whether a name is the one of any RegisteredService.
    pub fn update_name(&self, registry: &str, name: &str) {
        if let Some((handle, name)) = self.views.registries.get(registry).zip(RegistryName::new(name).ok()) {
            let name_in_keys = name.as_str().as_bytes();
            let is_registered = self.views.cluster().index.of_name(registry, name_in_keys).next().is_some();
            handle.asked.set_name(name, is_registered);
            self.update_taken_from(registry);
        }
    }

    /// Tells the younger rivals of a registry which names are taken.
    fn update_taken_from(&self, registry: &str) {
        for (other, rivals) in &self.rivals {
            if rivals.iter().any(|older| older.name == registry) {
                self.update_taken(other);
            }
        }
    }

    /// Tells a session without a common prefix which of its names an older ServiceRegistry serves.
    pub(super) fn update_taken(&self, name: &str) {
        let Some(handle) = self.views.registries.get(name) else { return };
        let mut taken = BTreeMap::new();
        {
            let view = self.views.cluster();
            for older in self.rivals.get(name).into_iter().flatten() {
                for name in view.index.names_of_registry(&older.name).filter_map(|name| RegistryName::new(name).ok()) {
                    taken.insert(name, Taken { by: older.name.clone(), proven: older.proven });
                }
            }
        }
        if handle.taken.set(taken) {
            handle.requeue_all();
        }
    }
}
