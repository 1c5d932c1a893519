//! The members of the cluster, and who leads.
//!
//! Owns which member runs, how far each has applied the log, and elections by a simple rule: the next member that runs
//! takes over an election timeout after the leader has failed, if a quorum runs. Refuses to know what the log contains.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::auth::Tokens;
use crate::store::View;
use crate::streams::Stream;

/// The default of `--election-timeout`, in etcd 3.7.
pub(crate) const ELECTION: Duration = Duration::from_secs(1);
/// Streams that require a leader end after so long without one (`maxNoLeaderCnt` election timeouts: interceptor.go).
pub(crate) const LEADERLESS: Duration = Duration::from_secs(3);

#[derive(Debug)]
pub(crate) struct MemberState {
    pub(crate) id: u64,
    pub(crate) down: bool,
    pub(crate) frozen: bool,
    pub(crate) removed: bool,
    /// How long after its commit an entry of the log is applied here.
    pub(crate) lag: Duration,
    /// Entries of the log that are applied here.
    pub(crate) applied: u64,
    pub(crate) view: View,
    pub(crate) tokens: Tokens,
    pub(crate) streams: BTreeMap<u64, Stream>,
    /// How often the connections of this member were broken: a stream that was opened before is no more.
    pub(crate) breaks: u64,
}

impl MemberState {
    fn new(id: u64) -> Self {
        Self {
            id,
            down: false,
            frozen: false,
            removed: false,
            lag: Duration::ZERO,
            applied: 0,
            view: View::NEW,
            tokens: Tokens::default(),
            streams: BTreeMap::new(),
            breaks: 0,
        }
    }

    /// The member can be reached; a frozen one answers later.
    pub(crate) fn is_up(&self) -> bool {
        !self.down && !self.removed
    }

    pub(crate) fn runs(&self) -> bool {
        self.is_up() && !self.frozen
    }
}

#[derive(Debug)]
pub(crate) struct Members {
    pub(crate) list: Vec<MemberState>,
    pub(crate) leader: Option<usize>,
    pub(crate) term: u64,
    /// No leader is elected as long as this is set.
    pub(crate) barred: bool,
    /// The leader has stopped, and leads no more even if it starts again; the others do not know yet.
    lost: bool,
    elect_at: Option<Duration>,
    pub(crate) leaderless_since: Option<Duration>,
}

impl Members {
    pub(crate) fn new(count: usize) -> Self {
        let ids = (0u64..).take(count.max(1)).map(|index| 0x8e9e_05c5_2164_6000 + index + 1);
        Self {
            list: ids.map(MemberState::new).collect(),
            leader: Some(0),
            term: 2,
            barred: false,
            lost: false,
            elect_at: None,
            leaderless_since: None,
        }
    }

    pub(crate) fn get(&self, index: usize) -> Option<&MemberState> {
        self.list.get(index)
    }

    pub(crate) fn get_mut(&mut self, index: usize) -> Option<&mut MemberState> {
        self.list.get_mut(index)
    }

    fn has_quorum(&self) -> bool {
        let voters = self.list.iter().filter(|member| !member.removed).count();
        self.list.iter().filter(|member| member.runs()).count() > voters / 2
    }

    /// A leader runs with a quorum: proposals are committed.
    pub(crate) fn commits(&self) -> bool {
        let leads = self.leader.and_then(|leader| self.list.get(leader)).is_some_and(MemberState::runs);
        leads && !self.lost && self.has_quorum()
    }

    /// Looks at the leader after a member has changed.
    pub(crate) fn review(&mut self, now: Duration) {
        let gone = |member: &MemberState| !member.is_up();
        self.lost |= self.leader.and_then(|leader| self.list.get(leader)).is_some_and(gone);
        if self.barred {
            self.leader = None;
        }
        if self.barred || self.commits() {
            self.elect_at = None;
        } else if self.elect_at.is_none() {
            // The only member needs nobody's vote.
            let alone = self.list.iter().filter(|member| !member.removed).count() == 1;
            let wait = if alone && (self.lost || self.leader.is_none()) { Duration::ZERO } else { ELECTION };
            self.elect_at = Some(now + wait);
        }
        self.note_leader(now);
    }

