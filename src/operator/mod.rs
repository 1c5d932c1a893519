//! The composition of the operator: starts and stops everything.
//!
//! - [`outside`]: the ways out of the process. [`inside`]: the socket for commands in its pod. [`status_page`]: the
//!   address of the status page. [`drain_address`]: the address at which pods that end ask. [`readiness`]: the parts of
//!   `/readyz`. [`gauges`]: what grows by itself. [`etcd_calls`]: the calls to every etcd, as metrics.
//!
//! Owns the order in which parts start and end. Refuses to know what any part does.

mod drain_address;
mod etcd_calls;
mod gauges;
mod inside;
mod outside;
mod readiness;
mod status_page;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use kube::Client;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};
use twinspan_core::model::ServiceKey;

use crate::cluster::networks;
use crate::cluster::reach;
use crate::cluster::view::ClusterEvent;
use crate::cluster::watch::Watches;
use crate::controllers::discovery;
use crate::controllers::gates::{self, book::Gates};
use crate::controllers::queue;
use crate::controllers::registered_service::{self, Checkpoints};
use crate::controllers::router::{Router, Sources};
use crate::controllers::service_registry::{self, Sessions, Upkeep};
use crate::controllers::views::Views;
use crate::controllers::writers::Writers;
use crate::drain::{self, Drain};
use crate::env::Env;
use crate::leadership::{self, Election, Leadership, LeaseHistory};
use crate::page::{self, Board, Page};
use crate::registry::takeover::Takeover;
use crate::tasks::Tasks;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::{admin, server};

use self::etcd_calls::EtcdCalls;
use self::gauges::Gauges;

pub use drain_address::listen_for_drains;
pub use inside::Inside;
pub use outside::Outside;
pub use status_page::StatusPage;

/// The part of the cluster that a process looks at and serves: a setting of the operator, which the near side's door
/// obeys.
pub type Reach = reach::Reach;
/// The limits of namespaced mode.
pub type Limits = reach::Limits;
/// Networks that somebody names, in addition to those that the API server tells.
pub type NamedNetworks = networks::NamedNetworks;

/// Time to release epochs when the process ends.
const RELEASE: Duration = Duration::from_secs(5);

/// The settings from the command line.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Our own namespace, for Secrets and the Lease.
    pub namespace: String,
    pub leader_elect: bool,
    /// Plans and logs as a leader, and writes nothing: no Lease is asked for either.
    pub dry_run: bool,
    /// Opens readiness gates of pods: the permission to do so is granted only where somebody asked for it.
    pub rollouts: bool,
    /// The interval between two audits of each registry.
    pub audit_interval: Duration,
    /// Networks of the cluster that its API server need not tell.
    pub networks: NamedNetworks,
    /// Names this replica in the Lease and in Events.
    pub identity: String,
    /// The part of the cluster that this process looks at, and the ServiceRegistries that it serves.
    pub reach: Reach,
}

impl Settings {
    /// Whether this process takes part in the election: it writes, and another replica may.
    fn elects(&self) -> bool {
        self.leader_elect && !self.dry_run
    }

    fn leadership(&self) -> Leadership {
        if self.dry_run { Leadership::dry_run() } else { Leadership::none() }
    }
}

/// The reason why the operator could not start, or had to end.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    #[error("cannot make a Kubernetes client: {0}")]
    Client(String),
    #[error("cannot listen on {address}: {source}; set --admin-addr")]
    Admin { address: SocketAddr, source: std::io::Error },
    #[error("cannot serve the status page on {address}: {source}; set --page-addr")]
    Page { address: SocketAddr, source: std::io::Error },
    #[error("cannot answer pods that end on {address}: {source}; set --drain-addr")]
    Drain { address: SocketAddr, source: std::io::Error },
    #[error(
        "another release of Twinspan runs in namespace {0}, and two would write against each other; run one of them, with more replicas \
         where more are wanted, or let each serve ServiceRegistries of its own with --registries"
    )]
    AnotherRelease(String),
    #[error("cannot listen at the socket {path}: {source}; check TWINSPAN_SOCKET", path = path.display())]
    Socket { path: PathBuf, source: std::io::Error },
    #[error("{0} broke off, and nothing goes on without it; please report this as a bug")]
    Broken(&'static str),
}

