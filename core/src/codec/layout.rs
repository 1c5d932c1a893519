//! Where a registry keeps its records: keys, and whose a record is.
//!
//! Owns the keys of every format and the owner marks. A record is written at the key that the framework's own server would use,
//! where that follows from the address (Kitex, Hertz), so that a server that registers takes the record over and one that leaves
//! removes it; else at a key that names its owner.

use std::collections::BTreeSet;

use super::{Format, Undecodable, gozero, grpc, kitex, kratos};
use crate::model::{
    Content, HEALED_TAG, Instance, InstanceAddr, Listener, Mark, OWNER_TAG, Owner, RawRecord, Reason, Record,
    RecordKey, Registration, RegistryName, ServiceKey, named_address,
};

/// The first part of the last segment of a key that names its owner.
const KEY_MARK: &str = "twinspan";
/// Separates the parts of such a segment; no name of a Kubernetes object and no cluster ID has it.
const KEY_SEPARATOR: char = '~';

/// A part of a registry that is listed and watched as a whole.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Range {
    /// The whole registry.
    Everything,
    /// One service.
    Service(RegistryName),
}

/// How one registry keeps its records: a format and the prefix in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    format: Format,
    prefix: String,
}

impl Layout {
    pub fn new(format: Format, prefix: impl Into<String>) -> Self {
        Self { format, prefix: prefix.into() }
    }

    pub fn format(&self) -> Format {
        self.format
    }

    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// What every key begins with, where nothing else begins so. `None` where records of all sorts of services lie beside each
    /// other at the top, and whatever else the etcd holds among them.
    pub fn root(&self) -> Option<String> {
        (!self.prefix.is_empty()).then(|| format!("{}/", self.prefix))
    }

    /// What to list and watch for these names: everything, where all keys have one beginning, else each service by itself.
    pub fn ranges<'a>(&self, names: impl IntoIterator<Item = &'a RegistryName>) -> BTreeSet<Range> {
        match self.root() {
            Some(_) => BTreeSet::from([Range::Everything]),
            None => names.into_iter().cloned().map(Range::Service).collect(),
        }
    }

    /// Every key of the range begins so.
    pub fn beginning(&self, range: &Range) -> String {
        match range {
            Range::Everything => self.root().unwrap_or_default(),
            Range::Service(name) => self.service_root(name),
        }
    }

    /// Every record of the service has a key that begins so; what the framework's own reader asks for.
    pub fn service_root(&self, name: &RegistryName) -> String {
        format!("{}{name}/", self.top())
    }

    /// Frameworks that format `prefix/name` have a slash there even where the prefix is empty (registry-etcd's deprecated
    /// constructors, Kratos); go-zero and gRPC begin with the name itself.
    fn top(&self) -> String {
        match self.format {
            Format::GoZero | Format::Grpc if self.prefix.is_empty() => String::new(),
            _ => format!("{}/", self.prefix),
        }
    }

    /// Whether both write their records among the same keys, so that each would take the other's for its own. A place inside another
    /// one is another place: see [`Layout::may_hold_ours`].
    pub fn same_place(&self, other: &Self) -> bool {
        self.top() == other.top()
    }

    /// Whether a record of ours may have this key: all of ours lie right below their service. What lies deeper, marks and all,
    /// was written by somebody whose prefix begins with ours and the name of a service.
    pub fn may_hold_ours(&self, key: &RecordKey) -> bool {
        self.split_key(key).is_some_and(|(_, rest)| !rest.contains(&b'/'))
    }

    /// The name of the service that a key belongs to, and what follows it. The name is whatever stands in the key: it may
    /// be none that a RegisteredService can have.
    pub fn split_key<'a>(&self, key: &'a RecordKey) -> Option<(&'a [u8], &'a [u8])> {
        let rest = key.as_bytes().strip_prefix(self.top().as_bytes())?;
        let slash = rest.iter().position(|b| *b == b'/')?;
        Some((&rest[..slash], &rest[slash + 1..]))
    }

    /// The key of an own record.
    pub fn key(&self, name: &RegistryName, owner: &Owner, instance: &Instance) -> RecordKey {
        let root = self.service_root(name);
        let addr = instance.addr;
        match self.format {
            Format::Kitex | Format::Hertz => format!("{root}{addr}"),
            // One record stands for all ports of an IP.
            Format::Kratos => format!("{root}{}{KEY_SEPARATOR}{}", key_owner(owner), addr.ip()),
            Format::GoZero | Format::Grpc => format!("{root}{}{KEY_SEPARATOR}{addr}", key_owner(owner)),
        }
        .into()
    }

    /// What an own record says.
    pub fn registration(&self, name: &RegistryName, owner: &Owner, instance: &Instance) -> Registration {
        let plain = Registration {
            network: "tcp".to_owned(),
            endpoints: vec![instance.addr.to_string()],
            weight: instance.weight,
            tags: instance.tags.clone(),
            ..Registration::default()
        };
        match self.format {
            Format::Kitex | Format::Hertz => marked(plain, owner),
            Format::Kratos => {
                let url = |(scheme, addr): &(String, InstanceAddr)| format!("{scheme}://{addr}");
                let key = self.key(name, owner, instance).to_string();
                let id = key.rsplit('/').next().unwrap_or_default();
                let texts = [(kratos::ID, id), (kratos::NAME, name.as_str()), (kratos::VERSION, "")];
                kratos::weighted(marked(
                    Registration {
                        endpoints: instance.endpoints.iter().map(url).collect(),
                        rest: texts.into_iter().map(|(field, text)| (field.to_owned(), text.into())).collect(),
                        ..plain
                    },
                    owner,
                ))
            }
            // There is no place for more, and the key names the owner.
            Format::GoZero | Format::Grpc => Registration { weight: 0, tags: Default::default(), ..plain },
        }
    }

    /// What a lost registration says once it is put back: what its server said, and the marks.
    pub fn healed(&self, lost: &Registration, owner: &Owner) -> Registration {
        let mut healed = marked(lost.clone(), owner);
        healed.tags.insert(HEALED_TAG.to_owned(), "true".to_owned());
        healed
    }

    pub fn encode(&self, registration: &Registration) -> Vec<u8> {
        match self.format {
            Format::Kitex | Format::Hertz => kitex::encode(registration),
            Format::Kratos => kratos::encode(registration),
            Format::GoZero => gozero::encode(registration),
            Format::Grpc => grpc::encode(registration),
        }
    }

    pub fn decode(&self, raw: &RawRecord) -> Record {
        let decoded = match self.format {
            Format::Kitex | Format::Hertz => kitex::decode(&raw.value),
            Format::Kratos => kratos::decode(&raw.value),
            Format::GoZero => Ok(gozero::decode(&raw.value)),
            Format::Grpc => grpc::decode(&raw.value),
        };
        let content = match decoded {
            Err(Undecodable(why)) => Content::Undecodable(why),
            Ok(registration) => Content::Registered {
                listeners: self.listeners(&registration, &raw.key),
                mark: self.mark(&registration, &raw.key),
                registration,
            },
        };
        Record { key: raw.key.clone(), mod_revision: raw.mod_revision, lease: raw.lease, content }
    }

    fn listeners(&self, registration: &Registration, key: &RecordKey) -> Vec<Listener> {
        let named_otherwise = self.format == Format::Kratos
            && self.split_key(key).map(|(name, _)| name) != Some(kratos::text(registration, kratos::NAME).as_bytes());
        let listener = |endpoint: &String| {
            let (scheme, text) = match self.format {
                Format::Kratos => kratos::split(endpoint),
                _ => ("", endpoint.as_str()),
            };
            let addr = match endpoint_address(registration, text, key) {
                Ok(_) if named_otherwise => Err(Reason::OtherName),
                addr => addr,
            };
            Listener { scheme: scheme.to_owned(), text: text.to_owned(), addr }
        };
        registration.endpoints.iter().map(listener).collect()
    }

    fn mark(&self, registration: &Registration, key: &RecordKey) -> Mark {
        let mark = match self.format {
            Format::Kitex | Format::Hertz | Format::Kratos => tag_mark(registration),
            Format::GoZero | Format::Grpc => key_mark(key),
        };
        match mark {
            Mark::Owned(_) | Mark::Healed(_) if !self.may_hold_ours(key) => Mark::Unreadable,
            mark => mark,
        }
    }
}

