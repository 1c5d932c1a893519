//! An open watch stream on one member.
//!
//! Owns the end of a stream, its wake-up and its periodic progress. Refuses to know what its watchers see.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use crate::error::Error;
use crate::watch::Watchers;

/// `progressReportInterval` of `server/etcdserver/api/v3rpc/watch.go`, etcd 3.7, without its jitter.
pub(crate) const PROGRESS_INTERVAL: Duration = Duration::from_secs(600);

#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) watchers: Watchers,
    pub(crate) require_leader: bool,
    /// Told when there is something to send.
    pub(crate) wake: Arc<Notify>,
    ended: Option<Error>,
    /// The client has sent its last request: etcd ends the stream.
    finished: bool,
    next_progress: Duration,
}

impl Stream {
    pub(crate) fn new(now: Duration, require_leader: bool) -> Self {
        Self {
            watchers: Watchers::default(),
            require_leader,
            wake: Arc::default(),
            ended: None,
            finished: false,
            next_progress: now + PROGRESS_INTERVAL,
        }
    }

    pub(crate) fn end(&mut self, error: Error) {
        self.ended.get_or_insert(error);
        self.wake.notify_one();
    }

    pub(crate) fn finish(&mut self) {
        self.finished = true;
        self.wake.notify_one();
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.finished
    }

    pub(crate) fn ended(&self) -> Option<Error> {
        self.ended
    }

    pub(crate) fn wake_if_ready(&self) {
        if self.watchers.has_output() {
            self.wake.notify_one();
        }
    }

    pub(crate) fn next_progress(&self) -> Option<Duration> {
        self.watchers.wants_progress().then_some(self.next_progress)
    }

    /// True if periodic progress is due.
    pub(crate) fn progress_is_due(&mut self, now: Duration) -> bool {
        let due = self.next_progress <= now;
        while self.next_progress <= now {
            self.next_progress += PROGRESS_INTERVAL;
        }
        due
    }
}
