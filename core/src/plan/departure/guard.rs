//! The deletion guard of one direction of one service: the number of unexplained deletions that are allowed, and when.
//!
//! An unexplained deletion waits a little, because it is often the first of many. Many together are held, because a
//! broken registry is more likely than the end of so many servers. Every hold ends, because a guard that never releases
//! serves dead addresses (eureka#1073). Deletions that become unexplained while a hold runs may be another wave: at its
//! end they are judged anew.
//!
//! Owns the window, the limits and the hold. Refuses to know why a deletion is unexplained and from which side it
//! deletes; the guard of a whole registry is [`super::registry_guard`].

use std::collections::{BTreeMap, BTreeSet};

use jiff::SignedDuration;

use super::held::{Hold, Reported, Running, WINDOW};
use crate::Timestamp;
use crate::model::InstanceAddr;
use crate::plan::earlier;

/// Below the limits, deletions are allowed once this time has passed without another.
pub const QUIET: SignedDuration = SignedDuration::from_secs(10);

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
    pub const NONE: Self = Self { min_instances: usize::MAX, max_delete_percent: 100, hold: SignedDuration::ZERO };
}

/// A deletion that nothing explains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unexplained {
    pub since: Timestamp,
    /// The time of the departure, or at which the process missed what had departed. A later one of the same address is
    /// another.
    pub departed: Timestamp,
    /// Whether the process saw it depart: it was there until then.
    pub saw: bool,
    /// Another registry, or an older state of it, answered: the guard holds every such deletion.
    pub rollback: bool,
}

/// The state that one direction of a service keeps from plan to plan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Guard {
    window: Option<Window>,
    hold: Option<Running>,
    /// The hold of an earlier process, while its deletions may still become unexplained here.
    resumable: Option<Running>,
    /// Until when an earlier process held these deletions, its registry's hold included.
    reported_until: Option<Timestamp>,
    last_since: Option<Timestamp>,
    /// The departure behind each deletion.
    departed: BTreeMap<InstanceAddr, Timestamp>,
    /// The time at which each deletion became unexplained.
    arrivals: BTreeMap<InstanceAddr, Timestamp>,
    decided_at: Option<Timestamp>,
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

/// Holds, approvals and time that come from the objects, the registry as a whole, and the API server.
#[derive(Clone, Copy, Debug)]
pub struct GuardContext<'a> {
    /// Deletions that an administrator released.
    pub approved: &'a BTreeSet<InstanceAddr>,
    /// Before the first plan of a leadership: the hold that the status reports.
    pub restored: Option<Reported>,
    /// The hold of the whole registry.
    pub registry_hold: Option<Hold>,
    /// The hold of the whole registry in an earlier process, as long as it may still go on.
    pub registry_resumes: Option<Hold>,
    /// Deletions that an earlier hold of the whole registry let go.
    pub registry_let_go: &'a BTreeSet<InstanceAddr>,
    /// How far the API server's clock is ahead of ours.
    pub api_server_ahead: SignedDuration,
}

impl Default for GuardContext<'_> {
    fn default() -> Self {
        static NOTHING: BTreeSet<InstanceAddr> = BTreeSet::new();
        Self {
            approved: &NOTHING,
            restored: None,
            registry_hold: None,
            registry_resumes: None,
            registry_let_go: &NOTHING,
            api_server_ahead: SignedDuration::ZERO,
        }
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
    fn allowing(allowed: BTreeSet<InstanceAddr>) -> Self {
        Self { allowed, ..Self::default() }
    }

    fn holding(allowed: BTreeSet<InstanceAddr>, held: BTreeSet<InstanceAddr>, hold: Hold) -> Self {
        Self { allowed, held, hold: Some(hold), requeue_at: Some(hold.ends) }
    }
}

impl Guard {
    pub fn decide(&mut self, input: &GuardInput<'_>) -> GuardDecision {
        self.forget_former(input);
        let all = input.unexplained.keys().copied().filter(|addr| !self.released.contains(addr)).collect();
        self.note_arrivals(input, &all);
        self.resume(input);
        let mut decision = self.decide_on(input, all);
        if decision.hold.is_some() {
            decision.requeue_at = earlier(decision.requeue_at, self.registry_resumes(input).map(|hold| hold.ends));
        }
        self.released.extend(&decision.allowed);
        decision.allowed.clone_from(&self.released);
        self.decided_at = Some(input.now);
        decision
    }

