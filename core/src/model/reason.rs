//! The reasons for which an instance is not on the other side.
//!
//! Owns the bounded list of reasons that status, Events and metrics share: an operator who sees one in
//! `twinspan_skipped_instances` finds the same word in `status.differences` and in the documents. Refuses to know how
//! the planners find a reason, and to explain it.

use std::fmt;

/// A list of variants; the enum, the whole list and the words follow from it.
macro_rules! reasons {
    ($($(#[$about:meta])* $name:ident,)*) => {
        /// The reason why an instance or a record was left out. Displayed in CamelCase, as the API conventions require
        /// of reasons.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Reason {
            $($(#[$about])* $name,)*
        }

        impl Reason {
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The word that users see. Each variant has exactly one, so it may label a metric.
            pub fn label(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* }
            }
        }
    };
}

reasons! {
    // The record states no address that an EndpointSlice may hold.
    AddressMissing,
    AddressMalformed,
    HostnameAddress,
    PortMissing,
    PortZero,
    NonCanonicalAddress,
    Ipv4MappedAddress,
    ZoneIdentifier,
    UnspecifiedAddress,
    LoopbackAddress,
    LinkLocalAddress,
    MulticastAddress,
    BroadcastAddress,
    // The record as a whole.
    Undecodable,
    NotTCP,
    KeyValueMismatch,
    /// The value names another service than its key; Kratos readers pass over it.
    OtherName,
    /// The record has no address with the scheme of a chosen port.
    NoSuchScheme,
    // The address is sound, but the registry must not put it into a Service.
    APIServerAddress,
    ServiceAddress,
    NodeAddress,
    OtherNamespacesPod,
    NoSuchPod,
    DeniedCIDR,
    NotInAllowCIDRs,
    /// Neither a Node nor a load balancer has an address for it of the kind that is exported.
    NoAddress,
    /// The Service does not serve the address's IP family.
    FamilyNotServed,
    // The record is sound, but the RegisteredService does not select it.
    NotSelected,
    // The record is sound, but another record, object or cluster has the address or the right to it.
    OtherCluster,
    /// Another cluster's Twinspan exported it, and the RegisteredService names other clusters than that one.
    ClusterNotNamed,
    FormerEndpoint,
    TooManySlices,
    Conflict,
    /// The API server refuses the slice that would hold it: a quota, or an admission policy.
    RefusedByCluster,
    // Nothing is wrong.
    /// Another cluster's Twinspan exported it, and enough instances of this cluster are there.
    Standby,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}
