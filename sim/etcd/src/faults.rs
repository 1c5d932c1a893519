//! Faults, each a switch that can be turned at any time.
//!
//! Owns what is broken on purpose. Refuses to mend by itself.

use std::time::Duration;

use crate::auth::{Auth, AuthStore};
use crate::error::Error;
use crate::etcd::Etcd;
use crate::leases::Leases;
use crate::state::State;
use crate::store::Store;
use crate::watch::WatchFaults;

/// The data of a cluster at a moment, as `etcdctl snapshot save` takes it.
#[derive(Clone, Debug)]
pub struct Snapshot {
    store: Store,
    leases: Leases,
    auth: AuthStore,
}

/// How a snapshot is restored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Restore {
    /// The cluster has another ID from now on, as with `etcdutl snapshot restore` and another token.
    pub new_cluster_id: bool,
    /// Raises the revision by so much, and marks everything before as compacted (`--bump-revision --mark-compacted`).
    pub bump_revision: Option<i64>,
}

impl Etcd {
    /// A member that is down refuses calls, and its open streams break; when it is up again, it has applied the whole
    /// log at once, and has forgotten its tokens.
    pub fn set_down(&self, member: usize, down: bool) {
        self.change_member(member, |state| {
            let Some(found) = state.members.get_mut(member) else { return };
            found.down = down;
            if down {
                state.break_connections(member);
            }
        });
    }

    /// A frozen member answers nothing, and its streams are silent; calls wait until it thaws. The clock of its leases
    /// runs on, as after SIGSTOP.
    pub fn set_frozen(&self, member: usize, frozen: bool) {
        self.change_member(member, |state| {
            if let Some(member) = state.members.get_mut(member) {
                member.frozen = frozen;
            }
        });
    }

    /// A member that is removed is no longer listed and does not count for the quorum; it refuses calls.
    pub fn set_removed(&self, member: usize, removed: bool) {
        self.change_member(member, |state| {
            let Some(found) = state.members.get_mut(member) else { return };
            found.removed = removed;
            if removed {
                state.break_connections(member);
            } else {
                state.join(member);
            }
        });
    }

    /// The applied index of a member lags by so much: watches and serializable reads are old there, other answers wait.
    pub fn set_lag(&self, member: usize, lag: Duration) {
        self.change_member(member, |state| {
            if let Some(member) = state.members.get_mut(member) {
                member.lag = lag;
            }
        });
    }

    fn change_member(&self, member: usize, change: impl FnOnce(&mut State)) {
        self.with(|state| {
            change(state);
            state.review();
            // Streams see for themselves that their member runs again.
            if let Some(member) = state.members.get(member) {
                member.streams.values().for_each(|stream| stream.wake.notify_one());
            }
        });
    }

    /// No member leads, and none is elected: nothing is written, and only serializable reads are answered.
    pub fn set_no_leader(&self, no_leader: bool) {
        self.with(|state| {
            state.members.barred = no_leader;
            state.review();
            if !no_leader && state.members.leader.is_none() && state.members.move_leader(state.now) {
                state.promote();
            }
        });
    }

    /// The next member that runs takes over at once, and prolongs every lease by its TTL.
    pub fn move_leader(&self) {
        self.with(|state| {
            if !state.members.barred && state.members.move_leader(state.now) {
                state.promote();
            }
        });
    }

    /// Each answer with a count has so many keys more, as if others had them under other names: a world with all of
    /// them would be too slow.
    pub fn set_crowd(&self, keys: i64) {
        self.with(|state| state.crowd = keys);
    }

    /// The database is full (alarm NOSPACE): puts and grants are refused, deletes pass.
    pub fn set_quota_full(&self, full: bool) {
        self.with(|state| state.quota_full = full);
    }

    /// Operations in a transaction at most from now on, as after a restart with another `--max-txn-ops`.
    pub fn set_max_txn_ops(&self, operations: usize) {
        self.with(|state| state.options.max_txn_ops = operations);
    }

    /// Breaks every watch stream.
    pub fn cut_watches(&self) {
        self.with(|state| state.end_streams(Error::Unreachable, |_| true));
    }

    /// Watch streams stay open, and say nothing; what they would have said comes afterwards.
    pub fn stall_watches(&self, stalled: bool) {
        self.with(|state| {
            state.stalled = stalled;
            let streams = state.members.list.iter().flat_map(|member| member.streams.values());
            streams.for_each(|stream| stream.wake.notify_one());
        });
    }

    /// Faults of the watch in former versions of etcd.
    pub fn set_watch_faults(&self, faults: WatchFaults) {
        self.with(|state| state.watch_faults = faults);
    }

    /// Users and roles from now on; none switches authentication off. Tokens of users that are gone, or that have
    /// another password, are invalid; the others stay.
    pub fn set_auth(&self, auth: Option<Auth>) {
        self.with(|state| {
            let users = state.auth.set(auth);
            for member in &mut state.members.list {
                AuthStore::invalidate(&mut member.tokens, &users);
            }
        });
    }

    /// All tokens are invalid, as after a restart of every member.
    pub fn expire_tokens(&self) {
        self.with(|state| state.members.list.iter_mut().for_each(|member| member.tokens.forget_all()));
    }

    /// The data as it is.
    pub fn snapshot(&self) -> Snapshot {
        self.with(|state| Snapshot {
            store: state.store.clone(),
            leases: state.leases.clone(),
            auth: state.auth.clone(),
        })
    }

    /// Replaces the data by that of a snapshot, on every member. All streams break, tokens are invalid, and each lease
    /// of the snapshot lives for another TTL.
    pub fn restore(&self, snapshot: Snapshot, how: Restore) {
        self.with(|state| {
            let Snapshot { mut store, leases, auth } = snapshot;
            if let Some(by) = how.bump_revision {
                store.bump(by);
            }
            state.cluster_id += u64::from(how.new_cluster_id);
            state.replace(store, leases, auth);
        });
    }

    /// All data is gone, leases and users too: a new store at revision 1, of the same cluster or of another one.
    pub fn empty(&self, new_cluster_id: bool) {
        self.with(|state| {
            state.cluster_id += u64::from(new_cluster_id);
            let leases = Leases::new(state.options.min_lease_ttl);
            state.replace(Store::new(), leases, AuthStore::default());
        });
    }
}
