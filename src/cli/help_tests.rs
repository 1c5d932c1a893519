//! The help of every command is the recorded one, under `tests/help`. To record it anew:
//! `SNAPSHOTS=overwrite cargo test -p twinspan --lib cli::help_tests`, or `make help-texts`.

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::Command;
use snapbox::{Assert, Data};

use super::command;

/// Characters of a line, whatever terminal a test runs in.
const WIDTH: usize = 100;

/// The command as on a machine without any variable of ours.
fn plain(command: Command) -> Command {
    command.term_width(WIDTH).mut_args(|arg| arg.hide_env_values(true)).mut_subcommands(plain)
}

/// Commands for people; `help` repeats the others.
fn is_recorded(subcommand: &Command) -> bool {
    subcommand.get_name() != "help" && !subcommand.is_hide_set()
}

#[test]
fn the_help_of_every_command_is_the_recorded_one() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/help");
    let assert = Assert::new().action_env("SNAPSHOTS");
    let mut command = plain(command("twinspan"));
    command.build();
    // `--help`, and behind it the short form of `-h`.
    let both = |command: &mut Command| format!("{}\n\n{}", command.render_long_help(), command.render_help());
    let mut texts = vec![("twinspan".to_owned(), both(&mut command))];
    for subcommand in command.get_subcommands_mut().filter(|subcommand| is_recorded(subcommand)) {
        texts.push((subcommand.get_name().to_owned(), both(subcommand)));
    }
    for (name, text) in &texts {
        // Two spaces at the end of a line are clap's business.
        let text: Vec<&str> = text.lines().map(str::trim_end).collect();
        assert.eq(text.join("\n") + "\n", Data::read_from(&folder.join(format!("{name}.txt")), None));
    }
    let wanted: BTreeSet<String> = texts.iter().map(|(name, _)| format!("{name}.txt")).collect();
    let files = std::fs::read_dir(&folder).unwrap();
    let found: BTreeSet<String> = files.map(|file| file.unwrap().file_name().to_string_lossy().into_owned()).collect();
    assert_eq!(found, wanted, "a command that is gone has no help");
}

#[test]
fn as_a_plugin_of_kubectl_the_usage_says_so() {
    for (called, wanted) in [
        ("/usr/bin/twinspan", "Usage: twinspan status"),
        ("/home/me/.krew/bin/kubectl-twinspan", "Usage: kubectl twinspan status"),
    ] {
        let error = command(called).try_get_matches_from([called, "status", "--help"]).unwrap_err();
        assert!(error.to_string().contains(wanted), "{error}");
    }
}
