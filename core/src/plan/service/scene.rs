//! The two sides of one pass, drawn at random: records of every writer, endpoints, slices, and another
//! RegisteredService that wants the same.
//!
//! Owns the state and the facts that follow from it. Refuses to know what has to hold.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use jiff::SignedDuration;
use proptest::prelude::*;

use super::*;
use crate::codec::testing::{US, layout};
use crate::codec::{Format, Layout};
use crate::model::{
    AddressType, Family, Instance, LeaseId, MANAGED_BY, Owner, Precedence, RawRecord, RegistryName, Selector,
    ServiceKey, ServicePortView, Slice, SliceEndpoint, SlicePort, TCP, TrafficDistribution,
};
use crate::plan::departure::OnExpiry;
use crate::plan::import::{Options, OtherClusters};
use crate::plan::trust;

const PORT: u16 = 80;
pub(super) const LEASE: LeaseId = LeaseId(7);
/// The name of another RegisteredService of this cluster.
pub(super) const RIVAL: &str = "other";

/// The writer of a good record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Writer {
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

/// Another RegisteredService of the same Service and name.
#[derive(Clone, Debug)]
pub(super) struct Rival {
    /// Whether discovery made us, and it.
    pub discovered: (bool, bool),
    /// Whether it was created after us.
    pub younger: bool,
    /// Endpoints in a slice of its own.
    imported: BTreeSet<u8>,
}

impl Rival {
    /// The precedence of one of the two.
    pub fn precedence(&self, of: &str) -> Precedence {
        let (discovered, created) = match of {
            RIVAL => (self.discovered.1, if self.younger { 600 } else { 400 }),
            _ => (self.discovered.0, 500),
        };
        Precedence::new(discovered, Some(at(created)), ServiceKey::new("shop", of))
    }
}

/// The state of both sides.
#[derive(Clone, Debug)]
pub(super) struct Scene {
    pub layout: Layout,
    pub direction: (bool, bool),
    heal: bool,
    other_clusters: Option<OtherClusters>,
    /// Ready endpoints of the cluster, by the last byte of the address.
    pub endpoints: BTreeSet<u8>,
    /// Good records, by the last byte of the address: among them those of endpoints.
    good: BTreeMap<u8, Writer>,
    /// Endpoints in a slice of ours.
    imported: BTreeSet<u8>,
    leads: bool,
    pub goal: u8,
    min_instances: usize,
    /// The part of the traffic that exports get, in percent.
    share: Option<i64>,
    /// Endpoints in the pass before; the proof of their end follows from `relisted`.
    before: BTreeSet<u8>,
    relisted: bool,
    rival: Option<Rival>,
}

pub(super) fn rival() -> impl Strategy<Value = Rival> {
    let hosts = prop::collection::btree_set(1_u8..5, 0..4);
    (any::<(bool, bool)>(), any::<bool>(), hosts).prop_map(|(discovered, younger, imported)| Rival {
        discovered,
        younger,
        imported,
    })
}

pub(super) fn scene() -> impl Strategy<Value = Scene> {
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
    let named = |names: &[&str], min_local| {
        Some(OtherClusters { names: names.iter().map(ToString::to_string).collect(), min_local })
    };
    let clusters = prop::sample::select(vec![None, named(&[], None), named(&[], Some(1)), named(&["c2"], Some(3))]);
    let records = prop::collection::btree_map(1_u8..8, writer, 0..5);
    let all = (layout(), direction, (any::<bool>(), clusters), few(), records, few());
    let leads = prop::bool::weighted(0.9);
    let limits = (prop::sample::select(vec![1_usize, 10]), prop::option::of(1_i64..100));
    let (goal, rival) = (0_u8..8, prop::option::of(rival()));
    (all, leads, goal, limits, few(), any::<bool>(), rival).prop_map(
        |(
            (layout, direction, (heal, other_clusters), endpoints, good, imported),
            leads,
            goal,
            (min_instances, share),
            before,
            relisted,
            rival,
        )| {
            Scene {
                layout,
                direction,
                heal,
                other_clusters,
                endpoints,
                good,
                imported,
                leads,
                goal,
                min_instances,
                share,
                before,
                relisted,
                rival,
            }
        },
    )
}

