//! ServiceRegistry: a session for each, made from its spec and Secrets, and its status.
//!
//! - [`sessions`]: starts and ends sessions; [`upkeep`]: the tasks besides each; [`draining`]: those whose
//!   ServiceRegistry is gone; [`settings`]: the settings of each.
//! - [`duplicates`]: ServiceRegistries that are the same registry; [`comparisons`]: how that is found out.
//! - [`status`]: the status and its Events; [`unseen`]: a part of it; [`reports`]: the reports that are due;
//!   [`line`]: the line of the status page.
//!
//! Owns the order of commands. Refuses to know records.

mod comparisons;
mod draining;
mod duplicates;
mod line;
mod reports;
mod sessions;
pub mod settings;
mod status;
mod unseen;
mod upkeep;

use tokio::sync::mpsc;

use self::reports::Reports;
use self::status::Reporter;
use super::writers::Writers;

pub use sessions::Sessions;
pub use upkeep::Upkeep;

/// The commands of the router.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// A ServiceRegistry was created, changed or deleted.
    Reconcile(String),
    /// An object changed on which any ServiceRegistry may depend.
    ReconcileAll,
    /// A RegisteredService with this name in the registry was created, deleted or renamed.
    UpdateName { registry: String, name: String },
    /// Its status may have changed.
    Report(String),
}

/// Reconciles ServiceRegistries.
#[derive(Debug)]
pub struct Controller {
    reporter: Reporter,
    sessions: Sessions,
    reports: Reports,
}

impl Controller {
    pub fn new(writers: Writers, sessions: Sessions) -> Self {
        let reporter = Reporter { views: sessions.views.clone(), writers };
        Self { reporter, sessions, reports: Reports::default() }
    }

    pub async fn run(mut self, mut commands: mpsc::UnboundedReceiver<Command>) {
        let stop = self.sessions.stop.clone();
        let reporting = self.reports.clone().run(self.reporter.clone(), stop.clone());
        let obeying = async {
            loop {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return,
                    Some(command) = commands.recv() => self.obey(command),
                }
            }
        };
        tokio::join!(reporting, obeying);
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Reconcile(name) => {
                for name in self.sessions.reconcile(&name) {
                    self.reconciled(&name);
                }
            }
            Command::ReconcileAll => {
                for name in self.sessions.reconcile_all() {
                    self.reconciled(&name);
                }
            }
            Command::UpdateName { registry, name } => self.sessions.update_name(&registry, &name),
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

    fn report_soon(&self, name: &str) {
        self.reports.soon(name, self.sessions.rejection(name));
    }
}

impl Sessions {
    /// Obeys the commands of the router without reporting status, for a viewer.
    pub async fn follow(mut self, mut commands: mpsc::UnboundedReceiver<Command>) {
        let stop = self.stop.clone();
        loop {
            let command = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                command = commands.recv() => command,
            };
            match command {
                Some(Command::Reconcile(name)) => drop(self.reconcile(&name)),
                Some(Command::ReconcileAll) => drop(self.reconcile_all()),
                Some(Command::UpdateName { registry, name }) => self.update_name(&registry, &name),
                Some(Command::Report(name)) => drop(self.confirm(&name)),
                None => return,
            }
        }
    }
}

#[cfg(test)]
pub(super) mod bench;
#[cfg(test)]
mod comparisons_tests;
#[cfg(test)]
mod conditions_tests;
#[cfg(test)]
mod draining_tests;
#[cfg(test)]
mod holder_tests;
#[cfg(test)]
mod sessions_tests;
