//! One instance as Twinspan exports it.

use std::collections::BTreeMap;

use crate::model::InstanceAddr;

/// Tags in a fixed order, so that the same instance gives the same bytes.
pub type Tags = BTreeMap<String, String>;

/// What a record that Twinspan writes says. The network is always TCP: nothing else is exported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// The address that names it in keys and in status; the lowest of its addresses.
    pub addr: InstanceAddr,
    /// Its addresses with their schemes, in the order of the ports that were chosen. Exactly [`Instance::addr`] with an empty
    /// scheme, but for Kratos, where one record stands for every port of an IP.
    pub endpoints: Vec<(String, InstanceAddr)>,
    /// 1 to 10,000. Kitex readers turn 0 and less into their own default.
    pub weight: i64,
    pub tags: Tags,
}

impl Instance {
    /// One that listens on one address.
    pub fn single(addr: InstanceAddr, weight: i64, tags: Tags) -> Self {
        Self { addr, endpoints: vec![(String::new(), addr)], weight, tags }
    }

    pub fn addrs(&self) -> impl Iterator<Item = InstanceAddr> {
        self.endpoints.iter().map(|(_, addr)| *addr)
    }
}
