//! A file of a pass → views, as watches and sessions would have filled them, and the pass over them.
//!
//! Owns the short forms and their defaults. Refuses to judge the result.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use twinspan_core::Timestamp;
use twinspan_core::codec::Layout;
use twinspan_core::model::{InstanceAddr, LeaseId, ObjectKey, RawRecord, Record, RegistryName, ServiceKey};
use twinspan_core::plan::departure::held::Hold;
use twinspan_core::plan::departure::{Answer, Departure, Evidence, Probe};
use twinspan_core::plan::service::{self, Incarnation, Plan};

use crate::api::{RegisteredService, RegisteredServiceStatus, ServiceRegistry};
use crate::cluster::convert;
use crate::cluster::view::{ClusterView, Kind};
use crate::controllers::registered_service::apply::Applied;
use crate::controllers::registered_service::checkpoint::{Checkpoint, Checkpoints};
use crate::controllers::registered_service::observe::{Observed, observe, read_pods};
use crate::controllers::registered_service::validate::{Validation, validate};
use crate::controllers::registered_service::{siblings, status};
use crate::controllers::service_registry::settings;
use crate::controllers::views::Views;
use crate::env::Env;
use crate::registry::handle::{Phase, RegistryHandle};
use crate::registry::sessions::Running;
use crate::registry::{ListResponse, RegistryError, ServerStatus};

/// The time of a pass that names none.
const NOON: i64 = 1_767_268_800;
const UID: &str = "uid-1";
const LEASE: i64 = 7;

/// One file.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Scene {
    /// The rule that the file shows, in a sentence.
    pub about: String,
    /// Earlier passes of this process, oldest first: each states only the inputs that differ from the last pass.
    #[serde(default)]
    before: Vec<Value>,
    #[serde(default)]
    given: Value,
    /// Compared by the caller.
    #[serde(default)]
    #[allow(dead_code)]
    expect: Value,
}

/// The inputs of one pass.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Given {
    /// Seconds after noon.
    time: i64,
    /// Merged into a default; `null` where it is gone.
    registered_service: Option<Value>,
    /// Other RegisteredServices, merged into the same default.
    siblings: Vec<Value>,
    service_registry: Option<Value>,
    /// Other ServiceRegistries, by name, merged into the same default.
    registries: BTreeMap<String, Value>,
    service: Option<Value>,
    /// Other Services, merged into the same default.
    services: Vec<Value>,
    namespace: Option<Value>,
    slices: Vec<SliceGiven>,
    pods: BTreeMap<String, PodGiven>,
    nodes: BTreeMap<String, Value>,
    service_cidrs: Vec<String>,
    /// Pods at these addresses vanished in a re-list.
    unseen: Vec<IpAddr>,
    /// How often a list changed the Service.
    relists: u64,
    records: BTreeMap<String, RecordGiven>,
    /// Records in other registries, by name.
    former_records: BTreeMap<String, BTreeMap<String, RecordGiven>>,
    view: View,
    incarnation: Option<String>,
    /// The error of the session.
    failed: Option<String>,
    departures: BTreeMap<String, DepartureGiven>,
    probes: BTreeMap<String, ProbeGiven>,
    /// The registry as a whole holds deletions from and until these seconds.
    registry_hold: Option<(i64, i64)>,
    /// Seconds until which orphans are left alone.
    orphan_grace_until: Option<i64>,
    dry_run: bool,
}

