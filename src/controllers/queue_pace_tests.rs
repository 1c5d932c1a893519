use std::sync::{Arc, Mutex};

use super::*;

type Log = Arc<Mutex<Vec<(String, u128)>>>;

struct Bench {
    enqueuer: Enqueuer,
    log: Log,
    stop: CancellationToken,
    started: Instant,
}

/// Runs passes that take `takes`; `ends` has the action for each number of a pass.
fn bench(takes: Duration, ends: impl Fn(usize) -> Action + Send + Sync + 'static) -> Bench {
    let (enqueuer, queue) = new(Env::real());
    let log = Log::default();
    let stop = CancellationToken::new();
    let started = Instant::now();
    let ends = Arc::new(ends);
    let pass = {
        let log = log.clone();
        move |key: ServiceKey, _| {
            let (log, ends) = (log.clone(), ends.clone());
            async move {
                let number = {
                    let mut log = log.lock().unwrap();
                    log.push((key.name, started.elapsed().as_millis()));
                    log.len() - 1
                };
                tokio::time::sleep(takes).await;
                Finished::from(ends(number))
            }
        }
    };
    tokio::spawn(queue.run(pass, stop.clone()));
    Bench { enqueuer, log, stop, started }
}

impl Bench {
    fn enqueue(&self, name: &str) {
        self.enqueuer.enqueue(&ServiceKey::new("ns", name));
    }

    fn times(&self, name: &str) -> Vec<u128> {
        self.log.lock().unwrap().iter().filter(|(n, _)| n == name).map(|(_, t)| *t).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_changes_of_a_quiet_service_are_at_once_and_a_busy_one_is_paced() {
    let bench = bench(Duration::ZERO, |_| Action::Await);
    for _ in 0..50 {
        bench.enqueue("busy");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    let times = bench.times("busy");
    let (first, paced) = times.split_at(10);
    assert!(first.iter().zip(0..).all(|(time, n)| *time == 10 * n), "without waiting for a timer: {times:?}");
    assert!(paced.windows(2).all(|w| w[1] - w[0] >= 200), "{times:?}");
    assert_eq!(paced.len(), 3, "half a second of churn: {times:?}");
    bench.stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn changes_of_everything_in_a_row_are_one_pass_and_keep_no_other_change_waiting() {
    let bench = bench(Duration::ZERO, |_| Action::Await);
    let keys = ["a", "b"].map(|name| ServiceKey::new("ns", name));
    for _ in 0..5 {
        bench.enqueuer.enqueue_round(&keys);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    bench.enqueue("b");
    tokio::time::sleep(Duration::from_secs(5)).await;
    let paced = [0, 200].map(|from| from..from + 2);
    assert!(bench.times("a").iter().zip(&paced).all(|(time, at)| at.contains(time)), "{:?}", bench.times("a"));
    assert_eq!((bench.times("a").len(), bench.times("b")), (2, vec![0, 50]));
    bench.stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn one_slow_service_delays_no_other_and_never_runs_twice_at_once() {
    let bench = bench(Duration::from_secs(10), |_| Action::Await);
    bench.enqueue("slow");
    tokio::time::sleep(Duration::from_secs(1)).await;
    bench.enqueue("slow");
    bench.enqueue("other");
    tokio::time::sleep(Duration::from_secs(30)).await;
    let slow = bench.times("slow");
    assert_eq!(slow.len(), 2);
    assert!(slow[1] >= 10_000, "the change during the first pass leads to a second one after it: {slow:?}");
    assert!(bench.times("other")[0] < 1_010);
    bench.stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn failures_back_off_and_never_give_up_and_a_success_starts_afresh() {
    let bench = bench(Duration::ZERO, |number| if number < 12 { Action::Retry } else { Action::Await });
    bench.enqueue("failing");
    tokio::time::sleep(Duration::from_secs(600)).await;
    let times = bench.times("failing");
    assert_eq!(times.len(), 13);
    assert!(times[12] - times[11] <= 60_000, "{times:?}");
    assert!(times[2] - times[1] >= 90, "{times:?}");
    bench.stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn a_pass_that_asks_to_look_again_is_called_again_then() {
    let bench =
        bench(
            Duration::ZERO,
            |number| {
                if number == 0 { Action::RequeueAfter(Duration::from_secs(10)) } else { Action::Forget }
            },
        );
    bench.enqueue("later");
    tokio::time::sleep(Duration::from_secs(60)).await;
    let times = bench.times("later");
    assert_eq!(times.len(), 2);
    assert!((10_000..10_100).contains(&times[1]), "{times:?}");
    assert!(bench.started.elapsed() > Duration::ZERO);
    bench.stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn the_clock_of_a_change_runs_until_it_is_answered() {
    let (enqueuer, queue) = new(Env::real());
    let told: Arc<Mutex<Vec<Timestamp>>> = Arc::default();
    let stop = CancellationToken::new();
    let pass = {
        let told = told.clone();
        move |_, triggered| {
            let mut told = told.lock().unwrap();
            told.push(triggered);
            // The first pass fails, the second finds a side unreachable, the third succeeds.
            let how = match told.len() {
                1 => Finished::from(Action::Retry),
                2 => Finished { action: Action::Await, keep_trigger_time: true },
                _ => Finished::from(Action::Await),
            };
            async move { how }
        }
    };
    tokio::spawn(queue.run(pass, stop.clone()));
    let key = ServiceKey::new("ns", "echo");
    for _ in 0..3 {
        enqueuer.enqueue(&key);
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
    let told = told.lock().unwrap();
    assert_eq!(told.len(), 4, "{told:?}");
    assert!(told[0] == told[1] && told[1] == told[2], "it waits: {told:?}");
    assert!(told[3] > told[2], "this one is new: {told:?}");
    stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn a_pass_that_panics_costs_the_others_nothing_and_is_tried_again() {
    let bench = bench(Duration::ZERO, |number| if number == 0 { panic!("a defect") } else { Action::Await });
    bench.enqueue("broken");
    tokio::time::sleep(Duration::from_secs(1)).await;
    bench.enqueue("other");
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(bench.times("broken").len(), 2);
    assert_eq!(bench.times("other").len(), 1);
    bench.stop.cancel();
}
