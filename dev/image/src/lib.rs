//! Container images, written without a daemon and byte for byte the same from the same input.
//!
//! - [`Root`]: the files of an image.
//! - [`Image`]: these files, how they are run, and the archive that every tool can load.
//! - [`twinspan`]: the content of Twinspan's own image; [`binary`] builds the program for it, [`sbom`] lists its parts.
//!
//! Refuses to know registries: an archive is loaded, and `dev/release` pushes images.

pub mod binary;
mod image;
mod root;
pub mod sbom;
pub mod twinspan;

pub use image::{Image, Packed, Written, digest, gzip, sha256};
pub use root::Root;

/// The root of the repository.
pub fn repository() -> &'static std::path::Path {
    std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}
