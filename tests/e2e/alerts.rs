//! Each alert is provoked by the fault that it is for, and fires alone: real scrapes of a real Twinspan, judged by Prometheus' own rule
//! engine. Only the waiting is left out: every scrape counts as taken half a minute after the one before.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kube::api::DeleteParams;
use libtest_mimic::Trial;
use serde_json::json;
use tokio::net::TcpListener;
use twinspan_bed::prometheus::{Alert, Scrape, alerts};
use twinspan_bed::{Bed, Twinspan, TwinspanOptions, eventually, next_v4, repository};

use crate::harness::{Corner, SOON, Suite, TWINSPAN};

pub fn stories(suite: &Arc<Suite>) -> Vec<Trial> {
    vec![
        suite.story("alerts::each_fires_for_its_fault", fire),
        Trial::test("alerts::each_has_a_story_and_a_runbook", || Ok(documented()?)),
    ]
}

/// Between two scrapes, as Prometheus takes them.
const STEP: Duration = Duration::from_secs(30);
/// Longer than the longest `for`, which is 15 minutes.
const LONG: usize = 33;
/// What [`fire`] provokes, in its order.
const PROVOKED: [&str; 8] = [
    "TwinspanRecordsRefused",
    "TwinspanServicesRejected",
    "TwinspanRegistryNotReady",
    "TwinspanServicesFailing",
    "TwinspanDeletionsHeld",
    "TwinspanInstancesLost",
    "TwinspanSlow",
    "TwinspanNoLeader",
];

fn rules() -> PathBuf {
    repository().join("charts/twinspan/files/alerts.yaml")
}

/// Twinspan and everything that was ever scraped of it.
struct Watched<'a> {
    bed: &'a Bed,
    twinspan: &'a Twinspan,
    healthy: Vec<Scrape>,
}

impl Watched<'_> {
    async fn scrape(&self, times: usize) -> Result<Vec<Scrape>> {
        let mut scrapes = Vec::new();
        for _ in 0..times {
            // One that is not there answers nothing.
            let page = self.twinspan.get("/metrics").await.ok();
            scrapes.push(page.map(|(_, text)| ("twinspan-0".to_owned(), text)).into_iter().collect());
        }
        Ok(scrapes)
    }

    async fn metric_becomes(&self, line: &str, wanted: impl Fn(f64) -> bool) -> Result<()> {
        eventually(line, SOON * 2, || async {
            let value = self.twinspan.metric(line).await?.unwrap_or_default();
            ensure!(wanted(value), "it is {value}");
            Ok(())
        })
        .await
    }

    /// The alert fires, and no other, after what was healthy was followed by what is now.
    async fn fires(&self, name: &str) -> Result<Alert> {
        self.fires_after(name, LONG).await
    }

    async fn fires_after(&self, name: &str, scrapes: usize) -> Result<Alert> {
        let scrapes = [&self.healthy[..], &self.scrape(scrapes).await?].concat();
        let firing: Vec<Alert> =
            alerts(&rules(), STEP, &scrapes).await?.into_iter().filter(|alert| alert.state == "firing").collect();
        ensure!(firing.len() == 1 && firing[0].name == name, "{name} alone was expected: {firing:#?}");
        firing.into_iter().next().context("one")
    }

    /// Its ServiceRegistry says that it is ready, which it says at most every 5 s.
    async fn ready(&self, corner: &Corner<'_>) -> Result<()> {
        self.metric_becomes(&format!("twinspan_registry_ready{{registry=\"{}\"}}", corner.name), |n| n == 1.0).await
    }

    /// Its registry ends with the story's part, and is not missed.
    async fn forgets(&self, corner: &Corner<'_>) -> Result<()> {
        corner.registries().delete(&corner.name, &DeleteParams::default()).await?;
        let line = format!("twinspan_registry_ready{{registry=\"{}\"}}", corner.name);
        eventually("its series are gone", SOON * 2, || async {
            ensure!(self.twinspan.metric(&line).await?.is_none());
            Ok(())
        })
        .await
    }

    async fn corner(&self, name: &str) -> Result<Corner<'_>> {
        let corner = Corner::new(self.bed, name).await?;
        self.ready(&corner).await?;
        corner.selector_service("echo", 80).await?;
        Ok(corner)
    }
}

fn value(address: SocketAddr) -> String {
    json!({"network": "tcp", "address": address.to_string(), "weight": 10, "tags": null}).to_string()
}

