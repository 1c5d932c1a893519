//! Plans of discovery, on values.

use super::facts::*;
use super::history::{Failure, History, Kind, Op};
use super::names::Template;
use super::refusals::{MOST_TOLD, Why};
use super::scene::{World, at, keys, service, why};
use super::turn::{DELETIONS_PER_SECOND, IMPORTS_PER_SECOND, Paces, turn};
use super::*;
use crate::model::{
    EXPORT_ANNOTATION, PORT_ANNOTATION, REGISTRY_NAME_ANNOTATION, RegistryName, ServiceView, WEIGHT_ANNOTATION,
};
use jiff::SignedDuration;

#[test]
fn what_is_selected_gets_an_object_and_annotations_win() {
    let mut world = World::new();
    world.has(service("a", 1, &[]));
    world.has(service("out", 1, &[(EXPORT_ANNOTATION, "false")]));
    world.has(ServiceView { owner_uid: Some("u".into()), ..service("ours", 1, &[]) });
    world.has(ServiceView { external_name: true, ..service("elsewhere", 1, &[]) });
    world.has(ServiceView { ports: Vec::new(), ..service("silent", 1, &[]) });
    let named = [(REGISTRY_NAME_ANNOTATION, "Pay.v2"), (PORT_ANNOTATION, "90"), (WEIGHT_ANNOTATION, "7")];
    world.has(service("pay", 1, &named));
    world.services.insert(ServiceKey::new("default", "kubernetes"), service("kubernetes", 0, &[]));
    world.labels.insert("default".into(), BTreeMap::new());
    let plan = world.first();
    assert_eq!(keys(&plan.creates), ["shop/a=a", "shop/pay=Pay.v2"]);
    let kind = Wants::Export { service_uid: "uid-pay-1".into(), port: Some("metrics".into()), weight: Some(7) };
    assert_eq!(plan.creates[1].kind, kind);
    assert_eq!(plan.refusals.count, 0);

    // Without a selector only what is annotated is taken; the annotation of the Service wins over the namespace's.
    world.export().services = None;
    assert_eq!(keys(&world.first().creates), Vec::<String>::new());
    world.namespace_annotation = Some("true".into());
    assert_eq!(keys(&world.first().creates), ["shop/a=a", "shop/pay=Pay.v2"]);
    world.namespace_annotation = Some("false".into());
    world.has(service("in", 1, &[(EXPORT_ANNOTATION, "true")]));
    assert_eq!(keys(&world.first().creates), ["shop/in=in"]);
    world.export().template = Template::new("{namespace}.{name}");
    assert_eq!(keys(&world.first().creates), ["shop/in=shop.in"]);
    // Annotations count only where the namespace is selected.
    world.export().namespaces.match_labels.insert("team".into(), "a".into());
    assert_eq!(keys(&world.first().creates), Vec::<String>::new());
}

#[test]
fn a_bad_annotation_costs_its_service_alone_and_what_exists_stays() {
    let mut world = World::new();
    for (name, annotation, value) in [
        ("export", EXPORT_ANNOTATION, "yes"),
        ("name", REGISTRY_NAME_ANNOTATION, "a/b"),
        ("port", PORT_ANNOTATION, "http"),
        ("weight", WEIGHT_ANNOTATION, "0"),
    ] {
        world.has(service(name, 1, &[]));
        world.has(service("good", 1, &[]));
        let plan = world.first();
        world.apply(&plan);
        world.has(service(name, 1, &[(annotation, value)]));
        let plan = world.first();
        assert_eq!(why(&plan).last().unwrap(), &(format!("Service shop/{name}"), Why::InvalidAnnotation));
        // One that cannot be read as a choice counts as opted out.
        let swept: Vec<&str> = plan.sweeps.iter().map(|delete| delete.key.name.as_str()).collect();
        assert_eq!((swept.contains(&name), plan.creates.len()), (name == "export", 0), "{name}");
        world.services.remove(&ServiceKey::new("shop", name));
        world.objects.remove(&ServiceKey::new("shop", name));
    }
    world.namespace_annotation = Some("perhaps".into());
    let plan = world.first();
    assert_eq!(why(&plan), [("Namespace shop".to_owned(), Why::InvalidAnnotation)]);
    assert_eq!(plan.sweeps.len(), 1);
}

#[test]
fn the_oldest_has_a_name_and_a_canary_shares_it_on_purpose() {
    let mut world = World::new();
    let named = |name| [(REGISTRY_NAME_ANNOTATION, name)];
    world.has(service("a", 5, &[]));
    world.has(service("b", 3, &named("a")));
    world.has(service("c", 4, &named("a")));
    let plan = world.first();
    assert_eq!(keys(&plan.creates), ["shop/b=a", "shop/c=a"]);
    assert_eq!(why(&plan), [("Service shop/a".to_owned(), Why::NameCollision)]);
    world.has(service("a", 2, &[]));
    let plan = world.first();
    assert_eq!((keys(&plan.creates), plan.refusals.count), (vec!["shop/a=a".to_owned()], 2));
}

