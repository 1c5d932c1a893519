//! `status.differences`: the instances that one side of a RegisteredService has and the other lacks, as people read
//! them.
//!
//! Owns the form of the list, its bounds, and the comparison of two lists. Two lists are equal if they name the same
//! instances for the same reasons: the times say only how long that has been so. The operator's own copies of objects
//! keep no entries, because ten thousand objects may have twenty each; they keep a digest, by which lists are compared.
//! Refuses to choose the instances.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Deref;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::schema;

/// The greatest number of entries.
pub const MAX_ENTRIES: usize = 20;
/// The greatest size of all entries as JSON, in bytes.
pub const MAX_BYTES: usize = 4096;

/// One instance that one side lacks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
pub struct Difference {
    /// The `ip:port`, or the key of the record where that has no address.
    #[schemars(length(max = 253))]
    pub instance: String,
    /// The side that has it.
    pub side: Side,
    /// Why, as one word: `Held` by the deletion guard, `Waiting` for more evidence, `Lost` its registration, or the
    /// reason why it is left out.
    #[schemars(length(max = 64))]
    pub reason: String,
    /// The words of the server that refuses it, where one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub message: Option<String>,
    /// Since when it has been listed with this reason.
    #[schemars(schema_with = "schema::time")]
    pub since: Time,
}

/// A side of a RegisteredService.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Side {
    /// EndpointSlices of the Service.
    Cluster,
    /// Records under the name.
    Registry,
}

impl Difference {
    /// Whether another entry is about the same instance for the same reason.
    fn continues(&self, other: &Self) -> bool {
        (&self.instance, self.side, &self.reason) == (&other.instance, other.side, &other.reason)
    }
}

/// A list of differences, or what is kept of one.
#[derive(Clone, Debug, Default)]
pub struct Differences {
    /// Empty once they were forgotten.
    entries: Vec<Difference>,
    /// Of the entries without their times; 0 without entries.
    digest: u64,
    reasons: BTreeSet<String>,
}

impl Differences {
    /// Whether the list names nothing, wherever its entries are.
    pub fn is_empty(&self) -> bool {
        self.reasons.is_empty()
    }

    /// The reasons in the list, also where its entries are forgotten.
    pub fn reasons(&self) -> &BTreeSet<String> {
        &self.reasons
    }

    /// Forgets the entries.
    pub fn forget_entries(&mut self) {
        self.entries = Vec::new();
    }

    /// Takes the times of entries that another list has too.
    pub fn keep_times(&mut self, before: &[Difference]) {
        for entry in &mut self.entries {
            if let Some(known) = before.iter().find(|known| entry.continues(known)) {
                entry.since.clone_from(&known.since);
            }
        }
    }
}

impl From<Vec<Difference>> for Differences {
    fn from(entries: Vec<Difference>) -> Self {
        let mut hasher = DefaultHasher::new();
        for Difference { instance, side, reason, message, since: _ } in &entries {
            (instance, side, reason, message).hash(&mut hasher);
        }
        let digest = if entries.is_empty() { 0 } else { hasher.finish() };
        let reasons = entries.iter().map(|entry| entry.reason.clone()).collect();
        Self { entries, digest, reasons }
    }
}

impl Deref for Differences {
    type Target = [Difference];

    fn deref(&self) -> &[Difference] {
        &self.entries
    }
}

impl PartialEq for Differences {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl Serialize for Differences {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.entries.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Differences {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vec::deserialize(deserializer).map(Self::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use twinspan_core::Timestamp;

    fn entry(instance: &str, reason: &str, since: i64) -> Difference {
        let since = Time(Timestamp::from_second(since).unwrap());
        Difference { instance: instance.into(), side: Side::Registry, reason: reason.into(), message: None, since }
    }

    #[test]
    fn a_list_is_compared_without_its_times_and_without_its_entries() {
        let list = Differences::from(vec![entry("10.0.0.1:80", "Lost", 1), entry("b", "Undecodable", 2)]);
        let mut kept = Differences::from(vec![entry("10.0.0.1:80", "Lost", 7), entry("b", "Undecodable", 9)]);
        kept.forget_entries();
        assert_eq!(list, kept);
        assert_eq!((kept.len(), kept.is_empty(), kept.reasons().len()), (0, false, 2));
        for other in [
            vec![],
            vec![entry("10.0.0.1:80", "Lost", 1)],
            vec![entry("10.0.0.1:80", "Held", 1), entry("b", "Undecodable", 2)],
            vec![entry("b", "Undecodable", 2), entry("10.0.0.1:80", "Lost", 1)],
        ] {
            assert_ne!(list, Differences::from(other));
        }
    }

    #[test]
    fn an_entry_that_goes_on_keeps_its_time() {
        let before = [entry("10.0.0.1:80", "Lost", 1), entry("b", "Undecodable", 2)];
        let mut list = Differences::from(vec![entry("10.0.0.1:80", "Held", 8), entry("b", "Undecodable", 9)]);
        list.keep_times(&before);
        let times: Vec<i64> = list.iter().map(|entry| entry.since.0.as_second()).collect();
        assert_eq!(times, [8, 2], "another reason is another difference");
    }
}
