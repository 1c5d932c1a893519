//! What can be seen of a running Twinspan: logs, metrics, probes, traces.

pub mod admin;
pub mod logs;
pub mod metrics;
pub mod traces;
