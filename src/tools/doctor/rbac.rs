//! The permissions that the operator needs, each verb on each resource.
//!
//! Owns the list, which a test keeps equal to the manifests. Refuses to grant anything: it asks the API server by
//! access reviews.

use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec, SubjectAccessReview,
    SubjectAccessReviewSpec,
};
use kube::api::PostParams;
use kube::{Api, Client};

use super::request::Request;

/// The scope of a grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    Cluster,
    /// Only in the operator's own namespace.
    OwnNamespace,
    /// In each namespace that namespaced mode looks at; of the namespaces themselves, each by its name.
    WatchedNamespaces,
}

/// One verb on one resource.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Grant {
    pub place: Place,
    pub group: &'static str,
    /// The resource with its subresource: `pods`, `registeredservices/status`.
    pub resource: &'static str,
    /// Only the object of this name; empty for all.
    pub name: &'static str,
    pub verb: &'static str,
}

/// Place, group, resource, name, verbs: what the chart and `deploy/twinspan.yaml` grant.
const RULES: [(Place, &str, &str, &str, &[&str]); 14] = [
    (Place::Cluster, "twinspan.dev", "registeredservices", "", &["list", "watch"]),
    (Place::Cluster, "twinspan.dev", "serviceregistries", "", &["list", "watch"]),
    (Place::Cluster, "twinspan.dev", "registeredservices/status", "", &["patch"]),
    (Place::Cluster, "twinspan.dev", "serviceregistries/status", "", &["patch"]),
    (Place::Cluster, "", "services", "", &["list", "watch", "create", "patch", "delete"]),
    (Place::Cluster, "", "namespaces", "", &["list", "watch"]),
    (Place::Cluster, "", "nodes", "", &["list", "watch"]),
    (Place::Cluster, "", "pods", "", &["list", "watch"]),
    (Place::Cluster, "networking.k8s.io", "servicecidrs", "", &["list", "watch"]),
    (Place::Cluster, "discovery.k8s.io", "endpointslices", "", &["list", "watch", "create", "update", "delete"]),
    (Place::Cluster, "coordination.k8s.io", "leases", "twinspan", &["list"]),
    (Place::Cluster, "events.k8s.io", "events", "", &["create", "patch"]),
    (Place::OwnNamespace, "", "secrets", "", &["list", "watch"]),
    (Place::OwnNamespace, "coordination.k8s.io", "leases", "twinspan", &["get", "update"]),
];
/// RBAC cannot limit `create` to a name.
const CREATE_LEASE: Grant =
    Grant { place: Place::OwnNamespace, group: "coordination.k8s.io", resource: "leases", name: "", verb: "create" };

/// The verbs on RegisteredServices that discovery uses besides, and that `deploy/discovery.yaml` grants.
const DISCOVERY: &[&str] = &["create", "delete", "update"];

/// The permissions that only discovery needs, sorted.
pub fn granted_to_discover() -> Vec<Grant> {
    let (group, resource) = ("twinspan.dev", "registeredservices");
    DISCOVERY.iter().map(|verb| Grant { place: Place::Cluster, group, resource, name: "", verb }).collect()
}

/// The permission that only readiness gates need, and that `deploy/rollouts.yaml` grants.
pub fn granted_to_open_gates() -> Grant {
    Grant { place: Place::Cluster, group: "", resource: "pods/status", name: "", verb: "patch" }
}

/// All permissions that the operator needs without discovery and without readiness gates, sorted.
pub fn granted() -> Vec<Grant> {
    let each = |(place, group, resource, name, verbs): (Place, _, _, _, &'static [&'static str])| {
        verbs.iter().map(move |verb| Grant { place, group, resource, name, verb })
    };
    let mut all: Vec<Grant> = RULES.into_iter().flat_map(each).collect();
    all.push(CREATE_LEASE);
    all.sort();
    all
}

/// Of these permissions those that namespaced mode needs, where it needs them: it looks at nothing of the whole cluster
/// but ServiceRegistries.
pub fn in_namespaces(grants: Vec<Grant>) -> Vec<Grant> {
    let moved = |grant: Grant| match (grant.place, grant.resource) {
        (Place::OwnNamespace | Place::WatchedNamespaces, _) => Some(grant),
        (Place::Cluster, "serviceregistries" | "serviceregistries/status") => Some(grant),
        (Place::Cluster, "nodes" | "servicecidrs" | "leases") => None,
        (Place::Cluster, _) => Some(Grant { place: Place::WatchedNamespaces, ..grant }),
    };
    grants.into_iter().filter_map(moved).collect()
}

/// The account about which the API server is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    User(String),
    /// The account of this process, if it may not ask about others, as the operator itself.
    Oneself,
}

impl Subject {
    /// The user, if the account of this process may ask about others.
    pub async fn new(client: &Client, user: &str) -> kube::Result<Self> {
        let asks = may(client, "create", "authorization.k8s.io", "subjectaccessreviews", "").await?;
        Ok(if asks { Self::User(user.to_owned()) } else { Self::Oneself })
    }

