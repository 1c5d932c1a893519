//! The lessor of etcd.
//!
//! Owns leases, their expiry and the keys attached to each (`server/lease/lessor.go` of etcd 3.7). Refuses to delete
//! keys, and to know which member leads.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::error::Error;

/// `MaxLeaseTTL` of lessor.go, in seconds.
const MAX_TTL: i64 = 9_000_000_000;
/// The leader looks for expired leases this often (`runLoop` of lessor.go).
pub(crate) const TICK: Duration = Duration::from_millis(500);
/// Half of `defaultLeaseRevokeRate` of lessor.go: leases that one tick revokes at most.
const REVOKED_A_TICK: usize = 500;

/// IDs that are chosen here follow this one, far from those that clients choose.
const FIRST_CHOSEN: i64 = 0x51_c0de << 32;

/// A lease as an observer sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The time until the lease expires; zero if it is about to be revoked.
    pub remaining: Duration,
    /// The TTL that was granted, in seconds.
    pub ttl: i64,
    pub keys: BTreeSet<Vec<u8>>,
}

#[derive(Clone, Debug)]
struct Entry {
    /// In seconds.
    ttl: i64,
    expiry: Duration,
    keys: BTreeSet<Vec<u8>>,
}

#[derive(Clone, Debug)]
pub(crate) struct Leases {
    /// In seconds.
    min_ttl: i64,
    entries: BTreeMap<i64, Entry>,
    /// IDs that were chosen here.
    chosen: i64,
}

fn seconds(ttl: i64) -> Duration {
    Duration::from_secs(ttl.unsigned_abs())
}

impl Leases {
    pub(crate) fn new(min_ttl: i64) -> Self {
        Self { min_ttl, entries: BTreeMap::new(), chosen: 0 }
    }

    /// IDs that are chosen do not come again, whatever data is restored: etcd makes them of the time
    /// (`idutil.Generator`).
    pub(crate) fn choose_after(&mut self, before: &Self) {
        self.chosen = self.chosen.max(before.chosen);
    }

    /// Returns the ID and the TTL in seconds. An ID of 0 is chosen here.
    pub(crate) fn grant(&mut self, id: i64, ttl: i64, now: Duration) -> Result<(i64, i64), Error> {
        if ttl > MAX_TTL {
            return Err(Error::LeaseTtlTooLarge);
        }
        let mut id = id;
        while id == 0 {
            self.chosen += 1;
            let candidate = FIRST_CHOSEN + self.chosen;
            id = if self.entries.contains_key(&candidate) { 0 } else { candidate };
        }
        if self.entries.contains_key(&id) {
            return Err(Error::LeaseExists);
        }
        let ttl = ttl.max(self.min_ttl);
        self.entries.insert(id, Entry { ttl, expiry: now + seconds(ttl), keys: BTreeSet::new() });
        Ok((id, ttl))
    }

    pub(crate) fn lives(&self, id: i64) -> bool {
        self.entries.contains_key(&id)
    }

    /// True if the lease has expired, but is not revoked yet: whoever renews it waits.
    pub(crate) fn is_expired(&self, id: i64, now: Duration) -> bool {
        self.entries.get(&id).is_some_and(|entry| entry.expiry <= now)
    }

    /// Returns the TTL in seconds.
    pub(crate) fn renew(&mut self, id: i64, now: Duration) -> Result<i64, Error> {
        let entry = self.entries.get_mut(&id).ok_or(Error::LeaseNotFound)?;
        entry.expiry = now + seconds(entry.ttl);
        Ok(entry.ttl)
    }

    /// A new leader prolongs every lease by its TTL and the election timeout (`Promote` of lessor.go).
    pub(crate) fn promote(&mut self, now: Duration, extend: Duration) {
        for entry in self.entries.values_mut() {
            entry.expiry = now + extend + seconds(entry.ttl);
        }
    }

