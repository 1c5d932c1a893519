use super::*;
use crate::plan::departure::guard::tests::{LIMITS, Service, addr, at, counts, until};
use crate::plan::departure::guard::{GuardContext, GuardInput};

#[test]
fn the_registry_as_a_whole_holds_what_each_service_would_let_go() {
    let mut registry = RegistryGuard::default();
    let mut changed = false;
    // 20 services lose one of 3 instances each: none of them reaches a limit of its own.
    for n in 0..20 {
        let held = BTreeSet::from([format!("import {}", addr(n))]);
        let own = ServiceDeletions { known: 3, held, ..ServiceDeletions::default() };
        changed |= registry.report(&ServiceKey::new("ns", format!("s-{n:02}")), Some(own), at(0));
    }
    assert!(changed);
    assert_eq!((registry.hold(at(1)), registry.deletions()), (Some(Hold { since: at(0), until: at(300) }), 20));
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
            restored_hold_since: None,
            registry_hold: service.registry_hold,
        },
        now: at(21),
    };
    assert_eq!(counts(&approved.decide(&input)), (1, 0));
    service.registry_hold = registry.hold(at(300));
    assert_eq!(counts(&service.decide(300)), (1, 0));
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
        registry.report(&key, Some(own.clone()), at(0));
        services.push((key, own));
    }
    (registry, services)
}

#[test]
fn what_was_approved_for_a_registry_goes_one_service_after_the_other() {
    let (mut registry, services) = twenty();
    assert!(!registry.approve("something else", at(1)));
    let hash = registry.hash();
    assert!(registry.approve(&hash, at(1)));
    for (n, (key, own)) in services.iter().enumerate() {
        assert_eq!(registry.released(key), Some(&own.held), "service {n}, although others have gone already");
        assert_eq!(registry.hold(at(1)), None);
        let went = ServiceDeletions { known: 2, deleted: [(at(60), 1)].into(), ..ServiceDeletions::default() };
        assert!(!registry.report(key, Some(went), at(1)));
        assert_eq!(registry.released(key), None);
    }
    // The approval does not cover later deletions.
    let held = BTreeSet::from([format!("import {}", addr(99))]);
    assert!(registry.report(
        &services[0].0,
        Some(ServiceDeletions { known: 2, deleted: [(at(60), 1)].into(), held }),
        at(2)
    ));
    assert!(registry.hold(at(2)).is_some() && !registry.approve(&hash, at(2)));
}

#[test]
fn a_hold_of_a_registry_ends_once_and_another_sweep_is_held_anew() {
    let (mut registry, services) = twenty();
    // The end of the registry's hold is noticed, although one service holds its own deletions for longer.
    let (long, rest) = services.split_first().unwrap();
    assert!(registry.report(&long.0, Some(long.1.clone()), at(300)));
    for (key, _) in rest {
        let went = ServiceDeletions { known: 2, deleted: [(at(60), 1)].into(), ..ServiceDeletions::default() };
        registry.report(key, Some(went), at(301));
    }
    registry.report(&long.0, Some(long.1.clone()), at(302));
    assert_eq!(
        registry.hold(at(302)),
        None,
        "what was let go is not held again, and what went long ago does not count"
    );
    let mut again = |n: usize| {
        let held = BTreeSet::from([format!("import {}", addr(100 + n))]);
        registry.report(&rest[n].0, Some(ServiceDeletions { known: 2, held, ..ServiceDeletions::default() }), at(400));
        registry.hold(at(400))
    };
    assert_eq!((0..9).map(&mut again).filter(Option::is_some).count(), 0);
    assert_eq!((9..14).filter_map(&mut again).next(), Some(Hold { since: at(400), until: at(700) }));
}

#[test]
fn a_hold_of_a_registry_survives_a_restart_and_is_not_prolonged() {
    let (_, services) = twenty();
    let again = |now| {
        let mut registry = RegistryGuard::default();
        registry.restore(at(-100));
        let (first, rest) = services.split_first().unwrap();
        registry.report(&first.0, Some(ServiceDeletions { known: 3, ..ServiceDeletions::default() }), at(now));
        for (key, own) in rest {
            registry.report(key, Some(own.clone()), at(now));
        }
        registry.hold(at(now))
    };
    assert_eq!(again(50), Some(Hold { since: at(-100), until: at(200) }));
    assert_eq!(again(1000), Some(Hold { since: at(1000), until: at(1300) }), "another one, much later");
}

#[test]
fn the_registry_as_a_whole_does_not_hold_few_or_a_small_part() {
    for (services, each, held) in [(9, 3, false), (10, 3, true), (10, 4, false), (40, 10, false)] {
        let mut registry = RegistryGuard::default();
        for n in 0..services {
            let held = BTreeSet::from([format!("import {}", addr(n))]);
            let own = ServiceDeletions { known: each, held, ..ServiceDeletions::default() };
            registry.report(&ServiceKey::new("ns", format!("s-{n}")), Some(own), at(0));
        }
        assert_eq!(registry.hold(at(0)).is_some(), held, "one of {each} in each of {services} services");
    }
}