pub(super) fn name() -> RegistryName {
    RegistryName::new("echo").unwrap()
}

pub(super) fn owner(cluster_id: &str, service: &str) -> Owner {
    Owner { cluster_id: cluster_id.to_owned(), service: ServiceKey::new("shop", service) }
}

/// Endpoints are pods, and the other servers are outside of the cluster.
pub(super) fn addr(host: u8) -> InstanceAddr {
    InstanceAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, host)), PORT).unwrap()
}

fn scheme(format: Format) -> String {
    format.default_scheme().to_owned()
}

/// A good record as its writer writes it.
pub(super) fn good(layout: &Layout, host: u8, writer: Writer) -> RawRecord {
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
        Writer::Sibling => writes(&owner(US, RIVAL)),
        Writer::OtherCluster => writes(&owner("c2", "echo")),
        Writer::Healed if format.heals() => (key, layout.healed(&says, &owner(US, "echo"))),
        Writer::HealedElsewhere if format.heals() => (key, layout.healed(&says, &owner("c2", "echo"))),
        Writer::Healed | Writer::HealedElsewhere => (key, says),
    };
    RawRecord { key, value: layout.encode(&says), mod_revision: 100 + i64::from(host), lease: LEASE }
}

fn slice(name: &str, keeper: Option<&str>, hosts: &BTreeSet<u8>) -> Arc<Slice> {
    Arc::new(Slice {
        name: name.into(),
        resource_version: "1".into(),
        service: Some("echo".into()),
        managed_by: Some(keeper.map_or("endpointslice-controller.k8s.io", |_| MANAGED_BY).into()),
        owner_uid: keeper.map(uid),
        keeper: keeper.map(ToOwned::to_owned),
        others_labels: BTreeSet::new(),
        deleting: false,
        address_type: AddressType::Ip(Family::V4),
        ports: vec![SlicePort { name: "rpc".into(), protocol: TCP.into(), number: Some(PORT), app_protocol: None }],
        endpoints: hosts.iter().map(|host| SliceEndpoint::ready(addr(*host).ip())).collect(),
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
    })
}

fn uid(of: &str) -> String {
    format!("uid-of-{of}")
}

pub(super) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap()
}

impl Scene {
    fn service_port() -> ServicePortView {
        ServicePortView { name: "rpc".into(), number: PORT.into(), node_port: None, tcp: true, app_protocol: None }
    }