#[test]
fn edits_are_put_back_and_told_from_changes_of_the_settings() {
    let mut world = World::new();
    world.has(service("a", 1, &[]));
    world.foreign(&["x"]);
    let plan = world.first();
    world.apply(&plan);
    let seen = world.plan(&plan.memory, at(1));
    assert_eq!((seen.pending(), seen.staying, seen.exports, seen.imports), (0, 2, 1, 1));
    for key in [ServiceKey::new("shop", "a"), ServiceKey::new("vms", "x")] {
        let mut edited = world.clone();
        let object = edited.objects.get_mut(&key).unwrap();
        (object.registry_name, object.made_as) = ("other".to_owned(), None);
        let plan = edited.plan(&seen.memory, at(2));
        let updates: Vec<_> = plan.updates.iter().map(|update| (&update.wanted.key, update.restores)).collect();
        assert_eq!((updates, plan.pending()), (vec![(&key, true)], 1));
        // The label of a ServiceRegistry that is gone is adopted.
        let object = edited.objects.get_mut(&key).unwrap();
        object.origin = Origin::Orphan;
        assert_eq!(edited.plan(&seen.memory, at(2)).updates.len(), 1);
        object_without_label(&mut edited, &key);
        assert_eq!(edited.plan(&seen.memory, at(2)).pending(), 0, "a person took it over");
    }
    world.export().template = Template::new("{name}-x");
    let plan = world.plan(&seen.memory, at(2));
    assert_eq!((plan.updates.len(), plan.updates[0].restores), (1, false));
}

fn object_without_label(world: &mut World, key: &ServiceKey) {
    world.objects.get_mut(key).unwrap().origin = Origin::Written;
}

#[test]
fn names_get_objects_up_to_the_most_in_their_order_and_what_exists_stays() {
    let mut world = World::new();
    world.foreign(&["m", "n", "o", "p", "q"]);
    let plan = world.first();
    assert_eq!((keys(&plan.creates), plan.limited), (vec!["vms/m=m".into(), "vms/n=n".into(), "vms/o=o".into()], 2));
    world.apply(&plan);
    world.foreign(&["a", "m", "n", "o", "p"]);
    let plan = world.plan(&plan.memory, at(1));
    assert_eq!((plan.pending(), plan.limited, plan.staying), (0, 2, 3));
    world.import().most = 1;
    assert_eq!(world.plan(&plan.memory, at(1)).pending(), 0);
    world.import().most = 4;
    assert_eq!(keys(&world.plan(&plan.memory, at(1)).creates), ["vms/a=a"]);
}

#[test]
fn a_hundred_thousand_names_make_no_more_than_the_most() {
    let mut world = World::new();
    let names: Vec<String> = (0..100_000).map(|n| format!("Hostile_{n:06}")).collect();
    world.foreign(&names.iter().map(String::as_str).collect::<Vec<_>>());
    world.import().most = 500;
    let plan = world.first();
    assert_eq!((plan.creates.len(), plan.limited), (500, 99_500));
    world.apply(&plan);
    let plan = world.plan(&plan.memory, at(1));
    assert_eq!((plan.pending(), plan.limited, plan.imports), (0, 99_500, 500));
}

#[test]
fn a_name_outlives_its_records_by_an_hour_of_complete_lists_of_one_life() {
    let mut world = World::new();
    world.foreign(&["a", "b"]);
    let mut plan = world.first();
    world.apply(&plan);
    world.foreign(&["b"]);
    plan = world.plan(&plan.memory, at(100));
    assert_eq!((plan.pending(), plan.look_again), (0, Some(at(3700))));
    plan = world.plan(&plan.memory, at(3699));
    assert_eq!(plan.pending(), 0);
    // Without a complete list time does not count, over however many passes.
    let mut other = world.clone();
    other.names = Names::Unknown;
    let mut unknown = other.plan(&plan.memory, at(3600));
    assert_eq!((unknown.pending(), unknown.staying), (0, 2));
    unknown = other.plan(&unknown.memory, at(9000));
    assert_eq!((unknown.pending(), unknown.staying), (0, 2));
    let seen = world.plan(&unknown.memory, at(10_000));
    assert_eq!((seen.pending(), seen.look_again), (0, Some(at(10_100))));
    assert_eq!(world.plan(&seen.memory, at(10_100)).sweeps.len(), 1);
    // Another life, names that are not all followed, and a comeback start anew.
    other.names = Names::TooMany;
    let unknown = other.plan(&plan.memory, at(3700));
    assert_eq!((unknown.pending(), unknown.staying), (0, 2));
    assert_eq!(world.plan(&unknown.memory, at(3701)).look_again, Some(at(7301)));
    other.names = Names::Complete { foreign: vec!["b".into()], basis: "c".to_owned() };
    assert_eq!(other.plan(&plan.memory, at(3700)).look_again, Some(at(7300)));
    other.foreign(&["a", "b"]);
    let back = other.plan(&plan.memory, at(3700));
    assert_eq!(world.plan(&back.memory, at(3701)).look_again, Some(at(7301)));
    plan = world.plan(&plan.memory, at(3700));
    assert_eq!(plan.sweeps.iter().map(|delete| delete.key.name.as_str()).collect::<Vec<_>>(), ["a"]);
}

