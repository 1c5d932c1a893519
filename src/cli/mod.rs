//! The command line: flags become settings, and each subcommand is one file.

mod crds;
mod run;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

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
    Crds(crds::Args),
}

/// Runs what the command line asks for and returns the exit code.
pub fn main() -> ExitCode {
    let args = Args::parse();
    match args.command {
        Command::Run(args) => run::run(args),
        Command::Crds(args) => crds::run(&args),
    }
}

/// Says what went wrong on standard error; exit code 1.
fn fail(error: &dyn std::error::Error) -> ExitCode {
    use std::io::Write;
    // Where even standard error is gone there is nobody left to tell.
    let _ = writeln!(std::io::stderr(), "twinspan: {error}");
    ExitCode::FAILURE
}
