use super::*;
use crate::codec::{Format, Layout};
use crate::model::{InstanceOutcome, LeaseId, Outcome, Owner, RawRecord, Reason, ServiceKey};
use crate::plan::RecordOp;
use crate::plan::departure::guard::{GuardContext, Limits};
use crate::plan::departure::{Answer, Departure, Departures, OnExpiry, Probe};
use crate::plan::import::{self, ImportState, Options, Present};
use crate::plan::trust::{Cluster, PodOf, Policy, Trust};
use jiff::SignedDuration;

const US: &str = "c1";

/// A service on both sides, and the time.
struct Scene {
    layout: Layout,
    owner: Owner,
    records: BTreeMap<RecordKey, Record>,
    options: Options,
    pods: BTreeMap<std::net::IpAddr, PodOf>,
    others_ready: bool,
    managed: BTreeSet<(std::net::IpAddr, u16)>,
    departures: Departures,
    started_after_rollback: bool,
    present: BTreeMap<InstanceAddr, Present>,
    to_adopt: BTreeSet<RecordKey>,
    probes: BTreeMap<InstanceAddr, Probe>,
    restored_hold_since: Option<Timestamp>,
    state: ImportState,
    revision: i64,
    now: i64,
}

fn addr(text: &str) -> InstanceAddr {
    InstanceAddr::parse(text).unwrap()
}

/// Endpoints that lost their registration and live.
fn lost(plan: &Plan) -> usize {
    let lost = [&plan.outcomes].into_iter().flatten().filter(|instance| !instance.held);
    lost.filter(|i| matches!(i.outcome, Outcome::Lost { .. } | Outcome::ToBeHealed { .. } | Outcome::Healed { .. }))
        .count()
}

/// Lost and waiting endpoints whose record is, or is about to be, put back.
fn healed(plan: &Plan) -> usize {
    let healed = |i: &&InstanceOutcome| matches!(i.outcome, Outcome::ToBeHealed { .. } | Outcome::Healed { .. });
    plan.outcomes.iter().filter(healed).count()
}

/// Endpoints that wait for more evidence or for the guard.
fn waiting(plan: &Plan) -> usize {
    plan.outcomes.iter().filter(|instance| instance.held).count()
}

fn vm(n: usize) -> String {
    format!("10.0.0.{n}:80")
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + seconds).unwrap()
}

impl Scene {
    /// `count` servers that registered themselves, imported.
    fn of(count: usize) -> Self {
        let mut scene = Self {
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
            started_after_rollback: false,
            present: BTreeMap::new(),
            to_adopt: BTreeSet::new(),
            probes: BTreeMap::new(),
            restored_hold_since: None,
            state: ImportState::default(),
            revision: 100,
            now: 0,
        };
        for n in 1..=count {
            scene.put(&vm(n), "");
        }
        scene.step();
        scene
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
            started_after_rollback: self.started_after_rollback,
            present: &self.present,
            contested: &BTreeMap::new(),
            to_adopt: &self.to_adopt,
            probes: &self.probes,
            limits: Limits { min_instances: 10, max_delete_percent: 50, hold: SignedDuration::from_secs(300) },
            context: GuardContext { restored_hold_since: self.restored_hold_since, ..GuardContext::default() },
            state: &self.state,
            now: at(self.now),
        })
    }

    /// Plans and applies: slices hold the planned endpoints, and healed records are written.
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
                    record.endpoint_addresses().for_each(|addr| drop(self.departures.remove(&addr)));
                    self.records.insert(key.clone(), record);
                }
                RecordOp::Delete { key, .. } => drop(self.records.remove(key)),
            }
        }
        // Answers of addresses that are no longer probed are forgotten.
        self.probes.retain(|addr, _| plan.probe.contains(addr));
        self.state = plan.state.clone();
        self.restored_hold_since = None;
        plan
    }

    /// The process ends and another one starts: only the state in objects survives.
    fn restart(&mut self) {
        self.state = ImportState::default();
        self.departures.clear();
        self.probes.clear();
    }

    fn endpoints(&self) -> Vec<String> {
        self.present.keys().map(ToString::to_string).collect()
    }
}