    fn options(&self) -> Options {
        Options {
            schemes: vec![scheme(self.layout.format())],
            other_clusters: self.other_clusters.clone(),
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
                gated: BTreeSet::new(),
            })),
            _ => Goal::Sync(Box::new(self.accepted())),
        }
    }

    /// The settings of each RegisteredService that syncs.
    pub fn accepted(&self) -> Accepted {
        Accepted {
            name: name(),
            service: ServiceKey::new("shop", "echo"),
            import_service: ServiceKey::new("shop", "echo"),
            exports: self.direction.0,
            imports: self.direction.1,
            ports: vec![AcceptedPort { port: Self::service_port(), scheme: scheme(self.layout.format()) }],
            families: vec![Family::V4],
            address: crate::model::ExportAddress::Pod,
            weight: 10,
            share: self.share,
            tags: BTreeMap::new(),
            tags_from_labels: Vec::new(),
            zone_tag: String::new(),
            import: self.options(),
            limits: self.limits(),
            policy: trust::Policy::default(),
            create: None,
            amend: None,
            adopt: false,
        }
    }

    /// The facts of one RegisteredService with these records, as the view of a registry would give them.
    pub fn facts(&self, of: &str, records: &[RawRecord], endpoints: &BTreeSet<u8>, relists: u64) -> Facts {
        let none = BTreeSet::new();
        let imported = if of == "echo" { &self.imported } else { self.rival.as_ref().map_or(&none, |r| &r.imported) };
        let (mut here, mut elsewhere) = (BTreeMap::new(), BTreeMap::new());
        for raw in records {
            let record = Arc::new(self.layout.decode(raw));
            let found = self.layout.split_key(&raw.key).map(|(found, _)| found.to_vec());
            if found.as_deref() == Some(name().as_str().as_bytes()) {
                here.insert(raw.key.clone(), record);
            } else if found.is_some() && record.ours(US).is_some_and(|ours| **ours == owner(US, of)) {
                elsewhere.insert(raw.key.clone(), record);
            }
        }
        let service = ServiceView {
            name: "echo".into(),
            uid: "service-uid".into(),
            external_name: false,
            headless: true,
            selector: true,
            selects: Default::default(),
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
            key: ServiceKey::new("shop", of),
            term: self.leads.then_some(Term(1)),
            uid: uid(of),
            generation: Some(1),
            observed_generation: Some(1),
            imported_before: true,
            cluster: ClusterFacts {
                service: Some(service.clone()),
                import_service: Some(service),
                others_slices: vec![slice("others", None, endpoints)],
                our_slices: vec![slice(of, Some(of), imported)],
                relists,
                ..ClusterFacts::default()
            },
            registry: Some(RegistryFacts {
                name: "main".into(),
                layout: self.layout.clone(),
                owner: owner(US, of),
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

    /// The same while both RegisteredServices export. A registration that was put back for a server has the address of
    /// no endpoint here: it goes before the endpoint's own record comes, whoever else exports.
    pub fn exporting_beside(mut self, rival: Rival) -> Self {
        (self.direction.0, self.rival) = (true, Some(rival));
        let endpoints = &self.endpoints;
        self.good.retain(|host, writer| *writer != Writer::Healed || !endpoints.contains(host));
        self
    }

    /// The siblings of one of the two, as it sees them.
    pub fn siblings(&self, facts: &Facts, goal: &Goal, records: &[RawRecord], now: Timestamp) -> Siblings {
        let Some(rival) = &self.rival else { return Siblings::default() };
        let other = if facts.key.name == "echo" { RIVAL } else { "echo" };
        let sibling = Sibling {
            precedence: rival.precedence(other),
            accepted: self.accepted(),
            facts: self.facts(other, records, &self.endpoints, 0),
            checkpoint: Checkpoint::default(),
        };
        weigh(facts, &rival.precedence(&facts.key.name), goal.accepted(), &[sibling], now)
    }

    pub fn good(&self) -> Vec<RawRecord> {
        self.good.iter().map(|(host, writer)| good(&self.layout, *host, *writer)).collect()
    }

    /// Two passes, the second of which finds other endpoints.
    pub fn passes(&self, records: &[RawRecord]) -> [Plan; 2] {
        let pass = |facts: &Facts, checkpoint: &Checkpoint, now: Timestamp| {
            let siblings = self.siblings(facts, &self.goal(), records, now);
            plan(facts, &self.goal(), &FormerGoals::new(), &siblings, checkpoint, now, now)
        };
        let facts = self.facts("echo", records, &self.before, 0);
        let (new, first_at) = (Checkpoint::default(), at(1_000));
        let first = pass(&facts, &new, first_at);
        let checkpoint = first.checkpoint(&facts, &new);
        let facts = self.facts("echo", records, &self.endpoints, u64::from(self.relisted));
        let second = pass(&facts, &checkpoint, at(1_020));
        [first, second]
    }
}

pub(super) fn unique(records: impl IntoIterator<Item = RawRecord>) -> BTreeMap<RecordKey, RawRecord> {
    records.into_iter().map(|raw| (raw.key.clone(), raw)).collect()
}
