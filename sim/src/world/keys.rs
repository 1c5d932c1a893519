//! The keys of the registry.
//!
//! Owns their form: with Kitex' own prefix all records are one range, without one each name is a range of its own
//! (`docs/decisions/0018`). Refuses to know values.

use std::net::SocketAddr;

use super::{World, service_name};

/// The prefix of Kitex.
pub const PREFIX: &str = "kitex/registry-etcd";
/// The prefix of a ServiceRegistry that was moved.
pub const MOVED: &str = "moved/registry-etcd";
/// The beginnings of the names of a world without a prefix.
const NAMES: [&str; 3] = ["/echo-", "/alias-", "/other"];

impl World {
    /// The prefix of the registry.
    pub fn prefix(&self) -> &'static str {
        if self.size.bare { "" } else { PREFIX }
    }

    /// The key of an instance of a name.
    pub fn key_of(&self, name: &str, instance: &str) -> String {
        if self.size.bare { format!("/{name}/{instance}") } else { format!("{PREFIX}/{name}/{instance}") }
    }

    /// The key of an instance of a service.
    pub fn key(&self, service: usize, addr: SocketAddr) -> String {
        self.key_of(&service_name(service), &addr.to_string())
    }
}

/// The prefix of the registry that has the key.
pub fn prefix_of(key: &[u8]) -> &'static str {
    [PREFIX, MOVED].into_iter().find(|prefix| key.starts_with(prefix.as_bytes())).unwrap_or_default()
}

/// The address and the name of a key at the place to which all ServiceRegistries belong in the end.
pub fn address_of(key: &[u8]) -> Option<(SocketAddr, &str)> {
    let text = std::str::from_utf8(key).ok()?;
    let text = text.strip_prefix(PREFIX).unwrap_or(text);
    let (name, addr) = text.strip_prefix('/')?.rsplit_once('/')?;
    Some((addr.parse().ok()?, name))
}

/// True for the key of a record, and not of a fence.
pub fn is_record(key: &[u8]) -> bool {
    !prefix_of(key).is_empty() || NAMES.iter().any(|name| key.starts_with(name.as_bytes()))
}
