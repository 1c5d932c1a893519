//! Siblings of a RegisteredService, from the views.
//!
//! Owns the rule about which RegisteredServices are siblings: those that share a name, a Service, or the name of one of
//! our records. Each pass looks at all of them, so a change of one costs the square of their number: only so many
//! share a name ([`super::crowd`]). Refuses to decide which of them has an address, which the core does.

use std::collections::BTreeSet;

use twinspan_core::Timestamp;
use twinspan_core::model::ServiceKey;
use twinspan_core::plan::service::{Accepted, Age, Sibling, Siblings, weigh};

use super::Checkpoints;
use super::crowd::oldest;
use super::observe::{Observed, observe};
use super::validate::validate;
use crate::controllers::views::Views;

/// The addresses and records that siblings want too. `accepted` are its own settings, if the RegisteredService writes.
pub fn siblings(
    views: &Views,
    checkpoints: &Checkpoints,
    observed: &Observed,
    accepted: Option<&Accepted>,
) -> Siblings {
    if observed.crowded_out && observed.facts.former.is_empty() {
        // A RegisteredService that adds nothing has no rivals.
        return Siblings::default();
    }
    let others: Vec<Sibling> = keys(views, observed)
        .iter()
        .filter_map(|key| {
            let other = observe(views, checkpoints, key, observed.facts.term)?;
            let accepted = validate(&other).accepted()?.clone();
            Some(Sibling { age: age(&other), accepted, facts: other.facts, checkpoint: other.checkpoint.planned })
        })
        .collect();
    weigh(&observed.facts, &age(observed), accepted, &others, views.env.now())
}

/// A RegisteredService that is gone is younger than every other.
fn age(observed: &Observed) -> Age {
    let created = observed.object.as_ref().and_then(|object| object.metadata.creation_timestamp.as_ref());
    (created.map_or(Timestamp::MAX, |time| time.0), observed.facts.key.clone())
}

fn keys(views: &Views, observed: &Observed) -> BTreeSet<ServiceKey> {
    let facts = &observed.facts;
    let view = views.cluster();
    let mut keys = BTreeSet::new();
    if let Some((registry, name)) = view.index.registry_and_name(&facts.key) {
        keys.extend(oldest(&view, &registry, name.as_bytes()));
    }
    let services = observed.object.iter().flat_map(|object| [object.service_key(), object.import_service_key()]);
    for service in services.collect::<BTreeSet<_>>() {
        keys.extend(view.index.of_service(&service).cloned());
    }
    for registry in facts.registry.iter().chain(&facts.former) {
        let name = registry.registry_name.iter().map(|name| name.as_str().as_bytes());
        keys.extend(name.flat_map(|name| oldest(&view, &registry.name, name)));
        let names = registry.snapshot.under_other_names.keys().filter_map(|key| registry.layout.split_key(key));
        for (name, _) in names {
            keys.extend(oldest(&view, &registry.name, name));
        }
    }
    keys.remove(&facts.key);
    keys
}
