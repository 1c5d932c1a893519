use std::net::IpAddr;
use std::sync::Arc;

use super::*;
use crate::codec::{Format, Layout};
use crate::model::{CidrSet, LOOKS, LeaseId, Owner, RawRecord, Reason, RegistryName, ServiceKey, Tags};
use crate::plan::departure::guard::{GuardContext, Limits};
use crate::plan::departure::{Departure, Departures, Evidence};
use crate::plan::trust::{self, Trust};
use jiff::SignedDuration;

const LEASE: LeaseId = LeaseId(7);
const LIMITS: Limits = Limits { min_instances: 10, max_delete_percent: 50, hold: SignedDuration::from_secs(300) };

struct Scene {
    layout: Layout,
    owner: Owner,
    name: RegistryName,
    endpoints: BTreeSet<InstanceAddr>,
    /// Scheme and port of a second endpoint of each instance.
    also: Option<(&'static str, u16)>,
    records: Vec<Record>,
    contested: BTreeMap<InstanceAddr, ContestedExport>,
    /// Whether a watch, and not only a list, showed the endpoints.
    watched: bool,
    moved: Option<BTreeSet<InstanceAddr>>,
    unseen: BTreeSet<IpAddr>,
    grace_until: Option<Timestamp>,
    state: ExportState,
    imports: bool,
    share: Option<i64>,
    denied: CidrSet,
    leads: bool,
    departures: Departures,
    tags: Tags,
    now: Timestamp,
}

fn addr(text: &str) -> InstanceAddr {
    InstanceAddr::parse(text).unwrap()
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap()
}

impl Scene {
    fn with_endpoints(endpoints: &[&str]) -> Self {
        Self {
            layout: Layout::new(Format::Kitex, "p"),
            owner: Owner { cluster_id: "c1".into(), service: ServiceKey::new("shop", "echo") },
            name: RegistryName::new("echo").unwrap(),
            endpoints: endpoints.iter().map(|e| addr(e)).collect(),
            also: None,
            records: Vec::new(),
            contested: BTreeMap::new(),
            watched: true,
            moved: None,
            unseen: BTreeSet::new(),
            grace_until: None,
            state: ExportState::default(),
            imports: true,
            share: None,
            denied: CidrSet::default(),
            leads: true,
            departures: Departures::new(),
            tags: Tags::new(),
            now: at(1000),
        }
    }

    fn record(mut self, key: &str, value: &str, lease: LeaseId) -> Self {
        let mod_revision = 100 + i64::try_from(self.records.len()).unwrap();
        let raw = RawRecord { key: key.into(), value: value.into(), mod_revision, lease };
        self.records.push(self.layout.decode(&raw));
        self
    }

    fn own(self, address: &str, owner: &str) -> Self {
        let value = format!(
            r#"{{"network":"tcp","address":"{address}","weight":10,"tags":{{"twinspan.dev/owner":"{owner}"}}}}"#
        );
        self.record(&format!("p/echo/{address}"), &value, LEASE)
    }

