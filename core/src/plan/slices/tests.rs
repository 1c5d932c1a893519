use super::*;
use crate::model::Hints;
use proptest::prelude::*;

const UID: &str = "uid-1";

struct Scene {
    owner: ServiceKey,
    labels: BTreeMap<String, String>,
    headless: bool,
    traffic: TrafficDistribution,
    known: EndpointInfo,
    ports: Vec<Port>,
    source: String,
    service_name: String,
    has_service: bool,
    endpoints: BTreeSet<InstanceAddr>,
    existing: Vec<Slice>,
    refused: Refusals,
    /// Endpoints of other managers, with their readiness.
    mirrored: BTreeMap<InstanceAddr, bool>,
    merges: bool,
}

fn addr(text: &str) -> InstanceAddr {
    InstanceAddr::parse(text).unwrap()
}

fn many(count: usize, port: u16) -> BTreeSet<InstanceAddr> {
    (0..count).map(|n| addr(&format!("10.1.{}.{}:{port}", n / 250, n % 250 + 1))).collect()
}

impl Scene {
    fn wanting(endpoints: BTreeSet<InstanceAddr>) -> Self {
        Self {
            owner: ServiceKey::new("shop", "echo"),
            labels: BTreeMap::from([("app".to_owned(), "echo".to_owned())]),
            headless: true,
            traffic: TrafficDistribution::Anywhere,
            known: EndpointInfo { ports: PortSet::of(0), ..EndpointInfo::default() },
            ports: vec![Port { name: "rpc".into(), app_protocol: None }],
            source: "main/echo".into(),
            service_name: "echo".into(),
            has_service: true,
            endpoints,
            existing: Vec::new(),
            refused: Refusals::default(),
            mirrored: BTreeMap::new(),
            merges: false,
        }
    }

    fn plan(&self) -> Plan {
        self.plan_with(plan)
    }

    fn infos(&self) -> BTreeMap<InstanceAddr, EndpointInfo> {
        let imported = self.endpoints.iter().map(|addr| (*addr, self.known.clone()));
        let mirrored = self.mirrored.iter().map(|(addr, ready)| {
            let mirrored = Some(Conditions { ready: Some(*ready), serving: None, terminating: None });
            (*addr, EndpointInfo { mirrored, ..self.known.clone() })
        });
        imported.chain(mirrored).collect()
    }

