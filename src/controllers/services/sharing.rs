//! Sharing: several RegisteredServices may export one registry name, and import into one Service.
//!
//! Owns what the others want, which the planners of the core weigh: an address belongs to the oldest RegisteredService that
//! wants it (creation time, then namespace and name). Only those that write count: one that is suspended takes nothing over.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::jiff::Timestamp;
use twinspan_core::model::{InstanceAddr, RecordKey, ServiceKey};
use twinspan_core::plan::export::Claim;
use twinspan_core::plan::import::Rival;

use super::observe::{Observed, Session, alone};
use super::plan::imports;
use super::validate::{Accepted, Verdict, validate};
use crate::controllers::context::Context;
use crate::registry::view::State;

/// Somebody else, as far as sharing is concerned.
struct Sibling {
    older: bool,
    accepted: Accepted,
    observed: Observed,
}

/// Fills in what others want of the same name and of the same Service.
pub fn observe(context: &Context, observed: &mut Observed) {
    let age = age(observed);
    let mut siblings = Vec::new();
    for key in keys(context, observed) {
        let Some(other) = alone(context, &key) else { continue };
        if let Verdict::Accepted(accepted) = validate(&other, context.dry_run)
            && accepted.writes
        {
            siblings.push(Sibling { older: self::age(&other) < age, accepted: *accepted, observed: other });
        }
    }
    if siblings.is_empty() {
        return;
    }
    for session in observed.session.iter_mut().chain(&mut observed.former) {
        session.claims = claims(session, &siblings);
    }
    observed.rivals = rivals(observed, &siblings, context.world.now());
}

/// Creation time, then namespace and name. One that is gone is younger than everybody.
fn age(observed: &Observed) -> (Timestamp, ServiceKey) {
    let created = observed.object.as_ref().and_then(|object| object.metadata.creation_timestamp.as_ref());
    (created.map_or(Timestamp::MAX, |time| time.0), observed.key.clone())
}

/// Whoever shares a name, a Service, or the name of a record that is ours.
fn keys(context: &Context, observed: &Observed) -> BTreeSet<ServiceKey> {
    let view = context.cluster();
    let mut keys = view.index.siblings(&observed.key);
    for session in observed.session.iter().chain(&observed.former) {
        let layout = &session.handle.layout;
        for (name, _) in session.snapshot.elsewhere.keys().filter_map(|key| layout.split_key(key)) {
            keys.extend(view.index.of_name(&session.handle.name, name).cloned());
        }
    }
    keys.remove(&observed.key);
    keys
}

/// The keys that siblings want to export in one registry.
fn claims(session: &Session, siblings: &[Sibling]) -> BTreeMap<RecordKey, Claim> {
    let mut claims = BTreeMap::new();
    for sibling in siblings {
        let same =
            sibling.observed.session.as_ref().is_some_and(|s| std::sync::Arc::ptr_eq(&s.handle, &session.handle));
        if !same || !sibling.accepted.direction.exports() {
            continue;
        }
        for addr in sibling.accepted.ready(&sibling.observed) {
            let key = session.handle.layout.key(&sibling.accepted.name, addr);
            let claim = claims.entry(key).or_insert(Claim::Younger);
            if sibling.older {
                *claim = Claim::Older;
            }
        }
    }
    claims
}

/// The addresses that siblings import into the same Service.
fn rivals(observed: &Observed, siblings: &[Sibling], now: Timestamp) -> BTreeMap<InstanceAddr, Rival> {
    let mut rivals: BTreeMap<InstanceAddr, Rival> = BTreeMap::new();
    let Some(service) = &observed.service else { return rivals };
    for sibling in siblings {
        let same = sibling.observed.service.as_ref().is_some_and(|s| s.uid == service.uid);
        let fresh = sibling.observed.session.as_ref().filter(|s| s.snapshot.state == State::Fresh);
        let (true, Some(session)) = (same && sibling.accepted.direction.imports(), fresh) else { continue };
        let slices: Vec<_> = sibling.observed.our_slices.iter().map(AsRef::as_ref).collect();
        let held = twinspan_core::plan::slices::present(&slices);
        for addr in imports(&sibling.observed, session, &sibling.accepted, now).endpoints.into_keys() {
            let rival = rivals.entry(addr).or_insert(Rival { older: false, holds: false });
            rival.older |= sibling.older;
            // Any slice of the Service that holds it keeps it from vanishing.
            rival.holds |= held.contains(&addr);
        }
    }
    rivals
}
