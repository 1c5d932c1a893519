use super::*;
use crate::codec::{Format, Layout};
use crate::model::{LeaseId, Operator, RawRecord, Registration, Requirement};
use crate::plan::departures::{Departure, Evidence};
use crate::plan::trust::{Cluster, PodOf, Policy};

#[derive(Default)]
struct World {
    records: Vec<Record>,
    options: Options,
    pods: BTreeMap<IpAddr, PodOf>,
    cluster: Cluster,
    rivals: BTreeMap<InstanceAddr, Rival>,
    managed_by_others: BTreeSet<(IpAddr, u16)>,
    shadows: Shadows,
    departures: Departures,
    present: BTreeSet<InstanceAddr>,
}

fn addr(text: &str) -> InstanceAddr {
    InstanceAddr::parse(text).unwrap()
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap()
}

impl World {
    fn record(mut self, key: &str, value: &str) -> Self {
        let mod_revision = 100 + i64::try_from(self.records.len()).unwrap();
        let raw = RawRecord { key: key.into(), value: value.into(), mod_revision, lease: LeaseId(7) };
        self.records.push(Layout::new(Format::Kitex, "p").decode(&raw));
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
        self
    }

    fn plan(&self) -> Plan {
        let records: BTreeMap<_, _> = self.records.iter().map(|r| (r.key.clone(), r)).collect();
        plan(&Input {
            cluster_id: "c1",
            records: &records,
            options: &self.options,
            managed_by_others: &self.managed_by_others,
            trust: Trust { cluster: &self.cluster, policy: &Policy::default(), pods: &self.pods },
            shadows: &self.shadows,
            departures: &self.departures,
            present: &self.present,
            rivals: &self.rivals,
            now: at(1000),
        })
    }

    fn endpoints(&self) -> Vec<String> {
        self.plan().endpoints.keys().map(ToString::to_string).collect()
    }

    fn skipped(&self) -> Vec<(String, Reason)> {
        self.plan().skipped.into_iter().map(|s| (s.instance, s.reason)).collect()
    }
}

#[test]
fn a_foreign_record_becomes_an_endpoint() {
    let world = World::default().address("10.0.0.1:80").address("fd77::1:81").address("10.0.0.1:81");
    assert_eq!(world.endpoints(), ["10.0.0.1:80", "10.0.0.1:81", "[fd77::1]:81"]);
    assert_eq!(world.skipped(), []);
}

