//! The command line: flags become settings, and each subcommand is one file.
//!
//! - [`common`]: what the commands for people share. [`fail`]: the report of an error. [`waiting`]: the line about a wait.
//! - [`config`]: the choice of the cluster. [`proxy`]: the proxy before it. [`plugin`]: credential plugins.
//! - [`duration`]: the form of durations.
//!
//! Owns the list of commands, the options that stand before or after each, and the exit code of a wrong command line.
//! Refuses to know what a command does.

mod approve;
mod common;
mod completions;
mod config;
mod crds;
mod doctor;
mod duration;
mod explain;
mod fail;
mod parity;
mod plan;
mod plugin;
mod proxy;
mod run;
mod status;
mod waiting;

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

/// Keeps Kubernetes Services and an etcd service registry in sync, both ways.
#[derive(Debug, Parser)]
#[command(name = "twinspan", version, about)]
struct Args {
    /// When to use colours
    #[arg(long, value_enum, value_name = "WHEN", default_value_t, global = true)]
    color: Color,
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
enum Color {
    /// On a terminal, unless NO_COLOR is set
    #[default]
    Auto,
    Always,
    Never,
}

impl From<Color> for anstream::ColorChoice {
    fn from(color: Color) -> Self {
        match color {
            Color::Auto => Self::Auto,
            Color::Always => Self::Always,
            Color::Never => Self::Never,
        }
    }
}

/// The options that may stand before the command too, as with kubectl. A command that has them by itself is given the
/// values.
#[derive(Debug, clap::Args)]
struct Anywhere {
    /// The namespace of the objects [default: the context's, or all]
    #[arg(short, long, value_name = "NAMESPACE", global = true)]
    namespace: Option<String>,
    #[command(flatten)]
    common: common::Common,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Args),
    Status(status::Args),
    Parity(parity::Args),
    Explain(explain::Args),
    Plan(plan::Args),
    Approve(approve::Args),
    Doctor(doctor::Args),
    Crds(crds::Args),
    Completions(completions::Args),
}

/// The exit code of a wrong command line: `EX_USAGE` of sysexits.h, because clap's own code 2 is an answer of `plan`.
const USAGE: u8 = 64;

/// The parser, with the options that may stand anywhere.
fn command() -> clap::Command {
    <Anywhere as clap::Args>::augment_args(Args::command())
}

/// Runs the command and returns the exit code.
pub fn main() -> ExitCode {
    let parsed = command().try_get_matches().and_then(|matches| Args::from_arg_matches(&matches));
    let args = match parsed {
        Ok(args) => args,
        Err(error) => {
            // Help goes to standard output. If that is closed, there is no place for an error either.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS };
        }
    };
    anstream::ColorChoice::from(args.color).write_global();
    match args.command {
        Command::Run(args) => run::run(args),
        Command::Status(args) => status::run(&args),
        Command::Parity(args) => parity::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Plan(args) => plan::run(&args),
        Command::Approve(args) => approve::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Crds(args) => crds::run(&args),
        Command::Completions(args) => completions::run(&args, command()),
    }
}