    pub(crate) fn attach(&mut self, id: i64, key: &[u8]) {
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.keys.insert(key.to_vec());
        }
    }

    pub(crate) fn detach(&mut self, id: i64, key: &[u8]) {
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.keys.remove(key);
        }
    }

    /// Forgets the lease, and returns its keys in order.
    pub(crate) fn remove(&mut self, id: i64) -> Result<BTreeSet<Vec<u8>>, Error> {
        self.entries.remove(&id).map(|entry| entry.keys).ok_or(Error::LeaseNotFound)
    }

    pub(crate) fn keys(&self, id: i64) -> impl Iterator<Item = &Vec<u8>> {
        self.entries.get(&id).into_iter().flat_map(|entry| &entry.keys)
    }

    /// The leases that the tick at `now` revokes, the oldest first.
    pub(crate) fn expired(&self, now: Duration) -> Vec<i64> {
        let mut expired = self.by_expiry();
        expired.retain(|(expiry, _)| *expiry <= now);
        expired.truncate(REVOKED_A_TICK);
        expired.into_iter().map(|(_, id)| id).collect()
    }

    /// IDs in the order of expiry, as LeaseLeases gives them.
    pub(crate) fn ids(&self) -> Vec<i64> {
        self.by_expiry().into_iter().map(|(_, id)| id).collect()
    }

    fn by_expiry(&self) -> Vec<(Duration, i64)> {
        let mut leases: Vec<(Duration, i64)> = self.entries.iter().map(|(id, entry)| (entry.expiry, *id)).collect();
        leases.sort_unstable();
        leases
    }

    /// The first tick at which a lease is revoked; a lease that expired before `from` waits for the tick after it.
    pub(crate) fn next_tick(&self, from: Duration) -> Option<Duration> {
        let first = self.entries.values().map(|entry| entry.expiry).min()?;
        Some(round_up(first, TICK).max(round_up(from + Duration::from_nanos(1), TICK)))
    }

    pub(crate) fn lease(&self, id: i64, now: Duration) -> Option<Lease> {
        self.entries.get(&id).map(|entry| seen(entry, now))
    }

    pub(crate) fn all(&self, now: Duration) -> BTreeMap<i64, Lease> {
        self.entries.iter().map(|(id, entry)| (*id, seen(entry, now))).collect()
    }
}

fn seen(entry: &Entry, now: Duration) -> Lease {
    Lease { remaining: entry.expiry.saturating_sub(now), ttl: entry.ttl, keys: entry.keys.clone() }
}

/// The first multiple of the period at or after a time.
pub(crate) fn round_up(time: Duration, period: Duration) -> Duration {
    let periods = time.as_nanos().div_ceil(period.as_nanos());
    period.saturating_mul(u32::try_from(periods).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn a_ttl_is_raised_to_the_minimum_and_an_id_is_granted_once() {
        let mut leases = Leases::new(2);
        assert_eq!(leases.grant(7, 0, S), Ok((7, 2)));
        assert_eq!(leases.grant(7, 60, S), Err(Error::LeaseExists));
        assert_eq!(leases.grant(-3, 60, S), Ok((-3, 60)));
        assert_eq!(leases.grant(8, MAX_TTL + 1, S), Err(Error::LeaseTtlTooLarge));
        let (first, second) = (leases.grant(0, 60, S).expect("an ID").0, leases.grant(0, 60, S).expect("an ID").0);
        assert!(first > 0 && second > 0 && first != second);
    }

    #[test]
    fn leases_expire_on_a_tick_and_the_oldest_first() {
        let mut leases = Leases::new(2);
        leases.grant(1, 3, Duration::from_millis(300)).expect("granted");
        leases.grant(2, 2, Duration::from_millis(400)).expect("granted");
        assert_eq!(leases.next_tick(Duration::ZERO), Some(Duration::from_millis(2500)));
        assert_eq!(leases.expired(Duration::from_millis(2399)), []);
        assert_eq!(leases.expired(Duration::from_millis(3500)), [2, 1]);
        assert_eq!(leases.next_tick(Duration::from_millis(2500)), Some(Duration::from_millis(3000)));
    }

    #[test]
    fn promotion_prolongs_by_the_ttl_and_the_election_timeout() {
        let mut leases = Leases::new(2);
        leases.grant(1, 10, Duration::ZERO).expect("granted");
        leases.promote(9 * S, S);
        assert_eq!(leases.lease(1, 9 * S).expect("lives").remaining, 11 * S);
        assert_eq!(leases.renew(1, 10 * S), Ok(10));
        assert_eq!(leases.lease(1, 10 * S).expect("lives").remaining, 10 * S);
        assert_eq!(leases.renew(2, S), Err(Error::LeaseNotFound));
    }

    #[test]
    fn a_key_moves_between_leases() {
        let mut leases = Leases::new(2);
        leases.grant(1, 10, S).expect("granted");
        leases.attach(1, b"a");
        leases.attach(1, b"b");
        leases.detach(1, b"a");
        assert_eq!(leases.remove(1).expect("lived").into_iter().collect::<Vec<_>>(), [b"b".to_vec()]);
        assert_eq!(leases.remove(1), Err(Error::LeaseNotFound));
    }
}
