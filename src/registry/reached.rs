//! How far the watch has told each range of a view.
//!
//! Owns the newest revision up to which a name's events are known. Refuses to know records: [`super::view`] compares
//! answers with it.

use std::collections::BTreeMap;

use twinspan_core::model::Revision;

/// Of one session.
#[derive(Debug, Default)]
pub struct Reached {
    /// Of every range.
    all: Revision,
    by_name: BTreeMap<Box<[u8]>, Revision>,
}

impl Reached {
    /// All events up to the revision are known, of every name.
    pub fn set_all(&mut self, revision: Revision) {
        self.all = self.all.max(revision);
    }

    /// The same of one name.
    pub fn set(&mut self, name: &[u8], revision: Revision) {
        match self.by_name.get_mut(name) {
            Some(known) => *known = revision.max(*known),
            None => drop(self.by_name.insert(name.into(), revision)),
        }
    }

    pub fn forget(&mut self, name: &[u8]) {
        self.by_name.remove(name);
    }

    pub fn of(&self, name: &[u8]) -> Revision {
        self.by_name.get(name).copied().unwrap_or_default().max(self.all)
    }
}
