//! The source of every answer: the board, the process that leads or stands by, and the places of readers.
//!
//! Owns the bounds on readers: so many streams, one explanation at a time with a rest after it, and everything at most
//! once a second however many ask, of which slow readers keep only so many in memory. Refuses to know paths and
//! connections.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until};
use twinspan_core::Timestamp;
use twinspan_core::model::ServiceKey;

use super::answer::{self, Process};
use super::board::Board;
use super::detail::Explain;
use super::door::Hosts;
use crate::env::Env;
use crate::leadership::Leadership;

/// Streams at once.
pub const STREAMS: usize = 20;
/// Answers to `/state` in memory at once: the last one, and those that are still being read.
pub const WHOLES: usize = 4;
/// The age at which the answer to `/state` is made anew. Changes since then come as events.
const FRESH: Duration = Duration::from_secs(1);
/// The rest after an explanation, which is a whole pass: so many times as long as it took, and no shorter than
/// [`SHORTEST_REST`]. Passes that write have the processor for the greater part.
const REST: u32 = 3;
const SHORTEST_REST: Duration = Duration::from_millis(10);

/// Everything that the page shows.
pub struct Page {
    pub(super) board: Board,
    pub(super) leadership: Leadership,
    replica: String,
    pub(super) hosts: Hosts,
    explain: Explain,
    env: Env,
    boot: String,
    /// The places of streams.
    pub(super) streams: Arc<Semaphore>,
    /// The turn of one explanation, and the time at which the next one may begin.
    explaining: Mutex<Instant>,
    /// The places of answers to `/state`, the last of which is kept.
    wholes: Arc<Semaphore>,
    everything: Mutex<Option<Made>>,
}

/// An answer to `/state`.
#[derive(Clone)]
struct Made {
    at: Instant,
    boot: String,
    body: Bytes,
}

/// The bytes of an answer to `/state`, which keep their place until the last reader has them.
struct Whole {
    bytes: Vec<u8>,
    _place: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Whole {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl fmt::Debug for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Page").field("replica", &self.replica).finish_non_exhaustive()
    }
}

impl Page {
    pub fn new(
        board: Board,
        leadership: Leadership,
        replica: &str,
        hosts: Hosts,
        explain: Explain,
        env: Env,
    ) -> Arc<Self> {
        let boot = format!("{:08x}{:08x}", env.random_u32(), env.random_u32());
        Arc::new(Self {
            board,
            leadership,
            replica: replica.to_owned(),
            hosts,
            explain,
            env,
            boot,
            streams: Arc::new(Semaphore::new(STREAMS)),
            explaining: Mutex::new(Instant::now()),
            wholes: Arc::new(Semaphore::new(WHOLES)),
            everything: Mutex::default(),
        })
    }

    /// The process and its leadership: when either changes, readers begin anew, for what may be shown is another.
    pub(super) fn boot(&self) -> String {
        format!("{}-{}", self.boot, self.leadership.term().unwrap_or_default())
    }

    pub(super) fn process<'a>(&'a self, boot: &'a str) -> Process<'a> {
        Process { boot, replica: &self.replica, leads: self.leadership.is_leader(), now: self.env.now() }
    }

    pub(super) fn verified(&self) -> BTreeMap<String, Option<Timestamp>> {
        answer::verified(&self.board.registries())
    }

    /// One service in full as JSON; `None` if there is none. Waits for its turn.
    pub(super) async fn in_full(&self, key: &ServiceKey) -> Option<Result<Bytes, serde_json::Error>> {
        let mut next = self.explaining.lock().await;
        sleep_until(*next).await;
        let began = Instant::now();
        let leads = self.leadership.is_leader();
        let found = self.board.line(key).and_then(|line| Some((line, (self.explain)(key, leads)?)));
        *next = Instant::now() + (began.elapsed() * REST).max(SHORTEST_REST);
        let (line, detail) = found?;
        Some(serde_json::to_vec(&answer::in_full(&line, detail, &self.verified(), leads)).map(Bytes::from))
    }

    /// Everything as JSON, made anew at most once in [`FRESH`]. `None` if slow readers have [`WHOLES`] answers still.
    pub(super) async fn everything(&self) -> Result<Option<Bytes>, serde_json::Error> {
        // Others who ask meanwhile wait for the same answer.
        let mut made = self.everything.lock().await;
        let boot = self.boot();
        let known = made.as_ref().filter(|made| made.boot == boot && made.at.elapsed() < FRESH);
        if let Some(known) = known {
            return Ok(Some(known.body.clone()));
        }
        // The former one gives its place up, unless somebody reads it still.
        *made = None;
        let Ok(place) = self.wholes.clone().try_acquire_owned() else { return Ok(None) };
        let bytes = serde_json::to_vec(&answer::everything(&self.board.snapshot(), self.process(&boot)))?;
        let body = Bytes::from_owner(Whole { bytes, _place: place });
        *made = Some(Made { at: Instant::now(), boot, body: body.clone() });
        Ok(Some(body))
    }
}
