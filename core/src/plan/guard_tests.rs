use super::*;

const LIMITS: Limits = Limits { min_instances: 10, max_delete_percent: 50, hold: SignedDuration::from_secs(300) };

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + seconds).unwrap()
}

fn addr(n: usize) -> InstanceAddr {
    InstanceAddr::parse(&format!("10.0.{}.{}:80", n / 250, n % 250 + 1)).unwrap()
}

/// A service of `known` instances, and the times since when some of them are unexplained.
struct Service {
    guard: Guard,
    known: usize,
    unexplained: BTreeMap<InstanceAddr, Unexplained>,
    limits: Limits,
    approved: Option<BTreeSet<InstanceAddr>>,
    held_before: Option<Timestamp>,
    registry_hold: Option<Timestamp>,
}

impl Service {
    fn of(known: usize) -> Self {
        Self {
            guard: Guard::default(),
            known,
            unexplained: BTreeMap::new(),
            limits: LIMITS,
            approved: None,
            held_before: None,
            registry_hold: None,
        }
    }

    fn lose(&mut self, instances: std::ops::Range<usize>, since: i64) {
        for n in instances {
            self.unexplained.insert(addr(n), Unexplained { since: at(since), rollback: false });
        }
    }

    fn rule(&mut self, now: i64) -> Ruling {
        let ruling = self.guard.rule(&Case {
            unexplained: &self.unexplained,
            known: self.known,
            would_be_empty: self.unexplained.len() == self.known,
            limits: self.limits,
            around: Around {
                approved: self.approved.as_ref(),
                held_before: self.held_before,
                registry_hold: self.registry_hold,
            },
            now: at(now),
        });
        for gone in &ruling.goes {
            self.unexplained.remove(gone);
            self.known -= 1;
        }
        ruling
    }
}

fn counts(ruling: &Ruling) -> (usize, usize) {
    (ruling.goes.len(), ruling.stays.len())
}

#[test]
fn below_the_limits_deletions_wait_for_ten_quiet_seconds() {
    let mut service = Service::of(20);
    service.lose(0..3, 0);
    let ruling = service.rule(0);
    assert_eq!((counts(&ruling), ruling.held_until, ruling.look_again), ((0, 3), None, Some(at(10))));
    // Another one comes: the ten seconds begin again for all.
    service.lose(3..4, 8);
    assert_eq!(counts(&service.rule(10)), (0, 4));
    assert_eq!(counts(&service.rule(17)), (0, 4));
    assert_eq!(counts(&service.rule(18)), (4, 0));
    assert_eq!(service.rule(19), Ruling::default());
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
        let ruling = service.rule(0);
        assert_eq!(ruling.held_until.is_some(), held, "{lost} of {known}, from {min}, {percent} %: {ruling:?}");
        assert_eq!(counts(&ruling), (0, lost));
    }
}

#[test]
fn what_went_in_the_window_counts_and_what_went_before_it_does_not() {
    let mut service = Service::of(20);
    service.lose(0..6, 0);
    assert_eq!(counts(&service.rule(10)), (6, 0));
    // 6 of the 20 that there were have gone; 5 more are more than half.
    service.lose(6..11, 50);
    assert_eq!(service.rule(50).held_until, Some(at(350)));

    let mut service = Service::of(20);
    service.lose(0..6, 0);
    assert_eq!(counts(&service.rule(10)), (6, 0));
    service.lose(6..11, 70);
    assert_eq!(service.rule(70).held_until, None, "a new window, with 14 known");
    service.lose(11..14, 75);
    assert!(service.rule(75).held_until.is_some());
}

#[test]
fn a_hold_lets_go_at_its_end_and_everything_that_came_meanwhile_with_it() {
    let mut service = Service::of(12);
    service.lose(0..7, 0);
    let ruling = service.rule(0);
    assert_eq!((counts(&ruling), ruling.held_until, ruling.look_again), ((0, 7), Some(at(300)), Some(at(300))));
    service.lose(7..8, 200);
    assert_eq!(service.rule(299).held_until, Some(at(300)), "the end does not move");
    assert_eq!(counts(&service.rule(300)), (8, 0));
    // What comes back ends the hold of it; when nothing is left, the next one begins anew.
    let mut service = Service::of(12);
    service.lose(0..7, 0);
    service.rule(0);
    service.unexplained.clear();
    assert_eq!(service.rule(100), Ruling::default());
    service.lose(0..7, 200);
    assert_eq!(service.rule(200).held_until, Some(at(500)));
}

