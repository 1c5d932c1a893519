//! A minute of chaos with a fixed seed, as a test.
//!
//! Owns the seed and the length. Refuses to measure: the program's exit code is its verdict.

use std::process::Command;

/// The stories, which run before, have built Twinspan beside the program.
#[test]
#[ignore = "takes two minutes; make test-long runs it"]
fn a_minute_of_faults_costs_callers_nothing() {
    let mut chaos = Command::new(env!("CARGO_BIN_EXE_chaos"));
    let status = chaos.args(["--minutes", "1", "--seed", "1", "--rest", "20"]).status().unwrap();
    assert!(status.success(), "chaos ended with {status}");
}
