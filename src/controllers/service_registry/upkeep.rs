//! Upkeep: the tasks that a replica runs for each session besides following its registry.
//!
//! Owns which tasks they are: keepalives, audits, refused writes and the take-over of the epoch. Refuses to know when a
//! session begins, and what a task does.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::env::Env;
use crate::registry::handle::RegistryHandle;
use crate::registry::takeover::Takeover;
use crate::registry::{audit, keepalive, refused_writes, takeover};
use crate::tasks;

/// The tasks of all sessions. A viewer, which neither writes nor keeps leases alive, has none.
#[derive(Clone, Debug)]
pub struct Upkeep {
    pub takeover: Takeover,
    /// The interval between two audits of a registry.
    pub audit_interval: Duration,
    /// The tasks that release epochs; they end before everything else.
    pub epochs: TaskTracker,
}

impl Upkeep {
    /// Starts the tasks of a session.
    pub(super) fn start(&self, handle: &Arc<RegistryHandle>, env: &Env, all: &TaskTracker, stop: &CancellationToken) {
        let (audited, interval, now, until) = (handle.clone(), self.audit_interval, env.clone(), stop.clone());
        env.spawn_on(all, async move {
            let begin = || audit::run(audited.clone(), interval, now.clone(), until.clone());
            tasks::repeated("audits", begin).await;
        });
        let (kept, until) = (handle.clone(), stop.clone());
        env.spawn_on(all, async move {
            tasks::repeated("keepalives", || keepalive::run(kept.clone(), until.clone())).await;
        });
        let (refused, until) = (handle.clone(), stop.clone());
        env.spawn_on(all, async move {
            tasks::repeated("refused writes", || refused_writes::run(refused.clone(), until.clone())).await;
        });
        let (handle, takeover, stop) = (handle.clone(), self.takeover.clone(), stop.clone());
        env.spawn_on(&self.epochs, async move {
            tasks::repeated("take-over", || takeover::run(handle.clone(), takeover.clone(), stop.clone())).await;
        });
    }
}
