use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use jiff::SignedDuration;

use super::bounds::MAX_SLICES;
use super::*;
use crate::Timestamp;
use crate::codec::{Format, Layout};
use crate::model::{
    Family, Instance, LeaseId, OWNER_TAG, Operator, Owner, RawRecord, RegistryName, Requirement, ServiceKey, Tags,
};
use crate::plan::departure::Departures;
use crate::plan::departure::guard::{GuardContext, Limits};
use crate::plan::slices::Refusals;
use crate::plan::trust::{Cluster, PodOf, Policy, Trust};

struct Scene {
    layout: Layout,
    owner: Owner,
    records: Vec<Record>,
    options: Options,
    pods: BTreeMap<IpAddr, PodOf>,
    cluster: Cluster,
    contested: BTreeMap<InstanceAddr, ContestedImport>,
    managed_by_others: BTreeSet<(IpAddr, u16)>,
    pods_of_others: BTreeSet<(IpAddr, u16)>,
    present: BTreeMap<InstanceAddr, Present>,
    state: ImportState,
    families: &'static [Family],
}

impl Default for Scene {
    fn default() -> Self {
        Self {
            layout: Layout::new(Format::Kitex, "p"),
            owner: Owner { cluster_id: "c1".into(), service: ServiceKey::new("shop", "echo") },
            records: Vec::new(),
            options: Options { schemes: vec![String::new()], ..Options::default() },
            pods: BTreeMap::new(),
            cluster: Cluster::default(),
            contested: BTreeMap::new(),
            managed_by_others: BTreeSet::new(),
            pods_of_others: BTreeSet::new(),
            present: BTreeMap::new(),
            state: ImportState::default(),
            families: &[Family::V4, Family::V6],
        }
    }
}

fn addr(text: &str) -> InstanceAddr {
    InstanceAddr::parse(text).unwrap()
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap()
}

impl Scene {
    fn record(mut self, key: &str, value: &str) -> Self {
        let mod_revision = 100 + i64::try_from(self.records.len()).unwrap();
        let raw = RawRecord { key: key.into(), value: value.into(), mod_revision, lease: LeaseId(7) };
        self.records.push(self.layout.decode(&raw));
        self
    }

    fn address(self, address: &str) -> Self {
        self.tagged(address, "null")
    }

