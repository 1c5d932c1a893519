//! The page changes while its reader acts: a click that has begun, the focus, a choice and a selection outlive it, and
//! listeners are not flooded.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tokio::time::sleep;
use twinspan::page::rows::{Service, State};
use twinspan_core::model::ServiceKey;

use super::driver::{ENTER, ESCAPE};
use super::reader::Reader;
use super::served::{HOSTILE, LARGE, SHOWN, Served, many, registry, service};
use crate::harness::{Suite, stories};

stories![
    redraws_take_nothing_from_the_reader,
    announcements_do_not_flood,
    the_address_follows_a_pause_and_is_shown_escaped,
];

/// Time from press to release of a slow click: several redraws of the cards, and one of the details.
const HELD: Duration = Duration::from_millis(1_500);
/// Time in which the page is drawn anew many times.
const REDRAWS: Duration = Duration::from_millis(2_500);

/// Registries and the open service change all the time, as in an incident.
async fn redraws_take_nothing_from_the_reader(suite: Arc<Suite>) -> Result<()> {
    let served = Served::start().await?;
    served.leadership.acquired();
    served.put_examples();
    served.put(&ServiceKey::new("shop", "large"), service(2, State::Differs));
    let reader = Reader::start(&suite.dir().join("page-in-use"), "chromium-in-use", &served.origin()).await?;
    reader.allow_clipboard().await?;
    reader.look().await?;
    reader.is_live().await?;
    let holds = AtomicBool::new(true);
    let acts = async {
        copies(&reader).await.context("copy")?;
        selects(&reader).await.context("a selection")?;
        filters(&reader).await.context("a filter")?;
        opens(&reader).await.context("a long text")?;
        shows_more(&reader).await.context("more instances")?;
        differences_end(&reader, &served).await.context("differences that end")?;
        loses_a_hold(&reader, &holds).await.context("a hold that ends")?;
        reader.nothing_went_wrong().await
    };
    tokio::select! {
        acted = acts => acted?,
        () = churn(&served, &holds) => {}
    }
    reader.driver.quit().await
}

async fn churn(served: &Served, holds: &AtomicBool) {
    for n in 0_usize.. {
        let mut main = registry("main", true, &["2a44ff20-8f0e", "beijing-b"]);
        main.records.foreign += i64::try_from(n % 100).unwrap_or_default();
        served.board.put_registry(main);
        let changing = || service(2 + n % 5, State::Differs);
        served.put(&ServiceKey::new("shop", "large"), changing());
        served.put(&ServiceKey::new("shop", "hostile"), Service { message: HOSTILE.repeat(20), ..changing() });
        let state = if holds.load(Ordering::SeqCst) { State::Held } else { State::InSync };
        served.put(&ServiceKey::new("shop", "held"), service(1, state));
        // The counts of states change too.
        served.put(&ServiceKey::new("shop", "lost"), service(0, [State::Lost, State::Refused][n % 2]));
        sleep(Duration::from_millis(200)).await;
    }
}

/// A slow click copies the command that was there when it began, and the answer stays.
async fn copies(reader: &Reader) -> Result<()> {
    reader.follow("shop/held").await?;
    for (id, name) in [("service", "held -n shop"), ("registry-edge", "edge -n registry")] {
        reader.reads(&format!("#{id}-command"), &[name]).await?;
        reader.driver.click_slowly(&format!("#{id}-copy"), HELD).await?;
        reader.reads(&format!("#{id}-copy"), &["Copied"]).await?;
        let copied = reader.driver.run_until_done("navigator.clipboard.readText().then(arguments[0])").await?;
        ensure!(copied == reader.text(&format!("#{id}-command")).await?.as_str(), "the clipboard has {copied}");
        sleep(REDRAWS).await;
        reader.reads(&format!("#{id}-copy"), &["Copied"]).await?;
        let said = format!("return document.querySelector('#{id}-copy + .said').textContent");
        ensure!(reader.driver.run(&said).await? == "Copied", "the answer to listeners is gone");
    }
    Ok(())
}

/// A reader without a clipboard selects the command.
async fn selects(reader: &Reader) -> Result<()> {
    let select = "getSelection().selectAllChildren(document.getElementById('service-command'))";
    reader.driver.run(select).await?;
    sleep(REDRAWS).await;
    let selected = reader.driver.run("return getSelection().toString()").await?;
    ensure!(selected == reader.text("#service-command").await?.as_str(), "{selected} is selected");
    Ok(())
}

