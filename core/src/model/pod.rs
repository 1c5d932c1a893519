//! A pod, reduced to its addresses and to what a RegisteredService may ask of it.
//!
//! Owns the annotation that overrides a weight. Refuses to know the API machinery: the mapping from the API type is the
//! cluster door's.

use std::collections::BTreeMap;
use std::net::IpAddr;

/// Overrides the weight of one pod's record.
pub const WEIGHT_ANNOTATION: &str = "twinspan.dev/weight";

/// A pod, reduced to what matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodView {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub ips: Vec<IpAddr>,
    pub node: Option<String>,
    /// Its addresses are the node's.
    pub host_network: bool,
    /// It runs no more: another pod may have its addresses by now.
    pub ended: bool,
    /// [`WEIGHT_ANNOTATION`], as written.
    pub weight: Option<String>,
    pub labels: Labels,
}

/// Labels in one allocation: there are many pods, and few are ever asked for their labels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels(Box<str>);

impl Labels {
    pub fn new(labels: &BTreeMap<String, String>) -> Self {
        let mut packed = String::new();
        for (name, value) in labels {
            packed.extend([name.as_str(), "=", value.as_str(), ","]);
        }
        Self(packed.into())
    }

    /// The value of a label. Neither names nor values of labels can hold `=` or `,`.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.split(',').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_labels_are_found_by_their_whole_name() {
        let labels = Labels::new(&BTreeMap::from([
            ("app".to_owned(), "echo".to_owned()),
            ("app.kubernetes.io/name".to_owned(), String::new()),
        ]));
        assert_eq!(labels.get("app"), Some("echo"));
        assert_eq!(labels.get("app.kubernetes.io/name"), Some(""));
        assert_eq!((labels.get("ap"), labels.get("echo"), labels.get("")), (None, None, None));
    }
}
