//! The page of a real operator: somebody misses an instance, approves a hold, watches changes, and needs no mouse.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::timeout;
use twinspan_testbed::{TwinspanOptions, eventually, next_v4};

use super::driver::{DOWN, END, ENTER, ESCAPE, HOME, RIGHT, TAB, UP};
use super::pictures;
use super::reader::Reader;
use super::scene::{HOSTILE, HOSTILE_NAME, Scene, imported};
use crate::harness::{SOON, Suite, TWINSPAN, stories};

stories![a_reader_sees_both_sides];

/// The page in the pod; the namespace of the bed has no other.
const PAGE: ([u8; 4], u16) = ([127, 0, 0, 1], 8082);

/// One cluster and one browser, for both take long to start.
async fn a_reader_sees_both_sides(suite: Arc<Suite>) -> Result<()> {
    let bed = suite.own_bed().await?;
    let address = SocketAddr::from(PAGE);
    let options = TwinspanOptions { args: vec![format!("--page-addr={address}")], ..TwinspanOptions::default() };
    let twinspan = bed.start_twinspan(TWINSPAN, &options)?;
    twinspan.ready().await?;
    let origin = format!("http://{address}");
    let (scene, reader) = tokio::try_join!(Scene::set(&bed), Reader::open(bed.dir(), "chromium", &origin))?;
    let name = &scene.sandbox.name;
    a_missing_instance(&reader, &scene).await.context("a missing instance and its reason")?;
    let user = format!("{name}/user");
    reader.follow(&user).await?;
    pictures::take(&reader).await.context("pictures")?;
    texts_of_strangers(&reader, &scene).await.context("texts of strangers")?;
    live_updates(&reader, &scene).await.context("live updates")?;
    search(&reader, name).await.context("search")?;
    keyboard(&reader, name).await.context("keyboard")?;
    let approve = hold(&reader, &scene).await.context("a hold")?;
    approved(&reader, &bed.environment(), &approve, name).await.context("the approval")?;
    one_for_another(&reader, &scene).await.context("an instance for another")?;
    reader.leave().await?;
    strangers(address).await.context("strangers")?;
    silent_streams(address, &scene).await.context("streams that do not read")?;
    scene.sandbox.nothing_foreign_was_touched().await
}

/// Each side and each reason, in words and by shape.
async fn a_missing_instance(reader: &Reader, scene: &Scene<'_>) -> Result<()> {
    let name = &scene.sandbox.name;
    reader.reads("#registries", &[name, "Synced", &format!("{name}-legacy"), "Unreachable"]).await?;
    for (state, service) in
        [("Lost", "search"), ("Held", "payment"), ("Refused", "refund"), ("Differs", "user"), ("Unknown", "coupon")]
    {
        reader.driver.run(&format!("location.hash = 'state={state}'")).await?;
        reader.reads("#rows", &[&format!("{name}/{service}")]).await?;
    }
    reader.follow(&format!("{name}/user")).await?;
    let row = |instance: &str| format!("[data-instance='{instance}']");
    let pod = row(&scene.not_ready.to_string());
    reader.reads(&pod, &["cluster only", "not here", "NotReady", "readiness probe"]).await?;
    let loopback = row("127.0.0.1:8888");
    reader.reads(&loopback, &["registry only", "not here", "LoopbackAddress", "1 record"]).await?;
    let broken = format!("return document.querySelector(\"{loopback} .line .cross\") !== null");
    reader.sees("a line that is broken", &broken).await?;
    let whole = "return document.querySelectorAll('.instance.on-both').length === 3 && !document.querySelector('.on-both .cross')";
    reader.sees("three on both sides, joined", whole).await?;
    reader.follow(&format!("{name}/refund")).await?;
    reader.reads("#detail .verdict", &["Refused", "ServiceMissing"]).await?;
    reader.follow(&format!("{name}/search")).await?;
    reader.reads("#detail .both-sides", &["Lost", "accepts connections"]).await
}

/// Markup of strangers is a text.
async fn texts_of_strangers(reader: &Reader, scene: &Scene<'_>) -> Result<()> {
    reader.follow(&format!("{}/review", scene.sandbox.name)).await?;
    reader.reads("#detail .facts", &[HOSTILE_NAME]).await?;
    reader.reads("#detail .both-sides", &[HOSTILE, "Undecodable"]).await?;
    reader.driver.click("#detail .record-keys summary").await?;
    reader.reads("#detail .record-keys", &[HOSTILE]).await?;
    reader.sees("no picture but ours", "return document.images.length === 1").await
}

