//! Builds a release: asks for whatever this machine may lack, compiles, and leaves the rest to `assemble`. Owns the
//! rule that a release is made of one commit, before and after. Refuses to know registries.

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use twinspan_image::binary::{self, Source};
use twinspan_image::{repository, twinspan};

use crate::assemble::{assemble, replaceable};
use crate::promise::Promise;
use crate::signature::Key;
use crate::{VERSION, names};

/// Each would change a release without a trace in its commit.
const VARIABLES: [&str; 3] = ["TWINSPAN_REVISION", "SOURCE_DATE_EPOCH", binary::PROFILE];
/// In the repository, the public key of its releases.
const ANCHOR: &str = "cosign.pub";

/// The input of a release besides the commit.
#[derive(Debug)]
pub struct Options {
    /// Where it will be, as `host/path`.
    pub registry: String,
    /// In the words of container tools, at least one and each once.
    pub architectures: Vec<String>,
    /// Without a key nothing is signed.
    pub key: Option<Key>,
    /// Where the archives will be, as `https://…`; without it there is no manifest for krew.
    pub url: Option<String>,
    /// For the result; an earlier release there is removed.
    pub directory: PathBuf,
    /// Whether it is none that anybody installs: files may differ from the commit, variables may name a revision and a
    /// quick profile, and the key may be another one than the repository's.
    pub rehearsal: bool,
}

/// Fails, and says why, if this machine or this commit cannot give the release. Nothing of it is compiled.
pub fn prepare(options: &Options) -> Result<Source> {
    let targets = targets(&options.architectures)?;
    replaceable(&options.directory)?;
    let source = if options.rehearsal { Source::find()? } else { of_commit()? };
    if !options.rehearsal {
        let anchor = std::fs::read_to_string(repository().join(ANCHOR)).ok();
        anchored(options.key.as_ref(), anchor.as_deref())?;
    }
    for (architecture, target) in options.architectures.iter().zip(targets) {
        binary::prepare(target).with_context(|| {
            format!("nothing is released without {architecture}, unless ARCHES= names the others alone")
        })?;
    }
    Ok(source)
}

/// Builds the release.
pub fn build(options: &Options) -> Result<Promise> {
    let source = prepare(options)?;
    let name = format!("{}:{VERSION}", names::image(&options.registry));
    let built = targets(&options.architectures)?
        .into_iter()
        .map(|target| twinspan::build(&name, target, &source))
        .collect::<Result<Vec<_>>>()?;
    let promise = assemble(options, &source, &built)?;
    if !options.rehearsal {
        same_commit(&source, &of_commit()?)?;
    }
    promise.write(&options.directory)?;
    Ok(promise)
}

fn targets(architectures: &[String]) -> Result<Vec<&'static str>> {
    ensure!(!architectures.is_empty(), "no architecture is asked for");
    let once: BTreeSet<&String> = architectures.iter().collect();
    ensure!(once.len() == architectures.len(), "ARCHES= names an architecture twice: {}", architectures.join(" "));
    architectures.iter().map(|architecture| binary::target_of(architecture)).collect()
}

fn of_commit() -> Result<Source> {
    let set: Vec<&str> = VARIABLES.into_iter().filter(|name| std::env::var_os(name).is_some()).collect();
    ensure!(set.is_empty(), "{} would change the release without a trace; unset it", set.join(", "));
    let source = Source::of_commit(repository())?;
    if source.revision.ends_with("-dirty") {
        let files = binary::output("git", &["status", "--short"])?;
        bail!("a release is made of a commit, and these files differ from it:\n{files}");
    }
    Ok(source)
}

fn same_commit(before: &Source, after: &Source) -> Result<()> {
    let (before, after) = (&before.revision, &after.revision);
    ensure!(before == after, "the commit was {before} when the build began, and is {after} now; build it again");
    Ok(())
}

/// A person with an earlier release verifies the next one with the key that they have.
fn anchored(key: Option<&Key>, anchor: Option<&str>) -> Result<()> {
    let (Some(key), Some(anchor)) = (key, anchor) else { return Ok(()) };
    ensure!(key.public()?.trim() == anchor.trim(), "the key is not that of {ANCHOR} in the repository");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signature::tests::{PASSWORD, PRIVATE, PUBLIC};

    fn asked(architectures: &[&str]) -> Result<Vec<&'static str>> {
        targets(&architectures.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn an_architecture_is_asked_for_once() {
        assert_eq!(asked(&["amd64", "arm64"]).unwrap().len(), 2);
        for wrong in [&["amd64", "amd64"][..], &["s390x"], &[]] {
            assert!(asked(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn another_key_than_that_of_the_repository_is_refused() {
        let key = Key::open(PRIVATE, PASSWORD).unwrap();
        anchored(Some(&key), None).unwrap();
        anchored(Some(&key), Some(PUBLIC)).unwrap();
        let error = anchored(Some(&key), Some("-----BEGIN PUBLIC KEY-----")).unwrap_err();
        assert!(error.to_string().contains("cosign.pub"), "{error}");
    }

    #[test]
    fn a_commit_that_changed_during_the_build_is_noticed() {
        let at = |revision: &str| Source { revision: revision.to_owned(), created: 0 };
        same_commit(&at("a"), &at("a")).unwrap();
        assert!(same_commit(&at("a"), &at("b")).is_err());
    }
}
