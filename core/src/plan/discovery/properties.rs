//! Properties of discovery: the same facts give the same plan, one that was carried out plans nothing more, and
//! whatever a registry holds, no more objects follow than are allowed.

use proptest::prelude::*;

use super::scene::{World, at, service};
use super::*;
use crate::codec::testing::repeatable;
use crate::model::{EXPORT_ANNOTATION, REGISTRY_NAME_ANNOTATION, WEIGHT_ANNOTATION};

type Drawn = (Vec<(String, i64, u8)>, Vec<String>, usize, bool);

/// Services with their age and an annotation, names, the most objects, and whether only annotated Services are taken.
fn drawn() -> impl Strategy<Value = Drawn> {
    let services = prop::collection::vec(("[a-e]{1,2}", 0..4i64, 0..7u8), 0..12);
    let names = prop::collection::vec("[A-Ea-e._]{1,3}", 0..20);
    (services, names, 0..8usize, any::<bool>())
}

fn world((services, names, most, annotated): Drawn) -> World {
    let mut world = World::new();
    for (name, created, annotation) in services {
        let annotations: &[(&str, &str)] = match annotation {
            0 => &[(EXPORT_ANNOTATION, "true")],
            1 => &[(EXPORT_ANNOTATION, "false")],
            2 => &[(EXPORT_ANNOTATION, "?")],
            3 => &[(REGISTRY_NAME_ANNOTATION, "a"), (EXPORT_ANNOTATION, "true")],
            4 => &[(REGISTRY_NAME_ANNOTATION, "/")],
            5 => &[(WEIGHT_ANNOTATION, "3")],
            _ => &[],
        };
        world.has(service(&name, created, annotations));
    }
    let mut names: Vec<&str> = names.iter().map(String::as_str).collect();
    names.sort_unstable();
    names.dedup();
    world.foreign(&names);
    world.import().most = most;
    if annotated {
        world.export().services = None;
    }
    world
}

proptest! {
    #![proptest_config(repeatable(400))]

    #[test]
    fn a_plan_that_was_carried_out_plans_nothing(first in drawn(), second in drawn(), off in any::<bool>()) {
        let mut now = world(first);
        let most = now.import().most;
        let plan = now.first();
        prop_assert_eq!(&plan, &now.first());
        prop_assert!(plan.creates.iter().filter(|wanted| wanted.imports()).count() <= most);
        let keys: BTreeSet<_> = plan.creates.iter().map(|wanted| &wanted.key).collect();
        prop_assert_eq!(keys.len(), plan.creates.len());
        now.apply(&plan);
        let rest = now.plan(&plan.memory, at(1));
        prop_assert_eq!(rest.pending(), 0, "{:?}", rest);

        // Another world with these objects: an hour and one round later it is at rest.
        let mut next = world(second);
        next.objects = now.objects.clone();
        if off {
            next.settings = None;
        }
        let plan = next.plan(&rest.memory, at(2));
        let later = next.plan(&plan.memory, at(4000));
        next.apply(&later);
        let rest = next.plan(&later.memory, at(4001));
        next.apply(&rest);
        let rest = next.plan(&rest.memory, at(4002));
        prop_assert_eq!(rest.pending(), 0, "{:?}", rest);
        prop_assert!(!off || rest.exports + rest.imports == rest.staying);
    }
}