/// Of five changes of the registry each is shown, and the median of the times from the write to the row is a second.
async fn live_updates(reader: &Reader, scene: &Scene<'_>) -> Result<()> {
    reader.follow(&format!("{}/order", scene.sandbox.name)).await?;
    let mut times = Vec::new();
    for n in 1..=5 {
        let address = SocketAddr::from((next_v4(), 9000));
        let all = scene.order.len() + n;
        let counts = format!("{all} in the cluster, {all} in the registry");
        reader.driver.run(&WATCH.replace("COUNTS", &counts)).await?;
        let written = SystemTime::now().duration_since(UNIX_EPOCH)?;
        scene.sandbox.put("order", address).await?;
        reader.sees("the row", "return window.shownAt > 0").await?;
        let shown = reader.driver.run("return window.shownAt").await?.as_u64().context("a time")?;
        times.push(Duration::from_millis(shown).saturating_sub(written));
        reader.reads(&format!("[data-instance='{address}']"), &["Imported", "on both sides"]).await?;
    }
    times.sort();
    // A second, doubled for a busy machine.
    ensure!(times[2] < Duration::from_secs(2), "{times:?}");
    Ok(())
}

/// Notes when the open row has the counts.
const WATCH: &str = r"
window.shownAt = 0;
const look = () => {
  if (document.querySelector('#rows .row[aria-selected=true] .c-sides')?.textContent.includes('COUNTS')) {
    window.shownAt ||= Date.now();
  }
};
new MutationObserver(look).observe(document.getElementById('rows'), { childList: true, characterData: true, subtree: true });
";

/// The search narrows the list, and the address keeps it.
async fn search(reader: &Reader, name: &str) -> Result<()> {
    reader.search("douyin").await?;
    reader.reads("#shown", &["1 of "]).await?;
    reader.reads("#rows", &[&format!("{name}/user")]).await?;
    let kept = "return location.hash.includes('q=douyin')";
    reader.sees("the address has it", kept).await?;
    reader.driver.run("location.reload()").await?;
    reader.is_live().await?;
    reader.sees("and keeps it", kept).await?;
    reader.reads("#shown", &["1 of "]).await?;
    reader.search("nobody-has-this-name").await?;
    reader.reads("#empty", &["No RegisteredService matches"]).await
}

/// From the top of the page to the reason of a missing instance and back, without a mouse.
async fn keyboard(reader: &Reader, name: &str) -> Result<()> {
    let driver = &reader.driver;
    driver.run("location.hash = ''; location.reload()").await?;
    reader.is_live().await?;
    let on = |id: &str| format!("return document.activeElement.id === '{id}'");
    driver.press([TAB]).await?;
    reader.sees("the first stop leads to the services", &on("skip")).await?;
    driver.press([ENTER]).await?;
    reader.sees("the list has the focus", &on("grid")).await?;
    let active =
        "return document.getElementById(document.getElementById('grid').getAttribute('aria-activedescendant'))";
    driver.press([END, HOME, DOWN, DOWN, UP]).await?;
    reader.sees("the second row", &format!("{active}?.getAttribute('aria-rowindex') === '3'")).await?;
    let second = driver.run(&format!("{active}.querySelector('.name').textContent")).await?;
    let second = second.as_str().unwrap_or_default().to_owned();
    driver.press([ENTER]).await?;
    reader.sees("the details have the focus", &on("detail-title")).await?;
    reader.reads("#detail-title", &[&second]).await?;
    driver.press([ESCAPE]).await?;
    reader.sees("they are closed", "return document.getElementById('detail').hidden").await?;
    reader.sees("and the list has the focus again", &on("grid")).await?;

    // Search, go to what was found, and read it.
    driver.press(['/']).await?;
    reader.sees("the search has the focus", &on("search")).await?;
    driver.press("user".chars()).await?;
    reader.reads("#shown", &["1 of "]).await?;
    driver.press([ENTER, DOWN, ENTER]).await?;
    reader.reads("#detail-title", &[&format!("{name}/user")]).await?;
    reader.reads("#detail", &["NotReady"]).await?;
    let mut stops = BTreeSet::new();
    for _ in 0..12 {
        driver.press([TAB]).await?;
        stops.insert(driver.run("return document.activeElement.id").await?.as_str().unwrap_or_default().to_owned());
    }
    ensure!(stops.contains("close") && stops.contains("only"), "{stops:?}");
    ensure!(stops.contains("keys-127.0.0.1:8888"), "the keys of records can be reached: {stops:?}");

    // Sort by another column.
    driver.run("document.getElementById('grid').focus()").await?;
    driver.press([ESCAPE, TAB, RIGHT, ENTER]).await?;
    let sorted =
        "return document.querySelector('[role=columnheader].c-service').getAttribute('aria-sort') === 'ascending'";
    reader.sees("sorted by name", sorted).await?;
    driver.press([DOWN]).await?;
    reader.sees("from the head into the list", &on("grid")).await
}

