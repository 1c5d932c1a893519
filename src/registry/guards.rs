//! The deletion guards of whole registries, shared by all services.
//!
//! Owns one guard for each ServiceRegistry and term of leadership. Refuses to decide:
//! [`twinspan_core::plan::departure::registry_guard`] does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use twinspan_core::Timestamp;
use twinspan_core::model::ServiceKey;
use twinspan_core::plan::departure::held::Hold;
use twinspan_core::plan::departure::registry_guard::{Approval, Moment, RegistryGuard, ServiceDeletions};
use twinspan_core::plan::service::Term;

use crate::env::Env;

/// The guards by the name of the ServiceRegistry; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Guards(Arc<Mutex<BTreeMap<String, InTerm>>>);

#[derive(Debug)]
struct InTerm {
    term: Term,
    guard: RegistryGuard,
}

/// The held deletions of a whole registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistryHold {
    pub deletions: usize,
    pub hold: Hold,
    /// The number of RegisteredServices that are gone, if the hold is of theirs too.
    pub gone: usize,
    /// Identifies the held set, for its approval.
    pub hash: String,
}

/// The effect of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
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
            all.insert(registry.to_owned(), InTerm { term, guard: RegistryGuard::restored(restored, at) });
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

    /// Whether the hold of an earlier process may still go on.
    pub fn may_resume(&self, registry: &str, env: &Env) -> bool {
        self.lock().get(registry).is_some_and(|all| all.guard.may_resume(env.now()))
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

    /// The hold of a registry, and the deletions of a service that an earlier one let go.
    pub fn hold(&self, registry: &str, service: &ServiceKey, env: &Env) -> (Option<Hold>, BTreeSet<String>) {
        let (mut all, at) = (self.lock(), moment(env));
        let Some(InTerm { guard, .. }) = all.get_mut(registry) else { return Default::default() };
        guard.end(at);
        (guard.hold(at.now), guard.let_go(service).cloned().unwrap_or_default())
    }

    /// The same for a RegisteredService that is gone.
    pub fn hold_of_gone(&self, registry: &str, service: &ServiceKey, env: &Env) -> (Option<Hold>, BTreeSet<String>) {
        let (hold, let_go) = self.hold(registry, service, env);
        let gone = self.lock().get(registry).and_then(|all| all.guard.hold_of_gone(env.now()));
        (hold.and(gone), let_go)
    }

    /// The hold with the number of its deletions and the hash that approves them.
    pub fn held(&self, registry: &str, env: &Env) -> Option<RegistryHold> {
        let (mut all, at) = (self.lock(), moment(env));
        let InTerm { guard, .. } = all.get_mut(registry)?;
        guard.end(at);
        let (deletions, gone) = (guard.deletions(), guard.gone());
        Some(RegistryHold { hold: guard.hold(at.now)?, deletions, gone, hash: guard.hash(at.now)? })
    }

    /// Forgets a registry that is gone, or in which this process does not lead any more.
    pub fn forget(&self, registry: &str) {
        self.lock().remove(registry);
    }
}

fn moment(env: &Env) -> Moment {
    Moment { now: env.now(), api_server_ahead: env.api_server_ahead() }
}