/// Runs until it is stopped, or a task breaks off that nothing goes on without.
///
/// # Errors
/// [`OperatorError`] if it cannot run at all; it waits for everything that may still come.
pub async fn run(
    mut outside: Outside,
    settings: Settings,
    env: Env,
    stop: CancellationToken,
) -> Result<(), OperatorError> {
    info!(
        version = env!("CARGO_PKG_VERSION"),
        identity = settings.identity,
        operator_namespace = settings.namespace,
        "starting"
    );
    // In namespaced mode nothing permits to look at the Leases of others: each ServiceRegistry names its release.
    if settings.elects() && !settings.reach.is_limited() {
        refuse_beside_another_release(&outside.lease, &settings, &env).await?;
    }
    // A task that breaks off stops the rest.
    let stop = stop.child_token();
    let lifetimes = Lifetimes::new(&stop, &env);
    let (mut views, leadership) = (Views::new(env), settings.leadership());
    views.cluster().set_reach(settings.reach.clone());
    views.cluster().networks.name(&settings.networks);
    if settings.rollouts {
        views.gates = Gates::on();
    }
    let (events, cluster) = mpsc::unbounded_channel();
    let (mut writers, publisher) =
        Writers::new(&outside.rest, &views, &leadership, &settings.identity, events.clone(), outside.metrics.clone());
    let page = outside.page.take();
    if page.is_some() {
        writers.board = Board::on();
    }
    let (board, statuses) = (writers.board.clone(), writers.statuses.clone());
    let metrics = writers.metrics.clone();
    let (tasks, election) = (&lifetimes.tasks, &lifetimes.election);
    tasks.spawn("events", publisher.run(election.clone()));
    tasks.spawn("statuses", writers.statuses.clone().run(lifetimes.writing.clone()));
    tasks.spawn("leadership metric", follow_leadership(leadership.clone(), metrics.clone(), election.clone()));
    let history = lease_history(&outside.lease, &settings).await;
    let electing = lead(&outside.lease, &settings, &history, &views.env, &leadership, election);
    let passes = start_controllers(&outside, &settings, &views, writers, (events, cluster), history, &lifetimes);
    let electing = lifetimes.tasks.spawn("election", electing);
    let (env, stopped) = (views.env.clone(), lifetimes.election.clone());
    if let Some(inside) = outside.inside.take() {
        let pages = (inside.pages)(views.clone());
        lifetimes.tasks.spawn("pages of the pod", server::serve(inside.listener, pages, env.clone(), stopped.clone()));
    }
    if let Some(StatusPage { listener, hosts, explain }) = page {
        let seen = views.clone();
        let explain = Arc::new(move |key: &ServiceKey, leads| explain(&seen, &statuses, key, leads));
        // The Lease names a replica by its pod and a random number.
        let replica = settings.identity.rsplit_once('_').map_or(settings.identity.as_str(), |(pod, _)| pod);
        let looking = StatusPage::first_look(views.clone(), board.clone());
        let looking = stopped.clone().run_until_cancelled_owned(looking);
        lifetimes.tasks.spawn("first look of the page", async move { looking.await.unwrap_or_default() });
        let page = Page::new(board, leadership.clone(), replica, hosts, explain, env.clone());
        let serving = server::serve_within(page::bounds(), listener, page::pages(page), env.clone(), stopped.clone());
        lifetimes.tasks.spawn("status page", serving);
    }
    if let Some(listener) = outside.drain.take() {
        // Pods that wait are answered before anything ends.
        let stopping = lifetimes.writing.clone();
        let drain = Drain::new(&views, outside.rest.clone(), metrics.clone(), settings.dry_run, stopping);
        lifetimes.tasks.spawn("drain", drain::serve(drain, listener, env.clone(), stopped.clone()));
    }
    if let Some(listener) = outside.admin.take() {
        let parts: admin::Parts = Arc::new(move || readiness::parts(&views, &leadership));
        lifetimes.tasks.spawn("admin pages", server::serve(listener, admin::pages(parts, metrics), env, stopped));
    }

    stop.cancelled().await;
    let broken = lifetimes.end(passes, electing).await;
    info!("stopped");
    broken.map_or(Ok(()), |task| Err(OperatorError::Broken(task)))
}

