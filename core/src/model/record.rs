//! A record: one key and value in the registry, and whose it is.
//!
//! Owns the words own, healed and foreign. Refuses to know how a value is encoded ([`crate::codec`]) and what to do about a
//! record ([`crate::plan`]).

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use crate::model::{InstanceAddr, Owner, Reason, Tags, named_address};

/// A revision of the registry, from its `mod_revision`s and response headers. Grows by one with each transaction.
pub type Revision = i64;

/// An etcd lease ID. 0 is no lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LeaseId(pub i64);

impl LeaseId {
    pub const NONE: Self = Self(0);
}

impl fmt::Display for LeaseId {
    /// Hexadecimal, as etcdctl shows it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

/// A registry key. It is bytes: other programs may write what is no UTF-8. Displayed lossily.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RecordKey(Box<[u8]>);

impl RecordKey {
    pub fn new(bytes: impl Into<Box<[u8]>>) -> Self {
        Self(bytes.into())
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The part after the last slash, lossily.
    pub fn last_segment(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(self.0.rsplit(|byte| *byte == b'/').next().unwrap_or_default())
    }
}

impl From<&str> for RecordKey {
    fn from(text: &str) -> Self {
        Self(text.as_bytes().into())
    }
}

impl From<String> for RecordKey {
    fn from(text: String) -> Self {
        Self(text.into_bytes().into())
    }
}

impl fmt::Display for RecordKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

impl fmt::Debug for RecordKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(&self.0))
    }
}

/// A record as the registry returns it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawRecord {
    pub key: RecordKey,
    pub value: Vec<u8>,
    pub mod_revision: Revision,
    pub lease: LeaseId,
}

/// What a framework's registration says, before anybody judges it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Registration {
    /// `tcp`, `tcp4`, `tcp6`, `unix`, or whatever a program wrote. Always `tcp` where a format does not say.
    pub network: String,
    /// The addresses as text; often odd, see `model::address`. One, but for Kratos: there a `scheme://host:port` for each protocol.
    pub endpoints: Vec<String>,
    /// As written, 0 and less included.
    pub weight: i64,
    pub tags: Tags,
    /// What else the value says, by field: what its server wrote and no reader of its framework looks at, and what only one
    /// format has. Kept apart, so that a registration that is put back says what its server said.
    pub rest: BTreeMap<String, serde_json::Value>,
}

impl Registration {
    /// Whether clients reach it over TCP (netpoll and Go's `net.Dial` know these three).
    pub fn is_tcp(&self) -> bool {
        matches!(self.network.as_str(), "tcp" | "tcp4" | "tcp6")
    }
}

/// Twinspan's marks on a registration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mark {
    /// A self-registered server, or a person.
    None,
    /// Exported by the Twinspan that the owner names.
    Owned(Owner),
    /// Put back for a server that lost its registration, by the Twinspan that the owner names.
    Healed(Owner),
    /// An owner tag that does not parse, or one at a key where it does not belong: some Twinspan's, but not one that we can name.
    Unreadable,
}

/// One of the addresses of a registration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// `grpc`, `https` and the like; empty where the format has no schemes.
    pub scheme: String,
    /// The address that clients would dial, as text.
    pub text: String,
    /// The address that an endpoint would have, or why it can have none. A key whose last segment is an address that
    /// the value contradicts is refused here too.
    pub addr: Result<InstanceAddr, Reason>,
}

/// What a record holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    Registered {
        registration: Registration,
        mark: Mark,
        /// In the order of `registration.endpoints`; exactly one, but for Kratos.
        listeners: Vec<Listener>,
    },
    /// Kept, counted and never touched; the text is for people.
    Undecodable(String),
}

/// A record as Twinspan understands it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub key: RecordKey,
    pub mod_revision: Revision,
    pub lease: LeaseId,
    pub content: Content,
}

/// Whose a record is, seen from one cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind<'a> {
    /// Exported by this cluster.
    Own(&'a Owner),
    /// Exported by another cluster's Twinspan.
    OtherCluster,
    /// A lost registration that some Twinspan put back.
    Healed(&'a Owner),
    /// Anything else that decodes.
    Foreign,
    Undecodable,
}

impl Record {
    pub fn kind(&self, cluster_id: &str) -> Kind<'_> {
        match &self.content {
            Content::Undecodable(_) => Kind::Undecodable,
            Content::Registered { mark, .. } => match mark {
                Mark::None => Kind::Foreign,
                Mark::Owned(owner) if owner.cluster_id == cluster_id => Kind::Own(owner),
                Mark::Owned(_) | Mark::Unreadable => Kind::OtherCluster,
                Mark::Healed(owner) => Kind::Healed(owner),
            },
        }
    }

    /// The owner, where this cluster exported the record.
    pub fn own(&self, cluster_id: &str) -> Option<&Owner> {
        match self.kind(cluster_id) {
            Kind::Own(owner) => Some(owner),
            _ => None,
        }
    }

    /// The owner, where this cluster wrote the record: exported it, or put it back for its server.
    pub fn ours(&self, cluster_id: &str) -> Option<&Owner> {
        match self.kind(cluster_id) {
            Kind::Own(owner) => Some(owner),
            Kind::Healed(owner) if owner.cluster_id == cluster_id => Some(owner),
            _ => None,
        }
    }

    /// Where it listens; nothing where it does not decode.
    pub fn listeners(&self) -> &[Listener] {
        match &self.content {
            Content::Registered { listeners, .. } => listeners,
            Content::Undecodable(_) => &[],
        }
    }

    /// The addresses of the record that an endpoint may have.
    pub fn addrs(&self) -> impl Iterator<Item = InstanceAddr> {
        self.listeners().iter().filter_map(|listener| listener.addr.ok())
    }

    /// The addresses that a client would dial, whatever their forms: also those that no endpoint may have.
    pub fn dialled(&self) -> impl Iterator<Item = (IpAddr, u16)> {
        self.tcp_listeners().iter().filter_map(|listener| named_address(&listener.text))
    }

    /// What a client that looks for a scheme would dial: it takes the first address that has it.
    pub fn dialled_for(&self, scheme: &str) -> Option<(IpAddr, u16)> {
        let first = self.tcp_listeners().iter().find(|listener| listener.scheme == scheme)?;
        named_address(&first.text)
    }

    fn tcp_listeners(&self) -> &[Listener] {
        match &self.content {
            Content::Registered { registration, listeners, .. } if registration.is_tcp() => listeners,
            _ => &[],
        }
    }
}
