//! The session of a registry: list → `Reset` → watch from the list's revision, repeated at every end or error.
//!
//! Owns when to connect, list and watch. Compaction, an expired token, a cut connection and a silent server all end the
//! same way: the view becomes stale, the next endpoint that answers gets a new connection, and complete lists make the
//! view fresh. If all keys have one prefix, that is one range; otherwise each service is a range, and one stream
//! watches all (`docs/decisions/0018`). Keepalives begin with the registry's first answer, before any list. Refuses to
//! read records: it feeds the [`super::view`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use twinspan_core::codec::Range;
use twinspan_core::model::Revision;
use twinspan_core::plan::service::Incarnation;

use super::fence::FenceKeys;
use super::handle::{Names, RegistryHandle};
use super::phase::Phase;
use super::records::Affected;
use super::silence::Silence;
use super::verified::WatchProgress;
use super::view::Listing;
use super::{
    Connector, Registry, RegistryError, Result, Watch, WatchItem, WatchRange, are_two_etcds, look_ups, orphans,
};
use crate::env::Env;
use crate::tasks;

/// First wait after a failure; doubled for each further one.
const BACKOFF: Duration = Duration::from_millis(250);
/// Longest wait between two attempts. Short enough for a lease with the shortest TTL, 60 s: if its last keepalive was
/// 20 s before an outage of 30 s, the next one is still in time.
const BACKOFF_CAP: Duration = Duration::from_secs(5);
/// Least time between two reports of one kind of failure in other words.
const WORDS_PACE: Duration = Duration::from_secs(60);
/// A session that lasted this long resets the backoff.
const SOUND_AFTER: Duration = Duration::from_secs(30);
/// Wait before a range without read permission is tried again.
const REFUSED_RETRY: Duration = Duration::from_secs(30);
/// Time between two searches for orphaned own records, after one that failed.
const ORPHANS_RETRY: Duration = Duration::from_secs(30);
/// Lease look-ups in flight at a time.
const LOOK_UPS: usize = 64;

/// Runs sessions until it is stopped. A replacement waits for its predecessor to end; otherwise the predecessor's
/// cleanup would hit the new session.
pub async fn run(handle: Arc<RegistryHandle>, connector: Arc<dyn Connector>, env: Env, stop: CancellationToken) {
    let _lock = tokio::select! {
        biased;
        () = stop.cancelled() => return,
        lock = handle.session_lock.lock() => lock,
    };
    let mut failures = 0;
    let mut told: Option<(String, Instant)> = None;
    let look_ups = Arc::new(Semaphore::new(LOOK_UPS));
    loop {
        let started = Instant::now();
        let ended = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            ended = once(&handle, connector.as_ref(), &env, &look_ups) => ended,
        };
        handle.disconnected();
        if started.elapsed() >= SOUND_AFTER {
            failures = 0;
        }
        failures += 1;
        let wait = env.backoff(failures, BACKOFF, BACKOFF_CAP);
        warn!(registry = handle.name, error = %ended, wait_ms = wait.as_millis(), "session ended; connecting again");
        let text = ended.to_string();
        handle.set_phase(Phase::Failed(ended));
        // A failure of the same kind requeues nothing, but its words may be others: those of other settings count at
        // once, and of a server that tells the same in turns only now and then.
        if told.as_ref().is_none_or(|(before, at)| *before != text && at.elapsed() >= WORDS_PACE) {
            told = Some((text, Instant::now()));
            handle.report();
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            () = tokio::time::sleep(wait) => {}
        }
    }
    handle.disconnected();
    handle.ended();
}

/// One session, from the connection to its end. Returns the error that ended it.
async fn once(
    handle: &Arc<RegistryHandle>,
    connector: &dyn Connector,
    env: &Env,
    look_ups: &Arc<Semaphore>,
) -> RegistryError {
    let began = async {
        let registry = connector.connect().await?;
        Session::begin(handle.clone(), registry, env.clone(), look_ups.clone()).await
    };
    let session = async {
        match began.await {
            Ok(mut session) => session.follow().await,
            Err(error) => Err(error),
        }
    };
    match tasks::unbroken("session", session).await {
        Ok(Ok(never)) => match never {},
        Ok(Err(error)) => error,
        Err(panic) => RegistryError::Panicked(panic),
    }
}

