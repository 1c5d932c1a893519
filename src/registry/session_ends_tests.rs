use super::*;

/// A connector that panics at first.
struct Panics(std::sync::atomic::AtomicUsize, FakeEtcd);

#[async_trait::async_trait]
impl Connector for Panics {
    async fn connect(&self) -> Result<Arc<dyn Registry>> {
        assert!(self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed) > 0, "the first time");
        self.1.connect().await
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_that_breaks_off_ends_as_disconnected_and_begins_again() {
    let bench = bench();
    bench.fresh().await;
    let stop = CancellationToken::new();
    let connector = Panics(std::sync::atomic::AtomicUsize::new(0), bench.server.clone());
    tokio::spawn(run(bench.handle.clone(), Arc::new(connector), Env::real(), stop.clone()));
    bench.stop.cancel();
    let failed = |b: &Bench| matches!(b.handle.status().phase, Phase::Failed(RegistryError::Panicked(_)));
    for _ in 0..2000 {
        if failed(&bench) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(failed(&bench), "{:?}", bench.handle.status());
    assert_eq!(bench.snapshot().state, ViewState::Stale);
    bench.fresh().await;
    stop.cancel();
}

/// A server that refuses each connection in its own words.
struct Refuses(std::sync::Mutex<Vec<&'static str>>);

#[async_trait::async_trait]
impl Connector for Refuses {
    async fn connect(&self) -> Result<Arc<dyn Registry>> {
        let mut words = self.0.lock().unwrap();
        words.rotate_left(1);
        Err(RegistryError::TlsFailed(words[words.len() - 1].to_owned()))
    }
}

/// The number of events in a time: those that only report, and those that requeue.
async fn events_in(events: &mut mpsc::UnboundedReceiver<RegistryEvent>, time: Duration) -> (usize, usize) {
    tokio::time::sleep(time).await;
    let (mut reports, mut requeues) = (0, 0);
    while let Ok(event) = events.try_recv() {
        match event {
            RegistryEvent::Status { .. } => reports += 1,
            _ => requeues += 1,
        }
    }
    (reports, requeues)
}

#[tokio::test(start_paused = true)]
async fn other_words_of_one_kind_of_failure_are_told_at_once_for_other_settings_and_else_now_and_then() {
    let (sender, mut events) = mpsc::unbounded_channel();
    let handle = RegistryHandle::new("main", &identity(Layout::new(Format::Kitex, "p"), None), None, sender);
    let begin = |words: &[&'static str]| {
        let stop = CancellationToken::new();
        let connector = Arc::new(Refuses(std::sync::Mutex::new(words.to_vec())));
        tokio::spawn(run(handle.clone(), connector, Env::real(), stop.clone()));
        stop
    };
    let stop = begin(&["unknown issuer"]);
    assert_eq!(events_in(&mut events, Duration::from_secs(30)).await, (1, 1));
    stop.cancel();
    // Other settings.
    let stop = begin(&["certificate required", "transport error: certificate required"]);
    assert_eq!(events_in(&mut events, Duration::from_secs(50)).await, (1, 0));
    let (reports, requeues) = events_in(&mut events, Duration::from_secs(600)).await;
    assert!((5..=10).contains(&reports) && requeues == 0, "{reports} reports, {requeues} requeues");
    stop.cancel();
}
