//! Shares as numbers: examples of each rule, and what holds after any sequence of changes.

use proptest::prelude::*;

use super::*;

fn new(configured: &[i64]) -> Vec<Part> {
    configured.iter().map(|configured| Part { configured: *configured, written: None }).collect()
}

fn written(weights: &[i64]) -> Vec<Part> {
    weights.iter().map(|weight| Part { configured: 10, written: Some(*weight) }).collect()
}

fn others(records: u32, each: i64) -> Others {
    Others { records, weight: i128::from(records) * i128::from(each) }
}

fn weights(percent: i64, parts: &[Part], others: Others) -> Vec<i64> {
    weigh(percent, parts, 0, others).unwrap().weights
}

#[test]
fn the_sum_gives_the_share_and_is_spread_by_largest_remainder_in_the_order_of_addresses() {
    assert_eq!(weights(50, &new(&[10; 3]), others(3, 100)), [100, 100, 100]);
    assert_eq!(weights(10, &new(&[10; 3]), others(3, 100)), [11, 11, 11], "300 · 10 / 90 = 33.3");
    assert_eq!(weights(30, &new(&[10; 3]), others(3, 100)), [43, 43, 43], "128.6");
    assert_eq!(weights(70, &new(&[10; 3]), others(3, 100)), [234, 233, 233]);
    assert_eq!(weights(50, &new(&[10; 4]), others(1, 102)), [26, 26, 25, 25]);
    assert_eq!(weights(99, &new(&[10]), others(1, 100)), [9900]);
}

#[test]
fn the_parts_are_in_proportion_to_the_configured_weights() {
    assert_eq!(weights(50, &new(&[10, 20, 10]), others(4, 100)), [100, 200, 100]);
    assert_eq!(weights(50, &new(&[1, 10_000]), others(1, 50)), [1, 49], "nobody goes without");
    assert_eq!(weights(50, &new(&[1, 9]), others(1, 15_000)), [5_000, 10_000], "the first takes what is too much");
}

#[test]
fn without_others_or_instances_there_is_nothing_to_weigh() {
    assert_eq!(weigh(50, &new(&[10]), 0, Others::default()), None);
    assert_eq!(weigh(50, &new(&[10]), 0, others(3, 0)), None, "clients call none of them");
    assert_eq!(weigh(50, &[], 0, others(3, 100)), None);
}

#[test]
fn weights_stay_within_two_points() {
    // 300 of 600 are 50 %; 325 are 52.0 %, 326 are 52.08 %.
    assert_eq!(weights(50, &written(&[108, 109, 108]), others(3, 100)), [108, 109, 108]);
    assert_eq!(weights(50, &written(&[108, 109, 109]), others(3, 100)), [100, 100, 100]);
    assert_eq!(weights(50, &written(&[92, 92, 92]), others(3, 100)), [100, 100, 100], "47.9 %");
    assert_eq!(weights(50, &written(&[92, 92, 93]), others(3, 100)), [92, 92, 93], "48.0 %");
}

#[test]
fn a_new_instance_gets_what_its_neighbours_have_and_they_stay() {
    let with_new = |written: &[i64], configured: i64| {
        let mut parts = self::written(written);
        parts.push(Part { configured, written: None });
        parts
    };
    assert_eq!(weights(50, &with_new(&[15; 20], 10), others(3, 100)).last(), Some(&15), "51.2 %");
    assert_eq!(weights(50, &with_new(&[15; 20], 20), others(3, 102)).last(), Some(&30), "of twice the weight");
    assert_eq!(weights(50, &with_new(&[100; 3], 10), others(3, 100)), [75; 4], "57.1 % are too much");
}

#[test]
fn weights_that_are_out_of_proportion_are_spread_anew() {
    assert_eq!(weights(50, &written(&[200, 50, 50]), others(3, 100)), [100, 100, 100]);
    assert_eq!(weights(50, &written(&[120, 90, 90]), others(3, 100)), [120, 90, 90], "within a quarter");
    assert_eq!(weights(50, &written(&[2, 1, 2]), others(1, 5)), [2, 1, 2], "one is the least that differs");
    assert_eq!(weights(50, &written(&[0, 300]), others(3, 100)), [150, 150], "no weight of ours");
    let heavier = [Part { configured: 20, written: Some(100) }, Part { configured: 10, written: Some(100) }];
    assert_eq!(weights(50, &heavier, others(2, 100)), [133, 67], "its annotation changed");
}

#[test]
fn own_records_that_wait_for_the_guard_are_a_part_of_the_share() {
    let held = weigh(50, &written(&[100, 100]), 100, others(3, 100)).unwrap();
    assert_eq!(held.weights, [100, 100]);
    let alone = weigh(50, &written(&[100, 100]), 0, others(3, 100)).unwrap();
    assert_eq!(alone.weights, [150, 150]);
}

