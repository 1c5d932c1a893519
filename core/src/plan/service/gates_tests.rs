//! Gated pods in passes: what is exported of them, what imports see of them, and what the gates are told.
//!
//! Owns one Service of gated pods on both sides. Refuses to know other Services.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use super::super::scene::{Writer, addr, at, good, scene};
use super::*;
use crate::codec::{Format, Layout};
use crate::model::{ExportAddress, Labels, NodeView, RawRecord, ReadinessGate, Reason, SliceEndpoint, TargetPod};
use crate::plan::RecordOp;
use crate::plan::gate::Verdict;
use crate::plan::import::OtherClusters;
use crate::plan::service::{Checkpoint, Directions, FormerGoals, Goal, Plan, Siblings, plan};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;

const HOST: u8 = 1;

/// The pod with its endpoint, one RegisteredService, and the records of a Kitex registry.
struct Bed {
    pod: PodView,
    accepted: Accepted,
    facts: Facts,
    endpoint: SliceEndpoint,
}

fn uid(host: u8) -> String {
    format!("pod-{host}")
}

fn due() -> ReadinessGate {
    ReadinessGate { otherwise_ready: true, only_gates: true, ..ReadinessGate::default() }
}

fn bed(records: &[RawRecord]) -> Bed {
    let mut scene = scene().new_tree(&mut TestRunner::deterministic()).unwrap().current();
    scene.layout = Layout::new(Format::Kitex, "p");
    scene.direction = (true, true);
    scene.endpoints = BTreeSet::from([HOST]);
    let mut facts = scene.facts("echo", records, &scene.endpoints, 0);
    facts.term = Some(crate::plan::service::Term(1));
    facts.cluster.our_slices.clear();
    let ip = addr(HOST).ip();
    let pod = PodView {
        namespace: "shop".into(),
        name: "p".into(),
        uid: uid(HOST),
        ips: vec![ip],
        node: Some("n".into()),
        host_network: false,
        ended: false,
        host_ports: None,
        weight: None,
        gate: Some(Box::new(due())),
        labels: Labels::default(),
    };
    let target = TargetPod { namespace: "shop".into(), name: "p".into(), uid: uid(HOST) };
    let endpoint = SliceEndpoint {
        ready: Some(false),
        serving: Some(false),
        pod: Some(Box::new(target)),
        ..SliceEndpoint::ready(ip)
    };
    let mut accepted = scene.accepted();
    accepted.import.other_clusters = None;
    Bed { pod, accepted, facts, endpoint }
}

fn record(writer: Writer) -> RawRecord {
    good(&Layout::new(Format::Kitex, "p"), HOST, writer)
}

impl Bed {
    fn gate(&mut self) -> &mut ReadinessGate {
        self.pod.gate.as_mut().unwrap()
    }

    fn facts(&self) -> Facts {
        let mut facts = self.facts.clone();
        let slice = Arc::make_mut(&mut facts.cluster.others_slices[0]);
        slice.endpoints = vec![self.endpoint.clone()];
        facts.cluster.pods.insert(addr(HOST).ip(), vec![Arc::new(self.pod.clone())]);
        facts
    }

    fn plan_for(&self, goal: &Goal) -> Plan {
        let (checkpoint, now) = (Checkpoint::default(), at(1_000));
        plan(&self.facts(), goal, &FormerGoals::new(), &Siblings::default(), &checkpoint, now, now)
    }

    fn plan(&self) -> Plan {
        self.plan_for(&Goal::Sync(Box::new(self.accepted.clone())))
    }

    fn ops(&self) -> Vec<&'static str> {
        self.plan().records.iter().flat_map(|(_, ops)| ops).map(RecordOp::label).collect()
    }

    /// The verdict on the pod while these addresses are in own records.
    fn verdict(&self, recorded: &[InstanceAddr]) -> Option<Verdict> {
        let recorded = || recorded.iter().copied().collect();
        verdicts(&self.facts(), &self.accepted, &self.plan().outcomes, recorded)
            .get(&(self.pod.name.clone(), self.pod.uid.clone()))
            .copied()
    }
}

