//! Metrics of the calls to both sides, and of all that they keep open: watches, sessions and leases.
//!
//! Owns their names and labels. Refuses to know how a call is made and when it counts as failed.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OfRegistry {
    pub registry: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Request {
    /// A verb of Kubernetes' authorization, such as `list`.
    pub verb: &'static str,
    /// A resource that Twinspan asks for, with its subresource, or `other`.
    pub resource: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestError {
    pub verb: &'static str,
    pub resource: &'static str,
    /// Such as `conflict` or `timeout`; a bounded set.
    pub reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct WatchRestart {
    /// A kind that is watched.
    pub kind: &'static str,
    /// Why it began again; a bounded set.
    pub reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct EtcdCall {
    pub registry: String,
    /// Such as `list` or `commit`; a bounded set.
    pub op: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct EtcdError {
    pub registry: String,
    pub op: &'static str,
    /// The reason of a condition.
    pub reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct SessionRestart {
    pub registry: String,
    /// The reason of a condition.
    pub reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Keepalive {
    pub registry: String,
    /// `kept`, `gone`, `failed`.
    pub result: &'static str,
}

/// The metrics; clones share them.
#[derive(Clone, Debug)]
pub struct Calls {
    pub api: Family<Request, Histogram>,
    pub api_errors: Family<RequestError, Counter>,
    pub watch_restarts: Family<WatchRestart, Counter>,
    pub etcd: Family<EtcdCall, Histogram>,
    pub etcd_errors: Family<EtcdError, Counter>,
    pub etcd_watch_age: Family<OfRegistry, Gauge<f64, AtomicU64>>,
    pub session_restarts: Family<SessionRestart, Counter>,
    pub leases: Family<OfRegistry, Gauge>,
    pub keepalives: Family<Keepalive, Counter>,
}

/// From 1 ms, an answer of a quiet server, to the longest deadline. Few, because each operation of each registry has
/// all of them.
fn seconds() -> Histogram {
    Histogram::new([0.001, 0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 20.0, 60.0])
}

impl Default for Calls {
    fn default() -> Self {
        Self {
            api: Family::new_with_constructor(seconds),
            api_errors: Family::default(),
            watch_restarts: Family::default(),
            etcd: Family::new_with_constructor(seconds),
            etcd_errors: Family::default(),
            etcd_watch_age: Family::default(),
            session_restarts: Family::default(),
            leases: Family::default(),
            keepalives: Family::default(),
        }
    }
}

impl Calls {
    /// A request to the API server was answered, or failed for a reason.
    pub fn asked_api(
        &self,
        verb: &'static str,
        resource: &'static str,
        took: Duration,
        failed_by: Option<&'static str>,
    ) {
        self.api.get_or_create(&Request { verb, resource }).observe(took.as_secs_f64());
        if let Some(reason) = failed_by {
            self.api_errors.get_or_create(&RequestError { verb, resource, reason }).inc();
        }
    }

    pub fn watch_restarted(&self, kind: &'static str, reason: &'static str) {
        self.watch_restarts.get_or_create(&WatchRestart { kind, reason }).inc();
    }

    pub(super) fn register(&self, r: &mut Registry) {
        r.register_with_unit(
            "api_request_duration",
            "Time to the head of the API server's answer, by verb and resource",
            Unit::Seconds,
            self.api.clone(),
        );
        r.register(
            "api_request_errors",
            "Requests to the API server that it refused or did not answer, by reason",
            self.api_errors.clone(),
        );
        r.register(
            "watch_restarts",
            "Watches of the API server that failed and began again, by kind and reason",
            self.watch_restarts.clone(),
        );
        r.register_with_unit(
            "etcd_request_duration",
            "Time of a call to a registry's etcd, by operation",
            Unit::Seconds,
            self.etcd.clone(),
        );
        r.register(
            "etcd_request_errors",
            "Calls to a registry's etcd that failed, by operation and reason",
            self.etcd_errors.clone(),
        );
        r.register_with_unit(
            "etcd_watch_age",
            "Time since the watch of a registry told something",
            Unit::Seconds,
            self.etcd_watch_age.clone(),
        );
        r.register(
            "session_restarts",
            "Sessions of a registry that ended and began again, by reason",
            self.session_restarts.clone(),
        );
        r.register("leases", "Leases of own records that this replica knows to live", self.leases.clone());
        r.register("keepalives", "Keepalives of leases, by the answer", self.keepalives.clone());
    }
}