#[test]
fn one_bad_record_costs_its_neighbours_nothing_and_has_its_reason() {
    let world = World::default()
        .record("p/echo/a", "{broken")
        .record("p/echo/b", "null")
        .record("p/echo/c", r#"{"network":"unix","address":"/tmp/x.sock"}"#)
        .record("p/echo/d", r#"{"address":"10.0.0.4:80"}"#)
        .record("p/echo/e", r#"{"network":"tcp","address":"127.0.0.1:80"}"#)
        .record("p/echo/f", r#"{"network":"tcp","address":"svc.example:80"}"#)
        .record("p/echo/10.0.0.7:80", r#"{"network":"tcp","address":"10.0.0.8:80"}"#)
        .address("10.0.0.9:80");
    assert_eq!(world.endpoints(), ["10.0.0.9:80"]);
    let skipped = world.skipped();
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
    let world = World::default().tagged("10.0.0.1:80", r#"{"twinspan.dev/owner":"c1/shop/echo"}"#);
    assert_eq!(world.plan(), Plan::default());
}

#[test]
fn another_clusters_records_come_only_where_asked_for_and_healed_ones_always() {
    let mut world = World::default()
        .tagged("10.0.0.1:80", r#"{"twinspan.dev/owner":"c2/shop/echo"}"#)
        .tagged("10.0.0.2:80", r#"{"twinspan.dev/owner":"nonsense"}"#)
        .tagged("10.0.0.3:80", r#"{"twinspan.dev/owner":"c2/shop/echo","twinspan.dev/healed":"1"}"#);
    assert_eq!(world.endpoints(), ["10.0.0.3:80"]);
    assert_eq!(
        world.skipped(),
        [("10.0.0.1:80".to_owned(), Reason::OtherCluster), ("10.0.0.2:80".to_owned(), Reason::OtherCluster)]
    );
    world.options.other_clusters = true;
    assert_eq!(world.endpoints(), ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"]);
}

#[test]
fn two_records_of_one_address_are_one_endpoint() {
    let world =
        World::default().address("10.0.0.1:80").record("p/echo/copy", r#"{"network":"tcp","address":"10.0.0.1:80"}"#);
    assert_eq!(world.endpoints(), ["10.0.0.1:80"]);
}

#[test]
fn a_self_registered_pod_is_left_to_its_own_slices_and_its_record_does_not_outlive_it() {
    let mut world = World::default().address("10.0.0.1:80").managed("10.0.0.1:80");
    let first = world.plan();
    assert_eq!(first.endpoints, BTreeMap::new());
    assert_eq!(first.skipped, []);

    // The pod is gone, its record stays until its lease ends.
    world.managed_by_others.clear();
    world.shadows = first.shadows;
    assert_eq!(world.endpoints(), Vec::<String>::new());
    assert_eq!(world.skipped(), [("10.0.0.1:80".to_owned(), Reason::FormerEndpoint)]);

    // Still so at the plan after that, and no longer once somebody registers the address anew.
    world.shadows = world.plan().shadows;
    assert_eq!(world.endpoints(), Vec::<String>::new());
    world.records[0].mod_revision += 1;
    assert_eq!(world.endpoints(), ["10.0.0.1:80"]);
    assert_eq!(world.plan().shadows, Shadows::new());
}

#[test]
fn only_an_unexplained_departure_keeps_an_endpoint_and_only_where_it_was_one() {
    let departure = |evidence| Departure { evidence, at: at(900), registration: Registration::default() };
    let present = BTreeSet::from([addr("10.0.0.1:80"), addr("10.0.0.2:80")]);
    let mut world = World { present, ..World::default() };
    world.departures.insert(addr("10.0.0.1:80"), departure(Evidence::Unexplained));
    world.departures.insert(addr("10.0.0.2:80"), departure(Evidence::Left));
    world.departures.insert(addr("10.0.0.3:80"), departure(Evidence::Unexplained));
    let plan = world.plan();
    assert_eq!(world.endpoints(), ["10.0.0.1:80"]);
    assert_eq!((plan.held, plan.look_again), (1, Some(at(1200))));

    // A pod of our own has the address now: its slices speak for it.
    assert_eq!(world.managed("10.0.0.1:80").plan(), Plan::default());
}

#[test]
fn what_a_stranger_wrote_is_shown_cut() {
    let long = "x".repeat(1000);
    let world = World::default().record("p/echo/k", &format!(r#"{{"network":"tcp","address":"{long}:80"}}"#));
    assert_eq!(world.skipped()[0].0.chars().count(), MAX_SHOWN);
}

#[test]
fn what_trust_refuses_has_its_reason_and_a_kept_endpoint_is_no_exception() {
    let mut world = World::default().address("10.0.0.1:80").address("10.0.0.2:80");
    world.cluster.service_cidrs.insert("10.0.0.1/32");
    assert_eq!(world.endpoints(), ["10.0.0.2:80"]);
    assert_eq!(world.skipped(), [("10.0.0.1:80".to_owned(), Reason::ServiceAddress)]);

    world.present.insert(addr("10.0.0.3:80"));
    world.departures.insert(
        addr("10.0.0.3:80"),
        Departure { evidence: Evidence::Unexplained, at: at(999), registration: Registration::default() },
    );
    assert_eq!(world.endpoints(), ["10.0.0.2:80", "10.0.0.3:80"]);
    world.pods.insert([10, 0, 0, 3].into(), PodOf::OtherNamespace);
    assert_eq!(world.endpoints(), ["10.0.0.2:80"]);
}

#[test]
fn a_pod_that_only_registers_itself_is_imported_while_it_lives_and_not_after() {
    let mut world = World::default().address("10.0.0.1:80");
    world.pods.insert([10, 0, 0, 1].into(), PodOf::SameNamespace);
    world.shadows = world.plan().shadows;
    assert_eq!(world.endpoints(), ["10.0.0.1:80"]);
    world.pods.clear();
    assert_eq!(world.endpoints(), Vec::<String>::new());
    assert_eq!(world.skipped(), [("10.0.0.1:80".to_owned(), Reason::FormerEndpoint)]);
}

#[test]
fn tags_select_records_and_say_zones() {
    let mut world = World::default()
        .tagged("10.0.0.1:80", r#"{"lane":"blue","zone":"eu-1a"}"#)
        .tagged("10.0.0.2:80", r#"{"lane":"green","zone":"eu-1b"}"#)
        .tagged("10.0.0.3:80", r#"{"lane":"blue","zone":"no zone"}"#)
        .address("10.0.0.4:80");
    let blue = Requirement { key: "lane".into(), operator: Operator::In, values: vec!["blue".into()] };
    world.options.tag_selector.requirements = vec![blue];
    world.options.zone_tag = "zone".into();
    let zones: Vec<_> = world.plan().endpoints.iter().map(|(a, z)| (a.to_string(), z.clone())).collect();
    assert_eq!(zones, [("10.0.0.1:80".to_owned(), Some("eu-1a".to_owned())), ("10.0.0.3:80".to_owned(), None)]);
    assert_eq!(world.plan().skipped.iter().filter(|s| s.reason == Reason::NotSelected).count(), 2);
}

#[test]
fn an_endpoint_that_two_import_into_one_service_belongs_to_the_older_and_never_vanishes_in_between() {
    let rival = |older, holds| BTreeMap::from([(addr("10.0.0.1:80"), Rival { older, holds })]);
    let with = |present: bool, rivals: BTreeMap<InstanceAddr, Rival>| {
        let present = if present { BTreeSet::from([addr("10.0.0.1:80")]) } else { BTreeSet::new() };
        World { present, rivals, ..World::default() }.address("10.0.0.1:80")
    };
    let mine = vec!["10.0.0.1:80".to_owned()];
    let none = Vec::<String>::new();
    // We are older: it is ours, whatever the other holds.
    assert_eq!(with(false, rival(false, true)).endpoints(), mine);
    // We are younger: it is not, but while the older does not hold it, ours stays.
    assert_eq!(with(false, rival(true, false)).endpoints(), none);
    assert_eq!(with(true, rival(true, false)).endpoints(), mine);
    assert_eq!(with(true, rival(true, true)).endpoints(), none);
    assert_eq!(with(true, rival(true, false)).plan().skipped[0].reason, Reason::Conflict);
    // We want it no longer, another one does: it stays until that one holds it.
    let unwanted = |holds| World { records: Vec::new(), ..with(true, rival(false, holds)) };
    assert_eq!(unwanted(false).endpoints(), mine);
    assert_eq!(unwanted(true).endpoints(), none);
}
