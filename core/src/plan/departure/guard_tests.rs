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
    reported_until: Option<Timestamp>,
    pub registry_hold: Option<Hold>,
    registry_resumes: Option<Hold>,
    pub registry_let_go: BTreeSet<InstanceAddr>,
    /// Seconds by which the API server's clock is ahead.
    ahead: i64,
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
            reported_until: None,
            registry_hold: None,
            registry_resumes: None,
            registry_let_go: BTreeSet::new(),
            ahead: 0,
        }
    }

    pub fn lose(&mut self, instances: std::ops::Range<usize>, since: i64) {
        for n in instances {
            self.unexplained.insert(addr(n), unexplained(since));
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
                restored: self.restored_hold_since.map(|since| Reported { since, until: self.reported_until }),
                registry_hold: self.registry_hold,
                registry_resumes: self.registry_resumes,
                registry_let_go: &self.registry_let_go,
                api_server_ahead: SignedDuration::from_secs(self.ahead),
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

fn unexplained(since: i64) -> Unexplained {
    Unexplained { since: at(since), departed: at(since), saw: true, rollback: false }
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
fn a_hold_lets_go_at_its_end() {
    let mut service = Service::of(12);
    service.lose(0..7, 0);
    let decision = service.decide(0);
    assert_eq!((counts(&decision), until(&decision), decision.requeue_at), ((0, 7), Some(at(300)), Some(at(300))));
    service.lose(7..8, 60);
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
fn another_wave_before_the_end_of_a_hold_is_held_for_its_own_time() {
    let mut service = Service::of(100);
    service.lose(0..51, 0);
    service.decide(0);
    // 30 of the 49 that are left then, and one that became unexplained at once although its evidence is old.
    service.lose(51..80, 240);
    service.unexplained.insert(addr(80), unexplained(-500));
    assert_eq!(service.decide(240).hold, Some(Hold { since: at(0), until: at(300), ends: at(300) }));
    let decision = service.decide(300);
    assert_eq!(counts(&decision), (51, 30));
    assert_eq!(decision.hold, Some(Hold { since: at(240), until: at(540), ends: at(540) }));
    assert_eq!(counts(&service.decide(539)), (0, 30));
    assert_eq!(counts(&service.decide(540)), (30, 0));
    // Few more than the first wave are no wave: they go once it was quiet.
    let mut service = Service::of(100);
    service.lose(0..51, 0);
    service.decide(0);
    service.lose(51..55, 295);
    let decision = service.decide(300);
    assert_eq!((counts(&decision), decision.hold, decision.requeue_at), ((51, 4), None, Some(at(305))));
    assert_eq!(counts(&service.decide(305)), (4, 0));
}

#[test]
fn waves_without_end_are_each_held_for_their_own_time_only() {
    let mut service = Service::of(40);
    service.limits.max_delete_percent = 0;
    let mut went = BTreeMap::new();
    for now in (0..2000).step_by(10) {
        if let wave @ 0..10 = now / 100
            && now % 100 == 0
        {
            let first = usize::try_from(wave).unwrap() * 4;
            service.lose(first..first + 4, now);
        }
        went.extend(service.decide(now).allowed.into_iter().map(|addr| (addr, now)));
    }
    for n in 0..40 {
        let held = went[&addr(n)] - i64::try_from(n / 4).unwrap() * 100;
        assert_eq!(held, 300, "instance {n}");
    }
}

#[test]
fn approval_releases_what_was_approved_and_nothing_else() {
    let mut service = Service::of(12);
    service.lose(0..7, 0);
    let shown = service.decide(0).held;
    service.approved = shown.clone();
    service.lose(7..9, 5);
    let decision = service.decide(5);
    assert_eq!((decision.allowed.clone(), decision.held.len()), (shown, 2));
    let hold = Hold { since: at(5), until: at(305), ends: at(305) };
    assert_eq!(decision.hold, Some(hold), "the approval ended the hold, and the rest begins another");
    service.approved = decision.held;
    assert_eq!(counts(&service.decide(6)), (2, 0));
}

#[test]
fn another_or_an_older_registry_holds_any_deletion() {
    let mut service = Service::of(100);
    service.unexplained.insert(addr(0), Unexplained { rollback: true, ..unexplained(0) });
    assert_eq!(until(&service.decide(0)), Some(at(300)));
}

#[test]
fn a_restart_neither_forgets_a_hold_nor_begins_it_again() {
    let mut service = Service::of(12);
    service.restored_hold_since = Some(at(-100));
    // Nothing is unexplained at first: missing instances are probed before they are judged.
    assert_eq!(service.decide(0), GuardDecision::default());
    service.restored_hold_since = None;
    service.unexplained.insert(addr(0), Unexplained { departed: at(0), saw: false, ..unexplained(10) });
    let hold = Hold { since: at(-100), until: at(200), ends: at(200) };
    assert_eq!(service.decide(10).hold, Some(hold), "one of twelve, but it was held before");
    assert_eq!(counts(&service.decide(200)), (1, 0));
    service.lose(1..10, 210);
    assert_eq!(until(&service.decide(210)), Some(at(510)), "that hold is over");
}

#[test]
fn what_a_process_saw_depart_itself_is_not_of_the_hold_that_it_resumed() {
    let mut service = Service::of(12);
    service.restored_hold_since = Some(at(-280));
    service.decide(0);
    service.restored_hold_since = None;
    service.unexplained.insert(addr(0), Unexplained { departed: at(0), saw: false, ..unexplained(10) });
    // Their records were there as it took over.
    service.lose(1..8, 12);
    assert_eq!(until(&service.decide(12)), Some(at(20)));
    let decision = service.decide(20);
    assert_eq!((counts(&decision), until(&decision)), ((1, 7), Some(at(312))));
    // So soon after the true start of a hold they are of the same wave.
    let mut service = Service::of(12);
    service.restored_hold_since = Some(at(-10));
    service.decide(0);
    service.restored_hold_since = None;
    service.lose(0..7, 40);
    service.decide(40);
    assert_eq!(counts(&service.decide(290)), (7, 0));
}

#[test]
fn what_a_process_saw_depart_before_it_resumed_a_hold_is_of_it_if_it_departed_soon_after_its_start() {
    let mut service = Service::of(12);
    service.restored_hold_since = Some(at(-280));
    for (n, departed, saw) in [(0, -275, true), (1, -220, true), (2, -219, true), (3, -1, true), (4, -1, false)] {
        let seen = Unexplained { since: at(0), departed: at(departed), saw, rollback: true };
        service.unexplained.insert(addr(n), seen);
    }
    assert_eq!(until(&service.decide(0)), Some(at(20)));
    service.restored_hold_since = None;
    let decision = service.decide(20);
    assert_eq!(decision.allowed, BTreeSet::from([addr(0), addr(1), addr(4)]));
    assert_eq!((decision.held.len(), until(&decision)), (2, Some(at(300))));
}

#[test]
fn a_resumed_hold_lasts_as_long_as_the_registrys_that_may_still_go_on() {
    let resumed = |reported: i64| {
        let mut service = Service::of(12);
        (service.restored_hold_since, service.reported_until) = (Some(at(-295)), Some(at(reported)));
        // The registry's hold began a while after that of the service, and may go on for a minute.
        service.registry_resumes = Some(Hold { since: at(-200), until: at(100), ends: at(60) });
        let missing = Unexplained { departed: at(-290), saw: false, ..unexplained(0) };
        service.unexplained.extend((0..7).map(|n| (addr(n), missing)));
        service.decide(0);
        service.restored_hold_since = None;
        service
    };
    let mut service = resumed(100);
    let decision = service.decide(1);
    let hold = Hold { since: at(-295), until: at(100), ends: at(60) };
    assert_eq!((decision.hold, decision.requeue_at), (Some(hold), Some(at(60))));
    assert_eq!(counts(&service.decide(5)), (0, 7), "its own hold is over");
    service.registry_resumes = None;
    service.registry_hold = Some(Hold { since: at(-200), until: at(100), ends: at(100) });
    assert_eq!(until(&service.decide(20)), Some(at(100)), "the guard of the registry has heard of enough services");
    // Without that, nothing but the hold of the service counts.
    let mut service = resumed(100);
    assert_eq!(counts(&service.decide(59)), (0, 7));
    assert_eq!(counts(&service.decide(60)), (7, 0));
    // The hold of the registry was not one of these deletions.
    let mut service = resumed(5);
    assert_eq!(until(&service.decide(1)), Some(at(5)));
    assert_eq!(counts(&service.decide(5)), (7, 0));
}

#[test]
fn a_resumed_hold_takes_its_age_from_the_api_server() {
    for (ahead, ends) in [(0, 200), (-3600, 300), (150, 50)] {
        let mut service = Service::of(12);
        (service.restored_hold_since, service.ahead) = (Some(at(-100)), ahead);
        service.lose(0..7, 0);
        let hold = service.decide(0).hold.unwrap();
        assert_eq!((hold.since, hold.ends), (at(-100), at(ends)), "{ahead} s ahead");
    }
    // Nobody ruled when its time was over.
    let mut service = Service::of(12);
    (service.restored_hold_since, service.ahead) = (Some(at(-100)), 301);
    service.lose(0..7, 0);
    assert_eq!(service.decide(0).hold, Some(Hold { since: at(301), until: at(601), ends: at(300) }));
}

#[test]
fn an_approval_ends_the_hold_and_the_next_of_the_same_set_has_another_start() {
    let mut service = Service::of(12);
    service.lose(0..7, 0);
    let first = service.decide(0);
    service.approved = first.held.clone();
    assert_eq!(counts(&service.decide(0)), (7, 0));
    // The same instances come back within the same second, and vanish again.
    (service.approved, service.known) = (BTreeSet::new(), 12);
    service.decide(0);
    service.lose(0..7, 0);
    let again = service.decide(0);
    assert_eq!(again.held, first.held);
    assert_ne!(again.hold.unwrap().since, first.hold.unwrap().since);
}

#[test]
fn a_hold_of_the_registry_that_lasts_longer_keeps_what_it_covers() {
    let mut service = Service::of(12);
    service.lose(0..7, 0);
    service.decide(0);
    service.registry_hold = Some(Hold { since: at(200), until: at(500), ends: at(500) });
    let decision = service.decide(300);
    assert_eq!((counts(&decision), until(&decision)), ((0, 7), Some(at(500))));
    // An earlier hold of the registry let them go.
    service.registry_let_go = service.unexplained.keys().take(3).copied().collect();
    assert_eq!(counts(&service.decide(301)), (3, 4));
    assert_eq!(counts(&service.decide(500)), (4, 0));
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

#[test]
fn what_came_back_and_went_again_between_two_decisions_is_another_deletion() {
    let mut service = Service::of(12);
    service.lose(0..7, 0);
    service.decide(0);
    // Nobody decided while six of the records were back: they went with something else.
    service.lose(0..6, 250);
    let decision = service.decide(301);
    assert_eq!((counts(&decision), until(&decision)), ((1, 6), Some(at(550))));
    assert_eq!(counts(&service.decide(549)), (0, 6));
    let allowed = service.decide(550).allowed;
    assert_eq!(allowed.len(), 6);
    // The slices still hold the endpoints, and the records of four came back and went again.
    service.known = 12;
    service.lose(0..4, 551);
    service.lose(4..6, 250);
    let decision = service.decide(552);
    assert_eq!((decision.allowed, decision.held.len()), (BTreeSet::from([addr(4), addr(5)]), 4));
}

#[test]
fn a_deletion_that_becomes_unexplained_later_and_later_is_the_same() {
    let mut service = Service::of(1);
    for now in 0..300 {
        service.unexplained.insert(addr(0), Unexplained { since: at(now), ..unexplained(0) });
        assert_eq!(until(&service.decide(now)), Some(at(300)));
    }
    assert_eq!(counts(&service.decide(300)), (1, 0));
}
