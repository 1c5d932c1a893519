use super::*;
use crate::codec::{Format, Layout};
use crate::model::{Owner, RawRecord, Reason, ServiceKey};
use crate::plan::departures::{Answer, Departure, Departures, Probe};
use crate::plan::guard::{Around, Limits};
use crate::plan::import::{self, Memory, Options, Present};
use crate::plan::trust::{Cluster, PodOf, Policy, Trust};
use jiff::SignedDuration;

const US: &str = "c1";

/// A service on both sides, and time.
struct World {
    layout: Layout,
    owner: Owner,
    records: BTreeMap<RecordKey, Record>,
    options: Options,
    pods: BTreeMap<std::net::IpAddr, PodOf>,
    others_ready: bool,
    managed: BTreeSet<(std::net::IpAddr, u16)>,
    departures: Departures,
    began_rolled_back: bool,
    present: BTreeMap<InstanceAddr, Present>,
    inherited: BTreeSet<RecordKey>,
    probes: BTreeMap<InstanceAddr, Probe>,
    around_held: Option<Timestamp>,
    memory: Memory,
    revision: i64,
    now: i64,
}

fn addr(text: &str) -> InstanceAddr {
    InstanceAddr::parse(text).unwrap()
}

fn vm(n: usize) -> String {
    format!("10.0.0.{n}:80")
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + seconds).unwrap()
}

impl World {
    /// `count` servers that registered themselves, imported.
    fn of(count: usize) -> Self {
        let mut world = Self {
            layout: Layout::new(Format::Kitex, "p"),
            owner: Owner { cluster_id: US.into(), service: ServiceKey::new("shop", "echo") },
            records: BTreeMap::new(),
            options: Options {
                schemes: vec![String::new()],
                keep_lost: SignedDuration::from_secs(3600),
                ..Options::default()
            },
            pods: BTreeMap::new(),
            others_ready: false,
            managed: BTreeSet::new(),
            departures: Departures::new(),
            began_rolled_back: false,
            present: BTreeMap::new(),
            inherited: BTreeSet::new(),
            probes: BTreeMap::new(),
            around_held: None,
            memory: Memory::default(),
            revision: 100,
            now: 0,
        };
        for n in 1..=count {
            world.put(&vm(n), "");
        }
        world.step();
        world
    }

    fn key(&self, address: &str) -> RecordKey {
        format!("p/echo/{address}").into()
    }

