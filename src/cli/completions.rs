//! `twinspan completions`: the script with which a shell completes commands and flags.
//!
//! Owns its flags. Refuses to know any command: the script comes from the parser.

use std::process::ExitCode;

use clap_complete::Shell;

/// Print completions for a shell.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  source <(twinspan completions bash)")]
pub struct Args {
    #[arg(value_enum)]
    shell: Shell,
}

pub fn run(args: &Args, mut command: clap::Command) -> ExitCode {
    clap_complete::generate(args.shell, &mut command, "twinspan", &mut std::io::stdout());
    ExitCode::SUCCESS
}
