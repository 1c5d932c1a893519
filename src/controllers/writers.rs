//! The writers: everything by which a controller writes to the outside.
//!
//! Owns nothing itself; each writer asks the claim to lead before every request. Refuses to know what is written.

use std::sync::Arc;

use crate::cluster::events::Events;
use crate::cluster::writer::ClusterWriter;
use crate::leadership::Leadership;
use crate::telemetry::metrics::Metrics;

/// All writers; clones share them.
#[derive(Clone, Debug)]
pub struct Writers {
    pub cluster: ClusterWriter,
    pub events: Events,
    /// Asked by [`RegistryHandle::write`](crate::registry::handle::RegistryHandle::write).
    pub leadership: Leadership,
    pub metrics: Arc<Metrics>,
}