async fn fire(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.own_bed().await?;
    let twinspan = &bed.start_twinspan(TWINSPAN, &TwinspanOptions::default())?;
    twinspan.ready().await?;
    let mut watched = Watched { bed, twinspan, healthy: Vec::new() };

    let corner = watched.corner("well").await?;
    corner.register("echo", json!({})).await?;
    let pod = corner.pod("echo", "pod", 80).await?;
    corner.pods.set_ready("pod", true).await?;
    let vm = corner.vm("echo", (next_v4(), 9000).into(), None).await?;
    corner.imports_become("echo", &[vm.address()]).await?;
    corner.records_become(&bed.registry, "echo", &[pod.address(), vm.address()]).await?;
    watched.metric_becomes("twinspan_services{state=\"synced\"}", |n| n == 1.0).await?;
    watched.ready(&corner).await?;
    let healthy = watched.scrape(LONG).await?;
    let quiet = alerts(&rules(), STEP, &healthy).await?;
    ensure!(quiet.is_empty(), "an alert where all is well, pending or not: {quiet:#?}");
    watched.healthy = healthy[LONG - 3..].to_vec();

    refused(&watched).await?;
    rejected(&watched).await?;
    not_ready(&watched).await?;
    failing(&watched).await?;
    held(&watched).await?;
    lost(&watched).await?;
    slow(&mut watched).await?;
    twinspan.part().stop().await?;
    watched.fires("TwinspanNoLeader").await?;
    Ok(())
}

async fn refused(watched: &Watched<'_>) -> Result<()> {
    let corner = watched.corner("refused").await?;
    corner.register("echo", json!({})).await?;
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 9000));
    watched.bed.registry.put(&corner.key("echo", nowhere), &value(nowhere)).await?;
    let line = "twinspan_skipped_instances{reason=\"LoopbackAddress\"}";
    watched.metric_becomes(line, |n| n == 1.0).await?;
    let alert = watched.fires("TwinspanRecordsRefused").await?;
    ensure!(alert.labels["reason"] == "LoopbackAddress", "{alert:?}");
    watched.bed.registry.delete(&corner.key("echo", nowhere)).await?;
    watched.metric_becomes(line, |n| n == 0.0).await
}

async fn rejected(watched: &Watched<'_>) -> Result<()> {
    let corner = watched.corner("rejected").await?;
    corner.register("echo", json!({"registryRef": {"name": "nobody"}})).await?;
    let line = "twinspan_services{state=\"rejected\"}";
    watched.metric_becomes(line, |n| n == 1.0).await?;
    watched.fires("TwinspanServicesRejected").await?;
    corner.unregister("echo").await?;
    watched.metric_becomes(line, |n| n == 0.0).await
}

async fn not_ready(watched: &Watched<'_>) -> Result<()> {
    let registry = watched.bed.start_registry("registry-killed").await?;
    let corner = Corner::with_registry(watched.bed, "killed", &registry).await?;
    let line = format!("twinspan_registry_ready{{registry=\"{}\"}}", corner.name);
    watched.ready(&corner).await?;
    registry.part().kill().await?;
    watched.metric_becomes(&line, |n| n == 0.0).await?;
    let alert = watched.fires("TwinspanRegistryNotReady").await?;
    ensure!(alert.labels["registry"] == corner.name, "{alert:?}");
    watched.forgets(&corner).await
}

/// etcd refuses every write when its quota is used up, and is read as before.
async fn failing(watched: &Watched<'_>) -> Result<()> {
    let registry = watched.bed.start_registry("registry-full").await?;
    let corner = Corner::with_registry(watched.bed, "full", &registry).await?;
    watched.ready(&corner).await?;
    corner.selector_service("echo", 80).await?;
    corner.register("echo", json!({})).await?;
    let first = corner.pod("echo", "first", 80).await?;
    corner.pods.set_ready("first", true).await?;
    corner.records_become(&registry, "echo", &[first.address()]).await?;
    registry.no_space(true).await?;
    let second = corner.pod("echo", "second", 80).await?;
    corner.pods.set_ready("second", true).await?;
    let line = "twinspan_services{state=\"failed\"}";
    watched.metric_becomes(line, |n| n == 1.0).await?;
    watched.fires("TwinspanServicesFailing").await?;
    registry.no_space(false).await?;
    corner.records_become(&registry, "echo", &[first.address(), second.address()]).await?;
    watched.metric_becomes(line, |n| n == 0.0).await?;
    corner.unregister("echo").await?;
    watched.forgets(&corner).await
}

