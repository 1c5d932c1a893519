//! Checks of the cluster: the API server and its clock, our CRDs and policies, the operator's permissions, the leader.
//!
//! Owns the advice for each. Refuses to change anything.

use std::fmt::Debug;

use jiff::fmt::rfc2822;
use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicy;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, CustomResourceValidation,
};
use kube::{Api, Client};
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use super::finding::{CLUSTER, Finding, Findings, Level};
use super::rbac::{self, Grant, Subject};
use super::request::Request;
use super::versions;
use crate::api::crds;
use crate::causes::of_kube;
use crate::env::Env;
use crate::leadership;

/// The greatest good difference between the clocks: deadlines on slices and holds in status are times of the API
/// server.
const SKEW_SECONDS: f64 = 2.0;
/// The policies in the chart and in `deploy/twinspan.yaml`: names, and the objects that each limits.
const POLICIES: [(&str, &str); 2] = [("twinspan-endpointslices", "EndpointSlices"), ("twinspan-services", "Services")];

/// The findings, and whether the API server answers.
pub async fn examine(request: &Request<'_>) -> (Vec<Finding>, bool) {
    let mut findings = Findings::about(CLUSTER);
    let asked = answers(request, &mut findings).await;
    if asked {
        definitions(&request.client, &mut findings).await;
        let found_in = "this version's chart or deploy/twinspan.yaml";
        permissions(request, Needs { grants: rbac::granted(), user: "the operator", found_in }, &mut findings).await;
        for (name, what) in POLICIES {
            let kept = Kept { name, what, found_in: "the chart and in deploy/twinspan.yaml" };
            policy(request, &kept, &mut findings).await;
        }
        leader(request, &mut findings).await;
    }
    (findings.all, asked)
}

async fn answers(request: &Request<'_>, findings: &mut Findings<'_>) -> bool {
    let Request { client, server, .. } = request;
    let began = Instant::now();
    let request = http::Request::get("/version").body(kube::client::Body::empty());
    let answer = match request {
        Ok(request) => client.send(request).await,
        Err(error) => {
            findings.add(Level::Fail, format!("cannot ask the API server: {error}"));
            return false;
        }
    };
    let took = began.elapsed();
    let response = match answer {
        Ok(response) if response.status() == http::StatusCode::UNAUTHORIZED => {
            let text = format!("the API server at {server} does not accept the credentials (401); log in again");
            findings.add(Level::Fail, text);
            return false;
        }
        Ok(response) => response,
        Err(error) => {
            findings.add(
                Level::Fail,
                format!(
                    "the API server at {server} does not answer: {}; check the kubeconfig and the network",
                    of_kube(&error)
                ),
            );
            return false;
        }
    };
    let ours = Env::real().now();
    let version = client.apiserver_version().await.map(|info| info.git_version).unwrap_or_default();
    match versions::kubernetes_complaint(&version) {
        None => findings.add(Level::Ok, format!("Kubernetes {version} answers in {} ms", took.as_millis())),
        Some(complaint) => findings.add(Level::Fail, complaint),
    }
    let date = response.headers().get(http::header::DATE).and_then(|date| date.to_str().ok());
    if let Some(theirs) = date.and_then(|date| rfc2822::parse(date).ok()) {
        let skew = ours.duration_since(theirs.timestamp()).as_secs_f64().abs();
        if skew > SKEW_SECONDS {
            findings.add(Level::Warn, format!("clocks differ by {skew:.0} s: holds and deadlines follow the API server's clock, certificates and logs this machine's. Synchronise them"));
        } else {
            findings.add(Level::Ok, format!("clocks differ by less than {SKEW_SECONDS:.0} s"));
        }
    }
    true
}

async fn definitions(client: &Client, findings: &mut Findings<'_>) {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    for (file, wanted) in crds::all().unwrap_or_default() {
        let name = wanted["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        match read(client, &api, "apiextensions.k8s.io", "customresourcedefinitions", &name).await {
            Ok(Read::Missing) => {
                findings.add(Level::Fail, format!("there is no CRD {name}; kubectl apply -f crds/{file}"));
            }
            Ok(Read::NotAllowed) => findings.add(Level::Warn, not_seen(&format!("CRD {name}"))),
            Err(error) => findings.add(Level::Warn, format!("cannot read CRD {name}: {}", of_kube(&error))),
            Ok(Read::Found(found)) => {
                // Compares both in the form of the client's types.
                let wanted: Option<CustomResourceDefinition> = serde_json::from_value(wanted).ok();
                if wanted.is_some_and(|wanted| versions(&wanted) == versions(&found)) {
                    findings.add(Level::Ok, format!("CRD {name} is the one of this version"));
                } else {
                    findings.add(
                        Level::Warn,
                        format!("CRD {name} is another one than this version's; twinspan crds | kubectl apply -f -"),
                    );
                }
            }
        }
    }
}

/// The result of reading an object that the operator itself may not read.
pub(super) enum Read<K> {
    Found(Box<K>),
    Missing,
    NotAllowed,
}

