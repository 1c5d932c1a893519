//! Pods and imports in the same slices.

use super::*;

fn pod(n: u8) -> InstanceAddr {
    addr(&format!("10.2.0.{n}:80"))
}

/// Slices that hold two imports and two pods, one of which is not ready.
fn filled() -> Scene {
    let mut scene = Scene::wanting(many(2, 80));
    scene.merges = true;
    scene.mirrored = BTreeMap::from([(pod(1), true), (pod(2), false)]);
    scene.apply();
    scene
}

fn imports(scene: &Scene) -> Vec<InstanceAddr> {
    let existing: Vec<&Slice> = scene.existing.iter().collect();
    present(&existing, &scene.ports, &scene.source).into_keys().collect()
}

#[test]
fn pods_and_imports_share_a_slice_and_are_told_apart_by_whoever_reads_it() {
    let mut scene = filled();
    let [slice] = scene.existing.as_slice() else { panic!("{:?}", scene.existing) };
    let conditions: Vec<Option<bool>> = slice.endpoints.iter().map(|endpoint| endpoint.ready).collect();
    assert_eq!(conditions, [Some(true), Some(true), Some(true), Some(false)]);
    assert_eq!(slice.annotations[MIRRORED_ANNOTATION], "10.2.0.1,10.2.0.2");
    assert_eq!(imports(&scene), many(2, 80).into_iter().collect::<Vec<_>>());
    assert_eq!(scene.plan(), Plan::default(), "a second plan writes nothing");

    scene.mirrored.insert(pod(2), true);
    assert_eq!(signs(&scene.apply()), "u", "conditions follow");
    // A server registers itself at an address that was a pod's.
    scene.mirrored.remove(&pod(1));
    scene.endpoints.insert(pod(1));
    assert_eq!(signs(&scene.apply()), "u");
    assert_eq!(imports(&scene).len(), 3);
    scene.mirrored.clear();
    assert_eq!(signs(&scene.apply()), "u");
    assert!(!scene.existing[0].annotations.contains_key(MIRRORED_ANNOTATION));
}

#[test]
fn endpoints_that_fit_into_one_slice_again_are_merged_and_the_slice_that_stays_changes_last() {
    let mut scene = Scene::wanting(many(100, 80));
    scene.merges = true;
    scene.mirrored = (1..=30).map(|n| (pod(n), true)).collect();
    scene.apply();
    assert_eq!(scene.existing.len(), 2);
    scene.endpoints = many(60, 80);
    let plan = scene.plan();
    assert_eq!(signs(&plan), "ud", "the endpoints are there before their slice goes");
    let [SliceOp::Update { spec, .. }, _] = plan.ops.as_slice() else { panic!("{plan:?}") };
    assert_eq!(spec.endpoints.len(), 90);
    // The process ends between the two writes.
    scene.carry_out(&Plan { ops: plan.ops[..1].to_vec(), ..Plan::default() });
    assert_eq!(signs(&scene.apply()), "d");
    assert_eq!(signs(&scene.apply()), "u", "readers that keep the slice which changed last see all of it");
    assert_eq!(scene.plan(), Plan::default());

    scene.merges = false;
    scene.endpoints = many(150, 80);
    scene.apply();
    scene.endpoints = many(60, 80);
    scene.apply();
    assert_eq!(signs(&scene.plan()), "", "where nobody asks for it, slices stay");
}

#[test]
fn while_nothing_is_imported_mirrored_endpoints_come_and_go() {
    let mut scene = filled();
    scene.mirrored = BTreeMap::from([(pod(2), true), (pod(3), true)]);
    let kept = |scene: &Scene| -> Kept {
        let mut kept: Kept = many(2, 80).into_iter().map(|addr| (addr, Stays::Imported(None))).collect();
        kept.extend(scene.infos().iter().filter(|(_, known)| known.mirrored.is_some()).map(|(a, k)| (*a, k.into())));
        kept
    };
    // The registry is not there: the planner wants no imports.
    scene.endpoints.clear();
    let plan = scene.plan_with(|input| follow(input, &scene.ports, &kept(&scene)));
    assert_eq!((signs(&plan).as_str(), plan.added, plan.removed), ("u", 0, 0));
    scene.carry_out(&plan);
    let held: Vec<InstanceAddr> = many(2, 80).into_iter().chain([pod(2), pod(3)]).collect();
    assert_eq!(scene.held(), held);
    assert_eq!(imports(&scene).len(), 2);
    assert_eq!(scene.plan_with(|input| follow(input, &scene.ports, &kept(&scene))), Plan::default());

    // More pods than the slice has room for, and some at another port.
    scene.mirrored = (1..=110).map(|n| (pod(n), true)).chain([(addr("10.2.0.1:81"), true)]).collect();
    let plan = scene.plan_with(|input| follow(input, &scene.ports, &kept(&scene)));
    assert_eq!(signs(&plan), "ccu");
    scene.carry_out(&plan);
    assert_eq!(scene.held().len(), 2 + 111);
    assert!(scene.existing.iter().all(|slice| slice.endpoints.len() <= MAX_ENDPOINTS));
    assert_eq!(scene.plan_with(|input| follow(input, &scene.ports, &kept(&scene))), Plan::default());

    // An import that goes leaves the pods.
    let only: Kept = kept(&scene).into_iter().filter(|(_, stays)| matches!(stays, Stays::Mirrored(_))).collect();
    let plan = scene.plan_with(|input| follow(input, &scene.ports, &only));
    assert_eq!((signs(&plan).as_str(), plan.removed), ("u", 2));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn up_to_100_endpoints_on_one_port_share_a_slice(
        states in prop::collection::vec((0usize..120, 0u8..120), 1..6),
    ) {
        let mut scene = Scene::wanting(BTreeSet::new());
        scene.merges = true;
        for (imports, pods) in states {
            scene.endpoints = many(imports, 80);
            scene.mirrored = (1..=pods).map(|n| (pod(n), n % 2 == 0)).collect();
            for _ in 0..2 {
                scene.apply();
            }
            let all = imports + usize::from(pods);
            prop_assert_eq!(scene.held().len(), all);
            prop_assert!(scene.existing.len() <= 1 || all > MAX_ENDPOINTS);
            prop_assert_eq!(scene.plan(), Plan::default(), "a third plan writes nothing");
        }
    }
}
