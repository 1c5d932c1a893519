//! The kinds that the server serves, and the rules of each that the registries of Kubernetes set by kind.
//!
//! Owns the table: names, scope, subresource, and the answers of the strategies (`pkg/registry/*/strategy.go`,
//! v1.37.2). Refuses to know what a write does with them.

use serde_json::Value;

use crate::schema::Schema;

/// The strategy of a kind.
#[derive(Clone, Debug)]
pub enum Family {
    Pod,
    Service,
    EndpointSlice,
    Namespace,
    Node,
    ServiceCidr,
    Secret,
    Lease,
    Event,
    /// Custom resources.
    Custom {
        status: bool,
        schema: Box<Schema>,
    },
}

#[derive(Clone, Debug)]
pub struct Kind {
    pub group: String,
    pub version: String,
    pub kind: String,
    pub plural: String,
    pub namespaced: bool,
    pub family: Family,
}

const BUILT_IN: [(&str, &str, &str, &str, bool, Family); 9] = [
    ("", "v1", "Namespace", "namespaces", false, Family::Namespace),
    ("", "v1", "Node", "nodes", false, Family::Node),
    ("", "v1", "Pod", "pods", true, Family::Pod),
    ("", "v1", "Secret", "secrets", true, Family::Secret),
    ("", "v1", "Service", "services", true, Family::Service),
    ("coordination.k8s.io", "v1", "Lease", "leases", true, Family::Lease),
    ("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices", true, Family::EndpointSlice),
    ("events.k8s.io", "v1", "Event", "events", true, Family::Event),
    ("networking.k8s.io", "v1", "ServiceCIDR", "servicecidrs", false, Family::ServiceCidr),
];

/// The built-in kinds that a controller uses, and those of the CustomResourceDefinitions.
pub fn all(crds: &[Value]) -> Vec<Kind> {
    let built_in = BUILT_IN.into_iter().map(|(group, version, kind, plural, namespaced, family)| Kind {
        group: group.to_owned(),
        version: version.to_owned(),
        kind: kind.to_owned(),
        plural: plural.to_owned(),
        namespaced,
        family,
    });
    built_in.chain(crds.iter().flat_map(custom)).collect()
}

/// The served versions of a CustomResourceDefinition.
fn custom(crd: &Value) -> Vec<Kind> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (spec, names) = (&crd["spec"], &crd["spec"]["names"]);
    let versions = spec["versions"].as_array().into_iter().flatten().filter(|version| version["served"] == true);
    versions
        .map(|version| Kind {
            group: text(&spec["group"]),
            version: text(&version["name"]),
            kind: text(&names["kind"]),
            plural: text(&names["plural"]),
            namespaced: spec["scope"] == "Namespaced",
            family: Family::Custom {
                status: version["subresources"].get("status").is_some(),
                schema: Box::new(Schema::new(&version["schema"]["openAPIV3Schema"])),
            },
        })
        .collect()
}

impl Kind {
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    /// The resource with its group: `endpointslices.discovery.k8s.io`.
    pub fn qualified(&self) -> String {
        qualified(&self.plural, &self.group)
    }

    /// The kind with its group: `EndpointSlice.discovery.k8s.io`.
    pub fn qualified_kind(&self) -> String {
        qualified(&self.kind, &self.group)
    }

    pub fn has_status(&self) -> bool {
        match &self.family {
            Family::Pod | Family::Service | Family::Namespace | Family::Node | Family::ServiceCidr => true,
            Family::EndpointSlice | Family::Secret | Family::Lease | Family::Event => false,
            Family::Custom { status, .. } => *status,
        }
    }

    /// `AllowCreateOnUpdate`: a replace creates what is missing.
    pub fn creates_on_update(&self) -> bool {
        matches!(self.family, Family::Service | Family::Lease | Family::Event)
    }

    /// `AllowUnconditionalUpdate`: a replace needs no resourceVersion.
    pub fn allows_unconditional_update(&self) -> bool {
        !matches!(self.family, Family::Lease | Family::Custom { .. })
    }

    /// `ReturnDeletedObject`: the answer to a delete is the object, not a Status.
    pub fn returns_deleted(&self) -> bool {
        matches!(self.family, Family::Pod | Family::Service | Family::Namespace)
    }

    /// The key of an object, in etcd's order below `/registry/<resource>/`.
    pub fn key(&self, namespace: &str, name: &str) -> String {
        if self.namespaced { format!("{namespace}/{name}") } else { name.to_owned() }
    }
}

fn qualified(name: &str, group: &str) -> String {
    if group.is_empty() { name.to_owned() } else { format!("{name}.{group}") }
}
