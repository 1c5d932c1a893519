//! Every single fault at every message of five scenarios.

use twinspan_sim::many::run_all;
use twinspan_sim::moments::{SCENARIOS, all_of};

/// Of so many runs a test run makes one; `TWINSPAN_MOMENTS=1` makes all of them.
const ONE_OF: usize = 5;

#[test]
fn every_fault_at_every_message() {
    let one_of = std::env::var("TWINSPAN_MOMENTS").map_or(ONE_OF, |number| number.parse().unwrap());
    let plans: Vec<_> = SCENARIOS.into_iter().flat_map(all_of).collect();
    let count = plans.len();
    println!("moments: {count} in all, one of {one_of} is run");
    assert!(count >= 500, "{count} runs are too few to be every message of five scenarios");
    let sum = run_all(plans.into_iter().step_by(one_of), 10);
    println!("moments: {sum}");
    assert!(sum.failed.is_empty(), "{sum}");
}
