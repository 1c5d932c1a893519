use super::*;
use crate::codec::Format;
use crate::model::{LeaseId, RawRecord, ServiceKey, Tags};
use crate::plan::departures::{Departure, Evidence};
use jiff::SignedDuration;

const LEASE: LeaseId = LeaseId(7);
const LIMITS: Limits = Limits { min_instances: 10, max_delete_percent: 50, hold: SignedDuration::from_secs(300) };

struct World {
    layout: Layout,
    owner: Owner,
    name: RegistryName,
    endpoints: BTreeSet<InstanceAddr>,
    /// Scheme and port of a second endpoint of each instance.
    also: Option<(&'static str, u16)>,
    records: Vec<Record>,
    claims: BTreeMap<InstanceAddr, Claim>,
    /// Otherwise only a list was.
    watched: bool,
    unseen: BTreeSet<IpAddr>,
    memory: Memory,
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

impl World {
    fn with_endpoints(endpoints: &[&str]) -> Self {
        Self {
            layout: Layout::new(Format::Kitex, "p"),
            owner: Owner { cluster_id: "c1".into(), service: ServiceKey::new("shop", "echo") },
            name: RegistryName::new("echo").unwrap(),
            endpoints: endpoints.iter().map(|e| addr(e)).collect(),
            also: None,
            records: Vec::new(),
            claims: BTreeMap::new(),
            watched: true,
            unseen: BTreeSet::new(),
            memory: Memory::default(),
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

    fn claimed(mut self, address: &str, claim: Claim) -> Self {
        self.claims.insert(addr(address), claim);
        self
    }

    /// What the registry would hold after the plan.
    fn apply(&mut self) -> Plan {
        let plan = self.plan();
        for op in &plan.ops {
            self.records.retain(|record| record.key != *op.key());
            if let RecordOp::Create { key, value } | RecordOp::Update { key, value, .. } = op {
                let raw = RawRecord { key: key.clone(), value: value.clone(), mod_revision: 500, lease: LEASE };
                self.records.push(self.layout.decode(&raw));
            }
        }
        self.memory = plan.memory.clone();
        plan
    }

    fn plan(&self) -> Plan {
        let here = self.layout.service_root(&self.name);
        let (records, elsewhere): (BTreeMap<_, _>, BTreeMap<_, _>) = self
            .records
            .iter()
            .map(|r| (r.key.clone(), r))
            .partition(|(key, _)| key.as_bytes().starts_with(here.as_bytes()));
        let instance = |addr: &InstanceAddr| {
            let mut instance = Instance::single(*addr, 10, self.tags.clone());
            if let Some((scheme, port)) = self.also {
                instance.endpoints[0].0 = "grpc".to_owned();
                instance.endpoints.push((scheme.to_owned(), InstanceAddr::new(addr.ip(), port).unwrap()));
            }
            instance
        };
        plan(&Input {
            layout: &self.layout,
            owner: &self.owner,
            name: Some(&self.name),
            instances: &self.endpoints.iter().map(instance).collect::<Vec<_>>(),
            records: &records,
            elsewhere: &elsewhere,
            claims: &self.claims,
            inherited: &BTreeSet::new(),
            departures: &self.departures,
            seen: if self.watched { Seen::Watched { unseen: &self.unseen } } else { Seen::Listed },
            limits: LIMITS,
            around: Around::default(),
            memory: &self.memory,
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
    let world = World::with_endpoints(&["10.0.0.1:80", "[fd77::1]:80"]);
    let plan = world.plan();
    assert_eq!(world.ops(), ["+p/echo/10.0.0.1:80", "+p/echo/[fd77::1]:80"]);
    assert_eq!(plan.exported, 2);
    let RecordOp::Create { value, .. } = &plan.ops[0] else { panic!("{plan:?}") };
    assert_eq!(
        String::from_utf8_lossy(value),
        r#"{"network":"tcp","address":"10.0.0.1:80","weight":10,"tags":{"twinspan.dev/owner":"c1/shop/echo"}}"#
    );
}

#[test]
fn what_is_already_there_is_not_written_again() {
    let world = World::with_endpoints(&["10.0.0.1:80"]).own("10.0.0.1:80", "c1/shop/echo");
    assert_eq!(world.plan(), Plan { exported: 1, ..Plan::default() });
}

#[test]
fn an_endpoint_that_goes_takes_its_record_with_it_after_new_ones_are_there() {
    let world = World::with_endpoints(&["10.0.0.2:80"]).own("10.0.0.1:80", "c1/shop/echo");
    assert_eq!(world.ops(), ["+p/echo/10.0.0.2:80", "-p/echo/10.0.0.1:80"]);
    let Some(RecordOp::Delete { seen, .. }) = world.plan().ops.pop() else { panic!() };
    assert_eq!(seen, 100, "a delete compares the revision that was seen");
}

#[test]
fn a_changed_weight_or_tag_updates_in_place_on_the_same_lease() {
    let mut world = World::with_endpoints(&["10.0.0.1:80"]).own("10.0.0.1:80", "c1/shop/echo");
    world.tags.insert("lane".into(), "blue".into());
    let ops = world.plan().ops;
    assert!(matches!(&ops[..], [RecordOp::Update { seen: 100, lease: LEASE, .. }]), "{ops:?}");
}

#[test]
fn an_own_record_without_a_lease_is_written_again() {
    let value = r#"{"network":"tcp","address":"10.0.0.1:80","weight":10,"tags":{"twinspan.dev/owner":"c1/shop/echo"}}"#;
    let world = World::with_endpoints(&["10.0.0.1:80"]).record("p/echo/10.0.0.1:80", value, LeaseId::NONE);
    assert_eq!(world.ops(), ["~p/echo/10.0.0.1:80"]);
}

#[test]
fn a_pod_that_registers_itself_is_never_doubled() {
    // Whatever its key and the form of its address; a second record would double its traffic.
    for (key, address) in [
        ("p/echo/10.0.0.1:80", "10.0.0.1:80"),
        ("p/echo/some-pod-name", "10.0.0.1:80"),
        ("p/echo/[::ffff:10.0.0.1]:80", "[::ffff:10.0.0.1]:80"),
    ] {
        let world = World::with_endpoints(&["10.0.0.1:80"]).foreign(key, address);
        assert_eq!(world.plan(), Plan::default(), "{key}");
    }
    let v6 = World::with_endpoints(&["[fd77::1]:80"]).foreign("p/echo/fd77::1:80", "fd77::1:80");
    assert_eq!(v6.plan(), Plan::default(), "registry-etcd writes IPv6 without brackets");

    let other_key =
        World::with_endpoints(&["10.0.0.1:80"]).own("10.0.0.1:80", "c1/shop/echo").foreign("p/echo/pod", "10.0.0.1:80");
    assert_eq!(other_key.ops(), ["-p/echo/10.0.0.1:80"]);
}

#[test]
fn another_clusters_record_counts_as_registered() {
    let world = World::with_endpoints(&["10.0.0.1:80"]).own("10.0.0.1:80", "c2/shop/echo");
    assert_eq!(world.plan(), Plan::default());
}

#[test]
fn after_its_server_left_a_ready_endpoint_waits_ten_seconds_unless_the_server_expired() {
    let left = World::with_endpoints(&["10.0.0.1:80"]).departed("10.0.0.1:80", Evidence::Left, 995);
    assert_eq!(left.plan(), Plan { waiting: 1, look_again: Some(at(1005)), ..Plan::default() });
    let over = World::with_endpoints(&["10.0.0.1:80"]).departed("10.0.0.1:80", Evidence::Left, 990);
    assert_eq!(over.ops(), ["+p/echo/10.0.0.1:80"]);
    let expired = World::with_endpoints(&["10.0.0.1:80"]).departed("10.0.0.1:80", Evidence::Expired, 1000);
    assert_eq!(expired.ops(), ["+p/echo/10.0.0.1:80"]);
}

#[test]
fn a_key_that_somebody_else_holds_is_a_conflict_and_is_left_alone() {
    for world in [
        World::with_endpoints(&["10.0.0.1:80", "10.0.0.2:80"]).claimed("10.0.0.1:80", Claim::Older),
        World::with_endpoints(&["10.0.0.1:80", "10.0.0.2:80"]).record("p/echo/10.0.0.1:80", "garbage", LEASE),
        World::with_endpoints(&["10.0.0.1:80", "10.0.0.2:80"]).foreign("p/echo/10.0.0.1:80", "10.9.9.9:80"),
    ] {
        assert_eq!(world.ops(), ["+p/echo/10.0.0.2:80"], "the neighbour is exported all the same");
        assert_eq!(world.plan().skipped, [Skipped { instance: "10.0.0.1:80".into(), reason: Reason::Conflict }]);
    }
}

#[test]
fn records_under_an_old_name_are_withdrawn_and_other_owners_never_are() {
    let value = r#"{"network":"tcp","address":"10.0.0.1:80","weight":10,"tags":{"twinspan.dev/owner":"c1/shop/echo"}}"#;
    let world = World::with_endpoints(&["10.0.0.1:80"])
        .record("p/old-name/10.0.0.1:80", value, LEASE)
        .own("10.0.0.9:80", "c1/shop/other")
        .foreign("p/echo/10.0.0.8:80", "10.0.0.8:80");
    assert_eq!(world.ops(), ["+p/echo/10.0.0.1:80", "-p/old-name/10.0.0.1:80"]);
}

#[test]
fn the_same_input_gives_the_same_plan() {
    let world = World::with_endpoints(&["10.0.0.2:80", "10.0.0.1:80"]).own("10.0.0.9:80", "c1/shop/echo");
    assert_eq!(world.plan(), world.plan());
}

#[test]
fn an_address_that_two_want_belongs_to_the_older_and_changes_hands_in_one_update() {
    let canary = "c1/shop/echo-canary";
    let key = "10.0.0.1:80";
    // We are the older one: what the younger wrote becomes ours, at the revision that was seen and on its lease.
    let older = World::with_endpoints(&["10.0.0.1:80"]).own("10.0.0.1:80", canary).claimed(key, Claim::Younger);
    assert!(matches!(&older.plan().ops[..], [RecordOp::Update { seen: 100, lease: LEASE, .. }]));
    // We are the younger one and wrote it: the older takes it over, so we neither touch nor delete it.
    let mine = "c1/shop/echo";
    let younger = World::with_endpoints(&["10.0.0.1:80"]).own("10.0.0.1:80", mine).claimed(key, Claim::Older);
    assert_eq!(younger.ops(), Vec::<String>::new());
    assert_eq!(younger.plan().skipped[0].reason, Reason::Conflict);
    // Our endpoint is gone, but another one still wants the address: it takes the record over.
    for claim in [Claim::Older, Claim::Younger] {
        let gone = World::with_endpoints(&[]).own("10.0.0.1:80", mine).claimed(key, claim);
        assert_eq!(gone.plan(), Plan::default());
    }
    // What nobody claims any more is ours to take: its owner gave it up and left it to us.
    let left = World::with_endpoints(&["10.0.0.1:80"]).own("10.0.0.1:80", canary);
    assert_eq!(left.ops(), ["~p/echo/10.0.0.1:80"]);
    // A server that registered itself under another key ends every claim.
    let registered = World::with_endpoints(&[])
        .own("10.0.0.1:80", mine)
        .foreign("p/echo/pod", "10.0.0.1:80")
        .claimed(key, Claim::Older);
    assert_eq!(registered.ops(), ["-p/echo/10.0.0.1:80"]);
}

#[test]
fn without_a_name_everything_goes_but_what_others_take_over() {
    let value = r#"{"network":"tcp","address":"10.0.0.1:80","weight":10,"tags":{"twinspan.dev/owner":"c1/shop/echo"}}"#;
    let healed = value.replace("}}", r#","twinspan.dev/healed":"true"}}"#);
    let world = World::with_endpoints(&["10.0.0.1:80"])
        .record("p/a/10.0.0.1:80", value, LEASE)
        .record("p/b/10.0.0.1:80", value, LEASE)
        .record("p/c/10.0.0.1:80", &healed, LEASE);
    let records: BTreeMap<_, _> = world.records.iter().map(|r| (r.key.clone(), r)).collect();
    let plan = plan(&Input {
        layout: &world.layout,
        owner: &world.owner,
        name: None,
        instances: &[],
        records: &BTreeMap::new(),
        elsewhere: &records,
        claims: &BTreeMap::new(),
        inherited: &BTreeSet::from(["p/b/10.0.0.1:80".into()]),
        departures: &Departures::new(),
        seen: Seen::Listed,
        limits: LIMITS,
        around: Around::default(),
        memory: &Memory::default(),
        now: world.now,
    });
    let keys: Vec<String> = plan.ops.iter().map(|op| op.key().to_string()).collect();
    assert_eq!(keys, ["p/a/10.0.0.1:80", "p/c/10.0.0.1:80"], "what we put back for others goes too");
    assert!(plan.ops.iter().all(|op| matches!(op, RecordOp::Delete { .. })));
}

#[test]
fn where_keys_name_their_owner_a_change_of_hands_is_one_batch() {
    for format in [Format::GoZero, Format::Grpc] {
        let mut older = World::with_endpoints(&["10.0.0.1:80"]).claimed("10.0.0.1:80", Claim::Younger);
        older.layout = Layout::new(format, "p");
        let mut younger = World::with_endpoints(&["10.0.0.1:80"]);
        younger.layout = older.layout.clone();
        younger.owner.service.name = "echo-canary".to_owned();
        younger.apply();
        older.records = younger.records.clone();
        assert_eq!(
            older.ops(),
            ["+p/echo/twinspan~c1~shop~echo~10.0.0.1:80", "-p/echo/twinspan~c1~shop~echo-canary~10.0.0.1:80"],
            "{format:?}"
        );
        // And the one that had it leaves it to the other.
        younger.claims.insert(addr("10.0.0.1:80"), Claim::Older);
        assert_eq!(younger.ops(), Vec::<String>::new(), "{format:?}");
    }
}

#[test]
fn one_kratos_record_stands_for_every_port_of_a_pod() {
    let mut world = World::with_endpoints(&["10.0.0.1:80", "10.0.0.2:80"]);
    world.layout = Layout::new(Format::Kratos, "p");
    world.also = Some(("http", 81));
    let plan = world.apply();
    assert_eq!((plan.ops.len(), plan.exported), (2, 2));
    assert!(world.plan().ops.is_empty(), "a second plan writes nothing");
    // A server that registers one of the addresses itself is enough.
    let value = r#"{"id":"x","name":"echo","endpoints":["http://10.0.0.1:81"]}"#;
    let world = world.record("p/echo/x", value, LEASE);
    assert_eq!(world.ops(), ["-p/echo/twinspan~c1~shop~echo~10.0.0.1"]);
}

#[test]
fn what_only_a_list_does_not_name_any_more_goes_as_the_guard_says() {
    let mut world = World::with_endpoints(&["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"]);
    world.apply();
    world.endpoints.remove(&addr("10.0.0.1:80"));
    world.watched = false;
    let plan = world.apply();
    assert_eq!((plan.ops.len(), plan.ruling.stays.len(), plan.look_again), (0, 1, Some(at(1010))));
    // What a watch shows meanwhile goes at once, and proves nothing for the other.
    world.watched = true;
    world.endpoints.remove(&addr("10.0.0.2:80"));
    assert_eq!(world.ops(), ["-p/echo/10.0.0.2:80"]);
    world.apply();
    world.now = at(1010);
    assert_eq!(world.ops(), ["-p/echo/10.0.0.1:80"]);
    world.apply();
    // The last one is held.
    world.watched = false;
    world.endpoints.clear();
    assert_eq!(world.apply().ruling.held.map(|(_, until)| until), Some(at(1310)));
    // It is there again: nothing is held, and nothing was written.
    world.endpoints.insert(addr("10.0.0.3:80"));
    assert_eq!(world.apply().ruling, Ruling::default());
    assert_eq!(world.records.len(), 1);
}

#[test]
fn a_slice_says_nothing_of_pods_that_nobody_saw_end() {
    let mut world = World::with_endpoints(&["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"]);
    world.apply();
    world.unseen.insert(addr("10.0.0.1:80").ip());
    world.endpoints.retain(|endpoint| *endpoint == addr("10.0.0.3:80"));
    let plan = world.apply();
    assert_eq!((plan.ops.len(), plan.ruling.stays.len()), (1, 1), "the other one was seen to end");
    // It waits as if only a list had shown it, also when it is forgotten what nobody saw.
    world.unseen.clear();
    assert!(world.ops().is_empty());
    world.now = at(1010);
    assert_eq!(world.ops(), ["-p/echo/10.0.0.1:80"]);
}
