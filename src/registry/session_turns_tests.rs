//! Sessions of which one source always has more.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::task::{JoinHandle, yield_now};
use tokio::time::timeout_at;

use super::*;
use crate::registry::WatchRange;
use crate::registry::silence::SILENCE;

/// More items than any of these tests waits for.
const MANY: usize = 10_000;

#[derive(Default)]
struct Counts {
    /// Items that were taken.
    items: AtomicUsize,
    progress_requests: AtomicUsize,
    /// Ranges that were followed later than the stream began.
    followed: AtomicUsize,
}

impl Counts {
    fn items(&self) -> usize {
        self.items.load(Ordering::Relaxed)
    }

    fn progress_requests(&self) -> usize {
        self.progress_requests.load(Ordering::Relaxed)
    }

    fn followed(&self) -> usize {
        self.followed.load(Ordering::Relaxed)
    }
}

/// A stream whose next item is always there, until it is silent for ever.
struct Busy {
    items: usize,
    counts: Arc<Counts>,
    /// Gets another name with each range that is followed.
    renamed: Option<Arc<RegistryHandle>>,
}

#[async_trait::async_trait]
impl Watch for Busy {
    async fn next(&mut self) -> Result<WatchItem> {
        tokio::task::consume_budget().await;
        if self.counts.items() == self.items {
            return std::future::pending().await;
        }
        self.counts.items.fetch_add(1, Ordering::Relaxed);
        Ok(WatchItem::Alive)
    }

    async fn follow(&mut self, _: &WatchRange) -> Result<()> {
        let number = self.counts.followed.fetch_add(1, Ordering::Relaxed);
        if let Some(handle) = &self.renamed {
            handle.asked.set_registered(names(&["echo", &format!("other-{number}")]));
        }
        Ok(())
    }

    async fn unwatch(&mut self, _: i64) -> Result<()> {
        Ok(())
    }

    async fn request_progress(&mut self) -> Result<bool> {
        self.counts.progress_requests.fetch_add(1, Ordering::Relaxed);
        Ok(true)
    }
}

struct BusySession {
    server: FakeEtcd,
    handle: Arc<RegistryHandle>,
    counts: Arc<Counts>,
    followed: JoinHandle<Result<()>>,
    _events: mpsc::UnboundedReceiver<RegistryEvent>,
}

/// A session with a busy stream that has not been followed yet; `change` may change it before.
async fn session(items: usize, renamed: bool, change: impl FnOnce(&mut Session)) -> BusySession {
    let (server, counts) = (FakeEtcd::new(), Arc::new(Counts::default()));
    let (sender, _events) = mpsc::unbounded_channel();
    let handle = RegistryHandle::new("main", &identity(Layout::new(Format::GoZero, ""), None), None, sender);
    handle.asked.set_registered(names(&["echo"]));
    let registry = server.connect().await.unwrap();
    let look_ups = Arc::new(Semaphore::new(LOOK_UPS));
    let mut session = Session::begin(handle.clone(), registry, Env::real(), look_ups).await.unwrap();
    let renamed = renamed.then(|| handle.clone());
    session.watch = Some(Box::new(Busy { items, counts: counts.clone(), renamed }));
    change(&mut session);
    let followed = tokio::spawn(async move { session.follow().await });
    BusySession { server, handle, counts, followed, _events }
}

