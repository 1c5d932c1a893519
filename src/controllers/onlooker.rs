//! The views of an operator that never writes: what one would see and plan now, for people who ask.
//!
//! Owns which parts run: watches, router, sessions. Refuses to lead, to keep leases alive, to write a status or an Event. It begins
//! with nothing remembered, as an operator that has just started.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kube::Client;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use twinspan_core::model::{Record, ServiceKey};

use super::context::Context;
use super::queue;
use super::registries::{self, Guards, Registries};
use super::router::Router;
use super::seen::SeenRecord;
use super::services::{self, Outlook};
use crate::cluster::events::Events;
use crate::cluster::view::ClusterView;
use crate::cluster::watch::Watches;
use crate::leadership::{self, Claim, Holders};
use crate::probe::Probes;
use crate::registry::epoch::Leader;
use crate::telemetry::metrics::Metrics;
use crate::world::World;

/// What could not be seen in time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Missing {
    /// A list of the cluster, and so everything.
    List(&'static str),
    /// The registry of a RegisteredService.
    Registry(ServiceKey),
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::List(kind) => write!(f, "a list of every {kind}"),
            Self::Registry(key) => write!(f, "the registry of {key}"),
        }
    }
}

/// How often completeness is looked at.
const POLL: Duration = Duration::from_millis(50);

pub struct Onlooker {
    context: Context,
    tasks: TaskTracker,
    stop: CancellationToken,
    namespace: String,
}

impl fmt::Debug for Onlooker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Onlooker")
    }
}

impl Onlooker {
    pub fn start(client: &Client, operator_namespace: &str) -> Self {
        let (stop, tasks, world) = (CancellationToken::new(), TaskTracker::new(), World::real());
        let claim = Claim::none();
        // Nobody publishes: what is said here is for one person.
        let (events, _) = Events::new(client.clone(), "onlooker", stop.clone());
        let context = Context {
            client: client.clone(),
            world: world.clone(),
            cluster: Arc::new(Mutex::new(ClusterView::default())),
            registries: Registries::default(),
            guards: Guards::default(),
            probes: Probes::default(),
            claim: claim.clone(),
            metrics: Arc::new(Metrics::default()),
            events,
            memory: Arc::default(),
            addresses: Arc::default(),
            status_budget: Arc::default(),
            dry_run: true,
        };
        let (registry_events, registry_changes) = mpsc::unbounded_channel();
        let (commands, command_queue) = mpsc::unbounded_channel();
        let (cluster_events, cluster_changes) = mpsc::unbounded_channel();
        let (marker, _) = queue::new(world.clone());
        let router = Router { context: context.clone(), marker, registries: commands };
        tasks.spawn(router.run(cluster_changes, registry_changes, stop.clone()));
        let holders = Holders::alone("onlooker");
        let leader = Leader { claim, holders, world: world.clone(), ending: stop.clone() };
        let (keeps, epochs) = (false, tasks.clone());
        let controller = registries::Controller::new(
            context.clone(),
            leader,
            registry_events,
            tasks.clone(),
            epochs,
            stop.clone(),
            keeps,
        );
        tasks.spawn(controller.run(command_queue));
        let (view, events) = (context.cluster.clone(), cluster_events);
        let watches = Watches { view, events, world, stop: stop.clone(), tasks: tasks.clone() };
        watches.start(client, operator_namespace);
        Self { context, tasks, stop, namespace: operator_namespace.to_owned() }
    }

    /// Waits until every kind is listed and every RegisteredService can be judged. Returns what is still missing when the time is up.
    pub async fn complete(&self, within: Duration) -> Vec<Missing> {
        let deadline = tokio::time::Instant::now() + within;
        loop {
            let missing = self.missing();
            if missing.is_empty() || tokio::time::Instant::now() >= deadline {
                return missing;
            }
            tokio::time::sleep(POLL).await;
        }
    }

    fn missing(&self) -> Vec<Missing> {
        let kinds = self.context.cluster().waiting_for();
        if !kinds.is_empty() {
            return kinds.into_iter().map(|kind| Missing::List(kind.as_str())).collect();
        }
        let pending = |key: &ServiceKey| self.outlook(key).is_none_or(|outlook| outlook.pending);
        self.services().into_iter().filter(pending).map(Missing::Registry).collect()
    }

    /// Every RegisteredService, sorted.
    pub fn services(&self) -> Vec<ServiceKey> {
        let mut all: Vec<ServiceKey> = self.context.cluster().index.all().cloned().collect();
        all.sort();
        all
    }

    /// What an operator thinks of it now.
    pub fn outlook(&self, key: &ServiceKey) -> Option<Outlook> {
        services::outlook(&self.context, key)
    }

    /// Every record of every registry that has a key or an address of interest.
    pub fn records(&self, interest: impl Fn(&Record) -> bool) -> Vec<SeenRecord> {
        let mut found = BTreeMap::new();
        for handle in self.context.registries.all() {
            for record in handle.view().all().filter(|record| interest(record)) {
                let seen = SeenRecord::new(&handle, record);
                found.insert((handle.name.clone(), record.key.clone()), seen);
            }
        }
        found.into_values().collect()
    }

    /// Who leads, from a live read; `None` where nobody does.
    ///
    /// # Errors
    /// Why it cannot be read.
    pub async fn leader(&self) -> kube::Result<Option<String>> {
        leadership::leader(&self.context.client, &self.namespace, self.context.world.now()).await
    }

    pub async fn end(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}
