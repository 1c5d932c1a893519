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
    approved: BTreeSet<InstanceAddr>,
    held_before: Option<Timestamp>,
    registry_hold: Option<(Timestamp, Timestamp)>,
}

impl Service {
    fn of(known: usize) -> Self {
        Self {
            guard: Guard::default(),
            known,
            unexplained: BTreeMap::new(),
            limits: LIMITS,
            approved: BTreeSet::new(),
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
                approved: &self.approved,
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

fn until(ruling: &Ruling) -> Option<Timestamp> {
    ruling.held.map(|(_, until)| until)
}

#[test]
fn below_the_limits_deletions_wait_for_ten_quiet_seconds() {
    let mut service = Service::of(20);
    service.lose(0..3, 0);
    let ruling = service.rule(0);
    assert_eq!((counts(&ruling), until(&ruling), ruling.look_again), ((0, 3), None, Some(at(10))));
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
        assert_eq!(ruling.held.is_some(), held, "{lost} of {known}, from {min}, {percent} %: {ruling:?}");
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
    assert_eq!(until(&service.rule(50)), Some(at(350)));

    let mut service = Service::of(20);
    service.lose(0..6, 0);
    assert_eq!(counts(&service.rule(10)), (6, 0));
    service.lose(6..11, 70);
    assert_eq!(until(&service.rule(70)), None, "a new window, with 14 known");
    service.lose(11..14, 75);
    assert!(service.rule(75).held.is_some());
}

#[test]
fn a_hold_lets_go_at_its_end_and_everything_that_came_meanwhile_with_it() {
    let mut service = Service::of(12);
    service.lose(0..7, 0);
    let ruling = service.rule(0);
    assert_eq!((counts(&ruling), until(&ruling), ruling.look_again), ((0, 7), Some(at(300)), Some(at(300))));
    service.lose(7..8, 200);
    assert_eq!(until(&service.rule(299)), Some(at(300)), "the end does not move");
    assert_eq!(counts(&service.rule(300)), (8, 0));
    // What comes back ends the hold of it; when nothing is left, the next one begins anew.
    let mut service = Service::of(12);
    service.lose(0..7, 0);
    service.rule(0);
    service.unexplained.clear();
    assert_eq!(service.rule(100), Ruling::default());
    service.lose(0..7, 200);
    assert_eq!(until(&service.rule(200)), Some(at(500)));
}

#[test]
fn approval_releases_what_was_approved_and_nothing_else() {
    let mut service = Service::of(12);
    service.lose(0..7, 0);
    let shown = service.rule(0).stays;
    service.approved = shown.clone();
    service.lose(7..9, 5);
    let ruling = service.rule(5);
    assert_eq!((ruling.goes.clone(), ruling.stays.len(), until(&ruling)), (shown, 2, Some(at(300))));
    service.approved = ruling.stays;
    assert_eq!(counts(&service.rule(6)), (2, 0));
}

#[test]
fn another_or_an_older_registry_holds_any_deletion() {
    let mut service = Service::of(100);
    service.unexplained.insert(addr(0), Unexplained { since: at(0), rollback: true });
    assert_eq!(until(&service.rule(0)), Some(at(300)));
}

#[test]
fn a_restart_neither_forgets_a_hold_nor_begins_it_again() {
    let mut service = Service::of(12);
    service.held_before = Some(at(-100));
    // At first nothing is unexplained: what is missing is asked before it is judged.
    assert_eq!(service.rule(0), Ruling::default());
    service.held_before = None;
    service.lose(0..1, 10);
    assert_eq!(service.rule(10).held, Some((at(-100), at(200))), "one of twelve, but it was held before");
    assert_eq!(counts(&service.rule(200)), (1, 0));
    service.lose(1..10, 210);
    assert_eq!(until(&service.rule(210)), Some(at(510)), "that hold is over");
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
    assert_eq!(until(&service.rule(-1000)), Some(at(-700)));
}

#[test]
fn the_registry_as_a_whole_holds_what_each_service_would_let_go() {
    let mut registry = RegistryGuard::default();
    let mut changed = false;
    // 20 services with 3 instances each, of which one goes: none of them reaches a limit of its own.
    for n in 0..20 {
        let stays = BTreeSet::from([format!("import {}", addr(n))]);
        let share = Share { known: 3, stays, ..Share::default() };
        changed |= registry.report(&ServiceKey::new("ns", format!("s-{n:02}")), Some(share), at(0));
    }
    assert!(changed);
    assert_eq!((registry.held(at(1)), registry.deletions()), (Some((at(0), at(300))), 20));
    let mut service = Service::of(3);
    service.registry_hold = registry.held(at(1));
    service.lose(0..1, 0);
    assert_eq!(until(&service.rule(20)), Some(at(300)));
    // Its own administrator may release it all the same.
    let mut approved = service.guard.clone();
    let case = Case {
        unexplained: &service.unexplained,
        known: 3,
        would_be_empty: false,
        limits: LIMITS,
        around: Around {
            approved: &BTreeSet::from([addr(0)]),
            held_before: None,
            registry_hold: service.registry_hold,
        },
        now: at(21),
    };
    assert_eq!(counts(&approved.rule(&case)), (1, 0));
    service.registry_hold = registry.held(at(300));
    assert_eq!(counts(&service.rule(300)), (1, 0));
}

/// 20 services that hold one instance each.
fn twenty() -> (RegistryGuard, Vec<(ServiceKey, Share)>) {
    let mut registry = RegistryGuard::default();
    let mut services = Vec::new();
    for n in 0..20 {
        let share = Share { known: 3, stays: BTreeSet::from([format!("import {}", addr(n))]), ..Share::default() };
        let key = ServiceKey::new("ns", format!("s-{n:02}"));
        registry.report(&key, Some(share.clone()), at(0));
        services.push((key, share));
    }
    (registry, services)
}

#[test]
fn what_was_approved_for_a_registry_goes_one_service_after_the_other() {
    let (mut registry, services) = twenty();
    assert!(!registry.approve("something else", at(1)));
    let hash = registry.hash();
    assert!(registry.approve(&hash, at(1)));
    for (n, (key, share)) in services.iter().enumerate() {
        assert_eq!(registry.released(key), Some(&share.stays), "service {n}, although others have gone already");
        assert_eq!(registry.held(at(1)), None);
        let went = Share { known: 2, gone: [(at(60), 1)].into(), ..Share::default() };
        assert!(!registry.report(key, Some(went), at(1)));
        assert_eq!(registry.released(key), None);
    }
    // What comes afterwards is another matter.
    let stays = BTreeSet::from([format!("import {}", addr(99))]);
    assert!(registry.report(&services[0].0, Some(Share { known: 2, gone: [(at(60), 1)].into(), stays }), at(2)));
    assert!(registry.held(at(2)).is_some() && !registry.approve(&hash, at(2)));
}

#[test]
fn a_hold_of_a_registry_ends_once_and_another_sweep_is_held_anew() {
    let (mut registry, services) = twenty();
    // Its end is noticed, although one service holds on to its own for longer.
    let (long, rest) = services.split_first().unwrap();
    assert!(registry.report(&long.0, Some(long.1.clone()), at(300)));
    for (key, _) in rest {
        let went = Share { known: 2, gone: [(at(60), 1)].into(), ..Share::default() };
        registry.report(key, Some(went), at(301));
    }
    registry.report(&long.0, Some(long.1.clone()), at(302));
    assert_eq!(
        registry.held(at(302)),
        None,
        "what was let go is not held again, and what went long ago does not count"
    );
    let mut again = |n: usize| {
        let stays = BTreeSet::from([format!("import {}", addr(100 + n))]);
        registry.report(&rest[n].0, Some(Share { known: 2, stays, ..Share::default() }), at(400));
        registry.held(at(400))
    };
    assert_eq!((0..9).map(&mut again).filter(Option::is_some).count(), 0);
    assert_eq!((9..14).filter_map(&mut again).next(), Some((at(400), at(700))));
}

#[test]
fn a_hold_of_a_registry_survives_a_restart_and_is_not_prolonged() {
    let (_, services) = twenty();
    let again = |now| {
        let mut registry = RegistryGuard::default();
        registry.resume(at(-100));
        let (first, rest) = services.split_first().unwrap();
        registry.report(&first.0, Some(Share { known: 3, ..Share::default() }), at(now));
        for (key, share) in rest {
            registry.report(key, Some(share.clone()), at(now));
        }
        registry.held(at(now))
    };
    assert_eq!(again(50), Some((at(-100), at(200))));
    assert_eq!(again(1000), Some((at(1000), at(1300))), "another one, much later");
}

#[test]
fn the_registry_as_a_whole_does_not_hold_few_or_a_small_part() {
    for (services, each, held) in [(9, 3, false), (10, 3, true), (10, 4, false), (40, 10, false)] {
        let mut registry = RegistryGuard::default();
        for n in 0..services {
            let stays = BTreeSet::from([format!("import {}", addr(n))]);
            let share = Share { known: each, stays, ..Share::default() };
            registry.report(&ServiceKey::new("ns", format!("s-{n}")), Some(share), at(0));
        }
        assert_eq!(registry.held(at(0)).is_some(), held, "one of {each} in each of {services} services");
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