async fn filters(reader: &Reader) -> Result<()> {
    let pressed = |is: bool| format!("return document.querySelector('[data-state=Held]').ariaPressed === '{is}'");
    for is in [true, false] {
        reader.driver.click_slowly("[data-state=Held]", HELD).await?;
        reader.sees("the choice", &pressed(is)).await?;
    }
    Ok(())
}

/// A long text that was opened stays open, also the keys of a record; the focus stays in the details.
async fn opens(reader: &Reader) -> Result<()> {
    reader.follow("shop/hostile").await?;
    reader.reads("#detail .verdict", &["Show all"]).await?;
    reader.driver.click("#detail .record-keys summary").await?;
    reader.driver.run("document.querySelector('#detail .verdict button').focus()").await?;
    reader.driver.press([ENTER]).await?;
    sleep(REDRAWS).await;
    reader.reads("#detail .verdict", &[&SHOWN.repeat(20)]).await?;
    reader.sees("the keys are open", "return document.querySelector('#detail details[open]') !== null").await?;
    leaves(reader).await
}

/// The button that shows more goes; the focus goes on to the first instance that it showed.
async fn shows_more(reader: &Reader) -> Result<()> {
    reader.follow("shop/large").await?;
    let shown = |n: usize| format!("return document.querySelectorAll('#detail .instance').length === {n}");
    reader.sees("the first of them", &shown(100)).await?;
    reader.driver.run("document.getElementById('more').focus()").await?;
    reader.driver.press([ENTER]).await?;
    reader.sees("all of them", &shown(LARGE + 4)).await?;
    sleep(REDRAWS).await;
    let at = "return document.activeElement === document.querySelectorAll('#detail .instance')[100]";
    reader.sees("the focus goes on", at).await?;
    leaves(reader).await
}

/// A reader who sees only differences sees everything once there is none.
async fn differences_end(reader: &Reader, served: &Served) -> Result<()> {
    reader.follow("shop/large").await?;
    let shown = |n: usize| format!("return document.querySelectorAll('#detail .instance').length === {n}");
    reader.sees("all kinds", &shown(100)).await?;
    reader.driver.click_slowly("#only", HELD).await?;
    reader.sees("differences", &shown(3)).await?;
    served.alike.store(true, Ordering::SeqCst);
    reader.sees("the rest", &shown(100)).await?;
    served.alike.store(false, Ordering::SeqCst);
    reader.sees("differences again", &shown(3)).await
}

/// The element with the focus ends: the key that closes the details still does.
async fn loses_a_hold(reader: &Reader, holds: &AtomicBool) -> Result<()> {
    reader.follow("shop/held").await?;
    reader.reads("#service-command", &["approve"]).await?;
    reader.driver.run("document.getElementById('service-copy').focus()").await?;
    holds.store(false, Ordering::SeqCst);
    reader.sees("no hold", "return document.querySelector('#detail .hold') === null").await?;
    leaves(reader).await
}

/// The focus is in the details, and Escape closes them.
async fn leaves(reader: &Reader) -> Result<()> {
    let inside = "return document.getElementById('detail').contains(document.activeElement)";
    reader.sees("the focus is in the details", inside).await?;
    reader.driver.press([ESCAPE]).await?;
    reader.sees("they are closed", "return document.getElementById('detail').hidden").await
}

/// Services that change.
const CHANGING: usize = 200;
/// Steps of a busy time, at most twenty a second.
const STEPS: usize = 230;
/// The service that is searched for: one step in a busy time changes it.
const SEARCHED: usize = 101;
/// The times of announcements since a list became busy: the pauses between them double up to 30 s.
const SAID_AT: [u64; 6] = [2, 6, 14, 30, 60, 90];