const WAITS: Option<Verdict> = Some(Verdict::Wait);

fn passes(why: Passed) -> Option<Verdict> {
    Some(Verdict::Pass(why))
}

#[test]
fn a_pod_that_only_its_gate_keeps_from_being_ready_is_exported_and_any_other_is_not() {
    let none: [&str; 0] = [];
    assert_eq!(bed(&[]).ops(), ["create"]);
    let mut ended = bed(&[]);
    ended.endpoint.terminating = Some(true);
    assert_eq!(ended.ops(), none, "terminating");
    let mut early = bed(&[]);
    early.gate().otherwise_ready = false;
    assert_eq!(early.ops(), none, "its containers are not ready");
    let mut without = bed(&[]);
    without.pod.gate = None;
    assert_eq!(without.ops(), none, "it has no gate");
    let mut seen = bed(&[]);
    seen.gate().passed = true;
    assert_eq!(seen.ops(), ["create"], "the kubelet has not seen its gate yet");
    seen.gate().only_gates = false;
    assert_eq!(seen.ops(), none, "its Node is lost");
    let mut another = bed(&[]);
    another.pod.uid = "another".into();
    assert_eq!(another.ops(), none, "the slice names another pod");
    let mut outside = bed(&[]);
    outside.accepted.address = ExportAddress::LoadBalancer;
    Arc::make_mut(outside.facts.cluster.service.as_mut().unwrap()).balancer_ips = vec![[192, 0, 2, 1].into()];
    assert_eq!(outside.ops(), none, "a load balancer sends nothing to a pod that is not ready");
    outside.endpoint.ready = Some(true);
    assert_eq!(outside.ops(), ["create"]);
}

#[test]
fn a_lost_node_withdraws_what_waits_there() {
    let mut bed = bed(&[record(Writer::Us)]);
    let plan = bed.plan();
    assert!(plan.records.iter().all(|(_, ops)| ops.is_empty()), "{:?}", plan.records);
    let node = NodeView { lost: true, ..NodeView::default() };
    bed.facts.cluster.nodes = Arc::new([("n".to_owned(), Arc::new(node))].into());
    assert!(!bed.facts().is_gated(&bed.endpoint));
    assert!(bed.plan().outcomes.gated.is_empty());
}

#[test]
fn its_outcome_says_that_it_is_not_ready_yet_and_counts_say_the_same() {
    let waiting = bed(&[record(Writer::Us)]).plan().outcomes;
    assert!(matches!(waiting.gated[0].outcome, Outcome::ExportedBeforeReady { .. }), "{:?}", waiting.gated);
    assert_eq!((waiting.ready.len(), waiting.counts().cluster), (0, 0));
    assert!(waiting.by_address().0[&addr(HOST)].outcome.is_exported());
    let mut ready = bed(&[record(Writer::Us)]);
    ready.endpoint.ready = Some(true);
    let ready = ready.plan().outcomes;
    assert!(matches!(ready.ready[0].outcome, Outcome::Exported { .. }) && ready.gated.is_empty());
}

#[test]
fn imports_do_not_count_it_among_the_pods_that_clients_have() {
    let mut bed = bed(&[]);
    bed.accepted.import.other_clusters = Some(OtherClusters { names: Default::default(), min_local: Some(1) });
    let standing_by = |bed: &Bed| {
        let outcomes = bed.plan().outcomes;
        outcomes.skipped.iter().filter(|i| matches!(i.outcome, Outcome::Standby { .. })).count()
    };
    let other = good(&Layout::new(Format::Kitex, "p"), 9, Writer::OtherCluster);
    let with_other = self::bed(&[other]);
    bed.facts.registry = with_other.facts.registry;
    assert_eq!(standing_by(&bed), 0, "DNS has none but the other cluster's");
    bed.endpoint.ready = Some(true);
    assert_eq!(standing_by(&bed), 1);
}

