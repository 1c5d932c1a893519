//! `ServiceRegistry`: one etcd registry and the way to connect to it. Cluster-scoped, for administrators.
//!
//! Owns its fields, bounds, defaults and rules, and their conversion to the core. Refuses to know how a session uses
//! them.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use twinspan_core::codec::{Format, Layout};
use twinspan_core::model::Revision;
use twinspan_core::plan::trust;

use super::discovery::{self, Discovery, DiscoveryStatus};
use super::hold::HoldStatus;
use super::record_counts::RecordCounts;
use super::record_format::{RecordFormat, fence_rule, prefix_rule};
use super::{APPROVE_HOLDER, APPROVE_WITHDRAWAL, Selector, schema};

/// One etcd service registry, how to reach it, and who may use it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[kube(
    group = "twinspan.dev",
    version = "v1alpha1",
    kind = "ServiceRegistry",
    plural = "serviceregistries",
    status = "ServiceRegistryStatus",
    shortname = "svcreg",
    category = "twinspan",
    doc = "One etcd service registry, how to reach it, and who may use it."
)]
#[kube(printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#))]
#[kube(printcolumn(name = "Format", type_ = "string", json_path = ".spec.format"))]
#[kube(printcolumn(name = "Own", type_ = "integer", json_path = ".status.records.own"))]
#[kube(printcolumn(name = "Foreign", type_ = "integer", json_path = ".status.records.foreign"))]
#[kube(printcolumn(
    name = "Reason",
    type_ = "string",
    priority = 1,
    json_path = r#".status.conditions[?(@.type=="Ready")].reason"#
))]
#[kube(printcolumn(name = "Cluster-ID", type_ = "string", priority = 1, json_path = ".status.clusterID"))]
#[kube(printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"))]
#[kube(validation = Rule::new("!has(self.spec.clusterID) || !has(self.status) || !has(self.status.clusterID) || self.spec.clusterID == self.status.clusterID").message("spec.clusterID may only be set to what status.clusterID has, for records that carry another ID would be orphaned: use that, or leave it out").field_path(".spec.clusterID"))]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.prefix) == has(oldSelf.prefix)").message("spec.prefix is immutable: create another ServiceRegistry instead").field_path(".prefix"))]
#[x_kube(validation = Rule::new("has(self.clusterID) || !has(oldSelf.clusterID)").message("spec.clusterID cannot be removed once it is set: keep the ID that status.clusterID has").field_path(".clusterID"))]
#[x_kube(validation = Rule::new("!has(self.prefix) || self.prefix != '' || self.format == 'Kitex' || self.leadingSlash").message("spec.prefix: only Kitex may have an empty prefix without spec.leadingSlash; leave it out for the default of the format").field_path(".prefix"))]
#[x_kube(validation = Rule::new(prefix_rule()).message("spec.prefix: no program of this format uses such a prefix; leave it out for the default of the format").field_path(".prefix"))]
#[x_kube(validation = Rule::new("!self.leadingSlash || self.format != 'Hertz'").message("spec.leadingSlash: keys of Hertz programs never begin with a slash; leave it out").field_path(".leadingSlash"))]
#[x_kube(validation = Rule::new(fence_rule()).message("spec.fence.keyPrefix lies under the prefix of the registry, where readers would take the fence for a service: choose one outside it, e.g. twinspan/").field_path(".fence.keyPrefix"))]
#[x_kube(validation = Rule::new(discovery::prefix_rule()).message("spec.discovery.import: the registry needs a prefix, because without one only names that are asked for are known").field_path(".discovery.import"))]
#[allow(clippy::duplicated_attributes)] // printcolumns repeat their keys
pub struct ServiceRegistrySpec {
    pub etcd: EtcdConnection,
    /// Whose records the registry holds: which framework's programs register there. Immutable.
    #[x_kube(validation = ("self == oldSelf", "spec.format is immutable: create another ServiceRegistry instead"))]
    pub format: RecordFormat,
    /// The start of every key of the registry: printable ASCII without `%`. Default: the default of the format:
    /// `kitex/registry-etcd`, `hertz/registry-etcd` (the only one that Hertz knows), `/microservices` for Kratos, none
    /// for GoZero and GRPC, `/service/default/default` for GoFrame (prefix, deployment, namespace). An empty one
    /// is valid for Kitex and with `leadingSlash`. The one in force is in status. Immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253), regex(pattern = r"^[!-$&-~]*$"))]
    #[x_kube(validation = ("self == oldSelf", "spec.prefix is immutable: create another ServiceRegistry instead"))]
    pub prefix: Option<String>,
    /// Puts one slash before every key, in any format but Hertz: with an empty prefix a service is at `/name/`. Keys
    /// that begin with a slash anyway stay as they are. Immutable.
    #[serde(default)]
    #[x_kube(validation = ("self == oldSelf", "spec.leadingSlash is immutable: create another ServiceRegistry instead"))]
    pub leading_slash: bool,
    /// Names this cluster in the records that it exports; no two clusters on one etcd may share it. Default: the
    /// UID of the kube-system namespace; the one in force is in status, and it may only be set to that. Immutable.
    #[serde(default, rename = "clusterID", skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9-]+$"))]
    #[x_kube(validation = ("self == oldSelf", "spec.clusterID is immutable, for records that carry another ID would be orphaned: create another ServiceRegistry instead"))]
    pub cluster_id: Option<String>,
    #[serde(default)]
    pub lease: LeaseSettings,
    /// How a leader that was replaced is kept from writing. Immutable.
    #[serde(default)]
    #[x_kube(validation = ("self == oldSelf", "spec.fence is immutable: create another ServiceRegistry instead"))]
    pub fence: Fence,
    /// The namespaces that may use the registry, and for which names. Nothing is open by default: an empty list allows
    /// nobody.
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub allowed: Vec<AllowedUse>,
    #[serde(default)]
    pub import_policy: ImportPolicy,
    /// Makes RegisteredServices for many Services and names at once. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discovery: Option<Discovery>,
}

