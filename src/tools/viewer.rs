//! A viewer: the views of an operator that never writes, for the command line.
//!
//! Owns the choice of the parts that run: watches, router, sessions. It starts without a checkpoint, as an operator
//! that has just started. Refuses to write: it has neither writers nor a claim to lead, so it cannot write, keep leases
//! alive, or publish an Event.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use kube::Client;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use twinspan_core::model::{Record, ServiceKey};

use super::preview::{self, Preview};
use super::record::RecordReport;
use crate::cluster::view::Kind;
use crate::cluster::watch::Watches;
use crate::controllers::queue;
use crate::controllers::router::{Router, Sources};
use crate::controllers::service_registry::Sessions;
use crate::controllers::views::Views;
use crate::env::Env;
use crate::leadership;
use crate::registry::Connect;
use crate::registry::scope::Scope;
use crate::tasks::Tasks;

/// A part that did not sync in time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unsynced {
    /// A list of the cluster, without which nothing is known.
    List(&'static str),
    /// The registry of a RegisteredService.
    Registry(ServiceKey),
}

impl fmt::Display for Unsynced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::List(kind) => write!(f, "a list of every {kind}"),
            Self::Registry(key) => write!(f, "the registry of {key}"),
        }
    }
}

/// Interval at which the viewer checks whether everything is synced.
const POLL: Duration = Duration::from_millis(50);

pub struct Viewer {
    client: Client,
    views: Views,
    tasks: Tasks,
    stop: CancellationToken,
    namespace: String,
}

impl fmt::Debug for Viewer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Viewer")
    }
}

impl Viewer {
    pub fn start(client: &Client, operator_namespace: &str) -> Self {
        let (stop, env) = (CancellationToken::new(), Env::real());
        let (views, tasks) = (Views::new(env.clone()), Tasks::new(stop.clone(), env.clone()));
        let (registry_events, registry) = mpsc::unbounded_channel();
        let (cluster_events, cluster) = mpsc::unbounded_channel();
        let (_, probe) = mpsc::unbounded_channel();
        let (_, leading) = watch::channel(false);
        let (commands, command_queue) = mpsc::unbounded_channel();
        let (enqueuer, _) = queue::new(env.clone());
        let router = Router { views: views.clone(), enqueuer, registries: commands, statuses: None };
        tasks.spawn("router", router.run(Sources { cluster, registry, probe, leading }, stop.clone()));
        let connect = Connect::to_etcd();
        let sessions =
            Sessions::new(views.clone(), registry_events, tasks.tracker().clone(), stop.clone(), None, connect);
        tasks.spawn("sessions", sessions.follow(command_queue));
        let (view, events) = (views.cluster.clone(), cluster_events);
        // The person who asks knows the server's address.
        let server = "the API server".to_owned();
        let watches = Watches { view, events, env, server, stop: stop.clone(), tasks: tasks.clone() };
        watches.start(client, operator_namespace);
        Self { client: client.clone(), views, tasks, stop, namespace: operator_namespace.to_owned() }
    }

    /// Waits until every kind is listed and every RegisteredService can be previewed. Returns the parts that did not
    /// sync in time.
    pub async fn wait_for_sync(&self, within: Duration) -> Vec<Unsynced> {
        let deadline = tokio::time::Instant::now() + within;
        loop {
            let unsynced = self.unsynced();
            if unsynced.is_empty() || tokio::time::Instant::now() >= deadline {
                return unsynced;
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// What [`Viewer::wait_for_sync`] waits for now.
    pub fn awaited(&self) -> String {
        let unsynced = self.unsynced();
        let Some(first) = unsynced.first() else { return "the last answers".to_owned() };
        let all = match first {
            Unsynced::List(_) => Kind::ALL.len(),
            Unsynced::Registry(_) => self.services().len(),
        };
        format!("{first} ({} of {all})", (all + 1).saturating_sub(unsynced.len()))
    }

    fn unsynced(&self) -> Vec<Unsynced> {
        let kinds = self.views.cluster().unsynced();
        if !kinds.is_empty() {
            return kinds.into_iter().map(|kind| Unsynced::List(kind.as_str())).collect();
        }
        let pending = |key: &ServiceKey| self.preview(key).is_none_or(|preview| preview.pending);
        self.services().into_iter().filter(pending).map(Unsynced::Registry).collect()
    }

    /// Every RegisteredService, sorted.
    pub fn services(&self) -> Vec<ServiceKey> {
        let mut all: Vec<ServiceKey> = self.views.cluster().index.all().cloned().collect();
        all.sort();
        all
    }

    /// The findings and writes of an operator now.
    pub fn preview(&self, key: &ServiceKey) -> Option<Preview> {
        preview::preview(&self.views, key)
    }

    /// Every record of interest, in every registry.
    pub fn records(&self, interest: impl Fn(&Record) -> bool) -> Vec<RecordReport> {
        let mut found = BTreeMap::new();
        for handle in self.views.registries.all() {
            for record in handle.view().all().filter(|record| interest(record)) {
                let seen = RecordReport::new(&handle, record);
                found.insert((handle.name.clone(), record.key.clone()), seen);
            }
        }
        found.into_values().collect()
    }

    /// The registries of which only the names of RegisteredServices are watched.
    pub fn followed_by_names(&self) -> Vec<String> {
        let all = self.views.registries.all().into_iter();
        all.filter(|handle| handle.asked.scope() == Some(Scope::FollowedNames))
            .map(|handle| handle.name.clone())
            .collect()
    }

    /// The leader, from a live read; `None` where no replica leads.
    ///
    /// # Errors
    /// The error of the read.
    pub async fn leader(&self) -> kube::Result<Option<String>> {
        leadership::leader(&self.client, &self.namespace, self.views.env.now()).await
    }

    pub async fn end(self) {
        self.stop.cancel();
        self.tasks.end().await;
    }
}
