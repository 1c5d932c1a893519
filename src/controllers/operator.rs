//! Starts and stops everything: the composition of the operator.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kube::{Client, Config};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

use super::context::Context;
use super::registries::{self, Guards, Registries};
use super::router::Router;
use super::{queue, readiness, services};
use crate::cluster::events::Events;
use crate::cluster::view::ClusterView;
use crate::cluster::watch::Watches;
use crate::leadership::{self, Claim, Holders};
use crate::probe::{Probes, TcpProber};
use crate::registry::epoch::Leader;
use crate::telemetry::admin;
use crate::telemetry::metrics::Metrics;
use crate::world::World;

/// How long epochs may take to be given back when the process ends.
const GIVE_BACK: Duration = Duration::from_secs(5);

/// Everything that the command line decides.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Our own, for Secrets and the Lease.
    pub namespace: String,
    pub leader_elect: bool,
    pub admin_addr: SocketAddr,
    pub dry_run: bool,
    /// Names this replica in the Lease and in Events.
    pub identity: String,
}

/// Why the operator could not start, or had to end.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    #[error("cannot make a Kubernetes client: {0}")]
    Client(#[from] Box<kube::Error>),
    #[error("cannot listen on {address}: {source}; set --admin-addr")]
    Admin { address: SocketAddr, source: std::io::Error },
    #[error(
        "another release of Twinspan runs in namespace {0}, and two would write against each other; run one of them, with more replicas \
         where more are wanted"
    )]
    AnotherRelease(String),
}

/// Runs until it is stopped.
///
/// # Errors
/// [`OperatorError`] where it cannot run at all; everything that can be waited for is waited for.
pub async fn run(
    mut config: Config,
    settings: Settings,
    world: World,
    stop: CancellationToken,
) -> Result<(), OperatorError> {
    // Retries below us would block a pass for minutes; every call has a deadline, and passes are repeated.
    config.default_retry = false;
    let client = Client::try_from(config).map_err(Box::new)?;
    info!(
        version = env!("CARGO_PKG_VERSION"),
        identity = settings.identity,
        namespace = settings.namespace,
        "starting"
    );

    if settings.leader_elect {
        match leadership::another_release(client.clone(), &settings.namespace, world.now()).await {
            Ok(None) => {}
            Ok(Some(namespace)) => return Err(OperatorError::AnotherRelease(namespace)),
            Err(error) => warn!(%error, "cannot see whether another release runs in this cluster"),
        }
    }
    let tasks = TaskTracker::new();
    let metrics = Arc::new(Metrics::default());
    let cluster = Arc::new(Mutex::new(ClusterView::default()));
    let claim = Claim::none();
    // What leads ends first, so that nothing is written while the Lease is given back.
    let writers = stop.child_token();
    let election = CancellationToken::new();
    let (epochs, ending) = (TaskTracker::new(), CancellationToken::new());

    let (events, publishing) = Events::new(client.clone(), &settings.identity, election.clone());
    tasks.spawn(publishing);
    let context = Context {
        client: client.clone(),
        world: world.clone(),
        cluster: cluster.clone(),
        registries: Registries::default(),
        guards: Guards::default(),
        probes: Probes::default(),
        claim: claim.clone(),
        metrics: metrics.clone(),
        events,
        memory: Arc::default(),
        addresses: Arc::default(),
        status_budget: Arc::default(),
        dry_run: settings.dry_run,
    };

    let (registry_events, registry_changes) = mpsc::unbounded_channel();
    let (commands, command_queue) = mpsc::unbounded_channel();
    let (cluster_events, cluster_changes) = mpsc::unbounded_channel();
    let (marker, queue) = queue::new(world.clone());
    let router = Router { context: context.clone(), marker: marker.clone(), registries: commands };
    tasks.spawn(router.run(cluster_changes, registry_changes, election.clone()));
    let parts: admin::Parts = Arc::new({
        let context = context.clone();
        move || readiness::parts(&context)
    });
    let holders = holders(&client, &settings).await;
    let controller = registries::Controller::new(
        context.clone(),
        Leader { claim: claim.clone(), holders: holders.clone(), world: world.clone(), ending: ending.clone() },
        registry_events,
        tasks.clone(),
        epochs.clone(),
        election.clone(),
        true,
    );
    tasks.spawn(controller.run(command_queue));
    tasks.spawn(context.probes.clone().run(
        Arc::new(TcpProber),
        claim.clone(),
        marker,
        world.clone(),
        election.clone(),
    ));
    tasks.spawn({
        let (claim, stop) = (claim.clone(), election.clone());
        async move { holders.stand_by(claim, stop).await }
    });
    let passes = tasks
        .spawn(queue.run(move |key, triggered| services::reconcile(context.clone(), key, triggered), writers.clone()));
    let watches =
        Watches { view: cluster.clone(), events: cluster_events, world, stop: election.clone(), tasks: tasks.clone() };
    watches.start(&client, &settings.namespace);
    let electing = tasks.spawn(lead(client, settings.clone(), claim, election.clone()));

    let address = settings.admin_addr;
    let served = admin::serve(address, parts, metrics, stop.clone()).await;
    // Here because we were told to stop, or because the address cannot be had: both are the end.
    writers.cancel();
    if passes.await.is_err() {
        error!("the queue broke off");
    }
    ending.cancel();
    epochs.close();
    if tokio::time::timeout(GIVE_BACK, epochs.wait()).await.is_err() {
        warn!("a registry did not take its epoch back in time");
    }
    election.cancel();
    if electing.await.is_err() {
        error!("the election broke off");
    }
    tasks.close();
    tasks.wait().await;
    info!("stopped");
    served.map_err(|source| OperatorError::Admin { address, source })
}

/// Reads the Lease before anybody takes part in the election: who holds it now explains the epochs that are found later.
async fn holders(client: &Client, settings: &Settings) -> Holders {
    if !settings.leader_elect {
        return Holders::alone(&settings.identity);
    }
    let holders = Holders::new(client.clone(), &settings.namespace, &settings.identity);
    if let Err(error) = holders.confirm().await {
        warn!(%error, "cannot read the Lease yet");
    }
    holders
}

async fn lead(client: Client, settings: Settings, claim: Claim, stop: CancellationToken) {
    if settings.leader_elect {
        leadership::elect(client, &settings.namespace, &settings.identity, claim, stop).await;
        return;
    }
    claim.begin();
    tokio::select! {
        () = stop.cancelled() => {}
        () = async { loop { claim.beat().await; claim.begin(); } } => {}
    }
    claim.end();
}
