//! `RegisteredService`: one service, on both sides. Namespaced, beside the Service.
//!
//! Owns its fields, bounds, defaults and rules, and their conversion to the core. Refuses to validate it against other
//! objects.

use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use twinspan_core::codec::Format;
use twinspan_core::model::ServiceKey;
use twinspan_core::plan::departure::guard::Limits;
use twinspan_core::plan::import;
use twinspan_core::plan::service::ImportPlace;

use super::conditions::{ACCEPTED, ConditionStatus, Reason, find};
use super::differences::{Difference, Differences};
use super::export::Export;
use super::hold::HoldStatus;
use super::import::{Import, ImportInto};
use super::schema;

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
#[kube(printcolumn(name = "Registry-Name", type_ = "string", priority = 1, json_path = ".spec.registryName"))]
#[kube(printcolumn(name = "Lost", type_ = "integer", priority = 1, json_path = ".status.instances.lost"))]
#[kube(printcolumn(name = "Held", type_ = "integer", priority = 1, json_path = ".status.instances.held"))]
#[kube(printcolumn(
    name = "Message",
    type_ = "string",
    priority = 1,
    json_path = r#".status.conditions[?(@.type=="Ready")].message"#
))]
#[kube(printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"))]
#[kube(validation = Rule::new("self.spec.__import__.into == 'Beside' || has(self.spec.__import__.serviceName) || (has(self.spec.service.name) ? self.spec.service.name : self.metadata.name).size() <= (self.spec.__import__.into == 'Apart' ? 54 : 59)").message("spec.import.serviceName: set it, because the name of the Service with -imported or -all behind it is longer than 63 characters").field_path(".spec.import.serviceName"))]
#[kube(validation = Rule::new("self.spec.__import__.into == 'Beside' || !has(self.spec.__import__.serviceName) || self.spec.__import__.serviceName != (has(self.spec.service.name) ? self.spec.service.name : self.metadata.name)").message("spec.import.serviceName: name another Service than that of the pods, or leave it out").field_path(".spec.import.serviceName"))]
#[kube(validation = Rule::new("self.spec.__import__.into != 'Beside' || !has(self.spec.__import__.serviceName)").message("spec.import.serviceName: imports Beside the pods have no Service of their own; leave it out").field_path(".spec.import.serviceName"))]
#[kube(validation = Rule::new("!has(self.spec.__import__.clusters) || self.spec.__import__.otherClusters == 'All'").message("spec.import.clusters: only otherClusters All has it; leave it out, or set spec.import.otherClusters to All").field_path(".spec.import.clusters"))]
#[kube(validation = Rule::new("has(self.spec.service.name) || (self.metadata.name.size() <= 63 && !self.metadata.name.contains('.'))").message("spec.service.name: set it, because metadata.name cannot be the name of a Service (at most 63 characters, no dots)").field_path(".spec.service.name"))]
#[serde(rename_all = "camelCase")]
#[allow(clippy::duplicated_attributes)] // printcolumns repeat their keys
pub struct RegisteredServiceSpec {
    /// The registry that the service is in.
    pub registry_ref: RegistryRef,
    /// The service's name in the registry: printable ASCII without `/` and `%`. Default: metadata.name. Hertz finds
    /// lower-case names only; the ServiceRegistry has to allow the name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[!-$&-.0-~]+$"))]
    pub registry_name: Option<String>,
    #[serde(default)]
    pub service: ServiceRef,
    /// The direction of instances: Export from the cluster to the registry, Import from the registry to the cluster, or
    /// Both.
    #[serde(default)]
    pub direction: Direction,
    /// Sync writes. Observe plans and reports what it would do in status, keeps alive what is written, and writes
    /// nothing.
    #[serde(default)]
    pub policy: Policy,
    #[serde(default)]
    pub export: Export,
    #[serde(default)]
    pub import: Import,
    #[serde(default)]
    pub deletion_guard: DeletionGuard,
    /// While true, what is written is kept alive and nothing else is written, as with policy Observe.
    #[serde(default)]
    pub suspend: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct RegistryRef {
    /// Name of a ServiceRegistry, which is cluster-scoped.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// The Kubernetes Service whose endpoints are exported and into which records are imported.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.create == 'Never' ? !has(self.ports) || self.ports.all(p, !has(p.number)) : \
     has(self.ports) && self.ports.size() > 0 && self.ports.all(p, has(p.number))").message("spec.service.ports: give a number for each port where create is Headless or ClusterIP, and none where it is Never").field_path(".ports"))]
pub struct ServiceRef {
    /// Name of the Service, in the namespace of the RegisteredService. Default: metadata.name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: Option<String>,
    /// The port of the Service that is exported, and under whose name imports appear. May be absent where the Service
    /// has one TCP port. More than one only for Kratos, each with a scheme of its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub ports: Vec<PortRef>,
    /// The answer to a missing Service: Never waits for it; Headless and ClusterIP create it without a
    /// selector, and delete it with the RegisteredService. A Service of other origin is never changed.
    #[serde(default)]
    pub create: CreateService,
}

/// A port of the Service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct PortRef {
    /// Name of the Service's port.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// Port number of the Service that is created. Required where create is Headless or ClusterIP, refused where it is
    /// Never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub number: Option<i32>,
    /// URL scheme of the port's endpoints in the registry; only for Kratos. Default: grpc.
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

/// The direction of instances.
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

/// Whether anything is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Policy {
    #[default]
    Sync,
    Observe,
}

/// The ends of the names of a Service of imports, where the spec names none.
const APART: &str = "-imported";
const TOGETHER: &str = "-all";

/// When deletions that nothing explains are held back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct DeletionGuard {
    /// Services with fewer instances are guarded only against losing their last one.
    #[schemars(range(min = 1, max = 100000))]
    pub min_instances: i32,
    /// The percentage of the instances that is removed within a minute although nothing explains it; more are held.
    #[schemars(range(min = 1, max = 100))]
    pub max_delete_percent: i32,
    /// How long deletions are held before they are carried out all the same, in seconds; 0 holds none.
    #[schemars(range(min = 0, max = 86400))]
    pub hold_seconds: i32,
}

