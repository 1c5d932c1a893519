//! The glue between views, planners and doors.
//!
//! - [`operator`]: starts and stops everything; [`onlooker`]: the same views, and no writing.
//! - [`router`]: a change → whoever must look again, by name and by [`addresses`]; [`queue`]: when each one looks.
//! - [`services`]: RegisteredService: observe → validate → plan → apply → status.
//! - [`registries`]: ServiceRegistry: sessions and their status.
//! - [`readiness`]: what `/readyz` says.
//!
//! Refuses to decide what to write; that is in `twinspan_core::plan`.

/// Releases held deletions: the hash that status names. On a RegisteredService, or on a ServiceRegistry for what the registry as a whole
/// holds.
pub const APPROVE_DELETIONS: &str = "twinspan.dev/approve-deletions";

pub mod addresses;
pub mod conditions;
pub mod context;
pub mod onlooker;
pub mod operator;
pub mod queue;
mod readiness;
pub mod registries;
pub mod router;
pub mod seen;
pub mod services;
pub mod status_budget;
