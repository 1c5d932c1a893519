//! Everything that a plan of discovery rests on, as values.
//!
//! Owns the fields, and the form of an object that discovery makes. Refuses to decide, and to know the API machinery.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::SignedDuration;

use super::names::Template;
use crate::model::{RegistryName, Selector, ServiceKey, ServiceView};

/// A written object shows in the view by then.
pub const SHOWN: SignedDuration = SignedDuration::from_secs(5);
/// How long the ServiceRegistry to which an object refers leaves it to the one that its label names.
pub const CONTESTED: SignedDuration = SignedDuration::from_secs(60);

/// `spec.discovery` of a ServiceRegistry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Whether anything may be written.
    pub writes: bool,
    pub export: Option<ExportSettings>,
    pub import: Option<ImportSettings>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportSettings {
    pub namespaces: Selector,
    /// `None` selects only what is annotated.
    pub services: Option<Selector>,
    pub template: Template,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportSettings {
    /// The namespace of the objects.
    pub namespace: String,
    /// Patterns of names.
    pub include: Vec<String>,
    /// Patterns of names that win.
    pub exclude: Vec<String>,
    pub template: Template,
    /// The most objects.
    pub most: usize,
}

/// A namespace, reduced to what discovery reads.
#[derive(Clone, Copy, Debug)]
pub struct Namespace<'a> {
    pub labels: &'a BTreeMap<String, String>,
    /// The annotation [`EXPORT_ANNOTATION`](crate::model::EXPORT_ANNOTATION).
    pub export: Option<&'a str>,
    pub deleting: bool,
}

/// The names with foreign records in the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Names {
    /// No complete list is known now.
    Unknown,
    /// Only the names that RegisteredServices have are followed, because the registry has too many records.
    TooMany,
    Complete {
        /// Sorted.
        foreign: Vec<Arc<str>>,
        /// Tells the life of the registry to which the names belong: an absence counts within one alone.
        basis: String,
    },
}

/// A RegisteredService that discovery wants.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Wanted {
    pub key: ServiceKey,
    pub registry_name: RegistryName,
    pub kind: Wants,
}

/// The direction of a wanted RegisteredService, and what only that one has.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Wants {
    Export {
        /// UID of the Service, which owns it.
        service_uid: String,
        /// The name of the port, where one has to be named.
        port: Option<String>,
        weight: Option<u32>,
    },
    /// The Service is made with it.
    Import,
}

impl Wanted {
    pub fn imports(&self) -> bool {
        self.kind == Wants::Import
    }
}

/// The origin of a RegisteredService.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A person wrote it.
    Written,
    /// The discovery of this ServiceRegistry made it.
    Ours,
    /// The label names this ServiceRegistry, and the object refers to another one that there is.
    Moved,
    /// The object refers to this ServiceRegistry, and its label names another one that there is.
    Relabelled,
    /// The discovery of a ServiceRegistry that is gone made it, and it refers to this one's name.
    Orphan,
    /// The discovery of another one made it, or of one that is gone, and it refers to no name of this one.
    Others,
}

impl Origin {
    /// Whether the discovery of this ServiceRegistry looks after the object.
    pub fn is_discovered(self) -> bool {
        matches!(self, Self::Ours | Self::Moved | Self::Relabelled | Self::Orphan)
    }
}

/// A RegisteredService, reduced to what discovery reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    pub uid: String,
    /// The resourceVersion.
    pub version: String,
    pub origin: Origin,
    /// Whether it refers to this ServiceRegistry.
    pub refers: bool,
    /// The Service that it stands for.
    pub service: ServiceKey,
    pub registry_name: String,
    pub exports: bool,
    pub imports: bool,
    /// The UID of the Service that owns it.
    pub owner: Option<String>,
    /// The wanted object that would be made exactly as this one is.
    pub made_as: Option<Wanted>,
    pub carries: Carries,
    /// The reason why it lacks something that its spec asks for, in each direction.
    pub lags: Lags,
    /// Whether its status says that the ServiceRegistry does not grant it: then it writes nothing.
    pub denied: bool,
    pub deleting: bool,
    /// Whether this version cannot read all of it.
    pub unreadable: bool,
}

impl Object {
    /// Whether the discovery of this ServiceRegistry looks after it.
    pub fn is_discovered(&self) -> bool {
        self.origin.is_discovered()
    }

    /// Whether an edit of its reference or its label left the object with two ServiceRegistries.
    pub fn is_contested(&self) -> bool {
        matches!(self.origin, Origin::Moved | Origin::Relabelled)
    }

    /// Whether it is one of a name. A Service that owns it by an edit makes no export of it.
    pub fn is_import(&self) -> bool {
        self.owner.is_none() || (self.imports && !self.exports)
    }

    /// Whether it writes nothing, and leaves nothing behind.
    pub fn is_idle(&self) -> bool {
        self.denied && self.carries.is_empty()
    }
}

/// The reason why a RegisteredService lacks something that its spec asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lag {
    /// `spec.suspend` is set.
    Suspended,
    /// The policy is Observe.
    Observes,
    /// The spec is not accepted.
    Rejected,
    /// No status is about the spec in force.
    Unseen,
    /// The direction is not in sync yet.
    Pending,
    /// Instances of it wait for evidence, or a guard holds them.
    Held,
    /// No instance is there.
    Empty,
}

impl Lag {
    /// Whether a person has to change something, or instances have to come: nothing says when it ends.
    pub fn is_open(self) -> bool {
        matches!(self, Self::Suspended | Self::Observes | Self::Rejected | Self::Empty)
    }

    /// The words, behind the name of the RegisteredService.
    pub fn words(self) -> &'static str {
        match self {
            Self::Suspended => "is suspended",
            Self::Observes => "only observes",
            Self::Rejected => "is not accepted",
            Self::Unseen => "has no status about its spec yet",
            Self::Pending => "is not in sync yet",
            Self::Held => "has held instances",
            Self::Empty => "has no instance",
        }
    }
}

/// The reasons in both directions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lags {
    pub export: Option<Lag>,
    pub import: Option<Lag>,
}

/// The instances that a RegisteredService has written, by its status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Carries {
    /// Whether the status is about the spec in force.
    pub is_current: bool,
    pub exported: i64,
    pub imported: i64,
}

impl Carries {
    /// Whether it is known to have nothing.
    pub fn is_empty(&self) -> bool {
        self.is_current && self.exported == 0 && self.imported == 0
    }
}

/// The observed state.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    /// `None` where the ServiceRegistry has no discovery: then everything that it made goes.
    pub settings: Option<Settings>,
    pub namespaces: BTreeMap<&'a str, Namespace<'a>>,
    pub services: BTreeMap<&'a ServiceKey, &'a ServiceView>,
    pub objects: BTreeMap<&'a ServiceKey, Object>,
    /// Keys of other releases' RegisteredServices, of which nothing else is known.
    pub taken: BTreeSet<&'a ServiceKey>,
    pub names: Names,
}
