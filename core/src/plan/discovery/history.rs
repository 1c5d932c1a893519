//! The writes of discovery: those that were sent, and how they were answered.
//!
//! Owns how long a write is left alone whose effect the view does not show yet, or that the API server refused, and
//! which created objects may show at any time. Refuses to send anything, and to know a pace.

use std::collections::{BTreeMap, BTreeSet};

use jiff::SignedDuration;

use super::facts::{SHOWN, Wanted};
use super::refusals::{Refusals, Why};
use super::{Delete, Update};
use crate::Timestamp;
use crate::model::ServiceKey;

/// The time after which a refused write is tried again; it doubles with each further refusal.
const AGAIN: SignedDuration = SignedDuration::from_secs(30);
/// The longest time after which a refused write is tried again.
const LONGEST: SignedDuration = SignedDuration::from_mins(4);
/// How long a created object may fail to show: a watch that says nothing for longer ends all writing.
const LATE: SignedDuration = SignedDuration::from_secs(90);

/// A write of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    Create(Wanted),
    Update(Update),
    Delete(Delete),
}

impl Op {
    pub fn key(&self) -> &ServiceKey {
        match self {
            Self::Create(wanted) => &wanted.key,
            Self::Update(update) => &update.wanted.key,
            Self::Delete(delete) => &delete.key,
        }
    }

    /// The version that it rests on; `None` where there is no object.
    fn version(&self) -> Option<&str> {
        match self {
            Self::Create(_) => None,
            Self::Update(update) => Some(&update.version),
            Self::Delete(delete) => Some(&delete.version),
        }
    }

    /// The object that it makes; `None` for a deletion.
    fn makes(&self) -> Option<&Wanted> {
        match self {
            Self::Create(wanted) => Some(wanted),
            Self::Update(update) => Some(&update.wanted),
            Self::Delete(_) => None,
        }
    }
}

/// The kind of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The operator lacks a verb.
    Forbidden,
    /// The API server refused this object.
    Refused,
    /// No answer, or another one that tells nothing about the object: the write may have been done.
    Unanswered,
}

/// A failure with its words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub kind: Kind,
    pub message: String,
}

/// A write that was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Sent {
    op: Op,
    at: Timestamp,
    until: Timestamp,
    failure: Option<Failure>,
    /// How often it was refused in a row.
    refusals: u32,
}

impl Sent {
    fn is_refused(&self) -> bool {
        self.failure.as_ref().is_some_and(|failure| failure.kind != Kind::Unanswered)
    }

    /// Whether an operation asks for the same: a refusal stands whatever else of the object has changed.
    fn asks_for(&self, op: &Op) -> bool {
        self.op.makes() == op.makes()
    }

    /// Whether the object that it created may show by now or later.
    fn may_show(&self, now: Timestamp) -> bool {
        matches!(self.op, Op::Create(_)) && !self.is_refused() && now.duration_since(self.at) < LATE
    }
}

/// The writes that were sent a while ago, of one ServiceRegistry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History(BTreeMap<ServiceKey, Sent>);

impl History {
    /// A write was answered, or may have been done.
    pub fn note(&mut self, op: &Op, failure: Option<Failure>, now: Timestamp) {
        let before = self.0.get(op.key()).filter(|sent| sent.is_refused() && sent.asks_for(op));
        let refused_before = before.map_or(0, |sent| sent.refusals);
        let is_refused = failure.as_ref().is_some_and(|failure| failure.kind != Kind::Unanswered);
        let wait = if is_refused { (AGAIN * 2_i32.pow(refused_before.min(8))).min(LONGEST) } else { SHOWN };
        let until = now.checked_add(wait).unwrap_or(Timestamp::MAX);
        let refusals = if is_refused { refused_before.saturating_add(1) } else { 0 };
        if failure.is_none() && refused_before > 0 {
            // A quota, a policy or a missing verb refused more than one as a rule, and lets them all through now.
            self.0.values_mut().filter(|sent| sent.is_refused()).for_each(|sent| sent.until = sent.until.min(now));
        }
        self.0.insert(op.key().clone(), Sent { op: op.clone(), at: now, until, failure, refusals });
    }

    /// When the next write may be tried again, or has to show.
    pub fn next(&self, now: Timestamp) -> Option<Timestamp> {
        self.0.values().map(|sent| sent.until).filter(|until| now < *until).min()
    }

    /// Forgets what is over, and refusals of what is not asked for any more.
    pub(super) fn forget<'a>(&mut self, planned: impl Iterator<Item = &'a Op>, now: Timestamp) {
        let of = |op: &Op| self.0.get(op.key()).is_some_and(|sent| sent.is_refused() && sent.asks_for(op));
        let refused: BTreeSet<ServiceKey> = planned.filter(|op| of(op)).map(|op| op.key().clone()).collect();
        self.0.retain(
            |key, sent| {
                if sent.is_refused() { refused.contains(key) } else { now < sent.until || sent.may_show(now) }
            },
        );
    }

    /// Nothing is written any more: then nothing is refused.
    pub fn forget_refusals(&mut self) {
        self.0.retain(|_, sent| !sent.is_refused());
    }

    /// Until when a write waits, because it was sent and nothing has changed since, or was refused.
    pub(super) fn waits(&self, op: &Op, now: Timestamp) -> Option<Timestamp> {
        let sent = self.0.get(op.key()).filter(|sent| now < sent.until)?;
        let is_same = if sent.is_refused() { sent.asks_for(op) } else { sent.op.version() == op.version() };
        is_same.then_some(sent.until)
    }

    /// Until when a write waited that was refused.
    pub(super) fn refused_until(&self, op: &Op) -> Option<Timestamp> {
        self.0.get(op.key()).filter(|sent| sent.is_refused() && sent.asks_for(op)).map(|sent| sent.until)
    }

    /// The objects that were created, by what is known, and which the view may lack.
    pub fn created(&self, now: Timestamp) -> BTreeMap<ServiceKey, Wanted> {
        let shows_late = self.0.iter().filter(|(_, sent)| sent.may_show(now));
        shows_late.filter_map(|(key, sent)| Some((key.clone(), sent.op.makes()?.clone()))).collect()
    }

    /// The words of the first failure of a kind that stands.
    pub fn failure(&self, kind: Kind, now: Timestamp) -> Option<&str> {
        let stands = |sent: &&Sent| sent.is_refused() || now < sent.until;
        let mut failures = self.0.values().filter(stands).filter_map(|sent| sent.failure.as_ref());
        failures.find(|failure| failure.kind == kind).map(|failure| failure.message.as_str())
    }

    /// Adds what the API server refused.
    pub fn tell(&self, refusals: &mut Refusals) {
        for (key, sent) in self.0.iter().filter(|(_, sent)| sent.is_refused()) {
            if let Some(failure) = &sent.failure {
                refusals.add(&format!("RegisteredService {key}"), Why::Refused, &failure.message);
            }
        }
    }
}
