//! The near side's door: the operator's requests to the Kubernetes API, except those for its Lease, go through here.
//!
//! - [`view`]: the in-memory picture of the cluster, with [`pods`] by address, [`services`] by owner, [`slices`] by
//!   Service and owner, and the cluster's own [`networks`];
//!   `outer`: the addresses outside the pods that lead to a namespace.
//! - [`index`] and [`interest`]: the RegisteredServices that a change affects. [`groups`]: the form
//!   of most indexes.
//! - [`watch`]: keeps the view true; `watches`: which there are; `watch_error`: why one begins again;
//!   [`watching`]: what was listed and heard of.
//! - [`kind`]: the kinds; [`kinds`]: the effect of each on the view, `own_kinds` of those of our API.
//! - [`reach`]: the part of the cluster that is looked at, and the ServiceRegistries that are served.
//! - [`convert`]: API objects ↔ the model's nouns; `readiness_gate`: that of a pod.
//! - [`writer`]: slices and Services, each under the claim to lead.
//! - [`status_writer`]: statuses, beside the passes; [`status_queue`]: their order and pace; `status_patch`: one patch;
//!   `status_read`: single objects.
//! - [`ending_pods`]: pods that are being deleted, ahead of the watch.
//! - [`events`]: Kubernetes Events; `event_api`: the requests for one.
//! - [`calls`]: the deadlines of the requests of these three; `turns`: their number and order; `pace`: their rate.
//! - [`client`]: the clients, with their deadlines, which read the API server's clock; `requests`: what metrics call a
//!   request.
//!
//! Owns the watches, the view and the writes. Refuses to plan: the operations come from the planners.

pub mod calls;
pub mod client;
pub mod convert;
pub mod ending_pods;
pub mod error;
mod event_api;
pub mod events;
#[cfg(test)]
mod events_tests;
#[cfg(test)]
pub mod fake_api;
pub mod groups;
pub mod index;
pub mod interest;
pub mod kind;
pub mod kinds;
pub mod networks;
mod outer;
mod own_kinds;
mod pace;
pub mod pods;
pub mod reach;
mod readiness_gate;
mod requests;
pub mod services;
pub mod slices;
mod status_patch;
pub mod status_queue;
mod status_read;
pub mod status_writer;
#[cfg(test)]
mod status_writer_tests;
mod turns;
pub mod view;
pub mod watch;
mod watch_error;
mod watches;
pub mod watching;
pub mod writer;

pub use error::ClusterError;

pub type Result<T> = std::result::Result<T, ClusterError>;
