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
mod goframe;
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
pub use layout::{Keys, Layout, Range};

#[cfg(test)]
mod properties;
#[cfg(test)]
pub(crate) mod testing;