/// Reads an object if that is allowed. A denied request in a pod of the operator would be a puzzling line in the audit
/// log.
pub(super) async fn read<K>(
    client: &Client,
    api: &Api<K>,
    group: &str,
    resource: &str,
    name: &str,
) -> kube::Result<Read<K>>
where
    K: Clone + DeserializeOwned + Debug,
{
    if !rbac::may(client, "get", group, resource, name).await? {
        return Ok(Read::NotAllowed);
    }
    Ok(api.get_opt(name).await?.map_or(Read::Missing, |found| Read::Found(Box::new(found))))
}

pub(super) fn not_seen(what: &str) -> String {
    format!("{what} was not looked at, for this account may not read it; run doctor as an administrator as well")
}

/// Names and schemas of the versions; elsewhere the API server adds defaults.
fn versions(crd: &CustomResourceDefinition) -> Vec<(&str, Option<&CustomResourceValidation>)> {
    crd.spec.versions.iter().map(|version| (version.name.as_str(), version.schema.as_ref())).collect()
}

/// The permissions that a part of the operator needs, and the place of those that it lacks.
pub(super) struct Needs {
    pub grants: Vec<Grant>,
    pub user: &'static str,
    pub found_in: &'static str,
}

pub(super) async fn permissions(request: &Request<'_>, needs: Needs, findings: &mut Findings<'_>) {
    let Needs { grants, user, found_in } = needs;
    let grants = if request.watched.is_empty() { grants } else { rbac::in_namespaces(grants) };
    match lacks(request, &grants).await {
        Ok((who, missing)) if missing.is_empty() => {
            let who = named(&who, request);
            findings.add(Level::Ok, format!("{who} is allowed all {} verbs that {user} uses", grants.len()));
        }
        // The operator's own account in its pod may not ask about others either, and is the one that is meant.
        Ok((Subject::Oneself, _)) if rbac::whoami(&request.client).await.is_ok_and(|who| who != operator(request)) => {
            findings.add(Level::Warn, not_seen(&format!("the permissions of {user}")));
        }
        Ok((who, missing)) => {
            let who = named(&who, request);
            let text = format!("{who} is not allowed: {}; apply the roles of {found_in}", missing.join(", "));
            findings.add(Level::Fail, text);
        }
        Err(error) => {
            findings.add(Level::Warn, format!("cannot see what {user} is allowed: {}", of_kube(&error)));
        }
    }
}

/// The account that was checked, and the grants that it lacks.
async fn lacks(request: &Request<'_>, grants: &[Grant]) -> kube::Result<(Subject, Vec<String>)> {
    let subject = Subject::new(&request.client, &operator(request)).await?;
    let mut missing = Vec::new();
    for grant in grants {
        if !subject.has(request, grant).await? {
            missing.push(format!("{} {}", grant.verb, grant.resource));
        }
    }
    Ok((subject, missing))
}

/// The user name of the operator's ServiceAccount.
pub(super) fn operator(request: &Request<'_>) -> String {
    format!("system:serviceaccount:{}:{}", request.operator_namespace, request.service_account)
}

fn named(subject: &Subject, request: &Request<'_>) -> String {
    match subject {
        Subject::User(user) => user.clone(),
        Subject::Oneself => format!("the account that runs this, which may not ask about {},", operator(request)),
    }
}

/// A policy that limits the operator's account, the objects that it limits, and its place.
pub(super) struct Kept {
    pub name: &'static str,
    pub what: &'static str,
    pub found_in: &'static str,
}

pub(super) async fn policy(request: &Request<'_>, kept: &Kept, findings: &mut Findings<'_>) {
    let client = &request.client;
    let api: Api<ValidatingAdmissionPolicy> = Api::all(client.clone());
    let Kept { what, found_in, .. } = kept;
    let name = &request.cluster_name(kept.name);
    match read(client, &api, "admissionregistration.k8s.io", "validatingadmissionpolicies", name).await {
        Ok(Read::Found(_)) => findings.add(Level::Ok, format!("the operator is limited to {what} of its own")),
        Ok(Read::Missing) => findings.add(
            Level::Warn,
            format!(
                "there is no ValidatingAdmissionPolicy {name}; a stolen token could change others' {what}. It is in {found_in}"
            ),
        ),
        Ok(Read::NotAllowed) => findings.add(Level::Warn, not_seen(&format!("ValidatingAdmissionPolicy {name}"))),
        Err(error) => {
            findings.add(Level::Warn, format!("cannot read ValidatingAdmissionPolicy {name}: {}", of_kube(&error)));
        }
    }
}

async fn leader(request: &Request<'_>, findings: &mut Findings<'_>) {
    match leadership::leader(&request.client, request.operator_namespace, Env::real().now()).await {
        Ok(Some(holder)) => findings.add(Level::Ok, format!("{holder} leads")),
        Ok(None) => findings
            .add(Level::Warn, format!("no leader in namespace {}; does the operator run?", request.operator_namespace)),
        Err(error) => findings.add(Level::Warn, format!("cannot read the Lease: {}", of_kube(&error))),
    }
}
