//! Every single fault at every message of five scenarios.

use twinspan_sim::many::run_all;
use twinspan_sim::moments::{SCENARIOS, all_of};

#[test]
fn every_fault_at_every_message() {
    let plans: Vec<_> = SCENARIOS.into_iter().flat_map(all_of).collect();
    let count = plans.len();
    assert!(count >= 1000, "{count} runs are too few to be every message of five scenarios");
    let sum = run_all(plans, 10);
    println!("moments: {sum}");
    assert!(sum.failed.is_empty(), "{sum}");
}
