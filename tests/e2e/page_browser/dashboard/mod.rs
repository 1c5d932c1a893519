//! The dashboard of the chart with the data of a real run: scrapes of two replicas, while servers come and go and one
//! etcd is away for a moment; Prometheus' own engine answers the queries of each panel.
//!
//! - [`drawing`]: the panels, as a page.
//!
//! Owns the rule that each query has an answer, and the picture in the documents. Grafana is not among the parts, so
//! the picture is our own drawing of its file. Refuses to know how a metric comes about.

mod drawing;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};
use twinspan_testbed::prometheus::{Scrape, Series, ranges};
use twinspan_testbed::{Twinspan, TwinspanOptions, eventually, next_v4, repository};

use self::drawing::Panel;
use super::driver::{Driver, WIDTH};
use super::pictures;
use crate::harness::{SOON, Sandbox, Suite, TWINSPAN, record, stories};

stories![each_panel_shows_data];

/// The interval between two scrapes, in which a counter grows often enough.
const STEP: Duration = Duration::from_secs(5);
/// A minute and a half.
const SCRAPES: usize = 19;
/// The scrapes between which the second etcd is away.
const AWAY: std::ops::Range<usize> = 6..9;
/// Queries without an answer in this run, by panel and letter, and why.
const MAY_BE_EMPTY: [(&str, &str); 4] = [
    // No watch of the API server fails.
    ("Watches that began again", "A"),
    // No ServiceRegistry has spec.discovery.
    ("Discovered RegisteredServices", "A"),
    // No pod has a readiness gate, and none asks as it ends.
    ("Readiness gates", "B"),
    ("Pods that end", "B"),
];

async fn each_panel_shows_data(suite: Arc<Suite>) -> Result<()> {
    let bed = suite.own_bed().await?;
    let options = TwinspanOptions { args: vec!["--audit-interval=5s".to_owned()], ..TwinspanOptions::default() };
    let replicas = [bed.start_twinspan(TWINSPAN, &options)?, bed.start_twinspan(TWINSPAN, &options)?];
    for replica in &replicas {
        replica.ready().await?;
    }
    let elsewhere = bed.start_registry("registry-orders").await?;
    let shop = Sandbox::new(&bed, "shop").await?;
    let orders = Sandbox::with_registry(&bed, "orders", &elsewhere).await?;
    for sandbox in [&shop, &orders] {
        sandbox.selector_service("user", 80).await?;
        sandbox.register("user", json!({})).await?;
        let pod = sandbox.pod("user", "user-a", 80).await?;
        sandbox.pods.set_ready("user-a", true).await?;
        sandbox.records_become("user", &[pod.address()]).await?;
        drop(pod);
    }
    shop.put("user", record("127.0.0.1:8888")).await?;
    shop.register("refund", json!({"service": {"name": "refund"}})).await?;

    let start = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let began = Instant::now();
    let mut scrapes = Vec::new();
    for number in 0..SCRAPES {
        sleep_until(began + STEP * u32::try_from(number)?).await;
        scrapes.push(scrape(&replicas).await?);
        if number == AWAY.start {
            elsewhere.part().kill().await?;
        } else if number == AWAY.end {
            elsewhere.start_again().await?;
        }
        let address = SocketAddr::from((next_v4(), 9000));
        shop.put("user", address).await?;
        if number % 3 == 2 {
            shop.registry.delete(&shop.key("user", address)).await?;
        }
        shop.pods.set_ready("user-a", number % 4 != 3).await?;
    }
    let panels = panels(start, &scrapes).await?;
    draw(&suite, &panels).await?;
    let line = format!("twinspan_registry_ready{{registry=\"{}\"}}", orders.name);
    eventually("the second etcd is used again", SOON * 2, || async {
        ensure!(replicas[0].metric(&line).await? == Some(1.0));
        Ok(())
    })
    .await
}

async fn scrape(replicas: &[Twinspan]) -> Result<Scrape> {
    let mut scrape = Scrape::new();
    for (number, replica) in replicas.iter().enumerate() {
        scrape.insert(format!("twinspan-{number}"), replica.get("/metrics").await?.1);
    }
    Ok(scrape)
}

/// Each panel with the answers to its queries. Fails where one has no answer.
async fn panels(start: u64, scrapes: &[Scrape]) -> Result<Vec<Panel>> {
    let file = repository().join("charts/twinspan/files/dashboard.json");
    let dashboard: Value = serde_json::from_str(&std::fs::read_to_string(file)?)?;
    let all = dashboard["panels"].as_array().context("no panels")?;
    let interval = format!("{}s", 4 * STEP.as_secs());
    let targets = |panel: &Value| panel["targets"].as_array().cloned().unwrap_or_default();
    let queries: Vec<String> = all
        .iter()
        .flat_map(targets)
        .filter_map(|target| {
            Some(target["expr"].as_str()?.replace("$namespace", ".*").replace("$__rate_interval", &interval))
        })
        .collect();
    let mut answers = ranges(start, STEP, scrapes, &queries).await?.into_iter();
    let mut empty = Vec::new();
    let mut panels = Vec::new();
    for panel in all {
        let mut shown: Vec<(String, Vec<Series>)> = Vec::new();
        for target in targets(panel) {
            let answer = answers.next().context("an answer to each query")?;
            let text = |field: &str| target[field].as_str().unwrap_or_default().to_owned();
            if answer.is_empty() {
                empty.push((panel["title"].as_str().unwrap_or_default().to_owned(), text("refId")));
            }
            shown.push((text("legendFormat"), answer));
        }
        panels.push(Panel { file: panel.clone(), answers: shown });
    }
    empty.retain(|(title, letter)| !MAY_BE_EMPTY.contains(&(title, letter)));
    ensure!(empty.is_empty(), "these queries have no answer: {empty:?}");
    Ok(panels)
}

async fn draw(suite: &Suite, panels: &[Panel]) -> Result<()> {
    let dir = suite.dir().join("dashboard");
    let driver = Driver::start(&dir, "chromium-dashboard").await?;
    let (page, height) = drawing::page(panels, STEP)?;
    let file = dir.join("dashboard.html");
    std::fs::write(&file, page)?;
    driver.open(&format!("file://{}", file.display())).await?;
    let size = json!({"width": WIDTH, "height": height, "deviceScaleFactor": 1, "mobile": false});
    driver.devtools("Emulation.setDeviceMetricsOverride", size).await?;
    let lines = driver.run("return document.querySelectorAll('polyline').length").await?;
    ensure!(lines.as_u64().is_some_and(|lines| lines > 60), "{lines} lines");
    let picture = driver.picture().await?;
    pictures::shows_something(&picture, (WIDTH, height))?;
    if std::env::var_os("TWINSPAN_BLESS").is_some() {
        let path: PathBuf = pictures::file("dashboard.png");
        std::fs::write(&path, &picture).with_context(|| path.display().to_string())?;
    }
    driver.quit().await
}