    fn plan_with(&self, planner: impl Fn(&Input<'_>) -> Plan) -> Plan {
        let existing: Vec<&Slice> = self.existing.iter().collect();
        let service = Service {
            name: &self.service_name,
            ports: &self.ports,
            headless: self.headless,
            traffic: self.traffic,
            labels: &self.labels,
        };
        planner(&Input {
            owner: &self.owner,
            owner_uid: UID,
            service: self.has_service.then_some(service),
            endpoints: &self.infos(),
            existing: &existing,
            source: &self.source,
            merges: self.merges,
            refused: &self.refused,
            triggered: Timestamp::UNIX_EPOCH,
            now: Timestamp::UNIX_EPOCH,
        })
    }

    /// Applies the plan as the API server would.
    fn apply(&mut self) -> Plan {
        let plan = self.plan();
        self.carry_out(&plan);
        plan
    }

    fn carry_out(&mut self, plan: &Plan) {
        for op in &plan.ops {
            match op {
                SliceOp::Create(spec) => {
                    assert!(self.existing.iter().all(|s| s.name != spec.name), "a create never meets an existing name");
                    self.existing.push(stored(spec, "1"));
                }
                SliceOp::Update { spec, if_version } => {
                    let slice = self.existing.iter_mut().find(|s| s.name == spec.name).unwrap();
                    assert_eq!(&slice.resource_version, if_version);
                    assert_eq!(slice.address_type, AddressType::Ip(spec.family), "addressType is immutable");
                    *slice = stored(spec, &format!("{if_version}+"));
                }
                SliceOp::Delete { name, if_version, .. } => {
                    assert_eq!(&self.existing.iter().find(|s| &s.name == name).unwrap().resource_version, if_version);
                    self.existing.retain(|s| &s.name != name);
                }
            }
        }
    }

    fn held(&self) -> Vec<InstanceAddr> {
        let mut held = Vec::new();
        for slice in &self.existing {
            for endpoint in &slice.endpoints {
                held.push(InstanceAddr::new(endpoint.address.ip().unwrap(), slice.ports[0].number.unwrap()).unwrap());
            }
        }
        held.sort();
        held
    }
}

fn stored(spec: &SliceSpec, resource_version: &str) -> Slice {
    let mut slice = Slice {
        name: spec.name.clone(),
        resource_version: resource_version.into(),
        service: spec.labels.get(SERVICE_NAME_LABEL).cloned(),
        managed_by: spec.labels.get(MANAGED_BY_LABEL).cloned(),
        owner_uid: Some(UID.into()),
        keeper: None,
        others_labels: BTreeSet::new(),
        deleting: false,
        address_type: AddressType::Ip(spec.family),
        ports: vec![spec.port.clone()],
        endpoints: spec.endpoints.clone(),
        labels: spec.labels.clone(),
        annotations: spec.annotations.clone(),
    };
    // Only the annotations keep an endpoint's deadline, and that it is mirrored.
    slice.endpoints.iter_mut().for_each(|endpoint| (endpoint.lost_until, endpoint.mirrored) = (None, false));
    slice.read_lost_until();
    slice.read_mirrored();
    slice
}

fn signs(plan: &Plan) -> String {
    plan.ops.iter().map(|op| op.label().chars().next().unwrap()).collect()
}

#[test]
fn a_slice_has_all_three_conditions_and_the_labels_that_consumers_need() {
    let mut scene = Scene::wanting(BTreeSet::from([addr("10.0.0.1:80")]));
    scene.labels.insert(HEADLESS_LABEL.into(), "copied from the Service by mistake".into());
    let plan = scene.plan();
    let [SliceOp::Create(spec)] = plan.ops.as_slice() else { panic!("{plan:?}") };
    let endpoint = &spec.endpoints[0];
    assert_eq!(endpoint.address, "10.0.0.1".into());
    assert_eq!((endpoint.ready, endpoint.serving, endpoint.terminating), (Some(true), Some(true), Some(false)));
    assert_eq!(
        spec.port,
        SlicePort { name: "rpc".into(), protocol: "TCP".into(), number: Some(80), app_protocol: None }
    );
    let labels: Vec<(&str, &str)> = spec.labels.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(
        labels,
        [
            ("app", "echo"),
            ("endpointslice.kubernetes.io/managed-by", "twinspan.dev"),
            ("kubernetes.io/service-name", "echo"),
            ("service.kubernetes.io/headless", "")
        ]
    );
    assert_eq!(spec.annotations[TRIGGER_TIME_ANNOTATION], "1970-01-01T00:00:00Z");
    scene.headless = false;
    let plan = scene.plan();
    let [SliceOp::Create(spec)] = plan.ops.as_slice() else { panic!("{plan:?}") };
    assert!(!spec.labels.contains_key(HEADLESS_LABEL));
}

#[test]
fn one_port_shares_a_slice_and_each_other_port_and_family_has_its_own() {
    let all = ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:81", "[fd77::1]:80"];
    let mut scene = Scene::wanting(all.iter().map(|a| addr(a)).collect());
    scene.apply();
    let mut shapes: Vec<(usize, Option<u16>, String)> =
        scene.existing.iter().map(|s| (s.endpoints.len(), s.ports[0].number, s.ports[0].name.clone())).collect();
    shapes.sort();
    assert_eq!(shapes, [(1, Some(80), "rpc".into()), (1, Some(81), "rpc".into()), (2, Some(80), "rpc".into())]);
}

#[test]
fn nothing_changed_writes_nothing() {
    let mut scene = Scene::wanting(many(250, 80));
    assert_eq!(signs(&scene.apply()), "ccc");
    assert_eq!(scene.plan(), Plan::default());
}

#[test]
fn at_most_one_hundred_endpoints_a_slice() {
    let mut scene = Scene::wanting(many(201, 80));
    scene.apply();
    let mut sizes: Vec<usize> = scene.existing.iter().map(|s| s.endpoints.len()).collect();
    sizes.sort();
    assert_eq!(sizes, [1, 100, 100]);
}

#[test]
fn a_departure_and_an_arrival_are_one_write_in_place() {
    let mut scene = Scene::wanting(many(150, 80));
    scene.apply();
    scene.endpoints.remove(&addr("10.1.0.7:80"));
    scene.endpoints.insert(addr("10.9.9.9:80"));
    let plan = scene.apply();
    assert_eq!((signs(&plan).as_str(), plan.added, plan.removed), ("u", 1, 1));
    assert_eq!(scene.held(), scene.endpoints.iter().copied().collect::<Vec<_>>());
}

#[test]
fn an_arrival_goes_into_the_fullest_slice_with_room() {
    let mut scene = Scene::wanting(many(150, 80));
    scene.apply();
    scene.endpoints.insert(addr("10.9.9.9:80"));
    assert_eq!(signs(&scene.apply()), "u");
    assert_eq!(scene.existing.iter().map(|s| s.endpoints.len()).max(), Some(100));
}

#[test]
fn a_port_change_updates_the_slice_that_would_be_deleted() {
    let mut scene = Scene::wanting(BTreeSet::from([addr("10.0.0.1:80")]));
    scene.apply();
    scene.endpoints = BTreeSet::from([addr("10.0.0.1:81")]);
    assert_eq!(signs(&scene.apply()), "u");
    assert_eq!(scene.held(), [addr("10.0.0.1:81")]);
    scene.endpoints = BTreeSet::from([addr("[fd77::1]:81")]);
    assert_eq!(signs(&scene.apply()), "cd", "the address type is immutable");
}

#[test]
fn a_slice_is_never_taken_from_one_service_to_another() {
    let mut scene = Scene::wanting(BTreeSet::from([addr("10.0.0.1:80")]));
    scene.apply();
    scene.service_name = "other".into();
    assert_eq!(signs(&scene.apply()), "cd");
}

#[test]
fn a_changed_frame_is_written_once() {
    let mut scene = Scene::wanting(many(2, 80));
    scene.apply();
    scene.ports[0].name = "grpc".into();
    scene.labels.insert("team".into(), "a".into());
    assert_eq!(signs(&scene.apply()), "u");
    assert_eq!(scene.plan(), Plan::default());
}

#[test]
fn without_a_service_or_endpoints_no_slice_stays() {
    let mut scene = Scene::wanting(many(150, 80));
    scene.apply();
    scene.has_service = false;
    let plan = scene.apply();
    assert_eq!((signs(&plan).as_str(), plan.removed), ("dd", 150));
    let mut scene = Scene::wanting(many(150, 80));
    scene.apply();
    scene.endpoints.clear();
    assert_eq!(signs(&scene.apply()), "dd");
}

#[test]
fn a_slice_under_deletion_is_left_alone_and_its_name_is_not_taken() {
    let mut scene = Scene::wanting(many(1, 80));
    scene.apply();
    scene.existing[0].deleting = true;
    let plan = scene.apply();
    assert_eq!(signs(&plan), "c");
    assert_ne!(scene.existing[0].name, scene.existing[1].name);
}

#[test]
fn an_endpoint_that_two_slices_hold_stays_in_one() {
    let mut scene = Scene::wanting(many(2, 80));
    scene.apply();
    let mut copy = scene.existing[0].clone();
    copy.name = "zzz".into();
    scene.existing.push(copy);
    assert_eq!(signs(&scene.apply()), "d");
    assert_eq!(scene.held(), scene.endpoints.iter().copied().collect::<Vec<_>>());
}

#[test]
fn what_is_known_of_an_endpoint_is_said_and_hints_only_where_the_service_asks_for_them() {
    let pod = Box::new(TargetPod { namespace: "shop".into(), name: "a".into(), uid: "u".into() });
    let mut scene = Scene::wanting(many(1, 80));
    scene.known.zone = Some("z1".into());
    scene.known.node = Some("n1".into());
    scene.known.pod = Some(pod.clone());
    scene.apply();
    let endpoint = |scene: &Scene| scene.existing[0].endpoints[0].clone();
    let expected = (Some("z1".to_owned()), Some("n1".to_owned()), Some(pod));
    assert_eq!((endpoint(&scene).zone, endpoint(&scene).node, endpoint(&scene).pod), expected);
    assert_eq!(endpoint(&scene).hints, None);
    for (traffic, zones, nodes) in [
        (TrafficDistribution::SameZone, vec!["z1".to_owned()], vec![]),
        (TrafficDistribution::SameNode, vec!["z1".to_owned()], vec!["n1".to_owned()]),
        (TrafficDistribution::Anywhere, vec![], vec![]),
    ] {
        scene.traffic = traffic;
        assert_eq!(signs(&scene.apply()), "u", "in place");
        assert_eq!(endpoint(&scene).hints, Hints { zones, nodes }.boxed());
    }
}

#[test]
fn deadlines_and_the_source_are_in_annotations_and_survive_a_restart() {
    let mut scene = Scene::wanting(many(2, 80));
    let until = Timestamp::from_millisecond(1_500_000_000_250).unwrap();
    scene.known.lost_until = Some(until);
    scene.apply();
    let annotations = &scene.existing[0].annotations;
    assert_eq!(annotations[IMPORTED_FROM_ANNOTATION], "main/echo");
    let time = "2017-07-14T02:40:00Z";
    assert_eq!(annotations[LOST_UNTIL_ANNOTATION], format!("10.1.0.1={time},10.1.0.2={time}"));
    assert_eq!(scene.plan(), Plan::default(), "a fraction of a second is no change");
    let slices: Vec<&Slice> = scene.existing.iter().collect();
    let if_version = present(&slices, &scene.ports, "main/echo");
    assert!(if_version.values().all(|p| p.from_here && p.ports == PortSet::of(0) && p.lost_until == time.parse().ok()));
    assert!(present(&slices, &scene.ports, "main/other").values().all(|p| !p.from_here));
    // The registration is back, so the deadline is gone.
    scene.known.lost_until = None;
    assert_eq!(signs(&scene.apply()), "u");
    assert!(!scene.existing[0].annotations.contains_key(LOST_UNTIL_ANNOTATION));
    // Under another name the same endpoints have another source.
    scene.source = "main/other".into();
    assert_eq!(signs(&scene.apply()), "u");
}

#[test]
fn ports_have_slices_of_their_own_and_each_keeps_its_name() {
    let mut scene = Scene::wanting(many(3, 80));
    scene.ports.push(Port { name: "web".into(), app_protocol: Some("http".into()) });
    scene.known.ports.insert(PortSet::of(1));
    assert_eq!(signs(&scene.apply()), "cc");
    let names: Vec<&str> = scene.existing.iter().map(|s| s.ports[0].name.as_str()).collect();
    assert!(names.contains(&"rpc") && names.contains(&"web"), "{names:?}");
    let slices: Vec<&Slice> = scene.existing.iter().collect();
    let both = present(&slices, &scene.ports, "main/echo");
    assert!(both.len() == 3 && both.values().all(|p| p.ports == scene.known.ports), "{both:?}");
    // The slices of a port that is no longer chosen are deleted.
    scene.ports.pop();
    scene.known.ports = PortSet::of(0);
    let plan = scene.apply();
    assert_eq!(scene.existing.len(), 1, "{plan:?}");
    assert_eq!((plan.added, plan.removed), (0, 0));
}

fn some_endpoints() -> impl Strategy<Value = BTreeSet<InstanceAddr>> {
    let one = (0u8..3, 1u8..=120, 80u16..83).prop_map(|(net, host, port)| match net {
        2 => addr(&format!("[fd77::{host:x}]:{port}")),
        net => addr(&format!("10.0.{net}.{host}:{port}")),
    });
    prop::collection::btree_set(one, 0..300)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_happens_every_endpoint_is_in_exactly_one_slice(states in prop::collection::vec(some_endpoints(), 1..6)) {
        let mut scene = Scene::wanting(BTreeSet::new());
        for state in states {
            scene.endpoints = state;
            prop_assert_eq!(scene.plan(), scene.plan());
            scene.apply();
            prop_assert_eq!(scene.held(), scene.endpoints.iter().copied().collect::<Vec<_>>());
            prop_assert!(scene.existing.iter().all(|s| (1..=MAX_ENDPOINTS).contains(&s.endpoints.len())));
            prop_assert_eq!(scene.plan(), Plan::default(), "a second plan writes nothing");
        }
    }
}

#[path = "together_tests.rs"]
mod together;