#[test]
fn a_share_that_no_weights_reach_is_told_with_the_weight_that_would_do() {
    let limit = |percent, n, others| weigh(percent, &new(&vec![10; n]), 0, others).unwrap().limit;
    assert_eq!(limit(10, 6, others(2, 10)), Some(ShareLimit { permille: 231, over: true, others_weight: 27 }));
    assert_eq!(limit(10, 6, others(2, 27)), None);
    assert_eq!(limit(10, 6, others(5, 1)).map(|limit| limit.others_weight), Some(11), "10.8 would do");
}

#[test]
fn a_share_is_told_from_three_points_on() {
    let limit = |vm| weigh(10, &new(&[10; 3]), 0, Others { records: 1, weight: vm }).unwrap().limit;
    assert_eq!(limit(21), None, "12.5 %");
    assert!(limit(20).is_some(), "13.04 %");
    let high = |vm| weigh(50, &new(&[10]), 0, Others { records: 2, weight: vm }).unwrap();
    assert_eq!(high(11_000), Weighed { weights: vec![10_000], limit: None }, "47.6 %");
    let limit = Some(ShareLimit { permille: 400, over: false, others_weight: 5_000 });
    assert_eq!(high(15_000), Weighed { weights: vec![10_000], limit });
    let limit = Some(ShareLimit { permille: 0, over: false, others_weight: 5_000 });
    assert_eq!(high(i128::from(u64::MAX)).limit, limit, "no sum is too large");
}

/// A change on one side.
#[derive(Clone, Debug)]
enum Change {
    Come(i64),
    Go(usize),
    Others(u32, i64),
    Share(i64),
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        prop::sample::select(vec![10, 10, 10, 1, 25, 10_000]).prop_map(Change::Come),
        (0_usize..20).prop_map(Change::Go),
        (0_u32..6, prop::sample::select(vec![1_i64, 10, 100, 777, 10_000])).prop_map(|(n, w)| Change::Others(n, w)),
        (1_i64..100).prop_map(Change::Share),
    ]
}

/// The share of a sum, in millionths.
fn share(own: i128, others: Others) -> i128 {
    1_000_000 * own / (own + others.weight).max(1)
}

proptest! {
    #[test]
    fn after_any_changes_the_share_is_as_near_as_integers_allow_and_nothing_is_written_at_rest(
        changes in prop::collection::vec(change(), 1..40),
    ) {
        let (mut parts, mut percent, mut beside) = (Vec::<Part>::new(), 50, others(3, 100));
        for change in changes {
            match change {
                Change::Come(configured) => parts.push(Part { configured, written: None }),
                Change::Go(n) if n < parts.len() => drop(parts.remove(n)),
                Change::Go(_) => {}
                Change::Others(records, each) => beside = others(records, each),
                Change::Share(wanted) => percent = wanted,
            }
            let Some(found) = weigh(percent, &parts, 0, beside) else {
                prop_assert!(parts.is_empty() || beside.weight == 0);
                continue;
            };
            prop_assert_eq!(weigh(percent, &parts, 0, beside), Some(found.clone()), "same input, same weights");
            prop_assert!(found.weights.iter().all(|weight| WEIGHTS.contains(weight)));
            let scale = Scale { percent: percent.into(), held: 0, others: beside };
            let own = scale.own(&found.weights);
            let best = scale.wanted().clamp(parts.len() as i128, most(parts.len()));
            let excess = share(own, beside) - 10_000 * scale.percent;
            let off = excess.abs();
            let least = (share(best, beside) - 10_000 * scale.percent).abs();
            prop_assert!(off <= least.max(20_000), "{off} millionths, and {least} would do: {found:?}");
            let at_end = if excess > 0 { parts.len() as i128 } else { most(parts.len()) };
            prop_assert_eq!(found.limit.is_some(), off > 30_000 && own == at_end);
            for (part, weight) in parts.iter_mut().zip(&found.weights) {
                part.written = Some(*weight);
            }
            let again = weigh(percent, &parts, 0, beside).unwrap();
            prop_assert_eq!(again, found, "nothing is written at rest");
        }
    }

    #[test]
    fn a_sum_is_spread_as_it_is(
        configured in prop::collection::vec(1_i64..10_001, 1..30),
        sum in 0_i128..400_000,
    ) {
        let parts = new(&configured);
        let spread = spread(sum, &parts);
        let exact = sum.clamp(parts.len() as i128, most(parts.len()));
        prop_assert_eq!(spread.iter().copied().map(i128::from).sum::<i128>(), exact);
        let equal = super::spread(sum, &new(&vec![10; parts.len()]));
        prop_assert!(equal.is_sorted_by(|a, b| a >= b) && equal[0] - equal[equal.len() - 1] <= 1);
    }
}
