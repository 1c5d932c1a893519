//! One stream of live changes, as server-sent events.
//!
//! A stream holds the version that its reader has, and nothing else: when it is asked for the next event it looks at
//! what changed since. Owns the pace of events, the heartbeat, and the beginning anew. Refuses to know how many streams
//! there may be, and how long a write may take ([`crate::telemetry::server`]).

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::response::sse::Event;
use futures::Stream;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Instant, sleep_until};

use super::answer;
use super::source::Page;

/// The time between two events of a stream: changes in between come together.
const PACE: Duration = Duration::from_millis(250);
/// The time without another event after which a heartbeat comes. Scripts see it, and proxies between end no stream.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// The greatest number of services in one event; the rest comes with the next.
const MOST: usize = 500;

/// The place from which a reader goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Since {
    pub version: u64,
    pub boot: String,
}

impl Since {
    /// From the query of `/events`, and the header by which a browser that connects again says what it had last.
    pub fn read(query: Option<&str>, last_event: Option<&str>) -> Option<Self> {
        if let Some((version, boot)) = last_event.and_then(|id| id.split_once('@')) {
            return Some(Self { version: version.parse().ok()?, boot: boot.to_owned() });
        }
        let fields = || query.unwrap_or_default().split('&').filter_map(|field| field.split_once('='));
        let field = |name| fields().find(|(known, _)| *known == name).map(|(_, value)| value);
        Some(Self { version: field("since")?.parse().ok()?, boot: field("boot")?.to_owned() })
    }
}

struct Reader {
    page: Arc<Page>,
    /// `None` once it has to begin anew.
    since: Option<Since>,
    changes: watch::Receiver<u64>,
    leading: watch::Receiver<bool>,
    next: Instant,
    heartbeat: Instant,
    _place: OwnedSemaphorePermit,
}

/// The events after a version, until the reader has to begin anew.
pub fn events(
    page: Arc<Page>,
    since: Option<Since>,
    place: OwnedSemaphorePermit,
) -> impl Stream<Item = Result<Event, Infallible>> + Send {
    let (changes, leading) = (page.board.changes(), page.leadership.changes());
    let since = since.unwrap_or(Since { version: 0, boot: String::new() });
    let (since, next) = (Some(since), Instant::now());
    let reader = Reader { page, since, changes, leading, next, heartbeat: next + HEARTBEAT, _place: place };
    futures::stream::unfold(reader, async |mut reader| {
        let event = reader.event().await?;
        Some((Ok(event), reader))
    })
}

impl Reader {
    async fn event(&mut self) -> Option<Event> {
        sleep_until(self.next).await;
        loop {
            let since = self.since.clone()?;
            // The wait below sees every change from here on.
            self.changes.borrow_and_update();
            self.leading.borrow_and_update();
            let boot = self.page.boot();
            let delta = self.page.board.since(since.version, MOST).filter(|_| since.boot == boot);
            let Some(delta) = delta else {
                self.since = None;
                return Some(Event::default().event("reset").data("{}"));
            };
            if !delta.is_empty() {
                let change = answer::change(&delta, &self.page.verified(), self.page.process(&boot));
                (self.next, self.heartbeat) = (Instant::now() + PACE, Instant::now() + HEARTBEAT);
                let event = Event::default().event("change").id(format!("{}@{boot}", delta.version));
                self.since = Some(Since { version: delta.version, boot });
                // Lines have nothing that cannot be written as JSON.
                return Some(event.data(serde_json::to_string(&change).ok()?));
            }
            tokio::select! {
                biased;
                changed = self.changes.changed() => changed.ok()?,
                changed = self.leading.changed() => changed.ok()?,
                () = sleep_until(self.heartbeat) => {
                    self.heartbeat = Instant::now() + HEARTBEAT;
                    let alive = answer::alive(self.page.process(&boot));
                    return Some(Event::default().event("alive").data(serde_json::to_string(&alive).ok()?));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;
    use tokio::sync::Semaphore;

    use super::*;
    use crate::env::Env;
    use crate::leadership::Leadership;
    use crate::page::Board;
    use crate::page::door::Hosts;

    #[tokio::test(start_paused = true)]
    async fn a_quiet_stream_has_heartbeats_that_scripts_see() {
        let (board, env) = (Board::on(), Env::real());
        let page = Page::new(board.clone(), Leadership::none(), "a", Hosts::default(), Arc::new(|_, _| None), env);
        let place = Arc::new(Semaphore::new(1)).acquire_owned().await.unwrap();
        let boot = page.boot();
        let mut events = std::pin::pin!(events(page, Some(Since { version: 0, boot }), place));
        for _ in 0..3 {
            let asked = Instant::now();
            let event = format!("{:?}", events.next().await);
            assert_eq!(asked.elapsed(), HEARTBEAT);
            assert!(event.contains("event: alive") && event.contains("now"), "{event}");
        }
        board.complete();
        let event = format!("{:?}", events.next().await);
        assert!(event.contains("event: change"), "a heartbeat moves nothing: {event}");
        let asked = Instant::now();
        events.next().await;
        assert_eq!(asked.elapsed(), HEARTBEAT, "it counts from the last event");
    }

    #[test]
    fn a_reader_that_connects_again_goes_on_where_it_was() {
        let since = |version, boot: &str| Some(Since { version, boot: boot.to_owned() });
        assert_eq!(Since::read(Some("since=7&boot=ab-1"), None), since(7, "ab-1"));
        assert_eq!(Since::read(Some("boot=ab-1&since=7"), Some("9@ab-1")), since(9, "ab-1"));
        for odd in [None, Some(""), Some("since=x&boot=a"), Some("since=7"), Some("since=-1&boot=a")] {
            assert_eq!(Since::read(odd, None), None, "{odd:?}");
        }
    }
}
