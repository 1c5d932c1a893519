//! `spec.export` of a RegisteredService: how endpoints appear in the registry.
//!
//! Owns the fields, their defaults and bounds, and their conversion to the core. Refuses to choose an address.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use twinspan_core::model;

use super::schema;

/// How endpoints appear in the registry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.tags) || self.tags.all(t, !t.startsWith('twinspan.dev/'))").message("spec.export.tags: keys that begin with twinspan.dev/ are Twinspan's own; use other keys").field_path(".tags"))]
#[x_kube(validation = Rule::new("self.address == 'Node' || (self.nodes == 3 && self.nodeAddressType == 'InternalIP')").message("spec.export.address: only Node has nodes and nodeAddressType; leave them out").field_path(".address"))]
#[x_kube(validation = Rule::new("!has(self.zoneTag) || !self.zoneTag.startsWith('twinspan.dev/')").message("spec.export.zoneTag: tags that begin with twinspan.dev/ are Twinspan's own; use another tag").field_path(".zoneTag"))]
#[x_kube(validation = Rule::new("!has(self.zoneTag) || ((!has(self.tags) || !(self.zoneTag in self.tags)) && (!has(self.tagsFromPodLabels) || self.tagsFromPodLabels.all(t, t.tag != self.zoneTag)))").message("spec.export.zoneTag: tags and tagsFromPodLabels name this tag too; leave it to one of them").field_path(".zoneTag"))]
pub struct Export {
    /// Share of the traffic that clients give each exported instance, relative to the others. The default is what Kitex
    /// servers register where nobody sets one. The pod annotation `twinspan.dev/weight` overrides it. With `share` both
    /// are proportions among the exported instances. GoZero and GRPC records have no weight.
    #[serde(default = "default_weight")]
    #[schemars(range(min = 1, max = 10000))]
    pub weight: i32,
    /// The share of the traffic, in percent, that the exported instances get together beside the foreign records of the
    /// name. Their weights give it: integers from 1 to 10000, in proportion to the weights that they have otherwise,
    /// which change only where the share is off by more than 2 points, or a part of it by more than a quarter. Records
    /// of other RegisteredServices of this cluster count on neither side, and foreign ones that `importPolicy` refuses
    /// do not count. Without a foreign record the weights are as configured. Only Kitex, Hertz and Kratos clients go by
    /// weight.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 99))]
    pub share: Option<i32>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    /// Tags of every exported record. Keys that begin with `twinspan.dev/` are refused; GoZero and GRPC records have no
    /// tags.
    #[schemars(schema_with = "schema::small_map")]
    pub tags: BTreeMap<String, String>,
    /// Labels of a pod that become tags of its record; they win over `tags`. A pod without the label gets no such tag.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["tag".into()]))]
    pub tags_from_pod_labels: Vec<TagFromLabel>,
    /// Key of a tag that has the zone of the endpoint, as its EndpointSlice names it; absent for none. Neither
    /// an endpoint without a zone gets the tag, nor an address that leads to pods of several zones. GoZero and GRPC
    /// records have no tags.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(min = 1, max = 253))]
    pub zone_tag: String,
    /// Primary exports endpoints of the Service's first address family, All those of every family.
    #[serde(default)]
    pub ip_family_policy: IpFamilyPolicy,
    /// The addresses that clients outside the cluster get. Pod: those of the pods, where clients can reach them. Node:
    /// addresses of Nodes, with the pod's hostPort or else the Service's nodePort; each Node that has a ready pod where
    /// externalTrafficPolicy is Local, and otherwise a few of all. LoadBalancer: the addresses in the Service's status.
    /// An address that leads to several pods has the sum of their weights, or its share where several lead to them.
    #[serde(default)]
    pub address: ExportAddress,
    /// The type of a Node's addresses that is exported. The annotation `twinspan.dev/export-address` on a Node
    /// overrides it.
    #[serde(default)]
    pub node_address_type: NodeAddressType,
    /// The most Nodes that are exported of a Service whose Nodes all lead to every pod (externalTrafficPolicy Cluster):
    /// Nodes that are ready, take pods, and are not labelled `node.kubernetes.io/exclude-from-external-load-balancers`.
    #[serde(default = "default_nodes")]
    #[schemars(range(min = 1, max = 100))]
    pub nodes: i32,
}

/// The addresses that clients get.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ExportAddress {
    #[default]
    Pod,
    Node,
    LoadBalancer,
}

/// The addresses of a Node by their type (core/v1 `NodeAddressType`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum NodeAddressType {
    #[default]
    #[serde(rename = "InternalIP")]
    InternalIp,
    #[serde(rename = "ExternalIP")]
    ExternalIp,
}

/// The weight that Kitex servers register by default.
fn default_weight() -> i32 {
    10
}

/// The loss of one Node leaves two.
fn default_nodes() -> i32 {
    3
}

impl Default for Export {
    fn default() -> Self {
        Self {
            weight: default_weight(),
            share: None,
            tags: BTreeMap::new(),
            tags_from_pod_labels: Vec::new(),
            zone_tag: String::new(),
            ip_family_policy: IpFamilyPolicy::Primary,
            address: ExportAddress::Pod,
            node_address_type: NodeAddressType::InternalIp,
            nodes: default_nodes(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = Rule::new("!self.tag.startsWith('twinspan.dev/')").message("spec.export.tagsFromPodLabels: tags that begin with twinspan.dev/ are Twinspan's own; use another tag").field_path(".tag"))]
pub struct TagFromLabel {
    /// Key of the pod's label, with its prefix.
    #[schemars(length(min = 1, max = 317))]
    pub label: String,
    /// Key of the tag in the record.
    #[schemars(length(min = 1, max = 253))]
    pub tag: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum IpFamilyPolicy {
    #[default]
    Primary,
    All,
}

impl Export {
    /// The addresses that clients get, in the core's terms.
    pub fn choice(&self) -> model::ExportAddress {
        let address_type = match self.node_address_type {
            NodeAddressType::InternalIp => model::NodeAddressType::InternalIp,
            NodeAddressType::ExternalIp => model::NodeAddressType::ExternalIp,
        };
        let most = usize::try_from(self.nodes).unwrap_or(1).max(1);
        match self.address {
            ExportAddress::Pod => model::ExportAddress::Pod,
            ExportAddress::Node => model::ExportAddress::Node(model::NodeChoice { address_type, most }),
            ExportAddress::LoadBalancer => model::ExportAddress::LoadBalancer,
        }
    }
}
