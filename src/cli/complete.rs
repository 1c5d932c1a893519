//! Completion of commands, flags and names, for shells and for `kubectl`.
//!
//! Owns the choice of arguments that are completed by names of the cluster, and the protocol of kubectl's plugins: one
//! candidate a line, and at the end what the shell is to do. Refuses to report errors: a shell that completes shows
//! none, so a cluster that cannot be asked completes nothing.

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Arg, Command};
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate, complete};

use super::config;
use super::words::Words;
use crate::tools::names::{self, Names};

/// Print completions of the last word, as kubectl asks its plugins for them.
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
pub struct Args {
    /// The words after the name of the program
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<OsString>,
}

/// `ShellCompDirectiveNoFileComp` of cobra, which kubectl speaks: files are no answer.
const NO_FILES: &str = ":4";

pub fn run(args: Args, command: Command) -> ExitCode {
    answer(args.words, command)
}

/// Completes the last of the words, which follow the name of the program.
pub fn answer(words: Vec<OsString>, mut command: Command) -> ExitCode {
    let mut all = vec![OsString::from("twinspan")];
    all.extend(words);
    if all.len() == 1 {
        all.push(OsString::new());
    }
    let last = all.len() - 1;
    let candidates = complete(&mut command, all, last, None).unwrap_or_default();
    let mut out = std::io::stdout().lock();
    for candidate in candidates.iter().filter(|candidate| !candidate.is_hide_set()) {
        let value = candidate.get_value().to_string_lossy();
        let help = candidate.get_help().map(ToString::to_string).unwrap_or_default();
        let line = help.lines().next().map_or_else(|| value.to_string(), |help| format!("{value}\t{help}"));
        // A shell that is gone wants no candidates.
        let _ = writeln!(out, "{line}");
    }
    let _ = writeln!(out, "{NO_FILES}");
    ExitCode::SUCCESS
}

/// The command with arguments that complete names, recognised by their IDs, whatever the subcommand.
pub fn with_names(command: Command) -> Command {
    command.mut_args(named).mut_subcommands(|subcommand| subcommand.mut_args(named))
}

fn named(arg: Arg) -> Arg {
    let kind = match arg.get_id().as_str() {
        "name" => Names::RegisteredServices,
        "registry" | "registries" | "epoch" => Names::ServiceRegistries,
        "namespace" | "operator_namespace" => Names::Namespaces,
        "context" => return arg.add(ArgValueCompleter::new(|current: &OsStr| beginning(config::contexts(), current))),
        _ => return arg,
    };
    arg.add(ArgValueCompleter::new(move |current: &OsStr| beginning(listed(kind), current)))
}

fn beginning(names: Vec<String>, current: &OsStr) -> Vec<CompletionCandidate> {
    let current = current.to_string_lossy();
    names.into_iter().filter(|name| name.starts_with(&*current)).map(CompletionCandidate::new).collect()
}

/// Names of the cluster that the words before choose.
fn listed(kind: Names) -> Vec<String> {
    let words = Words::new(std::env::args());
    let environment = || std::env::var_os("TWINSPAN_KUBECONFIG").map(PathBuf::from);
    let kubeconfig = words.value("kubeconfig", None).map(PathBuf::from).or_else(environment);
    let (context, namespace) = (words.value("context", None), words.value("namespace", Some('n')));
    let asking = async {
        let config = config::config(&config::Access { kubeconfig, context, ..Default::default() }).ok()?;
        Some(names::list(config, kind, namespace.as_deref()).await)
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.ok().and_then(|runtime| runtime.block_on(asking)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::command;

    fn candidates(words: &[&str]) -> Vec<String> {
        let all: Vec<OsString> = std::iter::once("twinspan").chain(words.iter().copied()).map(Into::into).collect();
        let last = all.len() - 1;
        let found = complete(&mut command("twinspan"), all, last, None).unwrap();
        found.iter().filter(|it| !it.is_hide_set()).map(|it| it.get_value().to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn commands_flags_and_values_are_completed_and_hidden_commands_are_not() {
        assert_eq!(candidates(&["sta"]), ["status"]);
        assert!(candidates(&["__"]).is_empty());
        assert!(candidates(&["doctor", "--aud"]).contains(&"--audit".to_owned()));
        assert!(candidates(&["status", "-o", "js"]).contains(&"json".to_owned()));
    }

    #[test]
    fn arguments_that_name_objects_have_a_completer() {
        let command = command("twinspan");
        let has = |subcommand: &str, id: &str| {
            let found = command.find_subcommand(subcommand).unwrap();
            let arg = found.get_arguments().find(|arg| arg.get_id() == id);
            arg.is_some_and(|arg| arg.get::<ArgValueCompleter>().is_some())
        };
        for (subcommand, id) in [
            ("parity", "name"),
            ("approve", "registry"),
            ("doctor", "registries"),
            ("status", "namespace"),
            ("status", "context"),
            ("instances", "registries"),
        ] {
            assert!(has(subcommand, id), "{subcommand} {id}");
        }
        assert!(!has("parity", "dns"));
    }
}