#[test]
fn a_server_that_leaves_goes_at_once_and_the_last_one_once_it_stops_accepting() {
    let mut scene = Scene::of(2);
    scene.goes(&vm(1), Evidence::Deregistered);
    scene.step();
    assert_eq!(scene.endpoints(), [vm(2)]);
    scene.goes(&vm(2), Evidence::Deregistered);
    let plan = scene.step();
    assert_eq!((scene.endpoints(), waiting(&plan)), (vec![vm(2)], 1));
    assert_eq!(plan.probe, BTreeSet::from([addr(&vm(2))]));
    scene.answers(&vm(2), Answer::Accepted);
    scene.now = 20;
    scene.step();
    assert_eq!(scene.endpoints(), [vm(2)], "it may register again");
    scene.answers(&vm(2), Answer::Refused);
    scene.step();
    assert_eq!(scene.endpoints(), Vec::<String>::new());

    // Pods of the Service are endpoints too, so the instance is not the last one.
    let mut scene = Scene { others_ready: true, ..Scene::of(1) };
    scene.goes(&vm(1), Evidence::Deregistered);
    scene.step();
    assert_eq!(scene.endpoints(), Vec::<String>::new());
}

#[test]
fn nothing_goes_before_its_lease_was_looked_up() {
    let mut scene = Scene::of(2);
    scene.goes(&vm(1), Evidence::LookingUp);
    let plan = scene.step();
    assert_eq!((scene.endpoints().len(), waiting(&plan), plan.probe.len()), (2, 1, 0));
    scene.departures.get_mut(&addr(&vm(1))).unwrap().evidence = Evidence::Deregistered;
    scene.step();
    assert_eq!(scene.endpoints(), [vm(2)]);
}

#[test]
fn an_expired_server_that_lives_stays_until_its_deadline_also_over_a_restart() {
    let mut scene = Scene::of(3);
    scene.goes(&vm(1), Evidence::LeaseExpired);
    let plan = scene.step();
    assert_eq!((lost(&plan), waiting(&plan), scene.endpoints().len()), (0, 1, 3), "it is probed first");
    scene.answers(&vm(1), Answer::Accepted);
    let plan = scene.step();
    assert_eq!((lost(&plan), waiting(&plan)), (1, 0));
    assert_eq!(scene.present[&addr(&vm(1))].lost_until, Some(at(3600)));

    scene.now = 100;
    scene.restart();
    let plan = scene.step();
    assert_eq!((lost(&plan), waiting(&plan), scene.endpoints().len()), (0, 1, 3), "probed anew");
    scene.answers(&vm(1), Answer::Accepted);
    scene.step();
    assert_eq!(scene.present[&addr(&vm(1))].lost_until, Some(at(3600)), "the deadline neither forgotten nor extended");
    // The server registers again: nothing is lost any more.
    scene.put(&vm(1), "");
    let plan = scene.step();
    assert_eq!((lost(&plan), scene.present[&addr(&vm(1))].lost_until), (0, None));

    scene.goes(&vm(1), Evidence::LeaseExpired);
    scene.answers(&vm(1), Answer::Accepted);
    scene.step();
    scene.now = 3700;
    let plan = scene.step();
    assert_eq!((plan.guard.held.len(), plan.guard.requeue_at), (1, Some(at(3710))), "past its deadline");
    scene.now = 3710;
    scene.step();
    assert_eq!(scene.endpoints().len(), 2);
}

