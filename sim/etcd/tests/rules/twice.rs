//! The same calls in the same order give the same answers, byte for byte.

use std::fmt::Write;
use std::time::Duration;

use etcd_client::{PutOptions, WatchOptions};
use sim_etcd::{Etcd, Options, Restore};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::client;

/// Clients of three members that write, watch and lose their leases at once, under faults; what each saw, with times.
async fn run() -> String {
    let etcd = Etcd::new(Options { members: 3, ..Options::default() });
    let begin = Instant::now();
    let mut tasks = JoinSet::new();
    for member in 0..3_usize {
        let etcd = etcd.clone();
        tasks.spawn(async move {
            let mut seen = String::new();
            let mut client = client(&etcd, member).await;
            let mut lost = 0;
            for n in 0..40 {
                let granted = client.lease_client().grant(2 + n % 3, None).await.map(|lease| lease.id());
                let options = granted.as_ref().ok().map(|lease| PutOptions::new().with_lease(*lease));
                let put = client.put(format!("k/{member}/{n}"), format!("{n}"), options).await;
                lost += usize::from(put.is_err());
                writeln!(seen, "{:?} {granted:?} {put:?}", begin.elapsed()).expect("a string takes all");
                sleep(Duration::from_millis(137 * (member as u64 + 1))).await;
            }
            format!("{seen}{lost} lost\n")
        });
    }
    let watching = etcd.clone();
    tasks.spawn(async move {
        let mut seen = String::new();
        for from in [1, 0, 5] {
            let options = WatchOptions::new().with_prefix().with_start_revision(from).with_prev_key();
            let Ok(mut stream) = client(&watching, 1).await.watch("k/", Some(options)).await else { continue };
            for _ in 0..30 {
                let answer = tokio::time::timeout(Duration::from_secs(3), stream.message()).await;
                writeln!(seen, "{:?} {answer:?}", begin.elapsed()).expect("a string takes all");
            }
        }
        seen
    });
    let faults = etcd.clone();
    tasks.spawn(async move {
        let pause = || sleep(Duration::from_millis(730));
        pause().await;
        let snapshot = faults.snapshot();
        faults.set_lag(1, Duration::from_millis(90));
        pause().await;
        faults.set_frozen(0, true);
        pause().await;
        pause().await;
        faults.set_frozen(0, false);
        faults.compact(None);
        pause().await;
        faults.set_down(2, true);
        pause().await;
        faults.set_down(2, false);
        faults.move_leader();
        pause().await;
        faults.restore(snapshot, Restore { new_cluster_id: true, bump_revision: None });
        String::new()
    });
    let mut seen = Vec::new();
    while let Some(task) = tasks.join_next().await {
        seen.push(task.expect("no task panics"));
    }
    format!("{seen:?} {:?} {:?} {:?}", etcd.history(), etcd.records(), etcd.leases())
}

#[tokio::test(start_paused = true)]
async fn two_runs_are_equal() {
    let (first, second) = (run().await, run().await);
    assert!(first.len() > 10_000, "{first}");
    assert_eq!(first, second);
}

#[tokio::test(start_paused = true)]
async fn thousands_of_changes_are_quick() {
    let etcd = Etcd::new(Options::default());
    let mut client = client(&etcd, 0).await;
    let mut streams = Vec::new();
    for n in 0..10 {
        let options = WatchOptions::new().with_prefix();
        streams.push(client.watch(format!("k/{n}/"), Some(options)).await.expect("a stream"));
    }
    for n in 0..5_000 {
        client.put(format!("k/{}/{n}", n % 10), "v", None).await.expect("put");
    }
    let mut events = 0;
    for mut stream in streams {
        while let Ok(Ok(Some(answer))) = tokio::time::timeout(Duration::from_secs(1), stream.message()).await {
            events += answer.events().len();
        }
    }
    assert_eq!(events, 5_000);
}
