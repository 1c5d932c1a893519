//! `twinspan man`: manual pages, for packages.
//!
//! Owns its flags. Refuses to know any command: the pages come from the parser.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Command;

/// Write a manual page for each command into a directory.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The directory, which is made if it is not there
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

#[derive(Debug, thiserror::Error)]
#[error("cannot write manual pages into {dir}: {source}", dir = dir.display())]
struct Error {
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
    use super::*;
    use crate::cli::command;

    #[test]
    fn the_program_and_every_command_have_a_page() {
        let dir = std::env::temp_dir().join(format!("twinspan-man-{}", std::process::id()));
        run(&Args { dir: dir.clone() }, command("twinspan"));
        let page = |name: &str| std::fs::read_to_string(dir.join(name)).unwrap();
        assert!(page("twinspan.1").contains("Keeps Kubernetes Services"));
        assert!(page("twinspan-doctor.1").contains("Look at the cluster and every registry"));
        let mut all = command("twinspan");
        all.build();
        for subcommand in all.get_subcommands().filter(|it| !it.is_hide_set() && it.get_name() != "help") {
            assert!(page(&format!("twinspan-{}.1", subcommand.get_name())).contains("SYNOPSIS"), "{subcommand}");
        }
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
