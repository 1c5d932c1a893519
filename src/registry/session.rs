//! The session of a registry: list → `Reset` → watch from the list's revision, repeated at every end or error.
//!
//! Owns when to connect, list and watch. Compaction, an expired token, a cut connection and a silent server all end the
//! same way: the view becomes stale, the next endpoint that answers gets a new connection, and complete lists make the
//! view fresh. The [`super::scope`] says whether the registry is one range, or each name that is asked for; one stream
//! watches all of them (`docs/decisions/0018`). Keepalives begin with the registry's first answer, before any list.
//! Refuses to read records: it feeds the [`super::view`].
//!
//! - [`ranges`]: the ranges that it lists and watches.

mod ranges;

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use twinspan_core::codec::Range;
use twinspan_core::model::{RegistryName, Revision};
use twinspan_core::plan::service::Incarnation;

use super::fence::FenceKeys;
use super::handle::RegistryHandle;
use super::phase::Phase;
use super::records::Affected;
use super::scope::Scope;
use super::silence::Silence;
use super::verified::WatchProgress;
use super::waits::{names_wait, next, reached, read_something, search_ends, something_to_follow};
use super::{Connector, Registry, RegistryError, Result, Watch, WatchItem, look_ups, orphans, record_count};
use crate::env::{Env, milliseconds};
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
        connector.session_ended(&ended);
        if started.elapsed() >= SOUND_AFTER {
            failures = 0;
        }
        failures += 1;
        let wait = env.backoff(failures, BACKOFF, BACKOFF_CAP);
        let wait_ms = milliseconds(wait);
        warn!(registry = handle.name, error = %ended, wait_ms, "session ended; connecting again");
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
    let session = async {
        let registry = connector.connect().await?;
        serve(handle, registry, env, look_ups).await
    };
    match tasks::unbroken("session", session).await {
        Ok(Ok(never)) => match never {},
        Ok(Err(error)) => error,
        Err(panic) => RegistryError::Panicked(panic),
    }
}

/// Serves one connection, in each scope in turn.
async fn serve(
    handle: &Arc<RegistryHandle>,
    registry: Arc<dyn Registry>,
    env: &Env,
    look_ups: &Arc<Semaphore>,
) -> Result<Infallible> {
    loop {
        let mut session = Session::begin(handle.clone(), registry.clone(), env.clone(), look_ups.clone()).await?;
        session.follow().await?;
        info!(registry = handle.name, from = ?session.scope, "the other scope is the better one now; listing anew");
        let attempt = match &handle.fence {
            Some(fence) => Some(fence.attempt.lock().await),
            None => None,
        };
        handle.disconnected();
        drop(attempt);
    }
}

struct Session {
    handle: Arc<RegistryHandle>,
    registry: Arc<dyn Registry>,
    env: Env,
    look_ups: Arc<Semaphore>,
    scope: Scope,
    /// Names that nobody asks for, and that are followed because of own records.
    kept: BTreeSet<RegistryName>,
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
        let scope = record_count::choose_scope(&handle, registry.as_ref()).await?;
        let found = match &handle.fence {
            Some(fence) => match fence.read(registry.as_ref()).await {
                Ok(found) => Some(found),
                // Imports go on without the fence, and the takeover reports the error.
                Err(RegistryError::PermissionDenied(_)) => None,
                Err(error) => return Err(error),
            },
            None => None,
        };
        {
            let mut view = handle.view();
            view.begin(found.as_ref().map(FenceKeys::values));
            view.set_scope(scope);
        }
        if let (Some(fence), Some(found)) = (&handle.fence, &found) {
            fence.found(found);
        }
        let cluster_id = server.cluster_id;
        handle.set_server(server);
        handle.set_phase(Phase::Listing);
        let mut session = Self {
            handle,
            registry,
            env,
            look_ups,
            scope,
            kept: BTreeSet::new(),
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
        let affected = session.follow_all().await?;
        if session.followed.is_empty() && session.least_revision > 0 {
            session.handle.view().listed_nothing(session.cluster_id, session.least_revision);
            session.listed = session.least_revision;
            session.handle.set_listed(session.listed);
        }
        match scope {
            Scope::Everything => session.handle.set_records_known(),
            Scope::FollowedNames => session.search(),
        }
        let incarnation = session.handle.view().incarnation();
        if incarnation != Incarnation::AsItWas {
            session.handle.leases.forget_grants();
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

    /// Returns once the other scope has become the better one.
    async fn follow(&mut self) -> Result<()> {
        let handle = self.handle.clone();
        // The stream may always have more items, and names may change during each list. So they take turns.
        let mut stream_had_turn = false;
        loop {
            let again = self.refused.values().min().copied();
            let turn_of_names = stream_had_turn && names_wait(&handle.asked, again);
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
                () = something_to_follow(&handle.asked, again) => {
                    stream_had_turn = false;
                    if handle.asked.is_outgrown() {
                        return Ok(());
                    }
                    let affected = self.catch_up().await?;
                    handle.notify(affected);
                }
            }
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

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
