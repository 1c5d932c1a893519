//! The pure half of Twinspan: what things are, how they are written, and what to do about them.
//!
//! - [`model`]: the nouns (instance, record, owner, slice, …).
//! - [`codec`]: bytes ↔ record, one file a framework.
//! - [`plan`]: decisions. A planner takes the observed state and `now` as values and returns what to write, what was
//!   left out and why, and when to look again.
//!
//! Nothing here does I/O, reads a clock or draws a random number: the same input gives the same output, byte for byte.

pub mod codec;
pub mod model;
pub mod plan;

/// A point in time, given by whoever asks: this crate cannot read a clock.
pub use jiff::Timestamp;