    /// A record as a server writes it; `tags` are inside the braces.
    fn put(&mut self, address: &str, tags: &str) {
        self.revision += 1;
        let value = format!(r#"{{"network":"tcp","address":"{address}","weight":7,"tags":{{{tags}}},"more":1}}"#);
        let raw = RawRecord {
            key: self.key(address),
            value: value.into_bytes(),
            mod_revision: self.revision,
            lease: LeaseId(9),
        };
        self.records.insert(raw.key.clone(), self.layout.decode(&raw));
        self.departures.remove(&addr(address));
    }

    fn goes(&mut self, address: &str, evidence: Evidence) {
        let record = self.records.remove(&self.key(address)).expect("it is there");
        let departure = Departure { evidence, at: at(self.now), record: Some(Arc::new(record)) };
        self.departures.insert(addr(address), departure);
    }

    fn answers(&mut self, address: &str, answer: Answer) {
        self.probes.insert(addr(address), Probe { answer, since: at(self.now) });
    }

    fn plan(&self) -> Plan {
        import::plan(&Input {
            layout: &self.layout,
            owner: &self.owner,
            records: &self.records.iter().map(|(key, record)| (key.clone(), record)).collect(),
            options: &self.options,
            managed_by_others: &self.managed,
            others_ready: self.others_ready,
            trust: Trust { cluster: &Cluster::default(), policy: &Policy::default(), pods: &self.pods },
            departures: &self.departures,
            began_rolled_back: self.began_rolled_back,
            present: &self.present,
            rivals: &BTreeMap::new(),
            inherited: &self.inherited,
            probes: &self.probes,
            limits: Limits { min_instances: 10, max_delete_percent: 50, hold: SignedDuration::from_secs(300) },
            around: Around { held_before: self.around_held, ..Around::default() },
            memory: &self.memory,
            now: at(self.now),
        })
    }

    /// Plans and applies: slices hold what was planned, and healed records are written.
    fn step(&mut self) -> Plan {
        let plan = self.plan();
        self.present = plan
            .endpoints
            .iter()
            .map(|(addr, imported)| {
                let (ports, zone) = (imported.ports, imported.zone.clone());
                (*addr, Present { ports, zone, from_here: true, lost_until: imported.lost_until })
            })
            .collect();
        for op in &plan.ops {
            self.revision += 1;
            match op {
                RecordOp::Create { key, value } | RecordOp::Update { key, value, .. } => {
                    let raw = RawRecord {
                        key: key.clone(),
                        value: value.clone(),
                        mod_revision: self.revision,
                        lease: LeaseId(5),
                    };
                    let record = self.layout.decode(&raw);
                    record.addrs().for_each(|addr| drop(self.departures.remove(&addr)));
                    self.records.insert(key.clone(), record);
                }
                RecordOp::Delete { key, .. } => drop(self.records.remove(key)),
            }
        }
        // Whom nobody asks any more is forgotten.
        self.probes.retain(|addr, _| plan.probe.contains(addr));
        self.memory = plan.memory.clone();
        self.around_held = None;
        plan
    }

    /// The process ends and another one begins: what is not in an object is forgotten.
    fn restart(&mut self) {
        self.memory = Memory::default();
        self.departures.clear();
        self.probes.clear();
    }

    fn endpoints(&self) -> Vec<String> {
        self.present.keys().map(ToString::to_string).collect()
    }
}

#[test]
fn a_server_that_leaves_goes_at_once_and_the_last_one_once_it_stops_accepting() {
    let mut world = World::of(2);
    world.goes(&vm(1), Evidence::Left);
    world.step();
    assert_eq!(world.endpoints(), [vm(2)]);
    world.goes(&vm(2), Evidence::Left);
    let plan = world.step();
    assert_eq!((world.endpoints(), plan.waiting), (vec![vm(2)], 1));
    assert_eq!(plan.probe, BTreeSet::from([addr(&vm(2))]));
    world.answers(&vm(2), Answer::Accepted);
    world.now = 20;
    world.step();
    assert_eq!(world.endpoints(), [vm(2)], "it may register again");
    world.answers(&vm(2), Answer::Refused);
    world.step();
    assert_eq!(world.endpoints(), Vec::<String>::new());

    // Pods of the Service are endpoints too: then it is not the last one.
    let mut world = World { others_ready: true, ..World::of(1) };
    world.goes(&vm(1), Evidence::Left);
    world.step();
    assert_eq!(world.endpoints(), Vec::<String>::new());
}

#[test]
fn nothing_goes_before_its_lease_was_looked_up() {
    let mut world = World::of(2);
    world.goes(&vm(1), Evidence::Pending);
    let plan = world.step();
    assert_eq!((world.endpoints().len(), plan.waiting, plan.probe.len()), (2, 1, 0));
    world.departures.get_mut(&addr(&vm(1))).unwrap().evidence = Evidence::Left;
    world.step();
    assert_eq!(world.endpoints(), [vm(2)]);
}

#[test]
fn an_expired_server_that_lives_stays_until_its_deadline_also_over_a_restart() {
    let mut world = World::of(3);
    world.goes(&vm(1), Evidence::Expired);
    let plan = world.step();
    assert_eq!((plan.lost.len(), plan.waiting, world.endpoints().len()), (0, 1, 3), "it is probed first");
    world.answers(&vm(1), Answer::Accepted);
    let plan = world.step();
    assert_eq!((plan.lost.len(), plan.waiting), (1, 0));
    assert_eq!(world.present[&addr(&vm(1))].lost_until, Some(at(3600)));

    world.now = 100;
    world.restart();
    let plan = world.step();
    assert_eq!((plan.lost.len(), plan.waiting, world.endpoints().len()), (0, 1, 3), "probed anew");
    world.answers(&vm(1), Answer::Accepted);
    world.step();
    assert_eq!(world.present[&addr(&vm(1))].lost_until, Some(at(3600)), "the deadline neither forgotten nor extended");
    // Registered again: nothing is lost any more.
    world.put(&vm(1), "");
    let plan = world.step();
    assert_eq!((plan.lost.len(), world.present[&addr(&vm(1))].lost_until), (0, None));

    world.goes(&vm(1), Evidence::Expired);
    world.answers(&vm(1), Answer::Accepted);
    world.step();
    world.now = 3700;
    let plan = world.step();
    assert_eq!((plan.ruling.stays.len(), plan.ruling.look_again), (1, Some(at(3710))), "past its deadline");
    world.now = 3710;
    world.step();
    assert_eq!(world.endpoints().len(), 2);
}

#[test]
fn an_expired_server_that_refuses_goes_and_one_that_is_silent_goes_as_the_guard_says() {
    let mut world = World::of(4);
    world.goes(&vm(1), Evidence::Expired);
    world.answers(&vm(1), Answer::Refused);
    world.step();
    assert_eq!(world.endpoints().len(), 3);
    world.goes(&vm(2), Evidence::Expired);
    world.answers(&vm(2), Answer::Silent);
    assert_eq!(world.step().waiting, 1);
    world.now = 10;
    let plan = world.step();
    assert_eq!(plan.ruling.look_again, Some(at(20)));
    world.now = 20;
    world.step();
    assert_eq!(world.endpoints(), [vm(3), vm(4)]);
}

#[test]
fn what_is_swept_away_is_held_and_let_go_in_the_end() {
    let mut world = World::of(12);
    for n in 1..=12 {
        world.goes(&vm(n), Evidence::Swept);
    }
    let plan = world.step();
    assert_eq!(
        (world.endpoints().len(), plan.waiting, plan.ruling.held.map(|(_, until)| until)),
        (12, 12, Some(at(300)))
    );
    world.now = 100;
    world.restart();
    world.around_held = Some(at(0));
    let plan = world.step();
    // Orphans now; they are probed, and what neither refuses nor accepts is held until the end that status told of.
    assert_eq!((world.endpoints().len(), plan.probe.len()), (12, 12));
    for n in 1..=12 {
        world.answers(&vm(n), Answer::Silent);
    }
    world.now = 110;
    assert_eq!(world.step().ruling.held.map(|(_, until)| until), Some(at(300)));
    world.now = 300;
    assert_eq!(world.step().ruling.goes.len(), 12);
    assert_eq!(world.endpoints(), Vec::<String>::new());
}

#[test]
fn another_registry_at_start_makes_orphans_of_it_unexplained_at_once() {
    let mut world = World::of(3);
    world.restart();
    world.records.clear();
    world.began_rolled_back = true;
    let plan = world.step();
    assert_eq!(
        (plan.probe.len(), plan.ruling.stays.len(), plan.ruling.held.map(|(_, until)| until)),
        (0, 3, Some(at(300)))
    );
}

#[test]
fn what_is_not_wanted_any_more_is_no_departure() {
    // The record says something else now.
    let mut world = World::of(2);
    let key = world.key(&vm(1));
    world.records.remove(&key);
    let value = br#"{"network":"tcp","address":"10.0.0.9:80","weight":7}"#.to_vec();
    let raw = RawRecord { key: "p/echo/pod".into(), value, mod_revision: 200, lease: LeaseId(9) };
    world.records.insert(raw.key.clone(), world.layout.decode(&raw));
    world.step();
    assert_eq!(world.endpoints(), [vm(2), vm(9)]);
    // Somebody wrote into our slice.
    world.present.insert(addr("10.9.9.9:80"), Present { from_here: true, ports: PortSet::of(0), ..Present::default() });
    world.step();
    assert_eq!(world.endpoints(), [vm(2), vm(9)]);
    // Another name, which it got while nobody looked.
    world.restart();
    world.present.values_mut().for_each(|present| present.from_here = false);
    world.records.clear();
    world.step();
    assert_eq!(world.endpoints(), Vec::<String>::new());
    // Not selected any more: the record is there, and speaks for itself.
    let mut world = World::of(2);
    world.options.tag_selector.match_labels.insert("lane".into(), "blue".into());
    world.put(&vm(2), r#""lane":"blue""#);
    world.step();
    assert_eq!(world.endpoints(), [vm(2)]);
}

#[test]
fn pods_and_what_other_clusters_exported_are_never_kept() {
    let mut world = World::of(3);
    world.options.other_clusters = true;
    world.put(&vm(4), r#""twinspan.dev/owner":"c2/shop/echo""#);
    world.pods.insert(addr(&vm(1)).ip(), PodOf::SameNamespace);
    world.step();
    assert_eq!(world.endpoints().len(), 4);
    for n in [1, 4] {
        world.goes(&vm(n), Evidence::Expired);
        world.answers(&vm(n), Answer::Accepted);
    }
    let plan = world.step();
    assert_eq!((plan.lost.len(), plan.ruling.stays.len(), plan.probe.len()), (0, 2, 0));
    world.now = 10;
    world.step();
    assert_eq!(world.endpoints(), [vm(2), vm(3)]);
}

#[test]
fn trust_ends_every_hold() {
    let mut world = World::of(3);
    world.goes(&vm(1), Evidence::Swept);
    world.goes(&vm(2), Evidence::Swept);
    world.step();
    assert_eq!(world.endpoints().len(), 3);
    world.pods.insert(addr(&vm(1)).ip(), PodOf::OtherNamespace);
    world.managed.insert((addr(&vm(2)).ip(), 80));
    world.step();
    assert_eq!(world.endpoints(), [vm(3)]);
}

fn healing(count: usize) -> World {
    let mut world = World::of(count);
    world.options.on_expiry = OnExpiry::Heal;
    world
}

#[test]
fn a_lost_registration_is_put_back_as_it_was_and_ends_with_its_endpoint() {
    let mut world = healing(2);
    world.put(&vm(1), r#""lane":"blue""#);
    world.step();
    world.goes(&vm(1), Evidence::Expired);
    assert!(world.step().ops.is_empty(), "not before it was seen to live");
    world.answers(&vm(1), Answer::Accepted);
    let plan = world.step();
    assert_eq!((plan.lost.len(), plan.healed), (1, 1));
    let record = &world.records[&world.key(&vm(1))];
    assert_eq!(record.kind(US), Kind::Healed(&world.owner));
    let Content::Registered { registration, .. } = &record.content else { panic!("{record:?}") };
    assert_eq!((registration.weight, registration.tags["lane"].as_str()), (7, "blue"));
    assert!(registration.rest.contains_key("more"));
    assert_eq!(world.endpoints(), [vm(1), vm(2)]);
    let plan = world.step();
    assert_eq!((plan.ops.len(), plan.healed), (0, 1), "a second plan writes nothing");
    // It dies: record and endpoint go together.
    world.answers(&vm(1), Answer::Refused);
    let plan = world.step();
    assert!(matches!(&plan.ops[..], [RecordOp::Delete { .. }]), "{:?}", plan.ops);
    assert_eq!(world.endpoints(), [vm(2)]);
    assert_eq!(world.step().ops, []);
}

#[test]
fn what_could_not_be_ours_or_is_too_large_is_kept_and_not_put_back() {
    for deep in [false, true] {
        let mut world = healing(2);
        world.put(&vm(1), &format!(r#""lane":"{}""#, "x".repeat(if deep { 1 } else { MAX_HEALED })));
        world.step();
        world.goes(&vm(1), Evidence::Expired);
        if deep {
            let departure = world.departures.get_mut(&addr(&vm(1))).unwrap();
            let mut record = departure.record.as_deref().unwrap().clone();
            record.key = "p/echo/rack/10.0.0.1:80".into();
            departure.record = Some(Arc::new(record));
        }
        world.answers(&vm(1), Answer::Accepted);
        let plan = world.step();
        assert_eq!((plan.lost.len(), plan.healed, plan.ops.len()), (1, 0, 0), "deep: {deep}");
        assert_eq!(world.endpoints(), [vm(1), vm(2)]);
    }
}

#[test]
fn a_healed_registration_survives_a_restart_and_gives_way_to_the_server_itself() {
    let mut world = healing(2);
    world.goes(&vm(1), Evidence::Expired);
    world.answers(&vm(1), Answer::Accepted);
    world.step();
    world.now = 50;
    world.restart();
    let plan = world.step();
    assert_eq!((plan.ops.len(), plan.healed, world.endpoints().len()), (0, 1, 2));
    world.answers(&vm(1), Answer::Accepted);
    assert_eq!(world.step().ops, []);
    assert_eq!(world.present[&addr(&vm(1))].lost_until, Some(at(3600)));
    // The server registers under another key: ours is withdrawn, and the endpoint does not notice.
    let value = br#"{"network":"tcp","address":"10.0.0.1:80","weight":7}"#.to_vec();
    let raw = RawRecord { key: "p/echo/itself".into(), value, mod_revision: 500, lease: LeaseId(9) };
    world.records.insert(raw.key.clone(), world.layout.decode(&raw));
    let plan = world.step();
    assert!(matches!(&plan.ops[..], [RecordOp::Delete { .. }]), "{:?}", plan.ops);
    assert_eq!((world.endpoints().len(), plan.lost.len(), plan.healed), (2, 0, 0));
}

#[test]
fn what_somebody_deletes_is_not_healed_again_and_what_our_lease_lost_is() {
    for (evidence, back) in [(Evidence::Left, false), (Evidence::Expired, true)] {
        let mut world = healing(2);
        world.goes(&vm(1), Evidence::Expired);
        world.answers(&vm(1), Answer::Accepted);
        world.step();
        world.now = 60;
        world.goes(&vm(1), evidence);
        world.step();
        assert_eq!(world.records.contains_key(&world.key(&vm(1))), back, "{evidence:?}");
        assert_eq!(world.endpoints().len(), if back { 2 } else { 1 }, "{evidence:?}");
    }
}

#[test]
fn without_heal_what_was_healed_is_withdrawn_and_formats_without_marks_never_are() {
    let mut world = healing(2);
    world.goes(&vm(1), Evidence::Expired);
    world.answers(&vm(1), Answer::Accepted);
    world.step();
    world.options.on_expiry = OnExpiry::Probe;
    let plan = world.step();
    assert!(matches!(&plan.ops[..], [RecordOp::Delete { .. }]), "{:?}", plan.ops);
    assert_eq!((plan.lost.len(), plan.healed, world.endpoints().len()), (1, 0, 2), "it is lost, as it was");

    let mut world = healing(2);
    world.layout = Layout::new(Format::GoZero, "p");
    world.goes(&vm(1), Evidence::Expired);
    world.answers(&vm(1), Answer::Accepted);
    let plan = world.step();
    assert_eq!((plan.ops.len(), plan.lost.len()), (0, 1));
}

#[test]
fn a_healed_registration_changes_hands_in_one_update() {
    let mut world = healing(2);
    world.goes(&vm(1), Evidence::Expired);
    world.answers(&vm(1), Answer::Accepted);
    world.step();
    // Seen by another importer, to whom it is a record like any other …
    world.owner.service.name = "other".into();
    world.memory = Memory::default();
    let plan = world.step();
    assert_eq!((plan.ops.len(), plan.healed, world.endpoints().len()), (0, 0, 2));
    // … until its owner goes.
    world.inherited.insert(world.key(&vm(1)));
    let plan = world.step();
    assert!(matches!(&plan.ops[..], [RecordOp::Update { .. }]), "{:?}", plan.ops);
    assert_eq!(world.records[&world.key(&vm(1))].kind(US), Kind::Healed(&world.owner));
    assert_eq!((world.endpoints().len(), world.step().ops.len()), (2, 0));
}

#[test]
fn the_same_input_gives_the_same_plan() {
    let mut world = World::of(12);
    for n in 1..=6 {
        world.goes(&vm(n), Evidence::Swept);
    }
    assert_eq!(world.plan(), world.plan());
    let skipped: Vec<Reason> = world.plan().skipped.into_iter().map(|s| s.reason).collect();
    assert_eq!(skipped, []);
}
