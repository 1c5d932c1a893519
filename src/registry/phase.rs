//! The phase of a session, and the last facts about one.
//!
//! Owns their names. Refuses to connect, which [`super::session`] does.

use super::{RegistryError, Revision, ServerStatus};

/// The phase of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    Connecting,
    Listing,
    Watching,
    /// Waiting to connect again.
    Failed(RegistryError),
}

impl Phase {
    /// Bounded, for metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Listing => "listing",
            Self::Watching => "watching",
            Self::Failed(_) => "failed",
        }
    }
}

/// The last facts about a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionStatus {
    pub phase: Phase,
    pub server: Option<ServerStatus>,
    /// The revision of the last list; 0 until this session has listed everything.
    pub revision_at_last_session: Revision,
}