    fn note_leader(&mut self, now: Duration) {
        match self.leader {
            Some(_) => self.leaderless_since = None,
            None => _ = self.leaderless_since.get_or_insert(now),
        }
    }

    /// Holds the election that is due; true if there is a new leader.
    pub(crate) fn elect(&mut self, now: Duration) -> bool {
        if self.elect_at.is_none_or(|at| at > now) {
            return false;
        }
        self.elect_at = None;
        if self.commits() {
            return false;
        }
        if self.has_quorum() {
            return self.move_leader(now);
        }
        // Members that still run see that the leader is gone; a cluster of frozen members sees nothing.
        if self.list.iter().any(MemberState::runs) {
            self.leader = None;
            self.note_leader(now);
        }
        false
    }

    /// The next member that runs leads from now on, or the same one if it is alone.
    pub(crate) fn move_leader(&mut self, now: Duration) -> bool {
        let former = self.leader.unwrap_or(self.list.len() - 1);
        let next = (1..=self.list.len()).map(|step| (former + step) % self.list.len());
        let Some(leader) = next.into_iter().find(|index| self.list[*index].runs()) else { return false };
        self.lead(leader, now);
        true
    }

    pub(crate) fn lead(&mut self, leader: usize, now: Duration) {
        self.leader = Some(leader);
        self.lost = false;
        self.term += 1;
        self.elect_at = None;
        self.note_leader(now);
    }

    /// The time of the next election, or of the end of streams that require a leader.
    pub(crate) fn next_deadline(&self, now: Duration) -> Option<Duration> {
        let streams_end = self.leaderless_since.map(|since| since + LEADERLESS).filter(|at| *at > now);
        self.elect_at.into_iter().chain(streams_end).min()
    }

    /// True once streams that require a leader have ended.
    pub(crate) fn is_leaderless(&self, now: Duration) -> bool {
        self.leaderless_since.is_some_and(|since| since + LEADERLESS <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn a_frozen_leader_is_replaced_after_the_election_timeout() {
        let mut members = Members::new(3);
        members.list[0].frozen = true;
        members.review(10 * S);
        assert!(!members.commits() && members.leader == Some(0));
        assert_eq!(members.next_deadline(10 * S), Some(11 * S));
        assert!(!members.elect(10 * S));
        assert!(members.elect(11 * S));
        assert_eq!((members.leader, members.term), (Some(1), 3));
    }

    #[test]
    fn a_leader_that_thaws_in_time_stays() {
        let mut members = Members::new(3);
        members.list[0].frozen = true;
        members.review(10 * S);
        members.list[0].frozen = false;
        members.review(10 * S);
        assert!(members.commits() && !members.elect(12 * S) && members.term == 2);
    }

    #[test]
    fn a_leader_that_restarts_is_elected_anew() {
        let mut members = Members::new(3);
        members.list[0].down = true;
        members.review(10 * S);
        assert_eq!(members.leader, Some(0), "the others do not know yet");
        members.list[0].down = false;
        members.review(10 * S);
        assert!(!members.commits());
        assert!(members.elect(11 * S) && members.commits() && members.term == 3);
    }

    #[test]
    fn without_a_quorum_nobody_leads_and_streams_end_later() {
        let mut members = Members::new(3);
        members.list[1].down = true;
        members.list[2].down = true;
        members.review(S);
        assert!(!members.commits());
        assert!(!members.elect(2 * S) && members.leader.is_none());
        assert!(!members.is_leaderless(4 * S) && members.is_leaderless(5 * S));
        members.list[1].down = false;
        members.review(6 * S);
        assert!(members.elect(7 * S) && members.commits() && !members.is_leaderless(9 * S));
    }

    #[test]
    fn the_only_member_leads_again_at_once_after_a_restart() {
        let mut members = Members::new(1);
        members.list[0].frozen = true;
        members.review(S);
        members.elect(2 * S);
        members.list[0].frozen = false;
        members.review(3 * S);
        assert!(members.commits() && members.term == 2, "a pause is no restart");
        members.list[0].down = true;
        members.review(4 * S);
        members.list[0].down = false;
        members.review(5 * S);
        assert!(members.elect(5 * S) && members.term == 3);
    }
}
