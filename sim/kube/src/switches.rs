//! The faults of a cluster, by server.
//!
//! Owns the switches as callers see them; each may be moved at any time. Refuses to know their effect, which
//! [`crate::server`], [`crate::list`] and [`crate::watch`] have.

use std::time::Duration;

use crate::cluster::{Cluster, State};
use crate::faults::{Failure, Faults};

impl Cluster {
    fn switch(&self, server: usize, switch: impl FnOnce(&mut Faults)) {
        if let Some(faults) = self.state().servers.get_mut(server) {
            switch(faults);
        }
        self.tell_all();
    }

    /// Refuses connections, and breaks those that are open.
    pub fn set_down(&self, server: usize, down: bool) {
        self.switch(server, |faults| {
            faults.cuts += u64::from(down && !faults.down);
            faults.down = down;
        });
    }

    /// Answers nothing until thawed. What arrives meanwhile waits, and takes effect then.
    pub fn set_frozen(&self, server: usize, frozen: bool) {
        self.switch(server, |faults| faults.frozen = frozen);
    }

    /// Keeps watches open and silent, also beyond their end; other requests are answered.
    pub fn stall_watches(&self, server: usize, stalled: bool) {
        self.switch(server, |faults| faults.stalled = stalled);
    }

    /// Breaks every open watch.
    pub fn cut_watches(&self, server: usize) {
        self.switch(server, |faults| faults.cuts += 1);
    }

    /// The age of the watch cache: watches and lists at version 0 show an older state; a consistent list waits. What
    /// was shown already stays shown.
    pub fn set_lag(&self, server: usize, lag: Duration) {
        let now = self.shared().clock.elapsed();
        let mut state = self.state();
        let State { store, servers, .. } = &mut *state;
        if let Some(faults) = servers.get_mut(server) {
            faults.seen(store, now);
            faults.lag = lag;
        }
        drop(state);
        self.tell_all();
    }

    /// A new process with an empty watch cache: watches break, and one from a version before now is answered by 410.
    pub fn restart(&self, server: usize) {
        let mut state = self.state();
        let State { store, servers, .. } = &mut *state;
        if let Some(faults) = servers.get_mut(server) {
            faults.restart(store);
        }
        drop(state);
        self.tell_all();
    }

    /// Drops the window: open watches end with an ERROR event 410, and so does a watch from an older version.
    pub fn compact(&self) {
        let mut state = self.state();
        state.store.compact();
        state.compactions += 1;
        drop(state);
        self.tell_all();
    }

    /// Fails the next requests that the failure concerns.
    pub fn fail_next(&self, server: usize, times: usize, failure: Failure) {
        self.switch(server, |faults| faults.fail_next(times, failure));
    }

    /// Fails no more requests.
    pub fn clear_failures(&self, server: usize) {
        self.switch(server, Faults::clear_failures);
    }

    /// Refuses to list and to watch a kind (403), on every server.
    pub fn refuse_list(&self, resource: &str, refused: bool) {
        for faults in &mut self.state().servers {
            if refused {
                faults.refused.insert(resource.to_owned());
            } else {
                faults.refused.remove(resource);
            }
        }
    }

    /// Beyond what Kubernetes promises: lists are older by this than what was already seen. Zero ends that.
    pub fn set_stale_lists(&self, server: usize, age: Duration) {
        self.switch(server, |faults| faults.stale_lists = age);
    }

    /// Beyond what Kubernetes promises: watches leave out the next events of a kind.
    pub fn skip_events(&self, server: usize, resource: &str, events: usize) {
        self.switch(server, |faults| {
            faults.skipped_events.insert(resource.to_owned(), events);
        });
    }

    /// Whether a server answers.
    pub fn is_up(&self, server: usize) -> bool {
        self.state().servers.get(server).is_some_and(|faults| !faults.down && !faults.frozen)
    }

    /// Whether any server answers, without which controllers do nothing.
    pub(crate) fn is_any_up(&self) -> bool {
        self.state().servers.iter().any(|faults| !faults.down && !faults.frozen)
    }
}
