//! Risks of a Service that has pods and imports, for clients in the cluster that read its slices.
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

/// The place of imports, seen from the pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ImportPlace {
    /// In slices of their own, of the same Service.
    #[default]
    Beside,
    /// In a Service of their own.
    Apart,
    /// In a Service that holds the pods too, in the same slices.
    Together,
}

/// The risks, by the ports of the pods and those of the imports.
pub fn risks(place: ImportPlace, pods: &BTreeSet<u16>, imports: &BTreeSet<u16>) -> BTreeSet<Risk> {
    if place == ImportPlace::Apart || pods.is_empty() || imports.is_empty() {
        return BTreeSet::new();
    }
    let second = (place == ImportPlace::Beside).then_some(Risk::SecondSlice);
    let differs = (!imports.is_subset(pods)).then_some(Risk::PortDiffers);
    second.into_iter().chain(differs).collect()
}
