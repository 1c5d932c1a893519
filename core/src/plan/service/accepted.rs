//! The goal of a pass: the settings in force, or the consequence for a RegisteredService that cannot be acted upon.
//!
//! Owns the settings, and the endpoints that may be exported under them. Refuses to know reasons and messages: the
//! operator's validation reads the spec and explains a rejection.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::Facts;
use super::endpoints::{EndpointState, classify};
use crate::model::{
    ExportAddress, Family, InstanceAddr, NewService, PortSet, RegistryName, ServiceKey, ServicePortView,
};
use crate::plan::departure::guard::Limits;
use crate::plan::{import, trust};

/// The goal.
#[derive(Clone, Debug, PartialEq)]
pub enum Goal {
    /// Sync as the settings say.
    Sync(Box<Accepted>),
    /// Withdraw everything. `guarded` has the limits if perhaps only a list shows the reason; without limits the reason
    /// is certain.
    Withdraw { guarded: Option<Limits> },
    /// Withdraw everything at once, even where the spec forbids to write: the name is not allowed.
    Revoke,
    /// Add nothing, and remove what ended: the spec cannot be carried out.
    Reduce(Box<Reduced>),
}

impl Goal {
    pub fn accepted(&self) -> Option<&Accepted> {
        match self {
            Self::Sync(accepted) => Some(accepted),
            Self::Withdraw { .. } | Self::Revoke | Self::Reduce(_) => None,
        }
    }
}

/// The settings in force.
#[derive(Clone, Debug, PartialEq)]
pub struct Accepted {
    pub name: RegistryName,
    pub service: ServiceKey,
    /// The Service into which records are imported: the same one, or one of their own.
    pub import_service: ServiceKey,
    pub exports: bool,
    pub imports: bool,
    /// The chosen ports of the Service, with the scheme of each; none while the Service does not exist.
    pub ports: Vec<AcceptedPort>,
    pub families: Vec<Family>,
    /// The addresses that clients get.
    pub address: ExportAddress,
    pub weight: i64,
    /// The part of the traffic that the exported instances get beside records of others, in percent.
    pub share: Option<i64>,
    pub tags: BTreeMap<String, String>,
    /// Labels of a pod and the tags that they become.
    pub tags_from_labels: Vec<(String, String)>,
    /// The tag that the zone of an endpoint becomes; empty for none.
    pub zone_tag: String,
    pub import: import::Options,
    pub limits: Limits,
    pub policy: trust::Policy,
    /// A Service to be created first.
    pub create: Option<NewService>,
    /// A Service that we created and that needs other ports.
    pub amend: Option<NewService>,
    /// Whether the Service of the imports was created for a RegisteredService that comes after this one, and becomes
    /// its own.
    pub adopt: bool,
}

/// The settings under which instances only go. They are those of the spec as far as it can be read.
#[derive(Clone, Debug, PartialEq)]
pub struct Reduced {
    pub import: import::Options,
    pub limits: Limits,
    pub policy: trust::Policy,
    /// Own records at these addresses stay, at whatever port: see [`super::ready_addresses`] and
    /// [`super::outer_addresses`].
    pub ready: BTreeSet<IpAddr>,
    /// The same for endpoints that only their readiness gate keeps from being ready: no client in the cluster has them
    /// yet. See [`super::Facts::gated_addresses`].
    pub gated: BTreeSet<IpAddr>,
}

impl Reduced {
    /// The addresses at which own records stay.
    pub fn stays(&self) -> BTreeSet<IpAddr> {
        self.ready.union(&self.gated).copied().collect()
    }
}

/// A port of the Service, and its scheme in the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcceptedPort {
    pub port: ServicePortView,
    /// Empty where the format has no schemes.
    pub scheme: String,
}

impl Accepted {
    /// Whether imports have a Service of their own.
    pub fn has_import_service(&self) -> bool {
        self.import_service != self.service
    }

    /// The state of each endpoint of the cluster that others manage.
    pub fn endpoints(&self, facts: &Facts) -> BTreeMap<InstanceAddr, EndpointState> {
        let selector = facts.cluster.service.as_ref().is_some_and(|service| service.selector);
        let ports: Vec<&str> = self.ports.iter().map(|accepted| accepted.port.name.as_str()).collect();
        // Traffic to another address than its own reaches a pod only once it is ready.
        let is_gated = |endpoint: &_| self.exports && self.address == ExportAddress::Pod && facts.is_gated(endpoint);
        classify(&facts.cluster.others_slices, &ports, &self.families, selector, is_gated)
    }

    /// Endpoints that clients in the cluster have, with the ports that they serve.
    pub fn ready(&self, facts: &Facts) -> BTreeMap<InstanceAddr, PortSet> {
        let ready = |(addr, state)| match state {
            EndpointState::Ready(ports) => Some((addr, ports)),
            EndpointState::Gated(_) | EndpointState::Withheld(_) => None,
        };
        self.endpoints(facts).into_iter().filter_map(ready).collect()
    }

    /// Endpoints of the cluster that may be exported, with the ports that they serve. Clients may get other addresses:
    /// see [`super::reach`].
    pub fn exported(&self, facts: &Facts) -> BTreeMap<InstanceAddr, PortSet> {
        let endpoints = self.endpoints(facts).into_iter();
        endpoints.filter_map(|(addr, state)| Some((addr, state.exported()?))).collect()
    }

    /// The registry and name, as annotations of slices have them.
    pub fn source(&self, registry: &str) -> String {
        format!("{registry}/{}", self.name)
    }
}
