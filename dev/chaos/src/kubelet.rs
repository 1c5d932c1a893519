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
        let (mut written, mut failed) = (true, 0);
        let mut probes = interval(PERIOD);
        probes.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            probes.tick().await;
            let alive = truth.serves(target, start.elapsed());
            failed = if alive { 0 } else { failed + 1 };
            let ready = failed < FAILURES && (alive || written) && self.willing[pod].load(Ordering::Relaxed);
            // Without an API server the next probe tries again.
            if ready != written && write(pods, target, ready).await.is_ok() {
                written = ready;
                truth.wanted(target, start.elapsed(), ready);
            }
        }
    }
}

async fn write(pods: &Pods, target: Target, ready: bool) -> Result<()> {
    timeout(DEADLINE, pods.set_ready(&target.to_string(), ready)).await?
}
