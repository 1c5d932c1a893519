//! One pass over a service in which one instance is new.
//!
//! Owns the facts of the pass. Refuses to know how memory is counted.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use jiff::SignedDuration;
use twinspan_core::Timestamp;
use twinspan_core::codec::{Format, Layout};
use twinspan_core::model::{
    AddressType, ExportAddress, Family, IMPORTED_FROM_ANNOTATION, Instance, InstanceAddr, LeaseId, MANAGED_BY,
    OWNER_TAG, Owner, RawRecord, Records, RegistryName, Selector, ServiceKey, ServicePortView, ServiceView, Slice,
    SliceEndpoint, SlicePort, TCP, Tags, TrafficDistribution,
};
use twinspan_core::plan::departure::OnExpiry;
use twinspan_core::plan::departure::guard::Limits;
use twinspan_core::plan::import::Options;
use twinspan_core::plan::service::{
    Accepted, AcceptedPort, Checkpoint, ClusterFacts, Facts, FormerGoals, Goal, HoldFacts, Incarnation, RegistryFacts,
    Siblings, Snapshot, Term, ViewState, plan,
};
use twinspan_core::plan::trust;

use crate::blocks;

const PORT: u16 = 8888;

/// The blocks that a plan allocates, in each direction.
pub fn all() -> Vec<(&'static str, f64)> {
    vec![
        ("allocations: plan of one more export, beside 10", one_more(true, 10)),
        ("allocations: plan of one more export, beside 1000", one_more(true, 1000)),
        ("allocations: plan of one more import, beside 10", one_more(false, 10)),
        ("allocations: plan of one more import, beside 1000", one_more(false, 1000)),
    ]
}

fn one_more(exports: bool, beside: usize) -> f64 {
    let (goal, now) = (goal(exports), Timestamp::UNIX_EPOCH);
    let (siblings, former) = (Siblings::default(), FormerGoals::new());
    let pass = |facts: &Facts, checkpoint: &Checkpoint| plan(facts, &goal, &former, &siblings, checkpoint, now, now);
    let before = facts(exports, beside, beside);
    let first = pass(&before, &Checkpoint::default());
    assert!(first.is_empty(), "both sides are equal");
    let checkpoint = first.checkpoint(&before, &Checkpoint::default());
    let (records, endpoints) = if exports { (beside, beside + 1) } else { (beside + 1, beside) };
    let after = facts(exports, records, endpoints);
    blocks(|| {
        let plan = pass(&after, &checkpoint);
        let records: usize = plan.records.iter().map(|(_, ops)| ops.len()).sum();
        assert_eq!(records + plan.slices.ops.len(), 1, "one write");
        plan
    })
}

fn name() -> RegistryName {
    RegistryName::new("echo").unwrap()
}

fn owner() -> Owner {
    Owner { cluster_id: "bench".into(), service: ServiceKey::new("shop", "echo") }
}

fn addr(n: usize) -> InstanceAddr {
    let first = u32::from(Ipv4Addr::new(10, 128, 0, 1));
    InstanceAddr::new(IpAddr::V4(Ipv4Addr::from(first + u32::try_from(n).unwrap())), PORT).unwrap()
}

fn tags() -> Tags {
    Tags::from_iter([("env".to_owned(), "prod".to_owned())])
}

fn port() -> ServicePortView {
    ServicePortView { name: "rpc".into(), number: PORT.into(), node_port: None, tcp: true, app_protocol: None }
}

fn goal(exports: bool) -> Goal {
    Goal::Sync(Box::new(Accepted {
        name: name(),
        service: ServiceKey::new("shop", "echo"),
        import_service: ServiceKey::new("shop", "echo"),
        exports,
        imports: !exports,
        ports: vec![AcceptedPort { port: port(), scheme: String::new() }],
        families: vec![Family::V4],
        address: ExportAddress::Pod,
        weight: 10,
        share: None,
        tags: tags().into_iter().collect(),
        tags_from_labels: Vec::new(),
        zone_tag: String::new(),
        import: Options {
            schemes: vec![String::new()],
            other_clusters: None,
            tag_selector: Selector::default(),
            zone_tag: String::new(),
            on_expiry: OnExpiry::Probe,
            keep_lost: SignedDuration::from_secs(3600),
        },
        limits: Limits { min_instances: 10, max_delete_percent: 50, hold: SignedDuration::from_secs(300) },
        policy: trust::Policy::default(),
        create: None,
        amend: None,
        adopt: false,
    }))
}

