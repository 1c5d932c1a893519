//! The layout of a registry: the keys of its records.
//!
//! Owns the prefix in force, the ranges in which records lie, and the way from a key to its service. Refuses to know
//! any format: it asks a [`Framework`] for the last segment of a key and for all that a value says.

use std::collections::BTreeSet;

use super::format::Format;
use super::framework::{Framework, Undecodable};
use super::mark::marked;
use crate::model::{
    BEGINNING, Content, HEALED_TAG, Instance, InstanceAddr, Listener, MAX_VALUE, Mark, Owner, RawRecord, Reason,
    Record, RecordKey, Registration, RegistryName, named_address,
};

/// A part of a registry that is listed and watched as a whole.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Range {
    /// The whole registry.
    Everything,
    /// One service.
    Service(RegistryName),
}

/// The layout of one registry: a format, the prefix in force, and whether a slash precedes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    format: Format,
    prefix: String,
    leading_slash: bool,
}

impl Layout {
    pub fn new(format: Format, prefix: impl Into<String>) -> Self {
        Self { format, prefix: prefix.into(), leading_slash: false }
    }

    /// Puts a slash before every key; nothing changes where keys begin with one anyway.
    pub fn with_leading_slash(mut self, leading_slash: bool) -> Self {
        if leading_slash && !self.prefix.is_empty() && !self.prefix.starts_with('/') {
            self.prefix.insert(0, '/');
        }
        Self { leading_slash, ..self }
    }

    pub fn format(&self) -> Format {
        self.format
    }

    /// The prefix with which keys begin.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The start that all keys of the registry share, and no other key of the etcd. `None` where services lie at the
    /// top of the etcd, among keys of other programs.
    pub fn root(&self) -> Option<String> {
        (!self.prefix.is_empty()).then(|| format!("{}/", self.prefix))
    }

