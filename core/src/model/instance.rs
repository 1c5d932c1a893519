//! One reachable `ip:port` as Twinspan exports it.

use std::collections::BTreeMap;

use crate::model::InstanceAddr;

/// Tags in a fixed order, so that the same instance gives the same bytes.
pub type Tags = BTreeMap<String, String>;

/// What a record that Twinspan writes says. The network is always TCP: nothing else is exported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    pub addr: InstanceAddr,
    /// 1 to 10,000. Kitex readers turn 0 and less into their own default.
    pub weight: i64,
    pub tags: Tags,
}