/// The hold, and the command that ends it; returns the command.
async fn hold(reader: &Reader, scene: &Scene<'_>) -> Result<String> {
    reader.follow(&format!("{}/payment", scene.sandbox.name)).await?;
    reader.reads("#detail .hold", &["2 deletions are held", "let go at"]).await?;
    reader.reads("#detail .both-sides", &["Held", "cluster only"]).await?;
    reader.driver.click("#service-copy").await?;
    reader
        .sees("an answer to the click", "return document.querySelector('#detail .command .said').textContent !== ''")
        .await?;
    reader.text("#service-command").await
}

/// The command does what the page says, and the page shows that it did.
async fn approved(
    reader: &Reader,
    environment: &BTreeMap<String, String>,
    command: &str,
    namespace: &str,
) -> Result<()> {
    let arguments: Vec<&str> = command.split(' ').collect();
    ensure!(arguments.starts_with(&["twinspan", "approve", "payment", "-n", namespace]), "{command}");
    // The page tells of a hold before the API server does, and the command asks there.
    eventually("the command releases the hold", SOON, || async {
        let output = Command::new(TWINSPAN).args(&arguments[1..]).envs(environment).output().await?;
        ensure!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    })
    .await?;
    reader.sees("the hold is over", "return document.querySelector('#detail .hold') === null").await?;
    reader.reads("#detail .verdict", &["In sync"]).await?;
    reader.reads("#detail .facts", &["2"]).await
}

/// One pod that is not ready takes the place of another, and no count changes: the open details follow.
async fn one_for_another(reader: &Reader, scene: &Scene<'_>) -> Result<()> {
    let sandbox = &scene.sandbox;
    reader.follow(&format!("{}/user", sandbox.name)).await?;
    reader.reads(&format!("[data-instance='{}']", scene.not_ready), &["NotReady"]).await?;
    let other = sandbox.pod("user", "user-7c8f-d", 8888).await?;
    reader.reads(&format!("[data-instance='{}']", other.address()), &["NotReady"]).await?;
    sandbox.pods.remove("user-7c8f-c").await?;
    let gone = format!("return document.querySelector(\"[data-instance='{}']\") === null", scene.not_ready);
    reader.sees("the former is gone", &gone).await
}

/// A site that rebinds its name to the page's address sends its own name, and reads nothing.
async fn strangers(address: SocketAddr) -> Result<()> {
    for (host, status) in [("evil.example", " 421 "), ("127.0.0.1:8082", " 200 ")] {
        for path in ["/", "/state", "/page.js"] {
            let answer = get(address, path, host).await?;
            ensure!(answer.lines().next().unwrap_or_default().contains(status), "{host} {path}: {answer}");
            ensure!(host != "evil.example" || !answer.contains("clusterID"), "{answer}");
        }
    }
    Ok(())
}

/// A hundred readers ask for changes and read none: others still get answers, and the operator does its work.
async fn silent_streams(address: SocketAddr, scene: &Scene<'_>) -> Result<()> {
    let request = follow(address).await?;
    let mut silent = Vec::new();
    for _ in 0..100 {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(request.as_bytes()).await?;
        silent.push(stream);
    }
    let answer = timeout(SOON, get(address, "/state", "localhost")).await.context("/state is not answered")??;
    ensure!(answer.contains("clusterID"), "{answer}");
    let address = SocketAddr::from((next_v4(), 9000));
    scene.sandbox.put("rank", address).await?;
    imported(&scene.sandbox, "rank", address).await
}

/// The request of a reader who has the state of now and asks for changes.
pub(super) async fn follow(address: SocketAddr) -> Result<String> {
    let state = get(address, "/state", "localhost").await?;
    let (_, body) = state.split_once("\r\n\r\n").context("no body")?;
    let state: Value = serde_json::from_str(body)?;
    let since = format!("since={}&boot={}", state["version"], state["boot"].as_str().context("boot")?);
    Ok(format!("GET /events?{since} HTTP/1.1\r\nHost: localhost\r\n\r\n"))
}

async fn get(address: SocketAddr, path: &str, host: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    timeout(SOON, stream.read_to_end(&mut answer)).await.context("no answer")??;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
