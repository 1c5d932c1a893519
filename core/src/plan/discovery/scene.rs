//! A cluster and a registry for the tests of discovery, and the objects that come of a plan.
//!
//! Owns the facts of one namespace with Services and one for imports. Refuses to judge a plan.

use super::facts::*;
use super::names::Template;
use super::refusals::Why;
use super::*;
use crate::model::{RegistryName, Selector, ServicePortView, ServiceView, TrafficDistribution};

pub(super) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

pub(super) fn service(name: &str, created: i64, annotations: &[(&str, &str)]) -> ServiceView {
    let port = |name: &str, number| ServicePortView {
        name: name.to_owned(),
        number,
        node_port: None,
        tcp: true,
        app_protocol: None,
    };
    let pairs =
        |all: &[(&str, &str)]| all.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    ServiceView {
        name: name.to_owned(),
        uid: format!("uid-{name}-{created}"),
        external_name: false,
        headless: false,
        selector: true,
        selects: Default::default(),
        traffic: TrafficDistribution::Anywhere,
        ports: vec![port("rpc", 80), port("metrics", 90)],
        cluster_ips: Vec::new(),
        external_ips: Vec::new(),
        balancer_ips: Vec::new(),
        local_traffic: false,
        families: Vec::new(),
        labels: pairs(&[("app", name)]),
        owner_uid: None,
        deleting: false,
        created: Some(at(created)),
        annotations: pairs(annotations),
    }
}

/// A cluster and a registry, as discovery sees them.
#[derive(Clone, Debug)]
pub(super) struct World {
    pub settings: Option<Settings>,
    pub labels: BTreeMap<String, BTreeMap<String, String>>,
    pub namespace_annotation: Option<String>,
    pub services: BTreeMap<ServiceKey, ServiceView>,
    pub objects: BTreeMap<ServiceKey, Object>,
    pub names: Names,
    pub taken: BTreeSet<ServiceKey>,
}

impl World {
    pub fn new() -> Self {
        let template = || Template::new("{name}");
        let export = ExportSettings {
            namespaces: Selector::default(),
            services: Some(Selector::default()),
            template: template(),
        };
        let import = ImportSettings {
            namespace: "vms".to_owned(),
            include: vec!["*".to_owned()],
            exclude: Vec::new(),
            template: template(),
            most: 3,
        };
        Self {
            settings: Some(Settings { writes: true, export: Some(export), import: Some(import) }),
            labels: ["shop", "vms"].map(|name| (name.to_owned(), BTreeMap::new())).into(),
            namespace_annotation: None,
            services: BTreeMap::new(),
            objects: BTreeMap::new(),
            names: Names::Complete { foreign: Vec::new(), basis: "b".to_owned() },
            taken: BTreeSet::new(),
        }
    }

    pub fn export(&mut self) -> &mut ExportSettings {
        self.settings.as_mut().unwrap().export.as_mut().unwrap()
    }

    pub fn import(&mut self) -> &mut ImportSettings {
        self.settings.as_mut().unwrap().import.as_mut().unwrap()
    }

    pub fn foreign(&mut self, names: &[&str]) {
        let mut foreign: Vec<_> = names.iter().map(|name| (*name).into()).collect();
        foreign.sort();
        self.names = Names::Complete { foreign, basis: "b".to_owned() };
    }

    pub fn has(&mut self, service: ServiceView) {
        self.services.insert(ServiceKey::new("shop", &service.name), service);
    }

    pub fn plan(&self, memory: &Memory, now: Timestamp) -> Plan {
        let namespace = |(name, labels)| {
            let export = self.namespace_annotation.as_deref().filter(|_| name == "shop");
            (name, Namespace { labels, export, deleting: false })
        };
        let facts = Facts {
            settings: self.settings.clone(),
            namespaces: self.labels.iter().map(|(name, labels)| namespace((name.as_str(), labels))).collect(),
            services: self.services.iter().collect(),
            objects: self.objects.iter().map(|(key, object)| (key, object.clone())).collect(),
            names: self.names.clone(),
            taken: self.taken.iter().collect(),
        };
        plan(&facts, memory, now)
    }

    pub fn first(&self) -> Plan {
        self.plan(&Memory::default(), at(0))
    }

    /// The object as it is made.
    pub fn made(wanted: &Wanted) -> Object {
        let owner = match &wanted.kind {
            Wants::Export { service_uid, .. } => Some(service_uid.clone()),
            Wants::Import => None,
        };
        Object {
            uid: format!("uid-{}", wanted.key),
            version: "1".to_owned(),
            origin: Origin::Ours,
            refers: true,
            service: wanted.key.clone(),
            registry_name: wanted.registry_name.as_str().to_owned(),
            exports: !wanted.imports(),
            imports: wanted.imports(),
            owner,
            made_as: Some(wanted.clone()),
            carries: Carries { is_current: true, exported: 0, imported: 0 },
            lags: Lags::default(),
            denied: false,
            deleting: false,
            unreadable: false,
        }
    }

    /// Does everything that is planned, sweeps included.
    pub fn apply(&mut self, plan: &Plan) {
        for wanted in plan.creates.iter().chain(plan.updates.iter().map(|update| &update.wanted)) {
            self.objects.insert(wanted.key.clone(), Self::made(wanted));
        }
        for delete in plan.yields.iter().chain(&plan.sweeps) {
            self.objects.remove(&delete.key);
        }
    }

    pub fn written(&mut self, key: &str, service: &str, name: &str, exports: bool, imports: bool) {
        let key = ServiceKey::new("shop", key);
        let registry_name = RegistryName::new(name).unwrap();
        let wanted = Wanted { key: key.clone(), registry_name, kind: Wants::Import };
        let service = ServiceKey::new("shop", service);
        let object = Object { origin: Origin::Written, service, exports, imports, ..Self::made(&wanted) };
        self.objects.insert(key, Object { made_as: None, ..object });
    }
}

pub(super) fn keys(wanted: &[Wanted]) -> Vec<String> {
    wanted.iter().map(|wanted| format!("{}={}", wanted.key, wanted.registry_name)).collect()
}

pub(super) fn why(plan: &Plan) -> Vec<(String, Why)> {
    plan.refusals.told.iter().map(|(subject, refusal)| (subject.clone(), refusal.why)).collect()
}
