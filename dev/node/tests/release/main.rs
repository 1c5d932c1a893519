//! The story of a release: built, pushed into a real registry, verified by cosign's own code, and installed from
//! there on a real node, whose containerd pulls the image. The story takes root and minutes, so it runs with
//! `--ignored` (`make release-check`, and with one architecture `make test-node`).

mod built;
mod installed;
mod pushed;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use twinspan_node::enclosure::{self, Enclosure};
use twinspan_node::{Images, Node, Source, story};
use twinspan_testbed::repository;

fn main() -> ExitCode {
    let enter = || enclosure::enter_with(&["cosign", "registry"], built::prepare);
    story::run("release::from_a_registry_to_a_node", enter, |enclosure| async move { tell(&enclosure).await })
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
