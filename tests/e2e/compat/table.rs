//! The table of `docs/compatibility.md`: one row for each pair of releases that the suite ran with.
//!
//! Owns its form. A row is confirmed, or written with `TWINSPAN_WRITE=1`, by the story that ran with the pair and met
//! these versions.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use twinspan_testbed::{NEWEST, repository};

use super::{EARLIER_API_SERVER, EARLIER_ETCD};
use crate::harness::Suite;

const HEAD: &str = "| Kubernetes | etcd of the registry | ranges of Services |\n|---|---|---|\n";

/// One pair of releases.
#[derive(Debug)]
pub struct Row {
    pub kubernetes: String,
    pub etcd: String,
    pub has_service_cidrs: bool,
}

impl Row {
    /// The pair, without patch releases.
    fn key(&self) -> Result<(String, String)> {
        Ok((minor(&self.kubernetes)?, minor(&self.etcd)?))
    }

    fn line(&self) -> String {
        let ranges =
            if self.has_service_cidrs { "ServiceCIDRs" } else { "the value `serviceCIDRs`, and ClusterIPs in use" };
        let bare = |version: &str| version.trim_start_matches('v').to_owned();
        format!("| {} | {} | {ranges} |", bare(&self.kubernetes), bare(&self.etcd))
    }
}

/// `1.31` of `v1.31.14`.
fn minor(version: &str) -> Result<String> {
    let mut parts = version.trim_start_matches('v').splitn(3, '.');
    let (major, minor) = parts.next().zip(parts.next()).with_context(|| format!("{version:?} is no version"))?;
    Ok(format!("{major}.{minor}"))
}

fn page() -> PathBuf {
    repository().join("docs/compatibility.md")
}

/// Lines of the table, by Kubernetes and etcd.
type Rows = BTreeMap<(String, String), String>;

/// The text before the table, its rows by pair, and the text after it.
fn read() -> Result<(String, Rows, String)> {
    let text = std::fs::read_to_string(page())?;
    let (before, rest) = text.split_once(HEAD).context("docs/compatibility.md has no table")?;
    // A table without rows ends where it begins.
    let end = rest.lines().take_while(|line| line.starts_with('|')).map(|line| line.len() + 1).sum::<usize>();
    let end = end.min(rest.len());
    let mut rows = BTreeMap::new();
    for line in rest[..end].lines() {
        let mut cells = line.split('|').map(str::trim).skip(1);
        let (kubernetes, etcd) = cells.next().zip(cells.next()).with_context(|| format!("{line:?} is no row"))?;
        rows.insert((minor(kubernetes)?, minor(etcd)?), line.to_owned());
    }
    Ok((before.to_owned(), rows, rest[end..].to_owned()))
}

/// The table has this row. With `TWINSPAN_WRITE=1` it gets it.
pub fn confirm(row: &Row) -> Result<()> {
    static PAGE: Mutex<()> = Mutex::new(());
    let _one_at_a_time = PAGE.lock().unwrap_or_else(PoisonError::into_inner);
    let (before, mut rows, after) = read()?;
    if rows.get(&row.key()?) == Some(&row.line()) {
        return Ok(());
    }
    ensure!(
        std::env::var_os("TWINSPAN_WRITE").is_some(),
        "docs/compatibility.md has no row {:?}; `make compat WRITE=1` writes it",
        row.line()
    );
    rows.insert(row.key()?, row.line());
    let rows: String = rows.values().map(|line| format!("{line}\n")).collect();
    std::fs::write(page(), format!("{before}{HEAD}{rows}{after}"))?;
    Ok(())
}

/// The rows name the releases that the parts are built from, each with each, and no others.
pub async fn the_table_has_the_releases_of_the_suite(_: Arc<Suite>) -> Result<()> {
    let kubernetes = |part| Ok::<_, anyhow::Error>((released(part, "k8s.io/kubernetes")?, part == NEWEST));
    let etcd = |part| released(part, "go.etcd.io/etcd/server/v3");
    let mut wanted = BTreeMap::new();
    for (kubernetes, has_service_cidrs) in [kubernetes(EARLIER_API_SERVER)?, kubernetes(NEWEST)?] {
        for etcd in [etcd(EARLIER_ETCD)?, etcd(NEWEST)?] {
            let row = Row { kubernetes: kubernetes.clone(), etcd, has_service_cidrs };
            wanted.insert(row.key()?, row.line());
        }
    }
    let (_, rows, _) = read()?;
    ensure!(rows == wanted, "docs/compatibility.md has {rows:#?}, want {wanted:#?}; run `make compat WRITE=1`");
    Ok(())
}

/// The version of a module that a part is built from.
fn released(part: &str, module: &str) -> Result<String> {
    let path = repository().join(format!("dev/parts/{part}/go.mod"));
    let text = std::fs::read_to_string(&path)?;
    let mut words = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let found = words.find_map(|words| (words.first() == Some(&module)).then(|| words.get(1).map(|it| it.to_string())));
    found.flatten().with_context(|| format!("{} does not name {module}", path.display()))
}