impl ServiceRegistrySpec {
    /// The prefix in force.
    pub fn effective_prefix(&self) -> &str {
        self.prefix.as_deref().unwrap_or_else(|| Format::from(self.format).default_prefix())
    }

    /// Where the records lie.
    pub fn layout(&self) -> Layout {
        Layout::new(self.format.into(), self.effective_prefix()).with_leading_slash(self.leading_slash)
    }
}

/// How to reach etcd.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.endpoints.all(e, e.startsWith('https://')) || self.endpoints.all(e, e.startsWith('http://'))").message("spec.etcd.endpoints: use https for all or http for all").field_path(".endpoints"))]
#[x_kube(validation = Rule::new("!has(self.tls) || self.endpoints.all(e, e.startsWith('https://'))").message("spec.etcd.tls needs https endpoints: write https:// in spec.etcd.endpoints, or remove spec.etcd.tls").field_path(".tls"))]
pub struct EtcdConnection {
    /// Client URLs of the members, `http://` or `https://` for all, tried one at a time. IPv6 addresses in brackets;
    /// without a port, that of the scheme.
    #[schemars(
        length(min = 1, max = 16),
        inner(
            length(max = 253),
            regex(pattern = r"^https?://([A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?$")
        )
    )]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub endpoints: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<Auth>,
}

/// The certificates to trust, and the one to show. Secrets live in the operator's own namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Tls {
    /// A key of a Secret with a PEM bundle of the authorities that sign the servers' certificates. Default: the
    /// system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_secret_ref: Option<SecretKeyRef>,
    /// A Secret of type kubernetes.io/tls with the client's certificate and key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_cert_secret_ref: Option<SecretRef>,
    /// The name that the servers' certificates are checked against. Default: the host of the endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub server_name: Option<String>,
}

/// The etcd user. Default: none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Auth {
    /// A Secret of type kubernetes.io/basic-auth with `username` and `password`.
    pub secret_ref: SecretRef,
}

/// A Secret in the operator's own namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct SecretRef {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// One key of a Secret in the operator's own namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct SecretKeyRef {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Key of the Secret's data.
    #[serde(default = "ca_key")]
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