#[test]
fn names_that_meet_and_names_that_are_taken_are_refused() {
    let mut world = World::new();
    world.import().most = 10;
    world.foreign(&["Echo", "echo-8335e4c9", "mine", "theirs", "free"]);
    world.services.insert(ServiceKey::new("vms", "mine"), ServiceView { ports: Vec::new(), ..service("mine", 1, &[]) });
    let foreign = Wanted {
        key: ServiceKey::new("vms", "theirs"),
        registry_name: RegistryName::new("theirs").unwrap(),
        kind: Wants::Import,
    };
    world.objects.insert(foreign.key.clone(), Object { origin: Origin::Others, ..World::made(&foreign) });
    let plan = world.first();
    assert_eq!(keys(&plan.creates), ["vms/echo-8335e4c9=Echo", "vms/free=free"]);
    assert_eq!(
        why(&plan),
        [
            ("name echo-8335e4c9".to_owned(), Why::NameCollision),
            ("name mine".to_owned(), Why::NameTaken),
            ("name theirs".to_owned(), Why::NameTaken)
        ]
    );
    // The one that has the name keeps it.
    let mut later = World::new();
    later.foreign(&["echo-8335e4c9"]);
    let plan = later.first();
    later.apply(&plan);
    later.foreign(&["Echo", "echo-8335e4c9"]);
    let plan = later.plan(&plan.memory, at(1));
    assert_eq!((plan.pending(), why(&plan)), (0, vec![("name Echo".to_owned(), Why::NameCollision)]));
}

#[test]
fn one_that_a_person_wrote_wins_once_it_carries_the_instances() {
    let mut world = World::new();
    world.has(service("a", 1, &[]));
    world.has(service("b", 1, &[]));
    world.foreign(&["x"]);
    world.written("by-hand", "a", "pay", true, false);
    world.written("imports", "c", "x", false, true);
    let plan = world.first();
    assert_eq!(keys(&plan.creates), ["shop/b=b"]);

    for (key, hand) in [(ServiceKey::new("shop", "a"), "by-hand"), (ServiceKey::new("vms", "x"), "imports")] {
        let mut world = World::new();
        world.has(service("a", 1, &[]));
        world.foreign(&["x"]);
        let plan = world.first();
        world.apply(&plan);
        world.objects.get_mut(&key).unwrap().carries = Carries { is_current: true, exported: 2, imported: 2 };
        let (export, service, name) = if hand == "by-hand" { (true, "a", "pay") } else { (false, "c", "x") };
        world.written(hand, service, name, export, !export);
        let yields = |world: &World| {
            let plan = world.plan(&plan.memory, at(1));
            assert_eq!((plan.sweeps.len(), plan.updates.len()), (0, 0));
            (plan.yields.iter().any(|delete| delete.key == key), plan.yielding.contains_key(&key))
        };
        assert_eq!(yields(&world), (false, true));
        let mut moved = world.clone();
        moved.objects.get_mut(&key).unwrap().carries = Carries { is_current: false, exported: 0, imported: 0 };
        assert_eq!(yields(&moved), (false, true), "an old status says nothing");
        moved.objects.get_mut(&key).unwrap().carries.is_current = true;
        assert_eq!(yields(&moved), (true, false));
        let hand = ServiceKey::new("shop", hand);
        world.objects.get_mut(&hand).unwrap().carries = Carries { is_current: true, exported: 2, imported: 2 };
        assert_eq!(yields(&world), (true, false));
        // One that leaves the direction out on purpose takes nothing over.
        let hand = world.objects.get_mut(&hand).unwrap();
        hand.carries = Carries::default();
        (hand.exports, hand.imports) = (false, hand.imports);
        if !hand.imports {
            assert_eq!(yields(&world), (true, false));
        }
    }
}