/// Records of ours where the service is exported, and else those of servers.
fn records(layout: &Layout, ours: bool, many: usize) -> Records {
    let record = |n| {
        let instance = Instance::single(addr(n), 10, tags());
        let mut says = layout.registration(&name(), &owner(), &instance);
        if !ours {
            says.tags.remove(OWNER_TAG);
        }
        let key = layout.key(&name(), &owner(), &instance);
        let raw = RawRecord { key: key.clone(), value: layout.encode(&says), mod_revision: 7, lease: LeaseId(7) };
        (key, Arc::new(layout.decode(&raw)))
    };
    (0..many).map(record).collect()
}

fn slices(ours: bool, many: usize) -> Vec<Arc<Slice>> {
    let all: Vec<usize> = (0..many).collect();
    let slice = |(n, some): (usize, &[usize])| {
        let labels = [("kubernetes.io/service-name", "echo"), ("endpointslice.kubernetes.io/managed-by", MANAGED_BY)];
        let labels = labels.into_iter().chain([("service.kubernetes.io/headless", "")]);
        Arc::new(Slice {
            name: format!("echo-{n}"),
            resource_version: "1".into(),
            service: Some("echo".into()),
            managed_by: Some(if ours { MANAGED_BY } else { "endpointslice-controller.k8s.io" }.into()),
            owner_uid: ours.then(|| "uid".into()),
            keeper: ours.then(|| "echo".into()),
            others_labels: BTreeSet::new(),
            deleting: false,
            address_type: AddressType::Ip(Family::V4),
            ports: vec![SlicePort { name: "rpc".into(), protocol: TCP.into(), number: Some(PORT), app_protocol: None }],
            endpoints: some.iter().map(|n| SliceEndpoint::ready(addr(*n).ip())).collect(),
            labels: labels.map(|(label, value)| (label.to_owned(), value.to_owned())).collect(),
            annotations: [(IMPORTED_FROM_ANNOTATION.to_owned(), "main/echo".to_owned())].into(),
        })
    };
    all.chunks(100).enumerate().map(slice).collect()
}

fn facts(exports: bool, records: usize, endpoints: usize) -> Facts {
    let layout = Layout::new(Format::Kitex, "kitex/registry-etcd");
    let service = ServiceView {
        name: "echo".into(),
        uid: "service-uid".into(),
        external_name: false,
        headless: true,
        selector: true,
        selects: Default::default(),
        traffic: TrafficDistribution::Anywhere,
        ports: vec![port()],
        cluster_ips: Vec::new(),
        external_ips: Vec::new(),
        balancer_ips: Vec::new(),
        local_traffic: false,
        families: vec![Family::V4],
        labels: BTreeMap::new(),
        owner_uid: None,
        deleting: false,
        created: None,
        annotations: Default::default(),
    };
    let service = Arc::new(service);
    let (of_others, of_ours) = if exports { (endpoints, 0) } else { (0, endpoints) };
    let snapshot = Snapshot {
        state: ViewState::Fresh,
        incarnation: Incarnation::AsItWas,
        revision: 2000,
        records: Arc::new(self::records(&layout, exports, records)),
        under_other_names: Records::new(),
        departures: BTreeMap::new(),
    };
    Facts {
        key: ServiceKey::new("shop", "echo"),
        term: Some(Term(1)),
        uid: "uid".into(),
        generation: Some(1),
        observed_generation: Some(1),
        imported_before: true,
        cluster: ClusterFacts {
            service: Some(service.clone()),
            import_service: Some(service),
            others_slices: slices(false, of_others),
            our_slices: slices(true, of_ours),
            ..ClusterFacts::default()
        },
        registry: Some(RegistryFacts {
            name: "main".into(),
            layout,
            owner: owner(),
            registry_name: Some(name()),
            orphan_grace_until: None,
            vanished: None,
            snapshot,
        }),
        former: Vec::new(),
        probes: BTreeMap::new(),
        holds: HoldFacts::default(),
    }
}