    /// Forgets deletions that are none any more. A record may come back and go again between two decisions: that is
    /// another deletion, which no hold covers that began before, and which nobody allowed.
    fn forget_former(&mut self, input: &GuardInput<'_>) {
        let is_same = |addr: &InstanceAddr, departed: &Timestamp| {
            input.unexplained.get(addr).is_some_and(|unexplained| unexplained.departed <= *departed)
        };
        self.departed.retain(|addr, departed| is_same(addr, departed));
        self.arrivals.retain(|addr, _| self.departed.contains_key(addr));
        self.released.retain(|addr| self.departed.contains_key(addr));
        for (addr, unexplained) in input.unexplained {
            self.departed.entry(*addr).or_insert(unexplained.departed);
        }
    }

    /// Evidence may be older than the reason that it matters: a deletion that the last decision did not have becomes
    /// unexplained after it.
    fn note_arrivals(&mut self, input: &GuardInput<'_>, all: &BTreeSet<InstanceAddr>) {
        self.arrivals.retain(|addr, _| all.contains(addr));
        for addr in all {
            let since = input.unexplained[addr].since;
            let arrival = if self.decided_at.is_some_and(|before| since < before) { input.now } else { since };
            self.arrivals.entry(*addr).or_insert(arrival);
        }
    }

    /// Takes over the hold of an earlier process, and forgets it once its time is over.
    fn resume(&mut self, input: &GuardInput<'_>) {
        let (now, length, ahead) = (input.now, input.limits.hold, input.context.api_server_ahead);
        if let Some(Reported { since, until }) = input.context.restored {
            self.resumable = Running::resume(since, now, ahead, length);
            (self.last_since, self.reported_until) = (Some(since), until);
        }
        self.resumable = self.resumable.filter(|hold| now < hold.ends(length));
    }

    fn decide_on(&mut self, input: &GuardInput<'_>, all: BTreeSet<InstanceAddr>) -> GuardDecision {
        let (now, length) = (input.now, input.limits.hold);
        if all.is_empty() {
            self.hold = None;
            self.window = self.window.take().filter(|window| now < window.opened + WINDOW);
            return GuardDecision::default();
        }
        self.open_window(now, input.known, &all);
        let (mut allowed, mut rest): (BTreeSet<_>, BTreeSet<_>) =
            all.into_iter().partition(|addr| input.context.approved.contains(addr));
        if !allowed.is_empty() {
            // An approval releases one hold, once: deletions that came meanwhile are judged anew.
            self.end_hold(&allowed);
        }
        // The start of a hold that begins now. Deletions that an ended hold did not cover are held from their own time.
        let mut start = now;
        while !rest.is_empty() {
            self.open_window(now, input.known.saturating_sub(allowed.len()), &rest);
            if self.hold.is_none() {
                self.hold =
                    self.resumable.or_else(|| self.limit_reached(input, &rest).then(|| self.begin(input, start)));
            }
            let Some(running) = self.hold else { return self.without_own_hold(input, allowed, rest) };
            let registry = self.registry_hold(input);
            if now < running.ends(length) {
                let own = running.hold(length);
                return GuardDecision::holding(allowed, rest, registry.map_or(own, |hold| joint(own, hold)));
            }
            let (covered, others): (BTreeSet<_>, BTreeSet<_>) =
                rest.into_iter().partition(|addr| self.is_covered(addr, running, input));
            if let Some(hold) = registry {
                // The whole registry is held for longer.
                let blocked: BTreeSet<_> = covered.difference(input.context.registry_let_go).copied().collect();
                if !blocked.is_empty() {
                    let going: BTreeSet<_> = covered.difference(&blocked).copied().collect();
                    self.count(&going);
                    allowed.extend(going);
                    let held = blocked.into_iter().chain(others).collect();
                    return GuardDecision::holding(allowed, held, joint(running.hold(length), hold));
                }
            }
            self.end_hold(&covered);
            allowed.extend(covered);
            start = self.first_arrival(&others).unwrap_or(now);
            rest = others;
        }
        self.hold = None;
        GuardDecision::allowing(allowed)
    }

