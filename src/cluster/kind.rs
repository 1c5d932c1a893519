//! The kinds of objects that are watched, by their names.
//!
//! Owns the list, and the time after which a kind counts as silent. Refuses to know objects.

use jiff::SignedDuration;

/// Time without a sign of life after which a kind counts as silent. A quiet watch is opened anew every minute, so a
/// connection that was cut silently shows before.
pub const SILENT_AFTER: SignedDuration = SignedDuration::from_secs(90);

/// The kinds that are watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    RegisteredService,
    ServiceRegistry,
    Service,
    EndpointSlice,
    Namespace,
    Secret,
    Pod,
    Node,
    ServiceCidr,
}

impl Kind {
    pub const ALL: [Self; 9] = [
        Self::RegisteredService,
        Self::ServiceRegistry,
        Self::Service,
        Self::EndpointSlice,
        Self::Namespace,
        Self::Secret,
        Self::Pod,
        Self::Node,
        Self::ServiceCidr,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::RegisteredService => "RegisteredService",
            Self::ServiceRegistry => "ServiceRegistry",
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
            Self::Namespace => "Namespace",
            Self::Secret => "Secret",
            Self::Pod => "Pod",
            Self::Node => "Node",
            Self::ServiceCidr => "ServiceCIDR",
        }
    }
}
