//! A record: one key and value in the registry, and its writer.
//!
//! Owns the words own, healed and foreign. Refuses to know the encoding of a value ([`crate::codec`]) and to decide
//! about a record ([`crate::plan`]).

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use crate::model::{InstanceAddr, Owner, Reason, Tags, named_address};

/// A revision of etcd, from `mod_revision`s and response headers. Grows by one with each transaction that writes.
pub type Revision = i64;

/// An etcd lease ID. 0 means no lease.
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

/// A registry key. It is bytes: other programs may write keys that are not UTF-8. Displayed lossily. Clones share them,
/// because each record's key is in several indexes and in each snapshot.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RecordKey(Arc<[u8]>);

impl RecordKey {
    pub fn new(bytes: impl Into<Arc<[u8]>>) -> Self {
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

/// The longest value that is read, in bytes. A writer of one key must not fill our memory with it. A record of
/// a framework has a few hundred bytes.
pub const MAX_VALUE: usize = 64 * 1024;

/// The value of a record whose own value is too long to be kept. No format decodes it.
const OMITTED: &[u8] = b"\xfftwinspan.dev: value omitted";

/// A record as etcd returns it, but for a value above [`MAX_VALUE`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawRecord {
    pub key: RecordKey,
    pub value: Vec<u8>,
    pub mod_revision: Revision,
    pub lease: LeaseId,
}

impl RawRecord {
    /// A record whose value is too long to be kept: its key is taken, and it decodes to nothing.
    pub fn without_value(key: RecordKey, mod_revision: Revision, lease: LeaseId) -> Self {
        Self { key, value: OMITTED.to_vec(), mod_revision, lease }
    }

    /// True if the value is too long, and is or was not kept.
    pub fn is_too_long(&self) -> bool {
        self.value.len() > MAX_VALUE || self.value == OMITTED
    }
}

/// The content of a framework's record, before a planner judges it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Registration {
    /// `tcp`, `tcp4`, `tcp6`, `unix`, or any text that a program wrote. Always `tcp` in formats without a network.
    pub network: String,
    /// The addresses as text; often odd, see `model::address`. Kratos has a `scheme://host:port` for each protocol,
    /// GoFrame an address for each interface of the server; the others have one address.
    pub endpoints: Vec<String>,
    /// As written, 0 and less included.
    pub weight: i64,
    pub tags: Tags,
    /// The other fields of the value: those that no reader of the framework looks at, and those that only one format
    /// has. Kept, so that a registration that is put back equals the one that its server wrote.
    pub rest: BTreeMap<String, serde_json::Value>,
}

impl Registration {
    /// Whether clients reach the server over TCP (netpoll and Go's `net.Dial` know these three).
    pub fn is_tcp(&self) -> bool {
        matches!(self.network.as_str(), "tcp" | "tcp4" | "tcp6")
    }
}

/// Twinspan's marks on a registration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mark {
    /// None: a server or a person wrote it.
    None,
    /// Exported by the cluster that the owner names.
    Owned(Arc<Owner>),
    /// Put back for a server that lost its registration, by the cluster that the owner names.
    Healed(Arc<Owner>),
    /// An owner mark that does not parse, or one at a key where it does not belong: some Twinspan wrote it, but its
    /// cluster is unknown.
    Unreadable,
}

/// One of the addresses of a registration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// `grpc`, `https` and the like; empty in formats without schemes.
    pub scheme: String,
    /// The address that clients would dial, as text.
    pub text: String,
    /// The address that an endpoint would have, or why it can have none. A value that contradicts the address in its
    /// key's last segment is refused here too.
    pub addr: Result<InstanceAddr, Reason>,
}

/// Bytes that are kept of a value that cannot be parsed.
pub const BEGINNING: usize = 80;

/// The decoded value of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    Registered {
        registration: Registration,
        mark: Mark,
        /// In the order of `registration.endpoints`.
        listeners: Vec<Listener>,
    },
    /// Kept, counted and never touched.
    Undecodable {
        /// The reason, for people.
        why: String,
        /// The first bytes of the value, at most [`BEGINNING`], for people.
        beginning: String,
    },
}

/// A record as Twinspan understands it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub key: RecordKey,
    pub mod_revision: Revision,
    pub lease: LeaseId,
    pub content: Content,
}

