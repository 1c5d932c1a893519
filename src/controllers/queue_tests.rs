use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use twinspan_core::Timestamp;
use twinspan_core::model::ServiceKey;

use super::queue::{Action, Enqueuer, Finished, new};
use crate::env::Env;

struct Bench {
    enqueuer: Enqueuer,
    started: Arc<Mutex<Vec<u128>>>,
    ended: Arc<Mutex<usize>>,
    stop: CancellationToken,
    queue: JoinHandle<()>,
}

/// Passes that take so long, and end as it says for their number; the dice always fall highest.
fn bench(takes: Duration, ends: impl Fn(usize) -> Action + Send + Sync + 'static) -> Bench {
    let (enqueuer, queue) = new(Env::standing(Timestamp::UNIX_EPOCH, || 1.0));
    let (began, stop) = (Instant::now(), CancellationToken::new());
    let (started, ended) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(0)));
    let (log, done) = (started.clone(), ended.clone());
    let pass = move |_, _| {
        let action = {
            let mut log = log.lock().unwrap();
            log.push(began.elapsed().as_millis());
            ends(log.len() - 1)
        };
        let done = done.clone();
        async move {
            tokio::time::sleep(takes).await;
            *done.lock().unwrap() += 1;
            Finished::from(action)
        }
    };
    let queue = tokio::spawn(queue.run(pass, stop.clone()));
    Bench { enqueuer, started, ended, stop, queue }
}

impl Bench {
    async fn enqueue_and_wait(&self, wait: Duration) {
        self.enqueuer.enqueue_all([&ServiceKey::new("shop", "echo")]);
        tokio::time::sleep(wait).await;
    }

    fn waits(&self) -> Vec<u128> {
        self.started.lock().unwrap().windows(2).map(|pair| pair[1] - pair[0]).collect()
    }

    fn ended(&self) -> usize {
        *self.ended.lock().unwrap()
    }
}

/// Timers are a millisecond late at most.
fn about(found: &[u128], expected: &[u128]) {
    assert_eq!(found.len(), expected.len(), "{found:?}");
    assert!(found.iter().zip(expected).all(|(a, b)| (*b..*b + 3).contains(a)), "{found:?}, not {expected:?}");
}

#[tokio::test(start_paused = true)]
async fn each_failure_doubles_the_wait_and_a_success_starts_afresh() {
    let bench = bench(Duration::ZERO, |number| if number == 4 { Action::Await } else { Action::Retry });
    bench.enqueue_and_wait(Duration::from_secs(10)).await;
    about(&bench.waits(), &[100, 200, 400, 800]);
    // The fifth pass succeeded; those after it fail again.
    let passes = bench.started.lock().unwrap().len();
    bench.enqueue_and_wait(Duration::from_secs(1)).await;
    about(&bench.waits()[passes..], &[100, 200, 400]);
}

#[tokio::test(start_paused = true)]
async fn a_change_does_not_wait_for_the_end_of_a_backoff_or_of_a_requeue() {
    for later in [Action::Retry, Action::RequeueAfter(Duration::from_secs(60))] {
        let bench = bench(Duration::ZERO, move |number| if number < 10 { later } else { Action::Await });
        for _ in 0..8 {
            bench.enqueue_and_wait(Duration::from_secs(1)).await;
        }
        assert!(bench.started.lock().unwrap().len() >= 8, "{later:?}: {:?}", bench.waits());
        bench.stop.cancel();
    }
}

