//! The view of the cluster: the in-memory picture of what matters.
//!
//! Owns what is known and which kinds are complete. Unknown is not empty: nothing may follow from what is not here until every
//! kind has been listed once ([`ClusterView::waiting_for`]). Refuses to do I/O.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use twinspan_core::model::{ServiceKey, Slice};

use super::convert::{NamespaceView, SecretView, ServiceView};
use super::index::Index;
use crate::api::{RegisteredService, ServiceRegistry};

/// The kinds that are watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    RegisteredService,
    ServiceRegistry,
    Service,
    EndpointSlice,
    Namespace,
    Secret,
}

impl Kind {
    pub const ALL: [Self; 6] = [
        Self::RegisteredService,
        Self::ServiceRegistry,
        Self::Service,
        Self::EndpointSlice,
        Self::Namespace,
        Self::Secret,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::RegisteredService => "RegisteredService",
            Self::ServiceRegistry => "ServiceRegistry",
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
            Self::Namespace => "Namespace",
            Self::Secret => "Secret",
        }
    }
}

/// Something changed that somebody has to look after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClusterEvent {
    RegisteredService(ServiceKey),
    ServiceRegistry(String),
    /// The Service, or a slice that names it.
    Service(ServiceKey),
    Namespace(String),
    Secret,
    /// A kind has been listed completely for the first time.
    Listed(Kind),
}

/// A namespace and a name; cluster-scoped objects have an empty namespace.
pub type ObjectKey = ServiceKey;

#[derive(Debug, Default)]
pub struct ClusterView {
    listed: BTreeSet<Kind>,
    pub registered_services: BTreeMap<ServiceKey, Arc<RegisteredService>>,
    pub service_registries: BTreeMap<String, Arc<ServiceRegistry>>,
    pub services: BTreeMap<ServiceKey, Arc<ServiceView>>,
    pub namespaces: BTreeMap<String, Arc<NamespaceView>>,
    /// Of the operator's own namespace.
    pub secrets: BTreeMap<ObjectKey, Arc<SecretView>>,
    slices: BTreeMap<ObjectKey, Arc<Slice>>,
    slices_by_service: BTreeMap<ServiceKey, BTreeSet<String>>,
    slices_by_owner: BTreeMap<String, BTreeSet<ObjectKey>>,
    pub index: Index,
}

impl ClusterView {
    /// The kinds that have not been listed completely yet.
    pub fn waiting_for(&self) -> Vec<Kind> {
        Kind::ALL.into_iter().filter(|kind| !self.listed.contains(kind)).collect()
    }

    /// Whether this is the first time.
    pub fn set_listed(&mut self, kind: Kind) -> bool {
        self.listed.insert(kind)
    }

    /// The ID that this cluster has where nobody chooses one (design: the UID of kube-system).
    pub fn cluster_uid(&self) -> Option<&str> {
        self.namespaces.get("kube-system").map(|namespace| namespace.uid.as_str())
    }

    pub fn slices_of_service(&self, service: &ServiceKey) -> Vec<Arc<Slice>> {
        let names = self.slices_by_service.get(service).into_iter().flatten();
        names.filter_map(|name| self.slices.get(&ObjectKey::new(&service.namespace, name)).cloned()).collect()
    }

    /// Slices that name the RegisteredService as their owner.
    pub fn slices_of_owner(&self, uid: &str) -> Vec<Arc<Slice>> {
        let keys = self.slices_by_owner.get(uid).into_iter().flatten();
        keys.filter_map(|key| self.slices.get(key).cloned()).collect()
    }

    pub fn slice_keys(&self) -> BTreeSet<ObjectKey> {
        self.slices.keys().cloned().collect()
    }

