//! Properties of a whole pass: any bytes as records, beside good ones and in place of them.
//!
//! Owns that a pass ends, that it touches only records that this cluster wrote, and that junk changes nothing about the
//! others. Refuses to know how bytes decode, which [`crate::codec`] has properties of.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use jiff::SignedDuration;
use proptest::prelude::*;

use super::*;
use crate::codec::testing::{US, layout, record, repeatable};
use crate::codec::{Format, Layout};
use crate::model::{
    AddressType, Family, Instance, InstanceOutcome, Kind, LeaseId, MANAGED_BY, Outcome, Owner, RawRecord, RegistryName,
    Selector, ServiceKey, ServicePortView, Slice, SliceEndpoint, SlicePort, TCP, TrafficDistribution,
};
use crate::plan::departure::OnExpiry;
use crate::plan::import::Options;
use crate::plan::trust;

const PORT: u16 = 80;
const LEASE: LeaseId = LeaseId(7);

/// The writer of a good record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Writer {
    Server,
    Us,
    /// Another RegisteredService of this cluster.
    Sibling,
    OtherCluster,
    /// We put it back for its server.
    Healed,
    /// Another cluster put it back.
    HealedElsewhere,
}

/// The state of both sides.
#[derive(Clone, Debug)]
struct Scene {
    layout: Layout,
    direction: (bool, bool),
    heal: bool,
    /// Ready endpoints of the cluster, by the last byte of the address.
    endpoints: BTreeSet<u8>,
    /// Good records, by the last byte of the address: among them those of endpoints.
    good: BTreeMap<u8, Writer>,
    /// Endpoints in a slice of ours.
    imported: BTreeSet<u8>,
    leads: bool,
    goal: u8,
    min_instances: usize,
    /// Endpoints in the pass before; the proof of their end follows from `relisted`.
    before: BTreeSet<u8>,
    relisted: bool,
}

fn scene() -> impl Strategy<Value = Scene> {
    let writer = prop::sample::select(vec![
        Writer::Server,
        Writer::Server,
        Writer::Us,
        Writer::Us,
        Writer::Sibling,
        Writer::OtherCluster,
        Writer::Healed,
        Writer::HealedElsewhere,
    ]);
    let few = || prop::collection::btree_set(1_u8..5, 0..4);
    let direction = prop::sample::select(vec![(true, true), (true, true), (true, false), (false, true)]);
    let all = (layout(), direction, any::<bool>(), few(), prop::collection::btree_map(1_u8..8, writer, 0..5), few());
    (all, prop::bool::weighted(0.9), 0_u8..8, prop::sample::select(vec![1_usize, 10]), few(), any::<bool>()).prop_map(
        |((layout, direction, heal, endpoints, good, imported), leads, goal, min_instances, before, relisted)| Scene {
            layout,
            direction,
            heal,
            endpoints,
            good,
            imported,
            leads,
            goal,
            min_instances,
            before,
            relisted,
        },
    )
}

fn name() -> RegistryName {
    RegistryName::new("echo").unwrap()
}

fn owner(cluster_id: &str, service: &str) -> Owner {
    Owner { cluster_id: cluster_id.to_owned(), service: ServiceKey::new("shop", service) }
}

/// Endpoints are pods, and the other servers are outside of the cluster.
fn addr(host: u8) -> InstanceAddr {
    InstanceAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, host)), PORT).unwrap()
}

fn scheme(format: Format) -> String {
    format.default_scheme().to_owned()
}

