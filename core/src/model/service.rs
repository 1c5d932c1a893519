//! A Service, reduced to the fields that the planners read, and a Service that is to be created.
//!
//! Owns the meaning of `spec.trafficDistribution`. Refuses to know the API machinery: the cluster's door maps from and
//! to the API types.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::Timestamp;
use crate::model::{Family, Labels, ServiceKey};

/// The annotation of a Service or a namespace that takes it into a registry, or leaves it out, where a ServiceRegistry
/// discovers Services there: `true` or `false`.
pub const EXPORT_ANNOTATION: &str = "twinspan.dev/export";
/// The annotation of a Service that is its name in a registry that discovers it.
pub const REGISTRY_NAME_ANNOTATION: &str = "twinspan.dev/registry-name";
/// The annotation of a Service with the port that discovery exports, by name or number.
pub const PORT_ANNOTATION: &str = "twinspan.dev/port";

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceView {
    pub name: String,
    pub uid: String,
    pub external_name: bool,
    pub headless: bool,
    /// Whether the Service has a selector, so that the built-in controller manages its slices.
    pub selector: bool,
    /// The labels of the pods that it selects; none without a selector.
    pub selects: Labels,
    pub traffic: TrafficDistribution,
    pub ports: Vec<ServicePortView>,
    pub cluster_ips: Vec<IpAddr>,
    /// `externalIPs`, and the addresses of its load balancer.
    pub external_ips: Vec<IpAddr>,
    /// The addresses of its load balancer alone, which only the cluster's own controllers write.
    pub balancer_ips: Vec<IpAddr>,
    /// Whether a Node leads to its own endpoints only (`externalTrafficPolicy: Local`).
    pub local_traffic: bool,
    /// The first is the primary one.
    pub families: Vec<Family>,
    pub labels: BTreeMap<String, String>,
    /// UID of the RegisteredService that the Service was created for, if it was.
    pub owner_uid: Option<String>,
    pub deleting: bool,
    pub created: Option<Timestamp>,
    /// The annotations that discovery reads.
    pub annotations: BTreeMap<String, String>,
}

/// A port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePortView {
    /// Empty for the only port of a Service that does not name it.
    pub name: String,
    pub number: i32,
    /// The port that every Node has for it.
    pub node_port: Option<u16>,
    pub tcp: bool,
    pub app_protocol: Option<String>,
}

/// `spec.trafficDistribution` of a Service: the area in which its traffic should stay. Without it the slices get no
/// hints, because hints would switch topology on for a Service that did not ask for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TrafficDistribution {
    #[default]
    Anywhere,
    /// `PreferClose` and `PreferSameZone`.
    SameZone,
    /// `PreferSameNode`.
    SameNode,
}

/// A Service to be created for a RegisteredService.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewService {
    pub key: ServiceKey,
    pub headless: bool,
    /// Name and number.
    pub ports: Vec<(String, i32)>,
    /// The family of a Service that has one; `None` means those that the cluster has.
    pub family: Option<Family>,
}
