//! The tools of all stories.
//!
//! - [`suite`]: one run of all stories, with the parts that they share. [`trials`]: the names of stories.
//! - [`sandbox`]: one story's part of a cluster. [`records`]: its records. [`expect`]: reading and waiting.
//! - [`leaving`]: what each story takes with it. [`outside`]: stories with addresses of Nodes.
//! - [`bystanders`]: foreign records and slices in every sandbox, and the check that they are untouched.
//!
//! Owns the time that a story waits. Refuses to know any story.

mod bystanders;
mod expect;
mod leaving;
mod outside;
mod records;
mod sandbox;
mod suite;
mod trials;

use std::time::Duration;

pub use outside::{outside, part_name};
pub use records::{Record, record};
pub use sandbox::{LEASE_TTL, Sandbox, merge};
pub use suite::Suite;
pub(crate) use trials::{stories, story_name};

/// The binary under test.
pub const TWINSPAN: &str = env!("CARGO_BIN_EXE_twinspan");
/// The time that a story waits for a change that takes a moment on a quiet machine.
pub const SOON: Duration = Duration::from_secs(30);