impl Default for DeletionGuard {
    fn default() -> Self {
        Self { min_instances: 10, max_delete_percent: 50, hold_seconds: 300 }
    }
}

impl RegisteredService {
    pub fn key(&self) -> ServiceKey {
        let meta = &self.metadata;
        ServiceKey::new(meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default())
    }

    /// The name in the registry that it stands for.
    pub fn registry_name(&self) -> String {
        let name = self.spec.registry_name.clone().or_else(|| self.metadata.name.clone());
        name.unwrap_or_default()
    }

    /// Whether its status says, about the spec in force, that the ServiceRegistry does not grant it.
    pub fn is_denied(&self) -> bool {
        let accepted = self.current_status().and_then(|status| find(&status.conditions, ACCEPTED));
        accepted.is_some_and(|accepted| {
            accepted.status == ConditionStatus::False.as_str() && accepted.reason == Reason::NotAllowed.as_str()
        })
    }

    /// Whether its status says, about the spec in force, that it cannot be carried out.
    pub fn is_rejected(&self) -> bool {
        let accepted = self.current_status().and_then(|status| find(&status.conditions, ACCEPTED));
        accepted.is_some_and(|accepted| accepted.status == ConditionStatus::False.as_str())
    }

    /// Whether its spec lets Twinspan write for it.
    pub fn may_be_written(&self) -> bool {
        self.spec.policy == Policy::Sync && !self.spec.suspend
    }

    /// The status, if it is about the spec in force.
    pub fn current_status(&self) -> Option<&RegisteredServiceStatus> {
        let is_current = |observed: Option<i64>| observed.is_some() && observed == self.metadata.generation;
        self.status.as_ref().filter(|status| is_current(status.observed_generation))
    }