#[test]
fn a_spec_that_cannot_be_carried_out_keeps_its_record() {
    let bed = bed(&[record(Writer::Us)]);
    let reduced = |gated| super::super::Reduced {
        import: bed.accepted.import.clone(),
        limits: bed.accepted.limits,
        policy: bed.accepted.policy.clone(),
        ready: BTreeSet::new(),
        gated,
    };
    let held = |gated: BTreeSet<IpAddr>| {
        let plan = bed.plan_for(&Goal::Reduce(Box::new(reduced(gated))));
        let Directions { export, .. } = plan.directions.unwrap();
        (export.ops.len(), export.guard.held.len())
    };
    assert_eq!(held(bed.facts().gated_addresses()), (0, 0));
    assert_eq!(held(BTreeSet::new()).0 + held(BTreeSet::new()).1, 1, "without it the record would go");
}

#[test]
fn the_gate_waits_for_a_record_that_is_there_after_the_pass() {
    assert_eq!(bed(&[]).verdict(&[]), WAITS);
    assert_eq!(bed(&[]).verdict(&[addr(2)]), WAITS, "another one's");
    assert_eq!(bed(&[]).verdict(&[addr(HOST)]), passes(Passed::Registered), "this pass wrote it");
    assert_eq!(bed(&[record(Writer::Us)]).verdict(&[addr(HOST)]), passes(Passed::Registered));
    assert_eq!(bed(&[record(Writer::Us)]).verdict(&[]), WAITS, "it went during the pass");
    let mut stale = bed(&[record(Writer::Us)]);
    stale.facts.registry.as_mut().unwrap().snapshot.state = crate::plan::service::ViewState::Stale;
    assert_eq!(stale.verdict(&[addr(HOST)]), WAITS, "nobody knows");
    let mut open = bed(&[]);
    open.gate().passed = true;
    assert_eq!(open.verdict(&[addr(HOST)]), None);
}

#[test]
fn nothing_is_waited_for_where_nothing_is_written() {
    for writer in [Writer::Server, Writer::OtherCluster] {
        assert_eq!(bed(&[record(writer)]).verdict(&[]), passes(Passed::SelfRegistered), "{writer:?}");
    }
    let mut garbage = record(Writer::Server);
    garbage.value = b"garbage".to_vec();
    let refused = bed(&[garbage]);
    assert!(matches!(refused.plan().outcomes.gated[0].outcome, Outcome::Skipped(Reason::Conflict)));
    assert_eq!(refused.verdict(&[]), passes(Passed::Refused));
    let mut family = bed(&[]);
    family.accepted.families = vec![Family::V6];
    assert_eq!(family.verdict(&[]), passes(Passed::Refused), "its family is not exported");
    let mut port = bed(&[]);
    Arc::make_mut(&mut port.facts.cluster.others_slices[0]).ports[0].name = "metrics".into();
    assert_eq!(port.verdict(&[]), passes(Passed::Refused), "it has not the port");
}

#[test]
fn it_waits_for_each_of_its_addresses_that_is_exported() {
    let mut bed = bed(&[]);
    let second: IpAddr = "fd77::1".parse().unwrap();
    bed.pod.ips.push(second);
    let recorded = [addr(HOST)];
    assert_eq!(bed.verdict(&recorded), passes(Passed::Registered), "the other family is not exported");
    bed.accepted.families = vec![Family::V4, Family::V6];
    assert_eq!(bed.verdict(&recorded), passes(Passed::Registered), "the Service does not serve it");
    Arc::make_mut(bed.facts.cluster.service.as_mut().unwrap()).families.push(Family::V6);
    assert_eq!(bed.verdict(&recorded), WAITS, "its slice is yet to come");
    Arc::make_mut(bed.facts.cluster.service.as_mut().unwrap()).selector = false;
    Arc::make_mut(&mut bed.facts.cluster.others_slices[0]).managed_by = Some("somebody".into());
    assert_eq!(bed.verdict(&recorded), passes(Passed::Registered), "whoever fills it names one address");
}