/// Refuses to start beside another release, because both would write.
async fn refuse_beside_another_release(client: &Client, settings: &Settings, env: &Env) -> Result<(), OperatorError> {
    let Settings { namespace, reach, .. } = settings;
    match leadership::another_release(client.clone(), namespace, &reach.registries, env.now()).await {
        Ok(None) => Ok(()),
        Ok(Some(namespace)) => Err(OperatorError::AnotherRelease(namespace)),
        Err(error) => {
            warn!(%error, "cannot see whether another release runs in this cluster");
            Ok(())
        }
    }
}

/// The tasks of the operator, in the order in which they end.
struct Lifetimes {
    /// Passes end first, so that nothing is written while the Lease is released.
    writing: CancellationToken,
    /// Then the epochs are released.
    releasing: CancellationToken,
    epochs: TaskTracker,
    /// Then the election ends, and everything else with it.
    election: CancellationToken,
    tasks: Tasks,
}

impl Lifetimes {
    fn new(stop: &CancellationToken, env: &Env) -> Self {
        Self {
            writing: stop.child_token(),
            releasing: CancellationToken::new(),
            epochs: TaskTracker::new(),
            election: CancellationToken::new(),
            tasks: Tasks::new(stop.clone(), env.clone()),
        }
    }

    /// Returns the task that broke off, if one did.
    async fn end(self, passes: JoinHandle<()>, electing: JoinHandle<()>) -> Option<&'static str> {
        self.writing.cancel();
        // Their panics are logged already.
        let _ = passes.await;
        self.releasing.cancel();
        self.epochs.close();
        if tokio::time::timeout(RELEASE, self.epochs.wait()).await.is_err() {
            warn!("a registry did not take its epoch back in time");
        }
        self.election.cancel();
        let _ = electing.await;
        self.tasks.end().await;
        self.tasks.broken()
    }
}

/// Starts router, sessions, probes, watches and the queue, whose task it returns.
fn start_controllers(
    outside: &Outside,
    settings: &Settings,
    views: &Views,
    writers: Writers,
    (cluster_events, cluster): (mpsc::UnboundedSender<ClusterEvent>, mpsc::UnboundedReceiver<ClusterEvent>),
    lease_history: LeaseHistory,
    lifetimes: &Lifetimes,
) -> JoinHandle<()> {
    let Lifetimes { tasks, epochs, election, releasing, writing } = lifetimes;
    let (env, leadership) = (&views.env, &writers.leadership);
    let (registry_events, registry) = mpsc::unbounded_channel();
    let (probe_events, probe) = mpsc::unbounded_channel();
    let (commands, command_queue) = mpsc::unbounded_channel();
    let (enqueuer, queue) = queue::new(env.clone());
    let discovery = discovery::Controller::new(views.clone(), writers.clone(), commands.clone());
    tasks.spawn("discovery", discovery.run(writing.clone()));
    if settings.rollouts {
        let gates = gates::Controller::new(views.clone(), writers.clone());
        tasks.spawn("readiness gates", gates.run(writing.clone()));
    }
    let router =
        Router { views: views.clone(), enqueuer, registries: commands, statuses: Some(writers.statuses.clone()) };
    let sources = Sources { cluster, registry, probe, leading: leadership.changes() };
    tasks.spawn("router", router.run(sources, election.clone()));

    let takeover =
        Takeover { leadership: leadership.clone(), lease_history, env: env.clone(), ending: releasing.clone() };
    let upkeep = Some(Upkeep { takeover, audit_interval: settings.audit_interval, epochs: epochs.clone() });
    let calls = EtcdCalls::new(writers.metrics.clone());
    let connect = outside.connect.clone().observed(calls.observe());
    let metrics = writers.metrics.clone();
    let gauges = Gauges { views: views.clone(), backlog: queue.backlog(), calls, metrics: metrics.clone() };
    tasks.spawn("gauges", gauges.run(election.clone()));
    let sessions =
        Sessions::new(views.clone(), registry_events, tasks.tracker().clone(), election.clone(), upkeep, connect);
    let registries = service_registry::Controller::new(writers.clone(), sessions);
    tasks.spawn("controller of ServiceRegistries", registries.run(command_queue));
    let (prober, stop) = (outside.prober.clone(), election.clone());
    tasks.spawn("probes", views.probes.clone().run(prober, leadership.clone(), probe_events, env.clone(), stop));
    let watches = Watches {
        view: views.cluster.clone(),
        events: cluster_events,
        env: env.clone(),
        server: outside.server.clone(),
        metrics,
        stop: election.clone(),
        tasks: tasks.clone(),
    };
    watches.start(&outside.rest, &settings.namespace);
    let views = views.clone();
    let controller = registered_service::Controller { views, writers, checkpoints: Checkpoints::default() };
    let passes = queue.run(move |key, triggered| controller.clone().reconcile(key, triggered), writing.clone());
    tasks.spawn("queue", passes)
}

