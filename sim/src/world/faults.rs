//! The faults of a run, and when processes of the operator started.
//!
//! Owns the times of both. Refuses to carry a fault out.

use std::sync::atomic::Ordering;
use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use super::World;
use crate::plan::Op;

impl World {
    /// Every fault of this run is entered.
    pub fn enter_faults(&self) {
        self.enters_faults.store(true, Ordering::Relaxed);
    }

    /// Whether no fault lasted at any moment of this time.
    pub fn was_quiet(&self, from: Duration, to: Duration) -> bool {
        self.enters_faults.load(Ordering::Relaxed) && !self.was_impaired(from, to)
    }

    /// A fault begins.
    pub fn impair(&self, op: Op) {
        let now = self.now();
        self.faults().push((now, now + op.length(), op));
    }

    fn faults(&self) -> MutexGuard<'_, Vec<(Duration, Duration, Op)>> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a fault lasted at any moment of this time.
    pub fn was_impaired(&self, from: Duration, to: Duration) -> bool {
        self.was_impaired_by(from, to, |_| true)
    }

    /// Whether one of these faults lasted at any moment of this time.
    pub fn was_impaired_by(&self, from: Duration, to: Duration, of: impl Fn(Op) -> bool) -> bool {
        self.faults().iter().any(|(began, ended, op)| *began <= to && *ended >= from && of(*op))
    }

    /// Whether a process can see that the registry was replaced at this time: by its cluster ID, or by keys and
    /// revisions if it ran before.
    pub fn is_restore_evident(&self, at: Duration, author: &str) -> bool {
        let started = self.started(author).filter(|started| *started < at);
        let has_met = started.is_some_and(|started| self.wire.heard_from_etcd(author, started, at));
        let faults = self.faults();
        faults.iter().any(|(began, _, op)| *began == at && shows_itself(*op, started.is_some(), has_met))
    }

    /// The times in which nothing that changed in a cluster was ever told by a watch.
    pub fn blind(&self, cluster: usize) -> Vec<(Duration, Duration)> {
        untold(&self.faults(), self.clusters.len(), cluster)
    }

    /// Since when a cluster's API servers may have kept back what changed there, if they do at this time; otherwise
    /// the time itself.
    pub fn untold_since(&self, cluster: usize, at: Duration) -> Duration {
        kept_back(&self.faults(), self.clusters.len(), cluster, at)
    }

    /// Until when a cluster's API servers may keep back what changed there, if they do at this time; otherwise the time
    /// itself.
    pub fn untold_until(&self, cluster: usize, at: Duration) -> Duration {
        let (faults, mut until) = (self.faults(), at);
        loop {
            let lasting = faults.iter().filter(|(began, ended, op)| {
                *began <= until && *ended > until && kept_back_by(*op, self.clusters.len()) == Some(cluster)
            });
            let Some(ended) = lasting.map(|(_, ended, _)| *ended).max() else { return until };
            until = ended;
        }
    }

    /// A process of the operator starts.
    pub fn starts(&self, author: &str) {
        let now = self.now();
        self.starts.lock().unwrap_or_else(PoisonError::into_inner).insert(author.to_owned(), now);
    }

    /// When a process of the operator started.
    pub fn started(&self, author: &str) -> Option<Duration> {
        self.starts.lock().unwrap_or_else(PoisonError::into_inner).get(author).copied()
    }
}

/// Whether a process sees that the registry was replaced, if it ran before, and if it has heard from it. The status has
/// the incarnation key, which an emptied registry lacks and a backup has. A backup's revision is older than those that
/// the process has met; the status only has the one at which a session began.
fn shows_itself(op: Op, ran: bool, has_met: bool) -> bool {
    match op {
        Op::EtcdRestored { new_cluster_id: true, .. } | Op::EtcdEmptied { new_cluster_id: true } => true,
        Op::EtcdRestored { bumped, .. } => has_met && !bumped,
        _ => ran,
    }
}

/// The blind times of a cluster. The first stall that ends lets every watch of the cluster go on; a stall that loses
/// nothing then tells all that came before, whether a blind time was to follow or not.
fn untold(faults: &[(Duration, Duration, Op)], clusters: usize, cluster: usize) -> Vec<(Duration, Duration)> {
    let blinds = |op: &Op| matches!(op, Op::ApiBlind { cluster: of, .. } if of % clusters == cluster);
    let stalls = |op: &Op| matches!(op, Op::ApiWatchesStalled { cluster: of, .. } if of % clusters == cluster);
    let blind = faults.iter().filter(|(_, _, op)| blinds(op));
    let all = blind.filter_map(|(began, ended, _)| {
        let first_end = |of: &dyn Fn(&Op) -> bool| {
            faults.iter().filter(|(_, to, op)| of(op) && to > began).map(|(_, to, _)| *to).min()
        };
        let end = first_end(&blinds).unwrap_or(*ended);
        first_end(&stalls).is_none_or(|goes_on| end < goes_on).then_some((*began, end))
    });
    all.collect()
}

