//! The pure half of Twinspan: the nouns, their bytes, and every decision.
//!
//! - [`model`]: the nouns (instance, record, owner, slice, …).
//! - [`codec`]: bytes ↔ record, one file for each framework.
//! - [`plan`]: decisions. A planner takes the observed state and `now` as values and returns the writes, the outcome of
//!   each instance, and the time of the next look.
//!
//! Owns every rule about what is written. Refuses to do I/O, to read a clock and to draw random numbers: the same input
//! gives the same output, byte for byte.

pub mod codec;
pub mod model;
pub mod plan;

/// A point in time, always an argument: this crate cannot read a clock.
pub use jiff::Timestamp;
