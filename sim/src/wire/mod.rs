//! The wire: carries every message between a replica and a server, and decides its fate.
//!
//! - [`fate`]: the draw. [`trap`]: faults at one message. [`body`]: frames. [`kube`]: the way to an API server.
//!   [`etcd`]: the way to an etcd member.
//!
//! Owns links, partitions, the numbers of messages and their fates by script. A request that was sent is carried in a
//! task of the wire: it arrives, and is applied, though its sender died, froze or gave up. Refuses to know its content.

mod body;
pub mod etcd;
pub mod fate;
pub mod kube;
mod trap;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{HeaderValue, Request, Response};
use http_body::Body;
use tokio::sync::{oneshot, watch};
use tokio::time::sleep;
use tower::BoxError;

use crate::scheduler::{ProcessId, Scheduler};
use crate::trace::Trace;
use body::Incoming;
use fate::{Fate, Loss, Rates};
pub use trap::{Call, Moment, Part, Scripted};
use trap::{FREEZE, LATE, Traps};

/// The header that tells a server who asks.
const AUTHOR: &str = "sim-author";

/// One direction between two parties.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Link {
    pub from: String,
    pub to: String,
}

impl Link {
    pub fn new(from: &str, to: &str) -> Self {
        Self { from: from.to_owned(), to: to.to_owned() }
    }

    fn back(&self) -> Self {
        Self { from: self.to.clone(), to: self.from.clone() }
    }
}

/// One that sends: a replica, under the name that stays with it, and its process.
#[derive(Clone, Debug)]
pub struct Sender {
    /// The same after a restart: partitions and fates go by it.
    pub name: String,
    /// Another one after each restart: the author of changes.
    pub author: String,
    pub process: ProcessId,
}

/// A message that was sent.
#[derive(Clone, Debug)]
pub struct Sent {
    pub at: Duration,
    /// The author.
    pub by: String,
    pub to: String,
    /// The method and the path.
    pub what: String,
    pub body: Bytes,
    /// The sender was stopped just before: what it asked then may have changed.
    pub thawed: bool,
    /// When the sender got the answer of a call to etcd.
    pub answered: Option<Duration>,
}

/// The answer to a keepalive that says that its lease is gone.
#[derive(Clone, Debug)]
pub struct LeaseGone {
    pub at: Duration,
    /// The author of the keepalive.
    pub told: String,
    pub lease: i64,
}

/// The wire; clones share it.
#[derive(Clone)]
pub struct Wire(Arc<Shared>);

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Wire")
    }
}

struct Shared {
    seed: u64,
    scheduler: Scheduler,
    process: ProcessId,
    trace: Trace,
    /// Raised whenever a link opens or closes.
    changes: watch::Sender<u64>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    rates: Rates,
    closed: BTreeMap<Link, usize>,
    numbers: BTreeMap<Link, u64>,
    /// Frames of streams so far.
    frames: BTreeMap<Link, u64>,
    /// Messages of each sender, by its name.
    sent: BTreeMap<(Part, String), u64>,
    script: BTreeMap<(Part, String, u64), Moment>,
    /// By the name of the sender.
    traps: BTreeMap<String, Traps>,
    counts: BTreeMap<&'static str, u64>,
    log: Vec<Sent>,
    /// Streams that were to break later do not any more.
    healed: bool,
    /// When each sender got something from etcd, at most one time a second.
    heard: BTreeMap<String, Vec<Duration>>,
    leases_gone: Vec<LeaseGone>,
    /// The sender, the message and the fault of each moment that came.
    met: Vec<(Duration, String, String, Moment)>,
}

impl State {
    /// Counts a message; the fault that is planned at it.
    fn scripted(&mut self, part: Part, sender: &str) -> Option<Moment> {
        let count = self.sent.entry((part, sender.to_owned())).or_default();
        *count += 1;
        self.script.get(&(part, sender.to_owned(), *count)).copied()
    }
}

