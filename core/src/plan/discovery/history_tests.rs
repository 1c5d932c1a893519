//! Writes that were sent before: refusals that wait, turns that none takes from others, and objects that the view
//! lacks.

use super::facts::*;
use super::history::{Failure, History, Kind, Op};
use super::scene::{World, at, keys, service};
use super::turn::{EXPORTS_PER_SECOND, IMPORTS_PER_SECOND, Paces, Turn, in_turns, turn};
use super::*;

fn failure(kind: Kind) -> Failure {
    Failure { kind, message: format!("{kind:?}") }
}

/// A world that imports so many names.
fn importing(names: usize, most: usize) -> World {
    let mut world = World::new();
    let names: Vec<String> = (0..names).map(|n| format!("n{n:04}")).collect();
    world.foreign(&names.iter().map(String::as_str).collect::<Vec<_>>());
    world.import().most = most;
    world
}

fn take(plan: &Plan, history: &mut History, paces: &mut Paces, second: i64) -> Turn {
    turn(plan, &BTreeSet::new(), history, paces, at(second))
}

#[test]
fn refusals_of_one_service_registry_take_no_turn_from_another() {
    let (refused, other) = (importing(500, 500).first(), importing(40, 40).first());
    let (mut paces, mut first, mut made) = (Paces::default(), None, BTreeSet::new());
    let mut histories = BTreeMap::from([("a", History::default()), ("b", History::default())]);
    for second in 0..120 {
        let order = in_turns(["a".to_owned(), "b".to_owned()].into(), first.as_deref());
        first = order.first().cloned();
        let mut sent = 0;
        for name in order {
            let (name, plan) = if name == "a" { ("a", &refused) } else { ("b", &other) };
            let history = histories.get_mut(name).unwrap();
            let plan = Plan {
                creates: plan
                    .creates
                    .iter()
                    .filter(|wanted| name == "a" || !made.contains(&wanted.key))
                    .cloned()
                    .collect(),
                ..Plan::default()
            };
            for op in take(&plan, history, &mut paces, second).ops {
                sent += 1;
                history.note(&op, (name == "a").then(|| failure(Kind::Refused)), at(second));
                if name == "b" {
                    made.insert(op.key().clone());
                }
            }
        }
        assert!(sent <= IMPORTS_PER_SECOND, "the pace is that of all together");
        if second == 10 {
            assert_eq!(made.len(), 40);
        }
    }
}

#[test]
fn each_is_first_once_in_as_many_passes_as_there_are() {
    let names = || ["a", "b", "c"].map(ToOwned::to_owned).into();
    let order = |first| in_turns(names(), first).concat();
    assert_eq!([None, Some("a"), Some("b"), Some("c")].map(order), ["abc", "bca", "cab", "abc"]);
    assert_eq!(order(Some("bb")), "cab", "one that is gone");
}

#[test]
fn a_crowd_that_is_refused_keeps_no_other_from_its_first_try() {
    let mut world = World::new();
    (0..2500).for_each(|n| world.has(service(&format!("s{n:04}"), 1, &[])));
    let (plan, mut history, mut paces) = (world.first(), History::default(), Paces::default());
    let mut tried = BTreeSet::new();
    for second in 0..2500 / i64::from(EXPORTS_PER_SECOND) {
        for op in take(&plan, &mut history, &mut paces, second).ops {
            tried.insert(op.key().clone());
            history.note(&op, Some(failure(Kind::Refused)), at(second));
        }
    }
    assert_eq!(tried.len(), 2500);
}

