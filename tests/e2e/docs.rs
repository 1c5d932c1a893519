//! The documents: every command and every object in them works, in English and in Chinese. They run in the order in
//! which a reader meets them, as an administrator of a cluster with a registry and a running operator.
//!
//! The sentence before an exception says so ("needs the internet", "needs Flux"), and there are few. Refuses to compare
//! the words of two languages, which `tests/architecture/translations.rs` does.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use tokio::process::Command;
use twinspan_testbed::{Bed, TwinspanOptions, eventually, namespace, repository};

use crate::harness::{SOON, Suite, TWINSPAN, stories};

stories![every_command_and_every_object, the_same_in_chinese, the_quick_start_names_what_it_runs];

/// The folders of the documents.
const ENGLISH: &str = "docs";
const CHINESE: &str = "docs/zh";
/// This document of a folder first, the rest by name: the others refer to what the quick start creates.
const FIRST: &str = "quick-start.md";
/// The section of [`FIRST`] that removes everything again: it runs last.
const LAST: [&str; 2] = ["## Remove it", "## 卸载"];
/// Another story applies the examples of this document, to a cluster without these objects.
const REFERENCE: &str = "api.md";
/// A sentence with one of these exempts the block after it.
const EXEMPT: [&str; 6] =
    ["needs the internet", "needs nodes", "needs Argo CD", "needs Flux", "需要访问互联网", "需要节点"];
/// A sentence with one of these lets a less privileged user run the block after it.
const OWNERS: [&str; 2] = ["needs no more than the role `edit`", "只需要 `edit` 角色"];
/// The user to whom the quick start gives this role.
const OWNER: &str = "alice@example.com";

/// Exit codes that report a finding and not a failure, with the commands that document them; a shell pattern.
const ANSWERS: &str = "2:plan|3:status|3:parity|3:explain|3:doctor";

/// A fenced block.
#[derive(Debug)]
struct Block {
    /// File and line, for the error message.
    place: String,
    language: String,
    text: String,
    exempt: bool,
    owners: bool,
    last: bool,
}

fn documents(folder: &str) -> Result<Vec<PathBuf>> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(repository().join(folder))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "md") {
            all.push(path);
        }
    }
    all.sort_by_key(|path| (!path.ends_with(FIRST), path.clone()));
    Ok(all)
}

fn blocks(path: &Path) -> Result<Vec<Block>> {
    let name = path.strip_prefix(repository())?.display().to_string();
    let text = std::fs::read_to_string(path)?;
    let mut blocks: Vec<Block> = Vec::new();
    let mut open: Option<Block> = None;
    let (mut paragraph, mut last, mut indent) = (String::new(), false, "");
    for (number, line) in text.lines().enumerate() {
        let bare = line.trim_start();
        match (&mut open, bare.strip_prefix("```")) {
            (None, Some(language)) => {
                // The blocks of a list are indented as a whole.
                indent = &line[..line.len() - bare.len()];
                open = Some(Block {
                    place: format!("{name}:{}", number + 1),
                    language: language.to_owned(),
                    text: String::new(),
                    exempt: EXEMPT.iter().any(|words| paragraph.contains(words)),
                    owners: OWNERS.iter().any(|words| paragraph.contains(words)),
                    last: last && path.ends_with(FIRST),
                });
            }
            (Some(_), Some(_)) => {
                blocks.extend(open.take());
                paragraph.clear();
            }
            (Some(block), None) => {
                block.text.push_str(line.strip_prefix(indent).unwrap_or(line));
                block.text.push('\n');
            }
            (None, None) => {
                if bare.is_empty() && !paragraph.ends_with("\n") {
                    // One empty line separates a paragraph from its block.
                    paragraph.push('\n');
                } else if bare.is_empty() || paragraph.ends_with('\n') {
                    paragraph.clear();
                } else if !paragraph.is_empty() {
                    // The words of a sentence may be on two lines.
                    paragraph.push(' ');
                }
                paragraph.push_str(bare);
                if line.starts_with("## ") {
                    last = LAST.contains(&line);
                }
            }
        }
    }
    ensure!(open.is_none(), "{name}: a block does not end");
    Ok(blocks)
}