impl Wire {
    pub fn new(seed: u64, scheduler: &Scheduler, trace: &Trace) -> Self {
        let process = scheduler.process("wire");
        Self(Arc::new(Shared {
            seed,
            scheduler: scheduler.clone(),
            process,
            trace: trace.clone(),
            changes: watch::Sender::new(0),
            state: Mutex::default(),
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.0.scheduler.spawn(self.0.process, task);
    }

    /// From now on messages meet these fates.
    pub fn set_rates(&self, rates: Rates) {
        self.state().rates = rates;
    }

    /// Plans a fault of the sender at its message of that number.
    pub fn script(&self, sender: &str, part: Part, number: u64, moment: Moment) {
        self.state().script.insert((part, sender.to_owned(), number), moment);
    }

    /// Plans a fault of the sender at a message of this kind, after so many others of it.
    pub fn trap(&self, sender: &str, call: Call, skip: u64, moment: Moment) {
        self.state().traps.entry(sender.to_owned()).or_default().set(call, skip, moment);
    }

    /// The number of messages that a sender has sent, or of frames that it has got.
    pub fn sent_by(&self, sender: &str, part: Part) -> u64 {
        self.state().sent.get(&(part, sender.to_owned())).copied().unwrap_or_default()
    }

    /// Every message so far that could write, and every read of a Lease.
    pub fn log(&self) -> Vec<Sent> {
        self.state().log.clone()
    }

    /// Whether a sender got something from etcd within this time.
    pub fn heard_from_etcd(&self, author: &str, from: Duration, to: Duration) -> bool {
        self.state().heard.get(author).is_some_and(|times| times.iter().any(|at| *at >= from && *at <= to))
    }

    /// Every answer to a keepalive that told of the end of a lease.
    pub fn leases_gone(&self) -> Vec<LeaseGone> {
        self.state().leases_gone.clone()
    }

    fn heard(&self, author: &str) {
        const PAUSE: Duration = Duration::from_secs(1);
        let now = self.0.trace.elapsed();
        let mut state = self.state();
        let times = state.heard.entry(author.to_owned()).or_default();
        if times.last().is_none_or(|last| now >= *last + PAUSE) {
            times.push(now);
        }
    }

    /// The fault that a process met last, up to this time, and the message.
    pub fn met_last(&self, author: &str, at: Duration) -> Option<(String, Moment)> {
        let state = self.state();
        let mut met = state.met.iter().rev();
        let last = met.find(|(when, by, _, _)| by == author && *when <= at);
        last.map(|(_, _, message, moment)| (message.clone(), *moment))
    }

    fn lease_gone(&self, author: &str, lease: i64) {
        let at = self.0.trace.elapsed();
        self.state().leases_gone.push(LeaseGone { at, told: author.to_owned(), lease });
    }

    /// How often each kind of fate came.
    pub fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.state().counts.clone()
    }

    /// Counts a fault.
    pub fn count(&self, kind: &'static str) {
        *self.state().counts.entry(kind).or_default() += 1;
    }

    /// Closes a direction; it opens once it was opened as often as it was closed.
    pub fn close(&self, link: &Link) {
        *self.state().closed.entry(link.clone()).or_default() += 1;
        self.0.changes.send_modify(|count| *count += 1);
    }

    pub fn open(&self, link: &Link) {
        {
            let mut state = self.state();
            if let Some(count) = state.closed.get_mut(link) {
                *count -= 1;
                if *count == 0 {
                    state.closed.remove(link);
                }
            }
        }
        self.0.changes.send_modify(|count| *count += 1);
    }

    /// Opens everything, and takes all traps away.
    pub fn heal(&self) {
        {
            let mut state = self.state();
            state.closed.clear();
            state.traps.clear();
            state.healed = true;
        }
        self.0.changes.send_modify(|count| *count += 1);
    }

    pub fn is_open(&self, link: &Link) -> bool {
        !self.state().closed.contains_key(link)
    }

    async fn until_open(&self, link: &Link) {
        let mut changes = self.0.changes.subscribe();
        while !self.is_open(link) {
            // The sender lives as long as we.
            let _ = changes.changed().await;
        }
    }

    /// Ends once one of both directions has been closed for as long as pings wait for their answer.
    fn out_of_reach(&self, link: Link) -> BoxFuture<'static, ()> {
        let wire = self.clone();
        let back = link.back();
        Box::pin(async move {
            let mut changes = wire.0.changes.subscribe();
            loop {
                changes.borrow_and_update();
                if wire.is_open(&link) && wire.is_open(&back) {
                    let _ = changes.changed().await;
                    continue;
                }
                let opened = async {
                    loop {
                        let _ = changes.changed().await;
                        if wire.is_open(&link) && wire.is_open(&back) {
                            return;
                        }
                    }
                };
                if tokio::time::timeout(PINGS, opened).await.is_err() {
                    return;
                }
            }
        })
    }

    fn is_healed(&self) -> bool {
        self.state().healed
    }

    /// How long the next frame of a stream is under way.
    fn frame_delay(&self, link: &Link) -> Duration {
        let mut state = self.state();
        let number = state.frames.entry(link.clone()).or_default();
        *number += 1;
        let number = *number;
        let delay = fate::frame_delay(self.0.seed, state.rates, &link.from, &link.to, number);
        if delay >= NOTABLE {
            *state.counts.entry("frame late").or_default() += 1;
        }
        delay
    }

    fn next(&self, sender: &Sender, to: &str, summary: &str) -> (Fate, Option<Moment>) {
        let link = Link::new(&sender.name, to);
        let mut state = self.state();
        let trapped = state.traps.get_mut(&sender.name).and_then(|traps| traps.sprung(summary));
        let number = state.numbers.entry(link).or_default();
        *number += 1;
        let number = *number;
        let moment = state.scripted(Part::Request, &sender.name).or(trapped);
        (Fate::draw(self.0.seed, state.rates, &sender.name, to, number), moment)
    }

    /// Carries a request and its answer. `summary` is a line for the trace; `silence` breaks the answer's body.
    async fn carry<B, R>(
        self,
        sender: Sender,
        to: String,
        summary: String,
        mut request: Request<B>,
        ask: impl FnOnce(Request<B>) -> BoxFuture<'static, Result<Response<R>, BoxError>> + Send + 'static,
        silence: Option<Duration>,
    ) -> Result<Response<Incoming>, BoxError>
    where
        B: Send + 'static,
        R: Body<Data = Bytes> + Send + 'static,
        R::Error: Into<BoxError>,
    {
        let (mut fate, moment) = self.next(&sender, &to, &summary);
        if fate.request_delay.max(fate.answer_delay) >= NOTABLE {
            self.count("message late");
        }
        self.befall(&sender, &summary, moment, &mut fate).await;
        let author = HeaderValue::from_str(&sender.author)?;
        request.headers_mut().insert(AUTHOR, author);
        self.0.trace.add(&sender.name, &format!("→ {to} {summary}"));
        let link = Link::new(&sender.name, &to);
        let (answer, answered) = oneshot::channel();
        let (wire, there) = (self.clone(), link.clone());
        let streams = summary == "Watch" || summary == "LeaseKeepAlive" || summary.contains("watch=true");
        let reader = streams.then_some(sender.process);
        let crash_at = (moment == Some(Moment::CrashAfter)).then_some(sender.process);
        let freeze_answered = (moment == Some(Moment::FreezeAnswered)).then_some(sender.process);
        let crash_answered = (moment == Some(Moment::CrashAfterAnswer)).then_some(sender.process);
        self.spawn(async move {
            sleep(fate.request_delay).await;
            wire.until_open(&there).await;
            if let Some(process) = crash_at {
                wire.0.scheduler.crash(process);
            }
            match fate.request {
                Loss::None => {}
                Loss::Broken => {
                    wire.count("request lost");
                    let _ = answer.send(Err::<Response<Incoming>, BoxError>("the connection broke".into()));
                    return;
                }
                Loss::Silent => {
                    wire.count("request silent");
                    return hold(answer).await;
                }
            }
            let response = ask(request).await;
            sleep(fate.answer_delay).await;
            let back = there.back();
            wire.until_open(&back).await;
            if let Some(process) = crash_answered {
                wire.0.scheduler.crash(process);
            }
            let text = response.as_ref().map_or_else(ToString::to_string, |response| response.status().to_string());
            wire.0.trace.add(&there.to, &format!("→ {} {summary}: {text}", there.from));
            match fate.answer {
                Loss::None => {}
                Loss::Broken => {
                    wire.count("answer lost");
                    let _ = answer.send(Err("the connection broke".into()));
                    return;
                }
                Loss::Silent => {
                    wire.count("answer silent");
                    return hold(answer).await;
                }
            }
            if let Some(process) = freeze_answered {
                wire.freeze(process);
            }
            let carried =
                response.map(|response| response.map(|body| body::carry(&wire, back, body, fate, silence, reader)));
            // The sender may have given up.
            let _ = answer.send(carried);
        });
        tokio::select! {
            biased;
            answer = answered => answer.unwrap_or_else(|_| Err("the wire broke".into())),
            () = self.out_of_reach(link) => Err("the connection is dead".into()),
        }
    }

    /// A frame of a stream arrives at its reader: whether it is delivered, and the stream goes on.
    async fn arrives(&self, reader: &str, process: ProcessId) -> bool {
        let scheduler = &self.0.scheduler;
        let Some(moment) = self.state().scripted(Part::Frame, reader) else { return true };
        self.0.trace.add(reader, &format!("meets {moment:?} as a frame arrives"));
        match moment {
            Moment::CrashBefore => scheduler.crash(process),
            // After the frame has been read.
            Moment::CrashAfter | Moment::CrashAfterAnswer => scheduler.crash_after(process, 2),
            Moment::Freeze | Moment::FreezeAnswered => self.freeze(process),
            Moment::Late => sleep(LATE).await,
            Moment::LoseAnswer => return false,
        }
        true
    }

    async fn befall(&self, sender: &Sender, summary: &str, moment: Option<Moment>, fate: &mut Fate) {
        let scheduler = &self.0.scheduler;
        if let Some(moment) = moment {
            let at = self.0.trace.elapsed();
            self.state().met.push((at, sender.author.clone(), summary.to_owned(), moment));
            self.0.trace.add(&sender.name, &format!("meets {moment:?}"));
        }
        match moment {
            Some(Moment::CrashBefore) => {
                let (scheduler, process) = (scheduler.clone(), sender.process);
                self.spawn(async move { scheduler.crash(process) });
                std::future::pending::<()>().await;
            }
            Some(Moment::Freeze) => {
                self.freeze(sender.process);
                tokio::task::yield_now().await;
            }
            Some(Moment::LoseAnswer) => fate.answer = Loss::Broken,
            Some(Moment::Late) => fate.request_delay = LATE,
            Some(Moment::CrashAfter | Moment::CrashAfterAnswer | Moment::FreezeAnswered) | None => {}
        }
    }

    fn freeze(&self, process: ProcessId) {
        let scheduler = self.0.scheduler.clone();
        scheduler.freeze(process);
        self.spawn(async move {
            sleep(FREEZE).await;
            scheduler.thaw(process);
        });
    }

    fn answered(&self, request: usize) {
        let now = self.0.trace.elapsed();
        if let Some(sent) = self.state().log.get_mut(request) {
            sent.answered = Some(now);
        }
    }

    /// Enters a request into the log, and returns its number there.
    fn log_request(&self, by: &Sender, to: &str, what: &str, body: Bytes) -> usize {
        let at = self.0.trace.elapsed();
        let thawed = self.0.scheduler.thawed_within(by.process, THAWED);
        let answered = None;
        let sent = Sent { at, by: by.author.clone(), to: to.to_owned(), what: what.to_owned(), body, thawed, answered };
        let mut state = self.state();
        state.log.push(sent);
        state.log.len() - 1
    }
}

/// A message that is under way for so long is late.
const NOTABLE: Duration = Duration::from_millis(500);
/// A process that thawed sends what it was about to send within this time.
const THAWED: Duration = Duration::from_millis(100);
/// HTTP/2 pings and the time for their answer (`registry/etcd/connect.rs`).
const PINGS: Duration = Duration::from_secs(15);

/// Says nothing for as long as somebody listens.
async fn hold<T>(mut answer: oneshot::Sender<T>) {
    answer.closed().await;
}
