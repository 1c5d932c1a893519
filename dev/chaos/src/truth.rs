//! The truth about every instance: whether its server runs, and whether it should be in service, over time.
//!
//! Owns the timelines. Refuses to look at either side: the bed says what it did.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::fault::Target;

/// A yes or no over time, which begins with no.
#[derive(Clone, Debug, Default)]
pub struct Timeline(Vec<(Duration, bool)>);

impl Timeline {
    /// From this time on. Times must not go back.
    pub fn set(&mut self, at: Duration, value: bool) {
        if self.0.last().is_some_and(|(_, last)| *last) != value {
            self.0.push((at, value));
        }
    }

    /// The value then, and since when.
    pub fn at(&self, at: Duration) -> (bool, Duration) {
        let before = self.0.partition_point(|(since, _)| *since <= at);
        before.checked_sub(1).map_or((false, Duration::ZERO), |last| (self.0[last].1, self.0[last].0))
    }

    /// True if it was yes all the time.
    pub fn throughout(&self, from: Duration, to: Duration) -> bool {
        let (value, since) = self.at(to);
        value && since <= from
    }
}

#[derive(Clone, Debug)]
pub struct Instance {
    pub target: Target,
    /// The process runs and is not frozen.
    pub serving: Timeline,
    /// The server registered itself, or the pod is ready.
    pub wanted: Timeline,
}

/// All instances of the synced service, by address.
#[derive(Debug, Default)]
pub struct Truth(Mutex<BTreeMap<Ipv4Addr, Instance>>);

impl Truth {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Ipv4Addr, Instance>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn add(&self, address: Ipv4Addr, target: Target) {
        let instance = Instance { target, serving: Timeline::default(), wanted: Timeline::default() };
        self.lock().insert(address, instance);
    }

    pub fn serving(&self, target: Target, at: Duration, value: bool) {
        for instance in self.lock().values_mut().filter(|instance| instance.target == target) {
            instance.serving.set(at, value);
        }
    }

    pub fn wanted(&self, target: Target, at: Duration, value: bool) {
        for instance in self.lock().values_mut().filter(|instance| instance.target == target) {
            instance.wanted.set(at, value);
        }
    }

    /// True if the server of the host runs then.
    pub fn serves(&self, target: Target, at: Duration) -> bool {
        self.lock().values().any(|instance| instance.target == target && instance.serving.at(at).0)
    }

    pub fn instances(&self) -> BTreeMap<Ipv4Addr, Instance> {
        self.lock().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeline_knows_value_and_age() {
        let s = Duration::from_secs;
        let mut line = Timeline::default();
        assert_eq!(line.at(s(1)), (false, s(0)));
        line.set(s(2), true);
        line.set(s(3), true);
        line.set(s(5), false);
        assert_eq!(line.at(s(1)), (false, s(0)));
        assert_eq!(line.at(s(4)), (true, s(2)));
        assert_eq!(line.at(s(9)), (false, s(5)));
        assert!(line.throughout(s(2), s(4)) && !line.throughout(s(1), s(4)) && !line.throughout(s(2), s(5)));
    }
}