async fn held(watched: &Watched<'_>) -> Result<()> {
    let registry = &watched.bed.registry;
    let corner = watched.corner("held").await?;
    corner.register("echo", json!({"import": {"onExpiry": "Remove"}})).await?;
    let mut all = Vec::new();
    for _ in 0..12 {
        let address = SocketAddr::from((next_v4(), 9000));
        registry.put_leased(&corner.key("echo", address), &value(address), 600).await?;
        all.push(address);
    }
    corner.imports_become("echo", &all).await?;
    registry.delete_prefix(&corner.key("echo", "")).await?;
    let line = "twinspan_held_deletions";
    watched.metric_becomes(line, |n| n == 12.0).await?;
    watched.fires("TwinspanDeletionsHeld").await?;
    corner.unregister("echo").await?;
    watched.metric_becomes(line, |n| n == 0.0).await
}

async fn lost(watched: &Watched<'_>) -> Result<()> {
    let registry = &watched.bed.registry;
    let corner = watched.corner("lost").await?;
    corner.register("echo", json!({"import": {"keepLostSeconds": 3600}})).await?;
    let stays = SocketAddr::from((next_v4(), 9000));
    registry.put_leased(&corner.key("echo", stays), &value(stays), 600).await?;
    let lives = SocketAddr::from((next_v4(), 9000));
    let _listener = TcpListener::bind(lives).await?;
    let lease = registry.put_leased(&corner.key("echo", lives), &value(lives), 600).await?;
    corner.imports_become("echo", &[stays, lives]).await?;
    registry.revoke(lease).await?;
    let line = "twinspan_lost_instances";
    watched.metric_becomes(line, |n| n == 1.0).await?;
    watched.fires("TwinspanInstancesLost").await?;
    corner.unregister("echo").await?;
    watched.metric_becomes(line, |n| n == 0.0).await
}

/// A registry that stands still while a pod becomes ready.
async fn slow(watched: &mut Watched<'_>) -> Result<()> {
    let registry = watched.bed.start_registry("registry-slow").await?;
    let corner = Corner::with_registry(watched.bed, "slow", &registry).await?;
    corner.selector_service("echo", 80).await?;
    corner.register("echo", json!({})).await?;
    let first = corner.pod("echo", "first", 80).await?;
    corner.pods.set_ready("first", true).await?;
    corner.records_become(&registry, "echo", &[first.address()]).await?;
    let second = corner.pod("echo", "second", 80).await?;
    watched.healthy = watched.scrape(3).await?;
    registry.part().freeze()?;
    corner.pods.set_ready("second", true).await?;
    // The fault itself: this long nothing reaches the registry.
    tokio::time::sleep(Duration::from_secs(12)).await;
    registry.part().thaw()?;
    corner.records_become(&registry, "echo", &[first.address(), second.address()]).await?;
    watched.ready(&corner).await?;
    let alert = watched.fires_after("TwinspanSlow", 26).await?;
    ensure!(alert.labels["direction"] == "export", "{alert:?}");
    Ok(())
}

/// Every alert of the file is provoked here and has its section in the runbook, and no more.
fn documented() -> Result<()> {
    let text = std::fs::read_to_string(rules())?;
    let named: BTreeSet<&str> = text.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    ensure!(named == PROVOKED.into_iter().collect(), "{named:?} are alerts, {PROVOKED:?} are provoked");
    let runbook = std::fs::read_to_string(repository().join("docs/operations.md"))?;
    let sections: BTreeSet<&str> = runbook
        .lines()
        .filter_map(|line| line.strip_prefix("### "))
        .filter(|name| name.starts_with("Twinspan"))
        .collect();
    ensure!(named == sections, "{named:?} are alerts, {sections:?} have a section in docs/operations.md");
    for name in named {
        let link = format!("runbook: docs/operations.md#{}", name.to_lowercase());
        ensure!(text.contains(&link), "{name} does not lead to its section");
    }
    // A series that nobody has is a panel, or an alert, that stays silent.
    let dashboard = std::fs::read_to_string(repository().join("charts/twinspan/files/dashboard.json"))?;
    for word in [&text, &dashboard].into_iter().flat_map(|text| text.split(|c: char| !c.is_alphanumeric() && c != '_'))
    {
        let name = word.strip_suffix("_bucket").unwrap_or(word);
        ensure!(!name.starts_with("twinspan_") || runbook.contains(&format!("| `{name}")), "nobody has {word}");
    }
    Ok(())
}
