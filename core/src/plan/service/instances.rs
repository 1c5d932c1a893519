//! The instances to export: one for each ready endpoint, or for each IP where one record stands for every port.
//!
//! Owns weight and tags. The pod's annotation overrides the weight; its labels add tags. Refuses to know records.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Accepted, Facts};
use crate::codec::Format;
use crate::model::{Instance, InstanceAddr, PodView, PortSet, Tags, WEIGHT_ANNOTATION};

/// The instances, and a note about the first annotation that cannot be read.
pub fn instances(
    facts: &Facts,
    accepted: &Accepted,
    format: Format,
    ready: &BTreeMap<InstanceAddr, PortSet>,
) -> (Vec<Instance>, Option<String>) {
    // One record stands for every port of an IP where addresses have schemes.
    let group_port = |addr: InstanceAddr| if format.has_schemes() { 0 } else { addr.port() };
    let group = |addr: InstanceAddr| (addr.ip(), group_port(addr));
    let mut groups: Vec<Vec<(String, InstanceAddr)>> = Vec::with_capacity(ready.len());
    // The addresses of a group follow each other.
    for (addr, ports) in ready {
        for index in ports.indexes() {
            let endpoint = (accepted.ports[index].scheme.clone(), *addr);
            match groups.last_mut() {
                Some(last) if last.last().is_some_and(|(_, other)| group(*other) == group(*addr)) => {
                    last.push(endpoint);
                }
                _ => groups.push(vec![endpoint]),
            }
        }
    }
    let tags: Arc<Tags> = Arc::new(accepted.tags.clone().into_iter().collect());
    let named = facts.named_pods();
    let mut note = None;
    let instance = |mut endpoints: Vec<(String, InstanceAddr)>| {
        let index = |scheme: &String| accepted.ports.iter().position(|port| port.scheme == *scheme);
        endpoints.sort_by_key(|(scheme, addr)| (index(scheme), *addr));
        let addr = endpoints.iter().map(|(_, addr)| *addr).min()?;
        let mut instance = Instance { addr, endpoints, weight: accepted.weight, tags: tags.clone() };
        if let Some(pod) = facts.pod_of(addr, &named) {
            match weight(pod) {
                Ok(weight) => instance.weight = weight.unwrap_or(accepted.weight),
                Err(text) => {
                    note.get_or_insert(text);
                }
            }
            for (label, tag) in &accepted.tags_from_labels {
                if let Some(value) = pod.labels.get(label) {
                    Arc::make_mut(&mut instance.tags).insert(tag.clone(), value.to_owned());
                }
            }
        }
        Some(instance)
    };
    (groups.into_iter().filter_map(instance).collect(), note)
}

/// The weight in the pod's annotation, if it has one.
fn weight(pod: &PodView) -> Result<Option<i64>, String> {
    let Some(text) = &pod.weight else { return Ok(None) };
    match text.parse() {
        Ok(weight @ 1..=10_000) => Ok(Some(weight)),
        _ => Err(format!(
            "pod {}/{}: annotation {WEIGHT_ANNOTATION} {text:?} is no integer from 1 to 10000; spec.export.weight is used",
            pod.namespace, pod.name
        )),
    }
}
