//! Bytes ↔ record.
//!
//! - [`Layout`]: where a registry of one format keeps its records, and who dispatches to which framework's file.
//! - One file a framework: what its values say.
//!
//! Refuses to judge: an odd record decodes to what it says, and whether it may become an endpoint is decided elsewhere.

mod go_json;
pub mod gozero;
pub mod grpc;
pub mod kitex;
pub mod kratos;
mod layout;

pub use layout::{Layout, Range};

/// The frameworks whose records are understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Format {
    Kitex,
    Hertz,
    Kratos,
    GoZero,
    Grpc,
}

impl Format {
    pub const ALL: [Self; 5] = [Self::Kitex, Self::Hertz, Self::Kratos, Self::GoZero, Self::Grpc];

    /// As `spec.format` has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Kitex => "Kitex",
            Self::Hertz => "Hertz",
            Self::Kratos => "Kratos",
            Self::GoZero => "GoZero",
            Self::Grpc => "GRPC",
        }
    }

    /// The prefix that the framework itself uses where nobody sets one.
    pub fn default_prefix(self) -> &'static str {
        match self {
            Self::Kitex => kitex::KITEX_PREFIX,
            Self::Hertz => kitex::HERTZ_PREFIX,
            Self::Kratos => kratos::PREFIX,
            Self::GoZero | Self::Grpc => "",
        }
    }

    /// Whether an address has a scheme, so that a service can have several ports.
    pub fn has_schemes(self) -> bool {
        self == Self::Kratos
    }

    /// Whether a record has a place for weight and tags.
    pub fn has_tags(self) -> bool {
        matches!(self, Self::Kitex | Self::Hertz | Self::Kratos)
    }

    /// Whether a lost registration can be put back: there has to be a place for the marks that say so.
    pub fn heals(self) -> bool {
        self.has_tags()
    }

    /// Whether a server that leaves takes its lease with it, so that a lease that is gone says nothing (`Publisher.revoke` of
    /// go-zero v1.10.3).
    pub fn leaves_by_revoking(self) -> bool {
        self == Self::GoZero
    }

    /// The scheme of a port that names none.
    pub fn default_scheme(self) -> &'static str {
        match self {
            Self::Kratos => kratos::DEFAULT_SCHEME,
            Self::Kitex | Self::Hertz | Self::GoZero | Self::Grpc => "",
        }
    }
}

/// Why a value does not decode, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undecodable(pub String);

#[cfg(test)]
pub(crate) mod testing {
    use proptest::prelude::*;
    use serde_json::Value;

    /// JSON without fractions, which do not always survive being written and read.
    pub fn arbitrary_json_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            ".{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(2, 8, 3, |inner| prop::collection::vec(inner, 0..3).prop_map(Value::from))
    }
}
