//! ServiceRegistry: a session for each, made from (spec, Secrets), and its status.
//!
//! Owns which sessions run. A changed connection replaces the session and keeps the view; a deleted ServiceRegistry keeps its
//! session until the own records in it are withdrawn. Refuses to know records.

mod sessions;
pub mod settings;
mod status;

pub use sessions::Registries;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use self::sessions::{Running, lock};
use self::settings::{Problem, Wanted};
use self::status::Written;
use super::context::Context;
use crate::api::ServiceRegistry;
use crate::registry::etcd::EtcdConnector;
use crate::registry::handle::{RegistryEvent, RegistryHandle};
use crate::registry::{keeper, session};

/// How long a deleted registry's own records may take to be withdrawn before they are left to expire.
const WITHDRAW: Duration = Duration::from_secs(30);
/// How often that is looked at.
const WITHDRAW_POLL: Duration = Duration::from_millis(200);
/// Least time between two status writes of one ServiceRegistry.
const STATUS_PACE: Duration = Duration::from_secs(5);

/// How soon a status that found no place is tried again.
const STATUS_RETRY: Duration = Duration::from_millis(250);

/// What the router tells the controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// A ServiceRegistry was created, changed or deleted.
    Check(String),
    /// Something that any of them may depend on changed.
    CheckAll,
    /// What its status says may have changed.
    Report(String),
}

/// Starts and stops sessions, and reports on them.
pub struct Controller {
    context: Context,
    events: mpsc::UnboundedSender<RegistryEvent>,
    tasks: TaskTracker,
    stop: CancellationToken,
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
        events: mpsc::UnboundedSender<RegistryEvent>,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        let (problems, reported, due) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { context, events, tasks, stop, problems, reported, due }
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
            (Some(_), Some(Ok(wanted))) => {
                self.problems.remove(name);
                self.run_session(name, wanted);
            }
            (Some(object), Some(Err(problem))) => self.cannot_run(name, &object, problem),
            _ => self.deleted(name),
        }
        self.report_soon(name);
    }

    fn run_session(&mut self, name: &str, wanted: Wanted) {
        let running = lock(&self.context.registries.running).get(name).cloned();
        let handle = match running {
            Some(running) if running.wanted == wanted => return,
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
                let identity = &wanted.identity;
                RegistryHandle::new(
                    name,
                    &identity.cluster_id,
                    identity.layout.clone(),
                    identity.ttl_seconds,
                    self.events.clone(),
                )
            }
        };
        let stop = self.stop.child_token();
        let connector = Arc::new(EtcdConnector::new(wanted.connection.clone()));
        self.tasks.spawn(session::run(handle.clone(), connector, self.context.world.clone(), stop.clone()));
        self.tasks.spawn(keeper::run(handle.clone(), stop.clone()));
        lock(&self.context.registries.running).insert(name.to_owned(), Running { handle, wanted, stop });
    }

    /// The spec or its Secrets cannot be used: what runs goes on as it is, for nothing says that it should end.
    fn cannot_run(&mut self, name: &str, object: &ServiceRegistry, problem: Problem) {
        if self.problems.get(name) != Some(&problem) {
            warn!(
                registry = name,
                generation = object.metadata.generation,
                reason = problem.reason,
                "{}",
                problem.message
            );
        }
        self.problems.insert(name.to_owned(), problem);
    }

    fn deleted(&mut self, name: &str) {
        self.problems.remove(name);
        self.context.metrics.forget_registry(name);
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
