//! A service under the guard, in steps of time.
//!
//! Owns the fixture that the tests of the registry's guard use too.

use super::*;

pub const LIMITS: Limits = Limits { min_instances: 10, max_delete_percent: 50, hold: SignedDuration::from_secs(300) };

pub fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + seconds).unwrap()
}

pub fn addr(n: usize) -> InstanceAddr {
    InstanceAddr::parse(&format!("10.0.{}.{}:80", n / 250, n % 250 + 1)).unwrap()
}

/// A service of `known` instances, and the times at which the deletions of some became unexplained.
pub struct Service {
    pub guard: Guard,
    pub known: usize,
    pub unexplained: BTreeMap<InstanceAddr, Unexplained>,
    pub limits: Limits,
    approved: BTreeSet<InstanceAddr>,
    restored_hold_since: Option<Timestamp>,
    pub registry_hold: Option<Hold>,
}

impl Service {
    pub fn of(known: usize) -> Self {
        Self {
            guard: Guard::default(),
            known,
            unexplained: BTreeMap::new(),
            limits: LIMITS,
            approved: BTreeSet::new(),
            restored_hold_since: None,
            registry_hold: None,
        }
    }

    pub fn lose(&mut self, instances: std::ops::Range<usize>, since: i64) {
        for n in instances {
            self.unexplained.insert(addr(n), Unexplained { since: at(since), rollback: false });
        }
    }

    pub fn decide(&mut self, now: i64) -> GuardDecision {
        let decision = self.guard.decide(&GuardInput {
            unexplained: &self.unexplained,
            known: self.known,
            would_be_empty: self.unexplained.len() == self.known,
            limits: self.limits,
            context: GuardContext {
                approved: &self.approved,
                restored_hold_since: self.restored_hold_since,
                registry_hold: self.registry_hold,
            },
            now: at(now),
        });
        for deleted in &decision.allowed {
            self.unexplained.remove(deleted);
            self.known -= 1;
        }
        decision
    }
}

pub fn counts(decision: &GuardDecision) -> (usize, usize) {
    (decision.allowed.len(), decision.held.len())
}

pub fn until(decision: &GuardDecision) -> Option<Timestamp> {
    decision.hold.map(|hold| hold.until)
}

#[test]
fn below_the_limits_deletions_wait_for_ten_quiet_seconds() {
    let mut service = Service::of(20);
    service.lose(0..3, 0);
    let decision = service.decide(0);
    assert_eq!((counts(&decision), until(&decision), decision.requeue_at), ((0, 3), None, Some(at(10))));
    // Another deletion restarts the ten seconds for all.
    service.lose(3..4, 8);
    assert_eq!(counts(&service.decide(10)), (0, 4));
    assert_eq!(counts(&service.decide(17)), (0, 4));
    assert_eq!(counts(&service.decide(18)), (4, 0));
    assert_eq!(service.decide(19), GuardDecision::default());
}

#[test]
fn the_limits() {
    // (known, lost, min instances, percent, held)
    for (known, lost, min, percent, held) in [
        (10, 5, 10, 50, false),
        (10, 6, 10, 50, true),
        (9, 8, 10, 50, false),
        (9, 9, 10, 50, true),
        (1, 1, 10, 50, true),
        (100, 51, 10, 50, true),
        (100, 50, 10, 50, false),
        (4, 1, 1, 0, true),
        (100, 100, 10, 100, true),
        (100, 99, 10, 100, false),
    ] {
        let mut service = Service::of(known);
        service.limits = Limits { min_instances: min, max_delete_percent: percent, ..LIMITS };
        service.lose(0..lost, 0);
        let decision = service.decide(0);
        assert_eq!(decision.hold.is_some(), held, "{lost} of {known}, from {min}, {percent} %: {decision:?}");
        assert_eq!(counts(&decision), (0, lost));
    }
}

