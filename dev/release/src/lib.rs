//! A release of Twinspan: made of one commit, pushed into a registry, and looked at there.
//!
//! - [`prepare`] asks for whatever a build may lack, and [`build`] compiles the programs and writes everything else
//!   as files of one directory, without a registry: images, chart, archives, checksums and signatures. [`Promise`]
//!   says what is among them, and [`verify`] compares the directory with it.
//! - [`layout`]: what goes into a registry. [`chart`], [`image`], [`archive`], [`manifests`]: what is in it and
//!   beside it. [`signature`]: keys and signatures as cosign has them.
//! - [`Registry`]: `prepare` asks for the right to push, `push` writes the layout into a registry, and `check` compares
//!   the two.
//!
//! The same programs give the same bytes: times are the commit's, and every order is fixed.
//!
//! Errors address the person who releases, so they are texts with a context (`anyhow`).

pub mod archive;
mod assemble;
mod build;
pub mod chart;
mod check;
pub mod image;
pub mod layout;
pub mod manifests;
mod names;
mod promise;
mod push;
mod registry;
pub mod signature;
mod verify;

pub use assemble::{assemble, layout as layout_of};
pub use build::{Options, build, prepare};
pub use promise::{Chart, Image, Platform, Promise};
pub use registry::Registry;
pub use verify::verify;

/// The version of the program, which is the workspace's.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
