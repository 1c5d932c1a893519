//! The near side's door: everything that touches the Kubernetes API goes through here.
//!
//! - [`view`]: the in-memory picture of what matters of the cluster, [`pods`], who has which address, and [`index`], who is
//!   concerned by what.
//! - [`watch`]: keeps the view true.
//! - [`convert`]: API objects ↔ the model's nouns.
//! - [`write`]: slices, Services and status, each by compare-and-swap.
//! - [`events`]: Kubernetes Events.
//!
//! Refuses to decide anything: what to write comes from the planners.

pub mod convert;
pub mod error;
pub mod events;
pub mod index;
pub mod pods;
pub mod view;
pub mod watch;
pub mod write;

pub use error::ClusterError;

pub type Result<T> = std::result::Result<T, ClusterError>;
