//! `make demo`: the story of one service, with real programs and real observations.

mod embedded;
mod ground;
mod scene;
mod story;

use std::process::ExitCode;

use anyhow::Result;
use twinspan_testbed::namespace;

fn main() -> ExitCode {
    let asked = |option: &str| std::env::args().any(|argument| argument == option);
    match run(asked("--real"), asked("--keep")) {
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

/// A person who looks around does so with kubectl and etcdctl, which come with the real servers.
fn run(real: bool, keep: bool) -> Result<bool> {
    let real = real || keep;
    if real {
        namespace::enter(&[])?
    } else {
        namespace::enter_with(&ground::PARTS)?
    }
    tokio::runtime::Runtime::new()?.block_on(async {
        tokio::select! {
            told = story::tell(real, keep) => told,
            // This is the first process of its PID namespace: without a handler Ctrl-C would do nothing.
            _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted"),
        }
    })
}