fn marked(mut registration: Registration, owner: &Owner) -> Registration {
    registration.tags.insert(OWNER_TAG.to_owned(), owner.to_string());
    registration
}

/// `twinspan~<clusterID>~<namespace>~<RegisteredService>`.
fn key_owner(owner: &Owner) -> String {
    let parts = [KEY_MARK, &owner.cluster_id, &owner.service.namespace, &owner.service.name];
    parts.join(&KEY_SEPARATOR.to_string())
}

fn key_mark(key: &RecordKey) -> Mark {
    let text = key.to_string();
    let mut parts = text.rsplit('/').next().unwrap_or_default().split(KEY_SEPARATOR);
    if parts.next() != Some(KEY_MARK) {
        return Mark::None;
    }
    match [parts.next(), parts.next(), parts.next(), parts.next(), parts.next()] {
        [Some(cluster_id), Some(namespace), Some(name), Some(_address), None]
            if ![cluster_id, namespace, name].iter().any(|part| part.is_empty()) =>
        {
            Mark::Owned(Owner { cluster_id: cluster_id.to_owned(), service: ServiceKey::new(namespace, name) })
        }
        _ => Mark::Unreadable,
    }
}

fn tag_mark(registration: &Registration) -> Mark {
    match registration.tags.get(OWNER_TAG) {
        None if registration.tags.contains_key(HEALED_TAG) => Mark::Unreadable,
        None => Mark::None,
        Some(text) => match text.parse() {
            Ok(owner) if registration.tags.contains_key(HEALED_TAG) => Mark::Healed(owner),
            Ok(owner) => Mark::Owned(owner),
            Err(_) => Mark::Unreadable,
        },
    }
}

/// The address that clients would dial, where an EndpointSlice may hold it and the key agrees with it.
fn endpoint_address(registration: &Registration, text: &str, key: &RecordKey) -> Result<InstanceAddr, Reason> {
    if !registration.is_tcp() {
        return Err(Reason::NotTCP);
    }
    let addr = InstanceAddr::parse(text)?;
    // Whoever may write under one key must not speak for the address in another; a last segment that is no address
    // says nothing (real servers and people use pod names and IDs there).
    let key = key.to_string();
    let last = key.rsplit('/').next().unwrap_or_default();
    match named_address(last) {
        Some(named) if named != (addr.ip(), addr.port()) => Err(Reason::KeyValueMismatch),
        _ => Ok(addr),
    }
}

#[cfg(test)]
#[path = "layout_tests.rs"]
mod tests;
