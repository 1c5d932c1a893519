//! The files of a bundle.
//!
//! Owns their list. A part that cannot be collected is a line in `problems.txt`, and no end. Refuses to clean what it
//! collects, which happens on the way into each file and once more over all of them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use super::objects::{self, list, yaml};
use super::scrub::scrub;
use super::{Bundle, REMOVED, Request, pods};
use crate::api::RegisteredService;
use crate::leadership::LEASE;
use crate::tools::instances::{self, Answer};
use crate::tools::status::{Selection, status};
use crate::tools::version::Versions;
use crate::tools::{doctor, lookup};

/// The time that one registry may take.
const REGISTRY: Duration = Duration::from_secs(20);
/// Namespaces whose Services are read.
const NAMESPACES: usize = 200;
const OURS: &str = "labelSelector=app.kubernetes.io%2Fname%3Dtwinspan";

/// Collects what this account may read.
pub async fn collect(request: &Request<'_>) -> Bundle {
    let (client, namespace) = (&request.client, request.operator_namespace);
    let mut bundle = Bundle::default();
    add(&mut bundle, "version.json", pretty(&Versions::read(client, namespace).await));
    let overview = status(client, namespace, &Selection::default(), namespace).await;
    add(&mut bundle, "status.txt", overview.map(|found| found.to_string()).map_err(|error| error.to_string()));
    add(&mut bundle, "doctor.txt", Ok(examined(request).await));

    let services =
        kind(request, &mut bundle, "RegisteredService", "/apis/twinspan.dev/v1alpha1/registeredservices", "").await;
    kind(request, &mut bundle, "ServiceRegistry", "/apis/twinspan.dev/v1alpha1/serviceregistries", "").await;
    let managed = "labelSelector=endpointslice.kubernetes.io%2Fmanaged-by%3Dtwinspan.dev";
    kind(request, &mut bundle, "EndpointSlice", "/apis/discovery.k8s.io/v1/endpointslices", managed).await;
    of_services(request, &mut bundle, &services).await;
    let deployments = format!("/apis/apps/v1/namespaces/{namespace}/deployments");
    kind(request, &mut bundle, "Deployment", &deployments, OURS).await;
    let at = format!("/api/v1/namespaces/{namespace}/pods");
    let replicas = kind(request, &mut bundle, "Pod", &at, OURS).await;
    pods::add(client, namespace, &replicas, &mut bundle).await;
    let lease = format!("/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/{LEASE}");
    let lease = objects::get(client, &lease).await.and_then(|lease| yaml("Lease", vec![lease], request.with_values));
    add(&mut bundle, "lease.yaml", lease);
    events(request, &mut bundle).await;
    let known = registered(request, &mut bundle).await;

    for text in bundle.files.values_mut().chain(bundle.problems.iter_mut()) {
        *text = scrub(text, &known);
    }
    if !bundle.problems.is_empty() {
        bundle.files.insert("problems.txt".to_owned(), bundle.problems.join("\n") + "\n");
    }
    bundle
}

fn add(bundle: &mut Bundle, name: &str, answer: Result<String, String>) {
    match answer {
        Ok(text) => drop(bundle.files.insert(name.to_owned(), text)),
        Err(why) => bundle.problems.push(format!("{name}: {why}")),
    }
}

fn pretty(value: &impl Serialize) -> Result<String, String> {
    serde_json::to_string_pretty(value).map(|text| text + "\n").map_err(|error| error.to_string())
}

async fn examined(request: &Request<'_>) -> String {
    let asked = doctor::Request {
        client: request.client.clone(),
        server: request.server,
        operator_namespace: request.operator_namespace,
        service_account: request.service_account,
        networks: request.networks.clone(),
        socket: None,
        registries: &[],
        watched: &[],
    };
    doctor::examine(&asked).await.to_string()
}

/// Adds every object of a kind. Returns them as they were read.
async fn kind(request: &Request<'_>, bundle: &mut Bundle, kind: &str, path: &str, query: &str) -> Vec<Value> {
    let items = list(&request.client, path, query).await;
    let text = items.clone().and_then(|items| yaml(kind, items, request.with_values));
    // Every path ends with the plural.
    add(bundle, &format!("{}.yaml", path.rsplit('/').next().unwrap_or(kind)), text);
    items.unwrap_or_default()
}

/// Adds the Services that RegisteredServices name.
async fn of_services(request: &Request<'_>, bundle: &mut Bundle, services: &[Value]) {
    let mut wanted: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for object in services.iter().filter_map(|it| serde_json::from_value::<RegisteredService>(it.clone()).ok()) {
        for key in [object.service_key(), object.import_service_key()] {
            wanted.entry(key.namespace).or_default().insert(key.name);
        }
    }
    let mut found = Vec::new();
    for (namespace, names) in wanted.iter().take(NAMESPACES) {
        match list(&request.client, &format!("/api/v1/namespaces/{namespace}/services"), "").await {
            Ok(items) => found.extend(
                items
                    .into_iter()
                    .filter(|item| item["metadata"]["name"].as_str().is_some_and(|name| names.contains(name))),
            ),
            Err(why) => bundle.problems.push(format!("services.yaml: namespace {namespace}: {why}")),
        }
    }
    add(bundle, "services.yaml", yaml("Service", found, request.with_values));
}

async fn events(request: &Request<'_>, bundle: &mut Bundle) {
    let mut all = Vec::new();
    for kind in ["RegisteredService", "ServiceRegistry"] {
        let query = format!("fieldSelector=involvedObject.kind%3D{kind}");
        match list(&request.client, "/api/v1/events", &query).await {
            Ok(items) => all.extend(items),
            Err(why) => bundle.problems.push(format!("events.yaml: {kind}: {why}")),
        }
    }
    add(bundle, "events.yaml", yaml("Event", all, request.with_values));
}

/// Adds the records of every name that a RegisteredService uses. Returns the values of Secrets that were read on the
/// way.
async fn registered(request: &Request<'_>, bundle: &mut Bundle) -> Vec<String> {
    let asked = instances::Request {
        client: request.client.clone(),
        operator_namespace: request.operator_namespace,
        namespace: None,
        registries: &[],
        name: None,
        also: &[],
        within: REGISTRY,
    };
    let gathered = match instances::gather(&asked).await {
        Ok(gathered) => gathered,
        Err(error) => {
            bundle.problems.push(format!("instances.json: {error}"));
            return Vec::new();
        }
    };
    let mut answer = Answer::new(&gathered);
    answer.names.retain(|name| !name.registered_services.is_empty());
    if !request.with_values {
        let instances = answer.names.iter_mut().flat_map(|name| &mut name.instances);
        instances.flat_map(|instance| instance.tags.values_mut()).for_each(|value| REMOVED.clone_into(value));
    }
    add(bundle, "instances.json", pretty(&answer));
    gathered.sources.iter().filter_map(|source| source.settings.as_ref()).flat_map(lookup::secrets).collect()
}