    /// Deletions below the limits of the service wait for the end of the registry's hold, or for a quiet time.
    fn without_own_hold(
        &mut self,
        input: &GuardInput<'_>,
        mut allowed: BTreeSet<InstanceAddr>,
        mut rest: BTreeSet<InstanceAddr>,
    ) -> GuardDecision {
        if let Some(hold) = self.registry_hold(input) {
            let going: BTreeSet<_> = rest.intersection(input.context.registry_let_go).copied().collect();
            let held: BTreeSet<_> = rest.difference(&going).copied().collect();
            if !held.is_empty() {
                self.count(&going);
                allowed.extend(going);
                return GuardDecision::holding(allowed, held, hold);
            }
            rest = going;
        }
        let quiet = rest.iter().map(|addr| self.arrivals[addr]).max().unwrap_or(input.now) + QUIET;
        if input.now >= quiet {
            self.count(&rest);
            allowed.extend(rest);
            return GuardDecision::allowing(allowed);
        }
        GuardDecision { allowed, held: rest, hold: None, requeue_at: Some(quiet) }
    }

    fn is_covered(&self, addr: &InstanceAddr, by: Running, input: &GuardInput<'_>) -> bool {
        let saw = input.unexplained[addr].saw;
        by.covers_departed(self.departed[addr], saw, self.arrivals[addr], input.limits.hold)
    }

    fn begin(&mut self, input: &GuardInput<'_>, start: Timestamp) -> Running {
        let running = Running::begin(start, input.context.api_server_ahead, self.last_since);
        self.last_since = Some(running.since());
        running
    }

    fn first_arrival(&self, of: &BTreeSet<InstanceAddr>) -> Option<Timestamp> {
        of.iter().map(|addr| self.arrivals[addr]).min()
    }

    fn open_window(&mut self, now: Timestamp, known: usize, all: &BTreeSet<InstanceAddr>) {
        if self.window.as_ref().is_none_or(|window| now >= window.opened + WINDOW) {
            let opened = self.first_arrival(all).unwrap_or(now);
            self.window = Some(Window { opened, known, deleted: BTreeSet::new() });
        }
    }

    fn limit_reached(&self, input: &GuardInput<'_>, all: &BTreeSet<InstanceAddr>) -> bool {
        let Some(window) = &self.window else { return false };
        let (limits, would_go) = (input.limits, window.deleted.union(all).count());
        let many = window.known >= limits.min_instances && would_go * 100 > window.known * limits.max_delete_percent;
        many || input.would_be_empty || all.iter().any(|addr| input.unexplained[addr].rollback)
    }

    fn end_hold(&mut self, released: &BTreeSet<InstanceAddr>) {
        self.hold = None;
        (self.resumable, self.reported_until) = (None, None);
        self.count(released);
    }

    fn registry_hold(&self, input: &GuardInput<'_>) -> Option<Hold> {
        input.context.registry_hold.filter(|hold| input.now < hold.ends).or_else(|| self.registry_resumes(input))
    }

    /// The hold of the registry that held these deletions too in an earlier process. The services report to the new
    /// one's guard one after the other, and none may let go meanwhile.
    fn registry_resumes(&self, input: &GuardInput<'_>) -> Option<Hold> {
        let held = |hold: &Hold| self.reported_until.is_some_and(|until| hold.until <= until);
        input.context.registry_resumes.filter(|hold| held(hold) && input.now < hold.ends)
    }

    fn count(&mut self, allowed: &BTreeSet<InstanceAddr>) {
        if let Some(window) = &mut self.window {
            window.deleted.extend(allowed);
        }
    }

    /// Whether the hold of an earlier process may still go on.
    pub fn may_resume(&self) -> bool {
        self.resumable.is_some()
    }

    /// The deletions carried out in the window, for the registry's guard: the end of the window, and their number.
    pub fn deleted(&self) -> Option<(Timestamp, usize)> {
        let window = self.window.as_ref().filter(|window| !window.deleted.is_empty())?;
        Some((window.opened + WINDOW, window.deleted.len()))
    }
}

/// The hold of the service, which lasts at least as long as that of the registry.
fn joint(own: Hold, registry: Hold) -> Hold {
    Hold { since: own.since, ..own.and(registry) }
}

#[cfg(test)]
#[path = "guard_tests.rs"]
pub(super) mod tests;
