use super::*;
use crate::plan::departure::guard::tests::{LIMITS, Service, addr, at, counts, until};
use crate::plan::departure::guard::{GuardContext, GuardInput};

fn moment(now: i64) -> Moment {
    Moment { now: at(now), api_server_ahead: SignedDuration::ZERO }
}

fn hold(since: i64) -> Hold {
    Hold { since: at(since), until: at(since + 300), ends: at(since + 300) }
}

#[test]
fn the_registry_as_a_whole_holds_what_each_service_would_let_go() {
    let mut registry = RegistryGuard::default();
    let mut changed = false;
    // 20 services lose one of 3 instances each: none of them reaches a limit of its own.
    for n in 0..20 {
        let held = BTreeSet::from([format!("import {}", addr(n))]);
        let own = ServiceDeletions { known: 3, held, ..ServiceDeletions::default() };
        changed |= registry.report(&ServiceKey::new("ns", format!("s-{n:02}")), Some(own), moment(0));
    }
    assert!(changed);
    assert_eq!((registry.hold(at(1)), registry.deletions()), (Some(hold(0)), 20));
    let mut service = Service::of(3);
    service.registry_hold = registry.hold(at(1));
    service.lose(0..1, 0);
    assert_eq!(until(&service.decide(20)), Some(at(300)));
    // The owner of one service may release its deletions in any case.
    let mut approved = service.guard.clone();
    let input = GuardInput {
        unexplained: &service.unexplained,
        known: 3,
        would_be_empty: false,
        limits: LIMITS,
        context: GuardContext {
            approved: &BTreeSet::from([addr(0)]),
            registry_hold: service.registry_hold,
            ..GuardContext::default()
        },
        now: at(21),
    };
    assert_eq!(counts(&approved.decide(&input)), (1, 0));
    service.registry_hold = registry.hold(at(300));
    assert_eq!(counts(&service.decide(300)), (1, 0));
}

#[test]
fn reports_that_delete_nothing_are_only_summed_up() {
    let mut registry = RegistryGuard::default();
    let key = |n: usize| ServiceKey::new("ns", format!("s-{n:02}"));
    for round in 0..3 {
        for n in 0..30 {
            let held = BTreeSet::from_iter((n < round).then(|| "import 10.0.0.1:80".to_owned()));
            let own = ServiceDeletions { known: n + round, held, ..ServiceDeletions::default() };
            registry.report(&key(n), Some(own), moment(0));
        }
        assert_eq!(registry.services.known, (0..30).map(|n| n + round).sum::<usize>());
        assert_eq!(registry.services.deleting().count(), round);
    }
    registry.report(&key(29), None, moment(0));
    let gone = ServiceDeletions { known: 30, remaining: Some(28), ..ServiceDeletions::default() };
    registry.report(&key(28), Some(gone), moment(0));
    assert_eq!(registry.services.known, (0..28).map(|n| n + 2).sum::<usize>(), "one is gone, and one says so itself");
}

/// 20 services that hold one instance each.
fn twenty() -> (RegistryGuard, Vec<(ServiceKey, ServiceDeletions)>) {
    let mut registry = RegistryGuard::default();
    let mut services = Vec::new();
    for n in 0..20 {
        let own = ServiceDeletions {
            known: 3,
            held: BTreeSet::from([format!("import {}", addr(n))]),
            ..ServiceDeletions::default()
        };
        let key = ServiceKey::new("ns", format!("s-{n:02}"));
        registry.report(&key, Some(own.clone()), moment(0));
        services.push((key, own));
    }
    (registry, services)
}

#[test]
fn what_was_approved_for_a_registry_goes_one_service_after_the_other() {
    let (mut registry, services) = twenty();
    assert_eq!(registry.approve("something else", at(1)), Approval::Other);
    let hash = registry.hash(at(1)).unwrap();
    assert_eq!(registry.approve(&hash, at(1)), Approval::Released);
    for (n, (key, own)) in services.iter().enumerate() {
        assert_eq!(registry.released(key), Some(&own.held), "service {n}, although others have gone already");
        assert_eq!(registry.hold(at(1)), None);
        let went = ServiceDeletions { known: 2, deleted: [(at(60), 1)].into(), ..ServiceDeletions::default() };
        assert!(!registry.report(key, Some(went), moment(1)));
        assert_eq!(registry.released(key), None);
    }
    // The approval does not cover later deletions.
    let held = BTreeSet::from([format!("import {}", addr(99))]);
    assert!(registry.report(
        &services[0].0,
        Some(ServiceDeletions { known: 2, deleted: [(at(60), 1)].into(), held, ..ServiceDeletions::default() }),
        moment(2)
    ));
    assert!(registry.hold(at(2)).is_some());
    assert_eq!(registry.approve(&hash, at(2)), Approval::Other);
}