#[test]
fn an_expired_server_that_refuses_goes_and_one_that_is_silent_goes_as_the_guard_says() {
    let mut scene = Scene::of(4);
    scene.goes(&vm(1), Evidence::LeaseExpired);
    scene.answers(&vm(1), Answer::Refused);
    scene.step();
    assert_eq!(scene.endpoints().len(), 3);
    scene.goes(&vm(2), Evidence::LeaseExpired);
    scene.answers(&vm(2), Answer::NoAnswer);
    assert_eq!(waiting(&scene.step()), 1);
    scene.now = 10;
    let plan = scene.step();
    assert_eq!(plan.guard.requeue_at, Some(at(20)));
    scene.now = 20;
    scene.step();
    assert_eq!(scene.endpoints(), [vm(3), vm(4)]);
}

#[test]
fn what_is_swept_away_is_held_and_let_go_in_the_end() {
    let mut scene = Scene::of(12);
    for n in 1..=12 {
        scene.goes(&vm(n), Evidence::BulkDeleted);
    }
    let plan = scene.step();
    assert_eq!(
        (scene.endpoints().len(), waiting(&plan), plan.guard.hold.map(|hold| hold.until)),
        (12, 12, Some(at(300)))
    );
    scene.now = 100;
    scene.restart();
    scene.restored_hold_since = Some(at(0));
    let plan = scene.step();
    // The endpoints are orphans now and are probed; those that neither refuse nor accept are held until the deadline in
    // status.
    assert_eq!((scene.endpoints().len(), plan.probe.len()), (12, 12));
    for n in 1..=12 {
        scene.answers(&vm(n), Answer::NoAnswer);
    }
    scene.now = 110;
    assert_eq!(scene.step().guard.hold.map(|hold| hold.until), Some(at(300)));
    scene.now = 300;
    assert_eq!(scene.step().guard.allowed.len(), 12);
    assert_eq!(scene.endpoints(), Vec::<String>::new());
}

#[test]
fn another_registry_at_start_makes_orphans_of_it_unexplained_at_once() {
    let mut scene = Scene::of(3);
    scene.restart();
    scene.records.clear();
    scene.started_after_rollback = true;
    let plan = scene.step();
    assert_eq!(
        (plan.probe.len(), plan.guard.held.len(), plan.guard.hold.map(|hold| hold.until)),
        (0, 3, Some(at(300)))
    );
}