/// The write that a record is from. etcd counts its revisions again after it was emptied or restored: a later record
/// may have the revision of a former one, and then hardly the lease, whose ID is random.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    mod_revision: Revision,
    lease: LeaseId,
}

impl Record {
    pub fn written(&self) -> Written {
        Written { mod_revision: self.mod_revision, lease: self.lease }
    }
}

/// Records by key.
pub type Records = BTreeMap<RecordKey, Arc<Record>>;

/// The writer of a record, seen from one cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind<'a> {
    /// Exported by this cluster.
    Own(&'a Owner),
    /// Exported by another cluster's Twinspan.
    OtherCluster,
    /// A lost registration that this or another cluster's Twinspan put back.
    Healed(&'a Owner),
    /// Any other record that decodes.
    Foreign,
    Undecodable,
}

#[cfg(test)]
thread_local! {
    /// The work of plans: how often one looked at the addresses of a record.
    pub static LOOKS: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
    /// The same for its writer.
    pub static LOOKS_AT_WRITERS: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

impl Record {
    pub fn kind(&self, cluster_id: &str) -> Kind<'_> {
        #[cfg(test)]
        LOOKS_AT_WRITERS.set(LOOKS_AT_WRITERS.get() + 1);
        match &self.content {
            Content::Undecodable { .. } => Kind::Undecodable,
            Content::Registered { mark, .. } => match mark {
                Mark::None => Kind::Foreign,
                Mark::Owned(owner) if owner.cluster_id == cluster_id => Kind::Own(owner),
                Mark::Owned(_) | Mark::Unreadable => Kind::OtherCluster,
                Mark::Healed(owner) => Kind::Healed(owner),
            },
        }
    }

    /// The owner, if this cluster exported the record.
    pub fn own(&self, cluster_id: &str) -> Option<&Owner> {
        match self.kind(cluster_id) {
            Kind::Own(owner) => Some(owner),
            _ => None,
        }
    }

    /// The owner, if this cluster wrote the record: exported it, or put it back for its server.
    pub fn ours(&self, cluster_id: &str) -> Option<&Arc<Owner>> {
        #[cfg(test)]
        LOOKS_AT_WRITERS.set(LOOKS_AT_WRITERS.get() + 1);
        match &self.content {
            Content::Registered { mark: Mark::Owned(owner) | Mark::Healed(owner), .. } => {
                Some(owner).filter(|owner| owner.cluster_id == cluster_id)
            }
            Content::Registered { .. } | Content::Undecodable { .. } => None,
        }
    }

    /// Shares the owner with other records of the same one.
    pub fn share_owner(&mut self, shared: &Arc<Owner>) {
        if let Content::Registered { mark: Mark::Owned(owner) | Mark::Healed(owner), .. } = &mut self.content
            && owner == shared
        {
            *owner = shared.clone();
        }
    }

    /// The ID of the cluster that exported the record, as its mark says.
    pub fn exporter(&self) -> Option<&str> {
        match &self.content {
            Content::Registered { mark: Mark::Owned(owner), .. } => Some(&owner.cluster_id),
            Content::Registered { .. } | Content::Undecodable { .. } => None,
        }
    }

    /// The addresses of the registration; empty if the value does not decode.
    pub fn listeners(&self) -> &[Listener] {
        match &self.content {
            Content::Registered { listeners, .. } => listeners,
            Content::Undecodable { .. } => &[],
        }
    }

    /// The addresses of the record that an EndpointSlice may hold.
    pub fn endpoint_addresses(&self) -> impl Iterator<Item = InstanceAddr> {
        #[cfg(test)]
        LOOKS.set(LOOKS.get() + 1);
        self.listeners().iter().filter_map(|listener| listener.addr.ok())
    }

    /// The addresses that clients dial, in any form, also those that no EndpointSlice may hold.
    pub fn client_addresses(&self) -> impl Iterator<Item = (IpAddr, u16)> {
        self.tcp_listeners().iter().filter_map(|listener| named_address(&listener.text))
    }

    /// The addresses of a registration that clients reach over TCP.
    pub fn tcp_listeners(&self) -> &[Listener] {
        match &self.content {
            Content::Registered { registration, listeners, .. } if registration.is_tcp() => listeners,
            _ => &[],
        }
    }
}
