//! The near side's door: every request to the Kubernetes API goes through here.
//!
//! - [`view`]: the in-memory picture of the cluster, [`pods`], by address, [`index`] and [`interest`]: who is affected by a change.
//! - [`watch`]: keeps the view true.
//! - [`convert`]: API objects ↔ the model's nouns.
//! - [`writer`]: slices, Services and status, each by compare-and-swap and under the claim to lead; [`status_budget`]: the pace of status.
//! - [`events`]: Kubernetes Events.
//!
//! Refuses to decide: the operations come from the planners.

pub mod convert;
pub mod error;
pub mod events;
#[cfg(test)]
pub mod fake_api;
pub mod index;
pub mod interest;
pub mod pods;
pub mod status_budget;
pub mod view;
pub mod watch;
pub mod writer;

pub use error::ClusterError;

pub type Result<T> = std::result::Result<T, ClusterError>;
