//! Alerts: the fault of each alert makes that alert fire, and no other: real scrapes of a real Twinspan, judged by
//! Prometheus' own rule engine. Only the waiting is left out: every scrape counts as taken half a minute after the one
//! before.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::ResourceQuota;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::json;
use tokio::net::TcpListener;
use twinspan_testbed::prometheus::{Alert, Scrape, alerts};
use twinspan_testbed::{Bed, Twinspan, TwinspanOptions, eventually, next_v4, repository};

use crate::harness::{SOON, Sandbox, Suite, TWINSPAN, record, stories};

stories![each_fires_for_its_fault, each_has_a_story_and_a_runbook];

/// The interval between two scrapes.
const STEP: Duration = Duration::from_secs(30);
/// Longer than the longest `for`, which is 15 minutes.
const LONG: usize = 33;
/// The alerts that [`each_fires_for_its_fault`] provokes, in its order.
const PROVOKED: [&str; 9] = [
    "TwinspanWatchSilent",
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

/// Two replicas of Twinspan, the default number, and their scrapes while everything was healthy.
struct Watched<'a> {
    bed: &'a Bed,
    replicas: [&'a Twinspan; 2],
    healthy: Vec<Scrape>,
}

impl Watched<'_> {
    async fn scrape(&self, times: usize) -> Result<Vec<Scrape>> {
        let mut scrapes = Vec::new();
        for _ in 0..times {
            let mut scrape = Scrape::new();
            for (number, replica) in self.replicas.iter().enumerate() {
                // A replica that does not run gives no scrape.
                let page = replica.get("/metrics").await.ok();
                scrape.extend(page.map(|(_, text)| (format!("twinspan-{number}"), text)));
            }
            scrapes.push(scrape);
        }
        Ok(scrapes)
    }

    /// The value of each replica; an absent series is 0.
    async fn shown(&self, line: &str) -> Result<Vec<f64>> {
        let mut shown = Vec::new();
        for replica in self.replicas {
            shown.push(replica.metric(line).await?.unwrap_or_default());
        }
        Ok(shown)
    }

    /// Waits until one replica shows the value: one is enough for a fault.
    async fn one_shows(&self, line: &str, wanted: f64) -> Result<()> {
        eventually(line, SOON * 2, || async {
            let shown = self.shown(line).await?;
            ensure!(shown.contains(&wanted), "they show {shown:?}, {wanted} is wanted");
            Ok(())
        })
        .await
    }

    /// Waits until all replicas show the value, as in a healthy release.
    async fn all_show(&self, line: &str, wanted: f64) -> Result<()> {
        eventually(line, SOON * 2, || async {
            let shown = self.shown(line).await?;
            ensure!(shown.iter().all(|value| *value == wanted), "they show {shown:?}, {wanted} is wanted");
            Ok(())
        })
        .await
    }

    /// The alert fires, and no other, if the current scrapes follow healthy ones.
    async fn fires(&self, name: &str) -> Result<Alert> {
        fires(name, &[&self.healthy[..], &self.scrape(LONG).await?].concat()).await
    }

    /// Waits for Ready of the ServiceRegistry, which status shows at most every 5 s.
    async fn ready(&self, sandbox: &Sandbox<'_>) -> Result<()> {
        self.all_show(&format!("twinspan_registry_ready{{registry=\"{}\"}}", sandbox.name), 1.0).await
    }

    /// Deletes the ServiceRegistry, whose etcd ends with this part of the story.
    async fn forgets(&self, sandbox: &Sandbox<'_>) -> Result<()> {
        sandbox.registries().delete(&sandbox.name, &DeleteParams::default()).await?;
        let line = format!("twinspan_registry_ready{{registry=\"{}\"}}", sandbox.name);
        eventually("its series are gone", SOON * 2, || async {
            for replica in self.replicas {
                ensure!(replica.metric(&line).await?.is_none());
            }
            Ok(())
        })
        .await
    }

    async fn sandbox(&self, name: &str) -> Result<Sandbox<'_>> {
        let sandbox = Sandbox::new(self.bed, name).await?;
        self.ready(&sandbox).await?;
        sandbox.selector_service("echo", 80).await?;
        Ok(sandbox)
    }
}

