//! Metrics, in the text formats of OpenMetrics and Prometheus.
//!
//! Owns their names, on which users' dashboards and alerts depend, and their labels, each of which has few values.
//! Refuses labels with the name of a service or an address.

use std::fmt;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::{EncodeLabelSet, prometheus_text, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use super::calls::{Calls, OfRegistry};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Direction {
    /// `export` or `import`.
    pub direction: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Outcome {
    /// `synced`, `unchanged`, `waiting`, `rejected`, `observed`, `failed`.
    pub outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Write {
    /// `registry` or `cluster`.
    pub side: &'static str,
    /// `create`, `update`, `delete`.
    pub op: &'static str,
    /// `ok`, `lost_race`, or the label of an error.
    pub result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Records {
    pub registry: String,
    /// `own`, `foreign`, `undecodable`.
    pub kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Skipped {
    /// A [`twinspan_core::model::Reason`].
    pub reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Services {
    /// `synced`, `observed`, `waiting`, `rejected`, `failed`.
    pub state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Session {
    pub registry: String,
    /// `connecting`, `listing`, `watching`, `failed`.
    pub state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Audit {
    pub registry: String,
    /// `agrees`, `differs`, `failed`.
    pub result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OfKind {
    /// A kind that is watched.
    pub kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Discovered {
    pub registry: String,
    /// `export` or `import`.
    pub direction: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Gate {
    /// A [`twinspan_core::plan::gate::Passed`].
    pub reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct DrainOutcome {
    /// `drained`, `nothing`, `unreachable`, `timeout`, `busy`, `stopping`.
    pub outcome: &'static str,
}

/// Every metric, and the registry that prints them.
pub struct Metrics {
    registry: Registry,
    pub propagation: Family<Direction, Histogram>,
    pub reconciles: Family<Outcome, Counter>,
    pub passes: Histogram,
    pub writes: Family<Write, Counter>,
    pub records: Family<Records, Gauge>,
    pub skipped: Family<Skipped, Gauge>,
    pub held: Gauge,
    pub lost: Gauge,
    pub statuses_waiting: Gauge,
    pub services: Family<Services, Gauge>,
    pub discovered: Family<Discovered, Gauge>,
    pub gates: Family<Gate, Counter>,
    pub gates_waiting: Gauge,
    pub ready: Family<OfRegistry, Gauge>,
    pub sessions: Family<Session, Gauge>,
    pub audits: Family<Audit, Counter>,
    pub leader: Gauge<u64, AtomicU64>,
    pub watch_age: Family<OfKind, Gauge<f64, AtomicU64>>,
    pub drain_requests: Family<DrainOutcome, Counter>,
    pub drains_waiting: Gauge,
    /// Services whose pass is due and has not begun.
    pub queue: Gauge,
    pub queue_age: Gauge<f64, AtomicU64>,
    pub calls: Calls,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

impl Default for Metrics {
    fn default() -> Self {
        // From 1 ms, a sync on a quiet machine, to a minute.
        let seconds = || {
            Histogram::new([0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0])
        };
        let metrics = Self {
            registry: Registry::default(),
            propagation: Family::new_with_constructor(seconds),
            reconciles: Family::default(),
            passes: seconds(),
            writes: Family::default(),
            records: Family::default(),
            skipped: Family::default(),
            held: Gauge::default(),
            lost: Gauge::default(),
            statuses_waiting: Gauge::default(),
            services: Family::default(),
            discovered: Family::default(),
            gates: Family::default(),
            gates_waiting: Gauge::default(),
            ready: Family::default(),
            sessions: Family::default(),
            audits: Family::default(),
            leader: Gauge::default(),
            watch_age: Family::default(),
            drain_requests: Family::default(),
            drains_waiting: Gauge::default(),
            queue: Gauge::default(),
            queue_age: Gauge::default(),
            calls: Calls::default(),
        };
        // A series that appears with its first value hides that value from `rate()`.
        for direction in ["export", "import"] {
            drop(metrics.propagation.get_or_create(&Direction { direction }));
        }
        metrics.registered()
    }
}

impl Metrics {
    fn registered(mut self) -> Self {
        #[cfg(target_os = "linux")]
        self.registry.sub_registry_with_prefix("process").register_collector(Box::new(super::process::ProcessMetrics));
        let r = self.registry.sub_registry_with_prefix("twinspan");
        r.register_with_unit(
            "propagation",
            "Time from a change that was seen on one side to its last write on the other",
            Unit::Seconds,
            self.propagation.clone(),
        );
        r.register("reconcile", "Reconciles of a RegisteredService, by how they ended", self.reconciles.clone());
        r.register_with_unit(
            "pass",
            "Time of a pass over a RegisteredService, its writes included",
            Unit::Seconds,
            self.passes.clone(),
        );
        r.register(
            "writes",
            "Writes of records and EndpointSlices, by side, operation and result",
            self.writes.clone(),
        );
        r.register("records", "Records in a registry, by whose they are", self.records.clone());
        r.register(
            "skipped_instances",
            "Instances on one side that are left out on the other, by reason",
            self.skipped.clone(),
        );
        r.register(
            "held_deletions",
            "Deletions and exports that wait for an approval, for evidence or for the end of their time",
            self.held.clone(),
        );
        r.register(
            "lost_instances",
            "Instances that are still endpoints although their registration was lost",
            self.lost.clone(),
        );
        r.register("statuses_waiting", "Statuses that wait to be written", self.statuses_waiting.clone());
        r.register("services", "RegisteredServices, by how their last pass ended", self.services.clone());
        r.register(
            "discovered_services",
            "RegisteredServices that discovery made, by direction",
            self.discovered.clone(),
        );
        r.register("readiness_gates", "Readiness gates of pods that were opened, by reason", self.gates.clone());
        r.register(
            "readiness_gates_waiting",
            "Pods that are ready but for their readiness gate, which waits for their record",
            self.gates_waiting.clone(),
        );
        r.register("registry_ready", "1 while a ServiceRegistry is Ready, else 0", self.ready.clone());
        r.register("session_state", "1 for the state that the session of a registry is in", self.sessions.clone());
        r.register("audits", "Audits of a registry at rest, by what they found", self.audits.clone());
        r.register("leader", "1 while this replica holds the Lease, else 0", self.leader.clone());
        r.register_with_unit(
            "watch_age",
            "Time since the API server told something about a kind of object",
            Unit::Seconds,
            self.watch_age.clone(),
        );
        r.register("drain_requests", "Requests of pods that end, by the answer", self.drain_requests.clone());
        r.register(
            "drains_waiting",
            "Requests of pods that end which wait for their records to go",
            self.drains_waiting.clone(),
        );
        r.register("queue_depth", "RegisteredServices whose pass is due and has not begun", self.queue.clone());
        r.register_with_unit(
            "queue_age",
            "Time for which the first of these passes has been due",
            Unit::Seconds,
            self.queue_age.clone(),
        );
        self.calls.register(r);
        r.register("build", "The version that this replica runs", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
        self
    }

    pub fn wrote(&self, side: &'static str, op: &'static str, result: &'static str, times: usize) {
        if times > 0 {
            self.writes.get_or_create(&Write { side, op, result }).inc_by(times as u64);
        }
    }

    pub fn audited(&self, registry: &str, result: &'static str, times: u64) {
        self.audits.get_or_create(&Audit { registry: registry.to_owned(), result }).inc_by(times);
    }

    pub fn set_session(&self, registry: &str, state: &'static str) {
        for known in ["connecting", "listing", "watching", "failed"] {
            let labels = Session { registry: registry.to_owned(), state: known };
            self.sessions.get_or_create(&labels).set(i64::from(known == state));
        }
    }

    pub fn set_records(&self, registry: &str, own: usize, foreign: usize, undecodable: usize) {
        for (kind, count) in [("own", own), ("foreign", foreign), ("undecodable", undecodable)] {
            let labels = Records { registry: registry.to_owned(), kind };
            self.records.get_or_create(&labels).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    pub fn set_discovered(&self, registry: &str, exports: usize, imports: usize) {
        for (direction, count) in [("export", exports), ("import", imports)] {
            let labels = Discovered { registry: registry.to_owned(), direction };
            self.discovered.get_or_create(&labels).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// Drops the series of a registry without discovery.
    pub fn forget_discovery(&self, registry: &str) {
        for direction in ["export", "import"] {
            self.discovered.remove(&Discovered { registry: registry.to_owned(), direction });
        }
    }

    pub fn set_ready(&self, registry: &str, ready: bool) {
        self.ready.get_or_create(&OfRegistry { registry: registry.to_owned() }).set(i64::from(ready));
    }

    /// Moves a RegisteredService from one state to another; `None` if it does not exist.
    pub fn moved(&self, from: Option<&'static str>, to: Option<&'static str>) {
        if let Some(state) = to {
            self.services.get_or_create(&Services { state }).inc();
        }
        if let Some(state) = from {
            self.services.get_or_create(&Services { state }).dec();
        }
    }

    /// Drops the series of a registry that is gone.
    pub fn forget_registry(&self, registry: &str) {
        self.ready.remove(&OfRegistry { registry: registry.to_owned() });
        self.forget_discovery(registry);
        for state in ["connecting", "listing", "watching", "failed"] {
            self.sessions.remove(&Session { registry: registry.to_owned(), state });
        }
        for result in ["agrees", "differs", "failed"] {
            self.audits.remove(&Audit { registry: registry.to_owned(), result });
        }
        for kind in ["own", "foreign", "undecodable"] {
            self.records.remove(&Records { registry: registry.to_owned(), kind });
        }
    }

    /// In the format of OpenMetrics 1.0.
    ///
    /// # Errors
    /// None in practice: it writes to memory.
    pub fn print(&self) -> Result<String, fmt::Error> {
        let mut printed = String::new();
        text::encode(&mut printed, &self.registry)?;
        Ok(printed)
    }

    /// In the text format 0.0.4 of Prometheus, for readers that know no other.
    ///
    /// # Errors
    /// None in practice: it writes to memory.
    pub fn print_plain(&self) -> Result<String, fmt::Error> {
        let mut printed = String::new();
        prometheus_text::encode(&mut printed, &self.registry)?;
        Ok(printed)
    }
}

#[cfg(test)]
#[path = "metrics_tests.rs"]
mod tests;
