//! Risks of a Service that has pods and imports beside each other, for clients in the cluster that read its slices.
//!
//! Owns the names of the risks and the rule about which there are. Refuses to know which clients there are, and the
//! words for people.

use std::collections::BTreeSet;

/// A risk. Displayed in CamelCase, as the API conventions require of reasons.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Risk {
    /// Pods and imports are in different slices, and a client that keeps one misses instances.
    SecondSlice,
    /// Imports listen on other ports, and a client that calls every address at the pods' port does not reach them.
    PortDiffers,
}

/// The risks, by the ports of the pods and those of the imports.
pub fn risks(is_apart: bool, pods: &BTreeSet<u16>, imports: &BTreeSet<u16>) -> BTreeSet<Risk> {
    if is_apart || pods.is_empty() || imports.is_empty() {
        return BTreeSet::new();
    }
    let differs = !imports.is_subset(pods);
    [Risk::SecondSlice].into_iter().chain(differs.then_some(Risk::PortDiffers)).collect()
}
