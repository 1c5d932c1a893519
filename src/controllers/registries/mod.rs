//! ServiceRegistry: a session for each, made from (spec, Secrets), and its status.
//!
//! Owns which sessions run, and that no two are one and the same registry. A changed connection replaces the session and keeps the view; a deleted ServiceRegistry keeps its
//! session until the own records in it are withdrawn. Refuses to know records.

mod guards;
mod sessions;
pub mod settings;
mod status;
mod twins;

pub use guards::Guards;
pub use sessions::Registries;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};
use twinspan_core::model::{RegistryName, Revision};

use self::sessions::{Running, lock};
use self::settings::{Problem, Wanted};
use self::status::Written;
use self::twins::{Met, older_twin};
use super::conditions;
use super::context::Context;
use crate::api::ServiceRegistry;
use crate::api::conditions::{DELETIONS_HELD, Reason};
use crate::registry::epoch::Leader;
use crate::registry::etcd::EtcdConnector;
use crate::registry::handle::{RegistryEvent, RegistryHandle};
use crate::registry::{epoch, keeper, session};

/// How long a deleted registry's own records may take to be withdrawn before they are left to expire.
const WITHDRAW: Duration = Duration::from_secs(30);
/// How often that is looked at.
const WITHDRAW_POLL: Duration = Duration::from_millis(200);
/// Least time between two status writes of one ServiceRegistry.
const STATUS_PACE: Duration = Duration::from_secs(5);

/// Lets this process raise an epoch that nothing explains: its value.
pub const APPROVE_EPOCH: &str = "twinspan.dev/approve-epoch";

/// How soon a status that found no place is tried again.
const STATUS_RETRY: Duration = Duration::from_millis(250);

/// What the router tells the controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// A ServiceRegistry was created, changed or deleted.
    Check(String),
    /// Something that any of them may depend on changed.
    CheckAll,
    /// RegisteredServices that refer to it came, went or changed their names.
    Names(String),
    /// What its status says may have changed.
    Report(String),
}

/// Starts and stops sessions, and reports on them.
pub struct Controller {
    context: Context,
    leader: Leader,
    events: mpsc::UnboundedSender<RegistryEvent>,
    tasks: TaskTracker,
    /// Those that give epochs back, which ends before everything else does.
    epochs: TaskTracker,
    stop: CancellationToken,
    /// Whether the leases of own records are kept alive.
    keeps: bool,
    problems: BTreeMap<String, Problem>,
    /// Where those were found that had to be refused for it.
    met: BTreeMap<String, Met>,
    reported: BTreeMap<String, Instant>,
    due: BTreeMap<String, Instant>,
}

impl std::fmt::Debug for Controller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Controller")
    }
}

impl Controller {
    pub fn new(
        context: Context,
        leader: Leader,
        events: mpsc::UnboundedSender<RegistryEvent>,
        tasks: TaskTracker,
        epochs: TaskTracker,
        stop: CancellationToken,
        keeps: bool,
    ) -> Self {
        let (problems, met) = (BTreeMap::new(), BTreeMap::new());
        let (reported, due) = (BTreeMap::new(), BTreeMap::new());
        Self { context, leader, events, tasks, epochs, stop, keeps, problems, met, reported, due }
    }

