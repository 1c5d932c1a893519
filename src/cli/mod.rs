//! The command line: flags become settings, and each subcommand is one file.
//!
//! Owns the list of commands and the exit code of a wrong command line. Refuses to know what a command does. [`config`]
//! chooses the cluster, and [`fail`] reports an error.

mod approve;
mod common;
mod complete;
mod completions;
mod config;
mod crds;
mod doctor;
mod etcd_args;
mod explain;
mod fail;
mod generate;
#[cfg(test)]
mod help_tests;
mod instances;
mod man;
mod parity;
mod plan;
mod report;
mod run;
mod status;
mod version;
mod words;

use std::path::Path;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use clap_complete::CompleteEnv;

/// Keeps Kubernetes Services and an etcd service registry equal, both ways.
#[derive(Debug, Parser)]
#[command(name = "twinspan", version, about)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Args),
    Status(status::Args),
    Parity(parity::Args),
    Explain(explain::Args),
    Plan(plan::Args),
    Approve(approve::Args),
    Instances(instances::Args),
    Generate(generate::Args),
    Doctor(doctor::Args),
    Report(report::Args),
    Version(version::Args),
    Crds(crds::Args),
    Completions(completions::Args),
    #[command(hide = true)]
    Man(man::Args),
    #[command(name = "__complete", hide = true)]
    Complete(complete::Args),
}

/// The exit code of a wrong command line: `EX_USAGE` of sysexits.h, because clap's own code 2 is an answer of `plan`.
const USAGE: u8 = 64;

/// The names of the program by which `kubectl twinspan` runs it, and asks it for completions.
const PLUGIN: &str = "kubectl-";
const COMPLETER: &str = "kubectl_complete-";

/// The parser of a program that was called by this path.
fn command(called: &str) -> clap::Command {
    let command = complete::with_names(Args::command());
    if program(called).starts_with(PLUGIN) { command.bin_name("kubectl twinspan") } else { command }
}

fn program(called: &str) -> &str {
    Path::new(called).file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

/// Runs the command and returns the exit code.
pub fn main() -> ExitCode {
    let called = std::env::args().next().unwrap_or_default();
    CompleteEnv::with_factory(|| command("twinspan")).var(completions::VARIABLE).complete();
    if program(&called).starts_with(COMPLETER) {
        return complete::answer(std::env::args_os().skip(1).collect(), command("twinspan"));
    }
    let matches = command(&called).try_get_matches();
    let args = match matches.and_then(|matches| Args::from_arg_matches(&matches)) {
        Ok(args) => args,
        Err(error) => {
            // Help goes to standard output. If that is closed, there is no place for an error either.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS };
        }
    };
    match args.command {
        Command::Run(args) => run::run(args),
        Command::Status(args) => status::run(&args),
        Command::Parity(args) => parity::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Plan(args) => plan::run(&args),
        Command::Approve(args) => approve::run(&args),
        Command::Instances(args) => instances::run(&args),
        Command::Generate(args) => generate::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Report(args) => report::run(&args),
        Command::Version(args) => version::run(&args),
        Command::Crds(args) => crds::run(&args),
        Command::Completions(args) => completions::run(&args),
        Command::Man(args) => man::run(&args, command("twinspan")),
        Command::Complete(args) => complete::run(args, command("twinspan")),
    }
}
