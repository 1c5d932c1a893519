//! Properties of LocalFirst over any history of records, pods, holds, leaderships and writes that do not happen.
//!
//! Owns that instances of other clusters come and leave in no plan in which the opposite happens, that a leaving one is
//! no departure, and that plans come to rest where the rule says. Refuses to know the rule's times.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::codec::testing::repeatable;
use crate::plan::departure::{Answer, Evidence};
use crate::plan::import::scene::{Scene, addr, vm};
use crate::plan::import::{OtherClusters, Present};

const MARKS: [&str; 4] = [
    "",
    "",
    r#""twinspan.dev/owner":"c2/shop/echo""#,
    r#""twinspan.dev/owner":"c2/shop/echo","twinspan.dev/healed":"true""#,
];
const EVIDENCE: [Evidence; 5] =
    [Evidence::Deregistered, Evidence::LeaseExpired, Evidence::BulkDeleted, Evidence::LookingUp, Evidence::RolledBack];

#[derive(Clone, Debug)]
enum Step {
    Put(usize, usize),
    Goes(usize, usize),
    Answers(usize, bool),
    Pods(usize),
    Time(i64),
    Leads(bool),
    Restart,
    MinLocal(Option<usize>),
    /// Every write until the next one is not done.
    Writes(bool),
}

fn step() -> impl Strategy<Value = Step> {
    let n = || 1_usize..9;
    prop_oneof![
        4 => (n(), 0..MARKS.len()).prop_map(|(n, mark)| Step::Put(n, mark)),
        3 => (n(), 0..EVIDENCE.len()).prop_map(|(n, evidence)| Step::Goes(n, evidence)),
        1 => (n(), any::<bool>()).prop_map(|(n, accepts)| Step::Answers(n, accepts)),
        2 => (0_usize..4).prop_map(Step::Pods),
        4 => prop::sample::select(vec![1_i64, 5, 29, 30, 31]).prop_map(Step::Time),
        1 => any::<bool>().prop_map(Step::Leads),
        1 => Just(Step::Restart),
        1 => prop::option::of(1_usize..4).prop_map(Step::MinLocal),
        1 => any::<bool>().prop_map(Step::Writes),
    ]
}

struct History {
    scene: Scene,
    writes: bool,
}

impl History {
    fn take(&mut self, step: &Step) {
        let scene = &mut self.scene;
        match *step {
            Step::Put(n, mark) => scene.put(&vm(n), MARKS[mark]),
            Step::Goes(n, evidence) if scene.records.contains_key(&scene.key(&vm(n))) => {
                scene.goes(&vm(n), EVIDENCE[evidence]);
            }
            Step::Goes(..) => {}
            Step::Answers(n, true) => scene.answers(&vm(n), Answer::Accepted),
            Step::Answers(n, false) => scene.answers(&vm(n), Answer::Refused),
            Step::Pods(ready) => scene.pods_of_service.ready = ready,
            Step::Time(seconds) => scene.now += seconds,
            Step::Leads(leads) => {
                scene.state = scene.state.clone().evidence();
                scene.leads = leads;
            }
            Step::Restart => scene.restart(),
            Step::MinLocal(min_local) => {
                scene.options.other_clusters = Some(OtherClusters { min_local, ..OtherClusters::default() });
            }
            Step::Writes(writes) => self.writes = writes,
        }
    }

    /// Plans, and writes where this process leads and nothing hinders it.
    fn plan(&mut self) -> Plan {
        if self.writes && self.scene.leads {
            return self.scene.step();
        }
        let plan = self.scene.plan();
        self.scene.state = plan.state.clone();
        plan
    }

    /// The addresses of other clusters' records that no server registered itself.
    fn others(&self) -> BTreeSet<InstanceAddr> {
        let of = |exported: bool| {
            let records = self.scene.records.values().filter(move |record| record.exporter().is_some() == exported);
            records.flat_map(|record| record.endpoint_addresses()).collect::<BTreeSet<_>>()
        };
        of(true).difference(&of(false)).copied().collect()
    }
}

fn check(before: &BTreeMap<InstanceAddr, Present>, others: &BTreeSet<InstanceAddr>, plan: &Plan) {
    let added: BTreeSet<_> = plan.endpoints.keys().filter(|addr| !before.contains_key(*addr)).copied().collect();
    if plan.stood_back.is_empty() {
        return;
    }
    assert_eq!(added, BTreeSet::new(), "{:?} leave", plan.stood_back);
    assert!(plan.stood_back.is_subset(others), "{:?}", plan.stood_back);
    for addr in &plan.stood_back {
        assert!(before.contains_key(addr) && !plan.endpoints.contains_key(addr));
        assert!(!plan.probe.contains(addr) && !plan.guard.held.contains(addr) && !plan.guard.allowed.contains(addr));
        assert!(!plan.state.departing.contains_key(addr));
    }
}

proptest! {
    #![proptest_config(repeatable(400))]

    #[test]
    fn others_come_and_leave_by_the_number_of_this_clusters_alone(steps in prop::collection::vec(step(), 1..40)) {
        let mut history = History { scene: Scene::of(0), writes: true };
        history.take(&Step::MinLocal(Some(2)));
        for step in &steps {
            history.take(step);
            prop_assert_eq!(history.scene.plan(), history.scene.plan(), "the same state gives the same plan");
            let (before, others) = (history.scene.present.clone(), history.others());
            check(&before, &others, &history.plan());
        }
        // Nothing changes any more: plans come to rest.
        history.take(&Step::Writes(true));
        history.take(&Step::Leads(true));
        let mut plan = history.plan();
        for _ in 0..200 {
            let Some(at) = plan.requeue_at else { break };
            history.scene.now = history.scene.now.max(at.as_second() - 1_000_000);
            let (before, others) = (history.scene.present.clone(), history.others());
            plan = history.plan();
            check(&before, &others, &plan);
        }
        let again = history.plan();
        prop_assert_eq!(&again.endpoints, &plan.endpoints, "a plan that was written changes nothing");
        let others = history.others();
        let there: BTreeSet<_> = others.iter().filter(|addr| again.endpoints.contains_key(addr)).copied().collect();
        let local = |n: &usize| {
            let record = history.scene.records.get(&history.scene.key(&vm(*n)));
            record.is_some_and(|record| matches!(record.kind("c1"), crate::model::Kind::Foreign))
        };
        let local = history.scene.pods_of_service.ready + (1..9).filter(local).count();
        let min_local = history.scene.options.other_clusters.as_ref().and_then(|clusters| clusters.min_local);
        let stand_by = min_local.is_some_and(|min_local| local >= min_local);
        prop_assert_eq!(there, if stand_by { BTreeSet::new() } else { others }, "{} are local", local);
        for n in 1..9 {
            if history.scene.records.get(&history.scene.key(&vm(n))).is_some_and(|record| record.exporter().is_none()) {
                prop_assert!(again.endpoints.contains_key(&addr(&vm(n))), "{} of this cluster is always there", n);
            }
        }
    }
}
