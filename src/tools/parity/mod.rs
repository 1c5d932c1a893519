//! Parity: every instance of a service, and the sides that see it: the cluster, the registry, DNS, a client.
//!
//! - [`gather`]: asks each of them, through clients of its own; an operator need not run.
//! - [`dns`]: the questions to DNS.
//! - [`table`]: puts the answers side by side; pure. [`risks`]: the clients to which they matter; pure.
//!
//! Owns the comparison. Refuses to explain a difference, which [`super::explanation`] does.

mod dns;
pub mod gather;
mod risks;
pub mod table;

pub use dns::Resolver;
pub use gather::{GatherError, Gathered, Request, dns_of, gather};
pub use risks::risks;
pub use table::{Cell, Dns, Row, SeenBy, Table};
