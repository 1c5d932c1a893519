use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::time::sleep;

use super::*;
use crate::on_virtual_time;

fn counter() -> (Arc<AtomicUsize>, impl Fn() -> usize) {
    let count = Arc::new(AtomicUsize::new(0));
    let read = count.clone();
    (count, move || read.load(Ordering::Relaxed))
}

async fn ticks(count: Arc<AtomicUsize>) {
    loop {
        sleep(Duration::from_secs(1)).await;
        count.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_frozen_process_does_nothing_until_it_thaws_and_a_crashed_one_never() {
    on_virtual_time(|| async {
        let scheduler = Scheduler::new(1, 0);
        let (world, process) = (scheduler.process("world"), scheduler.process("a"));
        let (count, read) = counter();
        scheduler.spawn(process, ticks(count));
        let told = scheduler.clone();
        scheduler
            .run(world, async move {
                sleep(Duration::from_millis(2500)).await;
                assert_eq!(read(), 2);
                told.freeze(process);
                sleep(Duration::from_secs(10)).await;
                assert_eq!(read(), 2);
                told.thaw(process);
                sleep(Duration::from_millis(1)).await;
                assert_eq!(read(), 3, "the timer that was due");
                told.crash(process);
                sleep(Duration::from_secs(10)).await;
                assert_eq!(read(), 3);
                assert!(told.is_dead(process));
            })
            .await;
    });
}

#[test]
fn a_task_that_is_aborted_outside_ends_inside() {
    on_virtual_time(|| async {
        let scheduler = Scheduler::new(1, 0);
        let (world, process) = (scheduler.process("world"), scheduler.process("a"));
        let executor = scheduler.executor(process);
        let (count, read) = counter();
        scheduler
            .run(world, async move {
                let running = executor.submit(Box::pin(ticks(count)));
                sleep(Duration::from_millis(1500)).await;
                drop(running);
                sleep(Duration::from_secs(5)).await;
                assert_eq!(read(), 1);
            })
            .await;
    });
}

#[test]
fn a_crash_after_a_number_of_polls_hits_between_two_awaits() {
    on_virtual_time(|| async {
        let scheduler = Scheduler::new(1, 0);
        let (world, process) = (scheduler.process("world"), scheduler.process("a"));
        let (count, read) = counter();
        scheduler.spawn(process, ticks(count));
        scheduler.crash_after(process, 4);
        scheduler
            .run(world, async move {
                sleep(Duration::from_secs(60)).await;
                assert_eq!(read(), 2, "the first poll starts the timer, two more count, the fourth never comes");
            })
            .await;
    });
}

#[test]
fn a_panic_is_kept_and_the_order_follows_from_the_seed() {
    fn order(seed: u64) -> Vec<usize> {
        on_virtual_time(move || async move {
            let scheduler = Scheduler::new(seed, 500);
            let (world, process) = (scheduler.process("world"), scheduler.process("a"));
            let order = Arc::new(Mutex::new(Vec::new()));
            for n in 0..10 {
                let order = order.clone();
                scheduler.spawn(process, async move {
                    sleep(Duration::from_secs(1)).await;
                    order.lock().unwrap().push(n);
                });
            }
            scheduler.spawn(process, async { panic!("{}", "why") });
            let started = Instant::now();
            scheduler.run(world, sleep(Duration::from_secs(3))).await;
            assert_eq!(started.elapsed(), Duration::from_secs(3));
            assert_eq!(scheduler.panics(), ["a: why"]);
            order.lock().unwrap().clone()
        })
    }
    assert_eq!(order(1), order(1));
    assert_ne!(order(1), order(2));
}
