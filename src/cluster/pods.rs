//! The pods of the cluster by their addresses.
//!
//! Owns the pods at each address, and the addresses of pods whose end was not observed. Refuses to know which Service
//! selects a pod.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use twinspan_core::model::{ObjectKey, PodView};

#[derive(Debug, Default)]
pub struct Pods {
    by_key: BTreeMap<ObjectKey, Arc<PodView>>,
    by_ip: BTreeMap<IpAddr, Vec<ObjectKey>>,
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

    /// Enters a pod. Returns the affected addresses; none if the pod is unchanged.
    pub fn put(&mut self, key: ObjectKey, pod: PodView) -> Vec<IpAddr> {
        if self.by_key.get(&key).is_some_and(|known| **known == pod) {
            return Vec::new();
        }
        let mut affected = self.remove(&key);
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
