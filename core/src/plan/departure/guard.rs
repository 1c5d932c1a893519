//! The deletion guard of one direction of one service: the number of unexplained deletions that are allowed, and when.
//!
//! An unexplained deletion waits a little, because it is often the first of many. Many together are held, because a
//! broken registry is more likely than the end of so many servers. Every hold ends, because a guard that never releases
//! serves dead addresses (eureka#1073).
//!
//! Owns the window, the limits and the hold. Refuses to know why a deletion is unexplained and from which side it
//! deletes; the guard of a whole registry is [`super::registry_guard`].

use std::collections::{BTreeMap, BTreeSet};

use jiff::SignedDuration;

use super::held::Hold;
use crate::Timestamp;
use crate::model::InstanceAddr;

/// Below the limits, deletions are allowed once this time has passed without another.
pub const QUIET: SignedDuration = SignedDuration::from_secs(10);
/// Deletions count together for this time from the first.
pub const WINDOW: SignedDuration = SignedDuration::from_secs(60);

/// `spec.deletionGuard`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// In a service with fewer instances, only the deletion of the last one is held.
    pub min_instances: usize,
    /// 0 to 100.
    pub max_delete_percent: usize,
    pub hold: SignedDuration,
}

impl Limits {
    /// No limit is ever reached, because every deletion is intended.
    pub const NONE: Self = Self { min_instances: 0, max_delete_percent: 100, hold: SignedDuration::ZERO };
}

/// A deletion that nothing explains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unexplained {
    pub since: Timestamp,
    /// Another registry, or an older state of it, answered: the guard holds every such deletion.
    pub rollback: bool,
}

/// The state that one direction of a service keeps from plan to plan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Guard {
    window: Option<Window>,
    held_since: Option<Timestamp>,
    /// Start of the hold of an earlier process, from the status.
    restored_hold_since: Option<Timestamp>,
    /// Deletions that were allowed and appear again because the view has not shown the write yet.
    released: BTreeSet<InstanceAddr>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Window {
    opened: Timestamp,
    /// Instances at the start of the window.
    known: usize,
    /// Deletions that were carried out.
    deleted: BTreeSet<InstanceAddr>,
}

/// Everything that a decision rests on.
#[derive(Clone, Copy, Debug)]
pub struct GuardInput<'a> {
    pub unexplained: &'a BTreeMap<InstanceAddr, Unexplained>,
    /// All current instances, including those whose deletion is unexplained.
    pub known: usize,
    /// Whether the deletions would leave the service without an instance.
    pub would_be_empty: bool,
    pub limits: Limits,
    pub context: GuardContext<'a>,
    pub now: Timestamp,
}

/// Holds and approvals that come from the objects and from the registry as a whole.
#[derive(Clone, Copy, Debug)]
pub struct GuardContext<'a> {
    /// Deletions that an administrator released.
    pub approved: &'a BTreeSet<InstanceAddr>,
    /// Before the first plan of a leadership: the start of the hold that the status reports.
    pub restored_hold_since: Option<Timestamp>,
    /// The hold of the whole registry.
    pub registry_hold: Option<Hold>,
}

impl Default for GuardContext<'_> {
    fn default() -> Self {
        static NOTHING: BTreeSet<InstanceAddr> = BTreeSet::new();
        Self { approved: &NOTHING, restored_hold_since: None, registry_hold: None }
    }
}

/// The allowed deletions, and those that are held for now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GuardDecision {
    pub allowed: BTreeSet<InstanceAddr>,
    /// Every other deletion.
    pub held: BTreeSet<InstanceAddr>,
    /// The hold, if a limit was reached; without one the held deletions only wait for a quiet time.
    pub hold: Option<Hold>,
    pub requeue_at: Option<Timestamp>,
}

impl GuardDecision {
    fn holding(allowed: BTreeSet<InstanceAddr>, held: BTreeSet<InstanceAddr>, hold: Hold) -> Self {
        Self { allowed, held, hold: Some(hold), requeue_at: Some(hold.until) }
    }
}