    fn tagged(self, address: &str, tags: &str) -> Self {
        let value = format!(r#"{{"network":"tcp","address":"{address}","weight":10,"tags":{tags}}}"#);
        self.record(&format!("p/echo/{address}"), &value)
    }

    fn managed(mut self, address: &str) -> Self {
        let addr = addr(address);
        self.managed_by_others.insert((addr.ip(), addr.port()));
        self.pods_of_others.insert((addr.ip(), addr.port()));
        self
    }

    fn plan(&self) -> Plan {
        let records: BTreeMap<_, _> = self.records.iter().map(|r| (r.key.clone(), Arc::new(r.clone()))).collect();
        plan(&Input {
            layout: &self.layout,
            owner: &self.owner,
            records: &records,
            options: &self.options,
            families: self.families,
            managed_by_others: &self.managed_by_others,
            pods_of_others: &self.pods_of_others,
            pods: Pods::default(),
            trust: Trust {
                cluster: &self.cluster,
                policy: &Policy::default(),
                pods: &self.pods,
                services: &BTreeSet::new(),
            },
            departures: &Departures::new(),
            leads: true,
            started_after_rollback: false,
            may_be_dead: false,
            present: &self.present,
            refused: &Refusals::default(),
            contested: &self.contested,
            to_adopt: &BTreeSet::new(),
            probes: &BTreeMap::new(),
            limits: Limits { min_instances: 10, max_delete_percent: 50, hold: SignedDuration::from_secs(300) },
            context: GuardContext::default(),
            state: &self.state,
            now: at(1000),
        })
    }

    fn endpoints(&self) -> Vec<String> {
        self.plan().endpoints.keys().map(ToString::to_string).collect()
    }

    fn skipped(&self) -> Vec<(String, Reason)> {
        let all = self.plan().skipped;
        all.iter().filter_map(|s| Some((s.subject.to_string(), s.skip_reason()?))).collect()
    }
}

#[test]
fn a_foreign_record_becomes_an_endpoint() {
    let scene = Scene::default().address("10.0.0.1:80").address("fd77::1:81").address("10.0.0.1:81");
    assert_eq!(scene.endpoints(), ["10.0.0.1:80", "10.0.0.1:81", "[fd77::1]:81"]);
    assert_eq!(scene.skipped(), []);
}

#[test]
fn one_bad_record_costs_its_neighbours_nothing_and_has_its_reason() {
    let scene = Scene::default()
        .record("p/echo/a", "{broken")
        .record("p/echo/b", "null")
        .record("p/echo/c", r#"{"network":"unix","address":"/tmp/x.sock"}"#)
        .record("p/echo/d", r#"{"address":"10.0.0.4:80"}"#)
        .record("p/echo/e", r#"{"network":"tcp","address":"127.0.0.1:80"}"#)
        .record("p/echo/f", r#"{"network":"tcp","address":"svc.example:80"}"#)
        .record("p/echo/10.0.0.7:80", r#"{"network":"tcp","address":"10.0.0.8:80"}"#)
        .address("10.0.0.9:80");
    assert_eq!(scene.endpoints(), ["10.0.0.9:80"]);
    let skipped = scene.skipped();
    let skipped: Vec<(&str, Reason)> = skipped.iter().map(|(i, r)| (i.as_str(), *r)).collect();
    assert_eq!(
        skipped,
        [
            ("10.0.0.8:80", Reason::KeyValueMismatch),
            ("p/echo/a", Reason::Undecodable),
            ("p/echo/b", Reason::NotTCP),
            ("/tmp/x.sock", Reason::NotTCP),
            ("10.0.0.4:80", Reason::NotTCP),
            ("127.0.0.1:80", Reason::LoopbackAddress),
            ("svc.example:80", Reason::HostnameAddress),
        ]
    );
}

#[test]
fn what_this_cluster_exported_never_comes_back() {
    let scene = Scene::default().tagged("10.0.0.1:80", r#"{"twinspan.dev/owner":"c1/shop/echo"}"#);
    assert_eq!((scene.endpoints(), scene.skipped()), (Vec::new(), Vec::new()));
}

#[test]
fn another_clusters_records_come_only_where_asked_for_and_healed_ones_always() {
    let mut scene = Scene::default()
        .tagged("10.0.0.1:80", r#"{"twinspan.dev/owner":"c2/shop/echo"}"#)
        .tagged("10.0.0.2:80", r#"{"twinspan.dev/owner":"nonsense"}"#)
        .tagged("10.0.0.3:80", r#"{"twinspan.dev/owner":"c2/shop/echo","twinspan.dev/healed":"1"}"#);
    assert_eq!(scene.endpoints(), ["10.0.0.3:80"]);
    assert_eq!(
        scene.skipped(),
        [("10.0.0.1:80".to_owned(), Reason::OtherCluster), ("10.0.0.2:80".to_owned(), Reason::OtherCluster)]
    );
    scene.options.other_clusters = Some(OtherClusters::default());
    assert_eq!(scene.endpoints(), ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"]);
}

#[test]
fn two_records_of_one_address_are_one_endpoint() {
    let scene =
        Scene::default().address("10.0.0.1:80").record("p/echo/copy", r#"{"network":"tcp","address":"10.0.0.1:80"}"#);
    assert_eq!(scene.endpoints(), ["10.0.0.1:80"]);
}

#[test]
fn a_self_registered_pod_is_left_to_its_own_slices_and_its_record_does_not_outlive_it() {
    let mut scene = Scene::default().address("10.0.0.1:80").managed("10.0.0.1:80");
    let first = scene.plan();
    assert_eq!(first.endpoints, BTreeMap::new());
    assert_eq!(first.skipped, []);

    // The pod is gone, and its record stays until the lease ends.
    scene.managed_by_others.clear();
    scene.state = first.state;
    assert_eq!(scene.endpoints(), Vec::<String>::new());
    assert_eq!(scene.skipped(), [("10.0.0.1:80".to_owned(), Reason::FormerEndpoint)]);

    // The next plan gives the same result; a new registration of the address ends it.
    scene.state = scene.plan().state;
    assert_eq!(scene.endpoints(), Vec::<String>::new());
    let left_behind = scene.records[0].clone();
    scene.records[0].mod_revision += 1;
    assert_eq!(scene.endpoints(), ["10.0.0.1:80"]);
    assert_eq!(scene.plan().state.shadows, Shadows::new());
    // An etcd that was emptied counts its revisions again.
    scene.records[0] = Record { lease: LeaseId(left_behind.lease.0 + 1), ..left_behind };
    assert_eq!(scene.endpoints(), ["10.0.0.1:80"]);
}

#[test]
fn what_a_stranger_wrote_is_shown_cut() {
    let long = "x".repeat(1000);
    let scene = Scene::default().record("p/echo/k", &format!(r#"{{"network":"tcp","address":"{long}:80"}}"#));
    assert_eq!(scene.skipped()[0].0.chars().count(), MAX_SHOWN);
}

#[test]
fn what_trust_refuses_has_its_reason() {
    let mut scene = Scene::default().address("10.0.0.1:80").address("10.0.0.2:80");
    scene.cluster.service_cidrs.insert("10.0.0.1/32");
    assert_eq!(scene.endpoints(), ["10.0.0.2:80"]);
    assert_eq!(scene.skipped(), [("10.0.0.1:80".to_owned(), Reason::ServiceAddress)]);
}

#[test]
fn a_family_that_the_service_does_not_serve_is_left_out() {
    let mut scene = Scene::default().address("10.0.0.1:80").address("[fd77::1]:80");
    assert_eq!(scene.endpoints(), ["10.0.0.1:80", "[fd77::1]:80"]);
    scene.families = &[Family::V4];
    assert_eq!(scene.endpoints(), ["10.0.0.1:80"]);
    assert_eq!(scene.skipped(), [("[fd77::1]:80".to_owned(), Reason::FamilyNotServed)]);
}

#[test]
fn the_slices_of_one_name_are_bounded_and_those_that_are_there_stay() {
    let mut scene = Scene::default();
    for port in 1..=MAX_SLICES + 20 {
        scene = scene.address(&format!("10.0.0.1:{port}"));
    }
    let last = addr(&format!("10.0.0.1:{}", MAX_SLICES + 20));
    scene.present.insert(last, Present { ports: PortSet::of(0), from_here: true, ..Present::default() });
    // Endpoints at a port that has a slice need no other.
    scene = scene.address("10.0.0.2:1");
    let plan = scene.plan();
    assert_eq!(plan.endpoints.len(), MAX_SLICES + 1);
    assert!(plan.endpoints.contains_key(&last) && plan.endpoints.contains_key(&addr("10.0.0.2:1")));
    let skipped = scene.skipped();
    assert_eq!(skipped.len(), 20);
    assert_eq!(skipped[0], (format!("10.0.0.1:{MAX_SLICES}"), Reason::TooManySlices));
}

#[test]
fn a_pod_that_only_registers_itself_is_imported_while_it_lives_and_not_after() {
    let mut scene = Scene::default().address("10.0.0.1:80");
    scene.pods.insert([10, 0, 0, 1].into(), PodOf::SameNamespace);
    scene.state = scene.plan().state;
    assert_eq!(scene.endpoints(), ["10.0.0.1:80"]);
    scene.pods.clear();
    assert_eq!(scene.endpoints(), Vec::<String>::new());
    assert_eq!(scene.skipped(), [("10.0.0.1:80".to_owned(), Reason::FormerEndpoint)]);
}

#[test]
fn tags_select_records_and_say_zones() {
    let mut scene = Scene::default()
        .tagged("10.0.0.1:80", r#"{"lane":"blue","zone":"eu-1a"}"#)
        .tagged("10.0.0.2:80", r#"{"lane":"green","zone":"eu-1b"}"#)
        .tagged("10.0.0.3:80", r#"{"lane":"blue","zone":"no zone"}"#)
        .address("10.0.0.4:80");
    let blue = Requirement { key: "lane".into(), operator: Operator::In, values: vec!["blue".into()] };
    scene.options.tag_selector.requirements = vec![blue];
    scene.options.zone_tag = "zone".into();
    let zones: Vec<_> = scene.plan().endpoints.iter().map(|(a, i)| (a.to_string(), i.zone.clone())).collect();
    assert_eq!(zones, [("10.0.0.1:80".to_owned(), Some("eu-1a".to_owned())), ("10.0.0.3:80".to_owned(), None)]);
    assert_eq!(scene.plan().skipped.iter().filter(|s| s.skip_reason() == Some(Reason::NotSelected)).count(), 2);
}

#[test]
fn an_endpoint_that_two_import_into_one_service_belongs_to_the_first_and_never_vanishes_in_between() {
    let contest = |precedes, holds| BTreeMap::from([(addr("10.0.0.1:80"), ContestedImport { precedes, holds })]);
    let with = |present: bool, contested: BTreeMap<InstanceAddr, ContestedImport>| {
        let here = Present { ports: PortSet::of(0), from_here: true, ..Present::default() };
        let present = present.then(|| (addr("10.0.0.1:80"), here)).into_iter().collect();
        // This is not the first plan of the process, so an endpoint without a record is not an orphan.
        let state = ImportState { judging_since: Some(at(0)), ..ImportState::default() };
        Scene { present, contested, state, ..Scene::default() }.address("10.0.0.1:80")
    };
    let mine = vec!["10.0.0.1:80".to_owned()];
    let none = Vec::<String>::new();
    // We precede: the address is ours, whatever the other one holds.
    assert_eq!(with(false, contest(false, true)).endpoints(), mine);
    // We follow: the address is not ours, but our endpoint stays until the other one holds the address.
    assert_eq!(with(false, contest(true, false)).endpoints(), none);
    assert_eq!(with(true, contest(true, false)).endpoints(), mine);
    assert_eq!(with(true, contest(true, true)).endpoints(), none);
    assert_eq!(with(true, contest(true, false)).plan().skipped[0].skip_reason(), Some(Reason::Conflict));
    // Only another one wants the address: our endpoint stays until the other one holds it.
    let unwanted = |holds| Scene { records: Vec::new(), ..with(true, contest(false, holds)) };
    assert_eq!(unwanted(false).endpoints(), mine);
    assert_eq!(unwanted(true).endpoints(), none);
    // The other one is told then, and only then: nothing else may have shown it that the claim ended.
    let yields = |scene: Scene| scene.plan().yielded.len();
    assert_eq!([yields(unwanted(false)), yields(unwanted(true))], [1, 0]);
    assert_eq!([false, true].map(|precedes| yields(with(true, contest(precedes, false)))), [0, 0]);
}

#[test]
fn a_server_in_hand_written_endpoints_is_imported_once_they_go() {
    let mut scene = Scene::default().address("10.0.0.1:80").managed("10.0.0.1:80");
    scene.pods_of_others.clear();
    scene.state = scene.plan().state;
    assert_eq!((scene.endpoints(), scene.state.shadows.len()), (Vec::new(), 0));
    scene.managed_by_others.clear();
    assert_eq!(scene.endpoints(), ["10.0.0.1:80"]);
}

#[test]
fn every_format_is_imported() {
    for &format in Format::ALL {
        let mut scene = Scene { layout: Layout::new(format, "p"), ..Scene::default() };
        let (addr, scheme) = (addr("10.0.0.1:80"), format.default_scheme().to_owned());
        scene.options.schemes = vec![scheme.clone()];
        let mut instance = Instance::single(addr, 10, Tags::new());
        instance.endpoints = vec![(scheme, addr)];
        let mut says = scene.layout.registration(&RegistryName::new("echo").unwrap(), &scene.owner, &instance);
        says.tags.remove(OWNER_TAG);
        let value = String::from_utf8(scene.layout.encode(&says)).unwrap();
        let key = match format.framework().directory() {
            "" => "p/echo/a-server".to_owned(),
            directory => format!("p/echo/{directory}10.0.0.1:80"),
        };
        assert_eq!(scene.record(&key, &value).endpoints(), ["10.0.0.1:80"], "{format:?}");
    }
}

#[test]
fn each_port_of_a_kratos_service_gets_the_address_with_its_scheme() {
    let value = |endpoints: &str| format!(r#"{{"id":"x","name":"echo","endpoints":[{endpoints}]}}"#);
    let mut scene = Scene { layout: Layout::new(Format::Kratos, "p"), ..Scene::default() };
    scene.options.schemes = vec!["grpc".into(), "http".into()];
    let scene = scene
        .record("p/echo/both", &value(r#""http://10.0.0.1:81","grpc://10.0.0.1:80","grpc://10.0.0.1:99""#))
        .record("p/echo/one", &value(r#""grpc://10.0.0.2:80","http://127.0.0.1:81""#))
        .record("p/echo/secure", &value(r#""grpcs://10.0.0.3:80""#))
        .record("p/echo/bad", &value(r#""grpc://127.0.0.1:80""#))
        .record("p/echo/none", &value(""));
    let ports: Vec<_> = scene
        .plan()
        .endpoints
        .iter()
        .map(|(addr, imported)| (addr.to_string(), imported.ports.indexes().collect::<Vec<_>>()))
        .collect();
    assert_eq!(
        ports,
        [("10.0.0.1:80".to_owned(), vec![0]), ("10.0.0.1:81".to_owned(), vec![1]), ("10.0.0.2:80".to_owned(), vec![0])]
    );
    let skipped: Vec<Reason> = scene.skipped().into_iter().map(|(_, reason)| reason).collect();
    assert_eq!(skipped, [Reason::LoopbackAddress, Reason::AddressMissing, Reason::NoSuchScheme]);
}
