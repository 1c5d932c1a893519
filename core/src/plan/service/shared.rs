//! The addresses and records that several RegisteredServices want, as one of them sees them.
//!
//! Owns the nouns. Refuses to know who has what: [`super::siblings`] weighs it.

use std::collections::{BTreeMap, BTreeSet};

use super::RegistryFacts;
use super::checkpoint::Place;
use crate::model::{InstanceAddr, RecordKey};
use crate::plan::export::ContestedExport;
use crate::plan::import::ContestedImport;

/// The addresses and records that siblings want too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Siblings {
    pub(super) by_place: BTreeMap<Place, Shared>,
    /// Addresses that siblings import into the same Service.
    pub contested_imports: BTreeMap<InstanceAddr, ContestedImport>,
}

/// The addresses and records of one place that siblings want too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shared {
    /// Addresses that siblings want to export under the same name.
    pub contested: BTreeMap<InstanceAddr, ContestedExport>,
    /// Records of ours that a sibling adopts.
    pub to_release: BTreeSet<RecordKey>,
    /// Healed records of others that we adopt.
    pub to_adopt: BTreeSet<RecordKey>,
}

impl Siblings {
    /// The part that concerns one place.
    pub fn of(&self, registry: &RegistryFacts) -> &Shared {
        static NONE: Shared =
            Shared { contested: BTreeMap::new(), to_release: BTreeSet::new(), to_adopt: BTreeSet::new() };
        self.by_place.get(&registry.place()).unwrap_or(&NONE)
    }
}
