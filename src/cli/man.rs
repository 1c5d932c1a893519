//! `twinspan man`: manual pages, for packages.
//!
//! Owns its flags. Refuses to know any command: the pages come from the parser.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Command;

/// Write a manual page for each command into a directory.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[arg(value_name = "DIR")]
    /// The directory, which is made if it is not there
    dir: PathBuf,
}

#[derive(Debug, thiserror::Error)]
#[error("cannot write manual pages into {dir}: {source}", dir = dir.display())]
struct Error {
    /// The directory, which is made if it is not there
    dir: PathBuf,
    source: std::io::Error,
}

pub fn run(args: &Args, command: Command) -> ExitCode {
    let written = std::fs::create_dir_all(&args.dir).and_then(|()| clap_mangen::generate_to(command, &args.dir));
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(source) => super::fail::fail(&Error { dir: args.dir.clone(), source }),
    }
}

#[cfg(test)]
mod tests {
    use crate::cli::command;

    #[test]
    fn every_command_has_a_page() {
        let mut page = Vec::new();
        for subcommand in command("twinspan").get_subcommands() {
            clap_mangen::Man::new(subcommand.clone()).render(&mut page).unwrap();
        }
        let text = String::from_utf8(page).unwrap();
        assert!(text.contains("Look at the cluster and every registry"), "{text}");
    }
}
