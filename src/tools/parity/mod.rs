//! Parity: every instance of a service, and who sees it: the cluster, the registry, DNS, a Kitex client.
//!
//! - [`gather`]: asks each of them, through clients of its own; an operator need not run.
//! - [`table`]: puts the answers side by side; pure.

mod dns;
pub mod gather;
pub mod table;

pub use dns::Resolver;
pub use gather::{GatherError, Gathered, Request, gather};
pub use table::{Cell, Dns, SeenBy, Table};