/// The beginning of the faults that, one after the other without a pause, keep news of a cluster back at this time.
fn kept_back(faults: &[(Duration, Duration, Op)], clusters: usize, cluster: usize, at: Duration) -> Duration {
    let mut since = at;
    loop {
        let lasting = faults.iter().filter(|(began, ended, op)| {
            *began < since && *ended >= since && kept_back_by(*op, clusters) == Some(cluster)
        });
        let Some(began) = lasting.map(|(began, ..)| *began).min() else { return since };
        since = began;
    }
}

/// The cluster whose news a fault keeps back.
fn kept_back_by(op: Op, clusters: usize) -> Option<usize> {
    match op {
        Op::ApiDown { cluster, .. }
        | Op::ApiFrozen { cluster, .. }
        | Op::ApiWatchesStalled { cluster, .. }
        | Op::ApiBlind { cluster, .. } => Some(cluster % clusters),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The blind times of the first of two clusters, in seconds, by faults and when each begins.
    fn untold_of(faults: &[(u64, Op)]) -> Vec<(u64, u64)> {
        let from = |began: u64, op: Op| (Duration::from_secs(began), Duration::from_secs(began) + op.length(), op);
        let faults: Vec<_> = faults.iter().map(|(began, op)| from(*began, *op)).collect();
        untold(&faults, 2, 0).iter().map(|(from, to)| (from.as_secs(), to.as_secs())).collect()
    }

    #[test]
    fn a_stall_that_ends_in_a_blind_time_tells_what_came_before() {
        let blind = |cluster, seconds| Op::ApiBlind { cluster, seconds };
        let stalled = |cluster, seconds| Op::ApiWatchesStalled { cluster, seconds };
        assert_eq!(untold_of(&[(10, blind(0, 90))]), [(10, 100)]);
        assert_eq!(untold_of(&[(10, blind(0, 90)), (50, stalled(0, 20))]), [], "watches went on at 70 s");
        assert_eq!(untold_of(&[(5, stalled(0, 20)), (10, blind(0, 90))]), [], "or soon");
        assert_eq!(untold_of(&[(10, blind(0, 90)), (50, stalled(0, 60))]), [(10, 100)], "too late");
        assert_eq!(untold_of(&[(10, blind(0, 90)), (50, stalled(1, 20))]), [(10, 100)], "of another cluster");
        assert_eq!(untold_of(&[(10, blind(0, 90)), (50, blind(0, 20))]), [(10, 70), (50, 70)], "nothing is told");
    }

    #[test]
    fn news_is_kept_back_since_the_first_of_the_faults_that_follow_one_another() {
        let frozen = |cluster, seconds| Op::ApiFrozen { cluster, server: 0, seconds };
        let since = |faults: &[(u64, Op)], at| {
            let from = |began: u64, op: Op| (Duration::from_secs(began), Duration::from_secs(began) + op.length(), op);
            let faults: Vec<_> = faults.iter().map(|(began, op)| from(*began, *op)).collect();
            kept_back(&faults, 2, 0, Duration::from_secs(at)).as_secs()
        };
        assert_eq!(since(&[(10, frozen(0, 30))], 35), 10);
        assert_eq!(since(&[(10, frozen(0, 30))], 45), 45, "told by then");
        assert_eq!(since(&[(10, frozen(1, 30))], 35), 35, "of another cluster");
        assert_eq!(since(&[(10, frozen(0, 30)), (30, frozen(2, 30))], 55), 10, "one began before the other ended");
        assert_eq!(since(&[(10, frozen(0, 30)), (45, frozen(0, 30))], 55), 45, "a pause between them");
        assert_eq!(since(&[(10, Op::EtcdWatchesStalled { seconds: 30 })], 35), 35, "not of the cluster");
    }

    #[test]
    fn an_older_state_of_the_registry_shows_itself_to_those_that_have_met_a_newer_one() {
        let restored = |new_cluster_id, bumped| Op::EtcdRestored { new_cluster_id, bumped };
        let emptied = |new_cluster_id| Op::EtcdEmptied { new_cluster_id };
        assert!(shows_itself(restored(false, false), true, true));
        assert!(!shows_itself(restored(false, false), true, false), "the status has an older revision");
        assert!(!shows_itself(restored(false, true), true, true));
        assert!(shows_itself(emptied(false), true, false), "the status has the incarnation key");
        assert!(shows_itself(restored(true, false), false, false));
        assert!(shows_itself(emptied(true), false, false));
    }
}