#[tokio::test(start_paused = true)]
async fn a_requeue_that_is_sooner_than_the_pace_of_changes_counts() {
    let bench = bench(Duration::ZERO, |number| match number {
        0 => Action::RequeueAfter(Duration::from_millis(50)),
        _ => Action::Await,
    });
    bench.enqueue_and_wait(Duration::from_millis(10)).await;
    bench.enqueuer.enqueue_round([&ServiceKey::new("shop", "echo")]);
    tokio::time::sleep(Duration::from_secs(1)).await;
    // The change came first into the schedule, at 200 ms; the requeue at 50 ms saw it.
    assert_eq!(bench.started.lock().unwrap().len(), 2, "{:?}", bench.waits());
    about(&bench.waits(), &[50]);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_forgotten_and_comes_back_is_new() {
    let bench = bench(Duration::ZERO, |_| Action::Forget);
    bench.enqueue_and_wait(Duration::from_millis(10)).await;
    bench.enqueue_and_wait(Duration::from_millis(10)).await;
    about(&bench.waits(), &[10]);
}

#[tokio::test(start_paused = true)]
async fn a_change_during_the_pass_that_would_forget_it_is_not_lost() {
    let bench = bench(Duration::from_secs(1), |_| Action::Forget);
    bench.enqueue_and_wait(Duration::from_millis(500)).await;
    bench.enqueue_and_wait(Duration::from_secs(5)).await;
    about(&bench.waits(), &[1000]);
    assert_eq!(bench.ended(), 2);
}

#[tokio::test(start_paused = true)]
async fn the_end_waits_for_passes_that_are_under_way_but_not_for_ever() {
    for (takes, ends, within) in [(3, 1, 3..4), (60, 0, 5..6)] {
        let bench = bench(Duration::from_secs(takes), |_| Action::Await);
        bench.enqueue_and_wait(Duration::from_millis(10)).await;
        let stopped = Instant::now();
        bench.stop.cancel();
        tokio::time::sleep(Duration::from_millis(10)).await;
        bench.enqueuer.enqueue(&ServiceKey::new("shop", "another"));
        let Bench { queue, ended, started, .. } = bench;
        queue.await.unwrap();
        assert!(within.contains(&(stopped.elapsed() + Duration::from_millis(10)).as_secs()), "{:?}", stopped.elapsed());
        assert_eq!((*ended.lock().unwrap(), started.lock().unwrap().len()), (ends, 1), "and begins no other");
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_who_enqueues_is_the_end() {
    let Bench { enqueuer, queue, .. } = bench(Duration::ZERO, |_| Action::Await);
    drop(enqueuer);
    queue.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn passes_start_and_end_however_many_changes_come() {
    let bench = bench(Duration::ZERO, |number| match number {
        0 => Action::RequeueAfter(Duration::ZERO),
        _ => Action::Await,
    });
    bench.enqueuer.enqueue(&ServiceKey::new("shop", "echo"));
    // The clock stands, because the queue never rests: a second pass follows from the end of the first.
    for _ in 0..1000 {
        for _ in 0..200 {
            bench.enqueuer.enqueue(&ServiceKey::new("shop", "busy"));
        }
        tokio::task::yield_now().await;
        if bench.ended() >= 3 {
            bench.stop.cancel();
            return;
        }
    }
    panic!("{} passes have ended", bench.ended());
}

#[tokio::test(start_paused = true)]
async fn passes_at_once_are_bounded_and_those_that_wait_for_an_answer_leave_their_place() {
    let bench = bench(Duration::from_secs(60), |_| Action::Await);
    let keys: Vec<ServiceKey> = (0..1000).map(|n| ServiceKey::new("shop", format!("echo-{n}"))).collect();
    bench.enqueuer.enqueue_all(&keys);
    let mut under_way = Vec::new();
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_millis(900)).await;
        under_way.push(bench.started.lock().unwrap().len());
        tokio::time::sleep(Duration::from_millis(101)).await;
    }
    assert_eq!(under_way, [256, 512, 768, 1000, 1000]);
    // One whose time comes, or that changes, meanwhile starts as well.
    bench.enqueuer.enqueue(&ServiceKey::new("shop", "another"));
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(bench.started.lock().unwrap().len(), 1001);
    bench.stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn a_change_of_a_service_whose_delay_ended_while_there_was_no_place_is_seen_by_that_pass() {
    let bench = bench(Duration::from_millis(500), |n| {
        if n == 0 { Action::RequeueAfter(Duration::from_secs(2)) } else { Action::Await }
    });
    let echo = ServiceKey::new("shop", "echo");
    bench.enqueuer.enqueue(&echo);
    tokio::time::sleep(Duration::from_millis(2_400)).await;
    let others: Vec<ServiceKey> = (0..300).map(|n| ServiceKey::new("shop", format!("echo-{n}"))).collect();
    bench.enqueuer.enqueue_all(&others);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(bench.started.lock().unwrap().len(), 1 + 256);
    bench.enqueuer.enqueue(&echo);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(bench.started.lock().unwrap().len(), 1 + 300 + 1);
    bench.stop.cancel();
}