/// A good record as its writer writes it.
fn good(layout: &Layout, host: u8, writer: Writer) -> RawRecord {
    let format = layout.format();
    let instance = Instance {
        addr: addr(host),
        endpoints: vec![(scheme(format), addr(host))],
        weight: 10,
        tags: Default::default(),
    };
    let writes =
        |owner: &Owner| (layout.key(&name(), owner, &instance), layout.registration(&name(), owner, &instance));
    let (own_key, mut says) = writes(&owner(US, "echo"));
    says.tags.remove(crate::model::OWNER_TAG);
    let key = if own_key.last_segment() == addr(host).to_string() {
        own_key
    } else {
        format!("{}server-{host}", layout.service_root(&name())).into()
    };
    let (key, says) = match writer {
        Writer::Server => (key, says),
        Writer::Us => writes(&owner(US, "echo")),
        Writer::Sibling => writes(&owner(US, "other")),
        Writer::OtherCluster => writes(&owner("c2", "echo")),
        Writer::Healed if format.heals() => (key, layout.healed(&says, &owner(US, "echo"))),
        Writer::HealedElsewhere if format.heals() => (key, layout.healed(&says, &owner("c2", "echo"))),
        Writer::Healed | Writer::HealedElsewhere => (key, says),
    };
    RawRecord { key, value: layout.encode(&says), mod_revision: 100 + i64::from(host), lease: LEASE }
}

fn slice(name: &str, ours: bool, hosts: &BTreeSet<u8>) -> Arc<Slice> {
    Arc::new(Slice {
        name: name.into(),
        resource_version: "1".into(),
        service: Some("echo".into()),
        managed_by: Some(if ours { MANAGED_BY } else { "endpointslice-controller.k8s.io" }.into()),
        owner_uid: ours.then(|| "uid".into()),
        keeper: ours.then(|| "echo".into()),
        others_labels: BTreeSet::new(),
        deleting: false,
        address_type: AddressType::Ip(Family::V4),
        ports: vec![SlicePort { name: "rpc".into(), protocol: TCP.into(), number: Some(PORT), app_protocol: None }],
        endpoints: hosts.iter().map(|host| SliceEndpoint::ready(addr(*host).ip())).collect(),
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
    })
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap()
}

impl Scene {
    fn service_port() -> ServicePortView {
        ServicePortView { name: "rpc".into(), number: PORT.into(), node_port: None, tcp: true, app_protocol: None }
    }

    fn options(&self) -> Options {
        Options {
            schemes: vec![scheme(self.layout.format())],
            other_clusters: false,
            tag_selector: Selector::default(),
            zone_tag: String::new(),
            on_expiry: if self.heal { OnExpiry::Heal } else { OnExpiry::Probe },
            keep_lost: SignedDuration::from_secs(3600),
        }
    }

    fn limits(&self) -> Limits {
        Limits { min_instances: self.min_instances, max_delete_percent: 50, hold: SignedDuration::from_secs(300) }
    }

    fn goal(&self) -> Goal {
        match self.goal {
            0 => Goal::Withdraw { guarded: Some(self.limits()) },
            1 => Goal::Withdraw { guarded: None },
            2 => Goal::Revoke,
            3 => Goal::Reduce(Box::new(Reduced {
                import: self.options(),
                limits: self.limits(),
                policy: trust::Policy::default(),
                ready: self.endpoints.iter().map(|host| addr(*host).ip()).collect(),
            })),
            _ => Goal::Sync(Box::new(Accepted {
                name: name(),
                service: ServiceKey::new("shop", "echo"),
                import_service: ServiceKey::new("shop", "echo"),
                exports: self.direction.0,
                imports: self.direction.1,
                ports: vec![AcceptedPort { port: Self::service_port(), scheme: scheme(self.layout.format()) }],
                families: vec![Family::V4],
                address: crate::model::ExportAddress::Pod,
                weight: 10,
                tags: BTreeMap::new(),
                tags_from_labels: Vec::new(),
                import: self.options(),
                limits: self.limits(),
                policy: trust::Policy::default(),
                create: None,
                amend: None,
            })),
        }
    }