impl Guard {
    pub fn decide(&mut self, input: &GuardInput<'_>) -> GuardDecision {
        self.released.retain(|addr| input.unexplained.contains_key(addr));
        let all = input.unexplained.keys().copied().filter(|addr| !self.released.contains(addr)).collect();
        let mut decision = self.decide_on(input, all);
        self.released.extend(&decision.allowed);
        decision.allowed.clone_from(&self.released);
        decision
    }

    fn decide_on(&mut self, input: &GuardInput<'_>, all: BTreeSet<InstanceAddr>) -> GuardDecision {
        let (now, hold) = (input.now, input.limits.hold);
        // Nothing is unexplained yet, but the deletions that an earlier process held may still become so.
        let restored = input.context.restored_hold_since.or(self.restored_hold_since);
        self.restored_hold_since = restored.filter(|since| now < (*since).min(now) + hold);
        if all.is_empty() {
            self.held_since = None;
            self.window = self.window.take().filter(|window| now < window.opened + WINDOW);
            return GuardDecision::default();
        }
        let limit = self.limit_reached(input, &all);
        if self.held_since.is_none() {
            self.held_since = self.restored_hold_since.or(limit.then_some(now));
        }
        let last = all.iter().map(|addr| input.unexplained[addr].since.min(now)).max().unwrap_or(now);
        let (approved, rest): (BTreeSet<_>, BTreeSet<_>) =
            all.into_iter().partition(|addr| input.context.approved.contains(addr));
        if rest.is_empty() {
            return self.release(approved);
        }
        if let Some(since) = self.held_since {
            let until = since.min(now) + hold;
            if now >= until {
                return self.release(approved.into_iter().chain(rest).collect());
            }
            self.count(&approved);
            let until = until.max(input.context.registry_hold.map_or(until, |hold| hold.until));
            return GuardDecision::holding(approved, rest, Hold { since, until });
        }
        if let Some(hold) = input.context.registry_hold.filter(|hold| now < hold.until) {
            self.count(&approved);
            return GuardDecision::holding(approved, rest, hold);
        }
        let quiet = last + QUIET;
        if now >= quiet {
            return self.release(approved.into_iter().chain(rest).collect());
        }
        self.count(&approved);
        GuardDecision { allowed: approved, held: rest, hold: None, requeue_at: Some(quiet) }
    }

    fn limit_reached(&mut self, input: &GuardInput<'_>, all: &BTreeSet<InstanceAddr>) -> bool {
        let first = all.iter().map(|addr| input.unexplained[addr].since).min().unwrap_or(input.now);
        let open = self.window.as_ref().is_some_and(|window| input.now < window.opened + WINDOW);
        if !open {
            self.window = Some(Window { opened: first.min(input.now), known: input.known, deleted: BTreeSet::new() });
        }
        let Some(window) = &self.window else { return false };
        let (limits, would_go) = (input.limits, window.deleted.union(all).count());
        let many = window.known >= limits.min_instances && would_go * 100 > window.known * limits.max_delete_percent;
        many || input.would_be_empty || all.iter().any(|addr| input.unexplained[addr].rollback)
    }

    fn release(&mut self, all: BTreeSet<InstanceAddr>) -> GuardDecision {
        self.held_since = None;
        self.restored_hold_since = None;
        self.count(&all);
        GuardDecision { allowed: all, ..GuardDecision::default() }
    }

    fn count(&mut self, allowed: &BTreeSet<InstanceAddr>) {
        if let Some(window) = &mut self.window {
            window.deleted.extend(allowed);
        }
    }

    /// The deletions carried out in the window, for the registry's guard: the end of the window, and their number.
    pub fn deleted(&self) -> Option<(Timestamp, usize)> {
        let window = self.window.as_ref().filter(|window| !window.deleted.is_empty())?;
        Some((window.opened + WINDOW, window.deleted.len()))
    }
}

#[cfg(test)]
#[path = "guard_tests.rs"]
pub(super) mod tests;
