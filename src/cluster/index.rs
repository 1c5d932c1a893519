//! The index of RegisteredServices by the objects that their specs name.
//!
//! Owns the mapping from a changed object to the RegisteredServices that must be reconciled, so that work is
//! proportional to the change. Refuses to know the objects themselves, which [`super::view`] holds.

use std::collections::{BTreeMap, BTreeSet};

use twinspan_core::model::{Precedence, ServiceKey};

use super::groups::Groups;
use crate::api::discovered::discovered_by;
use crate::api::{ExportAddress, RegisteredService, precedence};

/// The order of RegisteredServices that share a name: the ones that wait for a finalizer are last.
type Turn = (bool, Precedence);

/// The references of a RegisteredService.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Refers {
    registry: String,
    /// The name in keys.
    registry_name: String,
    service: ServiceKey,
    /// The Service of the imports, where they have one of their own.
    import_service: Option<ServiceKey>,
    uid: String,
    turn: Turn,
}

impl Refers {
    fn services(&self) -> impl Iterator<Item = &ServiceKey> {
        [&self.service].into_iter().chain(&self.import_service)
    }
}

#[derive(Debug, Default)]
pub struct Index {
    known: BTreeMap<ServiceKey, Refers>,
    by_service: Groups<ServiceKey, ServiceKey>,
    /// By name.
    by_registry: BTreeMap<String, Groups<String, Turn>>,
    by_uid: BTreeMap<String, ServiceKey>,
    /// Those whose exports have addresses of Nodes.
    by_node_addresses: BTreeSet<ServiceKey>,
    /// The ones that discovery made.
    discovered: BTreeSet<ServiceKey>,
}

impl Index {
    pub fn put(&mut self, key: &ServiceKey, object: &RegisteredService) {
        self.remove(key);
        let refers = Refers {
            registry: object.spec.registry_ref.name.clone(),
            registry_name: object.registry_name(),
            service: object.service_key(),
            import_service: Some(object.import_service_key()).filter(|service| *service != object.service_key()),
            uid: object.metadata.uid.clone().unwrap_or_default(),
            turn: (object.metadata.deletion_timestamp.is_some(), precedence(object)),
        };
        for service in refers.services() {
            self.by_service.insert(service.clone(), key.clone());
        }
        let names = self.by_registry.entry(refers.registry.clone()).or_default();
        names.insert(refers.registry_name.clone(), refers.turn.clone());
        self.by_uid.insert(refers.uid.clone(), key.clone());
        if object.spec.export.address == ExportAddress::Node {
            self.by_node_addresses.insert(key.clone());
        }
        if discovered_by(object).is_some() {
            self.discovered.insert(key.clone());
        }
        self.known.insert(key.clone(), refers);
    }

    pub fn remove(&mut self, key: &ServiceKey) {
        let Some(refers) = self.known.remove(key) else { return };
        for service in refers.services() {
            self.by_service.remove(service, key);
        }
        if let Some(names) = self.by_registry.get_mut(&refers.registry) {
            names.remove(&refers.registry_name, &refers.turn);
            if names.is_empty() {
                self.by_registry.remove(&refers.registry);
            }
        }
        self.by_uid.remove(&refers.uid);
        self.by_node_addresses.remove(key);
        self.discovered.remove(key);
    }

    /// RegisteredServices that discovery made, of whichever ServiceRegistry.
    pub fn discovered(&self) -> impl Iterator<Item = &ServiceKey> {
        self.discovered.iter()
    }

    /// RegisteredServices whose exports have addresses of Nodes.
    pub fn by_node_addresses(&self) -> impl Iterator<Item = &ServiceKey> {
        self.by_node_addresses.iter()
    }

    pub fn of_service(&self, service: &ServiceKey) -> impl Iterator<Item = &ServiceKey> {
        self.by_service.of(service)
    }

    pub fn of_registry(&self, registry: &str) -> impl Iterator<Item = &ServiceKey> {
        self.by_registry.get(registry).into_iter().flat_map(Groups::values).map(|(_, turn)| turn.key())
    }