    /// The facts with these records, as the view of a registry would give them.
    fn facts(&self, records: &[RawRecord], endpoints: &BTreeSet<u8>, relists: u64) -> Facts {
        let (mut here, mut elsewhere) = (BTreeMap::new(), BTreeMap::new());
        for raw in records {
            let record = Arc::new(self.layout.decode(raw));
            let found = self.layout.split_key(&raw.key).map(|(found, _)| found.to_vec());
            if found.as_deref() == Some(name().as_str().as_bytes()) {
                here.insert(raw.key.clone(), record);
            } else if found.is_some() && record.ours(US) == Some(&owner(US, "echo")) {
                elsewhere.insert(raw.key.clone(), record);
            }
        }
        let service = ServiceView {
            name: "echo".into(),
            uid: "service-uid".into(),
            external_name: false,
            headless: true,
            selector: true,
            traffic: TrafficDistribution::Anywhere,
            ports: vec![Self::service_port()],
            cluster_ips: Vec::new(),
            external_ips: Vec::new(),
            balancer_ips: Vec::new(),
            local_traffic: false,
            families: vec![Family::V4],
            labels: BTreeMap::new(),
            owner_uid: None,
            deleting: false,
            created: None,
            annotations: BTreeMap::new(),
        };
        let service = Arc::new(service);
        Facts {
            key: ServiceKey::new("shop", "echo"),
            term: self.leads.then_some(Term(1)),
            uid: "uid".into(),
            generation: Some(1),
            observed_generation: Some(1),
            imported_before: true,
            cluster: ClusterFacts {
                service: Some(service.clone()),
                import_service: Some(service),
                others_slices: vec![slice("others", false, endpoints)],
                our_slices: vec![slice("ours", true, &self.imported)],
                relists,
                ..ClusterFacts::default()
            },
            registry: Some(RegistryFacts {
                name: "main".into(),
                layout: self.layout.clone(),
                owner: owner(US, "echo"),
                registry_name: Some(name()),
                orphan_grace_until: None,
                vanished: None,
                snapshot: Snapshot {
                    state: ViewState::Fresh,
                    incarnation: Incarnation::AsItWas,
                    revision: 2000,
                    records: Arc::new(here),
                    under_other_names: elsewhere,
                    departures: BTreeMap::new(),
                },
            }),
            former: Vec::new(),
            probes: BTreeMap::new(),
            holds: HoldFacts::default(),
        }
    }

    fn good(&self) -> Vec<RawRecord> {
        self.good.iter().map(|(host, writer)| good(&self.layout, *host, *writer)).collect()
    }

    /// Two passes, the second of which finds other endpoints.
    fn passes(&self, records: &[RawRecord]) -> [Plan; 2] {
        let pass = |facts: &Facts, checkpoint: &Checkpoint, now: Timestamp| {
            plan(facts, &self.goal(), &FormerGoals::new(), &Siblings::default(), checkpoint, now, now)
        };
        let facts = self.facts(records, &self.before, 0);
        let (new, first_at) = (Checkpoint::default(), at(1_000));
        let first = pass(&facts, &new, first_at);
        let checkpoint = first.checkpoint(&facts, &new);
        let facts = self.facts(records, &self.endpoints, u64::from(self.relisted));
        let second = pass(&facts, &checkpoint, at(1_020));
        [first, second]
    }
}

/// The plan without the part that may tell of junk, and the memory that it is known.
fn essence(plan: &Plan, junk: &[RawRecord]) -> Plan {
    let mut plan = plan.clone();
    plan.outcomes.skipped.clear();
    plan.outcomes.foreign_records = 0;
    if let Some(directions) = &mut plan.directions {
        directions.import.skipped.clear();
        let doubted = directions.import.state.doubted.iter_mut();
        doubted.for_each(|doubted| doubted.retain(|key, _| junk.iter().all(|raw| raw.key != *key)));
    }
    plan
}

/// The outcomes that only the second list has, if it has all of the first.
fn added(without: &[InstanceOutcome], with: &[InstanceOutcome]) -> Option<Vec<InstanceOutcome>> {
    let mut rest = with.to_vec();
    for outcome in without {
        rest.remove(rest.iter().position(|other| other == outcome)?);
    }
    Some(rest)
}

