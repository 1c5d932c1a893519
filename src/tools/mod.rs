//! What people ask from outside of the operator, through clients of their own; an operator need not run.
//!
//! - [`reach`]: a ServiceRegistry and what it takes to connect to it, read once.
//! - [`parity`]: what each side sees of a service, side by side.
//! - [`doctor`]: whether a cluster and its registries are fit for a bridge.

pub mod doctor;
pub mod parity;
pub mod reach;
