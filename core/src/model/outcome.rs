//! The outcome of one instance in one plan: its state on the other side, and the reason.
//!
//! Owns the list of outcomes. Status counts, gauges, Events and the command line all read it, so that only the planner
//! that decides works out a reason. Refuses to know the words for people.

use std::fmt;

use crate::Timestamp;
use crate::model::{InstanceAddr, Owner, Reason, RecordKey};

/// The outcome of an instance.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    // A ready endpoint of the cluster.
    /// Its own record is there.
    Exported {
        key: RecordKey,
    },
    /// The same, and its pod is not ready yet: its readiness gate waited for the record.
    ExportedBeforeReady {
        key: RecordKey,
    },
    /// Its own record is about to be written.
    ToBeExported,
    /// Its own server registered it. `refused` is the reason why that record cannot be imported, if it names the
    /// address in an odd form or under the key of another address.
    SelfRegistered {
        key: RecordKey,
        refused: Option<Reason>,
    },
    /// Another cluster's Twinspan registered the address.
    TakenByOtherCluster {
        key: RecordKey,
    },
    /// Clients call it at another address, whose record has an outcome of its own.
    ReachedAt {
        address: InstanceAddr,
    },
    /// Its own server deregistered; the instance is exported again at that time.
    ExportDelayed {
        until: Timestamp,
    },
    /// The RegisteredService does not export.
    ExportNotRequested,
    /// The registry's view is not fresh, so nothing is exported now.
    ExportUnavailable,

    // An endpoint of the cluster that may not be exported.
    /// Its port is not one of the chosen ones.
    OtherPort {
        port: String,
    },
    Terminating,
    NotReady,
    /// Its IP family is not exported.
    OtherFamily,
    /// The Service has no selector any more, and the built-in controller left the slice behind.
    Unmanaged,

    // A record that this cluster wrote.
    /// Another RegisteredService exported it under the same name.
    ExportedByAnother {
        /// Boxed, because every instance of a service has an outcome, and hardly one of them this.
        owner: Box<Owner>,
    },
    /// Its endpoint is gone, and the record is about to be deleted.
    ToBeWithdrawn {
        key: RecordKey,
    },
    /// The record has no ready endpoint, and stays for now.
    RecordWithoutEndpoint,

    // An endpoint that the Service has, or gets, from the registry.
    Imported,
    /// Its endpoint is about to be written.
    ToBeImported,
    /// The instance lost its registration, and stays until `until` while it accepts connections.
    Lost {
        until: Timestamp,
    },
    /// Like [`Self::Lost`], and its record is about to be put back.
    ToBeHealed {
        until: Timestamp,
    },
    /// Like [`Self::Lost`], and its record was put back.
    Healed {
        until: Timestamp,
    },
    /// The endpoint has no record, and stays for now.
    EndpointWithoutRecord,
    /// The registry's view is not fresh, so the endpoint stays as it is.
    ImportUnavailable,

    // A foreign record.
    /// The RegisteredService does not import.
    ImportNotRequested,
    /// The instance is left out.
    Skipped(Reason),
    /// Another cluster's Twinspan exported it, and it waits while so many instances of this cluster are there; fewer
    /// than `min_local` let it in.
    Standby {
        local: usize,
        min_local: usize,
    },

    // Either side.
    /// The RegisteredService cannot be acted upon.
    NotAccepted,
}

impl Outcome {
    /// Whether both sides have the instance once the plan is applied.
    pub fn is_shared(&self) -> bool {
        self.is_exported()
            || self.is_registered()
            || matches!(self, Self::ReachedAt { .. })
            || (self.is_imported() && *self != Self::EndpointWithoutRecord)
    }

    /// Whether an own record stands for the instance once the plan is applied.
    pub fn is_exported(&self) -> bool {
        matches!(self, Self::Exported { .. } | Self::ExportedBeforeReady { .. } | Self::ToBeExported)
    }

    /// Whether the Service has the instance as an imported endpoint once the plan is applied.
    pub fn is_imported(&self) -> bool {
        matches!(self, Self::Imported | Self::ToBeImported | Self::EndpointWithoutRecord) || self.is_lost()
    }

