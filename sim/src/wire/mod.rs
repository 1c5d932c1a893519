//! The wire: carries every message between a replica and a server, and decides its fate.
//!
//! - [`fate`]: the draw. [`trap`]: faults at one message. [`links`]: partitions. [`body`]: frames. [`log`]: what was
//!   sent and heard. [`losses`]: events that a watch never tells. [`kube`]: the way to an API server. [`etcd`]: the way
//!   to an etcd member.
//!
//! Owns the numbers of messages and their fates by script. A request that was sent is carried in a task of the wire: it
//! arrives, and is applied, though its sender died, froze or gave up. Refuses to know its content.

mod body;
pub mod etcd;
pub mod fate;
pub mod kube;
mod links;
mod log;
mod losses;
mod trap;

use std::collections::{BTreeMap, BTreeSet};
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
pub use links::Link;
pub use log::{LeaseGone, Met, Sent};
pub use trap::{Call, Moment, Part, Scripted};
use trap::{FREEZE, LATE, Traps};

/// The header that tells a server who asks.
const AUTHOR: &str = "sim-author";

/// One that sends: a replica, under the name that stays with it, and its process.
#[derive(Clone, Debug)]
pub struct Sender {
    /// The same after a restart: partitions and fates go by it.
    pub name: String,
    /// Another one after each restart: the author of changes.
    pub author: String,
    pub process: ProcessId,
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
    /// The names of the senders that are not told of their next events.
    losing: BTreeSet<String>,
    counts: BTreeMap<&'static str, u64>,
    log: Vec<Sent>,
    /// Streams that were to break later do not any more.
    healed: bool,
    /// When each sender got something from etcd, at most one time a second.
    heard: BTreeMap<String, Vec<Duration>>,
    leases_gone: Vec<LeaseGone>,
    /// The moments that came.
    met: Vec<Met>,
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

    /// How often each kind of fate came.
    pub fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.state().counts.clone()
    }

    /// Counts a fault.
    pub fn count(&self, kind: &'static str) {
        *self.state().counts.entry(kind).or_default() += 1;
    }

    /// Opens everything, and takes all traps away.
    pub fn heal(&self) {
        {
            let mut state = self.state();
            state.closed.clear();
            state.traps.clear();
            state.losing.clear();
            state.healed = true;
        }
        self.0.changes.send_modify(|count| *count += 1);
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
            if let Some(process) = crash_at.filter(|_| !wire.is_healed()) {
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
            // A message that the end of the storm lets through meets no fault any more: nobody would start the process.
            if let Some(process) = crash_answered.filter(|_| !wire.is_healed()) {
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
            if let Some(process) = freeze_answered.filter(|_| !wire.is_healed()) {
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
            self.meets(sender, summary, moment);
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
}

/// A message that is under way for so long is late.
const NOTABLE: Duration = Duration::from_millis(500);

/// Says nothing for as long as somebody listens.
async fn hold<T>(mut answer: oneshot::Sender<T>) {
    answer.closed().await;
}