fn ca_key() -> String {
    "ca.crt".to_owned()
}

/// The etcd leases that exported records hang on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct LeaseSettings {
    /// How long exported records outlive the last Twinspan replica, in seconds.
    #[schemars(range(min = 60, max = 86400))]
    pub ttl_seconds: i32,
}

impl Default for LeaseSettings {
    fn default() -> Self {
        Self { ttl_seconds: 300 }
    }
}

/// How a leader that was replaced is kept from writing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Fence {
    /// Epoch compares an epoch key in every write. None writes without, for registries where the key cannot be.
    pub mode: FenceMode,
    /// The start of the epoch key: printable ASCII, outside the prefix of the registry.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[!-~]+$"))]
    pub key_prefix: String,
}

impl Default for Fence {
    fn default() -> Self {
        Self { mode: FenceMode::Epoch, key_prefix: "twinspan/".to_owned() }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum FenceMode {
    Epoch,
    None,
}

/// Namespaces and the names that they may export and import.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct AllowedUse {
    /// The namespaces, by their labels; empty selects all.
    pub namespace_selector: Selector,
    /// The names in the registry; `*` stands for any characters, none included.
    #[schemars(length(min = 1, max = 64), inner(length(min = 1, max = 253), regex(pattern = r"^[!-$&-.0-~]+$")))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub registry_names: Vec<String>,
}

/// The addresses that may become endpoints.
// Not `cidr(c) == …`: Kubernetes 1.31 takes the cost of comparing two networks as boundless, and refuses the CRD.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ImportPolicy {
    /// Networks whose addresses may be imported. Where it is not empty, nothing else is, but for pods of the same
    /// namespace.
    #[serde(rename = "allowCIDRs", default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 50)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    #[x_kube(validation = (
        "self.all(c, isCIDR(c) && cidr(c) in [cidr(c).masked()])",
        "spec.importPolicy.allowCIDRs: write each as network/length without host bits, e.g. 10.20.0.0/16"
    ))]
    pub allow_cidrs: Vec<String>,
    /// Networks whose addresses are never imported, whatever else allows them.
    #[serde(rename = "denyCIDRs", default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 50)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    #[x_kube(validation = (
        "self.all(c, isCIDR(c) && cidr(c) in [cidr(c).masked()])",
        "spec.importPolicy.denyCIDRs: write each as network/length without host bits, e.g. 10.20.0.0/16"
    ))]
    pub deny_cidrs: Vec<String>,
    /// Pod networks that the Nodes' podCIDRs do not say: an address in them must be a pod's of the same namespace.
    #[serde(rename = "podCIDRs", default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 50)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    #[x_kube(validation = (
        "self.all(c, isCIDR(c) && cidr(c) in [cidr(c).masked()])",
        "spec.importPolicy.podCIDRs: write each as network/length without host bits, e.g. 10.244.0.0/16"
    ))]
    pub pod_cidrs: Vec<String>,
}

impl From<&ImportPolicy> for trust::Policy {
    fn from(policy: &ImportPolicy) -> Self {
        let set = |cidrs: &[String]| cidrs.iter().map(String::as_str).collect();
        Self { allow: set(&policy.allow_cidrs), deny: set(&policy.deny_cidrs), pod_cidrs: set(&policy.pod_cidrs) }
    }
}