#[test]
fn what_is_not_wanted_any_more_is_no_departure() {
    // The content of the record changed.
    let mut scene = Scene::of(2);
    let key = scene.key(&vm(1));
    scene.records.remove(&key);
    let value = br#"{"network":"tcp","address":"10.0.0.9:80","weight":7}"#.to_vec();
    let raw = RawRecord { key: "p/echo/pod".into(), value, mod_revision: 200, lease: LeaseId(9) };
    scene.records.insert(raw.key.clone(), scene.layout.decode(&raw));
    scene.step();
    assert_eq!(scene.endpoints(), [vm(2), vm(9)]);
    // Another program wrote into our slice.
    scene.present.insert(addr("10.9.9.9:80"), Present { from_here: true, ports: PortSet::of(0), ..Present::default() });
    scene.step();
    assert_eq!(scene.endpoints(), [vm(2), vm(9)]);
    // The name changed while no operator ran.
    scene.restart();
    scene.present.values_mut().for_each(|present| present.from_here = false);
    scene.records.clear();
    scene.step();
    assert_eq!(scene.endpoints(), Vec::<String>::new());
    // The record is no longer selected: it exists, so the endpoint did not depart.
    let mut scene = Scene::of(2);
    scene.options.tag_selector.match_labels.insert("lane".into(), "blue".into());
    scene.put(&vm(2), r#""lane":"blue""#);
    scene.step();
    assert_eq!(scene.endpoints(), [vm(2)]);
}

#[test]
fn pods_and_what_other_clusters_exported_are_never_kept() {
    let mut scene = Scene::of(3);
    scene.options.other_clusters = true;
    scene.put(&vm(4), r#""twinspan.dev/owner":"c2/shop/echo""#);
    scene.pods.insert(addr(&vm(1)).ip(), PodOf::SameNamespace);
    scene.step();
    assert_eq!(scene.endpoints().len(), 4);
    for n in [1, 4] {
        scene.goes(&vm(n), Evidence::LeaseExpired);
        scene.answers(&vm(n), Answer::Accepted);
    }
    let plan = scene.step();
    assert_eq!((lost(&plan), plan.guard.held.len(), plan.probe.len()), (0, 2, 0));
    scene.now = 10;
    scene.step();
    assert_eq!(scene.endpoints(), [vm(2), vm(3)]);
}

#[test]
fn trust_ends_every_hold() {
    let mut scene = Scene::of(3);
    scene.goes(&vm(1), Evidence::BulkDeleted);
    scene.goes(&vm(2), Evidence::BulkDeleted);
    scene.step();
    assert_eq!(scene.endpoints().len(), 3);
    scene.pods.insert(addr(&vm(1)).ip(), PodOf::OtherNamespace);
    scene.managed.insert((addr(&vm(2)).ip(), 80));
    scene.step();
    assert_eq!(scene.endpoints(), [vm(3)]);
}

fn healing(count: usize) -> Scene {
    let mut scene = Scene::of(count);
    scene.options.on_expiry = OnExpiry::Heal;
    scene
}

#[test]
fn a_lost_registration_is_put_back_as_it_was_and_ends_with_its_endpoint() {
    let mut scene = healing(2);
    scene.put(&vm(1), r#""lane":"blue""#);
    scene.step();
    scene.goes(&vm(1), Evidence::LeaseExpired);
    assert!(scene.step().ops.is_empty(), "not before it was seen to live");
    scene.answers(&vm(1), Answer::Accepted);
    let plan = scene.step();
    assert_eq!((lost(&plan), healed(&plan)), (1, 1));
    let record = &scene.records[&scene.key(&vm(1))];
    assert_eq!(record.kind(US), Kind::Healed(&scene.owner));
    let Content::Registered { registration, .. } = &record.content else { panic!("{record:?}") };
    assert_eq!((registration.weight, registration.tags["lane"].as_str()), (7, "blue"));
    assert!(registration.rest.contains_key("more"));
    assert_eq!(scene.endpoints(), [vm(1), vm(2)]);
    let plan = scene.step();
    assert_eq!((plan.ops.len(), healed(&plan)), (0, 1), "a second plan writes nothing");
    // The server dies: record and endpoint are deleted together.
    scene.answers(&vm(1), Answer::Refused);
    let plan = scene.step();
    assert!(matches!(&plan.ops[..], [RecordOp::Delete { .. }]), "{:?}", plan.ops);
    assert_eq!(scene.endpoints(), [vm(2)]);
    assert_eq!(scene.step().ops, []);
}

#[test]
fn what_could_not_be_ours_or_is_too_large_is_kept_and_not_put_back() {
    for deep in [false, true] {
        let mut scene = healing(2);
        scene.put(
            &vm(1),
            &format!(r#""lane":"{}""#, "x".repeat(if deep { 1 } else { crate::plan::import::heal::MAX_HEALED })),
        );
        scene.step();
        scene.goes(&vm(1), Evidence::LeaseExpired);
        if deep {
            let departure = scene.departures.get_mut(&addr(&vm(1))).unwrap();
            let mut record = departure.record.as_deref().unwrap().clone();
            record.key = "p/echo/rack/10.0.0.1:80".into();
            departure.record = Some(Arc::new(record));
        }
        scene.answers(&vm(1), Answer::Accepted);
        let plan = scene.step();
        assert_eq!((lost(&plan), healed(&plan), plan.ops.len()), (1, 0, 0), "deep: {deep}");
        assert_eq!(scene.endpoints(), [vm(1), vm(2)]);
    }
}

#[test]
fn a_healed_registration_survives_a_restart_and_gives_way_to_the_server_itself() {
    let mut scene = healing(2);
    scene.goes(&vm(1), Evidence::LeaseExpired);
    scene.answers(&vm(1), Answer::Accepted);
    scene.step();
    scene.now = 50;
    scene.restart();
    let plan = scene.step();
    assert_eq!((plan.ops.len(), healed(&plan), scene.endpoints().len()), (0, 1, 2));
    scene.answers(&vm(1), Answer::Accepted);
    assert_eq!(scene.step().ops, []);
    assert_eq!(scene.present[&addr(&vm(1))].lost_until, Some(at(3600)));
    // The server registers under another key: our record is withdrawn, and the endpoint stays.
    let value = br#"{"network":"tcp","address":"10.0.0.1:80","weight":7}"#.to_vec();
    let raw = RawRecord { key: "p/echo/itself".into(), value, mod_revision: 500, lease: LeaseId(9) };
    scene.records.insert(raw.key.clone(), scene.layout.decode(&raw));
    let plan = scene.step();
    assert!(matches!(&plan.ops[..], [RecordOp::Delete { .. }]), "{:?}", plan.ops);
    assert_eq!((scene.endpoints().len(), lost(&plan), healed(&plan)), (2, 0, 0));
}

#[test]
fn what_somebody_deletes_is_not_healed_again_and_what_our_lease_lost_is() {
    for (evidence, back) in [(Evidence::Deregistered, false), (Evidence::LeaseExpired, true)] {
        let mut scene = healing(2);
        scene.goes(&vm(1), Evidence::LeaseExpired);
        scene.answers(&vm(1), Answer::Accepted);
        scene.step();
        scene.now = 60;
        scene.goes(&vm(1), evidence);
        scene.step();
        assert_eq!(scene.records.contains_key(&scene.key(&vm(1))), back, "{evidence:?}");
        assert_eq!(scene.endpoints().len(), if back { 2 } else { 1 }, "{evidence:?}");
    }
}

#[test]
fn without_heal_what_was_healed_is_withdrawn_and_formats_without_marks_never_are() {
    let mut scene = healing(2);
    scene.goes(&vm(1), Evidence::LeaseExpired);
    scene.answers(&vm(1), Answer::Accepted);
    scene.step();
    scene.options.on_expiry = OnExpiry::Probe;
    let plan = scene.step();
    assert!(matches!(&plan.ops[..], [RecordOp::Delete { .. }]), "{:?}", plan.ops);
    assert_eq!((lost(&plan), healed(&plan), scene.endpoints().len()), (1, 0, 2), "it is lost, as it was");

    let mut scene = healing(2);
    scene.layout = Layout::new(Format::GoZero, "p");
    scene.goes(&vm(1), Evidence::LeaseExpired);
    scene.answers(&vm(1), Answer::Accepted);
    let plan = scene.step();
    assert_eq!((plan.ops.len(), lost(&plan)), (0, 1));
}

#[test]
fn a_healed_registration_changes_hands_in_one_update() {
    let mut scene = healing(2);
    scene.goes(&vm(1), Evidence::LeaseExpired);
    scene.answers(&vm(1), Answer::Accepted);
    scene.step();
    // Another importer treats the healed record like any other …
    scene.owner.service.name = "other".into();
    scene.state = ImportState::default();
    let plan = scene.step();
    assert_eq!((plan.ops.len(), healed(&plan), scene.endpoints().len()), (0, 0, 2));
    // … until the owner of the record is gone.
    scene.to_adopt.insert(scene.key(&vm(1)));
    let plan = scene.step();
    assert!(matches!(&plan.ops[..], [RecordOp::Update { .. }]), "{:?}", plan.ops);
    assert_eq!(scene.records[&scene.key(&vm(1))].kind(US), Kind::Healed(&scene.owner));
    assert_eq!((scene.endpoints().len(), scene.step().ops.len()), (2, 0));
}

#[test]
fn the_same_input_gives_the_same_plan() {
    let mut scene = Scene::of(12);
    for n in 1..=6 {
        scene.goes(&vm(n), Evidence::BulkDeleted);
    }
    assert_eq!(scene.plan(), scene.plan());
    let skipped: Vec<Reason> = scene.plan().skipped.iter().filter_map(InstanceOutcome::skip_reason).collect();
    assert_eq!(skipped, []);
}
