//! The settings of a connection to etcd.
//!
//! Owns what a log may show of them: never a key or a password. Refuses to know how a connection is made
//! ([`super::connect`]).

use std::fmt;
use std::time::Duration;

/// The deadline of a connection: the lookup of the name, TCP and TLS together.
pub(super) const CONNECT: Duration = Duration::from_secs(3);

/// Everything that a connection needs, Secrets included.
#[derive(Clone, PartialEq, Eq)]
pub struct Settings {
    /// Client URLs; at least one.
    pub endpoints: Vec<String>,
    pub tls: Option<TlsSettings>,
    /// Name and password.
    pub user: Option<(String, String)>,
}

/// PEM material.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct TlsSettings {
    /// `None` means the system's certificate authorities.
    pub ca: Option<Vec<u8>>,
    /// Certificate and key.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
    pub server_name: Option<String>,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the key or the password.
        f.debug_struct("Settings").field("endpoints", &self.endpoints).finish_non_exhaustive()
    }
}

impl fmt::Debug for TlsSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsSettings").field("server_name", &self.server_name).finish_non_exhaustive()
    }
}
