//! The page knows little: the operator has just started, has no place for one more reader, is frozen, or was away.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::sleep;
use twinspan::page::rows::State;
use twinspan_core::model::ServiceKey;

use super::cluster::follow;
use super::reader::Reader;
use super::relay::Relay;
use super::served::{Served, registry, service};
use crate::harness::{Suite, stories};

stories![
    a_start_claims_no_absence,
    one_reader_too_many_is_told_so,
    a_frozen_operator_is_not_live,
    a_short_break_after_a_long_one_stays_short,
];

/// The server of the stories knows of no start: the script answers for it. `complete` is in the answer to `/state` and
/// in each change. The first question about a service comes too early, and everything is told after that.
const STARTING: &str = r"
window.complete = false;
const [ask, parse] = [window.fetch, JSON.parse];
let early = true;
window.fetch = async (path, options) => {
  if (path.startsWith('service/') && early) {
    early = false;
    return new Response('', { status: 404 });
  }
  const answer = await ask(path, options);
  if (path !== 'state') {
    return answer;
  }
  await new Promise((done) => setTimeout(done, 500));
  return new Response(JSON.stringify({ ...await answer.json(), complete: window.complete }));
};
JSON.parse = (text) => ({ ...parse(text), complete: window.complete });
";
const NOT_YET: &str = "Waiting for the operator's first look";

/// Until the operator has looked at everything, the page says that nothing is absent, be it at its own start or after a
/// restart of the operator.
async fn a_start_claims_no_absence(suite: Arc<Suite>) -> Result<()> {
    let mut served = Served::start().await?;
    let one = ServiceKey::new("shop", "one");
    served.put(&one, service(2, State::InSync));
    let reader = Reader::start(&suite.dir().join("page-start"), "chromium-start", &served.origin()).await?;
    reader.prepare(STARTING).await?;
    reader.driver.open(&format!("{}/#service=shop/one", served.origin())).await?;
    reader.is_live().await?;
    // The answer that came too early is asked for again.
    reader.reads("#detail .facts", &["douyinec.service.2"]).await?;
    reader.reads("#first-look", &[NOT_YET]).await?;

    served.restart().await?;
    reader.reads("#empty", &[NOT_YET]).await?;
    reader.reads("#registries", &[NOT_YET]).await?;
    reader.reads("#detail .trouble", &["has not seen this service yet"]).await?;
    served.board.put_registry(registry("main", true, &[]));
    served.put(&one, service(2, State::InSync));
    reader.reads("#rows", &["shop/one"]).await?;
    reader.reads("#detail .facts", &["douyinec.service.2"]).await?;
    reader.driver.run("window.complete = true").await?;
    served.put(&one, service(4, State::InSync));
    reader.sees("all is known", "return document.getElementById('first-look').hidden").await?;

    served.board.remove(&one);
    reader.reads("#empty", &["There is no RegisteredService yet"]).await?;
    reader.reads("#detail .trouble", &["This service is gone"]).await?;
    served.board.remove_registry("main");
    reader.reads("#registries", &["There is no ServiceRegistry yet"]).await?;
    reader.driver.quit().await
}

/// Streams at once.
const STREAMS: usize = 20;

/// The reader without a place for live changes is told why, sees them some seconds later, and gets the next free place.
async fn one_reader_too_many_is_told_so(suite: Arc<Suite>) -> Result<()> {
    let served = Served::start().await?;
    served.put_many(3);
    let request = follow(served.address()).await?;
    let mut others = Vec::new();
    for _ in 0..STREAMS {
        let mut stream = TcpStream::connect(served.address()).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await?;
        ensure!(answer == *b"HTTP/1.1 200", "{}", String::from_utf8_lossy(&answer));
        others.push(stream);
    }
    let reader = Reader::start(&suite.dir().join("page-crowd"), "chromium-crowd", &served.origin()).await?;
    reader.look().await?;
    reader.reads("#connection", &["Not live", "as many people look as this page serves"]).await?;
    reader.reads("#data-of", &["data of"]).await?;
    reader.reads("#rows", &["service-00001"]).await?;
    served.put(&ServiceKey::new("shop", "meanwhile"), service(2, State::InSync));
    reader.reads("#rows", &["shop/meanwhile"]).await?;
    reader.reads("#connection", &["Not live"]).await?;
    drop(others);
    reader.is_live().await?;
    reader.driver.quit().await
}

/// Longer than the silence after which the page gives up.
const NOTICED: Duration = Duration::from_secs(75);

/// An operator that is stopped keeps its connections: the page still says that it is not live, and goes on after it.
async fn a_frozen_operator_is_not_live(suite: Arc<Suite>) -> Result<()> {
    let served = Served::start().await?;
    served.put_many(3);
    let relay = Relay::to(served.address()).await?;
    let reader = Reader::open(&suite.dir().join("page-frozen"), "chromium-frozen", &relay.origin()).await?;
    relay.freeze();
    reader.reads_within("#connection", NOTICED, &["Reconnecting"]).await?;
    relay.thaw();
    reader.sees_within("the page is live", NOTICED, "return document.querySelector('.is-live') !== null").await?;
    reader.driver.quit().await
}

/// After an outage of this length the page waits for eight seconds between two attempts.
const OUTAGE: Duration = Duration::from_secs(9);
/// A stream that has been open for so long has proven itself.
const STEADY: Duration = Duration::from_secs(6);
/// Notes how long the page waits, each time.
const WAITS: &str = r"
window.waits = [];
const wait = window.setTimeout;
window.setTimeout = (happens, ms, ...all) => { window.waits.push(ms); return wait(happens, ms, ...all); };
";
/// An attempt after half a second, give or take a quarter, and none after many.
const SHORT: &str = r"
const [first, long] = [window.waits.some((ms) => ms >= 375 && ms <= 625), window.waits.some((ms) => ms > 5000 && ms < 20000)];
return first && !long;
";

/// The waits of a long outage do not last into the next break, even if nothing changed in between.
async fn a_short_break_after_a_long_one_stays_short(suite: Arc<Suite>) -> Result<()> {
    let mut served = Served::start().await?;
    served.put_many(3);
    let reader = Reader::start(&suite.dir().join("page-break"), "chromium-break", &served.origin()).await?;
    reader.prepare(WAITS).await?;
    reader.look().await?;
    reader.is_live().await?;
    served.pause().await?;
    reader.reads("#connection", &["Reconnecting"]).await?;
    sleep(OUTAGE).await;
    served.resume().await?;
    reader.is_live().await?;
    sleep(STEADY).await;
    reader.driver.run("window.waits = []").await?;
    served.pause().await?;
    reader.reads("#connection", &["Reconnecting"]).await?;
    served.resume().await?;
    reader.is_live().await?;
    let waits = reader.driver.run("return window.waits").await?;
    ensure!(reader.driver.run(SHORT).await? == true, "{waits}");
    reader.driver.quit().await
}
