//! One instance as Twinspan exports it.
//!
//! Owns its addresses, weight and tags. Refuses to know the bytes and the key of its record ([`crate::codec`]).

use std::sync::Arc;

use litemap::LiteMap;

use crate::model::InstanceAddr;

/// Tags in the order of their names, so that the same instance gives the same bytes.
pub type Tags = LiteMap<String, String>;

/// The content of a record that Twinspan writes. The network is always TCP: Twinspan exports nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// The address that names it in keys and in status; the lowest of its addresses.
    pub addr: InstanceAddr,
    /// Its addresses with their schemes, in the order of the chosen ports. Formats with schemes (Kratos) have one for
    /// each port of an IP; the others have exactly [`Instance::addr`], with an empty scheme.
    pub endpoints: Vec<(String, InstanceAddr)>,
    /// 1 to 10,000 for a pod; an address that leads to several has their sum or its share. Kitex readers turn 0 and
    /// less into 10 (`defaultWeight` in `etcd_resolver.go` of registry-etcd).
    pub weight: i64,
    /// Shared among the instances of a service, most of which have the same.
    pub tags: Arc<Tags>,
}

impl Instance {
    /// One that listens on one address.
    pub fn single(addr: InstanceAddr, weight: i64, tags: Tags) -> Self {
        Self { addr, endpoints: vec![(String::new(), addr)], weight, tags: Arc::new(tags) }
    }

    pub fn addresses(&self) -> impl Iterator<Item = InstanceAddr> {
        self.endpoints.iter().map(|(_, addr)| *addr)
    }
}
