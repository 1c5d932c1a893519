//! Writes the readiness of the pods that have a real server, as a kubelet does from its probes.
//!
//! Owns what the API server should hold for each pod. Refuses to know why a server does not answer.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Result;
use futures::future::join_all;
use tokio::time::{Instant, interval, timeout};
use twinspan_testbed::Pods;

use crate::fault::{PODS, Target};
use crate::truth::Truth;

/// `periodSeconds` and `failureThreshold` of the readiness probe (core/v1 Probe); one success is enough.
const PERIOD: Duration = Duration::from_secs(1);
const FAILURES: u32 = 3;
/// Until a pod whose server does not answer is not ready.
pub const PROBES: Duration = Duration::from_secs(PERIOD.as_secs() * FAILURES as u64);
/// Every so many probes the status is compared anyway (`syncPeriod`, pkg/kubelet/status/status_manager.go, v1.37).
const AGAIN: u32 = 10;
const DEADLINE: Duration = Duration::from_secs(3);

#[derive(Debug)]
pub struct Kubelet {
    /// Whether the program in each pod says that it is ready.
    willing: Vec<AtomicBool>,
}

impl Kubelet {
    /// Every pod is ready.
    pub fn new() -> Self {
        Self { willing: (0..PODS).map(|_| AtomicBool::new(true)).collect() }
    }

    pub fn willing(&self, pod: usize, willing: bool) {
        self.willing[pod].store(willing, Ordering::Relaxed);
    }

    /// Probes and writes until it is dropped. The times of `truth` are counted from `start`.
    pub async fn run(&self, pods: &Pods, truth: &Truth, start: Instant) {
        join_all((0..PODS).map(|pod| self.follow(pods, pod, truth, start))).await;
    }

    async fn follow(&self, pods: &Pods, pod: usize, truth: &Truth, start: Instant) {
        let target = Target::Pod(pod);
        let (mut ready, mut failed) = (true, 0u32);
        // The last answer of the API server; none if the last request may still be under way.
        let mut written = Some(true);
        let mut probes = interval(PERIOD);
        probes.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        for number in 1u32.. {
            probes.tick().await;
            let alive = truth.serves(target, start.elapsed());
            failed = if alive { 0 } else { failed + 1 };
            ready = failed < FAILURES && (alive || ready) && self.willing[pod].load(Ordering::Relaxed);
            if written == Some(ready) && !number.is_multiple_of(AGAIN) {
                continue;
            }
            // A request that was given up may be carried out later, over the one after it.
            written = write(pods, target, ready).await.is_ok().then_some(ready);
            if written.is_some() {
                truth.wanted(target, start.elapsed(), ready);
            }
        }
    }
}

async fn write(pods: &Pods, target: Target, ready: bool) -> Result<()> {
    timeout(DEADLINE, pods.set_ready(&target.to_string(), ready)).await?
}
