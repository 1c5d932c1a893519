//! The RegisteredServices that select a pod.
//!
//! Owns the two ways: labels, for the controller of slices may lag behind, and the slices of a Service without a
//! selector. Refuses to know verdicts.

use std::collections::BTreeSet;

use twinspan_core::Timestamp;
use twinspan_core::model::{PodView, ServiceKey, Slice};

use crate::cluster::view::{ClusterView, Kind};

/// The kinds on which a selection rests.
const KINDS: [Kind; 3] = [Kind::RegisteredService, Kind::Service, Kind::EndpointSlice];

/// Whether another RegisteredService may select a pod than those that are known: a kind was not heard of for long.
pub fn is_unsure(view: &ClusterView, now: Timestamp) -> bool {
    let silent: BTreeSet<Kind> = view.silent(now);
    KINDS.iter().any(|kind| silent.contains(kind))
}

/// The RegisteredServices whose Service selects a pod. The work is that of the built-in controller of slices: a look at
/// each in the namespace.
pub fn of_pod<'a>(view: &'a ClusterView, pod: &'a PodView) -> impl Iterator<Item = &'a ServiceKey> {
    view.index.of_namespace(&pod.namespace).filter(move |key| view.stays(key) && selects(view, key, pod))
}

fn selects(view: &ClusterView, key: &ServiceKey, pod: &PodView) -> bool {
    let service = view.registered_services.get(key).map(|object| object.service_key());
    let found = service.as_ref().and_then(|service| view.services.get(service));
    let Some((service, found)) = service.as_ref().zip(found) else { return false };
    if found.selector {
        return pod.labels.are_selected_by(&found.selects);
    }
    let names =
        |slice: &Slice| slice.endpoints.iter().any(|e| e.pod.as_ref().is_some_and(|named| named.uid == pod.uid));
    view.slices.of_service(service).iter().any(|slice| !slice.is_ours() && names(slice))
}
