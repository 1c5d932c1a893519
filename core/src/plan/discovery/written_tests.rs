//! The hand-over from a discovered object to one that a person wrote.

use super::facts::*;
use super::refusals::Why;
use super::scene::{World, at, keys, service, why};
use super::written::Wait;
use super::*;
use crate::model::{REGISTRY_NAME_ANNOTATION, WEIGHT_ANNOTATION};

fn carries(instances: i64) -> Carries {
    Carries { is_current: true, exported: instances, imported: instances }
}

fn hand(name: &str) -> ServiceKey {
    ServiceKey::new("shop", name)
}

/// Discovered objects with ten instances, and one or two that a person wrote for each, without a status.
fn scene(hands: &[&str]) -> World {
    let mut world = World::new();
    world.has(service("a", 1, &[]));
    world.foreign(&["x"]);
    let plan = world.first();
    world.apply(&plan);
    world.objects.values_mut().for_each(|object| object.carries = carries(10));
    for name in hands {
        world.written(&format!("{name}-a"), "a", "pay", true, false);
        world.written(&format!("{name}-x"), name, "x", false, true);
    }
    world
}

fn change(world: &mut World, name: &str, instances: i64, lag: Option<Lag>) {
    for suffix in ["a", "x"] {
        let object = world.objects.get_mut(&hand(&format!("{name}-{suffix}"))).unwrap();
        (object.carries, object.lags) = (carries(instances), Lags { export: lag, import: lag });
    }
}

/// The waits of both discovered objects; none if both are given up.
fn waits(world: &World) -> Vec<(String, Lag)> {
    let plan = world.first();
    assert_eq!((plan.creates.len(), plan.updates.len(), plan.sweeps.len()), (0, 0, 0));
    assert_eq!(plan.yields.len() + plan.yielding.len(), 2);
    plan.yielding.values().map(|Wait { rival, lag }| (rival.name.clone(), *lag)).collect()
}

#[test]
fn one_with_fewer_instances_wins_all_the_same() {
    let mut world = scene(&["hand"]);
    change(&mut world, "hand", 3, None);
    assert_eq!(waits(&world), []);
    change(&mut world, "hand", 0, None);
    assert_eq!(waits(&world), [("hand-a".to_owned(), Lag::Empty), ("hand-x".to_owned(), Lag::Empty)]);
}

#[test]
fn one_that_lacks_something_is_waited_for_by_name() {
    let mut world = scene(&["hand"]);
    for lag in [Lag::Suspended, Lag::Observes, Lag::Rejected, Lag::Unseen, Lag::Pending, Lag::Held] {
        change(&mut world, "hand", 3, Some(lag));
        assert_eq!(waits(&world), [("hand-a".to_owned(), lag), ("hand-x".to_owned(), lag)]);
    }
    let plan = world.first();
    let awaited: Vec<String> = plan.awaited.iter().map(ToString::to_string).collect();
    assert_eq!(awaited, ["shop/a", "shop/hand-a", "shop/hand-x", "vms/x"]);
    assert_eq!(plan.pending(), 2);
    // Without instances nothing is lost.
    world.objects.values_mut().filter(|object| object.is_discovered()).for_each(|object| object.carries = carries(0));
    assert_eq!(waits(&world), []);
    assert_eq!(world.first().awaited, BTreeSet::new());
}

#[test]
fn of_several_one_has_to_have_its_instances_and_none_may_be_on_its_way() {
    let mut world = scene(&["one", "two"]);
    change(&mut world, "one", 3, None);
    for (lag, instances, waited) in [
        (Some(Lag::Suspended), 0, false),
        (Some(Lag::Observes), 0, false),
        (Some(Lag::Rejected), 0, false),
        (None, 0, false),
        (Some(Lag::Unseen), 0, true),
        (Some(Lag::Pending), 2, true),
        (Some(Lag::Held), 2, true),
    ] {
        change(&mut world, "two", instances, lag);
        assert_eq!(waits(&world).len(), if waited { 2 } else { 0 }, "{lag:?}");
    }
    change(&mut world, "one", 3, Some(Lag::Suspended));
    change(&mut world, "two", 0, None);
    assert_eq!(waits(&world).len(), 2);
}

#[test]
fn annotations_that_cannot_be_used_keep_no_object_from_giving_way() {
    for (annotation, value) in [(WEIGHT_ANNOTATION, "heavy"), (REGISTRY_NAME_ANNOTATION, "a/b")] {
        let mut world = scene(&["hand"]);
        world.has(service("a", 1, &[(annotation, value)]));
        assert_eq!(waits(&world).len(), 2);
        change(&mut world, "hand", 1, None);
        assert_eq!(waits(&world), []);
        assert_eq!(why(&world.first()), [], "the object of a person has no use for them");
    }
    // A template whose names no registry can hold.
    let mut world = scene(&["hand"]);
    world.export().template = super::names::Template::new("{name}".repeat(300));
    change(&mut world, "hand", 1, None);
    assert_eq!(waits(&world), []);
}

#[test]
fn one_whose_name_another_service_has_gives_way_and_is_not_swept() {
    let mut world = scene(&["hand"]);
    change(&mut world, "hand", 0, Some(Lag::Pending));
    world.has(service("b", 0, &[(REGISTRY_NAME_ANNOTATION, "new")]));
    let plan = world.first();
    world.apply(&Plan { creates: plan.creates, ..Plan::default() });
    // The next name of `a` belongs to `b`.
    world.has(service("a", 1, &[(REGISTRY_NAME_ANNOTATION, "new")]));
    world.has(service("b", 0, &[]));
    world.export().template = super::names::Template::new("new");
    assert_eq!(waits(&world).len(), 2);
}

#[test]
fn a_name_is_taken_until_the_object_that_gives_way_is_gone() {
    let mut world = scene(&["hand"]);
    change(&mut world, "hand", 0, Some(Lag::Pending));
    world.has(service("b", 0, &[(REGISTRY_NAME_ANNOTATION, "a")]));
    let plan = world.first();
    assert_eq!((plan.creates, plan.yielding.len()), (Vec::new(), 2));
    assert_eq!(why(&world.first()), [("Service shop/b".to_owned(), Why::NameCollision)]);
    world.objects.remove(&ServiceKey::new("shop", "a"));
    let plan = world.plan(&plan.memory, at(1));
    assert_eq!(keys(&plan.creates), ["shop/b=a"]);
}
