//! An EndpointSlice, reduced to what the planners read and write (`discovery.k8s.io/v1`).
//!
//! Owns the labels and annotations that name the Service and the manager of a slice. Refuses to know the API machinery:
//! the operator maps slices from and to the API type.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use crate::Timestamp;
use crate::model::{Family, InstanceAddr};

/// Names the Service that a slice belongs to (`well_known_labels.go` of k8s.io/api/discovery/v1).
pub const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";
/// Names the manager of a slice; each manager leaves the slices of others alone.
pub const MANAGED_BY_LABEL: &str = "endpointslice.kubernetes.io/managed-by";
/// Our value of [`MANAGED_BY_LABEL`].
pub const MANAGED_BY: &str = "twinspan.dev";
/// Marks slices of headless Services, which kube-proxy does not need to watch.
pub const HEADLESS_LABEL: &str = "service.kubernetes.io/headless";
/// The time at which the change in a slice began, RFC 3339; kube-proxy and CoreDNS measure their latency from it.
pub const TRIGGER_TIME_ANNOTATION: &str = "endpoints.kubernetes.io/last-change-trigger-time";
/// The source of a slice of ours: `<ServiceRegistry>/<registryName>`.
pub const IMPORTED_FROM_ANNOTATION: &str = "twinspan.dev/imported-from";
/// The endpoints of a slice of ours that lost their registration, and their deadlines: `<IP>=<RFC 3339>`, separated by
/// commas.
pub const LOST_UNTIL_ANNOTATION: &str = "twinspan.dev/lost-until";
/// The addresses in a slice of ours that stand for endpoints of other managers, separated by commas: pods that are not
/// imported.
pub const MIRRORED_ANNOTATION: &str = "twinspan.dev/mirrored";
/// Marks a slice that took the endpoints of others over, which are about to be deleted. Its removal is a change of the
/// slice that stays, for clients that keep the one which changed last.
pub const MERGED_ANNOTATION: &str = "twinspan.dev/merged";
/// The protocol of every port that Twinspan exports or imports.
pub const TCP: &str = "TCP";

/// `addressType`. FQDN slices have no semantics and are ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressType {
    Ip(Family),
    Other,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlicePort {
    /// Equal to the name of a Service port, or empty.
    pub name: String,
    pub protocol: String,
    /// `None` matches nothing (kube-proxy ignores it, CoreDNS omits it from SRV).
    pub number: Option<u16>,
    pub app_protocol: Option<String>,
}

/// The pod behind an endpoint (`targetRef`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetPod {
    pub namespace: String,
    pub name: String,
    pub uid: String,
}

/// The zones and nodes that traffic to an endpoint should come from (`hints`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hints {
    pub zones: Vec<String>,
    pub nodes: Vec<String>,
}

impl Hints {
    /// `None` where there are none.
    pub fn boxed(self) -> Option<Box<Self>> {
        (self != Self::default()).then(|| Box::new(self))
    }
}

/// The address of an endpoint: an IP, read once, or any other text of another manager.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum EndpointAddress {
    /// Written as Rust displays it, which is the canonical form of RFC 5952.
    Ip(IpAddr),
    Text(Box<str>),
}

impl EndpointAddress {
    /// The IP, in whatever form it is written.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Ip(ip) => Some(*ip),
            Self::Text(text) => text.parse().ok(),
        }
    }
}

impl From<&str> for EndpointAddress {
    fn from(text: &str) -> Self {
        match text.parse::<IpAddr>() {
            Ok(ip) if ip.to_string() == text => Self::Ip(ip),
            _ => Self::Text(text.into()),
        }
    }
}

impl fmt::Display for EndpointAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(ip) => ip.fmt(f),
            Self::Text(text) => f.write_str(text),
        }
    }
}

/// The conditions of an endpoint, as its manager wrote them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conditions {
    /// Absent means true.
    pub ready: Option<bool>,
    /// Absent means true.
    pub serving: Option<bool>,
    /// Absent means false.
    pub terminating: Option<bool>,
}

