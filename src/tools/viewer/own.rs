//! Views of the command's own: those of an operator that never writes.
//!
//! Owns the choice of the parts that run: watches, router, sessions. It starts without a checkpoint, as an operator
//! that has just started. Refuses to write: it has neither writers nor a claim to lead, so it cannot write, keep leases
//! alive, or publish an Event.

use kube::Client;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::cluster::networks::NamedNetworks;
use crate::cluster::watch::Watches;
use crate::controllers::queue;
use crate::controllers::router::{Router, Sources};
use crate::controllers::service_registry::Sessions;
use crate::controllers::views::Views;
use crate::env::Env;
use crate::registry::Connect;
use crate::tasks::Tasks;

/// Views, and the tasks that keep them.
pub struct Own {
    views: Views,
    tasks: Tasks,
    stop: CancellationToken,
}

impl Own {
    pub fn start(client: &Client, operator_namespace: &str, networks: &NamedNetworks) -> Self {
        let (stop, env) = (CancellationToken::new(), Env::real());
        let (views, tasks) = (Views::new(env.clone()), Tasks::new(stop.clone(), env.clone()));
        views.cluster().networks.name(networks);
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
        // A command shows no metrics.
        let metrics = Default::default();
        let watches = Watches { view, events, env, server, metrics, stop: stop.clone(), tasks: tasks.clone() };
        watches.start(client, operator_namespace);
        Self { views, tasks, stop }
    }

    pub fn views(&self) -> &Views {
        &self.views
    }

    pub async fn end(self) {
        self.stop.cancel();
        self.tasks.end().await;
    }
}
