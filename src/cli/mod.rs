//! The command line: flags become settings, and each subcommand is one file.
//!
//! Owns the list of commands and the exit code of a wrong command line. Refuses to know what a command does. [`config`]
//! chooses the cluster, and [`fail`] reports an error.

mod approve;
mod common;
mod completions;
mod config;
mod crds;
mod doctor;
mod etcd_args;
mod explain;
mod fail;
mod generate;
mod instances;
mod parity;
mod plan;
mod report;
mod run;
mod status;
mod version;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

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
}

/// The exit code of a wrong command line: `EX_USAGE` of sysexits.h, because clap's own code 2 is an answer of `plan`.
const USAGE: u8 = 64;

/// Runs the command and returns the exit code.
pub fn main() -> ExitCode {
    let args = match Args::try_parse() {
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
        Command::Completions(args) => completions::run(&args, Args::command()),
    }
}
