//! Endpoints and records in the normal course of things: what one side has appears on the other.

mod cluster_side;
mod conformance;
mod export;
pub mod formats;
mod import;
mod packing;
mod self_registration;
mod sharing;

use crate::harness::stories;

stories![modules: cluster_side, conformance, export, formats, import, packing, self_registration, sharing];
