//! A release of Twinspan: made of one commit, pushed into a registry, and looked at there.
//!
//! - [`build`]: programs, images, chart, archives, checksums and signatures, as files of one directory. It needs no
//!   registry. [`Promise`] says what is among them.
//! - [`layout`]: what goes into a registry. [`chart`], [`image`], [`archive`]: what is in it and beside it.
//!   [`signature`]: keys and signatures as cosign has them.
//! - [`Registry`]: `push` writes the layout into a registry, and `check` reads back what was promised.
//!
//! The same commit gives the same bytes, whatever the machine: times are the commit's, and every order is fixed.
//!
//! Errors address the person who releases, so they are texts with a context (`anyhow`).

pub mod archive;
mod build;
pub mod chart;
mod check;
pub mod image;
pub mod layout;
mod promise;
mod push;
mod registry;
pub mod signature;

pub use build::{Options, build, layout as layout_of};
pub use promise::{Chart, Image, Platform, Promise};
pub use registry::Registry;

/// The version of the program, which is the workspace's.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
