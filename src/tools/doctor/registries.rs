//! Checks of each ServiceRegistry: every endpoint by itself, because a client that is connected to one says nothing
//! about the others.
//!
//! Owns the advice for each finding. Refuses to write a record.

use std::collections::BTreeSet;

use kube::Api;
use kube::api::ListParams;
use twinspan_core::model::RegistryName;

use super::discovery;
use super::finding::{CLUSTER, Finding, Findings, Level};
use super::request::Request;
use super::versions;
use crate::api::{RegisteredService, ServiceRegistry};
use crate::causes::of_kube;
use crate::registry::etcd::{EtcdConnector, Examined};
use crate::registry::sessions::SessionSettings;
use crate::tools::lookup;

/// A slower round trip is noticeable in each sync; etcd's own heartbeat is 100 ms.
const SLOW_MILLISECONDS: u128 = 100;

pub async fn examine(request: &Request<'_>) -> Vec<Finding> {
    let (chosen, mut all) = chosen(request).await;
    for object in &chosen {
        all.extend(registry(request, object.metadata.name.as_deref().unwrap_or_default(), object).await);
    }
    all
}

/// The ServiceRegistries that are meant, and what is wrong with the choice.
pub(super) async fn chosen(request: &Request<'_>) -> (Vec<ServiceRegistry>, Vec<Finding>) {
    let mut wrong = Vec::new();
    let mut add = |about: &str, level, text: String| {
        let mut findings = Findings::about(about);
        findings.add(level, text);
        wrong.extend(findings.all);
    };
    let api: Api<ServiceRegistry> = Api::all(request.client.clone());
    let mut objects = match api.list(&ListParams::default()).await {
        Ok(list) => list.items,
        // The missing CRD is a finding already.
        Err(kube::Error::Api(status)) if status.is_not_found() => {
            add(
                CLUSTER,
                Level::Warn,
                "no registry was looked at, for the CRD of ServiceRegistries is missing".to_owned(),
            );
            return (Vec::new(), wrong);
        }
        Err(kube::Error::Api(status)) if status.is_forbidden() => {
            let text = "ServiceRegistries were not looked at, for this account may not list them; run doctor as an \
                        administrator as well";
            add(CLUSTER, Level::Warn, text.to_owned());
            return (Vec::new(), wrong);
        }
        Err(error) => {
            add(CLUSTER, Level::Fail, format!("cannot list ServiceRegistries: {}", of_kube(&error)));
            return (Vec::new(), wrong);
        }
    };
    let is_called = |object: &ServiceRegistry, name: &String| object.metadata.name.as_ref() == Some(name);
    for missing in request.registries.iter().filter(|name| !objects.iter().any(|object| is_called(object, name))) {
        add(missing, Level::Fail, "there is no such ServiceRegistry".to_owned());
    }
    if objects.is_empty() {
        let text = "there is no ServiceRegistry yet; create one that points to your etcd";
        add(CLUSTER, Level::Warn, text.to_owned());
    }
    objects.retain(|object| {
        request.registries.is_empty() || request.registries.iter().any(|wanted| is_called(object, wanted))
    });
    (objects, wrong)
}

async fn registry(request: &Request<'_>, name: &str, object: &ServiceRegistry) -> Vec<Finding> {
    let mut findings = Findings::about(name);
    match lookup::session_settings(&request.client, request.operator_namespace, object).await {
        Ok(settings) => {
            let names = names(request, name).await.unwrap_or_default();
            endpoints(name, settings, &names, &mut findings).await;
        }
        Err(error) => findings.add(Level::Fail, error.to_string()),
    }
    let in_clear = object.spec.etcd.endpoints.iter().find(|endpoint| endpoint.starts_with("http://"));
    if let Some(endpoint) = in_clear.filter(|_| object.spec.etcd.auth.is_some()) {
        let what = format!("{endpoint}: the password of spec.etcd.auth goes in clear; use https:// and spec.etcd.tls");
        findings.add(Level::Warn, what);
    }
    if object.spec.allowed.is_empty() {
        findings.add(Level::Warn, "spec.allowed is empty: no namespace may use it");
    }
    discovery::examine(request, object, &mut findings).await;
    findings.all
}

