//! The Services of the cluster, by name and by the RegisteredService that they were created for.
//!
//! Owns both indexes, so that a pass finds its own Services without a look at the others of the namespace. Refuses to
//! know ports and addresses.

use std::collections::BTreeMap;
use std::sync::Arc;

use twinspan_core::model::{ServiceKey, ServiceView};

use super::groups::Groups;

#[derive(Debug, Default)]
pub struct Services {
    by_key: BTreeMap<ServiceKey, Arc<ServiceView>>,
    /// By the UID of the RegisteredService.
    by_owner: Groups<String, ServiceKey>,
}

impl Services {
    pub fn get(&self, key: &ServiceKey) -> Option<&Arc<ServiceView>> {
        self.by_key.get(key)
    }

    pub fn keys(&self) -> impl Iterator<Item = &ServiceKey> {
        self.by_key.keys()
    }

    /// Every Service, in order.
    pub fn all(&self) -> impl Iterator<Item = (&ServiceKey, &Arc<ServiceView>)> {
        self.by_key.iter()
    }

    pub fn of_namespace<'a>(
        &'a self,
        namespace: &'a str,
    ) -> impl Iterator<Item = (&'a ServiceKey, &'a Arc<ServiceView>)> {
        let here = self.by_key.range(ServiceKey::new(namespace, "")..);
        here.take_while(move |(key, _)| key.namespace == namespace)
    }

    pub fn put(&mut self, key: ServiceKey, service: ServiceView) {
        self.remove(&key);
        if let Some(owner) = &service.owner_uid {
            self.by_owner.insert(owner.clone(), key.clone());
        }
        self.by_key.insert(key, Arc::new(service));
    }

    pub fn remove(&mut self, key: &ServiceKey) {
        let Some(owner) = self.by_key.remove(key).and_then(|service| service.owner_uid.clone()) else { return };
        self.by_owner.remove(&owner, key);
    }

    /// The Services of a namespace that were created for a RegisteredService.
    pub fn of_owner(&self, namespace: &str, uid: &str) -> Vec<Arc<ServiceView>> {
        let keys = self.by_owner.of(uid).filter(|key| key.namespace == namespace);
        keys.filter_map(|key| self.by_key.get(key)).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::convert;

    #[test]
    fn services_are_found_by_the_registered_service_that_they_were_created_for() {
        let service = |owner: Option<&str>| ServiceView {
            owner_uid: owner.map(ToOwned::to_owned),
            ..convert::service(&Default::default())
        };
        let key = |name: &str| ServiceKey::new("shop", name);
        let mut services = Services::default();
        services.put(key("a"), service(Some("uid-1")));
        services.put(key("b"), service(None));
        services.put(ServiceKey::new("other", "a"), service(Some("uid-1")));
        assert_eq!(services.of_owner("shop", "uid-1").len(), 1);
        services.put(key("b"), service(Some("uid-1")));
        assert_eq!(services.of_owner("shop", "uid-1").len(), 2);
        services.put(key("a"), service(Some("uid-2")));
        services.remove(&key("b"));
        services.remove(&key("b"));
        assert!(services.of_owner("shop", "uid-1").is_empty() && services.get(&key("b")).is_none());
        assert_eq!((services.of_owner("shop", "uid-2").len(), services.by_owner.keys().count()), (1, 2));
    }
}
