//! The pods of the cluster by their addresses.
//!
//! Owns the pods at each address, those whose readiness gate is closed, and the addresses of pods whose end was not
//! observed. Refuses to know which Service selects a pod.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use twinspan_core::model::{ObjectKey, PodView};

#[derive(Debug, Default)]
pub struct Pods {
    by_key: BTreeMap<ObjectKey, Arc<PodView>>,
    by_ip: BTreeMap<IpAddr, Vec<ObjectKey>>,
    /// The versions of the pods whose readiness gate is closed.
    waiting: BTreeMap<ObjectKey, Box<str>>,
    /// Addresses of pods that vanished in a re-list, until another pod has them; by their order, the oldest go beyond
    /// [`MAX_UNSEEN`].
    ended_unseen: BTreeMap<IpAddr, u64>,
    vanished: u64,
}

/// Addresses that are remembered after a pod vanished: more pods than a large cluster has.
const MAX_UNSEEN: u64 = 200_000;

impl Pods {
    /// The running pods with the address.
    pub fn at(&self, ip: IpAddr) -> impl Iterator<Item = &Arc<PodView>> {
        let keys = self.by_ip.get(&ip).into_iter().flatten();
        keys.filter_map(|key| self.by_key.get(key)).filter(|pod| !pod.ended)
    }

    pub fn keys(&self) -> BTreeSet<ObjectKey> {
        self.by_key.keys().cloned().collect()
    }

    /// True if the last pod with the address vanished in a re-list.
    pub fn ended_unseen(&self, ip: IpAddr) -> bool {
        self.ended_unseen.contains_key(&ip)
    }

    /// A pod whose readiness gate is closed, with its resourceVersion.
    pub fn waiting(&self, key: &ObjectKey) -> Option<(&Arc<PodView>, &str)> {
        Some((self.by_key.get(key)?, self.waiting.get(key)?))
    }

    /// Every pod whose readiness gate is closed.
    pub fn all_waiting(&self) -> impl Iterator<Item = &ObjectKey> {
        self.waiting.keys()
    }

    /// The pods of a namespace whose readiness gate is closed.
    pub fn waiting_in<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = &'a ObjectKey> {
        let here = self.waiting.range(ObjectKey::new(namespace, "")..);
        here.map(|(key, _)| key).take_while(move |key| key.namespace == namespace)
    }

    /// The addresses of the pods whose readiness gate is closed.
    pub fn addresses_waiting(&self) -> impl Iterator<Item = IpAddr> {
        self.waiting.keys().filter_map(|key| self.by_key.get(key)).flat_map(|pod| pod.ips.iter().copied())
    }

    /// Enters the version of a pod whose readiness gate is closed. Returns whether it was, or is.
    pub fn set_waiting(&mut self, key: &ObjectKey, version: &str) -> bool {
        let waits = self.by_key.get(key).is_some_and(|pod| pod.gate.as_ref().is_some_and(|gate| !gate.passed));
        if waits {
            self.waiting.insert(key.clone(), version.into());
            return true;
        }
        self.waiting.remove(key).is_some()
    }

    /// Enters a pod. Returns the affected addresses; none if the pod is unchanged.
    pub fn put(&mut self, key: ObjectKey, pod: PodView) -> Vec<IpAddr> {
        if self.by_key.get(&key).is_some_and(|known| **known == pod) {
            return Vec::new();
        }
        let mut affected = self.take(&key);
        for ip in &pod.ips {
            self.ended_unseen.remove(ip);
            self.by_ip.entry(*ip).or_default().push(key.clone());
            if !affected.contains(ip) {
                affected.push(*ip);
            }
        }
        self.by_key.insert(key, Arc::new(pod));
        affected
    }

    pub fn remove(&mut self, key: &ObjectKey) -> Vec<IpAddr> {
        self.waiting.remove(key);
        self.take(key)
    }

    fn take(&mut self, key: &ObjectKey) -> Vec<IpAddr> {
        let Some(pod) = self.by_key.remove(key) else { return Vec::new() };
        for ip in &pod.ips {
            if let Some(keys) = self.by_ip.get_mut(ip) {
                keys.retain(|known| known != key);
                if keys.is_empty() {
                    self.by_ip.remove(ip);
                }
            }
        }
        pod.ips.clone()
    }

    /// Removes a pod that a re-list does not name.
    pub fn vanish(&mut self, key: &ObjectKey) -> Vec<IpAddr> {
        let ips = self.remove(key);
        for ip in &ips {
            self.vanished += 1;
            self.ended_unseen.insert(*ip, self.vanished);
        }
        if self.ended_unseen.len() as u64 > MAX_UNSEEN {
            let newer = self.vanished - MAX_UNSEEN / 2;
            self.ended_unseen.retain(|_, order| *order > newer);
        }
        ips
    }
}