/// The names that the RegisteredServices of a registry use.
///
/// # Errors
/// The API server's, where RegisteredServices cannot be listed.
pub(super) async fn names(request: &Request<'_>, registry: &str) -> kube::Result<Vec<RegistryName>> {
    let mut objects = Vec::new();
    for namespace in request.watched {
        let api: Api<RegisteredService> = Api::namespaced(request.client.clone(), namespace);
        objects.extend(api.list(&ListParams::default()).await?);
    }
    if request.watched.is_empty() {
        let api: Api<RegisteredService> = Api::all(request.client.clone());
        objects = api.list(&ListParams::default()).await?.items;
    }
    let of_it = objects.iter().filter(|object| object.spec.registry_ref.name == registry);
    let name = |object: &RegisteredService| RegistryName::new(object.registry_name()).ok();
    Ok(of_it.filter_map(name).collect())
}

async fn endpoints(name: &str, settings: SessionSettings, names: &[RegistryName], findings: &mut Findings<'_>) {
    let identity = settings.identity;
    let endpoints = settings.connection.endpoints.clone();
    let connector = EtcdConnector::new(settings.connection);
    let ranges = identity.layout.ranges(names);
    let key_prefixes: Vec<String> = ranges.iter().map(|range| identity.layout.key_prefix(range)).collect();
    let mut keys: Vec<String> = key_prefixes.iter().map(|key_prefix| format!("{key_prefix}twinspan-doctor")).collect();
    keys.extend(identity.fence_prefix.map(|prefix| format!("{prefix}{}/{name}", identity.cluster_id)));
    let mut clusters = BTreeSet::new();
    for endpoint in &endpoints {
        match connector.examine(endpoint, &key_prefixes, &keys).await {
            Ok(examined) => {
                clusters.insert(examined.status.cluster_id);
                member(endpoint, &examined, findings);
            }
            Err(error) => findings.add(Level::Fail, format!("{endpoint}: {error}")),
        }
    }
    if clusters.len() > 1 {
        findings.add(
            Level::Fail,
            format!("its endpoints belong to {} different etcd clusters; name those of one", clusters.len()),
        );
    }
}

fn member(endpoint: &str, examined: &Examined, findings: &mut Findings<'_>) {
    let median = examined.round_trips.get(examined.round_trips.len() / 2).copied().unwrap_or_default();
    let level = if median.as_millis() > SLOW_MILLISECONDS { Level::Warn } else { Level::Ok };
    let (version, micros) = (&examined.status.version, median.as_micros());
    findings.add(level, format!("{endpoint}: etcd {version} answers in {}.{} ms", micros / 1000, micros % 1000 / 100));
    if let Some(complaint) = versions::complaint(version) {
        findings.add(Level::Warn, format!("{endpoint}: {complaint}"));
    }
    for (key_prefix, answer) in &examined.read {
        match answer {
            Ok(count) => findings.add(Level::Ok, format!("{endpoint}: may read {key_prefix:?}, {count} keys")),
            Err(error) => findings.add(Level::Fail, format!("{endpoint}: may not read {key_prefix:?}: {error}")),
        }
    }
    for (key, answer) in &examined.write {
        match answer {
            Ok(()) => findings.add(Level::Ok, format!("{endpoint}: may write {key:?}")),
            Err(error) => findings.add(Level::Fail, format!("{endpoint}: may not write {key:?}: {error}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cluster::fake_api::FakeApi;

    #[tokio::test]
    async fn a_password_that_goes_in_clear_is_told() {
        let api = FakeApi::default();
        let request = Request {
            client: api.client(),
            server: "https://10.0.0.1",
            operator_namespace: "twinspan",
            service_account: "twinspan",
            networks: Default::default(),
            socket: None,
            registries: &[],
            watched: &[],
        };
        for (endpoint, auth, told) in [
            ("http://etcd:2379", json!({"secretRef": {"name": "user"}}), true),
            ("https://etcd:2379", json!({"secretRef": {"name": "user"}}), false),
            ("http://etcd:2379", json!(null), false),
        ] {
            let object = json!({"metadata": {"name": "main"}, "spec": {"format": "Kitex", "allowed": [],
                "etcd": {"endpoints": ["https://other:2379", endpoint], "auth": auth}}});
            // The API server has no Secret and no namespace, so nothing is connected to.
            let found = registry(&request, "main", &serde_json::from_value(object).unwrap()).await;
            let clear = found.iter().find(|finding| finding.text.contains("goes in clear"));
            assert_eq!(clear.map(|finding| finding.level), told.then_some(Level::Warn), "{found:?}");
            assert!(clear.is_none_or(|finding| finding.text.starts_with(endpoint)), "{found:?}");
        }
    }
}