#[test]
fn a_hold_of_a_registry_ends_once_and_another_sweep_is_held_anew() {
    let (mut registry, services) = twenty();
    // The end of the registry's hold is noticed, although one service holds its own deletions for longer.
    let (long, rest) = services.split_first().unwrap();
    assert!(registry.report(&long.0, Some(long.1.clone()), moment(300)));
    for (key, _) in rest {
        let went = ServiceDeletions { known: 2, deleted: [(at(60), 1)].into(), ..ServiceDeletions::default() };
        registry.report(key, Some(went), moment(301));
    }
    registry.report(&long.0, Some(long.1.clone()), moment(302));
    assert_eq!(
        registry.hold(at(302)),
        None,
        "what was let go is not held again, and what went long ago does not count"
    );
    let mut again = |n: usize| {
        let held = BTreeSet::from([format!("import {}", addr(100 + n))]);
        registry.report(
            &rest[n].0,
            Some(ServiceDeletions { known: 2, held, ..ServiceDeletions::default() }),
            moment(400),
        );
        registry.hold(at(400))
    };
    assert_eq!((0..9).map(&mut again).filter(Option::is_some).count(), 0);
    assert_eq!((9..14).filter_map(&mut again).next(), Some(hold(400)));
}

#[test]
fn a_hold_of_a_registry_survives_a_restart_and_is_not_prolonged() {
    let (_, services) = twenty();
    let again = |now, api_server_ahead| {
        let moment = Moment { now: at(now), api_server_ahead: SignedDuration::from_secs(api_server_ahead) };
        let mut registry = RegistryGuard::restored(Some(at(-100)), moment);
        let resumes = registry.resumes(at(now));
        let (first, rest) = services.split_first().unwrap();
        registry.report(&first.0, Some(ServiceDeletions { known: 3, ..ServiceDeletions::default() }), moment);
        for (key, own) in rest {
            registry.report(key, Some(own.clone()), moment);
        }
        let hold = registry.hold(at(now)).unwrap();
        assert_eq!(registry.resumes(at(now)), None, "it goes on");
        // The services have a minute to report.
        let expected = (now < 200).then(|| Hold { ends: hold.ends.min(at(now + 60)), ..hold });
        assert_eq!(resumes, expected);
        hold
    };
    assert_eq!(again(50, 0), Hold { since: at(-100), until: at(200), ends: at(200) });
    assert_eq!(again(50, -3600), Hold { since: at(-100), until: at(200), ends: at(350) }, "at most its length");
    assert_eq!(again(1000, 0), hold(1000), "another one, much later");
}

#[test]
fn an_approval_of_a_registry_releases_one_hold_once() {
    let (mut registry, services) = twenty();
    let of_set = held::hash_of_set(registry.named());
    let hash = registry.hash(at(1)).unwrap();
    let refused = Approval::NamesSetOnly { hash: hash.clone() };
    assert_eq!(registry.approve(&of_set, at(1)), refused, "as former versions named it");
    assert_eq!(registry.approve(&hash, at(1)), Approval::Released);
    for (key, _) in &services {
        registry.report(key, Some(ServiceDeletions { known: 2, ..ServiceDeletions::default() }), moment(1));
    }
    for (key, own) in &services {
        registry.report(key, Some(own.clone()), moment(1000));
    }
    assert_eq!(registry.hold(at(1000)), Some(hold(1000)));
    assert_eq!(registry.approve(&hash, at(1000)), Approval::Other, "a year later the same instances vanish");
}

#[test]
fn another_wave_before_the_end_of_a_registrys_hold_is_held_for_its_own_time() {
    let (mut registry, services) = twenty();
    for (n, (key, own)) in services.iter().enumerate() {
        let mut more = own.clone();
        more.held.insert(format!("import {}", addr(100 + n)));
        registry.report(key, Some(more), moment(240));
    }
    assert_eq!(registry.hold(at(299)), Some(hold(0)));
    assert!(registry.end(moment(300)));
    assert_eq!(registry.hold(at(300)), Some(hold(240)));
    let (key, own) = &services[0];
    assert_eq!(registry.let_go(key), Some(&own.held), "the first wave is not held again");
    assert!(registry.end(moment(540)));
    assert_eq!(registry.hold(at(540)), None);
}