    /// A slice as the API server has it. Only versions newer than the one that is known count: our own writes are
    /// entered from their answers, and the watch may lag behind them (resourceVersions of one kind are ordered, KEP-5504).
    /// Returns the Services that are concerned.
    pub fn put_slice(&mut self, namespace: &str, slice: Slice) -> Vec<ServiceKey> {
        let key = ObjectKey::new(namespace, &slice.name);
        if self.slices.get(&key).is_some_and(|known| !is_newer(&slice.resource_version, &known.resource_version)) {
            return Vec::new();
        }
        let mut concerned = self.remove_slice(&key);
        if let Some(service) = &slice.service {
            let service = ServiceKey::new(namespace, service);
            self.slices_by_service.entry(service.clone()).or_default().insert(slice.name.clone());
            if !concerned.contains(&service) {
                concerned.push(service);
            }
        }
        if let Some(uid) = &slice.owner_uid {
            self.slices_by_owner.entry(uid.clone()).or_default().insert(key.clone());
        }
        self.slices.insert(key, Arc::new(slice));
        concerned
    }

    /// A delete of ours was accepted: the slice no longer counts, and the watch will say when it is gone.
    pub fn slice_deleting(&mut self, key: &ObjectKey) {
        if let Some(slice) = self.slices.get_mut(key) {
            Arc::make_mut(slice).deleting = true;
        }
    }

    pub fn remove_slice(&mut self, key: &ObjectKey) -> Vec<ServiceKey> {
        let Some(slice) = self.slices.remove(key) else { return Vec::new() };
        if let Some(uid) = &slice.owner_uid
            && let Some(keys) = self.slices_by_owner.get_mut(uid)
        {
            keys.remove(key);
            if keys.is_empty() {
                self.slices_by_owner.remove(uid);
            }
        }
        let Some(service) = slice.service.as_ref().map(|name| ServiceKey::new(&key.namespace, name)) else {
            return Vec::new();
        };
        if let Some(names) = self.slices_by_service.get_mut(&service) {
            names.remove(&slice.name);
            if names.is_empty() {
                self.slices_by_service.remove(&service);
            }
        }
        vec![service]
    }
}

fn is_newer(incoming: &str, known: &str) -> bool {
    match (incoming.parse::<u64>(), known.parse::<u64>()) {
        (Ok(incoming), Ok(known)) => incoming > known,
        // Not comparable: believe the API server.
        _ => incoming != known,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use twinspan_core::model::{AddressType, Family};

    fn slice(name: &str, version: &str, service: Option<&str>, owner: Option<&str>) -> Slice {
        Slice {
            name: name.into(),
            resource_version: version.into(),
            service: service.map(Into::into),
            managed_by: None,
            owner_uid: owner.map(Into::into),
            deleting: false,
            address_type: AddressType::Ip(Family::V4),
            ports: Vec::new(),
            endpoints: Vec::new(),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
        }
    }

    fn service(name: &str) -> ServiceKey {
        ServiceKey::new("shop", name)
    }

    #[test]
    fn an_older_version_never_replaces_what_our_own_write_was_answered_with() {
        let mut view = ClusterView::default();
        view.put_slice("shop", slice("s", "10", Some("echo"), Some("uid")));
        assert_eq!(view.put_slice("shop", slice("s", "9", Some("other"), None)), []);
        assert_eq!(view.slices_of_service(&service("echo")).len(), 1);
        assert_eq!(view.slices_of_owner("uid")[0].resource_version, "10");
    }

    #[test]
    fn a_slice_that_changes_its_service_concerns_both() {
        let mut view = ClusterView::default();
        view.put_slice("shop", slice("s", "1", Some("a"), None));
        assert_eq!(view.put_slice("shop", slice("s", "2", Some("b"), None)), [service("a"), service("b")]);
        assert_eq!(view.slices_of_service(&service("a")), []);
        assert_eq!(view.remove_slice(&ObjectKey::new("shop", "s")), [service("b")]);
        assert_eq!(view.slices_of_service(&service("b")), []);
    }

    #[test]
    fn nothing_is_complete_until_every_kind_was_listed() {
        let mut view = ClusterView::default();
        assert_eq!(view.waiting_for().len(), Kind::ALL.len());
        for kind in Kind::ALL {
            assert!(view.set_listed(kind));
        }
        assert_eq!(view.waiting_for(), []);
        assert!(!view.set_listed(Kind::Service));
    }
}
