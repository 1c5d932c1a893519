//! A pod, reduced to the fields that the planners read.
//!
//! Owns the name of the annotation that overrides a weight. Refuses to know the API machinery: the cluster's door maps
//! from the API type; and its readiness gate, which [`super::readiness_gate`] has.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::model::{Family, ReadinessGate};

/// Overrides the weight of one pod's record.
pub const WEIGHT_ANNOTATION: &str = "twinspan.dev/weight";

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodView {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub ips: Vec<IpAddr>,
    pub node: Option<String>,
    /// The pod's addresses are the node's.
    pub host_network: bool,
    /// The pod has ended: another pod may have its addresses by now.
    pub ended: bool,
    /// TCP ports of its Node that lead to ports of the pod. Few pods have any.
    pub host_ports: Option<Box<[HostPort]>>,
    /// [`WEIGHT_ANNOTATION`], as written.
    pub weight: Option<String>,
    /// Absent for a pod without our readiness gate, as most are.
    pub gate: Option<Box<ReadinessGate>>,
    pub labels: Labels,
}

/// A TCP port of a container that the Node has too (`hostPort`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostPort {
    pub container: u16,
    pub host: u16,
    /// The only address of the Node that has it; an unspecified one stands for all of its family, `None` for all.
    pub ip: Option<IpAddr>,
}

impl PodView {
    /// The port of the Node at an address that leads to a port of this pod alone.
    pub fn port_of_node(&self, container: u16, at: IpAddr) -> Option<u16> {
        if self.host_network {
            return Some(container);
        }
        let has = |ip: IpAddr| ip == at || (ip.is_unspecified() && Family::of(ip) == Family::of(at));
        let leads = |port: &&HostPort| port.container == container && port.ip.is_none_or(has);
        self.host_ports.iter().flatten().find(leads).map(|port| port.host)
    }
}

/// Labels in one allocation: there are many pods, and the labels of few are ever read.
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

    /// Whether a selector of a Service, packed the same way, selects these labels; an empty one selects nothing.
    pub fn are_selected_by(&self, selector: &Self) -> bool {
        let mut pairs = selector.0.split_terminator(',').filter_map(|pair| pair.split_once('='));
        !selector.0.is_empty() && pairs.all(|(name, value)| self.get(name) == Some(value))
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

    #[test]
    fn a_selector_selects_by_all_of_its_pairs() {
        let pack = |pairs: &[(&str, &str)]| {
            Labels::new(&pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
        };
        let labels = pack(&[("app", "echo"), ("lane", "")]);
        for (selector, selects) in [
            (&[("app", "echo")][..], true),
            (&[("app", "echo"), ("lane", "")], true),
            (&[("app", "echo"), ("lane", "x")], false),
            (&[("app", "echo"), ("zone", "")], false),
            (&[], false),
        ] {
            assert_eq!(labels.are_selected_by(&pack(selector)), selects, "{selector:?}");
        }
    }
}
