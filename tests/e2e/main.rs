//! User stories on real parts: one binary, one module a story. It runs itself again inside the test bed.
//!
//! Most stories share one control plane and one Twinspan, as services share a cluster; each has a namespace, a
//! ServiceRegistry and a prefix of its own. A story that kills or freezes something has a bed of its own. The long ones are
//! run with `--ignored`.

// A test tells people what went wrong, and ends where it cannot go on.
#![allow(clippy::expect_used, clippy::print_stderr)]

mod abandoned;
mod alerts;
mod audit;
mod bad_input;
mod chart;
mod cluster_side;
mod conformance;
mod connection;
mod crds;
mod departures;
mod docs;
mod doctor;
mod export;
mod faults;
mod fence;
mod formats;
mod guard;
mod harness;
mod import;
mod life;
mod operator;
mod orders;
mod outages;
mod packing;
mod random;
mod rbac;
mod registry_contract;
mod replicas;
mod self_registration;
mod sharing;
mod status;
mod tools;
mod traces;
mod trust;

use std::process::ExitCode;

use harness::Suite;
use libtest_mimic::Arguments;
use twinspan_testbed::namespace;

const STORIES_AT_ONCE: usize = 8;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Stories mostly wait, so more of them than there are cores.
    arguments.test_threads.get_or_insert(STORIES_AT_ONCE);
    if !arguments.list
        && let Err(error) = namespace::enter(&namespace::ASKED)
    {
        eprintln!("e2e: {error:#}");
        return ExitCode::FAILURE;
    }
    let suite = Suite::new();
    let modules = [
        abandoned::stories,
        alerts::stories,
        bad_input::stories,
        chart::stories,
        cluster_side::stories,
        conformance::stories,
        connection::stories,
        crds::stories,
        departures::stories,
        docs::stories,
        doctor::stories,
        export::stories,
        faults::stories,
        fence::stories,
        formats::stories,
        guard::stories,
        import::stories,
        life::stories,
        operator::stories,
        orders::stories,
        outages::stories,
        packing::stories,
        random::stories,
        rbac::stories,
        registry_contract::stories,
        replicas::stories,
        self_registration::stories,
        sharing::stories,
        status::stories,
        tools::stories,
        traces::stories,
        trust::stories,
    ];
    let trials = modules.iter().flat_map(|stories| stories(&suite)).collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    let mut failed = conclusion.has_failed();
    // Only all stories together use everything.
    if !failed && conclusion.num_filtered_out == 0 && !arguments.list && !arguments.ignored {
        match rbac::exactly_sufficient(suite.dir()) {
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
