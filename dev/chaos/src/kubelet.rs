//! Writes the readiness of the pods that have a real server, as a kubelet does from its probes.
//!
//! Owns what the API server should hold for each pod. Refuses to know why a server does not answer.

use std::time::Duration;

use anyhow::Result;
use futures::future::join_all;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use twinspan_testbed::Pods;

use crate::fault::{PODS, Target};
use crate::truth::Truth;

/// Three probes that fail, one a second (KubeletConfiguration's probes are set per pod: periodSeconds 1,
/// failureThreshold 3).
pub const PROBES: Duration = Duration::from_secs(3);
const RETRY: Duration = Duration::from_millis(500);
const DEADLINE: Duration = Duration::from_secs(3);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State {
    /// The server answers probes.
    alive: bool,
    /// The program says that it is ready.
    willing: bool,
}

#[derive(Debug)]
pub struct Kubelet {
    states: Vec<watch::Sender<State>>,
}

impl Kubelet {
    /// Every pod is ready.
    pub fn new() -> Self {
        let ready = State { alive: true, willing: true };
        Self { states: (0..PODS).map(|_| watch::Sender::new(ready)).collect() }
    }

    pub fn alive(&self, pod: usize, alive: bool) {
        self.states[pod].send_modify(|state| state.alive = alive);
    }

    pub fn willing(&self, pod: usize, willing: bool) {
        self.states[pod].send_modify(|state| state.willing = willing);
    }

    /// Writes until it is dropped. The times of `truth` are counted from `start`.
    pub async fn run(&self, pods: &Pods, truth: &Truth, start: Instant) {
        join_all(self.states.iter().enumerate().map(|(pod, state)| follow(pods, pod, state.subscribe(), truth, start)))
            .await;
    }
}

async fn follow(pods: &Pods, pod: usize, mut states: watch::Receiver<State>, truth: &Truth, start: Instant) {
    let target = Target::Pod(pod);
    let mut written = true;
    loop {
        let state = *states.borrow_and_update();
        let ready = state.alive && state.willing;
        if ready == written {
            if states.changed().await.is_err() {
                return;
            }
            continue;
        }
        if !state.alive {
            sleep(PROBES).await;
        }
        match write(pods, target, ready).await {
            Ok(()) => {
                written = ready;
                truth.wanted(target, start.elapsed(), ready);
            }
            Err(_) => sleep(RETRY).await,
        }
    }
}

async fn write(pods: &Pods, target: Target, ready: bool) -> Result<()> {
    timeout(DEADLINE, pods.set_ready(&target.to_string(), ready)).await?
}
