//! The observation as a value: everything that a pass over one RegisteredService rests on.
//!
//! Owns the fields and what follows from them alone. Refuses to read a view, which [`super::observe`] does.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use twinspan_core::Timestamp;
use twinspan_core::model::{Precedence, ServiceView};
use twinspan_core::plan::departure::held::Reported;
use twinspan_core::plan::service::{Facts, Place};

use super::Checkpoint;
use crate::api::{APPROVE_DELETIONS, RegisteredService, ServiceRegistry, Unreadable, held_since};
use crate::cluster::convert::NamespaceView;
use crate::registry::RegistryError;

/// The facts of a pass, and the objects that only the validation and the report read.
#[derive(Clone, Debug)]
pub struct Observed {
    pub facts: Facts,
    /// Its place among its siblings.
    pub precedence: Precedence,
    /// The places of the RegisteredServices for which its Services were created, by UID.
    pub creators: BTreeMap<String, Precedence>,
    /// As far as it can be read; `None` if the RegisteredService was deleted, or cannot be read at all.
    pub object: Option<Arc<RegisteredService>>,
    /// The object whose names cannot be read, for its status and Events alone.
    pub nameless: Option<Arc<RegisteredService>>,
    /// The fields that this version cannot read of the RegisteredService.
    pub unreadable: Option<Arc<Unreadable>>,
    /// ServiceRegistries that this version cannot read.
    pub unreadable_registries: BTreeMap<String, Arc<Unreadable>>,
    /// Addresses of ready endpoints in the namespace, where nothing says which Service is meant.
    pub ready_in_namespace: BTreeSet<IpAddr>,
    pub namespace: Option<Arc<NamespaceView>>,
    /// Whether Nodes, and what leads to them, are looked at.
    pub has_nodes: bool,
    pub registry: Option<Arc<ServiceRegistry>>,
    /// The older ServiceRegistry that serves the name in the same etcd, if one does.
    pub taken_by: Option<String>,
    /// Whether too many RegisteredServices that precede it have the name.
    pub crowded_out: bool,
    /// Former places some of whose records hang on leases of others, or of no session: nothing is added to them.
    pub unclaimed: BTreeSet<Place>,
    /// Since when records that no session claims wait for a ServiceRegistry that has none yet.
    pub unserved_since: Option<Timestamp>,
    /// The ServiceRegistries of the former places, by name.
    pub former_registries: BTreeMap<String, Arc<ServiceRegistry>>,
    /// The reason why the records under the name are not known, if they are not.
    pub registry_failure: Option<RegistryError>,
    pub checkpoint: Checkpoint,
}

impl Observed {
    /// Whether the RegisteredService was deleted. One that cannot be read is there.
    pub fn is_gone(&self) -> bool {
        self.object.is_none() && self.unreadable.is_none()
    }

    /// Whether a Service was created for a RegisteredService that comes after this one: it goes with its owner, so the
    /// first of those that ask for it has to be that.
    pub fn adopts(&self, service: &ServiceView) -> bool {
        let creator = service.owner_uid.as_ref().and_then(|uid| self.creators.get(uid));
        creator.is_some_and(|creator| self.precedence.precedes(creator))
    }

    /// The object to which the status and Events belong.
    pub fn shown(&self) -> Option<&Arc<RegisteredService>> {
        self.object.as_ref().or(self.nameless.as_ref())
    }

    /// The hold that the status reports.
    pub fn reported_hold(&self) -> Option<Reported> {
        let status = self.object.as_ref()?.status.as_ref()?;
        let since = held_since(&status.conditions)?;
        Some(Reported { since, until: status.hold.as_ref().map(|hold| hold.until.0) })
    }

    /// The hash that the annotation on the RegisteredService approves.
    pub fn approval(&self) -> Option<&str> {
        let annotations = self.object.as_ref()?.metadata.annotations.as_ref()?;
        annotations.get(APPROVE_DELETIONS).map(String::as_str)
    }
}
