//! The deletion guards of whole registries, shared by all services.
//!
//! Owns one guard for each ServiceRegistry and term of leadership. Refuses to decide:
//! [`twinspan_core::plan::departure::registry_guard`] does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::SignedDuration;
use twinspan_core::Timestamp;
use twinspan_core::model::ServiceKey;
use twinspan_core::plan::departure::held::Hold;
use twinspan_core::plan::departure::registry_guard::{self, Approval, Moment, RegistryGuard, ServiceDeletions};
use twinspan_core::plan::service::Term;

use crate::env::Env;

/// The guards by the name of the ServiceRegistry; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Guards(Arc<Mutex<BTreeMap<String, InTerm>>>);

#[derive(Debug)]
struct InTerm {
    term: Term,
    guard: RegistryGuard,
    /// RegisteredServices that a sweep of discovery wants to delete.
    sweeps: BTreeSet<ServiceKey>,
    /// RegisteredServices that discovery deleted, and until when that explains what they leave behind.
    decided: BTreeMap<ServiceKey, Timestamp>,
}

/// How long the decision of a sweep explains what its RegisteredService leaves behind.
const DECIDED: SignedDuration = SignedDuration::from_mins(10);

/// The part of a sweep that the guard lets go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    pub let_go: BTreeSet<ServiceKey>,
    /// How many are held.
    pub held: usize,
    /// Until when they are held, on the API server's clock, and on that of the process.
    pub until: Option<Timestamp>,
    pub held_until: Option<Timestamp>,
    /// Releases them.
    pub hash: Option<String>,
    pub effect: Effect,
}

/// The held deletions of a whole registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistryHold {
    pub deletions: usize,
    pub hold: Hold,
    /// The number of RegisteredServices that are gone, if the hold is of theirs too.
    pub gone: usize,
    /// The number of RegisteredServices that a sweep of discovery would delete.
    pub sweeps: usize,
    /// Identifies the held set, for its approval.
    pub hash: String,
}

/// The effect of a report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Effect {
    #[default]
    Nothing,
    /// The status of the ServiceRegistry says something else.
    Status,
    /// Every service of the registry has to be reconciled.
    Everything,
}

impl Guards {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, InTerm>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins the guard of a term, unless it has begun: it resumes the hold that the status of the ServiceRegistry
    /// reports, and knows nothing of former terms.
    pub fn begin(&self, registry: &str, term: Term, restored: Option<Timestamp>, env: &Env) {
        let (mut all, at) = (self.lock(), moment(env));
        // A pass of a former term may end after the next term began.
        if all.get(registry).is_none_or(|current| current.term.0 < term.0) {
            let guard = RegistryGuard::restored(restored, at);
            let (sweeps, decided) = Default::default();
            all.insert(registry.to_owned(), InTerm { term, guard, sweeps, decided });
        }
    }

    /// Takes the report of one service.
    pub fn report(
        &self,
        registry: &str,
        service: &ServiceKey,
        deletions: Option<ServiceDeletions>,
        env: &Env,
    ) -> Effect {
        let mut all = self.lock();
        let Some(InTerm { guard, .. }) = all.get_mut(registry) else { return Effect::Nothing };
        let renamed = guard.renames(service, deletions.as_ref());
        match guard.report(service, deletions, moment(env)) {
            true => Effect::Everything,
            false if renamed => Effect::Status,
            false => Effect::Nothing,
        }
    }

    /// Asks for the deletion of discovered RegisteredServices whose reason is gone, while so many others stay. Nothing
    /// may go before the guard began.
    pub fn sweep(&self, registry: &str, going: &BTreeSet<ServiceKey>, staying: usize, env: &Env) -> Swept {
        let (mut all, at) = (self.lock(), moment(env));
        let Some(InTerm { guard, sweeps, decided, .. }) = all.get_mut(registry) else { return Swept::default() };
        decided.retain(|_, until| at.now < *until);
        let mut effect = Effect::Nothing;
        let mut report = |key: &ServiceKey, deletions: Option<ServiceDeletions>| {
            let alias = registry_guard::sweep_of(key);
            let renamed = guard.renames(&alias, deletions.as_ref());
            match guard.report(&alias, deletions, at) {
                true => effect = Effect::Everything,
                false if renamed && effect == Effect::Nothing => effect = Effect::Status,
                false => {}
            }
        };
        for key in std::mem::replace(sweeps, going.clone()).difference(going) {
            // One that was deleted counts for the rest of its window; one that is wanted again does not.
            let deletions = (!decided.contains_key(key)).then(ServiceDeletions::default);
            report(key, deletions);
        }
        for key in going {
            let (held, remaining) = (BTreeSet::from([registry_guard::SWEEP.to_owned()]), Some(staying));
            report(key, Some(ServiceDeletions { held, remaining, ..ServiceDeletions::default() }));
        }
        guard.end(at);
        let hold = guard.hold_of_sweeps(at.now);
        let may_go = |key: &&ServiceKey| {
            let alias = registry_guard::sweep_of(key);
            hold.is_none() || guard.released(&alias).is_some() || guard.let_go(&alias).is_some()
        };
        let let_go: BTreeSet<ServiceKey> = going.iter().filter(may_go).cloned().collect();
        let held = going.len() - let_go.len();
        let hold = hold.filter(|_| held > 0);
        Swept {
            let_go,
            held,
            until: hold.map(|hold| hold.until),
            held_until: hold.map(|hold| hold.ends),
            hash: hold.and_then(|_| guard.hash(at.now)),
            effect,
        }
    }