#[cfg(test)]
mod tests {
    use twinspan_core::model::ReadinessGate;

    use super::*;
    use crate::cluster::convert;

    fn pod(ip: &str, ended: bool) -> PodView {
        let mut pod = convert::pod(&Default::default());
        pod.ips = vec![ip.parse().unwrap()];
        pod.ended = ended;
        pod
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn pods_are_found_by_address_while_they_run() {
        let (a, b) = (ObjectKey::new("shop", "a"), ObjectKey::new("shop", "b"));
        let mut pods = Pods::default();
        assert_eq!(pods.put(a.clone(), pod("10.0.0.1", false)), [ip("10.0.0.1")]);
        assert!(pods.put(a.clone(), pod("10.0.0.1", false)).is_empty(), "nothing changed");
        assert_eq!(pods.put(b, pod("10.0.0.1", true)), [ip("10.0.0.1")]);
        assert_eq!(pods.at(ip("10.0.0.1")).count(), 1, "the other one has ended");
        assert_eq!(pods.put(a.clone(), pod("10.0.0.2", false)), [ip("10.0.0.1"), ip("10.0.0.2")]);
        assert_eq!(pods.at(ip("10.0.0.1")).count(), 0);
        assert_eq!(pods.remove(&a), [ip("10.0.0.2")]);
        assert_eq!(pods.at(ip("10.0.0.2")).count(), 0);
    }

    #[test]
    fn pods_with_a_closed_gate_are_known_with_their_version_until_it_opens() {
        let (a, b) = (ObjectKey::new("shop", "a"), ObjectKey::new("shop", "b"));
        let mut pods = Pods::default();
        let gated = |passed| PodView {
            gate: Some(Box::new(ReadinessGate { passed, ..ReadinessGate::default() })),
            ..pod("10.0.0.1", false)
        };
        pods.put(a.clone(), gated(false));
        pods.put(b.clone(), pod("10.0.0.2", false));
        assert!(pods.set_waiting(&a, "1") && !pods.set_waiting(&b, "1"));
        assert!(pods.put(a.clone(), gated(false)).is_empty(), "a version alone is no change of the pod");
        assert!(pods.set_waiting(&a, "2"));
        assert_eq!(pods.waiting(&a).map(|(_, version)| version), Some("2"));
        assert_eq!(pods.waiting_in("shop").collect::<Vec<_>>(), [&a]);
        assert_eq!(pods.waiting_in("sho").count(), 0);
        assert_eq!(pods.addresses_waiting().collect::<Vec<_>>(), [ip("10.0.0.1")]);
        pods.put(a.clone(), gated(true));
        assert!(pods.set_waiting(&a, "3") && pods.waiting(&a).is_none() && !pods.set_waiting(&a, "4"));
        pods.put(a.clone(), gated(false));
        pods.set_waiting(&a, "5");
        pods.remove(&a);
        assert_eq!(pods.all_waiting().count(), 0);
    }

    #[test]
    fn a_pod_that_vanished_ended_unseen_until_another_has_its_address() {
        let (a, b) = (ObjectKey::new("shop", "a"), ObjectKey::new("shop", "b"));
        let mut pods = Pods::default();
        pods.put(a.clone(), pod("10.0.0.1", false));
        pods.put(b.clone(), pod("10.0.0.2", false));
        pods.vanish(&a);
        pods.remove(&b);
        assert!(pods.ended_unseen(ip("10.0.0.1")) && !pods.ended_unseen(ip("10.0.0.2")));
        pods.put(b.clone(), pod("10.0.0.1", false));
        assert!(!pods.ended_unseen(ip("10.0.0.1")));
        pods.remove(&b);
        assert!(!pods.ended_unseen(ip("10.0.0.1")), "that one was seen to end");
    }
}