async fn firing(scrapes: &[Scrape]) -> Result<Vec<Alert>> {
    Ok(alerts(&rules(), STEP, scrapes).await?.into_iter().filter(|alert| alert.state == "firing").collect())
}

/// The alert fires after these scrapes, and no other.
async fn fires(name: &str, scrapes: &[Scrape]) -> Result<Alert> {
    let firing = firing(scrapes).await?;
    ensure!(firing.len() == 1 && firing[0].name == name, "{name} alone was expected: {firing:#?}");
    firing.into_iter().next().context("one")
}

async fn none_fires(scrapes: &[Scrape]) -> Result<()> {
    let firing = firing(scrapes).await?;
    ensure!(firing.is_empty(), "none was expected: {firing:#?}");
    Ok(())
}

async fn each_fires_for_its_fault(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.own_bed().await?;
    let leader = &bed.start_twinspan(TWINSPAN, &TwinspanOptions::default())?;
    eventually("it leads", SOON * 3, || async {
        ensure!(leader.metric("twinspan_leader").await? == Some(1.0));
        Ok(())
    })
    .await?;
    let standby = &bed.start_twinspan(TWINSPAN, &TwinspanOptions::default())?;
    standby.ready().await?;
    let mut watched = Watched { bed, replicas: [leader, standby], healthy: Vec::new() };

    let sandbox = watched.sandbox("well").await?;
    sandbox.register("echo", json!({})).await?;
    let pod = sandbox.pod("echo", "pod", 80).await?;
    sandbox.pods.set_ready("pod", true).await?;
    let vm = sandbox.vm("echo", (next_v4(), 9000).into(), None).await?;
    sandbox.imports_become("echo", &[vm.address()]).await?;
    sandbox.records_become("echo", &[pod.address(), vm.address()]).await?;
    watched.one_shows("twinspan_services{state=\"synced\"}", 1.0).await?;
    watched.ready(&sandbox).await?;
    let healthy = watched.scrape(LONG).await?;
    let quiet = alerts(&rules(), STEP, &healthy).await?;
    ensure!(quiet.is_empty(), "an alert where all is well, pending or not: {quiet:#?}");
    watched.healthy = healthy[LONG - 3..].to_vec();

    silent(&watched).await?;
    refused(&watched).await?;
    rejected(&watched).await?;
    not_ready(&watched).await?;
    failing(&watched).await?;
    held(&watched).await?;
    lost(&watched).await?;
    slow(&watched).await?;
    watched.healthy = watched.scrape(3).await?;
    // One replica is enough to lead.
    leader.part().stop().await?;
    eventually("the other leads", SOON * 3, || async {
        ensure!(standby.metric("twinspan_leader").await? == Some(1.0));
        Ok(())
    })
    .await?;
    none_fires(&[&watched.healthy[..], &watched.scrape(LONG).await?].concat()).await?;
    standby.part().stop().await?;
    watched.fires("TwinspanNoLeader").await?;
    Ok(())
}

/// One replica hears nothing more of Pods: its age grows from scrape to scrape.
async fn silent(watched: &Watched<'_>) -> Result<()> {
    let line = "twinspan_watch_age_seconds{kind=\"Pod\"} ";
    eventually("the first replica measures", SOON, || async {
        let (_, page) = watched.replicas[0].get("/metrics").await?;
        ensure!(page.contains(line), "{page}");
        Ok(())
    })
    .await?;
    let mut scrapes = watched.scrape(LONG).await?;
    for (number, scrape) in scrapes.iter_mut().enumerate() {
        let age = STEP.as_secs() * number as u64;
        let page = scrape.values_mut().next().context("a page")?;
        let aged =
            page.lines().map(|known| if known.starts_with(line) { format!("{line}{age}") } else { known.to_owned() });
        *page = aged.collect::<Vec<_>>().join("\n") + "\n";
    }
    let alert = fires("TwinspanWatchSilent", &[&watched.healthy[..], &scrapes].concat()).await?;
    ensure!(alert.labels["severity"] == "warning", "{alert:?}");
    Ok(())
}

