//! ServiceRegistry: a session for each, made from its spec and Secrets, and its status.
//!
//! - [`sessions`]: starts and ends sessions; [`settings`]: the settings of each; [`duplicates`]: ServiceRegistries that
//!   are the same registry.
//! - [`status`]: the status and its Events.
//!
//! Owns the order of commands and the pace of status. Refuses to know records.

mod duplicates;
mod sessions;
pub mod settings;
mod status;

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::warn;

use self::status::{Reported, Reporter};
use super::writers::Writers;

pub use sessions::{Sessions, Upkeep};

/// Least time between two status writes of one ServiceRegistry.
const STATUS_PACE: Duration = Duration::from_secs(5);
/// Wait before a throttled status is tried again.
const STATUS_RETRY: Duration = Duration::from_millis(250);

/// The commands of the router.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// A ServiceRegistry was created, changed or deleted.
    Reconcile(String),
    /// An object changed on which any ServiceRegistry may depend.
    ReconcileAll,
    /// RegisteredServices that refer to it were created, deleted or renamed in the registry.
    UpdateNames(String),
    /// Its status may have changed.
    Report(String),
}

/// Reconciles ServiceRegistries.
#[derive(Debug)]
pub struct Controller {
    reporter: Reporter,
    sessions: Sessions,
    reported: BTreeMap<String, Instant>,
    due: BTreeMap<String, Instant>,
}

impl Controller {
    pub fn new(writers: Writers, sessions: Sessions) -> Self {
        let reporter = Reporter { views: sessions.views.clone(), writers };
        Self { reporter, sessions, reported: BTreeMap::new(), due: BTreeMap::new() }
    }

    pub async fn run(mut self, mut commands: mpsc::UnboundedReceiver<Command>) {
        let stop = self.sessions.stop.clone();
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
                Some(command) = commands.recv() => self.obey(command),
                () = wait => self.report_due().await,
            }
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Reconcile(name) => {
                for name in self.sessions.reconcile(&name) {
                    self.reconciled(&name);
                }
            }
            Command::ReconcileAll => {
                for name in self.sessions.names() {
                    self.sessions.reconcile_one(&name);
                    self.reconciled(&name);
                }
            }
            Command::UpdateNames(name) => self.sessions.update_names(&name),
            Command::Report(name) => {
                for other in self.sessions.confirm(&name) {
                    self.reconciled(&other);
                }
                self.report_soon(&name);
            }
        }
    }

    fn reconciled(&mut self, name: &str) {
        if !self.sessions.views.cluster().service_registries.contains_key(name) {
            self.reporter.writers.metrics.forget_registry(name);
        }
        self.reporter.release(name);
        self.report_soon(name);
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
            if let Some(wait) = self.reporter.looks_again(&name) {
                self.due.insert(name.clone(), now + wait);
            }
            let rejection = self.sessions.rejection(&name);
            match self.reporter.report(&name, rejection).await {
                Ok(Reported::Written) => {
                    self.reported.insert(name, now);
                }
                Ok(Reported::Nothing) => {}
                Ok(Reported::Throttled) => {
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

impl Sessions {
    /// Obeys the commands of the router without reporting status, for a viewer.
    pub async fn follow(mut self, mut commands: mpsc::UnboundedReceiver<Command>) {
        let stop = self.stop.clone();
        loop {
            let command = tokio::select! {
                () = stop.cancelled() => return,
                command = commands.recv() => command,
            };
            match command {
                Some(Command::Reconcile(name)) => drop(self.reconcile(&name)),
                Some(Command::ReconcileAll) => {
                    for name in self.names() {
                        self.reconcile_one(&name);
                    }
                }
                Some(Command::UpdateNames(name)) => self.update_names(&name),
                Some(Command::Report(name)) => drop(self.confirm(&name)),
                None => return,
            }
        }
    }
}

#[cfg(test)]
mod bench;
#[cfg(test)]
mod conditions_tests;
#[cfg(test)]
mod sessions_tests;
