//! User stories on real parts: one binary, one module a story. It runs itself again inside the test bed.
//!
//! Most stories share one control plane and one Twinspan, as services share a cluster; each has a namespace, a
//! ServiceRegistry and a prefix of its own. A story that kills or freezes something has a bed of its own. The long ones are
//! run with `--ignored`.

mod crds;
mod harness;
mod export;

use std::process::ExitCode;

use harness::Suite;
use libtest_mimic::Arguments;
use twinspan_bed::namespace;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    if !arguments.list
        && let Err(error) = namespace::enter()
    {
        eprintln!("e2e: {error:#}");
        return ExitCode::FAILURE;
    }
    let suite = Suite::new();
    let trials = [crds::stories(&suite), export::stories(&suite)].into_iter().flatten().collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    suite.finish(conclusion.has_failed());
    conclusion.exit_code()
}
