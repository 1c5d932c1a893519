//! Why an instance is not on the other side.
//!
//! Owns the bounded list of reasons that status, Events and metrics share: an operator who sees one in
//! `twinspan_skipped_instances` finds the same word in `status.skipped` and in the documents. Refuses to know how a reason
//! is found.

use std::fmt;

/// A list of variants, and the same list as words and as a whole.
macro_rules! reasons {
    ($($(#[$about:meta])* $name:ident,)*) => {
        /// One instance or record left out, and why. Displayed in CamelCase, as the API conventions want reasons.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Reason {
            $($(#[$about])* $name,)*
        }

        impl Reason {
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The word that users meet; at most as many as there are variants, so it may label a metric.
            pub fn label(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* }
            }
        }
    };
}

reasons! {
    // What the record says is no address that an EndpointSlice may hold.
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
    /// The value says another service's name than its key; Kratos readers pass over it.
    OtherName,
    /// It has no address with a scheme that was asked for.
    NoSuchScheme,
    // The address is sound, but the registry must not put it into a Service.
    APIServerAddress,
    ServiceAddress,
    NodeAddress,
    OtherNamespacesPod,
    NoSuchPod,
    DeniedCIDR,
    NotInAllowCIDRs,
    // The record is sound, but not asked for.
    NotSelected,
    // The record is sound, but somebody else has the address or the right to it.
    OtherCluster,
    FormerEndpoint,
    Conflict,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}
