//! The interest in addresses: RegisteredServices by the addresses that their last pass looked at.
//!
//! Owns the RegisteredServices that a changed pod, Node or Service range affects. A pass registers its addresses under
//! the same lock under which it reads the pods, so that no change is lost in between. Refuses to know why an address
//! matters.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use twinspan_core::model::ServiceKey;

/// One entry for each address of each RegisteredService: nearly every address has one alone, for which a set of its
/// own would take ten times the memory.
#[derive(Debug, Default)]
pub struct AddressInterest {
    by_ip: BTreeSet<(IpAddr, Arc<ServiceKey>)>,
    /// In order.
    of: BTreeMap<Arc<ServiceKey>, Box<[IpAddr]>>,
    /// RegisteredServices that are gone and still look at something: no object says which Service is theirs.
    gone: BTreeSet<ServiceKey>,
}

impl AddressInterest {
    /// Sets the addresses that a RegisteredService looks at now; an empty set removes it.
    pub fn set(&mut self, key: &ServiceKey, ips: &BTreeSet<IpAddr>) {
        let (key, before) = self.of.remove_entry(key).unwrap_or_else(|| (Arc::new(key.clone()), Box::default()));
        for ip in before.iter().filter(|ip| !ips.contains(ip)) {
            self.by_ip.remove(&(*ip, key.clone()));
        }
        for ip in ips.iter().filter(|ip| before.binary_search(ip).is_err()) {
            self.by_ip.insert((*ip, key.clone()));
        }
        if ips.is_empty() {
            self.gone.remove(&*key);
        } else {
            self.of.insert(key, ips.iter().copied().collect());
        }
    }

    /// The same for a RegisteredService that is gone, or is there again.
    pub fn set_gone(&mut self, key: &ServiceKey, gone: bool) {
        if gone && self.of.contains_key(key) {
            self.gone.insert(key.clone());
        } else {
            self.gone.remove(key);
        }
    }

    /// RegisteredServices that are gone, any of which a slice of the namespace may concern.
    pub fn gone_in<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = &'a ServiceKey> {
        let here = self.gone.range(ServiceKey::new(namespace, "")..);
        here.take_while(move |key| key.namespace == namespace)
    }

    pub fn of_ip(&self, ip: IpAddr) -> impl Iterator<Item = &ServiceKey> {
        self.entries(ip, ip)
    }

    /// RegisteredServices that look at an address from the first to the last, both included.
    pub fn of_range(&self, first: IpAddr, last: IpAddr) -> BTreeSet<&ServiceKey> {
        self.entries(first, last).collect()
    }

    fn entries(&self, first: IpAddr, last: IpAddr) -> impl Iterator<Item = &ServiceKey> {
        // No key is less than the one without a name.
        let from = (first, Arc::new(ServiceKey::new("", "")));
        self.by_ip.range(from..).take_while(move |(ip, _)| *ip <= last).map(|(_, key)| &**key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_finds_the_services_that_look_at_it_now() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let ips = |texts: &[&str]| texts.iter().map(|t| ip(t)).collect::<BTreeSet<_>>();
        let (a, b) = (ServiceKey::new("shop", "a"), ServiceKey::new("shop", "b"));
        let mut index = AddressInterest::default();
        index.set(&a, &ips(&["10.0.0.1", "10.0.0.2", "fd77::1"]));
        index.set(&b, &ips(&["10.0.0.2"]));
        assert_eq!(index.of_ip(ip("10.0.0.2")).collect::<Vec<_>>(), [&a, &b]);
        assert_eq!(index.of_range(ip("10.0.0.2"), ip("10.0.0.255")), BTreeSet::from([&a, &b]));
        assert_eq!(index.of_range(ip("fd77::"), ip("fd77::ffff")), BTreeSet::from([&a]));
        index.set(&a, &ips(&["10.0.0.3"]));
        assert_eq!(index.of_ip(ip("10.0.0.2")).collect::<Vec<_>>(), [&b]);
        index.set_gone(&b, true);
        assert_eq!(index.gone_in("shop").collect::<Vec<_>>(), [&b]);
        assert_eq!(index.gone_in("sho").count(), 0);
        index.set(&a, &BTreeSet::new());
        index.set(&b, &BTreeSet::new());
        assert!(index.by_ip.is_empty() && index.of.is_empty() && index.gone.is_empty());
    }
}