impl BusySession {
    /// Waits while the clock stands, because the session never rests; not longer than the stream has items.
    async fn meanwhile(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        loop {
            let held = holds(self);
            assert!(self.counts.items() < MANY, "not while the stream has more: {what}");
            if held {
                return;
            }
            yield_now().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn no_rare_signal_waits_for_a_stream_that_always_has_more() {
    let bench = session(MANY, false, |_| {}).await;
    bench.meanwhile("the end of the search", |b| b.handle.knows_its_records()).await;
    let searches = bench.server.calls("leases");
    bench.handle.find_orphans.notify_one();
    bench.meanwhile("another search", |b| b.server.calls("leases") > searches).await;
    bench.handle.audit.progress_wanted.notify_one();
    bench.meanwhile("a progress request", |b| b.counts.progress_requests() > 0).await;
    bench.handle.asked.set_registered(names(&["echo", "late"]));
    bench.meanwhile("the new name", |b| b.counts.followed() > 0).await;
    bench.handle.start_over.notify_one();
    bench.meanwhile("the end", |b| b.followed.is_finished()).await;
}

#[tokio::test(start_paused = true)]
async fn a_search_that_failed_is_repeated_although_the_stream_always_has_more() {
    let due = |session: &mut Session| {
        session.search = None;
        session.search_again = Some(Instant::now());
    };
    let bench = session(MANY, false, due).await;
    bench.meanwhile("another search", |b| b.handle.knows_its_records()).await;
    bench.followed.abort();
}

#[tokio::test(start_paused = true)]
async fn a_range_without_permission_is_tried_again_although_the_stream_always_has_more() {
    let due = |session: &mut Session| {
        // Its end would list the range.
        session.search = None;
        session.followed.clear();
        session.refused.insert(Range::Service(RegistryName::new("echo").unwrap()), Instant::now());
    };
    let bench = session(MANY, false, due).await;
    bench.meanwhile("another attempt", |b| b.counts.followed() > 0).await;
    bench.followed.abort();
}

#[tokio::test(start_paused = true)]
async fn the_stream_and_names_that_always_change_take_turns() {
    let bench = session(MANY, true, |_| {}).await;
    bench.handle.asked.set_registered(names(&["echo", "first"]));
    bench.meanwhile("many names", |b| b.counts.followed() >= 50).await;
    let (items, followed) = (bench.counts.items(), bench.counts.followed());
    // The search for orphaned records lists what is missing, too.
    assert!(items + 2 >= followed, "{items} items, {followed} names");
    bench.followed.abort();
}

#[tokio::test(start_paused = true)]
async fn a_silent_stream_is_noticed_although_names_always_change() {
    let mut bench = session(0, true, |_| {}).await;
    bench.server.set_faults(Faults { slow: true, ..Faults::default() });
    bench.handle.asked.set_registered(names(&["echo", "first"]));
    let began = Instant::now();
    let ended = timeout_at(began + Duration::from_secs(60), &mut bench.followed).await;
    assert!(matches!(ended, Ok(Ok(Err(RegistryError::Silent { .. })))), "{ended:?}");
    assert!(began.elapsed() < 2 * SILENCE + Duration::from_secs(3), "{:?}", began.elapsed());
    assert!(bench.counts.followed() > 10, "names came all the time");
}

#[tokio::test(start_paused = true)]
async fn after_a_sleep_of_the_process_nothing_counts_that_was_heard_before() {
    for news in [false, true] {
        let bench = bench();
        bench.fresh().await;
        bench.server.set_faults(Faults { progress_lost: true, ..Faults::default() });
        if news {
            // The stream has it as the process goes on, and nobody knows for how long.
            bench.server.put("p/echo/10.0.0.1:80", &value("10.0.0.1:80"), LeaseId::NONE);
        }
        tokio::time::advance(2 * SILENCE).await;
        tokio::time::sleep(Duration::from_millis(1)).await;
        let failed = matches!(bench.handle.status().phase, Phase::Failed(RegistryError::Silent { .. }));
        assert!(failed, "{news}: {:?}", bench.handle.status());
        assert_eq!(bench.snapshot().state, ViewState::Stale, "{news}");
        bench.fresh().await;
        bench.stop.cancel();
    }
}

#[tokio::test(start_paused = true)]
async fn a_process_that_slept_for_less_asks_and_waits_for_no_more_than_is_left() {
    let bench = bench();
    bench.fresh().await;
    bench.server.set_faults(Faults { progress_lost: true, ..Faults::default() });
    tokio::time::advance(SILENCE * 3 / 2).await;
    tokio::time::sleep(SILENCE / 2 - Duration::from_millis(100)).await;
    assert_eq!(bench.snapshot().state, ViewState::Fresh);
    // The session has ended, and begins again 125 ms later at the earliest.
    tokio::time::sleep(Duration::from_millis(120)).await;
    assert_eq!(bench.snapshot().state, ViewState::Stale);
    bench.stop.cancel();
}
