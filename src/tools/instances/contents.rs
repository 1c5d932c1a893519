//! The contents of one registry, read once: page by page, at one revision.
//!
//! Owns the choice of the ranges and the bound on records (`docs/decisions/0018` and `0039`): a registry without a
//! prefix of its own has other programs' keys beside it, and of a large one only single names are read. Refuses to
//! retry.

use std::collections::{BTreeMap, BTreeSet};

use twinspan_core::codec::{Layout, Range};
use twinspan_core::model::{RawRecord, RecordKey, RegistryName, Revision};

use super::instance::Instance;
use crate::registry::handle::Identity;
use crate::registry::{Registry, Result};

/// Records of one registry that are read at most.
pub const MOST_RECORDS: usize = 100_000;

/// The names that somebody wants to see.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Names of RegisteredServices, or those that a person named.
    pub names: BTreeSet<RegistryName>,
    /// Nothing but these names.
    pub only: bool,
}

/// The instances of one record, by its key.
pub type Records = BTreeMap<RecordKey, (String, Vec<Instance>)>;

/// The records of a registry at one revision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    pub records: Records,
    /// The key prefixes that were read.
    pub key_prefixes: Vec<String>,
    pub revision: Revision,
    /// The reason why not every name was read.
    pub partial: Option<String>,
}

impl Contents {
    /// # Errors
    /// The registry's.
    pub async fn read(registry: &dyn Registry, identity: &Identity, wanted: &Wanted) -> Result<Self> {
        let (ranges, mut partial) = ranges(registry, &identity.layout, wanted).await?;
        let key_prefixes: Vec<String> = ranges.iter().map(|range| identity.layout.key_prefix(range)).collect();
        let Some(first) = key_prefixes.first() else { return Ok(Self { partial, ..Self::default() }) };
        // A read of any key tells the revision; this one lies in a range that has to be readable anyway.
        let revision = registry.read(&[RecordKey::from(first.as_str())]).await?.revision;
        let mut records = Records::new();
        'ranges: for key_prefix in &key_prefixes {
            let mut pages = registry.pages(key_prefix, revision);
            while let Some(page) = pages.next_page().await? {
                records.extend(page.iter().map(|raw| entry(identity, raw)));
                if records.len() >= MOST_RECORDS {
                    partial = Some(format!("only {} records were read; name a service", records.len()));
                    break 'ranges;
                }
            }
        }
        Ok(Self { records, key_prefixes, revision, partial })
    }

    /// The instances by the name of their service, sorted.
    pub fn by_name(&self) -> BTreeMap<&str, Vec<&Instance>> {
        let mut names: BTreeMap<&str, Vec<&Instance>> = BTreeMap::new();
        for (name, instances) in self.records.values() {
            names.entry(name).or_default().extend(instances);
        }
        names
    }
}

/// The key of a record, the name of its service, and its instances.
pub fn entry(identity: &Identity, raw: &RawRecord) -> (RecordKey, (String, Vec<Instance>)) {
    let name = identity.layout.split_key(&raw.key).map(|(name, _)| String::from_utf8_lossy(name).into_owned());
    // A key right below the prefix belongs to no service.
    let name = name.unwrap_or_else(|| raw.key.last_segment().into_owned());
    (raw.key.clone(), (name, Instance::of(&identity.layout.decode(raw), &identity.cluster_id)))
}

/// The ranges to read, and the reason why they are not the whole registry.
async fn ranges(
    registry: &dyn Registry,
    layout: &Layout,
    wanted: &Wanted,
) -> Result<(BTreeSet<Range>, Option<String>)> {
    let names = || wanted.names.iter().cloned().map(Range::Service).collect();
    if wanted.only {
        return Ok((names(), None));
    }
    let Some(root) = layout.root() else {
        let why = "it has no prefix, so only the names of RegisteredServices were read; name a service to see another";
        return Ok((names(), Some(why.to_owned())));
    };
    let records = registry.count(&root).await?;
    if records > MOST_RECORDS {
        let why = format!(
            "it has {records} records, so only the names of RegisteredServices were read; name a service to see another"
        );
        return Ok((names(), Some(why)));
    }
    Ok((BTreeSet::from([Range::Everything]), None))
}

#[cfg(test)]
mod tests {
    use twinspan_core::codec::Format;
    use twinspan_core::model::LeaseId;

    use super::*;
    use crate::registry::Connector;
    use crate::registry::testing::FakeEtcd;

    fn identity(layout: Layout) -> Identity {
        let (uid, cluster_id) = ("uid".to_owned(), "ours".to_owned());
        Identity { uid, cluster_id, layout, ttl_seconds: 60, fence_prefix: None }
    }

    fn value(address: &str) -> String {
        format!(r#"{{"network":"tcp","address":"{address}","weight":10,"tags":null}}"#)
    }

    async fn names(etcd: &FakeEtcd, layout: Layout, wanted: &Wanted) -> (Vec<(String, usize)>, bool) {
        let registry = etcd.connect().await.unwrap();
        let contents = Contents::read(registry.as_ref(), &identity(layout), wanted).await.unwrap();
        let names = contents.by_name().into_iter().map(|(name, all)| (name.to_owned(), all.len())).collect();
        (names, contents.partial.is_some())
    }

    fn counted(all: &[(&str, usize)]) -> Vec<(String, usize)> {
        all.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
    }

    #[tokio::test]
    async fn every_name_below_a_prefix_is_read_and_without_one_only_the_names_that_are_wanted() {
        let etcd = FakeEtcd::new();
        for (key, address) in [("a", "10.0.0.1:1"), ("a", "10.0.0.2:1"), ("b.c", "10.0.0.3:1")] {
            etcd.put(&format!("p/{key}/{address}"), &value(address), LeaseId::NONE);
            etcd.put(&format!("/{key}/{address}"), &value(address), LeaseId::NONE);
        }
        etcd.put("p/a/odd", "{", LeaseId::NONE);
        etcd.put("other/a/10.0.0.9:1", &value("10.0.0.9:1"), LeaseId::NONE);
        let b = BTreeSet::from([RegistryName::new("b.c").unwrap()]);
        let of = |only| Wanted { names: b.clone(), only };
        let kitex = || Layout::new(Format::Kitex, "p");
        assert_eq!(names(&etcd, kitex(), &of(false)).await, (counted(&[("a", 3), ("b.c", 1)]), false));
        assert_eq!(names(&etcd, kitex(), &of(true)).await, (counted(&[("b.c", 1)]), false));
        let bare = || Layout::new(Format::Kitex, "");
        assert_eq!(names(&etcd, bare(), &of(false)).await, (counted(&[("b.c", 1)]), true));
        assert_eq!(names(&etcd, bare(), &Wanted::default()).await, (vec![], true));
        let slash = Layout::new(Format::Kitex, "p").with_leading_slash(true);
        assert_eq!(names(&etcd, slash, &of(false)).await, (vec![], false), "its keys begin with /p/");
    }
}
