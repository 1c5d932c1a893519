//! Checks of a ServiceRegistry whose discovery writes: its verbs on RegisteredServices, and their policy.
//!
//! Owns the place of both. Refuses to know what discovery selects.

use super::cluster::{Kept, Needs, permissions, policy};
use super::finding::Findings;
use super::rbac;
use super::request::Request;
use crate::api::{DiscoveryPolicy, ServiceRegistry};

const FOUND_IN: &str = "the chart with discovery.enabled or deploy/discovery.yaml";

pub(super) async fn examine(request: &Request<'_>, object: &ServiceRegistry, findings: &mut Findings<'_>) {
    if object.spec.discovery.as_ref().is_none_or(|discovery| discovery.policy != DiscoveryPolicy::Sync) {
        return;
    }
    let needs = Needs { grants: rbac::granted_to_discover(), user: "discovery", found_in: FOUND_IN };
    permissions(request, needs, findings).await;
    let kept = Kept { name: "twinspan-registeredservices", what: "RegisteredServices", found_in: FOUND_IN };
    policy(request, &kept, findings).await;
}