    fn foreign(self, key: &str, address: &str) -> Self {
        self.record(key, &format!(r#"{{"network":"tcp","address":"{address}","weight":10,"tags":null}}"#), LEASE)
    }

    fn departed(mut self, address: &str, evidence: Evidence, seconds: i64) -> Self {
        let departure = Departure { evidence, at: at(seconds), record: None };
        self.departures.insert(addr(address), departure);
        self
    }

    fn contested(mut self, address: &str, contest: ContestedExport) -> Self {
        self.contested.insert(addr(address), contest);
        self
    }

    /// Applies the plan as the registry would.
    fn apply(&mut self) -> Plan {
        let plan = self.plan();
        for op in &plan.ops {
            self.records.retain(|record| record.key != *op.key());
            if let RecordOp::Create { key, value } | RecordOp::Update { key, value, .. } = op {
                let raw = RawRecord { key: key.clone(), value: value.clone(), mod_revision: 500, lease: LEASE };
                self.records.push(self.layout.decode(&raw));
            }
        }
        self.state = plan.state.clone();
        plan
    }

    fn plan(&self) -> Plan {
        let here = self.layout.service_root(&self.name);
        let (records, under_other_names): (BTreeMap<_, _>, BTreeMap<_, _>) = self
            .records
            .iter()
            .map(|r| (r.key.clone(), Arc::new(r.clone())))
            .partition(|(key, _)| key.as_bytes().starts_with(here.as_bytes()));
        let instance = |addr: &InstanceAddr| {
            let mut instance = Instance::single(*addr, 10, self.tags.clone());
            if let Some((scheme, port)) = self.also {
                instance.endpoints[0].0 = "grpc".to_owned();
                instance.endpoints.push((scheme.to_owned(), InstanceAddr::new(addr.ip(), port).unwrap()));
            }
            instance
        };
        let (cluster, pods, services) = (trust::Cluster::default(), BTreeMap::new(), BTreeSet::new());
        let policy = trust::Policy { deny: self.denied.clone(), ..trust::Policy::default() };
        let trust = Trust { cluster: &cluster, policy: &policy, pods: &pods, services: &services };
        plan(&Input {
            layout: &self.layout,
            owner: &self.owner,
            name: Some(&self.name),
            instances: &self.endpoints.iter().map(instance).collect::<Vec<_>>(),
            aliases: &BTreeMap::new(),
            stays: None,
            records: &records,
            under_other_names: &under_other_names,
            contested: &self.contested,
            to_release: &BTreeSet::new(),
            departures: &self.departures,
            proof: if self.watched { Proof::WatchEvent { unseen: &self.unseen } } else { Proof::RelistOnly },
            limits: LIMITS,
            context: GuardContext::default(),
            grace_until: self.grace_until.filter(|until| self.now < *until),
            moved: self.moved.as_ref(),
            state: &self.state,
            imports: self.imports,
            share: self.share.map(|percent| Share { percent, trust }),
            leads: self.leads,
            now: self.now,
        })
    }

    /// `+key`, `~key` and `-key` for creates, updates and deletes.
    fn ops(&self) -> Vec<String> {
        self.plan()
            .ops
            .iter()
            .map(|op| {
                let sign = match op {
                    RecordOp::Create { .. } => '+',
                    RecordOp::Update { .. } => '~',
                    RecordOp::Delete { .. } => '-',
                };
                format!("{sign}{}", op.key())
            })
            .collect()
    }
}

#[test]
fn a_ready_endpoint_gets_a_record_with_the_owner_mark() {
    let scene = Scene::with_endpoints(&["10.0.0.1:80", "[fd77::1]:80"]);
    let plan = scene.plan();
    assert_eq!(scene.ops(), ["+p/echo/10.0.0.1:80", "+p/echo/[fd77::1]:80"]);
    assert_eq!(plan.exported(), 2);
    let RecordOp::Create { value, .. } = &plan.ops[0] else { panic!("{plan:?}") };
    assert_eq!(
        String::from_utf8_lossy(value),
        r#"{"network":"tcp","address":"10.0.0.1:80","weight":10,"tags":{"twinspan.dev/owner":"c1/shop/echo"}}"#
    );
}

#[test]
fn what_is_already_there_is_not_written_again() {
    let scene = Scene::with_endpoints(&["10.0.0.1:80"]).own("10.0.0.1:80", "c1/shop/echo");
    let plan = scene.plan();
    assert_eq!((plan.ops.len(), plan.exported()), (0, 1));
    let key = "p/echo/10.0.0.1:80".into();
    assert_eq!(plan.instances, [InstanceOutcome::of(addr("10.0.0.1:80"), Outcome::Exported { key })]);
}

#[test]
fn an_endpoint_that_goes_takes_its_record_with_it_after_new_ones_are_there() {
    let scene = Scene::with_endpoints(&["10.0.0.2:80"]).own("10.0.0.1:80", "c1/shop/echo");
    assert_eq!(scene.ops(), ["+p/echo/10.0.0.2:80", "-p/echo/10.0.0.1:80"]);
    let Some(RecordOp::Delete { if_revision, .. }) = scene.plan().ops.pop() else { panic!() };
    assert_eq!(if_revision, 100, "a delete compares the revision that was seen");
}

#[test]
fn a_changed_weight_or_tag_updates_in_place_on_the_same_lease() {
    let mut scene = Scene::with_endpoints(&["10.0.0.1:80"]).own("10.0.0.1:80", "c1/shop/echo");
    scene.tags.insert("lane".into(), "blue".into());
    let ops = scene.plan().ops;
    assert!(matches!(&ops[..], [RecordOp::Update { if_revision: 100, lease: LEASE, .. }]), "{ops:?}");
}

#[test]
fn an_own_record_without_a_lease_is_written_again() {
    let value = r#"{"network":"tcp","address":"10.0.0.1:80","weight":10,"tags":{"twinspan.dev/owner":"c1/shop/echo"}}"#;
    let scene = Scene::with_endpoints(&["10.0.0.1:80"]).record("p/echo/10.0.0.1:80", value, LeaseId::NONE);
    assert_eq!(scene.ops(), ["~p/echo/10.0.0.1:80"]);
}

#[test]
fn a_pod_that_registers_itself_is_never_doubled() {
    // The key of the server's record and the form of its address do not matter: a second record would double the
    // traffic.
    for (key, address, refused) in [
        ("p/echo/10.0.0.1:80", "10.0.0.1:80", None),
        ("p/echo/some-pod-name", "10.0.0.1:80", None),
        ("p/echo/10.9.9.9:80", "10.0.0.1:80", Some(Reason::KeyValueMismatch)),
        ("p/echo/[::ffff:10.0.0.1]:80", "[::ffff:10.0.0.1]:80", Some(Reason::Ipv4MappedAddress)),
    ] {
        let plan = Scene::with_endpoints(&["10.0.0.1:80"]).foreign(key, address).plan();
        let outcome = Outcome::SelfRegistered { key: key.into(), refused };
        let expected = InstanceOutcome::of(addr("10.0.0.1:80"), outcome);
        assert_eq!((plan.ops, plan.instances), (Vec::new(), vec![expected]), "{key}");
    }
    let v6 = Scene::with_endpoints(&["[fd77::1]:80"]).foreign("p/echo/fd77::1:80", "fd77::1:80");
    assert_eq!(v6.ops(), Vec::<String>::new(), "registry-etcd writes IPv6 without brackets");

    let other_key =
        Scene::with_endpoints(&["10.0.0.1:80"]).own("10.0.0.1:80", "c1/shop/echo").foreign("p/echo/pod", "10.0.0.1:80");
    assert_eq!(other_key.ops(), ["-p/echo/10.0.0.1:80"]);
}

#[test]
fn another_clusters_record_counts_as_registered() {
    let scene = Scene::with_endpoints(&["10.0.0.1:80"]).own("10.0.0.1:80", "c2/shop/echo");
    let plan = scene.plan();
    let outcome = Outcome::TakenByOtherCluster { key: "p/echo/10.0.0.1:80".into() };
    assert_eq!((plan.ops, plan.instances), (Vec::new(), vec![InstanceOutcome::of(addr("10.0.0.1:80"), outcome)]));
}

#[test]
fn after_its_server_left_a_ready_endpoint_waits_ten_seconds_unless_the_server_expired() {
    let left = Scene::with_endpoints(&["10.0.0.1:80"]).departed("10.0.0.1:80", Evidence::Deregistered, 995);
    let plan = left.plan();
    let delayed = InstanceOutcome::held(addr("10.0.0.1:80"), Outcome::ExportDelayed { until: at(1005) });
    assert_eq!((plan.ops, plan.instances, plan.requeue_at), (Vec::new(), vec![delayed], Some(at(1005))));
    let over = Scene::with_endpoints(&["10.0.0.1:80"]).departed("10.0.0.1:80", Evidence::Deregistered, 990);
    assert_eq!(over.ops(), ["+p/echo/10.0.0.1:80"]);
    let expired = Scene::with_endpoints(&["10.0.0.1:80"]).departed("10.0.0.1:80", Evidence::LeaseExpired, 1000);
    assert_eq!(expired.ops(), ["+p/echo/10.0.0.1:80"]);
}

#[test]
fn a_key_that_somebody_else_holds_is_a_conflict_and_is_left_alone() {
    for scene in [
        Scene::with_endpoints(&["10.0.0.1:80", "10.0.0.2:80"]).contested("10.0.0.1:80", ContestedExport::Precedes),
        Scene::with_endpoints(&["10.0.0.1:80", "10.0.0.2:80"]).record("p/echo/10.0.0.1:80", "garbage", LEASE),
        Scene::with_endpoints(&["10.0.0.1:80", "10.0.0.2:80"]).foreign("p/echo/10.0.0.1:80", "10.9.9.9:80"),
    ] {
        assert_eq!(scene.ops(), ["+p/echo/10.0.0.2:80"], "the neighbour is exported all the same");
        let conflict = InstanceOutcome::of(addr("10.0.0.1:80"), Outcome::Skipped(Reason::Conflict));
        assert_eq!(scene.plan().instances[0], conflict);
    }
}

#[test]
fn records_under_an_old_name_are_withdrawn_and_other_owners_never_are() {
    let value = r#"{"network":"tcp","address":"10.0.0.1:80","weight":10,"tags":{"twinspan.dev/owner":"c1/shop/echo"}}"#;
    let mut scene = Scene::with_endpoints(&["10.0.0.1:80"])
        .record("p/old-name/10.0.0.1:80", value, LEASE)
        .own("10.0.0.9:80", "c1/shop/other")
        .foreign("p/echo/10.0.0.8:80", "10.0.0.8:80");
    assert_eq!(scene.ops(), ["+p/echo/10.0.0.1:80"], "a create that is refused must not cost the old record");
    scene.apply();
    assert_eq!(scene.ops(), ["-p/old-name/10.0.0.1:80"]);
}

#[test]
fn an_instance_that_moved_leaves_at_once_and_the_others_are_guarded_as_before() {
    let mut scene = Scene::with_endpoints(&["10.0.0.3:80"])
        .own("10.0.0.1:80", "c1/shop/echo")
        .own("10.0.0.2:80", "c1/shop/echo")
        .own("10.0.0.3:80", "c1/shop/echo");
    scene.watched = false;
    assert_eq!(scene.ops(), [""; 0], "only a list lacks them");
    scene.moved = Some([addr("10.0.0.1:80")].into());
    assert_eq!(scene.ops(), ["-p/echo/10.0.0.1:80"]);
}

#[test]
fn the_same_input_gives_the_same_plan() {
    let scene = Scene::with_endpoints(&["10.0.0.2:80", "10.0.0.1:80"]).own("10.0.0.9:80", "c1/shop/echo");
    assert_eq!(scene.plan(), scene.plan());
}

#[test]
fn an_address_that_two_want_belongs_to_the_first_and_changes_hands_in_one_update() {
    let canary = "c1/shop/echo-canary";
    let key = "10.0.0.1:80";
    // We precede: the record of the other one becomes ours, at the revision that was seen and on its lease.
    let first =
        Scene::with_endpoints(&["10.0.0.1:80"]).own("10.0.0.1:80", canary).contested(key, ContestedExport::Follows);
    assert!(matches!(&first.plan().ops[..], [RecordOp::Update { if_revision: 100, lease: LEASE, .. }]));
    // We follow and wrote the record: the other one takes it over, so we neither touch nor delete it.
    let mine = "c1/shop/echo";
    let second =
        Scene::with_endpoints(&["10.0.0.1:80"]).own("10.0.0.1:80", mine).contested(key, ContestedExport::Precedes);
    assert_eq!(second.ops(), Vec::<String>::new());
    assert_eq!(second.plan().instances[0].skip_reason(), Some(Reason::Conflict));
    // Our endpoint is gone, but another one still wants the address: it takes the record over.
    for contest in [ContestedExport::Precedes, ContestedExport::Follows] {
        let gone = Scene::with_endpoints(&[]).own("10.0.0.1:80", mine).contested(key, contest);
        let kept = InstanceOutcome::of(addr(key), Outcome::RecordWithoutEndpoint);
        assert_eq!((gone.plan().ops, gone.plan().records), (Vec::new(), vec![kept]));
    }
    // No other RegisteredService claims the record any more: its owner released it to us.
    let left = Scene::with_endpoints(&["10.0.0.1:80"]).own("10.0.0.1:80", canary);
    assert_eq!(left.ops(), ["~p/echo/10.0.0.1:80"]);
    // A server that registered itself under another key ends every claim.
    let registered = Scene::with_endpoints(&[])
        .own("10.0.0.1:80", mine)
        .foreign("p/echo/pod", "10.0.0.1:80")
        .contested(key, ContestedExport::Precedes);
    assert_eq!(registered.ops(), ["-p/echo/10.0.0.1:80"]);
}

#[test]
fn without_a_name_everything_goes_but_what_others_take_over() {
    let value = r#"{"network":"tcp","address":"10.0.0.1:80","weight":10,"tags":{"twinspan.dev/owner":"c1/shop/echo"}}"#;
    let healed = value.replace("}}", r#","twinspan.dev/healed":"true"}}"#);
    let scene = Scene::with_endpoints(&["10.0.0.1:80"])
        .record("p/a/10.0.0.1:80", value, LEASE)
        .record("p/b/10.0.0.1:80", value, LEASE)
        .record("p/c/10.0.0.1:80", &healed, LEASE);
    let records: BTreeMap<_, _> = scene.records.iter().map(|r| (r.key.clone(), Arc::new(r.clone()))).collect();
    let plan = plan(&Input {
        layout: &scene.layout,
        owner: &scene.owner,
        name: None,
        instances: &[],
        aliases: &BTreeMap::new(),
        stays: None,
        records: &BTreeMap::new(),
        under_other_names: &records,
        contested: &BTreeMap::new(),
        to_release: &BTreeSet::from(["p/b/10.0.0.1:80".into()]),
        departures: &Departures::new(),
        proof: Proof::RelistOnly,
        limits: LIMITS,
        context: GuardContext::default(),
        grace_until: None,
        moved: None,
        state: &ExportState::default(),
        imports: true,
        share: None,
        leads: true,
        now: scene.now,
    });
    let keys: Vec<String> = plan.ops.iter().map(|op| op.key().to_string()).collect();
    assert_eq!(keys, ["p/a/10.0.0.1:80", "p/c/10.0.0.1:80"], "what we put back for others goes too");
    assert!(plan.ops.iter().all(|op| matches!(op, RecordOp::Delete { .. })));
}

#[test]
fn where_keys_name_their_owner_a_change_of_hands_is_one_batch() {
    for format in [Format::GoZero, Format::Grpc] {
        let mut first = Scene::with_endpoints(&["10.0.0.1:80"]).contested("10.0.0.1:80", ContestedExport::Follows);
        first.layout = Layout::new(format, "p");
        let mut second = Scene::with_endpoints(&["10.0.0.1:80"]);
        second.layout = first.layout.clone();
        second.owner.service.name = "echo-canary".to_owned();
        second.apply();
        first.records = second.records.clone();
        assert_eq!(
            first.ops(),
            ["+p/echo/twinspan~c1~shop~echo~10.0.0.1:80", "-p/echo/twinspan~c1~shop~echo-canary~10.0.0.1:80"],
            "{format:?}"
        );
        // The former owner releases the record to the other one.
        second.contested.insert(addr("10.0.0.1:80"), ContestedExport::Precedes);
        assert_eq!(second.ops(), Vec::<String>::new(), "{format:?}");
    }
}

#[test]
fn every_format_is_exported_once_and_withdrawn() {
    for &format in Format::ALL {
        let mut scene = Scene::with_endpoints(&["10.0.0.1:80"]);
        scene.layout = Layout::new(format, "p");
        scene.also = format.has_schemes().then_some(("http", 81));
        let plan = scene.apply();
        assert_eq!((plan.ops.len(), plan.exported()), (1, 1), "{format:?}");
        assert_eq!(scene.ops(), Vec::<String>::new(), "{format:?}: a second plan writes nothing");
        scene.endpoints.clear();
        scene.apply();
        assert_eq!(scene.records, [], "{format:?}");
    }
}

#[test]
fn one_kratos_record_stands_for_every_port_of_a_pod() {
    let mut scene = Scene::with_endpoints(&["10.0.0.1:80", "10.0.0.2:80"]);
    scene.layout = Layout::new(Format::Kratos, "p");
    scene.also = Some(("http", 81));
    let plan = scene.apply();
    assert_eq!((plan.ops.len(), plan.exported()), (2, 2));
    assert!(scene.plan().ops.is_empty(), "a second plan writes nothing");
    // A server that registers one of the addresses itself is enough.
    let value = r#"{"id":"x","name":"echo","endpoints":["http://10.0.0.1:81"]}"#;
    let scene = scene.record("p/echo/x", value, LEASE);
    assert_eq!(scene.ops(), ["-p/echo/twinspan~c1~shop~echo~10.0.0.1"]);
}

#[test]
fn a_healed_record_of_ours_makes_room_for_the_export_of_its_address() {
    let healed = r#"{"network":"tcp","address":"10.0.0.1:80","weight":10,"tags":{"twinspan.dev/owner":"c1/shop/echo","twinspan.dev/healed":"true"}}"#;
    let other = healed.replace("shop/echo", "shop/other");
    let pod = |key: &str, value: &str| Scene::with_endpoints(&["10.0.0.1:80"]).record(key, value, LEASE);
    assert_eq!(pod("p/echo/10.0.0.1:80", healed).ops(), ["~p/echo/10.0.0.1:80"], "one update");
    assert_eq!(pod("p/echo/by-hand", healed).ops(), ["+p/echo/10.0.0.1:80"], "the import withdraws the other");
    assert_eq!(pod("p/echo/10.0.0.1:80", &other).ops(), Vec::<String>::new(), "its owner withdraws it");
    let exports_only = |watched| Scene { imports: false, watched, ..pod("p/echo/by-hand", healed) };
    for watched in [true, false] {
        assert_eq!(exports_only(watched).ops(), ["+p/echo/10.0.0.1:80", "-p/echo/by-hand"]);
    }
}

#[test]
fn a_record_that_nobody_would_read_is_not_written() {
    let mut scene = Scene::with_endpoints(&["10.0.0.1:80"]);
    scene.tags = (0..32).map(|n| (format!("tag-{n}"), "\u{1F600}".repeat(1024))).collect();
    let plan = scene.plan();
    assert!(plan.ops.is_empty());
    assert_eq!(plan.instances[0].outcome, Outcome::Skipped(Reason::Undecodable));
    scene.tags = (0..32).map(|n| (format!("tag-{n}"), "x".repeat(1024))).collect();
    assert_eq!(scene.plan().ops.len(), 1);
}

#[path = "guard_tests.rs"]
mod guard;
#[path = "weights_tests.rs"]
mod weights;
#[path = "work_tests.rs"]
mod work;

/// The times at which a plan looked at a record, for so many records: half of them of endpoints that are there, a
/// quarter of endpoints that ended, and a quarter of another RegisteredService.
fn looks_at(records: usize) -> usize {
    let address = |n: usize| format!("10.0.{}.{}:80", n / 250, n % 250 + 1);
    let mut scene = Scene::with_endpoints(&[]);
    for n in 0..records {
        let owner = if n % 4 == 1 { "c1/shop/canary" } else { "c1/shop/echo" };
        scene = scene.own(&address(n), owner);
        if n % 4 != 2 {
            scene.endpoints.insert(addr(&address(n)));
        }
    }
    LOOKS.set(0);
    assert_eq!(
        scene.plan().ops.len(),
        records / 2,
        "an update for each of the other's, and a delete for each that ended"
    );
    LOOKS.get()
}

#[test]
fn the_work_of_a_plan_grows_as_the_number_of_records() {
    let (few, many) = (looks_at(100), looks_at(1000));
    assert!(few >= 100 && many <= 10 * few, "{few} looks for 100 records, {many} for 1,000");
}
