//! `make demo`: the story of one service, on real parts, with real observations.

mod scene;
mod story;

use std::process::ExitCode;

use anyhow::Result;
use twinspan_testbed::namespace;

fn main() -> ExitCode {
    let keep = std::env::args().any(|argument| argument == "--keep");
    match run(keep) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!("demo: the sides do not agree");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(keep: bool) -> Result<bool> {
    namespace::enter(&[])?;
    tokio::runtime::Runtime::new()?.block_on(async {
        tokio::select! {
            told = story::tell(keep) => told,
            // This is the first process of its PID namespace: without a handler Ctrl-C would do nothing.
            _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted"),
        }
    })
}
