//! Siblings of a RegisteredService, from the views.
//!
//! Owns the rule about which RegisteredServices are siblings: those that share a name, a Service, or the name of one of
//! our records. Each pass looks at all of them, so a change of one costs the square of their number: only so many
//! share a name ([`super::crowd`]). Refuses to decide which of them has an address, which the core does.

use std::collections::BTreeSet;

use twinspan_core::model::ServiceKey;
use twinspan_core::plan::service::{Accepted, Sibling, Siblings, weigh};

use super::Checkpoints;
use super::crowd::first;
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
            let Observed { precedence, facts, checkpoint, .. } = other;
            Some(Sibling { precedence, accepted, facts, checkpoint: checkpoint.planned })
        })
        .collect();
    weigh(&observed.facts, &observed.precedence, accepted, &others, views.env.now())
}

fn keys(views: &Views, observed: &Observed) -> BTreeSet<ServiceKey> {
    let facts = &observed.facts;
    let view = views.cluster();
    let mut keys = BTreeSet::new();
    if let Some((registry, name)) = view.index.registry_and_name(&facts.key) {
        keys.extend(first(&view, &registry, name.as_bytes()));
    }
    let services = observed.object.iter().flat_map(|object| [object.service_key(), object.import_service_key()]);
    // One that is gone names none, and has slices.
    let filled = facts.cluster.our_slices.iter().filter_map(|slice| slice.service.as_ref());
    let filled = filled.map(|service| ServiceKey::new(&facts.key.namespace, service));
    for service in services.chain(filled).collect::<BTreeSet<_>>() {
        keys.extend(view.index.of_service(&service).cloned());
    }
    for registry in facts.registry.iter().chain(&facts.former) {
        let name = registry.registry_name.iter().map(|name| name.as_str().as_bytes());
        keys.extend(name.flat_map(|name| first(&view, &registry.name, name)));
        let names = registry.snapshot.under_other_names.keys().filter_map(|key| registry.layout.split_key(key));
        for (name, _) in names {
            keys.extend(first(&view, &registry.name, name));
        }
    }
    keys.remove(&facts.key);
    keys
}