async fn refused(watched: &Watched<'_>) -> Result<()> {
    let sandbox = watched.sandbox("refused").await?;
    sandbox.register("echo", json!({})).await?;
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 9000));
    watched.bed.registry.put(&sandbox.key("echo", nowhere), &record(nowhere).to_string()).await?;
    let line = "twinspan_skipped_instances{reason=\"LoopbackAddress\"}";
    watched.one_shows(line, 1.0).await?;
    let alert = watched.fires("TwinspanRecordsRefused").await?;
    ensure!(alert.labels["reason"] == "LoopbackAddress", "{alert:?}");
    watched.bed.registry.delete(&sandbox.key("echo", nowhere)).await?;
    watched.all_show(line, 0.0).await
}

async fn rejected(watched: &Watched<'_>) -> Result<()> {
    let sandbox = watched.sandbox("rejected").await?;
    sandbox.register("echo", json!({"registryRef": {"name": "nobody"}})).await?;
    let line = "twinspan_services{state=\"rejected\"}";
    watched.one_shows(line, 1.0).await?;
    watched.fires("TwinspanServicesRejected").await?;
    sandbox.unregister("echo").await?;
    watched.all_show(line, 0.0).await
}

async fn not_ready(watched: &Watched<'_>) -> Result<()> {
    let registry = watched.bed.start_registry("registry-killed").await?;
    let sandbox = Sandbox::with_registry(watched.bed, "killed", &registry).await?;
    let line = format!("twinspan_registry_ready{{registry=\"{}\"}}", sandbox.name);
    watched.ready(&sandbox).await?;
    registry.part().kill().await?;
    watched.one_shows(&line, 0.0).await?;
    let alert = watched.fires("TwinspanRegistryNotReady").await?;
    ensure!(alert.labels["registry"] == sandbox.name, "{alert:?}");
    watched.forgets(&sandbox).await
}

/// etcd refuses every write when its quota is used up, and can still be read.
/// A quota refuses slices: both sides can be read, and the registry is ready.
async fn failing(watched: &Watched<'_>) -> Result<()> {
    let sandbox = watched.sandbox("full").await?;
    let quotas: Api<ResourceQuota> = Api::namespaced(watched.bed.client(), &sandbox.name);
    let count = "count/endpointslices.discovery.k8s.io";
    let quota: ResourceQuota = serde_json::from_value(json!({
        "metadata": {"name": "small"}, "spec": {"hard": {count: "0"}},
        "status": {"hard": {count: "0"}, "used": {count: "0"}},
    }))?;
    quotas.create(&PostParams::default(), &quota).await?;
    // No controller of the bed counts; admission takes the status.
    quotas.patch_status("small", &PatchParams::default(), &Patch::Merge(json!({"status": quota.status}))).await?;
    sandbox.register("echo", json!({})).await?;
    sandbox.put("echo", SocketAddr::from((next_v4(), 9000))).await?;
    let line = "twinspan_services{state=\"failed\"}";
    watched.one_shows(line, 1.0).await?;
    watched.fires("TwinspanServicesFailing").await?;
    sandbox.unregister("echo").await?;
    watched.all_show(line, 0.0).await?;
    sandbox.registry.delete_prefix(&sandbox.key("echo", "")).await?;
    Ok(())
}

async fn held(watched: &Watched<'_>) -> Result<()> {
    let registry = &watched.bed.registry;
    let sandbox = watched.sandbox("held").await?;
    sandbox.register("echo", json!({"import": {"onExpiry": "Remove"}})).await?;
    let mut all = Vec::new();
    for _ in 0..12 {
        let address = SocketAddr::from((next_v4(), 9000));
        sandbox.put("echo", address).await?;
        all.push(address);
    }
    sandbox.imports_become("echo", &all).await?;
    registry.delete_prefix(&sandbox.key("echo", "")).await?;
    let line = "twinspan_held_deletions";
    watched.one_shows(line, 12.0).await?;
    watched.fires("TwinspanDeletionsHeld").await?;
    sandbox.unregister("echo").await?;
    watched.all_show(line, 0.0).await
}