/// Keeps the metric for leadership up to date.
async fn follow_leadership(leadership: Leadership, metrics: Arc<Metrics>, stop: CancellationToken) {
    let mut leading = leadership.changes();
    loop {
        let leads = *leading.borrow_and_update() && !leadership.is_dry_run();
        metrics.leader.set(u64::from(leads));
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            changed = leading.changed() => if changed.is_err() { return },
        }
    }
}

/// Reads the Lease before this process takes part in the election: its current holder explains epochs that are found
/// later.
async fn lease_history(client: &Client, settings: &Settings) -> LeaseHistory {
    if !settings.elects() {
        return LeaseHistory::alone(&settings.identity);
    }
    let lease_history = LeaseHistory::new(client.clone(), &settings.namespace, &settings.identity);
    if let Err(error) = lease_history.confirm().await {
        warn!(%error, "cannot read the Lease yet");
    }
    lease_history
}

fn lead(
    client: &Client,
    settings: &Settings,
    history: &LeaseHistory,
    env: &Env,
    leadership: &Leadership,
    stop: &CancellationToken,
) -> BoxFuture<'static, ()> {
    let (leadership, stop) = (leadership.clone(), stop.clone());
    if settings.elects() {
        let election = Election::new(client.clone(), &settings.namespace, history.clone(), env.clone());
        let election = election.serving(&settings.reach.registries);
        Box::pin(election.run(leadership, stop))
    } else {
        Box::pin(leadership::lead_alone(leadership, stop))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_end_names_the_task_that_broke_off() {
        let stop = CancellationToken::new();
        let lifetimes = Lifetimes::new(&stop, &Env::real());
        let passes = lifetimes.tasks.spawn("queue", async { panic!("{}", "why") });
        let election = lifetimes.election.clone();
        let electing = lifetimes.tasks.spawn("election", async move { election.cancelled().await });
        tokio::time::timeout(Duration::from_secs(1), stop.cancelled()).await.unwrap();
        assert_eq!(lifetimes.end(passes, electing).await, Some("queue"));
    }

    #[test]
    fn a_dry_run_takes_part_in_no_election_and_writes_nothing() {
        for (leader_elect, dry_run, elects, writes) in [
            (true, false, true, true),
            (false, false, false, true),
            (true, true, false, false),
            (false, true, false, false),
        ] {
            let settings = Settings {
                namespace: "n".to_owned(),
                leader_elect,
                dry_run,
                rollouts: false,
                audit_interval: Duration::from_secs(600),
                networks: NamedNetworks::default(),
                identity: "me".to_owned(),
                reach: Reach::default(),
            };
            assert_eq!(settings.elects(), elects, "{settings:?}");
            let leadership = settings.leadership();
            leadership.acquired();
            assert_eq!((leadership.is_leader(), leadership.may_write()), (true, writes), "{settings:?}");
        }
    }
}
