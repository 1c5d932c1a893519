//! The near side's door: the operator's requests to the Kubernetes API, except those for its Lease, go through here.
//!
//! - [`view`]: the in-memory picture of the cluster, with [`pods`] by address, [`slices`] by Service and owner, and the
//!   cluster's own [`networks`].
//! - [`index`] and [`interest`]: the RegisteredServices that a change affects.
//! - [`watch`]: keeps the view true; [`kinds`]: the effect of each kind on it.
//! - [`convert`]: API objects ↔ the model's nouns.
//! - [`writer`]: slices, Services and status, each under the claim to lead; [`status_budget`]: the pace of status.
//! - [`events`]: Kubernetes Events.
//! - [`client`]: the clients, with their deadlines, which read the API server's clock.
//!
//! Owns the watches, the view and the writes. Refuses to plan: the operations come from the planners.

pub mod client;
pub mod convert;
pub mod error;
pub mod events;
#[cfg(test)]
pub mod fake_api;
pub mod index;
pub mod interest;
mod kinds;
pub mod networks;
pub mod pods;
pub mod slices;
pub mod status_budget;
pub mod view;
pub mod watch;
pub mod writer;

pub use error::ClusterError;

pub type Result<T> = std::result::Result<T, ClusterError>;
