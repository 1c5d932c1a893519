//! The glue between views, planners and doors.
//!
//! - [`views`]: everything that is known; [`writers`]: everything that writes to the outside.
//! - [`record_changes`]: news of own records, for those who wait.
//! - [`router`]: routes a change to the objects that must be reconciled; [`queue`]: the time at which each is.
//! - [`discovery`]: the RegisteredServices that a ServiceRegistry makes; [`discoveries`]: what it found.
//! - [`gates`]: the readiness gates of pods.
//! - [`registered_service`]: RegisteredService: observe → validate → plan → apply → status.
//! - [`service_registry`]: ServiceRegistry: sessions and their status.
//!
//! Owns the order of the steps for each kind. Refuses to decide what to write; that is in `twinspan_core::plan`.

pub mod discoveries;
pub mod discovery;
pub mod gates;
pub mod queue;
pub mod record_changes;
pub mod registered_service;
pub mod router;
pub mod service_registry;
pub mod views;
pub mod writers;

#[cfg(test)]
mod outage_tests;
#[cfg(test)]
mod queue_tests;
#[cfg(test)]
mod router_tests;