struct Session {
    handle: Arc<RegistryHandle>,
    registry: Arc<dyn Registry>,
    env: Env,
    look_ups: Arc<Semaphore>,
    names: watch::Receiver<Names>,
    /// `None` while there is nothing to watch.
    watch: Option<Box<dyn Watch>>,
    followed: BTreeMap<Range, i64>,
    /// Ranges without read permission, and the time of the next attempt; others can be read.
    refused: BTreeMap<Range, Instant>,
    next_watch_id: i64,
    /// The revision of the last list.
    listed: Revision,
    /// The cluster ID of the server as the session began; 0 if it told none. A connection that is made anew below us
    /// may lead to another one.
    cluster_id: u64,
    /// The revision at which the keys of the fence were read. No list of this session may be older.
    least_revision: Revision,
    silence: Silence,
    /// The search for orphaned own records that runs.
    search: Option<BoxFuture<'static, Result<()>>>,
    /// The next search, after one that failed.
    search_again: Option<Instant>,
}

impl Session {
    /// Connects the view with the registry: lists everything and watches it from there.
    async fn begin(
        handle: Arc<RegistryHandle>,
        registry: Arc<dyn Registry>,
        env: Env,
        look_ups: Arc<Semaphore>,
    ) -> Result<Self> {
        let server = registry.status().await?;
        handle.answered(registry.clone());
        let found = match &handle.fence {
            Some(fence) => match fence.read(registry.as_ref()).await {
                Ok(found) => Some(found),
                // Imports go on without the fence, and the takeover reports the error.
                Err(RegistryError::PermissionDenied(_)) => None,
                Err(error) => return Err(error),
            },
            None => None,
        };
        handle.view().begin(found.as_ref().map(FenceKeys::values));
        if let (Some(fence), Some(found)) = (&handle.fence, &found) {
            fence.found(found);
        }
        let cluster_id = server.cluster_id;
        handle.set_server(server);
        handle.set_phase(Phase::Listing);
        // A name that is added while others are listed follows after them.
        let names = handle.names();
        let mut session = Self {
            handle,
            registry,
            env,
            look_ups,
            names,
            watch: None,
            followed: BTreeMap::new(),
            refused: BTreeMap::new(),
            next_watch_id: 1,
            listed: 0,
            cluster_id,
            least_revision: found.map(|found| found.revision).unwrap_or_default(),
            silence: Silence::begin(),
            search: None,
            search_again: None,
        };
        let affected = session.catch_up().await?;
        if session.followed.is_empty() && session.least_revision > 0 {
            session.handle.view().listed_nothing(session.cluster_id, session.least_revision);
        }
        if session.handle.layout.root().is_some() {
            session.handle.set_records_known();
        } else {
            session.search();
        }
        let incarnation = session.handle.view().incarnation();
        if incarnation != Incarnation::AsItWas {
            warn!(
                registry = session.handle.name,
                ?incarnation,
                "the registry did not come back as it was; nothing is deleted because of it"
            );
        }
        session.handle.connected(session.registry.clone());
        session.handle.set_phase(Phase::Watching);
        session.handle.notify(affected);
        Ok(session)
    }

    /// Lists and watches wanted ranges that are missing, and stops watching unwanted ones.
    async fn catch_up(&mut self) -> Result<Affected> {
        let wanted = self.handle.wanted_ranges();
        self.unwatch_all_but(&wanted).await?;
        let now = Instant::now();
        let due = |range: &&Range| self.refused.get(*range).is_none_or(|again| *again <= now);
        let missing = wanted.iter().filter(|range| !self.followed.contains_key(*range)).filter(due);
        let (mut affected, mut refusal) = (Affected::default(), None);
        for range in missing.cloned().collect::<Vec<_>>() {
            let more = match self.start_following(&range).await {
                Ok(more) => more,
                Err(RegistryError::PermissionDenied(why)) if range != Range::Everything => {
                    let key_prefix = self.handle.layout.key_prefix(&range);
                    let error = RegistryError::PermissionDenied(format!("{key_prefix}: {why}"));
                    refusal = Some(error.clone());
                    self.refuse(&range, error)
                }
                Err(error) => return Err(error),
            };
            affected.add(more);
        }
        self.handle.set_listed(self.listed);
        match refusal {
            // No range may be read: the error is the registry's.
            Some(error) if self.followed.is_empty() => Err(error),
            _ => Ok(affected),
        }
    }

