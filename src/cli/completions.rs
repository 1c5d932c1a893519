//! `twinspan completions`: the script with which a shell completes commands, flags and names.
//!
//! Owns its flags. Refuses to know any command: the script asks this program for each word.

use std::io::Write;
use std::process::ExitCode;

use clap_complete::Shell;
use clap_complete::env::Shells;

/// Print completions for a shell.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  source <(twinspan completions bash)\n  ln -s \"$(command -v twinspan)\" ~/.local/bin/kubectl_complete-twinspan"
)]
pub struct Args {
    #[arg(value_enum)]
    shell: Shell,
}

#[derive(Debug, thiserror::Error)]
#[error("cannot print: {0}")]
struct Error(std::io::Error);

/// The variable in which a shell tells that it wants candidates.
pub const VARIABLE: &str = "COMPLETE";

pub fn run(args: &Args) -> ExitCode {
    let mut script = Vec::new();
    let shells = Shells::builtins();
    let written = shells
        .completer(&args.shell.to_string())
        .map_or(Ok(()), |shell| shell.write_registration(VARIABLE, "twinspan", "twinspan", "twinspan", &mut script));
    match written.and_then(|()| std::io::stdout().write_all(&script)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => super::fail::fail(&Error(error)),
    }
}
