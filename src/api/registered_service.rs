//! `RegisteredService`: one service, on both sides. Namespaced, beside the Service.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Selector, schema};

/// A service that exists in Kubernetes and in a registry, and what is synced between the two.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[kube(
    group = "twinspan.dev",
    version = "v1alpha1",
    kind = "RegisteredService",
    plural = "registeredservices",
    namespaced,
    status = "RegisteredServiceStatus",
    shortname = "rsvc",
    category = "twinspan",
    selectable = ".spec.registryRef.name",
    doc = "A service that exists in Kubernetes and in a registry, and what is synced between the two."
)]
#[kube(printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#))]
#[kube(printcolumn(name = "Registry", type_ = "string", json_path = ".spec.registryRef.name"))]
#[kube(printcolumn(name = "Exported", type_ = "integer", json_path = ".status.instances.exported"))]
#[kube(printcolumn(name = "Imported", type_ = "integer", json_path = ".status.instances.imported"))]
#[kube(printcolumn(name = "Skipped", type_ = "integer", json_path = ".status.instances.skipped"))]
#[kube(printcolumn(
    name = "Reason",
    type_ = "string",
    priority = 1,
    json_path = r#".status.conditions[?(@.type=="Ready")].reason"#
))]
#[kube(printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"))]
#[kube(validation = (
    "has(self.spec.service.name) || (self.metadata.name.size() <= 63 && !self.metadata.name.contains('.'))",
    "spec.service.name: set it, because metadata.name cannot be the name of a Service"
))]
#[serde(rename_all = "camelCase")]
#[allow(clippy::duplicated_attributes)] // printcolumns repeat their keys
pub struct RegisteredServiceSpec {
    pub registry_ref: RegistryRef,
    /// Its name in the registry. Absent means metadata.name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[!-$&-.0-~]+$"))]
    pub registry_name: Option<String>,
    #[serde(default)]
    pub service: ServiceRef,
    #[serde(default)]
    pub direction: Direction,
    #[serde(default)]
    pub policy: Policy,
    #[serde(default)]
    pub export: Export,
    #[serde(default)]
    pub import: Import,
    #[serde(default)]
    pub deletion_guard: DeletionGuard,
    /// Keeps what is written alive and writes nothing else.
    #[serde(default)]
    pub suspend: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct RegistryRef {
    /// Name of a ServiceRegistry.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// The Kubernetes Service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "self.create == 'Never' ? !has(self.ports) || self.ports.all(p, !has(p.number)) : \
     has(self.ports) && self.ports.size() > 0 && self.ports.all(p, has(p.number))",
    "spec.service.ports: give a number for each port where create is Headless or ClusterIP, and none where it is Never"
))]
pub struct ServiceRef {
    /// Absent means metadata.name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: Option<String>,
    /// Which port of the Service is exported, and under whose name imports appear. May be absent where the Service has one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub ports: Vec<PortRef>,
    /// What to do where the Service is missing.
    #[serde(default)]
    pub create: CreateService,
}

/// A port of the Service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct PortRef {
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// Only where the Service is created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub number: Option<i32>,
    /// URL scheme of the port's endpoints; only for Kratos.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32), regex(pattern = r"^[a-z][a-z0-9+.-]*$"))]
    pub scheme: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum CreateService {
    #[default]
    Never,
    Headless,
    #[serde(rename = "ClusterIP")]
    ClusterIp,
}

/// Which way instances go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Direction {
    #[default]
    Both,
    Export,
    Import,
}

impl Direction {
    pub fn exports(self) -> bool {
        self != Self::Import
    }

    pub fn imports(self) -> bool {
        self != Self::Export
    }
}

/// `Observe` plans and reports, and writes nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Policy {
    #[default]
    Sync,
    Observe,
}