    pub async fn run(mut self, mut commands: mpsc::UnboundedReceiver<Command>) {
        let stop = self.stop.clone();
        loop {
            let next = self.due.values().min().copied();
            let wait = async {
                match next {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                Some(command) = commands.recv() => match command {
                    Command::Check(name) => self.check(&name),
                    Command::CheckAll => self.check_all(),
                    Command::Names(name) => self.set_names(&name),
                    Command::Report(name) => {
                        self.judge(&name);
                        self.report_soon(&name);
                    }
                },
                () = wait => self.report_due().await,
            }
        }
    }

    fn check_all(&mut self) {
        let mut names: Vec<String> = self.context.cluster().service_registries.keys().cloned().collect();
        names.extend(lock(&self.context.registries.running).keys().cloned());
        names.sort();
        names.dedup();
        for name in names {
            self.check_one(&name);
        }
    }

    /// A session may have learnt which etcd it is connected to: before anything is written there it is looked at again.
    fn judge(&mut self, name: &str) {
        let handle = self.context.registries.get(name);
        if handle.is_some_and(|handle| handle.etcd().is_some() && !handle.is_admitted()) {
            self.check(name);
        }
    }

    /// Makes what runs for a ServiceRegistry, and for those that it may be one and the same registry with, what should run.
    fn check(&mut self, name: &str) {
        self.check_one(name);
        let refused = self.problems.iter().filter(|(_, problem)| problem.reason == Reason::Conflict);
        let mut others: BTreeSet<String> = refused.map(|(other, _)| other.clone()).collect();
        {
            let running = lock(&self.context.registries.running);
            if let Some(ours) = running.get(name).map(|running| &running.wanted.identity) {
                let twins = running.iter().filter(|(_, other)| twins::same_place(ours, &other.wanted.identity));
                others.extend(twins.map(|(other, _)| other.clone()));
            }
        }
        others.remove(name);
        for other in others {
            self.check_one(&other);
        }
    }

    fn check_one(&mut self, name: &str) {
        let (object, wanted, twin) = {
            let view = self.context.cluster();
            if !view.waiting_for().is_empty() {
                return;
            }
            let object = view.service_registries.get(name).cloned();
            let wanted = object.as_ref().map(|object| settings::wanted(object, &view));
            let running = lock(&self.context.registries.running);
            let twin = object.as_ref().and_then(|object| older_twin(&view, &running, self.met.get(name), object));
            (object, wanted, twin)
        };
        match (object, wanted, twin) {
            (Some(object), _, Some(twin)) => self.refuse(name, &object, &twin),
            (Some(object), Some(Ok(wanted)), None) => {
                self.problems.remove(name);
                self.run_session(name, &object, wanted);
                self.admit(name);
            }
            (Some(object), Some(Err(problem)), None) => {
                self.cannot_run(name, &object, problem);
                self.admit(name);
            }
            _ => self.deleted(name),
        }
        status::release(&self.context, name);
        self.report_soon(name);
    }

    /// Nobody else has its place, as far as is known: what it finds there is its own, and may be written.
    fn admit(&mut self, name: &str) {
        self.met.remove(name);
        if let Some(handle) = self.context.registries.get(name)
            && let Some(etcd) = handle.etcd()
        {
            handle.admit(Some(etcd));
        }
    }

    /// Two sessions for one registry would take each other's records for their own.
    fn refuse(&mut self, name: &str, object: &ServiceRegistry, twin: &str) {
        let message = format!(
            "ServiceRegistry {twin} has the same etcd, prefix and cluster ID, and is older; delete one of them, or change its prefix"
        );
        self.cannot_run(name, object, Problem::new(Reason::Conflict, message));
        if let Some(running) = lock(&self.context.registries.running).remove(name) {
            running.handle.admit(None);
            running.stop.cancel();
            if let Some(etcd) = running.handle.etcd() {
                self.met.insert(name.to_owned(), Met { endpoints: running.wanted.connection.endpoints, etcd });
            }
            // Whoever refers to it has to say that it waits.
            let _ = self.events.send(RegistryEvent::State { registry: name.to_owned() });
        }
    }

    /// The names of the RegisteredServices that refer to a registry.
    fn set_names(&self, name: &str) {
        let Some(handle) = self.context.registries.get(name) else { return };
        let view = self.context.cluster();
        let names = view.index.names_of_registry(name).filter_map(|name| RegistryName::new(name).ok()).collect();
        drop(view);
        handle.set_registered(names);
    }

    fn run_session(&mut self, name: &str, object: &ServiceRegistry, wanted: Wanted) {
        let approved = object.metadata.annotations.as_ref().and_then(|all| all.get(APPROVE_EPOCH)).cloned();
        let running = lock(&self.context.registries.running).get(name).cloned();
        let handle = match running {
            Some(running) if running.wanted == wanted => {
                if let Some(epoch) = &running.handle.epoch {
                    epoch.approve(approved);
                }
                return;
            }
            Some(running) if running.wanted.identity == wanted.identity => {
                info!(registry = name, "the connection of the ServiceRegistry changed; connecting anew");
                running.stop.cancel();
                running.handle
            }
            other => {
                if let Some(running) = other {
                    running.stop.cancel();
                }
                // A ServiceRegistry that comes back finds its own records again by comparison.
                lock(&self.context.registries.departing).retain(|handle| handle.name != name);
                RegistryHandle::new(name, &wanted.identity, last_met(object), self.events.clone())
            }
        };
        if let Some(epoch) = &handle.epoch {
            epoch.approve(approved);
        }
        let stop = self.stop.child_token();
        let connector = Arc::new(EtcdConnector::new(wanted.connection.clone()));
        self.tasks.spawn(session::run(handle.clone(), connector, self.context.world.clone(), stop.clone()));
        if self.keeps {
            self.tasks.spawn(keeper::run(handle.clone(), stop.clone()));
        }
        self.epochs.spawn(epoch::run(handle.clone(), self.leader.clone(), stop.clone()));
        lock(&self.context.registries.running).insert(name.to_owned(), Running { handle, wanted, stop });
        self.set_names(name);
        let status = object.status.as_ref();
        let held = status.and_then(|status| conditions::find(&status.conditions, DELETIONS_HELD));
        if let Some(held) = held.filter(|held| held.status == "True") {
            self.context.guards.resume(name, held.last_transition_time.0);
        }
    }

    /// The spec or its Secrets cannot be used: what runs goes on as it is, for nothing says that it should end.
    fn cannot_run(&mut self, name: &str, object: &ServiceRegistry, problem: Problem) {
        if self.problems.get(name) != Some(&problem) {
            warn!(
                registry = name,
                generation = object.metadata.generation,
                reason = problem.reason.as_str(),
                "{}",
                problem.message
            );
        }
        self.problems.insert(name.to_owned(), problem);
    }

    fn deleted(&mut self, name: &str) {
        self.problems.remove(name);
        self.met.remove(name);
        self.context.metrics.forget_registry(name);
        self.context.guards.forget(name);
        let Some(running) = lock(&self.context.registries.running).remove(name) else { return };
        info!(registry = name, "the ServiceRegistry is gone; withdrawing what was exported to it");
        lock(&self.context.registries.departing).push(running.handle.clone());
        // Whoever owns a record there looks again, and finds that it belongs there no longer.
        let _ = self.events.send(RegistryEvent::State { registry: name.to_owned() });
        self.tasks.spawn(depart(self.context.registries.clone(), running, self.stop.clone()));
    }

    fn report_soon(&mut self, name: &str) {
        let now = Instant::now();
        let at = self.reported.get(name).map_or(now, |last| now.max(*last + STATUS_PACE));
        self.due.entry(name.to_owned()).or_insert(at);
    }

    async fn report_due(&mut self) {
        let now = Instant::now();
        let due: Vec<String> = self.due.iter().filter(|(_, at)| **at <= now).map(|(name, _)| name.clone()).collect();
        for name in due {
            self.due.remove(&name);
            let handle = self.context.registries.get(&name);
            match status::report(&self.context, &name, handle.as_deref(), self.problems.get(&name)).await {
                Ok(Written::Now) => {
                    self.reported.insert(name, now);
                }
                Ok(Written::Nothing) => {}
                Ok(Written::NotYet) => {
                    self.due.insert(name, now + STATUS_RETRY);
                }
                Err(error) => {
                    warn!(registry = name, %error, "cannot write the status of the ServiceRegistry; trying again");
                    self.due.insert(name, now + STATUS_PACE);
                }
            }
        }
    }
}

/// The etcd cluster and the revision that status tells of.
fn last_met(object: &ServiceRegistry) -> Option<(u64, Revision)> {
    let etcd = object.status.as_ref()?.etcd.as_ref()?;
    Some((u64::from_str_radix(&etcd.cluster_id, 16).ok()?, etcd.revision_at_last_session))
}

/// Ends the session of a deleted ServiceRegistry once nothing of ours is left in it, or it takes too long.
async fn depart(registries: Registries, running: Running, stop: CancellationToken) {
    let deadline = Instant::now() + WITHDRAW;
    while Instant::now() < deadline && !running.handle.owners().is_empty() {
        tokio::select! {
            () = stop.cancelled() => break,
            () = tokio::time::sleep(WITHDRAW_POLL) => {}
        }
    }
    running.stop.cancel();
    lock(&registries.departing).retain(|handle| !Arc::ptr_eq(handle, &running.handle));
}
