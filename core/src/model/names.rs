//! Names that must not be mixed up: a service's name in Kubernetes and its name in the registry.
//!
//! Owns which registry names are safe in a key. Refuses to know the rules of single frameworks ([`crate::codec`]).

use std::fmt;

use serde::{Deserialize, Serialize};

/// A namespaced Kubernetes object: a RegisteredService or a Service.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ServiceKey {
    pub namespace: String,
    pub name: String,
}

/// A namespace and a name; cluster-scoped objects have an empty namespace.
pub type ObjectKey = ServiceKey;

impl ServiceKey {
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A service's name in the registry. It may have dots, upper case and underscores, unlike a Kubernetes name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RegistryName(String);

impl RegistryName {
    /// Longest name, in bytes.
    pub const MAX_LEN: usize = 253;

    /// # Errors
    /// The fault of the name, for the `InvalidName` condition: `/` separates keys and would put the records among
    /// another service's; registry-etcd v0.2.6 uses the name in a format string, where `%` corrupts the key.
    pub fn new(name: impl Into<String>) -> Result<Self, InvalidName> {
        let name = name.into();
        if name.is_empty() {
            Err(InvalidName::Empty)
        } else if name.len() > Self::MAX_LEN {
            Err(InvalidName::TooLong(name.len()))
        } else if let Some(bad) = name.chars().find(|c| matches!(c, '/' | '%') || !c.is_ascii_graphic()) {
            Err(InvalidName::Character(bad))
        } else {
            Ok(Self(name))
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RegistryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Matches a pattern in which `*` stands for any number of characters.
pub fn matches_wildcard(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.len() >= last.len() && rest.ends_with(last)
}

/// The reason why a text is not a registry name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    #[error("the registry name is empty")]
    Empty,
    #[error("the registry name has {0} bytes; at most {max} are allowed", max = RegistryName::MAX_LEN)]
    TooLong(usize),
    #[error("the registry name has the character {0:?}; use printable ASCII without '/' and '%'")]
    Character(char),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registry_names_are_wider_than_kubernetes_names_but_never_break_a_key() {
        for good in ["echo", "douyinec.user", "Wsp.earn_QA.int-1", "a", &"x".repeat(253)] {
            assert!(RegistryName::new(good).is_ok(), "{good}");
        }
        for (bad, error) in [
            ("", InvalidName::Empty),
            ("a/b", InvalidName::Character('/')),
            ("a%20b", InvalidName::Character('%')),
            ("a b", InvalidName::Character(' ')),
            ("a\nb", InvalidName::Character('\n')),
            ("żółć", InvalidName::Character('ż')),
        ] {
            assert_eq!(RegistryName::new(bad), Err(error), "{bad:?}");
        }
        assert_eq!(RegistryName::new("x".repeat(254)), Err(InvalidName::TooLong(254)));
    }

    #[test]
    fn wildcards_stand_for_any_characters() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("*", "anything.at-all", true),
            ("a*", "a", true),
            ("a*", "ba", false),
            ("*a", "ba", true),
            ("a*b", "ab", true),
            ("a*b", "a", false),
            ("a*a", "a", false),
            ("a*b*c", "a.b.b.c", true),
            ("a*b*c", "acb", false),
            ("exact", "exact", true),
            ("exact", "exactly", false),
            ("**", "x", true),
        ] {
            assert_eq!(matches_wildcard(pattern, text), expected, "{pattern} {text}");
        }
    }
}