    async fn unwatch_all_but(&mut self, wanted: &BTreeSet<Range>) -> Result<()> {
        self.refused.retain(|range, _| wanted.contains(range));
        let known = self.handle.view().ranges();
        for range in known.difference(wanted) {
            self.handle.view().forget(range);
            let watch_id = self.followed.remove(range);
            self.drop_empty_stream();
            if let (Some(watch_id), Some(watch)) = (watch_id, &mut self.watch) {
                watch.unwatch(watch_id).await?;
            }
        }
        Ok(())
    }

    /// etcd never answers a progress request on a stream without watches.
    fn drop_empty_stream(&mut self) {
        if self.followed.is_empty() {
            self.watch = None;
        }
    }

    /// A range without read permission affects only its own services, because every user can request a name
    /// (`docs/decisions/0023`).
    fn refuse(&mut self, range: &Range, error: RegistryError) -> Affected {
        if self.refused.insert(range.clone(), Instant::now() + REFUSED_RETRY).is_none() {
            warn!(registry = self.handle.name, %error, "a service cannot be followed; the others are");
        }
        self.handle.view().refuse(range, error)
    }

    async fn start_following(&mut self, range: &Range) -> Result<Affected> {
        let key_prefix = self.handle.layout.key_prefix(range);
        let listing = self.registry.list(&key_prefix).await;
        self.silence.answered();
        let listing = listing?;
        if are_two_etcds(listing.cluster_id, self.cluster_id) || listing.revision < self.least_revision {
            return Err(RegistryError::WatchEnded("another etcd answers than when the session began".to_owned()));
        }
        let listing = Listing::decoded(&self.handle.layout, listing).await;
        let (cluster_id, revision, records) = (listing.cluster_id, listing.revision, listing.records.len());
        let mut affected = self.handle.view().reset(range, listing, self.env.now());
        // Immediately: the next list will not show these departures again.
        self.look_up(&mut affected);
        if let Range::Service(name) = range {
            // The services of the name wait for the list itself, even an empty one.
            affected.names.insert(name.as_str().as_bytes().into());
        }
        self.listed = revision;
        info!(registry = self.handle.name, key_prefix, records, revision, "listed");
        let follow = WatchRange { watch_id: self.next_watch_id, key_prefix, from: revision + 1, cluster_id };
        self.next_watch_id += 1;
        match &mut self.watch {
            Some(watch) => watch.follow(&follow).await?,
            None => {
                self.watch = Some(self.registry.watch(&follow).await?);
                self.silence = Silence::begin();
            }
        }
        self.followed.insert(range.clone(), follow.watch_id);
        self.refused.remove(range);
        Ok(affected)
    }

    async fn follow(&mut self) -> Result<std::convert::Infallible> {
        let handle = self.handle.clone();
        // The stream may always have more items, and names may change during each list. So they take turns.
        let mut stream_had_turn = false;
        loop {
            let again = self.refused.values().min().copied();
            let turn_of_names = stream_had_turn && names_wait(&self.names, again);
            tokio::select! {
                biased;
                // First what is rare, and keeps nothing else waiting.
                () = handle.start_over.notified() => {
                    return Err(RegistryError::WatchEnded("an answer was lost".to_owned()));
                }
                () = handle.find_orphans.notified() => self.search(),
                () = reached(self.search_again) => self.search(),
                found = search_ends(&mut self.search) => self.searched(found).await?,
                () = handle.audit.progress_wanted.notified() => {
                    if let Some(watch) = &mut self.watch
                        && !watch.request_progress().await?
                    {
                        handle.audit.set_progress(WatchProgress::Unanswered);
                    }
                }
                item = next(&mut self.watch), if !turn_of_names => {
                    stream_had_turn = true;
                    self.take(item?).await?;
                }
                // After the stream, whose items end the silence, and before the names, which do not.
                () = sleep_until(self.silence.until) => self.silent().await?,
                () = something_to_follow(&mut self.names, again) => {
                    stream_had_turn = false;
                    let affected = self.catch_up().await?;
                    handle.notify(affected);
                }
            }
        }
    }

    /// One watch ended. If one of its revisions is too large, its range is listed again; without read permission it
    /// waits.
    async fn lost(&mut self, watch_id: i64, error: RegistryError) -> Result<Affected> {
        let Some(range) = self.followed.iter().find(|(_, id)| **id == watch_id).map(|(range, _)| range.clone()) else {
            return Ok(Affected::default());
        };
        self.followed.remove(&range);
        self.drop_empty_stream();
        match error {
            RegistryError::TooLarge(_) => {
                warn!(registry = self.handle.name, %error, "a watch is too large; listing its range again");
                self.catch_up().await
            }
            RegistryError::PermissionDenied(_) if range != Range::Everything => Ok(self.refuse(&range, error)),
            error => Err(error),
        }
    }

