//! Sets of networks: Service ranges, pod ranges, allow and deny lists.
//!
//! Owns membership of an address in many networks. Refuses to know what a set allows or denies.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;

/// A network without host bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cidr(IpNet);

impl Cidr {
    /// `10.0.0.0/8` or `fd00::/8`; host bits are ignored. A network of IPv4-mapped addresses is none: no address that
    /// is asked for is of that form, so that it would say nothing of those that it means.
    pub fn parse(text: &str) -> Option<Self> {
        let net = text.parse::<IpNet>().ok()?.trunc();
        let is_mapped = |ip: Ipv6Addr| ip.to_ipv4_mapped().is_some();
        let mapped = matches!(net, IpNet::V6(v6) if is_mapped(v6.network()) && is_mapped(v6.broadcast()));
        (!mapped).then_some(Self(net))
    }

    /// First and last address.
    pub fn range(&self) -> (IpAddr, IpAddr) {
        (self.0.network(), self.0.broadcast())
    }

    fn length(&self) -> (bool, u8) {
        (self.0.addr().is_ipv4(), self.0.prefix_len())
    }
}

/// Many networks. A query costs one lookup for each prefix length that occurs, not one for each network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CidrSet {
    by_length: BTreeMap<(bool, u8), BTreeSet<IpNet>>,
}

impl CidrSet {
    /// Adds `10.0.0.0/8` or `fd00::/8`; host bits are ignored. Returns whether the text is a network.
    pub fn insert(&mut self, text: &str) -> bool {
        let Some(net) = Cidr::parse(text) else { return false };
        self.add(net);
        true
    }

    pub fn add(&mut self, net: Cidr) {
        self.by_length.entry(net.length()).or_default().insert(net.0);
    }

    pub fn remove(&mut self, net: Cidr) {
        if let Some(nets) = self.by_length.get_mut(&net.length()) {
            nets.remove(&net.0);
            if nets.is_empty() {
                self.by_length.remove(&net.length());
            }
        }
    }

    pub fn extend(&mut self, other: &Self) {
        for (length, nets) in &other.by_length {
            self.by_length.entry(*length).or_default().extend(nets);
        }
    }

    pub fn contains(&self, ip: IpAddr) -> bool {
        self.by_length.iter().any(|((v4, length), nets)| {
            *v4 == ip.is_ipv4() && IpNet::new(ip, *length).is_ok_and(|net| nets.contains(&net.trunc()))
        })
    }

    pub fn is_empty(&self) -> bool {
        self.by_length.is_empty()
    }

    /// First and last address of each network.
    pub fn ranges(&self) -> impl Iterator<Item = (IpAddr, IpAddr)> {
        self.by_length.values().flatten().map(|net| (net.network(), net.broadcast()))
    }
}

impl<'a> FromIterator<&'a str> for CidrSet {
    fn from_iter<T: IntoIterator<Item = &'a str>>(texts: T) -> Self {
        let mut set = Self::default();
        for text in texts {
            set.insert(text);
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_in_the_networks_of_its_family_that_hold_it() {
        let set: CidrSet =
            ["10.96.0.0/16", "10.0.0.7/32", "fd96::/108", "nonsense", "192.0.2.9/24"].into_iter().collect();
        for (ip, inside) in [
            ("10.96.255.255", true),
            ("10.97.0.0", false),
            ("10.0.0.7", true),
            ("10.0.0.8", false),
            ("fd96::1", true),
            ("fd96::1:0:0:1", false),
            ("192.0.2.1", true),
            ("::10.96.0.1", false),
        ] {
            assert_eq!(set.contains(ip.parse().unwrap()), inside, "{ip}");
        }
        assert!(!CidrSet::default().contains([10, 0, 0, 1].into()));
        assert_eq!(Cidr::parse("::ffff:10.96.0.0/112"), None);
        assert!(Cidr::parse("::/0").is_some());
        let mut ranges: Vec<String> = set.ranges().map(|(a, b)| format!("{a}-{b}")).collect();
        ranges.sort();
        assert_eq!(ranges[0], "10.0.0.7-10.0.0.7");
        assert_eq!(ranges[1], "10.96.0.0-10.96.255.255");
        let (mut less, net) = (set, Cidr::parse("10.0.0.7/32").unwrap());
        less.remove(net);
        less.remove(net);
        assert!(!less.contains([10, 0, 0, 7].into()) && less.contains([10, 96, 0, 1].into()));
    }
}