    /// Discovery deletes a RegisteredService: what it leaves behind needs no second decision.
    pub fn decided(&self, registry: &str, key: &ServiceKey, env: &Env) {
        if let Some(InTerm { decided, .. }) = self.lock().get_mut(registry) {
            decided.insert(key.clone(), env.now().checked_add(DECIDED).unwrap_or(Timestamp::MAX));
        }
    }

    /// The deletion was not carried out, or the RegisteredService is there again.
    pub fn undecide(&self, registry: &str, key: &ServiceKey) {
        if let Some(InTerm { decided, .. }) = self.lock().get_mut(registry) {
            decided.remove(key);
        }
    }

    /// Whether discovery deleted a RegisteredService a while ago.
    pub fn is_decided(&self, registry: &str, key: &ServiceKey, env: &Env) -> bool {
        let until = self.lock().get(registry).and_then(|all| all.decided.get(key).copied());
        until.is_some_and(|until| env.now() < until)
    }

    /// Whether the hold of an earlier process may still go on.
    pub fn may_resume(&self, registry: &str, env: &Env) -> bool {
        self.lock().get(registry).is_some_and(|all| all.guard.may_resume(env.now()))
    }

    /// The hold of an earlier process, as long as it may still go on.
    pub fn resumes(&self, registry: &str, env: &Env) -> Option<Hold> {
        self.lock().get(registry)?.guard.resumes(env.now())
    }

    /// Notes that an approval was refused for the hold with this hash. Returns false if it was before.
    pub fn refuse(&self, registry: &str, hash: &str) -> bool {
        self.lock().get_mut(registry).is_some_and(|all| all.guard.refuse(hash))
    }

    /// Releases every held deletion if the hash identifies the hold.
    pub fn approve(&self, registry: &str, hash: &str, env: &Env) -> Approval {
        self.lock().get_mut(registry).map_or(Approval::Other, |all| all.guard.approve(hash, env.now()))
    }

    /// The approved deletions of a service.
    pub fn released(&self, registry: &str, service: &ServiceKey) -> BTreeSet<String> {
        self.lock().get(registry).and_then(|all| all.guard.released(service).cloned()).unwrap_or_default()
    }

    /// The hold of a registry's instances, and the deletions of a service that an earlier one let go.
    pub fn hold(&self, registry: &str, service: &ServiceKey, env: &Env) -> (Option<Hold>, BTreeSet<String>) {
        let (mut all, at) = (self.lock(), moment(env));
        let Some(InTerm { guard, .. }) = all.get_mut(registry) else { return Default::default() };
        guard.end(at);
        (guard.hold_of_instances(at.now), guard.let_go(service).cloned().unwrap_or_default())
    }

    /// The same for a RegisteredService that is gone.
    pub fn hold_of_gone(&self, registry: &str, service: &ServiceKey, env: &Env) -> (Option<Hold>, BTreeSet<String>) {
        let (mut all, at) = (self.lock(), moment(env));
        let Some(InTerm { guard, .. }) = all.get_mut(registry) else { return Default::default() };
        guard.end(at);
        (guard.hold_of_gone(at.now), guard.let_go(service).cloned().unwrap_or_default())
    }

    /// The hold with the number of its deletions and the hash that approves them.
    pub fn held(&self, registry: &str, env: &Env) -> Option<RegistryHold> {
        let (mut all, at) = (self.lock(), moment(env));
        let InTerm { guard, .. } = all.get_mut(registry)?;
        guard.end(at);
        let (deletions, gone, sweeps) = (guard.deletions(), guard.gone(), guard.sweeps());
        Some(RegistryHold { hold: guard.hold(at.now)?, deletions, gone, sweeps, hash: guard.hash(at.now)? })
    }

    /// Forgets a registry that is gone, or in which this process does not lead any more.
    pub fn forget(&self, registry: &str) {
        self.lock().remove(registry);
    }
}

fn moment(env: &Env) -> Moment {
    Moment { now: env.now(), api_server_ahead: env.api_server_ahead() }
}

#[cfg(test)]
#[path = "guards_tests.rs"]
mod tests;