    /// The registry that a RegisteredService refers to, and its name there.
    pub fn registry_and_name(&self, key: &ServiceKey) -> Option<(String, String)> {
        self.known.get(key).map(|refers| (refers.registry.clone(), refers.registry_name.clone()))
    }

    /// The names of RegisteredServices in a registry.
    pub fn names_of_registry(&self, registry: &str) -> impl Iterator<Item = &String> {
        self.by_registry.get(registry).into_iter().flat_map(Groups::keys)
    }

    /// RegisteredServices by a name from keys.
    pub fn of_name(&self, registry: &str, name: &[u8]) -> impl Iterator<Item = &ServiceKey> {
        self.turns(registry, name).map(|(_, turn)| turn.key())
    }

    fn turns(&self, registry: &str, name: &[u8]) -> impl Iterator<Item = &Turn> {
        let found = std::str::from_utf8(name).ok().and_then(|name| Some((self.by_registry.get(registry)?, name)));
        found.into_iter().flat_map(|(names, name)| names.of(name))
    }

    /// So many of the RegisteredServices of a name that wait for no finalizer, in the order of their precedence.
    pub fn first_of_name(&self, registry: &str, name: &[u8], most: usize) -> impl Iterator<Item = &ServiceKey> {
        self.turns(registry, name).take_while(|(waits, _)| !waits).map(|(_, turn)| turn.key()).take(most)
    }

    /// Whether so many RegisteredServices that precede it share its name.
    pub fn is_preceded(&self, key: &ServiceKey, least: usize) -> bool {
        let Some(refers) = self.known.get(key) else { return false };
        let all = self.turns(&refers.registry, refers.registry_name.as_bytes());
        all.take_while(|turn| **turn < refers.turn).take(least).count() >= least
    }

    /// RegisteredServices of a name, and the ones that share a Service with one of them.
    pub fn around_name(&self, registry: &str, name: &[u8]) -> BTreeSet<ServiceKey> {
        let named = self.of_name(registry, name).filter_map(|key| self.known.get(key));
        let services: BTreeSet<&ServiceKey> = named.flat_map(Refers::services).collect();
        let by_service = services.into_iter().flat_map(|service| self.of_service(service));
        self.of_name(registry, name).chain(by_service).cloned().collect()
    }

    pub fn of_namespace<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = &'a ServiceKey> {
        let first = ServiceKey::new(namespace, "");
        self.known.range(first..).map(|(key, _)| key).take_while(move |key| key.namespace == namespace)
    }

    /// RegisteredServices that share its registry name or its Service: a change of one affects the others.
    pub fn siblings(&self, key: &ServiceKey) -> BTreeSet<ServiceKey> {
        let Some(refers) = self.known.get(key) else { return BTreeSet::new() };
        let by_name = self.of_name(&refers.registry, refers.registry_name.as_bytes());
        let by_service = refers.services().flat_map(|service| self.of_service(service));
        by_name.chain(by_service).filter(|sibling| *sibling != key).cloned().collect()
    }

    pub fn of_uid(&self, uid: &str) -> Option<&ServiceKey> {
        self.by_uid.get(uid)
    }

    pub fn all(&self) -> impl Iterator<Item = &ServiceKey> {
        self.known.keys()
    }
}

#[cfg(test)]
mod tests {
    use kube::ResourceExt;

    use super::*;
    use crate::api::discovered::DISCOVERED_BY;

    fn object(key: &ServiceKey, registry: &str, name: &str, service: Option<&str>, uid: &str) -> RegisteredService {
        serde_json::from_value(serde_json::json!({
            "apiVersion": "twinspan.dev/v1alpha1", "kind": "RegisteredService",
            "metadata": {"name": key.name, "namespace": key.namespace, "uid": uid},
            "spec": {"registryRef": {"name": registry}, "registryName": name, "service": {"name": service}}
        }))
        .unwrap()
    }

