//! `spec.discovery` of a ServiceRegistry: the RegisteredServices that it makes by itself.
//!
//! Owns the fields, their bounds and defaults, their conversion to the core, and the part of the status. Refuses to
//! know what is found.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use twinspan_core::codec::Format;
use twinspan_core::plan::discovery::facts;
use twinspan_core::plan::discovery::names::Template;

use super::Selector;

/// Makes RegisteredServices for Services of the cluster, for names in the registry, or both.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.export) || has(self.__import__)").message("spec.discovery: give export, import or both; leave discovery out for none").field_path(".export"))]
pub struct Discovery {
    /// Observe makes, changes and deletes nothing: the status counts what there would be to do, and `twinspan plan`
    /// names it. Sync does it.
    #[serde(default)]
    pub policy: DiscoveryPolicy,
    /// Selects the Services that get a RegisteredService of their own name, which exports them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub export: Option<DiscoverExports>,
    /// Selects the names of the registry that get a RegisteredService, which imports them into a headless Service of
    /// its own. Needs a prefix, because without one only names that are asked for are known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub import: Option<DiscoverImports>,
}

/// Whether discovery writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DiscoveryPolicy {
    #[default]
    Observe,
    Sync,
}

/// The Services that are exported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct DiscoverExports {
    /// Selects namespaces by their labels; empty selects all. Only here the annotations of discovery count.
    pub namespace_selector: Selector,
    /// Selects Services by their labels; empty selects all. Absent selects those that are annotated
    /// `twinspan.dev/export: "true"`, or whose namespace is. An annotation wins over the selector, that of the Service
    /// over that of the namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_selector: Option<Selector>,
    /// The name in the registry, with `{name}` and `{namespace}` for those of the Service. The annotation
    /// `twinspan.dev/registry-name` of a Service wins.
    #[serde(default = "name_alone")]
    #[schemars(
        length(max = 253),
        regex(pattern = r"^([!-$&-.0-z|~]|\{name\}|\{namespace\})*\{name\}([!-$&-.0-z|~]|\{name\}|\{namespace\})*$")
    )]
    pub name_template: String,
}

/// The names that are imported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct DiscoverImports {
    /// The namespace of the RegisteredServices and their Services.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub namespace: String,
    /// Names in the registry; `*` stands for any characters, none included. A name counts while it has a record of a
    /// server or a person: no own one, none that Twinspan restored, none of another cluster's Twinspan.
    #[serde(default = "every_name")]
    #[schemars(length(min = 1, max = 64), inner(length(min = 1, max = 253), regex(pattern = r"^[!-$&-.0-~]+$")))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub include: Vec<String>,
    /// Names that are left out all the same.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 253), regex(pattern = r"^[!-$&-.0-~]+$")))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub exclude: Vec<String>,
    /// The name in Kubernetes, with `{name}` for that in the registry and `{namespace}` for `namespace`. A name that is
    /// no DNS label is made one, in lower case and with hyphens, and gets a hash at its end.
    #[serde(default = "name_alone")]
    #[schemars(
        length(max = 253),
        regex(pattern = r"^([!-$&-.0-z|~]|\{name\}|\{namespace\})*\{name\}([!-$&-.0-z|~]|\{name\}|\{namespace\})*$")
    )]
    pub name_template: String,
    /// The most RegisteredServices that are made for names. Beyond it nothing more is made, and what exists stays.
    #[serde(default = "max_services")]
    #[schemars(range(min = 1, max = 10000))]
    pub max_services: i32,
}

fn name_alone() -> String {
    "{name}".to_owned()
}

fn every_name() -> Vec<String> {
    vec!["*".to_owned()]
}

fn max_services() -> i32 {
    500
}

/// The rule about registries whose names cannot all be known.
pub(super) fn prefix_rule() -> String {
    let named = Format::ALL.iter().filter(|format| !format.default_prefix().is_empty());
    let named: Vec<String> = named.map(|format| format!("'{}'", format.as_str())).collect();
    let has_prefix = format!("has(self.prefix) ? self.prefix != '' : self.format in [{}]", named.join(", "));
    format!("!has(self.discovery) || !has(self.discovery.__import__) || ({has_prefix})")
}

impl From<&Discovery> for facts::Settings {
    fn from(discovery: &Discovery) -> Self {
        let export = discovery.export.as_ref().map(|export| facts::ExportSettings {
            namespaces: (&export.namespace_selector).into(),
            services: export.service_selector.as_ref().map(Into::into),
            template: Template::new(&export.name_template),
        });
        let import = discovery.import.as_ref().map(|import| facts::ImportSettings {
            namespace: import.namespace.clone(),
            include: import.include.clone(),
            exclude: import.exclude.clone(),
            template: Template::new(&import.name_template),
            most: usize::try_from(import.max_services).unwrap_or_default(),
        });
        Self { writes: discovery.policy == DiscoveryPolicy::Sync, export, import }
    }
}

/// The findings of discovery, and the objects that it made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct DiscoveryStatus {
    /// RegisteredServices that it made for Services.
    #[serde(default)]
    pub exports: i64,
    /// RegisteredServices that it made for names in the registry.
    #[serde(default)]
    pub imports: i64,
    /// RegisteredServices that are still to be made, changed or deleted; with policy Observe, that would be.
    #[serde(default)]
    pub pending: i64,
    /// Services and names for which none is made, although they are selected.
    #[serde(default)]
    pub refused: i64,
    /// The first of them, at most 5.
    #[schemars(length(max = 5))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub refusals: Vec<DiscoveryRefusal>,
}

/// A Service or a name for which no RegisteredService is made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct DiscoveryRefusal {
    /// The Service, the namespace, the name in the registry, or the RegisteredService: `Service shop/echo`.
    #[schemars(length(max = 512))]
    pub object: String,
    /// Why, as one word.
    #[schemars(length(max = 64))]
    pub reason: String,
    /// For people: what is the matter, and what to do.
    #[schemars(length(max = 1024))]
    pub message: String,
}
