//! The memory of each pod whose gate is closed: its timer, its failures, and the write under way.
//!
//! Owns the times at which a pod is looked at again. Refuses to know why.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::StreamExt;
use jiff::SignedDuration;
use tokio::time::Instant;
use tokio_util::time::{DelayQueue, delay_queue};
use twinspan_core::Timestamp;
use twinspan_core::model::{ObjectKey, PodView, ReadinessGate};

/// Remembers pods while their gate is closed.
#[derive(Debug, Default)]
pub struct Memory {
    pods: BTreeMap<ObjectKey, Remembered>,
    /// Pods that wait for nothing but their gate.
    due: BTreeSet<ObjectKey>,
    timers: DelayQueue<ObjectKey>,
}

#[derive(Debug, Default)]
pub struct Remembered {
    uid: String,
    timer: Option<delay_queue::Key>,
    /// The first look at which its gate was due.
    first: Option<Timestamp>,
    pub failures: u32,
    /// The time before which no write is tried again.
    pub not_before: Option<Instant>,
    /// Whether a write is under way.
    pub under_way: bool,
    /// The version that was written, or that somebody else was faster with: the watch will show another one.
    pub outdated: Option<Box<str>>,
    /// Whether its odd annotation was told.
    pub told: bool,
}

impl Remembered {
    /// The time for which the gate is due. The clocks of Nodes may be wrong: no wait is longer than this process knows.
    pub fn waited(&mut self, gate: &ReadinessGate, now: Timestamp) -> SignedDuration {
        if !gate.otherwise_ready {
            self.first = None;
            return SignedDuration::ZERO;
        }
        let first = *self.first.get_or_insert(now);
        now.duration_since(gate.since.unwrap_or(first).min(first)).max(SignedDuration::ZERO)
    }
}

impl Memory {
    /// Another pod of the same name begins afresh.
    pub fn of(&mut self, key: &ObjectKey, pod: &PodView) -> &mut Remembered {
        if self.pods.get(key).is_some_and(|known| known.uid != pod.uid) {
            self.forget(key);
        }
        let new = || Remembered { uid: pod.uid.clone(), ..Remembered::default() };
        self.pods.entry(key.clone()).or_insert_with(new)
    }

    pub fn forget(&mut self, key: &ObjectKey) {
        self.wake_after(key, None);
        self.pods.remove(key);
        self.due.remove(key);
    }

    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Whether a pod waits for nothing but its gate.
    pub fn set_due(&mut self, key: &ObjectKey, due: bool) {
        if due {
            self.due.insert(key.clone());
        } else {
            self.due.remove(key);
        }
    }

    /// The number of pods that wait for nothing but their gate.
    pub fn due(&self) -> usize {
        self.due.len()
    }

    /// Sets the one timer of a pod.
    pub fn wake_after(&mut self, key: &ObjectKey, wait: Option<Duration>) {
        let Some(known) = self.pods.get_mut(key) else { return };
        if let Some(timer) = known.timer.take() {
            self.timers.try_remove(&timer);
        }
        known.timer = wait.map(|wait| self.timers.insert(key.clone(), wait));
    }

    /// Waits for the next timer; for ever if there is none.
    pub async fn woken(&mut self) -> ObjectKey {
        match self.timers.next().await {
            Some(woken) => {
                let key = woken.into_inner();
                if let Some(known) = self.pods.get_mut(&key) {
                    known.timer = None;
                }
                key
            }
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    #[test]
    fn a_wait_begins_with_the_containers_and_no_later_than_this_process_knows() {
        let due = |since| ReadinessGate { otherwise_ready: true, since, ..ReadinessGate::default() };
        let waited = |pod: &mut Remembered, gate, now| pod.waited(&gate, at(now)).as_secs();
        let mut pod = Remembered::default();
        assert_eq!(waited(&mut pod, due(Some(at(900))), 1000), 100, "it waited before this process began");
        let mut ahead = Remembered::default();
        assert_eq!(waited(&mut ahead, due(Some(at(5000))), 1000), 0);
        assert_eq!(waited(&mut ahead, due(Some(at(5000))), 1060), 60, "its Node's clock is ahead");
        let mut unknown = Remembered::default();
        assert_eq!((waited(&mut unknown, due(None), 1000), waited(&mut unknown, due(None), 1007)), (0, 7));
        let not_ready = ReadinessGate::default();
        assert_eq!(waited(&mut unknown, not_ready, 1008), 0);
        assert_eq!(waited(&mut unknown, due(None), 1010), 0, "a restart of a container begins another wait");
    }

    #[tokio::test(start_paused = true)]
    async fn a_pod_has_one_timer_and_none_once_it_is_forgotten() {
        let (key, mut memory) = (ObjectKey::new("shop", "a"), Memory::default());
        let mut pod = crate::cluster::convert::pod(&Default::default());
        memory.of(&key, &pod).failures = 3;
        memory.wake_after(&key, Some(Duration::from_secs(5)));
        memory.wake_after(&key, Some(Duration::from_secs(1)));
        assert_eq!((memory.timers.len(), memory.woken().await), (1, key.clone()));
        memory.wake_after(&key, Some(Duration::from_secs(1)));
        pod.uid = "another".into();
        assert_eq!((memory.of(&key, &pod).failures, memory.timers.len()), (0, 0), "another pod of the name");
        memory.forget(&key);
        assert!(memory.pods.is_empty());
    }
}
