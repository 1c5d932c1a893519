//! A Service, reduced to what the planners read, and a Service that is to be created.
//!
//! Refuses to know the API machinery: the mapping from and to the API type is the cluster door's.

use std::collections::BTreeMap;

use crate::model::{Family, ServiceKey};

/// A Service, reduced to what matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceView {
    pub name: String,
    pub uid: String,
    pub external_name: bool,
    pub headless: bool,
    /// The built-in controller manages slices for it.
    pub selector: bool,
    pub traffic: TrafficDistribution,
    pub ports: Vec<ServicePortView>,
    /// The first is the primary one.
    pub families: Vec<Family>,
    pub labels: BTreeMap<String, String>,
    /// UID of the RegisteredService that it was created for, where it was.
    pub owner_uid: Option<String>,
    pub deleting: bool,
}

/// A port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePortView {
    /// Empty for the only port of a Service that does not name it.
    pub name: String,
    pub number: i32,
    pub tcp: bool,
    pub app_protocol: Option<String>,
}

/// `spec.trafficDistribution` of a Service: where its traffic should stay. Without one the slices get no hints, which
/// would switch topology on for a Service that did not ask for it.
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
}
