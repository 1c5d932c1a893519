//! A part of the views that is not complete yet.
//!
//! Owns its words. Refuses to wait.

use std::fmt;

use serde::{Deserialize, Serialize};
use twinspan_core::model::ServiceKey;

/// A part that did not sync in time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Unsynced {
    /// A list of the cluster, without which nothing is known.
    List(String),
    /// The registry of a RegisteredService.
    Registry(ServiceKey),
    /// The names in the registry of a ServiceRegistry that discovers them.
    Names(String),
}

impl fmt::Display for Unsynced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::List(kind) => write!(f, "a list of every {kind}"),
            Self::Registry(key) => write!(f, "the registry of {key}"),
            Self::Names(registry) => write!(f, "the names in registry {registry}"),
        }
    }
}