#[test]
fn approval_releases_what_was_approved_and_nothing_else() {
    let mut service = Service::of(12);
    service.lose(0..7, 0);
    let shown = service.rule(0).stays;
    service.approved = Some(shown.clone());
    service.lose(7..9, 5);
    let ruling = service.rule(5);
    assert_eq!((ruling.goes, ruling.stays.len(), ruling.held_until), (shown, 2, Some(at(300))));
    service.approved = Some(ruling.stays);
    assert_eq!(counts(&service.rule(6)), (2, 0));
}

#[test]
fn another_or_an_older_registry_holds_any_deletion() {
    let mut service = Service::of(100);
    service.unexplained.insert(addr(0), Unexplained { since: at(0), rollback: true });
    assert_eq!(service.rule(0).held_until, Some(at(300)));
}

#[test]
fn a_restart_neither_forgets_a_hold_nor_begins_it_again() {
    let mut service = Service::of(12);
    service.held_before = Some(at(-100));
    service.lose(0..1, 0);
    assert_eq!(service.rule(0).held_until, Some(at(200)), "one of twelve, but it was held before");
    assert_eq!(counts(&service.rule(200)), (1, 0));
}

#[test]
fn a_clock_that_was_set_back_prolongs_nothing() {
    let mut service = Service::of(20);
    service.lose(0..3, 0);
    service.rule(0);
    assert_eq!(service.rule(-1000).look_again, Some(at(-990)));
    let mut service = Service::of(12);
    service.lose(0..7, 0);
    service.rule(0);
    assert_eq!(service.rule(-1000).held_until, Some(at(-700)));
}

#[test]
fn the_registry_as_a_whole_holds_what_each_service_would_let_go() {
    let mut registry = RegistryGuard::default();
    let mut changed = false;
    // 20 services with 3 instances each, of which one goes: none of them reaches a limit of its own.
    for n in 0..20 {
        let stays = BTreeSet::from([format!("import {}", addr(n))]);
        let share = Share { known: 3, going: 1, stays };
        changed |= registry.report(&ServiceKey::new("ns", format!("s-{n:02}")), Some(share), at(0));
    }
    assert!(changed);
    assert_eq!(registry.held_until(None, at(1)), Some(at(300)));
    assert_eq!(registry.held(), 20);
    let mut service = Service::of(3);
    service.registry_hold = registry.held_until(None, at(1));
    service.lose(0..1, 0);
    assert_eq!(service.rule(20).held_until, Some(at(300)));
    service.registry_hold = registry.held_until(None, at(300));
    assert_eq!(counts(&service.rule(300)), (1, 0));
    assert_eq!(registry.held_until(Some(&registry.hash()), at(1)), None, "approved");
    assert_eq!(registry.held_until(Some("something else"), at(1)), Some(at(300)));
}

#[test]
fn the_registry_as_a_whole_does_not_hold_few_or_a_small_part() {
    for (services, each, held) in [(9, 3, false), (10, 3, true), (10, 4, false), (40, 10, false)] {
        let mut registry = RegistryGuard::default();
        for n in 0..services {
            let stays = BTreeSet::from([format!("import {}", addr(n))]);
            let share = Share { known: each, going: 1, stays };
            registry.report(&ServiceKey::new("ns", format!("s-{n}")), Some(share), at(0));
        }
        assert_eq!(registry.held_until(None, at(0)).is_some(), held, "one of {each} in each of {services} services");
    }
}

#[test]
fn the_hash_follows_from_the_set() {
    assert_eq!(hash(["a", "b"]), hash(vec!["a", "b"]));
    assert_ne!(hash(["a", "b"]), hash(["ab"]));
    assert_eq!(hash(["a"]).len(), 12);
}

#[test]
fn what_was_let_go_is_not_held_again_because_its_write_failed() {
    let mut service = Service::of(12);
    service.lose(0..7, 0);
    service.rule(0);
    let goes = service.rule(300).goes;
    assert_eq!(goes.len(), 7);
    // The slices still have them.
    service.known = 12;
    service.lose(0..7, 0);
    assert_eq!(service.rule(301), Ruling { goes, ..Ruling::default() });
}
