//! The writers: everything by which a controller writes to the outside.
//!
//! Owns nothing itself; each writer asks the claim to lead before every request. Refuses to know what is written.

use std::sync::Arc;

use kube::Client;
use tokio::sync::mpsc;

use super::views::Views;
use crate::cluster::calls::Calls;
use crate::cluster::events::{Events, Publisher};
use crate::cluster::status_writer::StatusWriter;
use crate::cluster::view::ClusterEvent;
use crate::cluster::writer::ClusterWriter;
use crate::leadership::Leadership;
use crate::page::Board;
use crate::telemetry::metrics::Metrics;

/// All writers; clones share them.
#[derive(Clone, Debug)]
pub struct Writers {
    pub cluster: ClusterWriter,
    pub statuses: StatusWriter,
    pub events: Events,
    /// Asked by [`RegistryHandle::write`](crate::registry::handle::RegistryHandle::write).
    pub leadership: Leadership,
    pub metrics: Arc<Metrics>,
    /// The lines of the status page; it keeps none where no page is served.
    pub board: Board,
}

impl Writers {
    /// The writers of a replica, and the publisher of their Events, which has to run as [`Writers::statuses`] has to.
    /// `events` learns of the slices and the statuses that were written.
    pub fn new(
        client: &Client,
        views: &Views,
        leadership: &Leadership,
        replica: &str,
        events: mpsc::UnboundedSender<ClusterEvent>,
        metrics: Arc<Metrics>,
    ) -> (Self, Publisher) {
        let (view, env) = (&views.cluster, &views.env);
        let calls = Calls::new(client.clone(), leadership.clone());
        let cluster = ClusterWriter::new(calls.clone(), view.clone(), metrics.clone(), events.clone());
        let statuses = StatusWriter::new(calls.clone(), view.clone(), env.clone(), metrics.clone(), events);
        let is_namespaced = views.cluster().reach().is_limited();
        let (events, publisher) = Events::new(calls, env.clone(), replica, is_namespaced);
        let (leadership, board) = (leadership.clone(), Board::default());
        (Self { cluster, statuses, events, leadership, metrics, board }, publisher)
    }
}
