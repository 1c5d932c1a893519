//! The owner mark: which RegisteredService of which cluster exported a record.
//!
//! Owns the words that Twinspan writes into registrations: the owner's name and the tags. The record itself carries the
//! mark, so a restart forgets nothing, and two clusters on one registry never touch each other's records. Refuses to
//! know where a format puts the mark ([`crate::codec`]).

use std::fmt;
use std::str::FromStr;

use crate::model::ServiceKey;

/// The prefix of Twinspan's own tags; a RegisteredService may not set them.
pub const TAG_PREFIX: &str = "twinspan.dev/";
/// The tag of every own record. Its value is an [`Owner`].
pub const OWNER_TAG: &str = "twinspan.dev/owner";
/// The tag of a registration that Twinspan put back for its server.
pub const HEALED_TAG: &str = "twinspan.dev/healed";

/// Displayed as `<clusterID>/<namespace>/<RegisteredService>`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Owner {
    pub cluster_id: String,
    pub service: ServiceKey,
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Each write of a record formats it.
        for part in [&self.cluster_id, "/", &self.service.namespace, "/", &self.service.name] {
            f.write_str(part)?;
        }
        Ok(())
    }
}

impl Owner {
    /// Whether the text is this mark.
    pub fn is_written(&self, text: &str) -> bool {
        let Self { cluster_id, service: ServiceKey { namespace, name } } = self;
        let rest = text.strip_prefix(cluster_id.as_str()).and_then(|rest| rest.strip_prefix('/'));
        let rest = rest.and_then(|rest| rest.strip_prefix(namespace.as_str())).and_then(|rest| rest.strip_prefix('/'));
        rest == Some(name.as_str())
    }
}

/// The text is not an owner mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an owner mark: want <clusterID>/<namespace>/<RegisteredService>")]
pub struct NotAnOwner;

impl FromStr for Owner {
    type Err = NotAnOwner;

    fn from_str(text: &str) -> Result<Self, NotAnOwner> {
        let mut parts = text.split('/');
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(cluster_id), Some(namespace), Some(name), None)
                if !cluster_id.is_empty() && !namespace.is_empty() && !name.is_empty() =>
            {
                Ok(Self { cluster_id: cluster_id.to_owned(), service: ServiceKey::new(namespace, name) })
            }
            _ => Err(NotAnOwner),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_round_trips() {
        let owner = Owner { cluster_id: "c-1".into(), service: ServiceKey::new("shop", "echo") };
        assert_eq!(owner.to_string(), "c-1/shop/echo");
        assert_eq!("c-1/shop/echo".parse(), Ok(owner));
    }

    #[test]
    fn anything_else_is_nobody() {
        for text in ["", "c", "c/shop", "c/shop/echo/x", "//", "/shop/echo", "c//echo", "c/shop/"] {
            assert_eq!(text.parse::<Owner>(), Err(NotAnOwner), "{text}");
        }
    }
}
