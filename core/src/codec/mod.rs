//! The codec: bytes ↔ record.
//!
//! - [`Framework`]: everything that differs between frameworks. Each implements it in a file of its own.
//! - [`Format`]: the list of them.
//! - [`Layout`]: the keys under which a registry of one format keeps its records.
//!
//! Owns every rule about keys and values. Refuses to judge: an odd record decodes to its literal content, and the
//! planners decide whether it may become an endpoint.

mod format;
mod framework;
mod go_json;
mod gozero;
mod grpc;
mod hertz;
mod kitex;
pub mod kratos;
mod layout;
mod mark;
#[cfg(test)]
mod toy;

pub use format::Format;
pub use framework::{Framework, Undecodable};
pub use layout::{Layout, Range};

#[cfg(test)]
pub(crate) mod testing {
    use proptest::prelude::*;
    use serde_json::Value;

    /// JSON without fractions: they do not always survive a round trip.
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