/// How endpoints appear in the registry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "!has(self.tags) || self.tags.all(t, !t.startsWith('twinspan.dev/'))",
    "spec.export.tags: keys that begin with twinspan.dev/ are Twinspan's own"
))]
pub struct Export {
    #[serde(default = "default_weight")]
    #[schemars(range(min = 1, max = 10000))]
    pub weight: i32,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::small_map")]
    pub tags: BTreeMap<String, String>,
    /// Labels of the pod that become tags of its record.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["tag".into()]))]
    pub tags_from_pod_labels: Vec<TagFromLabel>,
    /// Primary exports the Service's first address family, All every one.
    #[serde(default)]
    pub ip_family_policy: IpFamilyPolicy,
}

/// What Kitex servers register where nobody sets a weight.
fn default_weight() -> i32 {
    10
}

impl Default for Export {
    fn default() -> Self {
        Self {
            weight: default_weight(),
            tags: BTreeMap::new(),
            tags_from_pod_labels: Vec::new(),
            ip_family_policy: IpFamilyPolicy::Primary,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = (
    "!self.tag.startsWith('twinspan.dev/')",
    "spec.export.tagsFromPodLabels: tags that begin with twinspan.dev/ are Twinspan's own"
))]
pub struct TagFromLabel {
    #[schemars(length(min = 1, max = 317))]
    pub label: String,
    #[schemars(length(min = 1, max = 253))]
    pub tag: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum IpFamilyPolicy {
    #[default]
    Primary,
    All,
}

/// Which records become endpoints, and for how long.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Import {
    /// Which records, by their tags; empty selects all.
    pub tag_selector: Selector,
    /// Whether records that other clusters' Twinspan exported are imported: their pod addresses may not be routable.
    pub other_clusters: OtherClusters,
    /// A tag whose value becomes the zone of the endpoint; empty for none.
    #[schemars(length(max = 253))]
    pub zone_tag: String,
    /// What to do when the lease of a record ended.
    pub on_expiry: OnExpiry,
    /// How long an instance that lost its registration but still accepts connections is kept, in seconds.
    #[schemars(range(min = 1, max = 2592000))]
    pub keep_lost_seconds: i32,
}

impl Default for Import {
    fn default() -> Self {
        Self {
            tag_selector: Selector::default(),
            other_clusters: OtherClusters::Ignore,
            zone_tag: String::new(),
            on_expiry: OnExpiry::Probe,
            keep_lost_seconds: 86_400,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OtherClusters {
    #[default]
    Ignore,
    All,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnExpiry {
    Remove,
    #[default]
    Probe,
    Heal,
}

/// When deletions that nothing explains are held back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct DeletionGuard {
    /// Services with fewer instances are guarded only against losing their last.
    #[schemars(range(min = 1, max = 100000))]
    pub min_instances: i32,
    #[schemars(range(min = 1, max = 100))]
    pub max_delete_percent: i32,
    #[schemars(range(min = 0, max = 86400))]
    pub hold_seconds: i32,
}

impl Default for DeletionGuard {
    fn default() -> Self {
        Self { min_instances: 10, max_delete_percent: 50, hold_seconds: 300 }
    }
}

/// What the operator last saw.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RegisteredServiceStatus {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
    #[serde(default)]
    pub instances: Counts,
    /// At most five, for reading; the count is in instances.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 5))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub skipped: Vec<SkippedInstance>,
}

/// How many instances there are, and where.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Counts {
    /// Ready endpoints that the cluster itself has.
    pub cluster: i64,
    /// Foreign records under the name.
    pub registry: i64,
    /// Own records.
    pub exported: i64,
    /// Endpoints in our slices.
    pub imported: i64,
    /// Imported endpoints that lost their registration but still accept connections.
    pub lost: i64,
    /// Lost registrations that were put back.
    pub healed: i64,
    /// Instances on one side that are left out on the other.
    pub skipped: i64,
    /// Deletions and exports that wait.
    pub held: i64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct SkippedInstance {
    #[schemars(length(max = 253))]
    pub instance: String,
    #[schemars(length(max = 64))]
    pub reason: String,
}