/// One endpoint with its first address: the API defines no meaning for others, and kube-proxy reads only the first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SliceEndpoint {
    /// As written; the slices of other managers may hold addresses that Twinspan would refuse.
    pub address: EndpointAddress,
    /// Absent means true.
    pub ready: Option<bool>,
    /// Absent means true.
    pub serving: Option<bool>,
    /// Absent means false.
    pub terminating: Option<bool>,
    pub zone: Option<String>,
    pub node: Option<String>,
    /// Endpoints of servers have neither a pod nor hints, and no room for them.
    pub pod: Option<Box<TargetPod>>,
    /// Absent where there are none.
    pub hints: Option<Box<Hints>>,
    /// From [`LOST_UNTIL_ANNOTATION`]; whole seconds.
    pub lost_until: Option<Timestamp>,
    /// From [`MIRRORED_ANNOTATION`].
    pub mirrored: bool,
}

impl SliceEndpoint {
    /// An endpoint that Twinspan writes: always with all three conditions.
    pub fn ready(ip: IpAddr) -> Self {
        Self {
            address: EndpointAddress::Ip(ip),
            ready: Some(true),
            serving: Some(true),
            terminating: Some(false),
            zone: None,
            node: None,
            pod: None,
            hints: None,
            lost_until: None,
            mirrored: false,
        }
    }

    pub fn conditions(&self) -> Conditions {
        Conditions { ready: self.ready, serving: self.serving, terminating: self.terminating }
    }

    /// The same endpoint with other conditions.
    pub fn with(self, Conditions { ready, serving, terminating }: Conditions) -> Self {
        Self { ready, serving, terminating, ..self }
    }

    /// Absent means true.
    pub fn is_ready(&self) -> bool {
        self.ready != Some(false)
    }

    /// Absent means false.
    pub fn is_terminating(&self) -> bool {
        self.terminating == Some(true)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice {
    pub name: String,
    /// For compare-and-swap writes; opaque.
    pub resource_version: String,
    /// From [`SERVICE_NAME_LABEL`].
    pub service: Option<String>,
    /// From [`MANAGED_BY_LABEL`].
    pub managed_by: Option<String>,
    /// UID of the RegisteredService that owns the slice, if one does.
    pub owner_uid: Option<String>,
    /// Name of the RegisteredService that the slice belongs to, as its owner reference or else its own name says;
    /// `None` where another controller has it, or it was not filled by Twinspan.
    pub keeper: Option<String>,
    /// Labels that another program put there, by key.
    pub others_labels: BTreeSet<String>,
    /// Has a deletionTimestamp; a finalizer may keep it for a while.
    pub deleting: bool,
    pub address_type: AddressType,
    pub ports: Vec<SlicePort>,
    pub endpoints: Vec<SliceEndpoint>,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
}

impl Slice {
    pub fn is_ours(&self) -> bool {
        self.managed_by.as_deref() == Some(MANAGED_BY)
    }

    /// Whether endpoints of other managers are in it.
    pub fn has_mirrored(&self) -> bool {
        self.endpoints.iter().any(|endpoint| endpoint.mirrored)
    }

    /// The addresses that it holds at one of its ports.
    pub fn at(&self, port: &SlicePort) -> impl Iterator<Item = (InstanceAddr, &SliceEndpoint)> {
        let number = port.number;
        let address = move |endpoint: &SliceEndpoint| InstanceAddr::new(endpoint.address.ip()?, number?).ok();
        self.endpoints.iter().filter_map(move |endpoint| Some((address(endpoint)?, endpoint)))
    }

    /// Reads [`LOST_UNTIL_ANNOTATION`] into the endpoints. Skips entries that do not parse.
    pub fn read_lost_until(&mut self) {
        let Some(text) = self.annotations.get(LOST_UNTIL_ANNOTATION) else { return };
        let entries = text.split(',').filter_map(|entry| entry.split_once('='));
        let until: BTreeMap<EndpointAddress, Timestamp> =
            entries.filter_map(|(address, time)| Some((address.into(), time.parse().ok()?))).collect();
        for endpoint in &mut self.endpoints {
            endpoint.lost_until = until.get(&endpoint.address).copied();
        }
    }

    /// Reads [`MIRRORED_ANNOTATION`] into the endpoints. An address that it does not name counts as imported, so that
    /// nothing goes without evidence where somebody removed the annotation.
    pub fn read_mirrored(&mut self) {
        let Some(text) = self.annotations.get(MIRRORED_ANNOTATION) else { return };
        let mirrored: BTreeSet<EndpointAddress> = text.split(',').map(Into::into).collect();
        for endpoint in &mut self.endpoints {
            endpoint.mirrored = mirrored.contains(&endpoint.address);
        }
    }
}
