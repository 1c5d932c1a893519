//! `twinspan completions`: the script with which a shell completes commands, flags and names.
//!
//! Owns its flags. Refuses to know any command: the script asks this program for each word.

use std::process::ExitCode;

use clap_complete::Shell;
use clap_complete::env::Shells;

use super::fail::printed;
use crate::tools::print::{PrintError, write};

/// Print completions for a shell.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  source <(twinspan completions bash)\n  ln -s \"$(command -v twinspan)\" ~/.local/bin/kubectl_complete-twinspan"
)]
pub struct Args {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// The variable in which a shell tells that it wants candidates.
pub const VARIABLE: &str = "COMPLETE";

pub fn run(args: &Args) -> ExitCode {
    // Written at once, so that a full disk is an error in words.
    let mut script = Vec::new();
    let shells = Shells::builtins();
    let registered = shells
        .completer(&args.shell.to_string())
        .map_or(Ok(()), |shell| shell.write_registration(VARIABLE, "twinspan", "twinspan", "twinspan", &mut script));
    printed(registered.map_err(PrintError::from).and_then(|()| write(&script)))
}
