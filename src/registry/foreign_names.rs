//! The names with foreign records: those under which a server or a person has registered something.
//!
//! Owns the number of such records of each name, and a count of the changes of the set, so that a reader looks again
//! only when a name came or went. Own and healed records, other clusters' and unreadable ones make no name. Refuses to
//! know records.

use std::collections::BTreeMap;
use std::sync::Arc;

use twinspan_core::model::RegistryName;

#[derive(Debug, Default)]
pub struct ForeignNames {
    counts: BTreeMap<Arc<str>, usize>,
    changes: u64,
}

impl ForeignNames {
    /// A foreign record was added under a name as in keys. Names that no RegisteredService can have do not count.
    pub fn add(&mut self, name: &[u8]) {
        let Some(name) = legal(name) else { return };
        if let Some(count) = self.counts.get_mut(name) {
            *count += 1;
        } else if RegistryName::new(name).is_ok() {
            self.counts.insert(name.into(), 1);
            self.changes += 1;
        }
    }

    /// One is gone.
    pub fn remove(&mut self, name: &[u8]) {
        let Some(name) = legal(name) else { return };
        let Some(count) = self.counts.get_mut(name) else { return };
        *count -= 1;
        if *count == 0 {
            self.counts.remove(name);
            self.changes += 1;
        }
    }

    /// How often the set of names changed.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// All names, sorted.
    pub fn all(&self) -> Vec<Arc<str>> {
        self.counts.keys().cloned().collect()
    }
}

fn legal(name: &[u8]) -> Option<&str> {
    std::str::from_utf8(name).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_there_as_long_as_one_of_its_records() {
        let mut names = ForeignNames::default();
        let all = |names: &ForeignNames| names.all().iter().map(ToString::to_string).collect::<Vec<_>>();
        for name in [&b"b"[..], b"a", b"a", b"a%", b"\xff"] {
            names.add(name);
        }
        assert_eq!((all(&names), names.changes()), (vec!["a".to_owned(), "b".to_owned()], 2));
        for name in [&b"a"[..], b"a%", b"\xff", b"c"] {
            names.remove(name);
        }
        assert_eq!((all(&names).len(), names.changes()), (2, 2));
        names.remove(b"a");
        assert_eq!((all(&names), names.changes()), (vec!["b".to_owned()], 3));
    }
}
