//! Kubernetes Events: what `kubectl describe` shows beneath an object.
//!
//! Owns the reasons, the check of the claim to lead, and the queue that keeps a slow API server from delaying a sync. A
//! full queue drops the Event, but neither the log line nor the metric. Refuses to know when an Event is due, which the
//! controllers decide.

use std::sync::Arc;

use k8s_controller::events::{Event, EventRecorder};
use kube::Client;
use kube::runtime::events::{EventType, Reporter};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::api::{APPROVE_DELETIONS, RegisteredService, ServiceRegistry};
use crate::leadership::Leadership;

/// Maximum of Events that wait to be published.
const QUEUE: usize = 1000;

/// The reason of an Event; the set is fixed, because users' tools match these words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    Exported,
    Imported,
    NotAccepted,
    InstanceSkipped,
    LostRegistration,
    DeletionsHeld,
    ApprovalRefused,
    /// On a ServiceRegistry.
    Disconnected,
    /// On a ServiceRegistry.
    Connected,
}

impl Reason {
    fn as_str(self) -> &'static str {
        match self {
            Self::Exported => "Exported",
            Self::Imported => "Imported",
            Self::NotAccepted => "NotAccepted",
            Self::InstanceSkipped => "InstanceSkipped",
            Self::LostRegistration => "LostRegistration",
            Self::DeletionsHeld => "DeletionsHeld",
            Self::ApprovalRefused => "ApprovalRefused",
            Self::Disconnected => "Disconnected",
            Self::Connected => "Connected",
        }
    }

    fn kind(self) -> EventType {
        match self {
            Self::Exported | Self::Imported | Self::Connected => EventType::Normal,
            Self::NotAccepted
            | Self::InstanceSkipped
            | Self::LostRegistration
            | Self::DeletionsHeld
            | Self::ApprovalRefused
            | Self::Disconnected => EventType::Warning,
        }
    }
}

/// The note about an approval that names a held set as versions before `status.hold` did.
pub fn refused_approval(hash: &str) -> String {
    format!(
        "the annotation {APPROVE_DELETIONS} names the held deletions as former versions did, and would release them again \
         and again; {APPROVE_DELETIONS}={hash} releases them once"
    )
}

/// The object that an Event is about.
#[derive(Clone, Debug)]
pub enum About {
    RegisteredService(Arc<RegisteredService>),
    ServiceRegistry(Arc<ServiceRegistry>),
}

#[derive(Clone, Debug)]
pub struct Events {
    leadership: Leadership,
    queue: mpsc::Sender<(About, Reason, String)>,
}

impl Events {
    /// The sender, and the task that publishes until it is stopped.
    pub fn new(
        client: Client,
        leadership: Leadership,
        instance: &str,
        stop: CancellationToken,
    ) -> (Self, impl Future<Output = ()> + use<>) {
        let (queue, receiver) = mpsc::channel(QUEUE);
        let reporter = Reporter { controller: "twinspan".to_owned(), instance: Some(instance.to_owned()) };
        let task = publish(EventRecorder::new(client, reporter), leadership.clone(), receiver, stop);
        (Self { leadership, queue }, task)
    }

    /// Queues an Event if this process may write.
    pub fn publish(&self, about: About, reason: Reason, note: impl Into<String>) {
        if !self.leadership.may_write() {
            return;
        }
        if self.queue.try_send((about, reason, note.into())).is_err() {
            debug!(reason = reason.as_str(), "too many Events wait; one is dropped");
        }
    }
}

async fn publish(
    recorder: EventRecorder,
    leadership: Leadership,
    mut queue: mpsc::Receiver<(About, Reason, String)>,
    stop: CancellationToken,
) {
    loop {
        let (about, reason, note) = tokio::select! {
            () = stop.cancelled() => return,
            next = queue.recv() => match next {
                Some(next) => next,
                None => return,
            },
        };
        // The Lease may have been lost while the Event waited.
        if !leadership.may_write() {
            continue;
        }
        let event = Event {
            type_: reason.kind(),
            reason: reason.as_str().to_owned(),
            action: "Sync".to_owned(),
            note: Some(note),
            related: None,
        };
        let published = match &about {
            About::RegisteredService(object) => recorder.publish(object.as_ref(), &event).await,
            About::ServiceRegistry(object) => recorder.publish(object.as_ref(), &event).await,
        };
        if let Err(error) = published {
            warn!(reason = reason.as_str(), %error, "cannot publish an Event");
        }
    }
}