#[test]
fn what_is_not_selected_any_more_is_swept_and_what_its_service_owns_is_collected() {
    let mut world = World::new();
    ["a", "b"].into_iter().for_each(|name| world.has(service(name, 1, &[])));
    world.foreign(&["x"]);
    let plan = world.first();
    world.apply(&plan);
    let mut gone = world.clone();
    gone.services.remove(&ServiceKey::new("shop", "a"));
    assert_eq!(gone.plan(&plan.memory, at(1)).pending(), 0, "the garbage collector deletes it");
    gone.settings = None;
    let swept: Vec<_> = gone.plan(&plan.memory, at(1)).sweeps.iter().map(|d| d.key.to_string()).collect();
    assert_eq!(swept, ["shop/b", "vms/x"]);
    world.import().exclude.push("x".to_owned());
    world.export().services = None;
    assert_eq!(world.plan(&plan.memory, at(1)).sweeps.len(), 3);
    world.names = Names::TooMany;
    let swept: Vec<_> = world.plan(&plan.memory, at(1)).sweeps.iter().map(|d| d.key.to_string()).collect();
    assert_eq!(swept, ["shop/a", "shop/b"], "nothing is concluded about names");
}

fn refused() -> Failure {
    Failure { kind: Kind::Refused, message: "no".to_owned() }
}

#[test]
fn a_turn_keeps_the_paces_and_sends_nothing_twice() {
    let mut world = World::new();
    world.import().most = 100;
    world.foreign(&(0..30).map(|n| format!("n{n:02}")).collect::<Vec<_>>().iter().map(|n| &**n).collect::<Vec<_>>());
    let plan = world.first();
    let (mut history, mut paces, none) = (History::default(), Paces::default(), BTreeSet::new());
    let mut sent = BTreeSet::new();
    for second in 0..3 {
        let now = at(second);
        let done = turn(&plan, &none, &mut history, &mut paces, now);
        assert_eq!((done.ops.len(), done.look_again.is_some()), (IMPORTS_PER_SECOND as usize, true), "{second}");
        done.ops.iter().for_each(|op| {
            assert!(sent.insert(op.key().clone()), "{op:?}");
            history.note(op, None, now);
        });
        let more = turn(&plan, &none, &mut history, &mut paces, now + SignedDuration::from_millis(900));
        assert_eq!(more.ops, []);
    }
    world.apply(&plan);
    world.settings = None;
    let plan = world.first();
    assert_eq!(turn(&plan, &none, &mut history, &mut paces, at(100)).ops, [], "the guard has to let them go");
    let all = plan.sweeps.iter().map(|delete| delete.key.clone()).collect();
    let done = turn(&plan, &all, &mut history, &mut paces, at(100));
    assert_eq!(done.ops.len(), DELETIONS_PER_SECOND as usize);
    assert!(matches!(&done.ops[0], Op::Delete(delete) if delete.uid == "uid-vms/n00"));
    // A refusal is told, and tried again later.
    history.note(&done.ops[0], Some(refused()), at(100));
    let mut refusals = Refusals::default();
    history.tell(&mut refusals);
    assert_eq!((refusals.count, refusals.told.keys().next().unwrap().as_str()), (1, "RegisteredService vms/n00"));
    let next = turn(&plan, &all, &mut history, &mut paces, at(110));
    assert_ne!(next.ops[0].key(), done.ops[0].key());
    let alone = Plan { sweeps: vec![plan.sweeps[0].clone()], ..Plan::default() };
    assert_eq!(turn(&alone, &all, &mut history, &mut paces, at(129)).ops, []);
    assert_eq!(turn(&plan, &all, &mut history, &mut paces, at(130)).ops[0].key(), next.ops[0].key(), "never tried");
    assert_eq!(turn(&alone, &all, &mut history, &mut paces, at(131)).ops[0].key(), done.ops[0].key());
}

#[test]
fn refusals_are_counted_and_few_are_told() {
    let mut world = World::new();
    (0..20).for_each(|n| world.has(service(&format!("s{n:02}"), n, &[(WEIGHT_ANNOTATION, "heavy")])));
    let plan = world.first();
    let told: Vec<&String> = plan.refusals.told.keys().collect();
    assert_eq!((plan.refusals.count, told.len()), (20, MOST_TOLD));
    assert_eq!((told[0].as_str(), told[4].as_str()), ("Service shop/s00", "Service shop/s04"));
}

#[test]
fn a_failed_write_has_a_time_at_which_it_is_tried_again() {
    let mut world = World::new();
    world.has(service("a", 1, &[]));
    let (plan, mut history, none) = (world.first(), History::default(), BTreeSet::new());
    assert_eq!(history.next(at(0)), None);
    let done = turn(&plan, &none, &mut history, &mut Paces::default(), at(0));
    assert_eq!((done.ops.len(), done.look_again), (1, None));
    history.note(&done.ops[0], Some(refused()), at(0));
    assert_eq!(history.next(at(0)), Some(at(30)));
    let again = turn(&plan, &none, &mut history, &mut Paces::default(), at(30));
    assert_eq!((again.ops.len(), history.next(at(30))), (1, None));
}
