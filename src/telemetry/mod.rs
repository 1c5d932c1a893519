//! What can be seen of a running Twinspan: logs, metrics, probes.

pub mod admin;
pub mod logs;
pub mod metrics;