async fn lost(watched: &Watched<'_>) -> Result<()> {
    let registry = &watched.bed.registry;
    let sandbox = watched.sandbox("lost").await?;
    sandbox.register("echo", json!({"import": {"keepLostSeconds": 3600}})).await?;
    let stays = SocketAddr::from((next_v4(), 9000));
    sandbox.put("echo", stays).await?;
    let lives = SocketAddr::from((next_v4(), 9000));
    let _listener = TcpListener::bind(lives).await?;
    let lease = sandbox.put("echo", lives).await?;
    sandbox.imports_become("echo", &[stays, lives]).await?;
    registry.revoke(lease).await?;
    let line = "twinspan_lost_instances";
    watched.one_shows(line, 1.0).await?;
    // A standby judges nothing, so it holds nothing; it counts what the slices say.
    watched.all_show(line, 1.0).await?;
    watched.all_show("twinspan_held_deletions", 0.0).await?;
    watched.fires("TwinspanInstancesLost").await?;
    sandbox.unregister("echo").await?;
    watched.all_show(line, 0.0).await
}

/// A registry that stalls for a while, as pods become ready.
async fn slow(watched: &Watched<'_>) -> Result<()> {
    let registry = watched.bed.start_registry("registry-slow").await?;
    let sandbox = Sandbox::with_registry(watched.bed, "slow", &registry).await?;
    let services = ["one", "two"];
    // One more pod for each; whether the pods are reachable does not matter.
    let grow = async |number: usize| {
        for service in services {
            let (pod, labels) =
                (format!("{service}-{number}"), BTreeMap::from([("app".to_owned(), service.to_owned())]));
            sandbox.pods.run(&pod, &labels, &[next_v4().into()]).await?;
            sandbox.pods.set_ready(&pod, true).await?;
        }
        anyhow::Ok(())
    };
    let grown = async |number: usize| {
        for service in services {
            eventually("they are registered", SOON, || async {
                let found = sandbox.registered_addresses(service).await?;
                ensure!(found.len() == number, "{found:?}");
                Ok(())
            })
            .await?;
        }
        watched.ready(&sandbox).await
    };
    let stands_still = async |number: usize| {
        registry.part().freeze()?;
        grow(number).await?;
        // The fault itself: for this long nothing reaches the registry.
        tokio::time::sleep(Duration::from_secs(12)).await;
        registry.part().thaw()?;
        grown(number).await
    };
    for service in services {
        sandbox.selector_service(service, 80).await?;
        sandbox.register(service, json!({})).await?;
    }
    grow(1).await?;
    grown(1).await?;

    let mut scrapes = watched.scrape(3).await?;
    stands_still(2).await?;
    // The registry was slow once, and needs no attention now or later.
    for _ in 0..5 {
        scrapes.extend(watched.scrape(6).await?);
        none_fires(&scrapes).await?;
    }
    stands_still(3).await?;
    scrapes.extend(watched.scrape(2).await?);
    let alert = fires("TwinspanSlow", &scrapes).await?;
    ensure!(alert.labels["direction"] == "export", "{alert:?}");
    ensure!(alert.annotations["summary"].starts_with("4 changes took more than 10 s"), "{alert:?}");
    scrapes.extend(watched.scrape(20).await?);
    none_fires(&scrapes).await?;
    for service in services {
        sandbox.unregister(service).await?;
    }
    watched.forgets(&sandbox).await
}

/// This file provokes exactly the alerts of the rules file, and the runbook has a section for each.
async fn each_has_a_story_and_a_runbook(_: Arc<Suite>) -> Result<()> {
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
    // A panel or an alert of a series that does not exist would stay silent.
    let dashboard = std::fs::read_to_string(repository().join("charts/twinspan/files/dashboard.json"))?;
    for word in [&text, &dashboard].into_iter().flat_map(|text| text.split(|c: char| !c.is_alphanumeric() && c != '_'))
    {
        let name = word.strip_suffix("_bucket").or_else(|| word.strip_suffix("_count")).unwrap_or(word);
        ensure!(!name.starts_with("twinspan_") || runbook.contains(&format!("| `{name}")), "nobody has {word}");
    }
    Ok(())
}
