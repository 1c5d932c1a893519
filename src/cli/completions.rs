//! `twinspan completions`: the script with which a shell completes commands and flags.
//!
//! Owns its flags. Refuses to know any command: the script comes from the parser.

use std::process::ExitCode;

use clap_complete::Shell;

use super::fail::printed;
use crate::tools::print::write;

/// Print completions for a shell.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  source <(twinspan completions bash)")]
pub struct Args {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

pub fn run(args: &Args, mut command: clap::Command) -> ExitCode {
    // Written at once: clap would panic where the disk is full.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "twinspan", &mut script);
    printed(write(&script))
}