    /// Asks the API server whether the subject has the grant; in every watched namespace, where it is one for those.
    ///
    /// # Errors
    /// The error of a request.
    pub async fn has(&self, request: &Request<'_>, grant: &Grant) -> kube::Result<bool> {
        let client = &request.client;
        match grant.place {
            Place::Cluster | Place::OwnNamespace => self.is_granted(client, request.operator_namespace, grant).await,
            Place::WatchedNamespaces => {
                for namespace in request.watched {
                    if !self.is_granted(client, namespace, grant).await? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
        }
    }

    /// Asks about a grant in the whole cluster, or in one namespace if it is one for namespaces.
    ///
    /// # Errors
    /// The error of the request.
    pub async fn is_granted(&self, client: &Client, namespace: &str, grant: &Grant) -> kube::Result<bool> {
        let (resource, subresource) = match grant.resource.split_once('/') {
            Some((resource, subresource)) => (resource, Some(subresource.to_owned())),
            None => (grant.resource, None),
        };
        let is_watched = grant.place == Place::WatchedNamespaces;
        // A namespace itself is in none.
        let name = if is_watched && resource == "namespaces" { namespace } else { grant.name };
        let is_inside = grant.place != Place::Cluster && resource != "namespaces";
        let attributes = ResourceAttributes {
            subresource,
            namespace: is_inside.then(|| namespace.to_owned()),
            ..attributes(grant.verb, grant.group, resource, name)
        };
        let Self::User(user) = self else { return review_oneself(client, attributes).await };
        let spec = SubjectAccessReviewSpec {
            resource_attributes: Some(attributes),
            user: Some(user.clone()),
            ..SubjectAccessReviewSpec::default()
        };
        let review = SubjectAccessReview { spec, ..SubjectAccessReview::default() };
        let reviews: Api<SubjectAccessReview> = Api::all(client.clone());
        let answer = reviews.create(&PostParams::default(), &review).await?;
        Ok(answer.status.is_some_and(|status| status.allowed))
    }
}

/// Whether the account of this process has a permission in the whole cluster; an empty name means every object. Every
/// account may ask about itself.
pub async fn may(client: &Client, verb: &str, group: &str, resource: &str, name: &str) -> kube::Result<bool> {
    review_oneself(client, attributes(verb, group, resource, name)).await
}

/// The user name of the account of this process; empty if the API server does not say it.
///
/// # Errors
/// The error of the request.
pub async fn whoami(client: &Client) -> kube::Result<String> {
    let reviews: Api<SelfSubjectReview> = Api::all(client.clone());
    let answer = reviews.create(&PostParams::default(), &SelfSubjectReview::default()).await?;
    let user = answer.status.and_then(|status| status.user_info).and_then(|user| user.username);
    Ok(user.unwrap_or_default())
}

async fn review_oneself(client: &Client, attributes: ResourceAttributes) -> kube::Result<bool> {
    let spec = SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), ..Default::default() };
    let review = SelfSubjectAccessReview { spec, ..SelfSubjectAccessReview::default() };
    let reviews: Api<SelfSubjectAccessReview> = Api::all(client.clone());
    let answer = reviews.create(&PostParams::default(), &review).await?;
    Ok(answer.status.is_some_and(|status| status.allowed))
}

fn attributes(verb: &str, group: &str, resource: &str, name: &str) -> ResourceAttributes {
    ResourceAttributes {
        verb: Some(verb.to_owned()),
        group: Some(group.to_owned()),
        resource: Some(resource.to_owned()),
        name: (!name.is_empty()).then(|| name.to_owned()),
        ..ResourceAttributes::default()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule, Role};
    use serde::Deserialize;

    use super::*;

    type Flat = BTreeSet<(Place, String, String, String, String)>;

    fn flat(place: Place, rules: Vec<PolicyRule>) -> Flat {
        let mut all = Flat::new();
        for rule in rules {
            let names = match rule.resource_names.unwrap_or_default() {
                names if names.is_empty() => vec![String::new()],
                names => names,
            };
            for group in rule.api_groups.iter().flatten() {
                for resource in rule.resources.iter().flatten() {
                    for verb in &rule.verbs {
                        all.extend(
                            names.iter().map(|n| (place, group.clone(), resource.clone(), n.clone(), verb.clone())),
                        );
                    }
                }
            }
        }
        all
    }

    /// The permissions of the operator in a manifest. The other roles are for people.
    fn installed(manifest: &str) -> Flat {
        let mut installed = Flat::new();
        for document in serde_yaml::Deserializer::from_str(manifest) {
            let value = serde_yaml::Value::deserialize(document).unwrap();
            if value["metadata"]["name"] != "twinspan" && value["metadata"]["name"] != "twinspan-rollouts" {
                continue;
            }
            match value["kind"].as_str() {
                Some("ClusterRole") => {
                    let role: ClusterRole = serde_yaml::from_value(value).unwrap();
                    installed.extend(flat(Place::Cluster, role.rules.unwrap_or_default()));
                }
                Some("Role") => {
                    let role: Role = serde_yaml::from_value(value).unwrap();
                    installed.extend(flat(Place::OwnNamespace, role.rules.unwrap_or_default()));
                }
                _ => {}
            }
        }
        installed
    }

    #[test]
    fn what_is_checked_is_what_is_installed() {
        let flat = |all: Vec<Grant>| -> Flat {
            let flat = all
                .into_iter()
                .map(|g| (g.place, g.group.to_owned(), g.resource.to_owned(), g.name.to_owned(), g.verb.to_owned()));
            flat.collect()
        };
        let without = installed(include_str!("../../../deploy/twinspan.yaml"));
        assert_eq!(flat(granted()), without);
        // The other manifest replaces the ClusterRole, so that it has all of it.
        let with = installed(include_str!("../../../deploy/discovery.yaml"));
        assert_eq!(flat(granted_to_discover()), &with - &without);
        let gates = installed(include_str!("../../../deploy/rollouts.yaml"));
        assert_eq!(flat(vec![granted_to_open_gates()]), gates);
        assert!((&without - &with).iter().all(|(place, ..)| *place == Place::OwnNamespace), "{with:?}");
    }
}
