//! A minute of the soak, as a test.
//!
//! Owns the length. Refuses to measure: the program's exit code is its verdict.

use std::process::Command;

/// The stories, which run before, have built Twinspan beside the program.
#[test]
#[ignore = "takes two minutes; make test-long runs it"]
fn after_a_minute_of_changes_both_sides_are_equal() {
    let status = Command::new(env!("CARGO_BIN_EXE_bench")).args(["--soak", "1"]).status().unwrap();
    assert!(status.success(), "the soak ended with {status}");
}
