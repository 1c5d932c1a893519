//! The page with lines that a cluster would take long to have: ten thousand services, every state at once, texts of
//! strangers, and a server that goes away.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use twinspan::api::conditions::{self, OF_REGISTERED_SERVICE, OF_SERVICE_REGISTRY};
use twinspan::page::rows::State;
use twinspan_core::model::{Reason, ServiceKey};

use super::driver::TAB;
use super::reader::{Reader, Theme};
use super::served::{SHOWN, STATES, Served, many, registry, service};
use crate::harness::{Suite, stories};

stories![ten_thousand_services_stay_smooth, every_state_is_told_in_both_themes_and_languages];

const SERVICES: usize = 10_000;
/// Rows of elements that a window of this size needs, with those beyond its edges.
const ROWS: u64 = 80;
/// Frames in which the list is scrolled by more than a screen.
const FRAMES: u64 = 60;
/// Changes while it is scrolled.
const CHANGES: usize = 400;
const SMOOTH: Duration = Duration::from_secs(60);

/// A reader scrolls and searches among 10,000 services while services change. The page holds a screen of rows, and
/// each frame that is drawn has its rows.
async fn ten_thousand_services_stay_smooth(suite: Arc<Suite>) -> Result<()> {
    let served = Served::start().await?;
    served.leadership.acquired();
    served.put_many(SERVICES);
    let reader = Reader::open(&suite.dir().join("page-many"), "chromium-many", &served.origin()).await?;
    reader.reads("#shown", &["10,000 of 10,000"]).await?;
    let churn = async {
        for n in 0..CHANGES {
            let state = STATES[n % STATES.len()];
            served.put(&many(n), service(n, state));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    };
    let scroll = async {
        let drawn = reader.driver.run_until_done(SCROLL);
        tokio::time::timeout(SMOOTH, drawn).await.context("the list was not scrolled in time")?
    };
    let (drawn, ()) = tokio::try_join!(scroll, churn)?;
    ensure!(drawn["frames"] == FRAMES && drawn["empty"] == 0, "{drawn}");
    ensure!(drawn["rows"].as_u64().is_some_and(|rows| rows < ROWS), "{drawn}");
    ensure!(drawn["top"].as_u64().is_some_and(|top| top > FRAMES * 700), "it was scrolled: {drawn}");
    let in_sync = SERVICES - (0..CHANGES).filter(|n| STATES[n % STATES.len()] != State::InSync).count();
    let counted =
        format!("return document.querySelector('[data-state=InSync] b').textContent.replace(',', '') === '{in_sync}'");
    reader.sees("every change has arrived", &counted).await?;

    reader.search("service-09999").await?;
    reader.reads("#shown", &["1 of 10,000"]).await?;
    reader.reads("#rows", &["team-49/service-09999"]).await?;
    reader.search("team-07 service").await?;
    reader.reads("#shown", &["200 of 10,000"]).await?;
    served.board.remove(&many(7));
    reader.reads("#shown", &["199 of 9,999"]).await?;
    reader.leave().await
}

/// Scrolls in each frame by more than a screen, and looks after it at the rows in view.
const SCROLL: &str = r"
const done = arguments[0];
const grid = document.getElementById('grid');
let [frames, empty, most] = [0, 0, 0];
const look = () => {
  const box = grid.getBoundingClientRect();
  const rows = [...document.querySelectorAll('.rows .row:not([hidden])')];
  const seen = rows.filter((row) => { const at = row.getBoundingClientRect(); return at.bottom > box.top && at.top < box.bottom; });
  most = Math.max(most, document.querySelectorAll('.rows .row').length);
  empty += seen.length < 5 || seen.some((row) => !row.textContent.includes('/')) ? 1 : 0;
};
const step = () => {
  if (frames === 60) { done({ frames, empty, rows: most, top: grid.scrollTop }); return; }
  frames += 1;
  grid.scrollTop += 720;
  // The list draws in the frame after the scroll.
  requestAnimationFrame(() => requestAnimationFrame(() => { look(); step(); }));
};
step();
";

async fn every_state_is_told_in_both_themes_and_languages(suite: Arc<Suite>) -> Result<()> {
    let mut served = Served::start().await?;
    served.put_examples();
    let reader = Reader::open(&suite.dir().join("page-alone"), "chromium-alone", &served.origin()).await?;
    stands_by(&reader, &served).await.context("a replica that stands by")?;
    texts_stay_texts(&reader).await.context("texts of strangers")?;
    is_readable(&reader).await.context("contrast")?;
    is_readable_as_chosen(&reader).await.context("colours that the reader chose")?;
    facts_are_told(&reader, &served).await.context("facts")?;
    words_are_complete(&reader).await.context("words")?;
    conditions_have_words(&reader).await.context("words of conditions")?;
    focus_is_visible(&reader).await.context("the focus")?;
    reader.nothing_went_wrong().await?;
    goes_on_after_a_break(&reader, &mut served).await.context("a break")?;
    // The browser itself tells of a connection that it did not get.
    reader.driver.quit().await
}

/// A standby says so and shows no hold; once it leads, the page shows the holds by itself.
async fn stands_by(reader: &Reader, served: &Served) -> Result<()> {
    reader.reads("#role", &["Standby"]).await?;
    reader.reads("#standby", &["stands by", "leader alone"]).await?;
    reader.sees("no hold", "return document.querySelector('.hold') === null").await?;
    reader.sees("no service is held", "return document.querySelector('[data-state=Held]') === null").await?;
    served.leadership.acquired();
    reader.reads("#role", &["Leader"]).await?;
    reader.sees("nothing about standing by", "return document.getElementById('standby').hidden").await?;
    reader
        .reads("[data-registry=edge] .hold", &["1 deletion is held", "twinspan approve edge -n registry --only"])
        .await?;
    reader.reads("#said", &["This replica leads now"]).await
}

/// Markup in names and values is shown as it was written, with visible escapes, and nothing of it runs.
async fn texts_stay_texts(reader: &Reader) -> Result<()> {
    reader.follow("shop/hostile").await?;
    reader.reads("#detail .verdict", &[SHOWN, "Show all"]).await?;
    reader.reads("#detail .both-sides", &[SHOWN]).await?;
    let row = "return document.querySelector('#rows .row[aria-selected=true]').textContent.includes('<img src=x')";
    reader.sees("the row has it", row).await?;
    reader
        .sees("only our own picture", "return document.images.length === 1 && document.title === 'Twinspan status'")
        .await?;
    reader.driver.click("#detail .verdict button").await?;
    let whole = SHOWN.repeat(20);
    reader.reads("#detail .verdict", &[&whole]).await?;
    reader
        .sees("nothing is wider than the window", "return document.documentElement.scrollWidth <= innerWidth")
        .await?;
    // Long texts are cut, and the whole is a question away.
    reader
        .sees("a title", "return [...document.querySelectorAll('.here.cut')].some((end) => end.title.length > 1000)")
        .await
}

/// WCAG 2.2 AA for every text and every control, in both themes.
async fn is_readable(reader: &Reader) -> Result<()> {
    reader.follow("shop/held").await?;
    reader.reads("#detail", &["not ready", "twinspan approve held -n shop --only"]).await?;
    for theme in [Theme::Light, Theme::Dark] {
        reader.use_theme(theme).await?;
        contrast(reader).await.with_context(|| format!("{theme:?}"))?;
    }
    reader.use_theme(Theme::Light).await
}

async fn contrast(reader: &Reader) -> Result<()> {
    // A row that has just changed is lit up for a moment.
    reader.sees("no animation", "return document.getAnimations().length === 0").await?;
    let found = reader.driver.run(include_str!("contrast.js")).await?;
    ensure!(found["texts"].as_u64().is_some_and(|texts| texts > 100), "{found}");
    ensure!(found["low"].as_array().is_some_and(Vec::is_empty), "{found}");
    Ok(())
}

/// The button for colours: each choice is readable whatever the browser prefers, and outlives a reload.
async fn is_readable_as_chosen(reader: &Reader) -> Result<()> {
    for (choice, preferred, ground) in
        [("light", Theme::Dark, "rgb(243, 245, 247)"), ("dark", Theme::Light, "rgb(17, 22, 27)")]
    {
        reader.use_theme(preferred).await?;
        reader.driver.click("#theme").await?;
        reader.driver.run("location.reload()").await?;
        reader.reads("#theme", &[&format!("Colours: {choice}")]).await?;
        reader.reads("#detail", &["twinspan approve held -n shop --only"]).await?;
        let shown = "return document.documentElement.dataset.theme + getComputedStyle(document.body).backgroundColor";
        let shown = reader.driver.run(shown).await?;
        ensure!(shown == format!("{choice}{ground}"), "{shown}");
        contrast(reader).await.with_context(|| format!("{choice}, chosen"))?;
    }
    reader.use_theme(Theme::Light).await?;
    reader.driver.click("#theme").await?;
    reader.reads("#theme", &["Colours: automatic"]).await
}

/// Latencies as a line and in words, the last audit, and the clusters that share a registry.
async fn facts_are_told(reader: &Reader, served: &Served) -> Result<()> {
    let mut main = registry("main", true, &["2a44ff20-8f0e", "beijing-b"]);
    main.last_verified = Some("2026-01-02T03:04:05Z".parse()?);
    served.board.put_registry(main);
    let card = "[data-registry=main]";
    reader
        .reads(card, &["Last verified", "03:04:05", "shared by 2 clusters", "2a44ff20-8f0e (this one)", "beijing-b"])
        .await?;
    reader.reads("[data-registry=legacy]", &["Last verified", "never"]).await?;
    let (quiet, busy) = (ServiceKey::new("shop", "quiet"), ServiceKey::new("shop", "busy"));
    served.put_measured(&quiet, service(2, State::InSync), None);
    for (n, milliseconds) in [14, 12, 2_500].into_iter().enumerate() {
        served.put_measured(&busy, service(n, State::InSync), Some(Duration::from_millis(milliseconds)));
    }
    reader.follow("shop/quiet").await?;
    reader.reads("#detail .facts", &["no change was measured yet", "Last verified", "03:04:05"]).await?;
    reader.sees("no line", "return document.querySelector('#detail .spark svg') === null").await?;
    reader.follow("shop/busy").await?;
    reader.reads("#detail .facts", &["latest 2.5 s, median 14 ms, highest 2.5 s"]).await?;
    let points =
        "return document.querySelector('#detail .spark polyline').getAttribute('points').split(' ').length === 3";
    reader.sees("a line of three", points).await?;
    reader.follow("shop/held").await
}

/// Both languages have the same texts, and Chinese has a word for each state of an instance.
async fn words_are_complete(reader: &Reader) -> Result<()> {
    let compared = reader.driver.run_until_done(KEYS).await?;
    ensure!(compared["differ"].as_array().is_some_and(Vec::is_empty), "{compared}");
    let known = compared["outcomes"].as_array().context("outcomes")?;
    let missing: Vec<&str> =
        Reason::ALL.iter().map(|reason| reason.label()).filter(|label| !known.iter().any(|it| it == label)).collect();
    ensure!(missing.is_empty(), "no Chinese word for {missing:?}");
    // Sessions have the words of reasons.
    let known = compared["reasons"].as_array().context("reasons")?;
    let reasons = conditions::Reason::ALL.iter().map(|reason| reason.as_str());
    let missing: Vec<&str> = reasons.filter(|reason| !known.iter().any(|it| it == reason)).collect();
    ensure!(missing.is_empty(), "no Chinese word for {missing:?}");
    let unknown = |state: &State| {
        !compared["states"].as_array().is_some_and(|all| all.contains(&Value::from(format!("{state:?}"))))
    };
    ensure!(!STATES.iter().any(unknown), "{compared}");
    reader.use_language("zh-CN").await?;
    reader.reads("#detail", &["已暂缓", "未就绪", "两侧对照", "仅集群"]).await?;
    reader.reads("#states", &["失去注册", "被拒绝", "一致"]).await?;
    reader.use_language("en").await?;
    reader.reads("#detail", &["Both sides", "cluster only", "registry only", "not here"]).await
}

const KEYS: &str = r"
const done = arguments[0];
import('/texts.js').then(({ texts }) => {
  const keys = (at, path) => Object.entries(at).flatMap(([name, value]) =>
    ['outcomes', 'reasons'].includes(name) ? [] : typeof value === 'object' ? keys(value, `${path}${name}.`) : [path + name]);
  const [en, zh] = [new Set(keys(texts.en, '')), new Set(keys(texts.zh, ''))];
  const differ = [...en, ...zh].filter((key) => !en.has(key) || !zh.has(key));
  const { outcomes, reasons } = texts.zh;
  done({ differ, outcomes: Object.keys(outcomes), reasons: Object.keys(reasons), states: Object.keys(texts.en.states) });
});
";

/// Chinese has a word for each condition and each status of one, with the operator's own beside it.
async fn conditions_have_words(reader: &Reader) -> Result<()> {
    let known = "import('/texts.js').then(({ texts }) => arguments[0](texts.zh))";
    let known = reader.driver.run_until_done(known).await?;
    let types = OF_REGISTERED_SERVICE.iter().chain(&OF_SERVICE_REGISTRY).map(|(kind, _)| kind);
    let missing: Vec<_> = types.filter(|kind| known["conditionTypes"][*kind].as_str().is_none()).collect();
    ensure!(missing.is_empty(), "no Chinese word for {missing:?}");
    reader.use_language("zh-CN").await?;
    reader.reads("#detail .conditions", &["就绪 Ready", "已接受 Accepted", "是 True"]).await?;
    reader.use_language("en").await?;
    reader.sees("no word twice", "return document.querySelector('#detail .translated') === null").await
}

/// Each stop of the Tab key can be seen, and the way leads through every control.
async fn focus_is_visible(reader: &Reader) -> Result<()> {
    reader.driver.run("document.activeElement.blur()").await?;
    let mut stops = Vec::new();
    for _ in 0..60 {
        reader.driver.press([TAB]).await?;
        let stop = reader.driver.run(FOCUS).await?;
        ensure!(stop["seen"] == true, "the focus on {stop} cannot be seen");
        stops.push(stop["name"].as_str().unwrap_or_default().to_owned());
    }
    for name in
        ["skip", "language", "theme", "search", "registry", "namespace", "grid", "close", "service-copy", "only"]
    {
        ensure!(stops.iter().any(|stop| stop == name), "{name} is no stop: {stops:?}");
    }
    Ok(())
}

const FOCUS: &str = r"
const at = document.activeElement;
const style = getComputedStyle(at);
const seen = at === document.body || (at.matches(':focus-visible') && style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2);
return { name: at.id || at.className || at.tagName, seen };
";

/// The server goes away and comes back as another process: the page says so, and goes on by itself.
async fn goes_on_after_a_break(reader: &Reader, served: &mut Served) -> Result<()> {
    served.pause().await?;
    reader.reads("#connection", &["Reconnecting", "since"]).await?;
    reader.reads("#rows", &["shop/insync"]).await?;
    served.put(&ServiceKey::new("shop", "meanwhile"), service(2, State::InSync));
    served.resume().await?;
    reader.is_live().await?;
    reader.reads("#rows", &["shop/meanwhile"]).await
}
