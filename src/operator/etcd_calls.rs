//! The calls to every etcd, as the sessions tell of them, in the metrics.
//!
//! Owns the way from one to the other, and the end of the series of a registry without a session. Refuses to know what
//! a call is for.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use crate::registry::observed::{Observe, Sight};
use crate::telemetry::calls::{EtcdCall, EtcdError, Keepalive, OfRegistry, SessionRestart};
use crate::telemetry::metrics::Metrics;

/// Everything that was told about one registry, but for the numbers.
#[derive(Debug, Default)]
struct Told {
    heard: Option<Instant>,
    calls: BTreeSet<&'static str>,
    errors: BTreeSet<(&'static str, &'static str)>,
    keepalives: BTreeSet<&'static str>,
    ends: BTreeSet<&'static str>,
}

/// Counts what sessions tell; clones count together.
#[derive(Clone)]
pub struct EtcdCalls {
    metrics: Arc<Metrics>,
    told: Arc<Mutex<BTreeMap<String, Told>>>,
}

impl fmt::Debug for EtcdCalls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EtcdCalls")
    }
}

impl EtcdCalls {
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics, told: Arc::default() }
    }

    /// Takes what sessions tell.
    pub fn observe(&self) -> Observe {
        let calls = self.clone();
        Arc::new(move |registry, sight| calls.count(registry, sight))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Told>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, name: &str, sight: Sight) {
        let (calls, registry) = (&self.metrics.calls, name.to_owned());
        let mut all = self.lock();
        let told = all.entry(registry.clone()).or_default();
        match sight {
            Sight::Called { op, took, error } => {
                told.calls.insert(op);
                calls.etcd.get_or_create(&EtcdCall { registry: registry.clone(), op }).observe(took.as_secs_f64());
                if let Some(reason) = error {
                    told.errors.insert((op, reason));
                    calls.etcd_errors.get_or_create(&EtcdError { registry, op, reason }).inc();
                }
            }
            Sight::KeptAlive(result) => {
                told.keepalives.insert(result);
                calls.keepalives.get_or_create(&Keepalive { registry, result }).inc();
            }
            Sight::Heard => told.heard = Some(Instant::now()),
            Sight::SessionEnded(reason) => {
                told.ends.insert(reason);
                calls.session_restarts.get_or_create(&SessionRestart { registry, reason }).inc();
            }
        }
    }

    /// Shows the living leases of a registry, which may have told nothing yet.
    pub fn set_leases(&self, registry: &str, leases: usize) {
        self.lock().entry(registry.to_owned()).or_default();
        let leases = i64::try_from(leases).unwrap_or(i64::MAX);
        self.metrics.calls.leases.get_or_create(&OfRegistry { registry: registry.to_owned() }).set(leases);
    }

    /// Shows for how long each registry has been silent.
    pub fn measure_ages(&self) {
        for (registry, told) in &*self.lock() {
            if let Some(heard) = told.heard {
                let age = heard.elapsed().as_secs_f64();
                self.metrics.calls.etcd_watch_age.get_or_create(&OfRegistry { registry: registry.clone() }).set(age);
            }
        }
    }

    /// Drops the series of every registry but those that have a session.
    pub fn forget_all_but(&self, names: &BTreeSet<&str>) {
        let calls = &self.metrics.calls;
        self.lock().retain(|name, told| {
            if names.contains(name.as_str()) {
                return true;
            }
            let registry = || name.clone();
            calls.etcd_watch_age.remove(&OfRegistry { registry: registry() });
            calls.leases.remove(&OfRegistry { registry: registry() });
            for op in &told.calls {
                calls.etcd.remove(&EtcdCall { registry: registry(), op });
            }
            for (op, reason) in &told.errors {
                calls.etcd_errors.remove(&EtcdError { registry: registry(), op, reason });
            }
            for result in &told.keepalives {
                calls.keepalives.remove(&Keepalive { registry: registry(), result });
            }
            for reason in &told.ends {
                calls.session_restarts.remove(&SessionRestart { registry: registry(), reason });
            }
            false
        });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_thing_told_is_in_its_series_until_the_session_is_gone() {
        let metrics = Arc::new(Metrics::default());
        let calls = EtcdCalls::new(metrics.clone());
        let observe = calls.observe();
        let took = Duration::from_millis(30);
        for sight in [
            Sight::Called { op: "list", took, error: None },
            Sight::Called { op: "commit", took, error: Some("Fenced") },
            Sight::KeptAlive("kept"),
            Sight::Heard,
            Sight::SessionEnded("Unreachable"),
        ] {
            observe("main", sight);
        }
        tokio::time::sleep(Duration::from_secs(7)).await;
        calls.forget_all_but(&BTreeSet::from(["main"]));
        calls.measure_ages();
        let shown = metrics.print().unwrap();
        for line in [
            "twinspan_etcd_request_duration_seconds_bucket{le=\"0.025\",registry=\"main\",op=\"list\"} 0",
            "twinspan_etcd_request_duration_seconds_bucket{le=\"0.1\",registry=\"main\",op=\"list\"} 1",
            "twinspan_etcd_request_duration_seconds_count{registry=\"main\",op=\"commit\"} 1",
            "twinspan_etcd_request_errors_total{registry=\"main\",op=\"commit\",reason=\"Fenced\"} 1",
            "twinspan_keepalives_total{registry=\"main\",result=\"kept\"} 1",
            "twinspan_session_restarts_total{registry=\"main\",reason=\"Unreachable\"} 1",
            "twinspan_etcd_watch_age_seconds{registry=\"main\"} 7.0",
        ] {
            assert!(shown.contains(line), "{line} is not in\n{shown}");
        }
        calls.set_leases("main of a session that never connected", 0);
        calls.forget_all_but(&BTreeSet::new());
        assert!(!metrics.print().unwrap().contains("main"), "{}", metrics.print().unwrap());
    }
}
