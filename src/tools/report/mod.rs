//! A support bundle: what somebody else needs to understand a fault, without secrets.
//!
//! - [`collect`]: the list of files. [`objects`]: objects of the API server. [`pods`]: logs and metrics of replicas.
//! - [`clean`]: what is removed from objects. [`scrub`]: what is removed from any text.
//! - [`archive`]: the file or directory that is written.
//!
//! Owns the promise that no secret is in it: Secrets are read to connect and to look for their values in every file,
//! and never written. Refuses to judge what it finds.

mod archive;
mod clean;
mod collect;
mod objects;
mod pods;
mod scrub;

#[cfg(test)]
mod report_tests;

use std::collections::BTreeMap;
use std::fmt;

use kube::Client;

use crate::cluster::networks::NamedNetworks;

pub use archive::{ArchiveError, write};
pub use collect::collect;

/// The question.
pub struct Request<'a> {
    pub client: Client,
    /// The URL of the API server.
    pub server: &'a str,
    pub operator_namespace: &'a str,
    pub service_account: &'a str,
    /// The networks that the operator is told by its settings, where they are known here.
    pub networks: NamedNetworks,
    /// Whether the values of tags are shown.
    pub with_values: bool,
}

impl fmt::Debug for Request<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request").field("operator_namespace", &self.operator_namespace).finish_non_exhaustive()
    }
}

/// The files by name, and what could not be collected.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bundle {
    pub files: BTreeMap<String, String>,
    pub problems: Vec<String>,
}

/// The text in the place of what was removed.
pub(super) const REMOVED: &str = "(removed)";
