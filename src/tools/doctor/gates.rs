//! Checks of readiness gates: the permission to open them, its policy, and pods that wait in vain.
//!
//! Owns the advice for each. Refuses to know RegisteredServices.

use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicy;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use twinspan_core::model::READINESS_GATE;

use super::cluster::{Read, not_seen, operator, read};
use super::finding::{CLUSTER, Finding, Findings, Level};
use super::rbac::{self, Place, Subject};
use super::request::Request;
use crate::causes::of_kube;
use crate::cluster::convert;

/// The policy without which the permission to open readiness gates is one to write every status of a pod.
const GATES_POLICY: &str = "twinspan-pods";
/// Pods that are looked at for a gate that nobody opens, by pages.
const PAGE: u32 = 500;
const PAGES: usize = 40;

/// Readiness gates: the permission goes with its policy, and without it no pod may wait for one.
pub(super) async fn examine(request: &Request<'_>) -> Vec<Finding> {
    let (client, mut findings) = (&request.client, Findings::about(CLUSTER));
    match may_open_gates(request).await {
        Ok(Some(true)) => {
            let api: Api<ValidatingAdmissionPolicy> = Api::all(client.clone());
            let policies = "validatingadmissionpolicies";
            let name = &request.cluster_name(GATES_POLICY);
            match read(client, &api, "admissionregistration.k8s.io", policies, name).await {
                Ok(Read::Found(_)) => {
                    findings.add(Level::Ok, "the operator may open readiness gates, and is limited to that one condition of pods");
                }
                Ok(Read::Missing) => findings.add(
                    Level::Warn,
                    format!("there is no ValidatingAdmissionPolicy {name}; a stolen token could make any pod ready. It is in the chart (rollouts.enabled) and in deploy/rollouts.yaml"),
                ),
                Ok(Read::NotAllowed) => findings.add(Level::Warn, not_seen(&format!("ValidatingAdmissionPolicy {name}"))),
                Err(error) => findings.add(Level::Warn, format!("cannot read ValidatingAdmissionPolicy {name}: {}", of_kube(&error))),
            }
        }
        Ok(Some(false)) => match first_waiting(request).await {
            Ok(Some(pod)) => findings.add(
                Level::Warn,
                format!("pod {pod} waits for the readiness gate {READINESS_GATE}, and the operator may not open it; set rollouts.enabled of the chart, or take the gate out of the pod's template"),
            ),
            Ok(None) => {}
            Err(error) => findings.add(Level::Warn, format!("cannot list pods: {}", of_kube(&error))),
        },
        // Nothing is known of the operator's permissions, which is a finding already.
        Ok(None) | Err(_) => {}
    }
    findings.all
}

/// `None` where this account may not ask about the operator's.
async fn may_open_gates(request: &Request<'_>) -> kube::Result<Option<bool>> {
    let (client, user) = (&request.client, operator(request));
    let subject = Subject::new(client, &user).await?;
    if subject == Subject::Oneself && rbac::whoami(client).await? != user {
        return Ok(None);
    }
    let mut grant = rbac::granted_to_open_gates();
    if !request.watched.is_empty() {
        grant.place = Place::WatchedNamespaces;
    }
    subject.has(request, &grant).await.map(Some)
}

/// A pod whose gate nobody opened, if there is one among those that are looked at.
async fn first_waiting(request: &Request<'_>) -> kube::Result<Option<String>> {
    let client = &request.client;
    if !rbac::may(client, "list", "", "pods", "").await? {
        return Ok(None);
    }
    let api: Api<Pod> = Api::all(client.clone());
    let mut params = ListParams::default().limit(PAGE);
    for _ in 0..PAGES {
        let page = api.list(&params).await?;
        let waits = |pod: &&Pod| convert::pod(pod).gate.is_some_and(|gate| !gate.passed);
        if let Some(pod) = page.items.iter().find(waits) {
            return Ok(Some(format!("{}/{}", pod.namespace().unwrap_or_default(), pod.name_any())));
        }
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => break,
        }
    }
    Ok(None)
}