    #[test]
    fn a_name_knows_its_first_and_one_that_waits_for_a_finalizer_is_none_of_them() {
        let mut index = Index::default();
        let keys: Vec<ServiceKey> = ["c", "b", "a"].map(|name| ServiceKey::new("shop", name)).into();
        for (day, key) in keys.iter().enumerate() {
            let mut object = object(key, "main", "echo", None, &key.name);
            let made = format!("2026-01-0{}T00:00:00Z", day + 1);
            object.metadata.creation_timestamp = serde_json::from_value(serde_json::json!(made)).unwrap();
            index.put(key, &object);
        }
        let first = |index: &Index| index.first_of_name("main", b"echo", 2).cloned().collect::<Vec<_>>();
        assert_eq!(first(&index), keys[..2]);
        assert!(index.is_preceded(&keys[2], 2) && !index.is_preceded(&keys[1], 2));
        let mut waits = object(&keys[0], "main", "echo", None, "c");
        waits.metadata.deletion_timestamp = serde_json::from_value(serde_json::json!("2026-01-09T00:00:00Z")).unwrap();
        index.put(&keys[0], &waits);
        assert_eq!(first(&index), keys[1..]);
        assert!(!index.is_preceded(&keys[2], 2));
        // One that discovery made gives way to a younger one that a person wrote.
        let mut discovered = object(&keys[1], "main", "echo", None, "b");
        discovered.metadata.creation_timestamp =
            serde_json::from_value(serde_json::json!("2026-01-02T00:00:00Z")).unwrap();
        discovered.labels_mut().insert(DISCOVERED_BY.to_owned(), String::new());
        index.put(&keys[1], &discovered);
        assert_eq!(first(&index), [keys[2].clone(), keys[1].clone()]);
        assert!(index.is_preceded(&keys[1], 1) && !index.is_preceded(&keys[2], 1));
        assert_eq!(index.around_name("main", b"echo"), keys.into_iter().collect());
    }

    #[test]
    fn a_change_finds_exactly_those_that_refer_to_it_and_an_old_reference_is_forgotten() {
        let mut index = Index::default();
        let (a, b) = (ServiceKey::new("shop", "a"), ServiceKey::new("shop", "b"));
        index.put(&a, &object(&a, "main", "echo", Some("svc"), "1"));
        index.put(&b, &object(&b, "main", "user", None, "2"));
        let found = |keys: &mut dyn Iterator<Item = &ServiceKey>| keys.map(|k| k.name.clone()).collect::<Vec<_>>();
        assert_eq!(found(&mut index.of_service(&ServiceKey::new("shop", "svc"))), ["a"]);
        assert_eq!(found(&mut index.of_service(&b)), ["b"], "the name of the Service defaults to metadata.name");
        assert_eq!(found(&mut index.of_name("main", b"echo")), ["a"]);
        assert_eq!(found(&mut index.of_registry("main")), ["a", "b"]);
        assert_eq!(found(&mut index.of_namespace("shop")), ["a", "b"]);
        assert_eq!(found(&mut index.of_namespace("sho")), Vec::<String>::new());
        assert_eq!(index.of_uid("2"), Some(&b));
        assert_eq!(index.siblings(&a), BTreeSet::new());
        index.put(&b, &object(&b, "main", "echo", None, "2"));
        assert_eq!(index.siblings(&a), BTreeSet::from([b.clone()]), "one name");
        index.put(&b, &object(&b, "third", "user", Some("svc"), "2"));
        assert_eq!(index.siblings(&a), BTreeSet::from([b.clone()]), "one Service");
        index.put(&b, &object(&b, "main", "user", None, "2"));

        index.put(&a, &object(&a, "other", "echo", Some("svc"), "1"));
        assert_eq!(found(&mut index.of_name("main", b"echo")), Vec::<String>::new());
        assert_eq!(found(&mut index.of_name("other", b"echo")), ["a"]);
        index.remove(&a);
        assert_eq!(found(&mut index.of_service(&ServiceKey::new("shop", "svc"))), Vec::<String>::new());
        assert_eq!(index.of_uid("1"), None);
    }
}