/// The state that the operator last saw.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceRegistryStatus {
    /// The `metadata.generation` that this status is about; -1 until an operator has seen the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    /// The conditions in force, by type.
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
    /// The hold of the registry as a whole, while there is one; the condition `DeletionsHeld` repeats it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<HoldStatus>,
    /// The release that serves this ServiceRegistry, by its namespace. Another one touches neither it nor what refers
    /// to it, until the annotation `twinspan.dev/approve-holder` names that one. The holder goes on until the status
    /// names another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub holder: Option<String>,
    /// The cluster ID in force.
    #[serde(rename = "clusterID", default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub cluster_id: Option<String>,
    /// The prefix in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub prefix: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etcd: Option<EtcdStatus>,
    /// How the registry came back, until every hold that follows from it is in the status of its object, or is over.
    /// Until then `etcd` describes the registry before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub returned_as: Option<ReturnedAs>,
    /// The epoch, `<counter>/<holder>`, of another writer with this cluster's ID. Nothing is written until it is
    /// approved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub epoch_in_use: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub records: Option<RecordCounts>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discovery: Option<DiscoveryStatus>,
    /// When an audit last compared all records with the registry. Written only together with another change of the
    /// status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub last_verified: Option<Time>,
    /// Other clusters whose Twinspan writes, or wrote, into the same etcd: those with an epoch under
    /// `spec.fence.keyPrefix`, whatever their ServiceRegistries are called, the first 16 by their ID. An epoch stays
    /// when a cluster leaves; delete it when you remove a cluster for good. Absent without a fence, and where the user
    /// of etcd may not read the prefix. Looked at by a new leader and with each audit.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9-]+$")))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub clusters: Vec<String>,
    /// The TTLs, in seconds, of the leases on which own records may hang: the one in force, and former ones until
    /// nothing hangs on their leases any more.
    #[serde(rename = "leaseTTLs", default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub lease_ttls: Vec<i64>,
}

/// How a registry came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ReturnedAs {
    /// Another etcd answers.
    ClusterChanged,
    /// The same etcd answers, at an older state.
    RolledBack,
}

/// The etcd cluster behind the registry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct EtcdStatus {
    /// etcd's own cluster ID, hexadecimal.
    #[serde(rename = "clusterID")]
    #[schemars(length(max = 16))]
    pub cluster_id: String,
    /// The version of the etcd server that answered.
    #[schemars(length(max = 64))]
    pub version: String,
    /// The revision of the last complete list: written when a session begins, not with every change.
    pub revision_at_last_session: i64,
    /// The random value of the incarnation key, which tells an etcd from a restored, an emptied and another one.
    /// Written once every hold that follows from a change of it is in the status of its object, or is over.
    #[schemars(length(max = 64))]
    pub incarnation: Option<String>,
    /// The highest counter of this cluster's epoch in that incarnation.
    pub epoch: Option<i64>,
    /// The highest counter of this cluster's epoch before the registry lost it, where that was a higher one: a backup
    /// that is restored later brings it back, and the next leader raises its own above it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub highest_epoch: Option<i64>,
}

impl ServiceRegistry {
    /// The release that an administrator approves as the next holder.
    pub fn approved_holder(&self) -> Option<&str> {
        self.metadata.annotations.as_ref()?.get(APPROVE_HOLDER).map(String::as_str)
    }

    /// Whether an administrator lets the records go of a namespace that the release does not look at.
    pub fn lets_go(&self, namespace: &str) -> bool {
        let named = self.metadata.annotations.as_ref().and_then(|all| all.get(APPROVE_WITHDRAWAL));
        named.is_some_and(|named| named.split(',').any(|name| name.trim() == namespace))
    }

    /// The cluster ID of etcd and its revision in the status. `None` if the status lacks them, or the cluster ID is not
    /// hexadecimal.
    pub fn last_etcd(&self) -> Option<(u64, Revision)> {
        let etcd = self.status.as_ref()?.etcd.as_ref()?;
        Some((u64::from_str_radix(&etcd.cluster_id, 16).ok()?, etcd.revision_at_last_session))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_absent_prefix_is_that_of_the_format_and_an_empty_one_is_empty() {
        let spec = |prefix: &serde_json::Value| -> ServiceRegistrySpec {
            let etcd = json!({"endpoints": ["http://10.0.0.1:2379"]});
            serde_json::from_value(json!({"etcd": etcd, "format": "Kitex", "prefix": prefix, "allowed": []})).unwrap()
        };
        assert_eq!(spec(&json!(null)).effective_prefix(), "kitex/registry-etcd");
        assert_eq!(spec(&json!("")).effective_prefix(), "");
        assert_eq!(spec(&json!("p")).effective_prefix(), "p");
    }
}
