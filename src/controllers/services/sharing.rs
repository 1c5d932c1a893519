//! Sharing: several RegisteredServices may export one registry name, and import into one Service.
//!
//! Owns what the others want, which the planners of the core weigh: an address belongs to the oldest RegisteredService that
//! wants it (creation time, then namespace and name). Only those that write count: one that is suspended takes nothing over.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use twinspan_core::Timestamp;
use twinspan_core::model::{InstanceAddr, Kind, RecordKey, ServiceKey};
use twinspan_core::plan::departures::OnExpiry;
use twinspan_core::plan::export::Claim;
use twinspan_core::plan::import::Rival;

use super::observe::{Observed, Session, alone};
use super::plan::{imports, present};
use super::validate::{Accepted, Verdict, validate};
use crate::controllers::context::Context;
use crate::registry::view::State;

/// Creation time, then namespace and name.
type Age = (Timestamp, ServiceKey);

/// Somebody else, as far as sharing is concerned.
struct Sibling {
    age: Age,
    older: bool,
    accepted: Accepted,
    observed: Observed,
}

impl Sibling {
    fn uses(&self, session: &Session) -> bool {
        self.observed.session.as_ref().is_some_and(|s| Arc::ptr_eq(&s.handle, &session.handle))
    }

    fn exports_to(&self, session: &Session) -> bool {
        self.uses(session) && self.accepted.direction.exports()
    }
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
            let other_age = self::age(&other);
            let older = other_age < age;
            siblings.push(Sibling { age: other_age, older, accepted: *accepted, observed: other });
        }
    }
    if siblings.is_empty() {
        return;
    }
    let ourselves = match validate(observed, context.dry_run) {
        Verdict::Accepted(accepted) if accepted.writes => Some(*accepted),
        _ => None,
    };
    for session in observed.session.iter_mut().chain(&mut observed.former) {
        session.claims = claims(session, &siblings);
        let (passed_on, inherited) = healed(session, ourselves.as_ref().map(|accepted| (&age, accepted)), &siblings);
        (session.passed_on, session.inherited) = (passed_on, inherited);
        session.passed_on.extend(claimed_elsewhere(session, &siblings));
    }
    observed.rivals = rivals(observed, &siblings, context.world.now());
}

/// One that is gone is younger than everybody.
fn age(observed: &Observed) -> Age {
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

/// The addresses that siblings want to export in one registry under the same name.
fn claims(session: &Session, siblings: &[Sibling]) -> BTreeMap<InstanceAddr, Claim> {
    let mut claims = BTreeMap::new();
    let same_name = |sibling: &&Sibling| session.name.as_ref() == Some(&sibling.accepted.name);
    for sibling in siblings.iter().filter(|sibling| sibling.exports_to(session)).filter(same_name) {
        for addr in sibling.accepted.ready(&sibling.observed).into_keys() {
            let claim = claims.entry(addr).or_insert(Claim::Younger);
            if sibling.older {
                *claim = Claim::Older;
            }
        }
    }
    claims
}

/// Own records under other names that a sibling, whose name it is, takes over.
fn claimed_elsewhere(session: &Session, siblings: &[Sibling]) -> BTreeSet<RecordKey> {
    let mut taken = BTreeSet::new();
    for sibling in siblings.iter().filter(|sibling| sibling.exports_to(session)) {
        let ready = sibling.accepted.ready(&sibling.observed);
        let name = sibling.accepted.name.as_str().as_bytes();
        for (key, record) in &session.snapshot.elsewhere {
            let of_name = session.handle.layout.split_key(key).is_some_and(|(other, _)| other == name);
            if of_name && record.addrs().any(|addr| ready.contains_key(&addr)) {
                taken.insert(key.clone());
            }
        }
    }
    taken
}

/// Healed records of ours that another one takes over, and those of others that we do: whoever put a registration back and does not
/// import it any more leaves it to the oldest that does, and heals.
fn healed(
    session: &Session,
    ourselves: Option<(&Age, &Accepted)>,
    siblings: &[Sibling],
) -> (BTreeSet<RecordKey>, BTreeSet<RecordKey>) {
    let (mut passed_on, mut inherited) = (BTreeSet::new(), BTreeSet::new());
    for (key, record) in session.snapshot.records.iter().chain(&session.snapshot.elsewhere) {
        let Kind::Healed(owner) = record.kind(&session.owner.cluster_id) else { continue };
        let Some((name, _)) = session.handle.layout.split_key(key) else { continue };
        let heals = |accepted: &Accepted| {
            accepted.direction.imports()
                && accepted.import.on_expiry == OnExpiry::Heal
                && accepted.name.as_str().as_bytes() == name
        };
        let others = siblings.iter().filter(|sibling| sibling.uses(session) && heals(&sibling.accepted));
        let others: Vec<(&Age, &ServiceKey)> = others.map(|s| (&s.age, &s.observed.key)).collect();
        let we = ourselves.filter(|(_, accepted)| heals(accepted)).map(|(age, _)| (age, &session.owner.service));
        let heirs = || others.iter().copied().chain(we);
        if owner.cluster_id != session.owner.cluster_id || heirs().any(|(_, heir)| *heir == owner.service) {
            continue;
        }
        match heirs().min() {
            Some((_, heir)) if *heir == session.owner.service => inherited.insert(key.clone()),
            Some(_) if *owner == session.owner => passed_on.insert(key.clone()),
            _ => false,
        };
    }
    (passed_on, inherited)
}

/// The addresses that siblings import into the same Service.
fn rivals(observed: &Observed, siblings: &[Sibling], now: Timestamp) -> BTreeMap<InstanceAddr, Rival> {
    let mut rivals: BTreeMap<InstanceAddr, Rival> = BTreeMap::new();
    let Some(service) = &observed.service else { return rivals };
    for sibling in siblings {
        let same = sibling.observed.service.as_ref().is_some_and(|s| s.uid == service.uid);
        let fresh = sibling.observed.session.as_ref().filter(|s| s.snapshot.state == State::Fresh);
        let (true, Some(session)) = (same && sibling.accepted.direction.imports(), fresh) else { continue };
        let held = present(&sibling.observed, &sibling.accepted);
        for addr in imports(&sibling.observed, session, &sibling.accepted, now).endpoints.into_keys() {
            let rival = rivals.entry(addr).or_insert(Rival { older: false, holds: false });
            rival.older |= sibling.older;
            // Any slice of the Service that holds it keeps it from vanishing.
            rival.holds |= held.contains_key(&addr);
        }
    }
    rivals
}
