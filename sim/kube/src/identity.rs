//! The values that an API server makes up: UIDs, name suffixes, ClusterIPs.
//!
//! Owns their order, which is the same in every run; none is given twice, not even after a restore. Refuses chance.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};

/// The characters of generated names (`k8s.io/apimachinery/pkg/util/rand`).
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
const SUFFIX: usize = 5;

#[derive(Clone, Debug, Default)]
pub struct Identities {
    uids: u64,
    names: u64,
    addresses: u32,
}

impl Identities {
    pub fn uid(&mut self) -> String {
        self.uids += 1;
        format!("5eed0000-0000-4000-8000-{:012x}", self.uids)
    }

    /// The name after a `generateName`.
    pub fn name(&mut self, begin: &str) -> String {
        self.names += 1;
        let (mut rest, base) = (self.names, ALPHABET.len() as u64);
        let mut suffix = String::new();
        for _ in 0..SUFFIX {
            let digit = usize::try_from(rest % base).unwrap_or_default();
            suffix.push(char::from(ALPHABET[digit]));
            rest /= base;
        }
        format!("{begin}{suffix}")
    }

    /// The next ClusterIP of a family that nothing has.
    pub fn cluster_ip(&mut self, family: &str, taken: &BTreeSet<String>) -> String {
        loop {
            self.addresses += 1;
            let number = self.addresses % 0xfff0 + 10;
            let address = if family == "IPv6" {
                Ipv6Addr::from(0xfd96_u128 << 112 | u128::from(number)).to_string()
            } else {
                Ipv4Addr::from(0x0a60_0000 | number).to_string()
            };
            if !taken.contains(&address) {
                return address;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_given_twice() {
        let mut identities = Identities::default();
        let mut seen = BTreeSet::new();
        for _ in 0..1000 {
            assert!(seen.insert(identities.uid()));
            assert!(seen.insert(identities.name("a-")));
            let address = identities.cluster_ip("IPv4", &seen);
            assert!(address.starts_with("10.96."));
            assert!(seen.insert(address));
        }
        assert_eq!(identities.name("b-").len(), 7);
        assert!(identities.cluster_ip("IPv6", &seen).starts_with("fd96::"));
    }
}