    async fn take(&mut self, item: WatchItem) -> Result<()> {
        // After a sleep of the process, the item may be as old as the sleep, and nothing may have come since.
        self.silence.check()?;
        self.silence = Silence::begin();
        match item {
            WatchItem::Changes(changes) => {
                let (mut affected, echoes) = {
                    let mut view = self.handle.view();
                    (view.apply(&changes, self.env.now()), view.take_echoes())
                };
                self.look_up(&mut affected);
                self.handle.notify(affected);
                echoes.into_iter().for_each(|(writer, affected)| self.handle.notify_others(affected, &writer));
            }
            WatchItem::Progress(revision) => {
                self.handle.view().progressed(revision, self.env.now());
                self.handle.audit.set_progress(WatchProgress::Reached(revision));
            }
            WatchItem::Alive => {}
            WatchItem::Lost { watch_id, error } => {
                let affected = self.lost(watch_id, error).await?;
                self.handle.notify(affected);
            }
        }
        Ok(())
    }

    /// A silent watch may be dead: it gets a progress request, and a second silence ends the session.
    async fn silent(&mut self) -> Result<()> {
        let Some(watch) = &mut self.watch else {
            self.registry.status().await?;
            self.silence = Silence::begin();
            return Ok(());
        };
        // Nobody read the stream while the session did something else.
        if let Some(item) = watch.next().now_or_never() {
            self.take(item?).await?;
        } else if self.silence.asked {
            return Err(Silence::error());
        } else {
            self.silence.check()?;
            let asked = watch.request_progress().await?;
            if !asked {
                let range = self.followed.keys().next().map(|range| self.handle.layout.key_prefix(range));
                read_something(self.registry.as_ref(), range).await?;
            }
            match asked {
                true => self.silence.ask(),
                false => self.silence = Silence::begin(),
            }
        }
        Ok(())
    }

    /// Begins to search for orphaned own records. Neither the session nor a keepalive waits for it.
    fn search(&mut self) {
        let (handle, registry) = (self.handle.clone(), self.registry.clone());
        self.search = Some(async move { orphans::find(&handle, registry.as_ref()).await }.boxed());
        self.search_again = None;
    }

    async fn searched(&mut self, found: Result<()>) -> Result<()> {
        self.search = None;
        if let Err(error) = found {
            warn!(registry = self.handle.name, %error, "cannot search for own records that nothing refers to; trying again");
            self.search_again = Some(Instant::now() + ORPHANS_RETRY);
            return Ok(());
        }
        let affected = self.catch_up().await?;
        self.handle.set_records_known();
        self.handle.notify(affected);
        Ok(())
    }

    fn look_up(&self, affected: &mut Affected) {
        look_ups::start(&self.handle, &self.registry, &self.look_ups, &self.env, affected);
    }
}

/// Where the server answers no progress requests, as etcd's proxy, a linearizable read of any permitted key is the sign
/// of life.
async fn read_something(registry: &dyn Registry, key: Option<String>) -> Result<()> {
    match key {
        Some(key) => drop(registry.read(&[key.as_str().into()]).await?),
        None => drop(registry.status().await?),
    }
    Ok(())
}

/// Whether [`something_to_follow`] would not wait.
fn names_wait(names: &watch::Receiver<Names>, again: Option<Instant>) -> bool {
    names.has_changed().unwrap_or(false) || again.is_some_and(|at| at <= Instant::now())
}

/// Waits until names change, or a range is due for another attempt.
async fn something_to_follow(names: &mut watch::Receiver<Names>, again: Option<Instant>) {
    // The handle, which sends the names, lives as long as the session.
    let _ = match again {
        Some(at) => timeout_at(at, names.changed()).await.unwrap_or(Ok(())),
        None => names.changed().await,
    };
}

/// Waits for a time, or for ever.
async fn reached(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

async fn search_ends(search: &mut Option<BoxFuture<'static, Result<()>>>) -> Result<()> {
    match search {
        Some(search) => search.await,
        None => std::future::pending().await,
    }
}

async fn next(watch: &mut Option<Box<dyn Watch>>) -> Result<WatchItem> {
    match watch {
        Some(watch) => watch.next().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
