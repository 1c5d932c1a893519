//! The RegisteredServices that select a pod.
//!
//! Owns the two ways: labels, for the controller of slices may lag behind, and the slices of a Service without a
//! selector; and which of them another release serves. Refuses to know verdicts.

use std::sync::Arc;

use twinspan_core::Timestamp;
use twinspan_core::model::{PodView, ServiceKey, Slice};

use crate::api::RegisteredService;
use crate::cluster::view::{ClusterView, Kind};

/// The kinds on which a selection rests.
const KINDS: [Kind; 3] = [Kind::RegisteredService, Kind::Service, Kind::EndpointSlice];

/// Whether another RegisteredService of a namespace may select a pod than those that are known: a kind was not listed,
/// or not heard of for long.
pub fn is_unsure(view: &ClusterView, namespace: &str, now: Timestamp) -> bool {
    !view.is_complete_in(namespace) || KINDS.iter().any(|kind| view.is_silent_in(*kind, namespace, now))
}

/// The RegisteredServices of this release whose Service selects a pod. The work is that of the built-in controller of
/// slices: a look at each in the namespace.
pub fn of_pod<'a>(view: &'a ClusterView, pod: &'a PodView) -> impl Iterator<Item = &'a ServiceKey> {
    here(view, pod).filter(|(_, object)| !view.is_held_elsewhere(object)).map(|(key, _)| key)
}

/// Whether one that another release serves selects the pod.
pub fn is_anothers(view: &ClusterView, pod: &PodView) -> bool {
    let from = ServiceKey::new(&pod.namespace, "");
    let mut elsewhere = view.served_elsewhere.range(from..).take_while(|(key, _)| key.namespace == pod.namespace);
    elsewhere.any(|(_, service)| selects(view, service, pod))
        || here(view, pod).any(|(_, object)| view.is_held_elsewhere(object))
}

fn here<'a>(
    view: &'a ClusterView,
    pod: &'a PodView,
) -> impl Iterator<Item = (&'a ServiceKey, &'a Arc<RegisteredService>)> {
    let stay = view.index.of_namespace(&pod.namespace).filter(|key| view.stays(key));
    let found = stay.filter_map(|key| view.registered_services.get_key_value(key));
    found.filter(|(_, object)| selects(view, &object.service_key(), pod))
}

fn selects(view: &ClusterView, service: &ServiceKey, pod: &PodView) -> bool {
    let Some(found) = view.services.get(service) else { return false };
    if found.selector {
        return pod.labels.are_selected_by(&found.selects);
    }
    let names =
        |slice: &Slice| slice.endpoints.iter().any(|e| e.pod.as_ref().is_some_and(|named| named.uid == pod.uid));
    view.slices.of_service(service).iter().any(|slice| !slice.is_ours() && names(slice))
}
