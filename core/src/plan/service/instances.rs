//! The instances to export: one for each ready endpoint, or for each IP where one record stands for every port.
//!
//! Owns weight and tags. The pod's annotation overrides the weight; its labels and its zone add tags. An address that
//! leads to several pods has the sum of their weights, or its share where several addresses lead to them, and the tags
//! that all of them have. Refuses to know records.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::facts::NamedPods;
use super::reach::Reach;
use super::{Accepted, Facts};
use crate::codec::Format;
use crate::model::{Instance, InstanceAddr, PodView, Tags, WEIGHT_ANNOTATION};

/// The instances, and a note about the first annotation that cannot be read.
pub fn instances(facts: &Facts, accepted: &Accepted, format: Format, reach: &Reach) -> (Vec<Instance>, Option<String>) {
    // One record stands for every port of an IP where addresses have schemes.
    let group_port = |addr: InstanceAddr| if format.has_schemes() { 0 } else { addr.port() };
    let group = |addr: InstanceAddr| (addr.ip(), group_port(addr));
    let mut groups: Vec<Vec<(String, InstanceAddr)>> = Vec::with_capacity(reach.ports.len());
    // The addresses of a group follow each other.
    for (addr, ports) in &reach.ports {
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
    let mut note = reach.note.clone();
    let zones = if accepted.zone_tag.is_empty() { Zones::new() } else { zones(facts) };
    let instance = |mut endpoints: Vec<(String, InstanceAddr)>| {
        let index = |scheme: &String| accepted.ports.iter().position(|port| port.scheme == *scheme);
        endpoints.sort_by_key(|(scheme, addr)| (index(scheme), *addr));
        let addr = endpoints.iter().map(|(_, addr)| *addr).min()?;
        let mut instance = Instance { addr, endpoints, weight: accepted.weight, tags: tags.clone() };
        if reach.behind.is_some() {
            behind(facts, accepted, reach, (&named, &zones), &mut instance, &mut note);
            return Some(instance);
        }
        if let Some(zone) = zones.get(&addr.ip()) {
            Arc::make_mut(&mut instance.tags).insert(accepted.zone_tag.clone(), (*zone).to_owned());
        }
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

/// Gives an instance the weight and the tags of the endpoints that its addresses lead to.
fn behind(
    facts: &Facts,
    accepted: &Accepted,
    reach: &Reach,
    (named, zones): (&NamedPods<'_>, &Zones<'_>),
    instance: &mut Instance,
    note: &mut Option<String>,
) {
    let found = instance.addresses().filter_map(|addr| reach.behind.as_ref()?.get(&addr));
    // Each pod counts once, at however many ports it is called.
    let (mut endpoints, mut shared_by) = (BTreeMap::new(), 1);
    for behind in found {
        endpoints.extend(behind.endpoints.iter().map(|addr| (addr.ip(), *addr)));
        shared_by = shared_by.max(i64::try_from(behind.shared_by).unwrap_or(i64::MAX));
    }
    let pods: Vec<_> = endpoints.values().map(|addr| facts.pod_of(*addr, named)).collect();
    let weight = |pod: &Option<&Arc<PodView>>| {
        let own = pod.map_or(Ok(None), |pod| weight(pod)).unwrap_or_else(|text| {
            note.get_or_insert(text);
            None
        });
        own.unwrap_or(accepted.weight)
    };
    let sum: i64 = pods.iter().map(weight).sum();
    instance.weight = (sum + shared_by - 1) / shared_by;
    for (label, tag) in &accepted.tags_from_labels {
        let mut values = pods.iter().map(|pod| pod.and_then(|pod| pod.labels.get(label)));
        let first = values.next().flatten();
        if let Some(value) = first.filter(|_| values.all(|value| value == first)) {
            Arc::make_mut(&mut instance.tags).insert(tag.clone(), value.to_owned());
        }
    }
    let mut of_each = endpoints.keys().map(|ip| zones.get(ip));
    let first = of_each.next().flatten();
    if let Some(zone) = first.filter(|_| of_each.all(|zone| zone == first)) {
        Arc::make_mut(&mut instance.tags).insert(accepted.zone_tag.clone(), (*zone).to_owned());
    }
}

/// The zones of endpoints, by address.
type Zones<'a> = BTreeMap<IpAddr, &'a str>;

/// The zones that slices of other managers name. The built-in controller takes them from the Nodes of pods
/// (`topology.kubernetes.io/zone`).
fn zones(facts: &Facts) -> Zones<'_> {
    let endpoints = facts.cluster.others_slices.iter().flat_map(|slice| &slice.endpoints);
    let zones = endpoints.filter_map(|endpoint| Some((endpoint.address.ip()?, endpoint.zone.as_deref()?)));
    zones.filter(|(_, zone)| !zone.is_empty()).collect()
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
