//! Bytes ↔ record.
//!
//! Owns where a format keeps its records and who dispatches to which framework's file. Refuses to judge: an odd
//! record decodes to what it says, and whether it may become an endpoint is decided elsewhere.

pub mod kitex;

use crate::model::{
    Content, HEALED_TAG, Instance, InstanceAddr, Mark, OWNER_TAG, Owner, RawRecord, Reason, Record, RecordKey,
    Registration, RegistryName, named_address,
};

/// The frameworks whose records are understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Format {
    Kitex,
}

impl Format {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Kitex => "Kitex",
        }
    }

    /// The prefix that the framework itself uses where nobody sets one.
    pub fn default_prefix(self) -> &'static str {
        match self {
            Self::Kitex => kitex::DEFAULT_PREFIX,
        }
    }
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

    /// Every record of the registry has a key that begins so, and nothing else has.
    pub fn root(&self) -> String {
        format!("{}/", self.prefix)
    }

    /// Every record of the service has a key that begins so; what the framework's own reader asks for.
    pub fn service_root(&self, name: &RegistryName) -> String {
        format!("{}{name}/", self.root())
    }

    /// The name of the service that a key belongs to, and what follows it. The name is whatever stands in the key: it may
    /// be none that a RegisteredService can have.
    pub fn split_key<'a>(&self, key: &'a RecordKey) -> Option<(&'a [u8], &'a [u8])> {
        let rest = key.as_bytes().strip_prefix(self.root().as_bytes())?;
        let slash = rest.iter().position(|b| *b == b'/')?;
        Some((&rest[..slash], &rest[slash + 1..]))
    }

    /// The key of an own record: the one that the framework's own server would use, so that a server that registers
    /// takes the record over and one that leaves removes it.
    pub fn key(&self, name: &RegistryName, addr: InstanceAddr) -> RecordKey {
        format!("{}{addr}", self.service_root(name)).into()
    }

    /// The value of an own record.
    pub fn encode(&self, instance: &Instance, owner: &Owner) -> Vec<u8> {
        let mut tags = instance.tags.clone();
        tags.insert(OWNER_TAG.to_owned(), owner.to_string());
        match self.format {
            Format::Kitex => kitex::encode(&Registration {
                network: "tcp".to_owned(),
                address: instance.addr.to_string(),
                weight: instance.weight,
                tags,
            }),
        }
    }

    /// Whether the record already says what [`Layout::encode`] would write. Decoded values are compared, never bytes: Go and
    /// Rust escape differently.
    pub fn says(&self, record: &Record, instance: &Instance, owner: &Owner) -> bool {
        match &record.content {
            Content::Registered { registration, mark: Mark::Owned(marked), .. } if marked == owner => {
                let mut tags = instance.tags.clone();
                tags.insert(OWNER_TAG.to_owned(), owner.to_string());
                registration.is_tcp()
                    && registration.address == instance.addr.to_string()
                    && registration.weight == instance.weight
                    && registration.tags == tags
            }
            _ => false,
        }
    }

    pub fn decode(&self, raw: &RawRecord) -> Record {
        let decoded = match self.format {
            Format::Kitex => kitex::decode(&raw.value),
        };
        let content = match decoded {
            Err(kitex::Undecodable(why)) => Content::Undecodable(why),
            Ok(registration) => Content::Registered {
                addr: endpoint_address(&registration, &raw.key),
                mark: mark(&registration),
                registration,
            },
        };
        Record { key: raw.key.clone(), mod_revision: raw.mod_revision, lease: raw.lease, content }
    }
}

/// The address that clients would dial, where an EndpointSlice may hold it and the key agrees with it.
fn endpoint_address(registration: &Registration, key: &RecordKey) -> Result<InstanceAddr, Reason> {
    if !registration.is_tcp() {
        return Err(Reason::NotTCP);
    }
    let addr = InstanceAddr::parse(&registration.address)?;
    // Whoever may write under one key must not speak for the address in another; a last segment that is no address
    // says nothing (real servers and people use pod names and IDs there).
    let text = key.to_string();
    let last = text.rsplit('/').next().unwrap_or_default();
    match named_address(last) {
        Some(named) if named != (addr.ip(), addr.port()) => Err(Reason::KeyValueMismatch),
        _ => Ok(addr),
    }
}

fn mark(registration: &Registration) -> Mark {
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