/// A directory with `kubectl`, `etcdctl`, `helm` and `twinspan`.
fn tools(dir: &Path) -> Result<()> {
    std::fs::create_dir_all(dir)?;
    let parts = namespace::binary("controlplane")?;
    let helm = namespace::binary("helm")?;
    for (name, script) in [
        ("kubectl", format!("exec {parts} kubectl \"$@\"")),
        ("etcdctl", format!("exec {parts} etcdctl \"$@\"")),
        ("helm", format!("exec {helm} \"$@\"")),
        // These exit codes report a change or a difference. Every other code is a failure.
        ("twinspan", format!("{TWINSPAN} \"$@\" || case $?:$1 in {ANSWERS}) ;; *) exit 1 ;; esac")),
    ] {
        let path = dir.join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n"))?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}

struct Reader {
    path: String,
    environment: BTreeMap<String, String>,
}

impl Reader {
    fn of(bed: &Bed, dir: &Path) -> Result<Self> {
        tools(dir)?;
        let mut environment = bed.environment();
        environment.insert("TWINSPAN_DNS".to_owned(), bed.dns.address().to_string());
        environment.insert("ETCD".to_owned(), bed.registry.endpoint().trim_start_matches("http://").to_owned());
        // Each block has a shell of its own, and the quick start exports this in an earlier one.
        environment.insert("VM".to_owned(), "192.0.2.4:8888".to_owned());
        let path = format!("{}:{}", dir.display(), std::env::var("PATH").unwrap_or_default());
        Ok(Self { path, environment })
    }

    /// A reader with the same files as another user, whose rights were granted by name.
    fn posing_as(&self, bed: &Bed, user: &str) -> Result<Self> {
        let mut kubeconfig: serde_yaml::Value =
            serde_yaml::from_str(&std::fs::read_to_string(&bed.cluster.admin.path)?)?;
        kubeconfig["users"][0]["user"]["as"] = user.into();
        let path = bed.dir().join(format!("as-{user}.kubeconfig"));
        std::fs::write(&path, serde_yaml::to_string(&kubeconfig)?)?;
        let mut environment = self.environment.clone();
        environment.insert("KUBECONFIG".to_owned(), path.display().to_string());
        Ok(Self { path: self.path.clone(), environment })
    }

    async fn runs(&self, block: &Block) -> Result<()> {
        let script = match block.language.as_str() {
            "sh" => block.text.clone(),
            "yaml" => format!("kubectl apply --dry-run=server -f - <<'EOF'\n{}EOF\n", block.text),
            _ => return Ok(()),
        };
        self.bash(&script).await.with_context(|| block.place.clone())
    }

    async fn bash(&self, script: &str) -> Result<()> {
        let output = Command::new("bash")
            .args(["-euo", "pipefail", "-c", script])
            .env("PATH", &self.path)
            .envs(&self.environment)
            .current_dir(repository())
            .output()
            .await?;
        ensure!(
            output.status.success(),
            "{}\n{script}\n{}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(())
    }
}

/// The owner of the namespace can run the block with the built-in role `edit`, as an administrator who acts as this
/// user (`--as`); a user with `view` can only read.
async fn owners(bed: &Bed, administrator: &Reader, block: &Block) -> Result<()> {
    let reading = "bob@example.com";
    administrator
        .bash(&format!("kubectl create rolebinding reader -n shop --clusterrole=view --user={reading}"))
        .await?;
    let (viewer, owner) = (administrator.posing_as(bed, reading)?, administrator.posing_as(bed, OWNER)?);
    for (who, verb) in [(&viewer, "list"), (&owner, "create")] {
        let may = format!("kubectl auth can-i {verb} registeredservices.twinspan.dev -n shop");
        eventually("the roles are in force", SOON, || who.bash(&may)).await?;
    }
    let text = &block.text;
    ensure!(text.contains(&format!("--as {OWNER}")), "{}: nothing is done as the owner", block.place);
    let refused = administrator.bash(&text.replace(OWNER, reading)).await;
    let refused = refused.err().context("a reader of the namespace may write")?;
    let denied = "cannot create resource \"registeredservices\" in API group \"twinspan.dev\"";
    ensure!(format!("{refused:#}").contains(denied), "{refused:#}");
    administrator.runs(block).await?;
    viewer.bash("kubectl get registeredservice user -n shop").await?;
    ensure!(
        owner.bash("kubectl get serviceregistries").await.is_err(),
        "a role in a namespace shows what belongs to none"
    );
    Ok(())
}

async fn every_command_and_every_object(suite: Arc<Suite>) -> Result<()> {
    every_block_of(&suite, ENGLISH).await
}

/// The Chinese documents run as the English ones do, and leave out no block that these run.
async fn the_same_in_chinese(suite: Arc<Suite>) -> Result<()> {
    let [english, chinese] = [ENGLISH, CHINESE].map(|folder| blocks(&repository().join(folder).join(FIRST)));
    let (english, chinese) = (english?, chinese?);
    ensure!(english.len() == chinese.len(), "{} blocks in English, {} in Chinese", english.len(), chinese.len());
    for (ours, theirs) in english.iter().zip(&chinese) {
        let [wanted, found] = [ours, theirs].map(|block| (block.exempt, block.owners, block.last));
        ensure!(
            wanted == found && ours.text == theirs.text,
            "{} and {} run differently: exempt, owner's, last are {wanted:?} and {found:?}; see EXEMPT and OWNERS",
            ours.place,
            theirs.place
        );
    }
    every_block_of(&suite, CHINESE).await
}

async fn every_block_of(suite: &Suite, folder: &str) -> Result<()> {
    let mut all = Vec::new();
    for path in documents(folder)?.into_iter().filter(|path| !path.ends_with(REFERENCE)) {
        all.extend(blocks(&path)?.into_iter().filter(|block| matches!(block.language.as_str(), "sh" | "yaml")));
    }
    let (last, first): (Vec<Block>, Vec<Block>) = all.into_iter().filter(|b| !b.exempt).partition(|b| b.last);
    ensure!(first.len() >= 13 && last.len() == 1, "{} and {} blocks were found", first.len(), last.len());

    let bed = &suite.own_bed().await?;
    let twinspan = bed.start_twinspan(TWINSPAN, &TwinspanOptions::default())?;
    twinspan.ready().await?;
    let reader = Reader::of(bed, &bed.dir().join("tools"))?;
    ensure!(first.iter().filter(|block| block.owners).count() == 1, "one block is the owner's");
    for block in first.iter().chain(&last) {
        if block.owners { owners(bed, &reader, block).await? } else { reader.runs(block).await? }
    }
    ensure!(bed.registry.dump("kitex/registry-etcd/").await?.is_empty(), "records are left");
    Ok(())
}

async fn the_quick_start_names_what_it_runs(_: Arc<Suite>) -> Result<()> {
    [ENGLISH, CHINESE].into_iter().try_for_each(names_what_it_runs)
}

/// The text before the quick start's first block names every program of its blocks, also of the exempt ones.
fn names_what_it_runs(folder: &str) -> Result<()> {
    let path = repository().join(folder).join(FIRST);
    let text = std::fs::read_to_string(&path)?;
    let (head, _) = text.split_once("```").context("no block")?;
    let mut programs = BTreeSet::new();
    for block in blocks(&path)?.into_iter().filter(|block| block.language == "sh") {
        // Here-documents are skipped, and continued lines are joined.
        let mut fed = false;
        for line in block.text.replace("\\\n", " ").lines() {
            if !fed {
                programs.extend(line.split(" | ").filter_map(|part| part.split_whitespace().next()).map(str::to_owned));
            }
            fed = line.ends_with("<<EOF") || (fed && line != "EOF");
        }
    }
    // Every machine has it.
    ensure!(programs.remove("sed") && programs.len() >= 8, "{programs:?}");
    for program in programs {
        ensure!(head.contains(&format!("`{program}`")), "nothing says that {program} is needed");
    }
    Ok(())
}
