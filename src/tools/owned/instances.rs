//! The instances of one RegisteredService, as its status and the slices of its namespace show them.
//!
//! Owns the words. Refuses to guess: an instance that neither names is not there, and of one that the slices have and
//! the status does not name, it says just that.

use std::collections::BTreeMap;

use twinspan_core::model::{InstanceAddr, READINESS_GATE, Reason, ServiceKey};

use super::{Owned, OwnedPod};
use crate::api::conditions::{self, DELETIONS_HELD, EXPORTED, find_true};
use crate::api::{Difference, RegisteredService, RegisteredServiceStatus, Side};
use crate::tools::explanation::{Explanation, meaning};
use crate::tools::parity::Cell;

/// One instance.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Instance {
    /// The slices of the Service, if they have it.
    pub cluster: Option<Cell>,
    /// The registry, as far as the status says it.
    pub registry: Option<Cell>,
    pub explanation: Explanation,
}

/// The instances of a RegisteredService in address order, then those without an address.
pub(super) fn instances(owned: &Owned, object: &RegisteredService) -> Vec<Instance> {
    let status = object.status.clone().unwrap_or_default();
    let mut found = endpoints(owned, object, &status);
    let mut rest = Vec::new();
    for difference in status.differences.iter() {
        let address = InstanceAddr::parse(&difference.instance).ok();
        let known = address.and_then(|address| found.get(&address)).map(|known| known.cluster);
        let instance = Instance {
            // The slices are newer than the status.
            cluster: known.unwrap_or_default(),
            registry: Some(match difference.side {
                Side::Cluster => Cell::Missing,
                Side::Registry => Cell::Seen,
            }),
            explanation: differs(difference, &status),
        };
        match address {
            Some(address) => drop(found.insert(address, instance)),
            None => rest.push(instance),
        }
    }
    found.into_values().chain(rest).collect()
}

/// The endpoints of the Services of a RegisteredService, at every port.
fn endpoints(
    owned: &Owned,
    object: &RegisteredService,
    status: &RegisteredServiceStatus,
) -> BTreeMap<InstanceAddr, Instance> {
    let services: [ServiceKey; 2] = [object.service_key(), object.import_service_key()];
    let name = object.metadata.name.as_deref();
    let of_them = owned.slices.iter().filter(|slice| {
        let service = slice.service.as_deref();
        services.iter().any(|key| service == Some(key.name.as_str()))
            && (!slice.is_ours() || slice.keeper.as_deref() == name)
    });
    let mut found = BTreeMap::new();
    for (slice, port) in of_them.flat_map(|slice| slice.ports.iter().map(move |port| (slice, port))) {
        for (address, endpoint) in slice.at(port) {
            let imported = slice.is_ours() && !endpoint.mirrored;
            let (state, text) = match () {
                () if imported => ("Imported", format!("it is an endpoint of EndpointSlice {}", slice.name)),
                () if endpoint.is_terminating() => {
                    ("Terminating", "its pod is terminating; it is not exported any more".to_owned())
                }
                () if !endpoint.is_ready() => ("NotReady", not_ready(owned.pods.get(&address.ip()))),
                () => exported(object, status),
            };
            let pod = owned.pods.get(&address.ip()).filter(|_| !imported);
            let text = pod.map_or(text.clone(), |pod| format!("{text}; pod {}", pod.name));
            let (instance, state) = (address.to_string(), state.to_owned());
            let cell = if imported { Cell::Imported } else { Cell::Pod };
            found.entry(address).or_insert_with(|| Instance {
                cluster: Some(cell),
                registry: None,
                explanation: Explanation { instance, state, text },
            });
        }
    }
    found
}

/// The words for an endpoint that is not ready. Whether its record is there already is not known here.
fn not_ready(pod: Option<&OwnedPod>) -> String {
    match pod {
        Some(pod) if pod.waits => {
            format!(
                "its pod waits for its readiness gate {READINESS_GATE}, which opens once its record is in the registry"
            )
        }
        _ => "its pod is not ready; see its readiness probe".to_owned(),
    }
}

/// The words for a ready endpoint that the status does not name.
fn exported(object: &RegisteredService, status: &RegisteredServiceStatus) -> (&'static str, String) {
    let (counted, instances) = (status.instances.exported, &status.instances);
    let named = i64::try_from(status.differences.len()).unwrap_or(i64::MAX);
    let more = instances.skipped + instances.lost + instances.held - named;
    match conditions::find(&status.conditions, EXPORTED) {
        _ if !object.spec.direction.exports() => {
            ("NotRequested", "it is not exported: spec.direction is Import".to_owned())
        }
        None => ("Unknown", "no operator has seen the RegisteredService yet".to_owned()),
        Some(condition) if condition.status != "True" => {
            ("Unknown", format!("whether it is exported is not known: {}: {}", condition.reason, condition.message))
        }
        Some(_) if more > 0 => (
            "Unknown",
            format!(
                "the status counts {counted} exported and names {named} that are left out, lost or held; which {more} others are so \
                 only an administrator sees"
            ),
        ),
        Some(_) => {
            ("Exported", format!("the status counts {counted} exported, and does not name this one as left out"))
        }
    }
}

/// An entry of `status.differences` in words.
fn differs(difference: &Difference, status: &RegisteredServiceStatus) -> Explanation {
    let Difference { instance, reason, message, since, .. } = difference;
    let held = find_true(&status.conditions, DELETIONS_HELD).map(|held| held.message.as_str());
    let words = match reason.as_str() {
        "Held" => held.unwrap_or("the deletion guard holds it").to_owned(),
        "Waiting" => "it waits for more evidence, and is judged within seconds".to_owned(),
        "Lost" => "it lost its registration and accepts connections. Restart it to register again".to_owned(),
        label => match Reason::ALL.iter().find(|reason| reason.label() == label) {
            Some(reason) => meaning(*reason).to_owned(),
            None => "the operator is of another version, which knows this reason".to_owned(),
        },
    };
    let message = message.iter().map(|message| format!(" ({message})")).collect::<String>();
    let text = format!("{words}{message}; so since {}", since.0);
    Explanation { instance: instance.clone(), state: reason.clone(), text }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_that_waits_for_its_gate_is_not_sent_to_its_readiness_probe() {
        let words = |waits| not_ready(Some(&OwnedPod { name: "a".to_owned(), waits }));
        assert!(words(true).contains(READINESS_GATE) && !words(true).contains("probe"), "{}", words(true));
        assert!(words(false).contains("probe") && words(false) == not_ready(None), "{}", words(false));
    }

    #[test]
    fn where_the_list_is_full_nothing_is_called_exported() {
        let object = |skipped: i64| -> RegisteredService {
            let at = "2026-01-01T00:00:00Z";
            let exported = json!({"type": "Exported", "status": "True", "reason": "Synced", "message": "", "lastTransitionTime": at});
            let one = json!({"instance": "127.0.0.1:80", "side": "Registry", "reason": "LoopbackAddress", "since": at});
            serde_json::from_value(json!({
                "apiVersion": "twinspan.dev/v1alpha1", "kind": "RegisteredService",
                "metadata": {"name": "user", "namespace": "shop"},
                "spec": {"registryRef": {"name": "main"}},
                "status": {"conditions": [exported], "instances": {"exported": 3, "skipped": skipped}, "differences": [one]},
            }))
            .unwrap()
        };
        for (skipped, state) in [(1, "Exported"), (21, "Unknown")] {
            let object = object(skipped);
            assert_eq!(exported(&object, object.status.as_ref().unwrap()).0, state, "{skipped} are left out");
        }
    }
}
