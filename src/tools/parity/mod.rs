//! Parity: every instance of a service, and the sides that see it: the cluster, the registry, DNS, a client.
//!
//! - [`gather`]: asks each of them, through clients of its own; an operator need not run.
//! - [`dns`]: the questions to DNS; without the feature `dns` of the crate, no questions.
//! - [`table`]: puts the answers side by side; pure. [`risks`]: the clients to which they matter; pure.
//!
//! Owns the comparison. Refuses to explain a difference, which [`super::explanation`] does.

#[cfg(feature = "dns")]
mod dns;
#[cfg(not(feature = "dns"))]
#[path = "no_dns.rs"]
mod dns;
pub mod gather;
mod risks;
pub mod table;

pub use dns::{DnsError, Resolver};
pub use gather::{GatherError, Gathered, Request, dns_of, gather};
pub use risks::risks;
pub use table::{Cell, Dns, Row, SeenBy, Table};