    /// The ranges in which all records of these names lie: everything where all keys share a root, else each service by
    /// itself.
    pub fn ranges<'a>(&self, names: impl IntoIterator<Item = &'a RegistryName>) -> BTreeSet<Range> {
        match self.root() {
            Some(_) => BTreeSet::from([Range::Everything]),
            None => names.into_iter().cloned().map(Range::Service).collect(),
        }
    }

    /// The start that all keys of the range share.
    pub fn key_prefix(&self, range: &Range) -> String {
        match range {
            Range::Everything => self.root().unwrap_or_default(),
            Range::Service(name) => self.service_root(name),
        }
    }

    /// The start that all keys of the service share. The framework's own clients ask etcd for it.
    pub fn service_root(&self, name: &RegistryName) -> String {
        let (prefix, slash) = self.top();
        format!("{prefix}{slash}{name}/")
    }

    /// The part of a key that precedes the name of the service: the prefix, and perhaps a slash.
    fn top(&self) -> (&str, &'static str) {
        let bare = self.prefix.is_empty() && !self.leading_slash && !self.framework().has_leading_slash();
        (&self.prefix, if bare { "" } else { "/" })
    }

    /// Whether both write their records among the same keys, so that each would take the other's for its own. A
    /// keyspace inside another one is another keyspace: see [`Layout::may_hold_ours`].
    pub fn same_keyspace(&self, other: &Self) -> bool {
        self.top() == other.top()
    }

    /// Whether a record of ours may have this key: all of ours lie right below their service, or in the directory of
    /// the format. A Twinspan whose prefix is ours plus the name of a service writes deeper, with marks of its own.
    pub fn may_hold_ours(&self, key: &RecordKey) -> bool {
        let directory = self.framework().directory().as_bytes();
        let last = self.split_key(key).and_then(|(_, below)| below.strip_prefix(directory));
        last.is_some_and(|last| !last.contains(&b'/'))
    }

    /// The name of the service that a key belongs to, and the rest of the key. Other programs may write names that no
    /// RegisteredService can have.
    pub fn split_key<'a>(&self, key: &'a RecordKey) -> Option<(&'a [u8], &'a [u8])> {
        let (prefix, slash) = self.top();
        let rest = key.as_bytes().strip_prefix(prefix.as_bytes())?.strip_prefix(slash.as_bytes())?;
        let slash = rest.iter().position(|b| *b == b'/')?;
        Some((&rest[..slash], &rest[slash + 1..]))
    }

    /// The key of an own record.
    pub fn key(&self, name: &RegistryName, owner: &Owner, instance: &Instance) -> RecordKey {
        self.keys(name, owner).of(instance)
    }

    /// The keys of an owner's records under a name.
    pub fn keys<'a>(&self, name: &RegistryName, owner: &'a Owner) -> Keys<'a> {
        let root = format!("{}{}", self.service_root(name), self.framework().directory());
        Keys { format: self.format, root, owner }
    }

    /// The registration that an own record holds.
    pub fn registration(&self, name: &RegistryName, owner: &Owner, instance: &Instance) -> Registration {
        self.framework().registration(name, owner, instance)
    }

    /// Whether a registration is the one that an own record of this instance holds.
    pub fn says(&self, name: &RegistryName, owner: &Owner, instance: &Instance, says: &Registration) -> bool {
        self.framework().says(name, owner, instance, says)
    }

    /// A lost registration that is put back: as its server wrote it, with the marks.
    pub fn healed(&self, lost: &Registration, owner: &Owner) -> Registration {
        let mut healed = marked(lost.clone(), owner);
        healed.tags.insert(HEALED_TAG.to_owned(), "true".to_owned());
        healed
    }

    pub fn encode(&self, registration: &Registration) -> Vec<u8> {
        self.framework().encode(registration)
    }

    pub fn decode(&self, raw: &RawRecord) -> Record {
        let content = match self.read(raw) {
            Err(Undecodable(why)) => Content::Undecodable { why, beginning: beginning(raw) },
            Ok(registration) => Content::Registered {
                listeners: self.listeners(&registration, &raw.key),
                mark: self.mark(&registration, &raw.key),
                registration,
            },
        };
        Record { key: raw.key.clone(), mod_revision: raw.mod_revision, lease: raw.lease, content }
    }

    /// The registration that the key and the value of a record hold together.
    fn read(&self, raw: &RawRecord) -> Result<Registration, Undecodable> {
        if raw.is_too_long() {
            return Err(Undecodable(format!("the value is longer than {MAX_VALUE} bytes and is not read")));
        }
        let mut found = self.framework().decode(&raw.value)?;
        let (_, below) = self.split_key(&raw.key).unwrap_or_default();
        if let Some(endpoints) = self.framework().key_endpoints(below)? {
            found.endpoints = endpoints;
        }
        Ok(found)
    }

    fn framework(&self) -> &'static dyn Framework {
        self.format.framework()
    }

    fn listeners(&self, registration: &Registration, key: &RecordKey) -> Vec<Listener> {
        let framework = self.framework();
        let named_otherwise = framework
            .stated_name(registration)
            .is_some_and(|stated| self.split_key(key).is_none_or(|(name, _)| name != stated.as_bytes()));
        let listener = |endpoint: &String| {
            let (scheme, text) = framework.split_endpoint(endpoint);
            let addr = match self.endpoint_address(registration, text, key) {
                Ok(_) if named_otherwise => Err(Reason::OtherName),
                addr => addr,
            };
            Listener { scheme: scheme.to_owned(), text: text.to_owned(), addr }
        };
        registration.endpoints.iter().map(listener).collect()
    }

    /// The address that clients would dial, if an EndpointSlice may hold it and the key does not name another one.
    fn endpoint_address(
        &self,
        registration: &Registration,
        text: &str,
        key: &RecordKey,
    ) -> Result<InstanceAddr, Reason> {
        if !registration.is_tcp() {
            return Err(Reason::NotTCP);
        }
        let addr = InstanceAddr::parse(text)?;
        if self.contradicts(key, addr) { Err(Reason::KeyValueMismatch) } else { Ok(addr) }
    }

    /// Whether the key names another address. Permission to write one key must not extend to the address that another
    /// key names. A last segment that is not an address proves nothing: real servers and people use pod names and IDs
    /// there. An ID that is an address tells the host alone, and one that no other host can dial, as `0.0.0.0:8000`,
    /// not even that.
    fn contradicts(&self, key: &RecordKey, addr: InstanceAddr) -> bool {
        let segment = key.last_segment();
        if self.framework().key_is_address() {
            return named_address(&segment).is_some_and(|named| named != (addr.ip(), addr.port()));
        }
        InstanceAddr::parse(&segment).is_ok_and(|named| named.ip() != addr.ip())
    }

    fn mark(&self, registration: &Registration, key: &RecordKey) -> Mark {
        match self.framework().mark(registration, key) {
            Mark::Owned(_) | Mark::Healed(_) if !self.may_hold_ours(key) => Mark::Unreadable,
            mark => mark,
        }
    }
}

/// The first bytes of the value as text; none of one that is too long, which is not kept everywhere.
fn beginning(raw: &RawRecord) -> String {
    let value = if raw.is_too_long() { &[] } else { raw.value.as_slice() };
    String::from_utf8_lossy(&value[..value.len().min(BEGINNING)]).into_owned()
}

/// The keys of one owner's records under one name.
#[derive(Debug)]
pub struct Keys<'a> {
    format: Format,
    /// The start of all of them.
    root: String,
    owner: &'a Owner,
}

impl Keys<'_> {
    pub fn of(&self, instance: &Instance) -> RecordKey {
        let segment = self.format.framework().last_segment(self.owner, instance);
        [self.root.as_str(), &segment].concat().into()
    }

    /// Whether a key is the one of an instance.
    pub fn is_of(&self, instance: &Instance, key: &RecordKey) -> bool {
        let rest = key.as_bytes().strip_prefix(self.root.as_bytes());
        rest.is_some_and(|rest| self.format.framework().is_last_segment(self.owner, instance, rest))
    }
}

#[cfg(test)]
#[path = "layout_tests.rs"]
mod tests;
