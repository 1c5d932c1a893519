//! The session of a registry: list → `Reset` → watch from the list's revision, re-entered at every end or error.
//!
//! One loop, so that compaction, an expired token, a cut connection and a server that falls silent all end the same way: the
//! view is stale, a new connection is opened to the next endpoint that answers, and a complete list makes it fresh. It never
//! gives up. Refuses to know records: it feeds the [`super::view`].

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use twinspan_core::plan::departures::Evidence;

use super::handle::{Phase, RegistryHandle};
use super::view::{LookUp, Touched};
use super::{Connector, LeaseState, Registry, RegistryError, Result, Watch, WatchItem};
use crate::world::World;

/// After this long without anything the server is asked for progress; after as long again it counts as dead.
pub const SILENCE: Duration = Duration::from_secs(10);
/// First wait after a failure; doubled for each further one.
const BACKOFF: Duration = Duration::from_millis(250);
/// Longest wait between two attempts. Short enough that a lease of the shortest TTL, 60 s, which was last kept alive 20 s before
/// an outage of 30 s, is kept alive again in time.
const BACKOFF_CAP: Duration = Duration::from_secs(5);
/// A session that lasted this long was sound: the next failure is a first one.
const SOUND_AFTER: Duration = Duration::from_secs(30);
/// Lease look-ups under way at once.
const LOOK_UPS: usize = 64;

/// Follows the registry until it is stopped.
pub async fn run(handle: Arc<RegistryHandle>, connector: Arc<dyn Connector>, world: World, stop: CancellationToken) {
    let mut failures = 0;
    let look_ups = Arc::new(Semaphore::new(LOOK_UPS));
    loop {
        let started = Instant::now();
        let ended = tokio::select! {
            () = stop.cancelled() => break,
            ended = once(&handle, connector.as_ref(), &world, &look_ups) => ended,
        };
        handle.disconnected();
        if started.elapsed() >= SOUND_AFTER {
            failures = 0;
        }
        failures += 1;
        let wait = world.backoff(failures, BACKOFF, BACKOFF_CAP);
        warn!(registry = handle.name, error = %ended, wait_ms = wait.as_millis(), "session ended; connecting again");
        handle.set_phase(Phase::Failed(ended));
        tokio::select! {
            () = stop.cancelled() => break,
            () = tokio::time::sleep(wait) => {}
        }
    }
    handle.disconnected();
}

/// One session, from the connection to its end; returns why it ended.
async fn once(
    handle: &Arc<RegistryHandle>,
    connector: &dyn Connector,
    world: &World,
    look_ups: &Arc<Semaphore>,
) -> RegistryError {
    match follow(handle, connector, world, look_ups).await {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

async fn follow(
    handle: &Arc<RegistryHandle>,
    connector: &dyn Connector,
    world: &World,
    look_ups: &Arc<Semaphore>,
) -> Result<std::convert::Infallible> {
    let root = handle.layout.root();
    let registry = connector.connect().await?;
    handle.set_server(registry.status().await?);
    handle.set_phase(Phase::Listing);
    let listing = registry.list(&root).await?;
    let touched = handle.view().reset(&listing, world.now());
    handle.set_listed(listing.revision);
    info!(registry = handle.name, records = listing.records.len(), revision = listing.revision, "listed");

    // From the list's own revision, not the next one: etcd gives no sign of life to a watch that begins in the future
    // (`progressIfSync` of server/storage/mvcc, 3.5.8 and later), and what it repeats is old news to the view.
    let mut watch = registry.watch(&root, listing.revision).await?;
    handle.connected(registry.clone());
    handle.set_phase(Phase::Watching);
    tell(handle, &registry, touched, look_ups);
    loop {
        let item = tokio::select! {
            item = next(watch.as_mut()) => item?,
            () = handle.start_over.notified() => return Err(RegistryError::WatchEnded("an answer was lost".to_owned())),
        };
        match item {
            WatchItem::Changes(changes) => {
                let touched = handle.view().apply(&changes, world.now());
                tell(handle, &registry, touched, look_ups);
            }
            WatchItem::Progress(revision) => handle.view().progressed(revision, world.now()),
        }
    }
}

/// The next item. A watch that says nothing may be dead: then it is asked, and a second silence is its end.
async fn next(watch: &mut dyn Watch) -> Result<WatchItem> {
    if let Ok(item) = timeout(SILENCE, watch.next()).await {
        return item;
    }
    let silent = RegistryError::Silent { seconds: 2 * SILENCE.as_secs() };
    timeout(SILENCE, watch.request_progress()).await.map_err(|_| silent.clone())??;
    timeout(SILENCE, watch.next()).await.map_err(|_| silent)?
}

/// Passes on what changed, and looks up how departed records went.
fn tell(handle: &Arc<RegistryHandle>, registry: &Arc<dyn Registry>, mut touched: Touched, look_ups: &Arc<Semaphore>) {
    for look_up in std::mem::take(&mut touched.look_ups) {
        tokio::spawn(explain(handle.clone(), registry.clone(), look_up, look_ups.clone()));
    }
    handle.touch(touched);
}

async fn explain(handle: Arc<RegistryHandle>, registry: Arc<dyn Registry>, look_up: LookUp, permits: Arc<Semaphore>) {
    let _permit = permits.acquire().await;
    let evidence = match registry.look_up(look_up.lease).await {
        Ok(LeaseState::Lives) => Evidence::Left,
        Ok(LeaseState::Gone) => Evidence::Expired,
        Err(error) => {
            debug!(registry = handle.name, lease = %look_up.lease, %error, "cannot look up a departed record's lease");
            Evidence::Unexplained
        }
    };
    if handle.view().explain(&look_up, evidence) {
        let names = [look_up.name.clone()].into();
        handle.touch(Touched { names, ..Touched::default() });
    }
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
