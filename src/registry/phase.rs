//! The phase of a session, and who has to know of the next one.
//!
//! Owns the rule by which a change of phase concerns the RegisteredServices. Refuses to connect.

use super::{RegistryError, Revision, ServerStatus};

/// The phase of a session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    #[default]
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
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionStatus {
    pub phase: Phase,
    pub server: Option<ServerStatus>,
    /// The revision of the last list; 0 until this session has listed everything.
    pub revision_at_last_session: Revision,
    /// The kind of failure of which the RegisteredServices know; `None` while it is none.
    told_failure: Option<&'static str>,
}

/// The objects whose status a change of phase concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Concerned {
    /// Every RegisteredService, and the ServiceRegistry.
    Services,
    Registry,
    Nobody,
}

impl SessionStatus {
    /// Enters a phase. A session that ends and begins again at once is nothing that each RegisteredService has to tell:
    /// they hear of a failure once connecting again has failed, and once for each kind.
    pub(super) fn enter(&mut self, phase: Phase) -> Concerned {
        let concerned = match (&self.phase, &phase) {
            (_, Phase::Watching) => {
                self.told_failure = None;
                Concerned::Services
            }
            (Phase::Watching, _) | (_, Phase::Connecting | Phase::Listing) => Concerned::Registry,
            (before, Phase::Failed(error)) => {
                let label = error.label();
                if self.told_failure.replace(label) != Some(label) {
                    Concerned::Services
                } else if matches!(before, Phase::Failed(known) if known.label() == label) {
                    Concerned::Nobody
                } else {
                    Concerned::Registry
                }
            }
        };
        self.phase = phase;
        concerned
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_concerns_the_services_once_connecting_again_has_failed_and_once_for_each_kind() {
        let mut status = SessionStatus::default();
        let away = || Phase::Failed(RegistryError::Unreachable("etcd".into()));
        let other = || Phase::Failed(RegistryError::Panicked("session".into()));
        for (phase, concerned) in [
            (away(), Concerned::Services),
            (away(), Concerned::Nobody),
            (other(), Concerned::Services),
            (Phase::Listing, Concerned::Registry),
            (other(), Concerned::Registry),
            (Phase::Listing, Concerned::Registry),
            (Phase::Watching, Concerned::Services),
            (away(), Concerned::Registry),
            (Phase::Listing, Concerned::Registry),
            (Phase::Watching, Concerned::Services),
            (away(), Concerned::Registry),
            (away(), Concerned::Services),
            (away(), Concerned::Nobody),
        ] {
            assert_eq!(status.enter(phase.clone()), concerned, "{phase:?}");
        }
    }
}
