//! The story of a release: built, pushed into a real registry, verified by cosign's own code, and installed from
//! there on a real node, whose containerd pulls the image. The story takes root and minutes, so it runs with
//! `--ignored` (`make release-check`, and with one architecture `make test-node`).

// A test prints what went wrong, and panics if it cannot go on.
#![allow(clippy::print_stderr, clippy::print_stdout)]

mod built;
mod installed;
mod pushed;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Result;
use libtest_mimic::{Arguments, Failed, Trial};
use tokio::runtime::Runtime;
use twinspan_node::enclosure::{self, Enclosure, Place};
use twinspan_node::{Images, Node, Source};
use twinspan_testbed::repository;

fn main() -> ExitCode {
    match run() {
        Ok(ended) => ended,
        Err(error) => {
            eprintln!("release: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<ExitCode> {
    let arguments = Arguments::from_args();
    let wanted = (arguments.ignored || arguments.include_ignored) && !arguments.list;
    let enter = || enclosure::enter_with(&["cosign", "registry"], built::prepare);
    let enclosure = match wanted.then(enter).transpose()? {
        Some(Place::Outside(ended)) => return Ok(ended),
        Some(Place::Inside(enclosure)) => Some(Arc::new(enclosure)),
        None => None,
    };
    let story = Trial::test("release::from_a_registry_to_a_node", move || {
        let enclosure = enclosure.clone().ok_or("not inside")?;
        let runtime = Runtime::new().map_err(|error| Failed::from(error.to_string()))?;
        runtime.block_on(tell(&enclosure)).map_err(|error| Failed::from(format!("{error:#}")))
    });
    Ok(libtest_mimic::run(&arguments, vec![story.with_ignored_flag(true)]).exit_code())
}

async fn tell(enclosure: &Enclosure) -> Result<()> {
    let images = Images::start(&enclosure.dir).await?;
    pushed::what_was_promised_is_there().await?;
    pushed::a_version_is_released_once(&enclosure.dir).await?;
    pushed::cosign_verifies(&enclosure.dir).await?;
    let node = Node::start_with(enclosure, Source::Registry).await?;
    installed::without_values(&node, &images).await?;
    node.check_running()
}

/// The release that is looked at.
fn directory() -> Result<PathBuf> {
    Ok(repository().canonicalize()?.join("target/release-check"))
}