impl Default for Given {
    fn default() -> Self {
        Self {
            time: 0,
            registered_service: Some(json!({})),
            siblings: Vec::new(),
            service_registry: Some(json!({})),
            registries: BTreeMap::new(),
            service: Some(json!({})),
            services: Vec::new(),
            namespace: Some(json!({})),
            slices: Vec::new(),
            pods: BTreeMap::new(),
            nodes: BTreeMap::new(),
            service_cidrs: Vec::new(),
            unseen: Vec::new(),
            relists: 0,
            records: BTreeMap::new(),
            former_records: BTreeMap::new(),
            view: View::Fresh,
            incarnation: None,
            failed: None,
            departures: BTreeMap::new(),
            probes: BTreeMap::new(),
            registry_hold: None,
            orphan_grace_until: None,
            dry_run: false,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
enum View {
    Fresh,
    Unknown,
    Stale,
}

/// One EndpointSlice with one port.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SliceGiven {
    name: String,
    /// Ours carry the owner reference of the RegisteredService.
    #[serde(default)]
    ours: bool,
    #[serde(default = "built_in")]
    managed_by: String,
    #[serde(default = "rpc")]
    port: String,
    #[serde(default = "eighty")]
    number: u16,
    #[serde(default = "ipv4")]
    family: String,
    #[serde(default = "echo")]
    service: String,
    /// Address → `Ready`, `NotReady` or `Terminating`.
    endpoints: BTreeMap<String, String>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

fn built_in() -> String {
    "endpointslice-controller.k8s.io".into()
}

fn rpc() -> String {
    "rpc".into()
}

fn eighty() -> u16 {
    80
}

fn ipv4() -> String {
    "IPv4".into()
}

fn echo() -> String {
    "echo".into()
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PodGiven {
    ip: String,
    #[serde(default = "shop")]
    namespace: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    #[serde(default)]
    node: Option<String>,
    #[serde(default)]
    host_network: bool,
}

fn shop() -> String {
    "shop".into()
}

/// A record: the whole value as text, or a Kitex registration in short form.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct RecordGiven {
    value: Option<String>,
    address: String,
    network: String,
    weight: i64,
    tags: BTreeMap<String, String>,
    /// The mark of an export.
    owner: Option<String>,
    /// The mark of a registration that was put back.
    healed: Option<String>,
    lease: i64,
    revision: Option<i64>,
}

impl Default for RecordGiven {
    fn default() -> Self {
        Self {
            value: None,
            address: String::new(),
            network: "tcp".into(),
            weight: 10,
            tags: BTreeMap::new(),
            owner: None,
            healed: None,
            lease: LEASE,
            revision: None,
        }
    }
}

impl RecordGiven {
    fn raw(&self, key: &str, revision: i64) -> RawRecord {
        let mut tags = self.tags.clone();
        tags.extend(self.owner.iter().chain(&self.healed).map(|owner| ("twinspan.dev/owner".into(), owner.clone())));
        tags.extend(self.healed.iter().map(|_| ("twinspan.dev/healed".into(), "true".into())));
        let short = || {
            // The last segment of a Kitex key is the address.
            let last = key.rsplit('/').next().unwrap_or_default();
            let address = if self.address.is_empty() { last } else { &self.address };
            let value = json!({"network": self.network, "address": address, "weight": self.weight, "tags": tags});
            value.to_string()
        };
        let value = self.value.clone().unwrap_or_else(short).into_bytes();
        RawRecord {
            key: key.into(),
            value,
            mod_revision: self.revision.unwrap_or(revision),
            lease: LeaseId(self.lease),
        }
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct DepartureGiven {
    evidence: String,
    #[serde(default)]
    at: i64,
    /// The key and the record as it was.
    #[serde(default)]
    key: Option<String>,
    #[serde(default)]
    record: RecordGiven,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ProbeGiven {
    answer: String,
    #[serde(default)]
    since: i64,
}

/// Everything about one pass.
#[derive(Debug)]
pub struct Passed {
    pub observed: Observed,
    pub validation: Validation,
    pub plan: Plan,
    pub status: RegisteredServiceStatus,
    pub now: Timestamp,
}

impl Scene {
    /// Runs the earlier passes, then the one that the file is about.
    pub fn run(&self) -> Passed {
        assert!(self.about.ends_with('.'), "a sentence: {}", self.about);
        let checkpoints = Checkpoints::default();
        for earlier in &self.before {
            let mut given = self.given.clone();
            merge(&mut given, earlier.clone());
            let passed = read(given).pass(&checkpoints);
            let planned = passed.plan.checkpoint(&passed.observed.facts, &passed.observed.checkpoint.planned);
            checkpoints.set(&key(), Checkpoint { planned, ..Checkpoint::default() });
        }
        read(self.given.clone()).pass(&checkpoints)
    }
}

fn read(given: Value) -> Given {
    let given = if given.is_null() { json!({}) } else { given };
    serde_json::from_value(given).unwrap_or_else(|error| panic!("given: {error}"))
}

/// Objects merge; everything else is replaced, also by `null`.
fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

fn object<K: DeserializeOwned>(mut default: Value, given: &Value) -> K {
    merge(&mut default, given.clone());
    serde_json::from_value(default).unwrap_or_else(|error| panic!("{given}: {error}"))
}

fn key() -> ServiceKey {
    ServiceKey::new("shop", "echo")
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(NOON + seconds).unwrap()
}

fn addr(text: &str) -> InstanceAddr {
    InstanceAddr::parse(text).unwrap_or_else(|reason| panic!("{text}: {reason}"))
}

impl Given {
    fn pass(&self, checkpoints: &Checkpoints) -> Passed {
        let now = at(self.time);
        let views = Views::new(Env::of(move || now, || 0.5));
        self.fill_cluster(&mut views.cluster());
        self.fill_registries(&views);
        let mut observed = observe(&views, checkpoints, &key()).unwrap();
        self.override_facts(&mut observed);
        read_pods(&views, &views.cluster(), &mut observed);
        let validation = validate(&observed, self.dry_run);
        let siblings = siblings::siblings(&views, checkpoints, &observed, validation.accepted(), self.dry_run);
        let checkpoint = &observed.checkpoint.planned;
        let plan = service::plan(&observed.facts, &validation.goal, &siblings, checkpoint, now, now);
        let status = status::desired(&observed, &validation, &plan, &Applied::default(), now);
        Passed { observed, validation, plan, status, now }
    }

    fn fill_cluster(&self, view: &mut ClusterView) {
        for kind in Kind::ALL {
            view.set_synced(kind);
        }
        let system = json!({"metadata": {"name": "kube-system", "uid": "cluster-uid"}});
        view.namespaces
            .insert("kube-system".into(), Arc::new(convert::namespace(&object::<Namespace>(system, &json!({})))));
        if let Some(given) = &self.namespace {
            let default = json!({"metadata": {"name": "shop", "uid": "shop-uid", "labels": {"team": "shop"}}});
            view.namespaces.insert("shop".into(), Arc::new(convert::namespace(&object::<Namespace>(default, given))));
        }
        let registered = self.registered_service.iter().chain(&self.siblings);
        for object in registered.map(registered_service) {
            view.index.put(&object.key(), &object);
            view.registered_services.insert(object.key(), Arc::new(object));
        }
        for object in self.registry_objects() {
            view.service_registries.insert(object.metadata.name.clone().unwrap(), Arc::new(object));
        }
        for given in self.service.iter().chain(&self.services) {
            let default = json!({
                "metadata": {"name": "echo", "namespace": "shop", "uid": "service-uid"},
                "spec": {"clusterIP": "None", "selector": {"app": "echo"}, "ipFamilies": ["IPv4"],
                    "ports": [{"name": "rpc", "port": 80, "protocol": "TCP"}]},
            });
            let service = convert::service(&object::<Service>(default, given));
            view.services.insert(ServiceKey::new("shop", &service.name), Arc::new(service));
        }
        for (version, given) in self.slices.iter().enumerate() {
            view.slices.put("shop", convert::slice(given.object(version + 1)));
        }
        for (name, given) in &self.pods {
            view.pods.put(ObjectKey::new(&given.namespace, name), convert::pod(&given.object(name)));
        }
        for (name, given) in &self.nodes {
            let node: Node = object(json!({"metadata": {"name": name}}), given);
            view.set_node(name, Some(convert::node(&node)));
        }
        view.set_service_cidr("kubernetes", Some(self.service_cidrs.clone()));
        for _ in 0..self.relists {
            view.learnt_by_list(&key());
        }
    }

    fn registry_objects(&self) -> Vec<ServiceRegistry> {
        let default = |name: &str| {
            json!({
                "apiVersion": "twinspan.dev/v1alpha1", "kind": "ServiceRegistry",
                "metadata": {"name": name, "uid": format!("{name}-uid"), "generation": 1},
                "spec": {"etcd": {"endpoints": ["http://192.0.2.9:2379"]}, "format": "Kitex", "prefix": "p", "clusterID": "c1",
                    "fence": {"mode": "None"}, "allowed": [{"namespaceSelector": {}, "registryNames": ["*"]}]},
            })
        };
        let main = self.service_registry.iter().map(|given| object(default("main"), given));
        main.chain(self.registries.iter().map(|(name, given)| object(default(name), given))).collect()
    }

    fn fill_registries(&self, views: &Views) {
        for object in self.registry_objects() {
            let name = object.metadata.name.clone().unwrap();
            let settings = settings::session_settings(&object, &views.cluster()).unwrap();
            let (events, _) = mpsc::unbounded_channel();
            let handle = RegistryHandle::new(&name, &settings.identity, None, events);
            handle.set_server(ServerStatus { cluster_id: 1, version: "3.7.3".into() });
            handle.confirm_sole(Some(1));
            let records = if name == "main" { &self.records } else { self.former_records.get(&name).unwrap_or(&EMPTY) };
            self.fill_view(&handle, &object, records);
            let stop = CancellationToken::new();
            views.registries.running().insert(name, Running { handle, settings, stop });
        }
    }

    fn fill_view(&self, handle: &RegistryHandle, object: &ServiceRegistry, records: &BTreeMap<String, RecordGiven>) {
        if self.view == View::Unknown {
            return;
        }
        let raw = |(index, (key, given)): (usize, (&String, &RecordGiven))| given.raw(key, 100 + index as i64);
        let records: Vec<RawRecord> = records.iter().enumerate().map(raw).collect();
        let mut view = handle.view();
        view.begin();
        let names = self.registered_service.iter().chain(&self.siblings).map(registered_service);
        let names: Vec<RegistryName> = names.filter_map(|o| RegistryName::new(o.registry_name()).ok()).collect();
        let layout = Layout::new(object.spec.format.into(), object.spec.effective_prefix());
        for range in layout.ranges(&names) {
            let prefix = layout.key_prefix(&range);
            let within = |record: &&RawRecord| record.key.as_bytes().starts_with(prefix.as_bytes());
            let records = records.iter().filter(within).cloned().collect();
            view.reset(&range, &ListResponse { cluster_id: 1, revision: 500, records }, at(-3600));
        }
        view.set_all_listed();
        if self.view == View::Stale {
            view.set_stale();
        }
        drop(view);
        handle.set_phase(match &self.failed {
            Some(error) => Phase::Failed(RegistryError::Unreachable(error.clone())),
            None => Phase::Watching,
        });
    }

    /// The facts that only time makes: departures, answers, holds.
    fn override_facts(&self, observed: &mut Observed) {
        let facts = &mut observed.facts;
        facts.cluster.unseen.extend(&self.unseen);
        facts.probes = self.probes.iter().map(|(text, given)| (addr(text), given.probe())).collect();
        facts.holds.registry_hold =
            self.registry_hold.map(|(since, until)| Hold { since: at(since), until: at(until) });
        for registry in facts.registry.iter_mut().chain(&mut facts.former) {
            registry.orphan_grace_until = self.orphan_grace_until.map(at);
            registry.snapshot.incarnation = match self.incarnation.as_deref() {
                None => Incarnation::AsItWas,
                Some("ClusterChanged") => Incarnation::ClusterChanged,
                Some("RolledBack") => Incarnation::RolledBack,
                Some(other) => panic!("no incarnation {other}"),
            };
        }
        if let Some(registry) = &mut facts.registry {
            let departures =
                self.departures.iter().map(|(text, given)| (addr(text), given.departure(text, &registry.layout)));
            registry.snapshot.departures = departures.collect();
        }
    }
}

static EMPTY: BTreeMap<String, RecordGiven> = BTreeMap::new();

fn registered_service(given: &Value) -> RegisteredService {
    let default = json!({
        "apiVersion": "twinspan.dev/v1alpha1", "kind": "RegisteredService",
        "metadata": {"name": "echo", "namespace": "shop", "uid": UID, "generation": 1,
            "creationTimestamp": "2025-12-31T12:00:00Z"},
        "spec": {"registryRef": {"name": "main"}},
    });
    object(default, given)
}

impl SliceGiven {
    fn object(&self, version: usize) -> EndpointSlice {
        let endpoint = |(address, state): (&String, &String)| {
            let (ready, terminating) = match state.as_str() {
                "Ready" => (true, false),
                "NotReady" => (false, false),
                "Terminating" => (false, true),
                other => panic!("no state {other}"),
            };
            json!({"addresses": [address],
                "conditions": {"ready": ready, "serving": ready, "terminating": terminating}})
        };
        let endpoints: Vec<Value> = self.endpoints.iter().map(endpoint).collect();
        let managed_by = if self.ours { "twinspan.dev" } else { &self.managed_by };
        let owner =
            json!([{"apiVersion": "twinspan.dev/v1alpha1", "kind": "RegisteredService", "name": "echo", "uid": UID}]);
        let mut annotations = json!({});
        if self.ours {
            annotations["twinspan.dev/imported-from"] = json!("main/echo");
        }
        merge(&mut annotations, json!(self.annotations));
        // Headless, as the default Service is.
        let labels = json!({"kubernetes.io/service-name": self.service, "service.kubernetes.io/headless": "",
            "endpointslice.kubernetes.io/managed-by": managed_by});
        object(
            json!({
                "metadata": {"name": self.name, "namespace": "shop", "resourceVersion": version.to_string(), "labels": labels,
                    "annotations": annotations, "ownerReferences": if self.ours { owner } else { json!([]) }},
                "addressType": self.family,
                "ports": [{"name": self.port, "port": self.number, "protocol": "TCP"}],
                "endpoints": endpoints,
            }),
            &json!({}),
        )
    }
}

impl PodGiven {
    fn object(&self, name: &str) -> Pod {
        object(
            json!({
                "metadata": {"name": name, "namespace": self.namespace, "uid": format!("{name}-uid"), "labels": self.labels,
                    "annotations": self.annotations},
                "spec": {"containers": [], "nodeName": self.node, "hostNetwork": self.host_network},
                "status": {"phase": "Running", "podIP": self.ip, "podIPs": [{"ip": self.ip}]},
            }),
            &json!({}),
        )
    }
}

impl DepartureGiven {
    fn departure(&self, address: &str, layout: &Layout) -> Departure {
        let evidence = match self.evidence.as_str() {
            "LookingUp" => Evidence::LookingUp,
            "Deregistered" => Evidence::Deregistered,
            "LeaseExpired" => Evidence::LeaseExpired,
            "NoRecordAtStart" => Evidence::NoRecordAtStart,
            "BulkDeleted" => Evidence::BulkDeleted,
            "LeaseUnreadable" => Evidence::LeaseUnreadable,
            "RolledBack" => Evidence::RolledBack,
            other => panic!("no evidence {other}"),
        };
        let key = self.key.clone().unwrap_or_else(|| format!("p/echo/{address}"));
        let record: Record = layout.decode(&self.record.raw(&key, 50));
        Departure { evidence, at: at(self.at), record: Some(Arc::new(record)) }
    }
}

impl ProbeGiven {
    fn probe(&self) -> Probe {
        let answer = match self.answer.as_str() {
            "Accepted" => Answer::Accepted,
            "Refused" => Answer::Refused,
            "NoAnswer" => Answer::NoAnswer,
            other => panic!("no answer {other}"),
        };
        Probe { answer, since: at(self.since) }
    }
}
