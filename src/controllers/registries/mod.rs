//! ServiceRegistry: a session for each, made from (spec, Secrets), and its status.
//!
//! Owns which sessions run, and that no two are one and the same registry. A changed connection replaces the session and keeps the view; a deleted ServiceRegistry keeps its
//! session until the own records in it are withdrawn. Refuses to know records.

mod guards;
mod sessions;
pub mod settings;
mod status;

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
        let (problems, reported, due) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { context, leader, events, tasks, epochs, stop, keeps, problems, reported, due }
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
                    Command::Report(name) => self.report_soon(&name),
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
            self.check(&name);
        }
    }

    /// Makes what runs for a ServiceRegistry what should run.
    fn check(&mut self, name: &str) {
        let (object, wanted) = {
            let view = self.context.cluster();
            if !view.waiting_for().is_empty() {
                return;
            }
            let object = view.service_registries.get(name).cloned();
            let wanted = object.as_ref().map(|object| settings::wanted(object, &view));
            (object, wanted)
        };
        match (object, wanted) {
            (Some(object), Some(Ok(wanted))) => match self.the_same(name, &object, &wanted) {
                Some(other) => self.conflicts(name, &object, &other),
                None => {
                    self.problems.remove(name);
                    self.run_session(name, &object, wanted);
                }
            },
            (Some(object), Some(Err(problem))) => self.cannot_run(name, &object, problem),
            _ => self.deleted(name),
        }
        status::release(&self.context, name);
        self.report_soon(name);
    }

    /// An older ServiceRegistry that is the same registry, for the same cluster.
    fn the_same(&self, name: &str, object: &ServiceRegistry, wanted: &Wanted) -> Option<String> {
        let age = |object: &ServiceRegistry| {
            let created = object.metadata.creation_timestamp.as_ref().map(|time| time.0);
            (created, object.metadata.name.clone())
        };
        let view = self.context.cluster();
        let running = lock(&self.context.registries.running);
        let server = |handle: &RegistryHandle| handle.status().server.map(|server| server.cluster_id);
        let ours = running.get(name).and_then(|running| server(&running.handle));
        let the_same = |(other, running): (&String, &Running)| {
            let older = view.service_registries.get(other).is_some_and(|other| age(other) < age(object));
            let (a, b) = (&running.wanted.identity, &wanted.identity);
            let place = a.cluster_id == b.cluster_id && a.layout.prefix() == b.layout.prefix();
            let endpoints = |wanted: &Wanted| wanted.connection.endpoints.iter().cloned().collect::<BTreeSet<_>>();
            let etcd = !endpoints(&running.wanted).is_disjoint(&endpoints(wanted))
                || (ours.is_some() && ours == server(&running.handle));
            (other != name && older && place && etcd).then(|| other.clone())
        };
        running.iter().find_map(the_same)
    }

    /// Two sessions for one registry would take each other's records for their own.
    fn conflicts(&mut self, name: &str, object: &ServiceRegistry, other: &str) {
        let message = format!(
            "ServiceRegistry {other} has the same etcd, prefix and cluster ID, and is older; delete one of them, or change its prefix"
        );
        self.cannot_run(name, object, Problem::new(Reason::Conflict, message));
        if let Some(running) = lock(&self.context.registries.running).remove(name) {
            running.stop.cancel();
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