#[test]
fn what_went_in_the_window_counts_and_what_went_before_it_does_not() {
    let mut service = Service::of(20);
    service.lose(0..6, 0);
    assert_eq!(counts(&service.decide(10)), (6, 0));
    // 6 of the original 20 are deleted; 5 more would exceed half.
    service.lose(6..11, 50);
    assert_eq!(until(&service.decide(50)), Some(at(350)));

    let mut service = Service::of(20);
    service.lose(0..6, 0);
    assert_eq!(counts(&service.decide(10)), (6, 0));
    service.lose(6..11, 70);
    assert_eq!(until(&service.decide(70)), None, "a new window, with 14 known");
    service.lose(11..14, 75);
    assert!(service.decide(75).hold.is_some());
}

#[test]
fn a_hold_lets_go_at_its_end_and_everything_that_came_meanwhile_with_it() {
    let mut service = Service::of(12);
    service.lose(0..7, 0);
    let decision = service.decide(0);
    assert_eq!((counts(&decision), until(&decision), decision.requeue_at), ((0, 7), Some(at(300)), Some(at(300))));
    service.lose(7..8, 200);
    assert_eq!(until(&service.decide(299)), Some(at(300)), "the end does not move");
    assert_eq!(counts(&service.decide(300)), (8, 0));
    // An instance that comes back is no longer held; once none is held, the next hold starts afresh.
    let mut service = Service::of(12);
    service.lose(0..7, 0);
    service.decide(0);
    service.unexplained.clear();
    assert_eq!(service.decide(100), GuardDecision::default());
    service.lose(0..7, 200);
    assert_eq!(until(&service.decide(200)), Some(at(500)));
}

#[test]
fn approval_releases_what_was_approved_and_nothing_else() {
    let mut service = Service::of(12);
    service.lose(0..7, 0);
    let shown = service.decide(0).held;
    service.approved = shown.clone();
    service.lose(7..9, 5);
    let decision = service.decide(5);
    assert_eq!((decision.allowed.clone(), decision.held.len(), until(&decision)), (shown, 2, Some(at(300))));
    service.approved = decision.held;
    assert_eq!(counts(&service.decide(6)), (2, 0));
}

#[test]
fn another_or_an_older_registry_holds_any_deletion() {
    let mut service = Service::of(100);
    service.unexplained.insert(addr(0), Unexplained { since: at(0), rollback: true });
    assert_eq!(until(&service.decide(0)), Some(at(300)));
}

#[test]
fn a_restart_neither_forgets_a_hold_nor_begins_it_again() {
    let mut service = Service::of(12);
    service.restored_hold_since = Some(at(-100));
    // Nothing is unexplained at first: missing instances are probed before they are judged.
    assert_eq!(service.decide(0), GuardDecision::default());
    service.restored_hold_since = None;
    service.lose(0..1, 10);
    assert_eq!(
        service.decide(10).hold,
        Some(Hold { since: at(-100), until: at(200) }),
        "one of twelve, but it was held before"
    );
    assert_eq!(counts(&service.decide(200)), (1, 0));
    service.lose(1..10, 210);
    assert_eq!(until(&service.decide(210)), Some(at(510)), "that hold is over");
}

#[test]
fn a_clock_that_was_set_back_prolongs_nothing() {
    let mut service = Service::of(20);
    service.lose(0..3, 0);
    service.decide(0);
    assert_eq!(service.decide(-1000).requeue_at, Some(at(-990)));
    let mut service = Service::of(12);
    service.lose(0..7, 0);
    service.decide(0);
    assert_eq!(until(&service.decide(-1000)), Some(at(-700)));
}

#[test]
fn what_was_let_go_is_not_held_again_because_its_write_failed() {
    let mut service = Service::of(12);
    service.lose(0..7, 0);
    service.decide(0);
    let allowed = service.decide(300).allowed;
    assert_eq!(allowed.len(), 7);
    // The slices still hold the endpoints.
    service.known = 12;
    service.lose(0..7, 0);
    assert_eq!(service.decide(301), GuardDecision { allowed, ..GuardDecision::default() });
}