/// Records of the scene, and any others. No two have one key.
fn with_others() -> impl Strategy<Value = (Scene, Vec<RawRecord>)> {
    scene().prop_flat_map(|scene| {
        let others = prop::collection::vec(record(scene.layout.clone()), 0..6);
        (Just(scene), others)
    })
}

fn unique(records: impl IntoIterator<Item = RawRecord>) -> BTreeMap<RecordKey, RawRecord> {
    records.into_iter().map(|raw| (raw.key.clone(), raw)).collect()
}

proptest! {
    #![proptest_config(repeatable(350))]

    #[test]
    fn a_pass_over_any_records_touches_only_those_that_this_cluster_wrote((scene, others) in with_others()) {
        let records = unique(scene.good().into_iter().chain(others));
        let all: Vec<RawRecord> = records.values().cloned().collect();
        let plans = scene.passes(&all);
        let all_ops = plans.iter().flat_map(|plan| plan.records.iter().chain(&plan.revoked.records));
        for op in all_ops.flat_map(|(_, ops)| ops) {
            let known = records.get(op.key());
            match op {
                RecordOp::Create { .. } => prop_assert!(known.is_none(), "{:?}", op),
                RecordOp::Update { if_revision, .. } | RecordOp::Delete { if_revision, .. } => {
                    let Some(known) = known else { panic!("{op:?}: nothing is there") };
                    prop_assert_eq!(*if_revision, known.mod_revision);
                    let decoded = scene.layout.decode(known);
                    prop_assert!(decoded.ours(US).is_some(), "{:?}: {:?}", op, decoded);
                }
            }
            if let RecordOp::Create { key, value } | RecordOp::Update { key, value, .. } = op {
                let raw = RawRecord { key: key.clone(), value: value.clone(), mod_revision: 1, lease: LEASE };
                let written = scene.layout.decode(&raw);
                prop_assert_eq!(written.ours(US), Some(&owner(US, "echo")), "we write only what is ours");
            }
        }
        prop_assert_eq!(scene.passes(&all), plans, "the same facts give the same plan");
    }

    #[test]
    fn junk_beside_good_records_changes_nothing_about_them((scene, others) in with_others()) {
        let clean = unique(scene.good());
        let wanted: BTreeSet<RecordKey> = (1..5).map(|host| good(&scene.layout, host, Writer::Us).key).collect();
        let is_junk = |raw: &RawRecord| {
            let decoded = scene.layout.decode(raw);
            let unmarked = matches!(decoded.kind(US), Kind::Foreign | Kind::OtherCluster | Kind::Undecodable);
            unmarked && decoded.client_addresses().next().is_none() && decoded.endpoint_addresses().next().is_none()
        };
        let junk = unique(others.into_iter().filter(is_junk));
        // At the key of a record, or of one that we would write, there is no room for a good one.
        let junk: Vec<RawRecord> =
            junk.into_values().filter(|raw| !clean.contains_key(&raw.key) && !wanted.contains(&raw.key)).collect();
        let clean: Vec<RawRecord> = clean.into_values().collect();
        let soiled: Vec<RawRecord> = clean.iter().chain(&junk).cloned().collect();
        for (without, with) in scene.passes(&clean).iter().zip(&scene.passes(&soiled)) {
            prop_assert_eq!(essence(with, &junk), essence(without, &junk), "with {:?}", junk);
            let Some(told) = added(&without.outcomes.skipped, &with.outcomes.skipped) else {
                panic!("{:?} lacks some of {:?}", with.outcomes.skipped, without.outcomes.skipped)
            };
            let left_out = |told: &InstanceOutcome| matches!(told.outcome, Outcome::Skipped(_) | Outcome::NotAccepted);
            prop_assert!(told.iter().all(left_out), "{:?}", told);
            // Each of them is told, with its reason.
            let here = |raw: &&RawRecord| scene.layout.split_key(&raw.key).is_some_and(|(found, _)| found == b"echo");
            if scene.goal > 3 && scene.direction.1 {
                prop_assert_eq!(told.len(), junk.iter().filter(here).count(), "{:?}", told);
            }
        }
    }
}
