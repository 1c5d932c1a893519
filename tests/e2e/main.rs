//! User stories on real parts: one binary, one module for each subject. The binary runs itself again inside the test
//! bed.
//!
//! Most stories share one control plane and one Twinspan, as services share a cluster; each has a namespace, a
//! ServiceRegistry and a prefix of its own. A story that kills or freezes a part has a bed of its own. Long stories run
//! with `--ignored`.

// A test prints what went wrong, and panics if it cannot go on. Real parts run on real time.
#![allow(clippy::expect_used, clippy::print_stderr, clippy::disallowed_methods, clippy::disallowed_types)]

mod chart;
mod compat;
mod crds;
mod discovery;
mod docs;
mod failures;
mod faithful;
mod harness;
mod journeys;
mod lifecycle;
mod page;
mod page_browser;
mod random;
mod registry_contract;
mod rollouts;
mod safety;
mod seen;
mod sync;

use std::process::ExitCode;

use harness::{Suite, stories};
use libtest_mimic::Arguments;
use twinspan_testbed::namespace;

const STORIES_AT_ONCE: usize = 6;

stories![
    modules: chart, compat, crds, discovery, docs, failures, faithful, journeys, lifecycle, page, page_browser, random,
    registry_contract, rollouts, safety, seen, sync
];

/// The parts that the stories need; the earlier version of Twinspan and the earlier etcd are built for the long ones
/// alone, and the earlier API server for those who ask for its stories.
fn parts(arguments: &Arguments) -> Vec<&'static str> {
    let long = arguments.ignored || arguments.include_ignored;
    let mut parts = namespace::ASKED.to_vec();
    if long {
        parts.extend(["earlier", compat::EARLIER_ETCD]);
    }
    if compat::asked(arguments) {
        parts.push(compat::EARLIER_API_SERVER);
    }
    parts
}

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Stories mostly wait, so more of them run concurrently than there are cores.
    arguments.test_threads.get_or_insert(STORIES_AT_ONCE);
    if !arguments.list
        && let Err(error) = namespace::enter(&parts(&arguments))
    {
        eprintln!("e2e: {error:#}");
        return ExitCode::FAILURE;
    }
    let suite = Suite::new();
    let mut trials = stories(&suite);
    trials.retain(|trial| compat::asked(&arguments) || !compat::needs_earlier_api_server(trial.name()));
    let conclusion = libtest_mimic::run(&arguments, trials);
    let mut failed = conclusion.has_failed();
    // Only a complete run uses every grant.
    if !failed && conclusion.num_filtered_out == 0 && !arguments.list && !arguments.ignored {
        match safety::rbac::exactly_sufficient(suite.dir()) {
            Ok((grants, requests)) => {
                eprintln!("rbac: each of {grants} grants was used, none of {requests} requests denied");
            }
            Err(error) => {
                eprintln!("rbac: {error:#}");
                failed = true;
            }
        }
    }
    suite.finish(failed);
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
