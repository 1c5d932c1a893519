//! The views of registries, filled as a session fills them, and the facts besides them.
//!
//! Owns the order of lists and events, from which the view itself concludes how records went. Refuses to conclude
//! anything.

use std::collections::BTreeMap;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use twinspan_core::codec::{Layout, Range};
use twinspan_core::model::{InstanceAddr, RawRecord, RecordKey, RegistryName, ServiceKey};
use twinspan_core::plan::departure::Evidence;
use twinspan_core::plan::departure::registry_guard::Approval;
use twinspan_core::plan::service::Term;

use super::given::{Given, Incarnation, View};
use super::records::{LeaseAnswer, RecordGiven, SeenBy, registry_error};
use super::{addr, at};
use crate::api::{APPROVE_DELETIONS, ServiceRegistry};
use crate::controllers::registered_service::observe::Observed;
use crate::controllers::service_registry::settings;
use crate::controllers::views::Views;
use crate::registry::handle::RegistryHandle;
use crate::registry::phase::Phase;
use crate::registry::records::Affected;
use crate::registry::sessions::Running;
use crate::registry::taken_names::Taken;
use crate::registry::view::RegistryView;
use crate::registry::{Change, ListResponse, ServerStatus};

/// The registry that the RegisteredService refers to.
pub const MAIN: &str = "main";
/// The etcd cluster and the revision of the first list.
const FIRST: (u64, i64) = (1, 500);

/// The evidence that the look-ups of leases brought.
pub type LookedUp = BTreeMap<InstanceAddr, Evidence>;
type Records = BTreeMap<RecordKey, RawRecord>;

static EMPTY: BTreeMap<String, RecordGiven> = BTreeMap::new();

impl Given {
    pub fn fill_registries(&self, views: &Views) -> LookedUp {
        let mut looked_up = LookedUp::new();
        for object in self.registry_objects() {
            let name = object.metadata.name.clone().unwrap();
            let settings = settings::session_settings(&object, &views.cluster()).unwrap();
            let (events, _) = mpsc::unbounded_channel();
            // Another process met another registry, or the same one later.
            let before = (self.incarnation != Incarnation::AsItWas).then_some((FIRST.0, FIRST.1 + 100));
            let handle = RegistryHandle::new(
                &name,
                &settings.identity,
                before.map(Into::into).filter(|_| self.deletions.is_empty()),
                events,
            );
            handle.set_server(ServerStatus { cluster_id: FIRST.0, version: "3.7.3".into() });
            handle.confirm_sole(Some(FIRST.0));
            if let Some(by) = &self.taken_by {
                let names = self.registered_services().filter_map(|o| RegistryName::new(o.registry_name()).ok());
                let taken = |name: RegistryName| (name, Taken { by: by.clone(), proven: true });
                handle.taken.set(names.map(taken).collect());
            }
            if name == MAIN {
                self.fill_view(&handle, &object, &self.records, &mut looked_up, self.view);
            } else {
                let records = self.former_records.get(&name).unwrap_or(&EMPTY);
                self.fill_view(&handle, &object, records, &mut LookedUp::new(), View::Fresh);
            }
            let stop = CancellationToken::new();
            views.registries.running().insert(name, Running { handle, settings, stop });
        }
        looked_up
    }

    fn fill_view(
        &self,
        handle: &RegistryHandle,
        object: &ServiceRegistry,
        records: &BTreeMap<String, RecordGiven>,
        looked_up: &mut LookedUp,
        state: View,
    ) {
        let failed = self.failed.as_deref().map(|error| Phase::Failed(registry_error(error)));
        if state == View::Unknown {
            handle.set_phase(failed.unwrap_or(Phase::Listing));
            return;
        }
        let raw = |(index, (key, given)): (usize, (&String, &RecordGiven))| given.raw(key, 100 + index as i64);
        let records: Records = records.iter().enumerate().map(raw).map(|raw| (raw.key.clone(), raw)).collect();
        let names = self.registered_services().filter_map(|object| RegistryName::new(object.registry_name()).ok());
        let names: Vec<RegistryName> = names.collect();
        let mut view = handle.view();
        let layout = object.spec.layout();
        let ranges: Vec<Range> = layout.ranges(&names).into_iter().collect();
        self.list_and_follow(&mut view, &layout, &ranges, records, looked_up);
        for name in &self.refused_names {
            let range = Range::Service(RegistryName::new(name.clone()).unwrap());
            assert!(ranges.contains(&range), "{name} has no range of its own");
            view.refuse(&range, registry_error("PermissionDenied"));
        }
        if state == View::Stale {
            view.set_stale();
        }
        drop(view);
        handle.set_phase(failed.unwrap_or(Phase::Watching));
    }