#[test]
fn a_refusal_waits_twice_as_long_each_time_and_until_another_gets_through() {
    let (plan, mut history) = (importing(2, 2).first(), History::default());
    let ops = |history: &mut History, second| take(&plan, history, &mut Paces::default(), second).ops;
    let mut now = 0;
    for wait in [30, 60, 120, 240, 240] {
        let due = ops(&mut history, now);
        assert_eq!(due.len(), 2);
        due.iter().for_each(|op| history.note(op, Some(failure(Kind::Forbidden)), at(now)));
        assert_eq!(ops(&mut history, now + wait - 1), []);
        assert_eq!(history.next(at(now)), Some(at(now + wait)));
        now += wait;
    }
    assert_eq!(history.failure(Kind::Forbidden, at(now)), Some("Forbidden"), "it stands while it waits for its turn");
    let due = ops(&mut history, now);
    history.note(&due[0], Some(failure(Kind::Forbidden)), at(now));
    history.note(&due[1], None, at(now));
    assert_eq!(ops(&mut history, now), [due[0].clone()], "one got through");
    history.note(&due[0], Some(failure(Kind::Forbidden)), at(now));
    // Another wish is tried at once, and what nobody asks for any more is refused no longer.
    let Op::Create(wanted) = &due[0] else { panic!("{due:?}") };
    let (uid, version) = ("u".to_owned(), "2".to_owned());
    let update = Update { wanted: Wanted { kind: Wants::Import, ..wanted.clone() }, uid, version, restores: false };
    let same = Plan { updates: vec![update.clone()], ..Plan::default() };
    assert_eq!(take(&same, &mut history, &mut Paces::default(), now).ops, [], "a status changes the version");
    let registry_name = crate::model::RegistryName::new("other").unwrap();
    let other = Update { wanted: Wanted { registry_name, ..update.wanted.clone() }, ..update };
    let other = Plan { updates: vec![other], ..Plan::default() };
    assert_eq!(take(&other, &mut history, &mut Paces::default(), now).ops.len(), 1);
    assert_eq!(history.failure(Kind::Forbidden, at(now)), None);
}

#[test]
fn a_failure_without_an_answer_stands_until_the_next_try() {
    let (plan, mut history) = (importing(1, 1).first(), History::default());
    let op = take(&plan, &mut history, &mut Paces::default(), 0).ops.remove(0);
    history.note(&op, Some(failure(Kind::Unanswered)), at(0));
    assert_eq!(history.failure(Kind::Unanswered, at(4)), Some("Unanswered"));
    assert_eq!(history.failure(Kind::Unanswered, at(5)), None);
    assert_eq!(history.created(at(80)).len(), 1, "it may have been made");
    history.note(&op, Some(failure(Kind::Refused)), at(80));
    assert_eq!(history.created(at(80)).len(), 0);
    history.forget_refusals();
    assert_eq!(history, History::default());
}

#[test]
fn what_was_made_takes_its_room_before_the_view_shows_it() {
    let mut world = World::new();
    world.foreign(&["m", "n", "o"]);
    let (plan, mut history) = (world.first(), History::default());
    let sent = take(&plan, &mut history, &mut Paces::default(), 0).ops;
    sent.iter().for_each(|op| history.note(op, None, at(0)));
    // Names that come earlier in the order.
    world.foreign(&["a", "b", "c", "m", "n", "o"]);
    let next = |world: &World, history: &History, memory: Memory, second| {
        let memory = Memory { created: history.created(at(second)), ..memory };
        world.plan(&memory, at(second))
    };
    let plan = next(&world, &history, plan.memory, 1);
    assert_eq!((keys(&plan.creates), plan.limited), (vec!["vms/m=m".into(), "vms/n=n".into(), "vms/o=o".into()], 3));
    assert_eq!(take(&plan, &mut history, &mut Paces::default(), 1).ops, [], "they were sent");
    // Without its name none is sent again, and it takes its room all the same.
    world.foreign(&["a", "b", "c", "m", "n"]);
    let plan = next(&world, &history, plan.memory, 2);
    assert_eq!((keys(&plan.creates), plan.limited), (vec!["vms/m=m".into(), "vms/n=n".into()], 3));
    assert_eq!(next(&world, &history, plan.memory.clone(), 89).limited, 3);
    assert_eq!(keys(&next(&world, &history, plan.memory, 90).creates), ["vms/a=a", "vms/b=b", "vms/c=c"]);
}

#[test]
fn an_object_on_its_way_out_takes_no_room() {
    let mut world = World::new();
    world.foreign(&["m", "n", "o"]);
    let plan = world.first();
    world.apply(&plan);
    world.foreign(&["a", "n", "o"]);
    let plan = world.plan(&plan.memory, at(1));
    assert_eq!((plan.pending(), plan.limited), (0, 1));
    // The guard may hold it for long.
    let plan = world.plan(&plan.memory, at(3601));
    assert_eq!((plan.sweeps.len(), keys(&plan.creates), plan.limited), (1, vec!["vms/a=a".to_owned()], 0));
}
