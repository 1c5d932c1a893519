//! The exposure of a RegisteredService in the views: whether its records are known and would go, which ending pods are
//! its own, and whether they still have a record.
//!
//! Owns which pods count. Refuses to wait, and to know requests.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use twinspan_core::Timestamp;
use twinspan_core::model::{RecordKey, RegistryName, ServiceKey};

use super::wait::Seen;
use crate::api::ExportAddress;
use crate::cluster::ending_pods::EndingPod;
use crate::controllers::views::Views;
use crate::registry::handle::RegistryHandle;

/// A pod whose grace period is over for so long has no kubelet that asks: its Node is gone, or a finalizer keeps it.
const OVERDUE: SignedDuration = SignedDuration::from_secs(60);

/// A RegisteredService, as far as the end of its pods goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exposure {
    /// The views are not complete, or the registry cannot be reached.
    Unknown,
    /// Nothing follows from the end of a pod.
    Nothing,
    /// Records go when their pods end.
    Follows {
        /// Pods get records; if not, only those that are left over matter.
        exports: bool,
        /// How long clients may go on with a record that is gone.
        refresh: Duration,
    },
}

/// The exposure at the moment.
pub fn exposure(views: &Views, key: &ServiceKey) -> Exposure {
    let (object, exists) = {
        let view = views.cluster();
        if !view.is_complete_in(&key.namespace) {
            return Exposure::Unknown;
        }
        let found = view.registered_services.get(key).filter(|_| !view.is_nameless(key));
        // The release that holds the registry knows about its own.
        let Some(object) = found.filter(|object| !view.is_held_elsewhere(object)).cloned() else {
            return Exposure::Nothing;
        };
        let exists = view.service_registries.contains_key(&object.spec.registry_ref.name);
        (object, exists)
    };
    // The address of a Node or of a balancer stands for several pods.
    if !object.may_be_written() || object.spec.export.address != ExportAddress::Pod {
        return Exposure::Nothing;
    }
    let Ok(name) = RegistryName::new(object.registry_name()) else { return Exposure::Nothing };
    let Some(handle) = views.registries.get(&object.spec.registry_ref.name) else {
        // A session that has not begun yet is one that cannot be reached.
        return if exists { Exposure::Unknown } else { Exposure::Nothing };
    };
    if !handle.view().is_fresh(&name) {
        return Exposure::Unknown;
    }
    let refresh = handle.layout.format().clients_learn_within().unsigned_abs();
    Exposure::Follows { exports: object.spec.direction.exports() && !object.is_rejected(), refresh }
}

/// Pods of a RegisteredService that end.
#[derive(Debug)]
pub struct Ending {
    key: ServiceKey,
    ips: BTreeSet<IpAddr>,
    /// The shortest grace period.
    pub grace: Duration,
    /// Records that were seen, until they are gone.
    found: Vec<(Arc<RegistryHandle>, RecordKey)>,
}

impl Ending {
    /// The pods that are the RegisteredService's: its Service selects them, a slice of the Service names them, or a
    /// record of it has their address. `None` if none of them is. `now` is the API server's time.
    pub fn of(views: &Views, key: &ServiceKey, pods: &[EndingPod], now: Timestamp) -> Option<Self> {
        // A grace period may be as long as a person likes, and its end beyond what a time can be.
        let pods: Vec<&EndingPod> = pods.iter().filter(|pod| now - OVERDUE < pod.until).collect();
        let ips = pods.iter().flat_map(|pod| &pod.ips).copied().collect();
        let registered: BTreeSet<IpAddr> = views
            .registries
            .all()
            .iter()
            .flat_map(|handle| handle.view().own_addresses(key))
            .filter(|ip| BTreeSet::contains(&ips, ip))
            .collect();
        let view = views.cluster();
        let service = view.registered_services.get(key)?.service_key();
        let slices = view.slices.of_service(&service);
        let others = slices.iter().filter(|slice| !slice.is_ours());
        let named: BTreeSet<&str> = others
            .flat_map(|slice| &slice.endpoints)
            .filter_map(|it| it.pod.as_ref())
            .map(|pod| pod.uid.as_str())
            .collect();
        let counts = |pod: &&&EndingPod| {
            view.services.get(&service).is_some_and(|it| pod.labels.are_selected_by(&it.selects))
                || named.contains(pod.uid.as_str())
                || (!pod.host_network && pod.ips.iter().any(|ip| registered.contains(ip)))
        };
        let own: Vec<&&EndingPod> = pods.iter().filter(counts).collect();
        let grace = own.iter().map(|pod| pod.grace).min()?;
        let ips = own.iter().flat_map(|pod| &pod.ips).copied().collect();
        Some(Self { key: key.clone(), ips, grace, found: Vec::new() })
    }

    /// Whether one of them has a record. Where it was seen, only that one is looked at.
    pub fn look(&mut self, views: &Views, exports: bool) -> Seen {
        let Self { key, ips, found, .. } = self;
        let is_there = |handle: &RegistryHandle, record: &RecordKey| {
            let view = handle.view();
            view.is_followed() && view.is_owned_by(key, record)
        };
        found.retain(|(handle, record)| is_there(handle, record));
        if found.is_empty() {
            // In a former registry too, if it answers: a record goes there once it is in the new one.
            for handle in views.registries.all().into_iter().filter(|handle| handle.view().is_followed()) {
                let at = handle.view().own_at(key, ips);
                found.extend(at.into_iter().map(|record| (handle.clone(), record)));
            }
        }
        match (found.is_empty(), exports) {
            (false, _) => Seen::Registered,
            (true, true) => Seen::Gone,
            (true, false) => Seen::Nothing,
        }
    }
}