    /// The first list has the records and those that went; then they go as the file says.
    fn list_and_follow(
        &self,
        view: &mut RegistryView,
        layout: &Layout,
        ranges: &[Range],
        records: Records,
        looked_up: &mut LookedUp,
    ) {
        let mut all = records;
        let came_back = (self.incarnation != Incarnation::AsItWas).then_some(match self.incarnation {
            Incarnation::ClusterChanged => (FIRST.0 + 1, FIRST.1),
            _ => (FIRST.0, FIRST.1 - 100),
        });
        let gone = |records: &BTreeMap<String, RecordGiven>| -> Records {
            records.iter().map(|(key, given)| (key.as_str().into(), given.raw(key, 50))).collect()
        };
        let first = if self.deletions.is_empty() { came_back.unwrap_or(FIRST) } else { FIRST };
        let left = all.clone();
        all.extend(self.deletions.iter().flat_map(|deletion| gone(&deletion.records)));
        view.begin(None);
        list(view, layout, ranges, &all, first, -3600);
        for (index, deletion) in self.deletions.iter().enumerate() {
            let revision = FIRST.1 + 1 + index as i64;
            let keys: Vec<RecordKey> =
                gone(&deletion.records).into_keys().filter(|key| !left.contains_key(key)).collect();
            all.retain(|key, _| !keys.contains(key));
            let affected = match (deletion.seen_by, came_back) {
                (_, Some(other)) => {
                    view.begin(None);
                    list(view, layout, ranges, &all, other, deletion.at)
                }
                (SeenBy::List, None) => list(view, layout, ranges, &all, (FIRST.0, revision), deletion.at),
                (SeenBy::Watch, None) => {
                    let changes: Vec<Change> = keys.into_iter().map(|key| Change::Delete { key, revision }).collect();
                    view.apply(&changes, at(deletion.at))
                }
            };
            for look_up in affected.look_ups {
                let evidence = deletion.lease.map(|lease| match lease {
                    LeaseAnswer::Lives => look_up.if_it_lives,
                    LeaseAnswer::Gone => Evidence::LeaseExpired,
                    LeaseAnswer::Unreadable => Evidence::LeaseUnreadable,
                });
                looked_up.extend(look_up.addrs.iter().filter_map(|addr| Some((*addr, evidence?))));
            }
        }
    }

    /// Other services report to the registry's guard, and its administrator approves.
    pub fn fill_guards(&self, Views { guards, env, .. }: &Views) {
        guards.begin(MAIN, Term(self.term), None, env);
        for (name, report) in &self.reports {
            guards.report(MAIN, &ServiceKey::new("shop", name), Some(report.deletions()), env);
        }
        let registries = self.registry_objects();
        let annotations = registries.first().and_then(|object| object.metadata.annotations.as_ref());
        if let Some(hash) = annotations.and_then(|annotations| annotations.get(APPROVE_DELETIONS)) {
            assert_eq!(guards.approve(MAIN, hash, env), Approval::Released, "{:?}", guards.held(MAIN, env));
        }
    }

    /// The facts that other tasks find.
    pub fn override_facts(&self, observed: &mut Observed, looked_up: &LookedUp) {
        let facts = &mut observed.facts;
        facts.probes = self.probes.iter().map(|(text, given)| (addr(text), given.probe())).collect();
        for registry in facts.registry.iter_mut().chain(&mut facts.former) {
            registry.orphan_grace_until = self.orphan_grace_until.map(at);
        }
        let departures = facts.registry.iter_mut().flat_map(|registry| &mut registry.snapshot.departures);
        for (addr, departure) in departures.filter(|(_, departure)| departure.evidence == Evidence::LookingUp) {
            departure.evidence = looked_up.get(addr).copied().unwrap_or(departure.evidence);
        }
    }
}

/// A list of every range.
fn list(
    view: &mut RegistryView,
    layout: &Layout,
    ranges: &[Range],
    records: &Records,
    (cluster_id, revision): (u64, i64),
    time: i64,
) -> Affected {
    let mut affected = Affected::default();
    for range in ranges {
        let prefix = layout.key_prefix(range);
        let within = |record: &&RawRecord| record.key.as_bytes().starts_with(prefix.as_bytes());
        let records = records.values().filter(within).cloned().collect();
        affected.add(view.reset_to(range, &ListResponse { cluster_id, revision, records }, at(time)));
    }
    view.set_settled();
    affected
}
