//! The writers: everything by which a controller changes something outside.
//!
//! Each of them asks the claim to lead by itself, before every request. Refuses to know what is written.

use std::sync::Arc;

use crate::cluster::events::Events;
use crate::cluster::writer::ClusterWriter;
use crate::leadership::Leadership;
use crate::telemetry::metrics::Metrics;

/// Clones are the same writers.
#[derive(Clone, Debug)]
pub struct Writers {
    pub cluster: ClusterWriter,
    pub events: Events,
    /// Asked by [`RegistryHandle::write`](crate::registry::handle::RegistryHandle::write).
    pub leadership: Leadership,
    pub metrics: Arc<Metrics>,
}
