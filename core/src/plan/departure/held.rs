//! Held deletions: their set by direction, the hold's time, and the hash that an approval names.
//!
//! Owns the names of held deletions. Refuses to know the reason and the length of a hold.

use std::collections::BTreeSet;
use std::fmt::{Display, Write};

use sha2::{Digest, Sha256};

use crate::Timestamp;
use crate::model::InstanceAddr;

/// A limit was reached at `since`; the guard releases the deletions at `until`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hold {
    pub since: Timestamp,
    pub until: Timestamp,
}

/// Names a set of held deletions: 12 hexadecimal digits that follow from the sorted set.
pub fn hash<T: Display>(held: impl IntoIterator<Item = T>) -> String {
    let mut text = String::new();
    for item in held {
        // Writing to a String does not fail.
        let _ = writeln!(text, "{item}");
    }
    Sha256::digest(text).iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}

/// The held deletions of one service, by direction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeldDeletions {
    pub import: BTreeSet<InstanceAddr>,
    pub export: BTreeSet<InstanceAddr>,
}

impl HeldDeletions {
    pub fn len(&self) -> usize {
        self.import.len() + self.export.len()
    }

    pub fn is_empty(&self) -> bool {
        self.import.is_empty() && self.export.is_empty()
    }

    /// `import 10.0.0.1:80`, sorted.
    pub fn named(&self) -> BTreeSet<String> {
        let of = |verb: &'static str, set: &BTreeSet<InstanceAddr>| -> Vec<String> {
            set.iter().map(|addr| format!("{verb} {addr}")).collect()
        };
        of("import", &self.import).into_iter().chain(of("export", &self.export)).collect()
    }

    /// Names the whole set, for its approval.
    pub fn hash(&self) -> String {
        hash(self.named())
    }

    /// The part of the set that has one of these names.
    pub fn of_names(&self, names: &BTreeSet<String>) -> Self {
        let of = |verb: &str, set: &BTreeSet<InstanceAddr>| {
            set.iter().filter(|addr| names.contains(&format!("{verb} {addr}"))).copied().collect()
        };
        Self { import: of("import", &self.import), export: of("export", &self.export) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_follows_from_the_set() {
        assert_eq!(hash(["a", "b"]), hash(vec!["a", "b"]));
        assert_ne!(hash(["a", "b"]), hash(["ab"]));
        assert_eq!(hash(["a"]).len(), 12);
    }
}