    /// Whether the outcome is about an endpoint of the cluster.
    pub fn is_endpoint_of_cluster(&self) -> bool {
        matches!(
            self,
            Self::Exported { .. }
                | Self::ExportedBeforeReady { .. }
                | Self::ToBeExported
                | Self::SelfRegistered { .. }
                | Self::TakenByOtherCluster { .. }
                | Self::ReachedAt { .. }
                | Self::ExportDelayed { .. }
                | Self::ExportNotRequested
                | Self::ExportUnavailable
                | Self::OtherPort { .. }
                | Self::Terminating
                | Self::NotReady
                | Self::OtherFamily
                | Self::Unmanaged
        )
    }

    /// Whether the instance lost its registration and lives.
    fn is_lost(&self) -> bool {
        matches!(self, Self::Lost { .. } | Self::ToBeHealed { .. } | Self::Healed { .. })
    }

    fn is_registered(&self) -> bool {
        matches!(self, Self::SelfRegistered { .. } | Self::TakenByOtherCluster { .. })
    }
}

/// The instance that an outcome is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    Address(InstanceAddr),
    /// A record without an address that an endpoint may have: the address as written, else the key.
    Text(String),
}

impl Subject {
    /// The address, even if the text names it in a form that only clients accept.
    pub fn address(&self) -> Option<InstanceAddr> {
        match self {
            Self::Address(addr) => Some(*addr),
            Self::Text(text) => InstanceAddr::parse(text).ok(),
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(addr) => addr.fmt(f),
            Self::Text(text) => f.write_str(text),
        }
    }
}

/// One instance of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct InstanceOutcome {
    pub subject: Subject,
    pub outcome: Outcome,
    /// A deletion, or an export, waits for more evidence or for the guard.
    pub held: bool,
    /// The first address of its instance. A record with several addresses counts once.
    pub counts: bool,
}

impl InstanceOutcome {
    pub fn of(addr: InstanceAddr, outcome: Outcome) -> Self {
        Self { subject: Subject::Address(addr), outcome, held: false, counts: true }
    }

    pub fn held(addr: InstanceAddr, outcome: Outcome) -> Self {
        Self { held: true, ..Self::of(addr, outcome) }
    }

    /// An instance or a record that is left out.
    pub fn skipped(instance: String, reason: Reason) -> Self {
        Self { subject: Subject::Text(instance), outcome: Outcome::Skipped(reason), held: false, counts: true }
    }

    /// The same for a pod that is not ready yet.
    pub fn before_ready(self) -> Self {
        let outcome = match self.outcome {
            Outcome::Exported { key } => Outcome::ExportedBeforeReady { key },
            outcome => outcome,
        };
        Self { outcome, ..self }
    }

    /// The reason, if the instance is left out and counts.
    pub fn skip_reason(&self) -> Option<Reason> {
        match self.outcome {
            Outcome::Skipped(reason) if self.counts => Some(reason),
            Outcome::Standby { .. } if self.counts => Some(Reason::Standby),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_that_both_sides_have_is_shared() {
        let until = Timestamp::UNIX_EPOCH;
        let key = || RecordKey::from("p/echo/10.0.0.1:80");
        for outcome in [
            Outcome::Exported { key: key() },
            Outcome::ExportedBeforeReady { key: key() },
            Outcome::ToBeExported,
            Outcome::SelfRegistered { key: key(), refused: None },
            Outcome::TakenByOtherCluster { key: key() },
            Outcome::Imported,
            Outcome::ToBeImported,
            Outcome::Lost { until },
            Outcome::Healed { until },
        ] {
            assert!(outcome.is_shared(), "{outcome:?}");
        }
        for outcome in [
            Outcome::NotReady,
            Outcome::EndpointWithoutRecord,
            Outcome::RecordWithoutEndpoint,
            Outcome::ExportDelayed { until },
            Outcome::Skipped(Reason::OtherCluster),
            Outcome::Standby { local: 3, min_local: 1 },
        ] {
            assert!(!outcome.is_shared(), "{outcome:?}");
        }
        assert!(Outcome::EndpointWithoutRecord.is_imported(), "it is an endpoint all the same");
    }
}