    /// The Service that it stands for.
    pub fn service_key(&self) -> ServiceKey {
        let ServiceKey { namespace, name } = self.key();
        ServiceKey::new(namespace, self.spec.service.name.as_ref().unwrap_or(&name))
    }

    /// The Service into which records are imported.
    pub fn import_service_key(&self) -> ServiceKey {
        let service = self.service_key();
        match (self.spec.import.into, &self.spec.import.service_name) {
            _ if !self.spec.direction.imports() => service,
            (ImportInto::Beside, _) => service,
            (_, Some(name)) => ServiceKey::new(service.namespace, name),
            (ImportInto::Apart, None) => ServiceKey::new(service.namespace, format!("{}{APART}", service.name)),
            (ImportInto::Together, None) => ServiceKey::new(service.namespace, format!("{}{TOGETHER}", service.name)),
        }
    }

    /// The place of imports, seen from the pods.
    pub fn import_place(&self) -> ImportPlace {
        match self.spec.import.into {
            _ if !self.spec.direction.imports() => ImportPlace::Beside,
            ImportInto::Beside => ImportPlace::Beside,
            ImportInto::Apart => ImportPlace::Apart,
            ImportInto::Together => ImportPlace::Together,
        }
    }

    /// The scheme of each port; at least one.
    pub fn schemes(&self, format: Format) -> Vec<String> {
        let ports = &self.spec.service.ports;
        let scheme = |port: &PortRef| port.scheme.clone().unwrap_or_else(|| format.default_scheme().to_owned());
        if ports.is_empty() { vec![format.default_scheme().to_owned()] } else { ports.iter().map(scheme).collect() }
    }

    /// `spec.import`, as the planner of the core takes it.
    pub fn import_options(&self, format: Format) -> import::Options {
        self.spec.import.options(self.schemes(format))
    }
}

impl From<&DeletionGuard> for Limits {
    fn from(guard: &DeletionGuard) -> Self {
        Self {
            min_instances: usize::try_from(guard.min_instances).unwrap_or_default(),
            max_delete_percent: usize::try_from(guard.max_delete_percent).unwrap_or_default(),
            hold: SignedDuration::from_secs(guard.hold_seconds.into()),
        }
    }
}

/// The state that the operator last saw.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RegisteredServiceStatus {
    /// The `metadata.generation` that this status is about; -1 until an operator has seen the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    /// The conditions in force, by type.
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
    /// The hold of the deletion guard, while there is one; the condition `DeletionsHeld` repeats it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<HoldStatus>,
    #[serde(default)]
    pub instances: Counts,
    /// Instances that one side has and the other lacks: held by the deletion guard, waiting for more evidence, lost, or
    /// left out; those first that matter most. At most 20, and 4 KiB; `instances` has the counts. Nothing is listed
    /// because a whole side is unavailable, which a condition says.
    #[serde(default, skip_serializing_if = "Differences::is_empty")]
    #[schemars(with = "Vec<Difference>", length(max = 20))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub differences: Differences,
}

/// How many instances there are, and where.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Counts {
    /// Ready endpoints that the cluster itself has, from slices that Twinspan does not manage.
    pub cluster: i64,
    /// Foreign records under the name: those of servers that registered themselves, of other clusters' Twinspan and of
    /// people.
    pub registry: i64,
    /// Own records that are in the registry: those that this RegisteredService exported.
    pub exported: i64,
    /// Endpoints that are in slices that Twinspan manages for it.
    pub imported: i64,
    /// Records and endpoints that are planned and not there: with policy Observe, while suspended, or where a write is
    /// refused. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pending: Option<i64>,
    /// Imported endpoints that lost their registration but still accept connections.
    pub lost: i64,
    /// Lost registrations that Twinspan has restored.
    pub healed: i64,
    /// Instances on one side that are left out on the other.
    pub skipped: i64,
    /// Deletions and exports that wait for evidence, or that the guard holds.
    pub held: i64,
}
