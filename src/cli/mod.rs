//! The command line: flags become settings, and each subcommand is one file.
//!
//! - [`common`]: what the commands for people share. [`fail`]: the report of an error. [`waiting`]: the line about a
//!   wait.
//! - [`config`]: the choice of the cluster. [`proxy`]: the proxy before it. [`plugin`]: credential plugins.
//! - [`reach`]: what `run` looks at. [`duration`]: the form of durations. [`revision`]: the version with its commit.
//!
//! Owns the list of commands, the options that stand before or after each, and the exit code of a wrong command line.
//! Refuses to know what a command does.

mod approve;
mod common;
mod complete;
mod completions;
mod config;
mod crds;
mod doctor;
mod duration;
mod etcd_args;
mod explain;
mod fail;
mod generate;
#[cfg(test)]
mod help_tests;
mod instances;
mod man;
mod networks;
mod parity;
mod plan;
mod plugin;
mod proxy;
mod reach;
mod report;
mod revision;
mod run;
mod status;
mod version;
mod waiting;
mod words;

use std::path::Path;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use clap_complete::CompleteEnv;

/// Keeps Kubernetes Services and an etcd service registry in sync, both ways.
#[derive(Debug, Parser)]
#[command(name = "twinspan", version = revision::version(), about)]
struct Args {
    /// When to use colours
    #[arg(long, value_enum, value_name = "WHEN", default_value_t, global = true, display_order = 900)]
    color: Color,
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
enum Color {
    /// On a terminal, unless NO_COLOR is set
    #[default]
    Auto,
    /// Also into a pipe or a file
    Always,
    /// Nowhere
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

// The options that may stand before the command too, as with kubectl. A command that has them by itself is given the
// values. No comment of documentation, for clap would take it for that of the program.
#[derive(Debug, clap::Args)]
struct Anywhere {
    /// The namespace of the objects [default: the context's, or all]
    #[arg(short, long, value_name = "NAMESPACE", global = true)]
    namespace: Option<String>,
    #[command(flatten)]
    access: config::Access,
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
    Man(man::Args),
    #[command(name = "__complete", hide = true)]
    Complete(complete::Args),
}

/// The exit code of a wrong command line: `EX_USAGE` of sysexits.h, because clap's own code 2 is an answer of `plan`.
const USAGE: u8 = 64;

/// The names of the program by which `kubectl twinspan` runs it, and asks it for completions.
const PLUGIN: &str = "kubectl-";
const COMPLETER: &str = "kubectl_complete-";

/// The parser of a program that was called by this path, with the options that may stand anywhere.
fn command(called: &str) -> clap::Command {
    let own = Args::command();
    let about = own.get_about().cloned().unwrap_or_default();
    let command = <Anywhere as clap::Args>::augment_args(own).about(about).long_about(None);
    let command = complete::with_names(command);
    // As kubectl calls its plugins; a person types it so.
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
    anstream::ColorChoice::from(args.color).write_global();
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

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(args: &[&str]) -> Args {
        let all = ["twinspan"].iter().chain(args);
        Args::from_arg_matches(&command("twinspan").try_get_matches_from(all).unwrap()).unwrap()
    }

    #[test]
    fn every_option_has_a_sentence() {
        command("twinspan").debug_assert();
        assert!(command("twinspan").render_help().to_string().starts_with("Keeps Kubernetes Services"));
        let mut all = command("twinspan");
        all.build();
        for command in all.get_subcommands().filter(|command| command.get_name() != "help") {
            for option in command.get_arguments() {
                assert!(option.get_help().is_some(), "{} {}", command.get_name(), option.get_id());
            }
        }
    }

    #[test]
    fn an_approval_without_an_object_names_all_three_ways() {
        let error = command("twinspan").try_get_matches_from(["twinspan", "approve"]).unwrap_err().to_string();
        assert!(["<NAME", "--registry", "--epoch"].iter().all(|way| error.contains(way)), "{error}");
        let both = command("twinspan").try_get_matches_from(["twinspan", "approve", "user", "--epoch", "main"]);
        assert!(both.unwrap_err().to_string().contains("cannot be used with"));
    }

    #[test]
    fn options_of_the_cluster_stand_before_or_after_the_command() {
        let options = ["-n", "shop", "--kubeconfig", "/k", "--as", "alice", "--request-timeout", "20s"];
        let (before, after) = ([&options[..], &["status"]].concat(), [&["status"], &options[..]].concat());
        let [before, after] = [before, after].map(|args| format!("{:?}", parsed(&args).command));
        assert_eq!(before, after);
        assert!(before.contains("shop") && before.contains("/k") && before.contains("alice"), "{before}");
        let help = command("twinspan").try_get_matches_from(["twinspan", "run", "-h"]).unwrap_err().to_string();
        let (own, cluster) = help.split_once("\nCluster:").unwrap();
        assert!(own.contains("--dry-run") && cluster.contains("--as-group"), "{help}");
        assert!(
            own.contains("--operator-namespace"),
            "the operator's own namespace is an option of `run` itself: {help}"
        );
        for name in ["--operator-namespace", "--namespace"] {
            let run = format!("{:?}", parsed(&["--kubeconfig", "/k", "run", name, "own", "--leader-elect"]).command);
            assert!(run.contains("\"own\"") && run.contains("leader_elect: true") && run.contains("/k"), "{run}");
        }
        let run = format!("{:?}", parsed(&["run", "--leader-elect=false"]).command);
        assert!(run.contains("leader_elect: false"), "{run}");
    }
}