/// Live regions speak seldom, of services that are shown, and of what the reader asked.
async fn announcements_do_not_flood(suite: Arc<Suite>) -> Result<()> {
    let served = Served::start().await?;
    served.put_many(CHANGING);
    let reader = Reader::open(&suite.dir().join("page-said"), "chromium-said", &served.origin()).await?;
    // The number of those shown changes with each change.
    reader.driver.run("location.hash = 'state=Lost'").await?;
    reader.driver.run(LISTEN).await?;
    let busy = changes(&served, [State::InSync, State::Lost]).await;
    let most = all_said(busy).await?;
    let said = heard(&reader).await?;
    ensure!((1..=most).contains(&said.len()), "{said:?} in {busy:?}");
    ensure!(said.iter().all(|text| text.contains("services changed state")), "{said:?}");

    reader.search(&format!("service-{SEARCHED:05}")).await?;
    reader.reads("#answered", &["1 of 200 services are shown"]).await?;
    heard(&reader).await?;
    let busy = changes(&served, [State::Lost, State::InSync]).await;
    all_said(busy).await?;
    let said = heard(&reader).await?;
    let team = many(SEARCHED).namespace;
    ensure!(
        said.len() == 1 && said.iter().all(|text| text.starts_with(&format!("{team}/service-{SEARCHED:05}: "))),
        "{said:?}"
    );

    // Changes of the page itself are not counted among services.
    reader.driver.run("location.hash = ''").await?;
    for n in 10..13 {
        served.put(&many(n), service(n, State::Unknown));
    }
    sleep(Duration::from_millis(700)).await;
    served.leadership.acquired();
    reader.reads("#said", &["leads now", "service-00010", "service-00011", "service-00012"]).await?;
    reader.leave().await
}

/// Changes services one after the other, every other one into the first of these states, and returns how long it took.
async fn changes(served: &Served, states: [State; 2]) -> Duration {
    let begin = tokio::time::Instant::now();
    for n in 1..=STEPS {
        // An odd number: another round gives a service another state than the one before.
        served.put(&many(n % (CHANGING - 1)), service(n, states[n % 2]));
        sleep(Duration::from_millis(50)).await;
    }
    begin.elapsed()
}

/// Waits until the last announcement of a time that was busy for so long, and returns how many there may have been.
async fn all_said(busy: Duration) -> Result<usize> {
    let last = SAID_AT.iter().position(|at| Duration::from_secs(*at) > busy).context("the browser is too slow")?;
    sleep(Duration::from_secs(SAID_AT[last] + 1).saturating_sub(busy)).await;
    Ok(last + 1)
}

/// The texts that live regions got since the last question.
async fn heard(reader: &Reader) -> Result<Vec<String>> {
    let heard = reader.driver.run("return window.heard.splice(0)").await?;
    let text = |text: &Value| text.as_str().unwrap_or_default().to_owned();
    Ok(heard.as_array().context("no list")?.iter().map(text).collect())
}

const LISTEN: &str = r"
window.heard = [];
for (const region of document.querySelectorAll('[role=status], [role=log], [aria-live]')) {
  new MutationObserver(() => region.textContent && window.heard.push(region.textContent))
    .observe(region, { childList: true, characterData: true, subtree: true });
}
";

/// A fast typist changes the address once; a key from a link stands escaped in the label of the button that closes.
async fn the_address_follows_a_pause_and_is_shown_escaped(suite: Arc<Suite>) -> Result<()> {
    let served = Served::start().await?;
    served.put_many(30);
    let reader = Reader::start(&suite.dir().join("page-address"), "chromium-address", &served.origin()).await?;
    reader.prepare(COUNT).await?;
    reader.look().await?;
    reader.is_live().await?;
    reader.driver.run("document.getElementById('search').focus()").await?;
    reader.driver.press("service-00007".chars()).await?;
    reader.sees("the address has it", "return location.hash === '#q=service-00007'").await?;
    let written = reader.driver.run("return window.written").await?;
    ensure!(written.as_u64().is_some_and(|written| (1..5).contains(&written)), "written {written} times");

    // A link that is followed meanwhile wins.
    reader.driver.press(['8']).await?;
    reader.follow_as("shop/\u{202e}odd", "shop/\\u{202e}odd").await?;
    let label = "return document.getElementById('close').ariaLabel";
    let label = reader.driver.run(label).await?;
    ensure!(label == "Close the details of shop/\\u{202e}odd", "{label}");
    reader
        .sees(
            "the link",
            "return location.hash.startsWith('#service=shop') && document.getElementById('search').value === ''",
        )
        .await?;
    reader.driver.quit().await
}

const COUNT: &str = r"
window.written = 0;
const write = history.replaceState;
history.replaceState = (...all) => { window.written += 1; return write.apply(history, all); };
";