#[test]
fn what_a_process_saw_depart_itself_is_not_of_the_registrys_hold_that_it_resumed() {
    let (_, services) = twenty();
    let mut registry = RegistryGuard::restored(Some(at(-290)), moment(0));
    let saw = |own: &ServiceDeletions, when: i64| {
        let seen = own.held.iter().map(|item| (item.clone(), at(when))).collect();
        ServiceDeletions { known: 1, seen, ..own.clone() }
    };
    // Ten were missing as it took over, and ten departed after that.
    for (n, (key, own)) in services.iter().enumerate() {
        let (own, now) = if n < 10 { (ServiceDeletions { known: 1, ..own.clone() }, 0) } else { (saw(own, 5), 5) };
        registry.report(key, Some(own), moment(now));
    }
    assert_eq!(registry.hold(at(9)), Some(hold(-290)));
    assert!(registry.end(moment(10)));
    assert_eq!(registry.hold(at(10)), Some(hold(5)));
    let (first, last) = (&services[0], &services[19]);
    assert_eq!(registry.let_go(&first.0), Some(&first.1.held));
    assert!(registry.let_go(&last.0).is_none_or(BTreeSet::is_empty));
    // A record came back and went again between two reports.
    registry.report(&first.0, Some(saw(&first.1, 20)), moment(30));
    assert!(registry.let_go(&first.0).is_none_or(BTreeSet::is_empty));
    assert!(registry.end(moment(305)));
    assert_eq!(registry.let_go(&first.0), Some(&first.1.held));
    assert_eq!(registry.hold(at(305)), None);
}

#[test]
fn the_registry_as_a_whole_does_not_hold_few_or_a_small_part() {
    for (services, each, held) in [(9, 3, false), (10, 3, true), (10, 4, false), (40, 10, false)] {
        let mut registry = RegistryGuard::default();
        for n in 0..services {
            let held = BTreeSet::from([format!("import {}", addr(n))]);
            let own = ServiceDeletions { known: each, held, ..ServiceDeletions::default() };
            registry.report(&ServiceKey::new("ns", format!("s-{n}")), Some(own), moment(0));
        }
        assert_eq!(registry.hold(at(0)).is_some(), held, "one of {each} in each of {services} services");
    }
}

/// The report of a RegisteredService that is gone and leaves one record behind.
fn gone(registry: &mut RegistryGuard, n: usize, remaining: usize, now: i64) -> bool {
    let held = BTreeSet::from([format!("export {}", addr(n))]);
    let own = ServiceDeletions { held, remaining: Some(remaining), ..ServiceDeletions::default() };
    registry.report(&ServiceKey::new("ns", format!("s-{n:02}")), Some(own), moment(now))
}

#[test]
fn many_registered_services_that_go_within_a_minute_leave_their_records_behind() {
    for (services, remaining, seconds_between, held) in
        [(50, 10, 0, true), (10, 23, 5, true), (10, 24, 5, false), (9, 0, 0, false)]
    {
        let mut registry = RegistryGuard::default();
        for n in 0..services {
            gone(&mut registry, n, remaining + services - n - 1, n as i64 * seconds_between);
        }
        assert_eq!(registry.hold(at(59)).is_some(), held, "{services} of {}", services + remaining);
        assert_eq!(registry.hold_of_gone(at(59)).is_some(), held);
    }
    // Nothing is left behind by the first ones, and the last ones come later.
    let mut registry = RegistryGuard::default();
    for n in 0..10 {
        gone(&mut registry, n, 9 - n, 0);
        registry.report(&ServiceKey::new("ns", format!("s-{n:02}")), None, moment(if n < 5 { 0 } else { 30 }));
    }
    assert_eq!(registry.hold(at(30)), None, "none of them had anything to withdraw at the end");
    gone(&mut registry, 10, 0, 61);
    assert_eq!(registry.hold(at(61)), None, "the others went more than a minute ago");
}

#[test]
fn a_hold_of_those_that_are_gone_lasts_while_others_come_back_and_is_no_one_elses() {
    let mut registry = RegistryGuard::default();
    assert_eq!((0..12).filter(|n| gone(&mut registry, *n, 0, 0)).count(), 1);
    let hash = registry.hash(at(1)).unwrap();
    assert_eq!((registry.deletions(), registry.gone(), registry.hold_of_gone(at(1))), (12, 12, Some(hold(0))));
    for n in 0..9 {
        let there = ServiceDeletions { known: 1, ..ServiceDeletions::default() };
        registry.report(&ServiceKey::new("ns", format!("s-{n:02}")), Some(there), moment(20));
    }
    assert_eq!((registry.deletions(), registry.hold_of_gone(at(21))), (3, Some(hold(0))), "three to come");
    assert_eq!(registry.approve(&hash, at(21)), Approval::Other);
    let hash = registry.hash(at(21)).unwrap();
    assert_eq!(registry.approve(&hash, at(21)), Approval::Released);
    assert_eq!(registry.released(&ServiceKey::new("ns", "s-11")).map(BTreeSet::len), Some(1));

    // Many instances of services that exist are held; one that is gone goes.
    let (mut registry, _) = twenty();
    gone(&mut registry, 99, 20, 0);
    assert_eq!((registry.hold(at(1)), registry.hold_of_gone(at(1))), (Some(hold(0)), None));
    assert_eq!(registry.deletions(), 20);
}
