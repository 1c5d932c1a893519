//! Obstacles in the way of one port, one Service or one spec, which cost nothing else: policies, quotas, grants that
//! are taken back, specs that cannot be carried out.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use k8s_openapi::api::admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding};
use k8s_openapi::api::core::v1::ResourceQuota;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use serde_json::json;
use twinspan_testbed::{eventually, next_v4};

use crate::harness::{SOON, Sandbox, Suite};

/// The time in which other ports must follow.
const AT_ONCE: Duration = Duration::from_secs(2);
/// The time in which whoever ended must be gone.
const ENDED: Duration = Duration::from_secs(10);
/// The longest wait before a refused group is tried again, with some room.
const TRIED_AGAIN: Duration = Duration::from_secs(75);

fn vm(port: u16) -> SocketAddr {
    SocketAddr::from((next_v4(), port))
}

/// A policy that refuses slices at port 22623 in the sandbox.
async fn refuse_a_port(sandbox: &Sandbox<'_>) -> Result<()> {
    let policies: Api<ValidatingAdmissionPolicy> = Api::all(sandbox.client());
    let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(sandbox.client());
    let rules = json!([{"apiGroups": ["discovery.k8s.io"], "apiVersions": ["v1"], "resources": ["endpointslices"],
        "operations": ["CREATE", "UPDATE"]}]);
    let here = json!({"namespaceSelector": {"matchLabels": {"story": sandbox.name}}, "resourceRules": rules});
    let policy = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": sandbox.name},
        "spec": {"failurePolicy": "Fail", "matchConstraints": here, "validations": [{
            "expression": "!has(object.ports) || object.ports.all(p, p.port != 22623)", "message": "not 22623"}]},
    });
    let binding = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": sandbox.name}, "spec": {"policyName": sandbox.name, "validationActions": ["Deny"]},
    });
    policies.create(&PostParams::default(), &serde_json::from_value(policy)?).await?;
    bindings.create(&PostParams::default(), &serde_json::from_value(binding)?).await?;
    let slice: EndpointSlice = serde_json::from_value(json!({
        "metadata": {"name": "try"}, "addressType": "IPv4", "endpoints": [], "ports": [{"name": "x", "port": 22623}],
    }))?;
    let params = PostParams { dry_run: true, ..PostParams::default() };
    eventually("the policy is in force", Duration::from_secs(30), || async {
        match sandbox.slices().create(&params, &slice).await {
            Err(kube::Error::Api(status)) if status.message.contains("not 22623") => Ok(()),
            other => anyhow::bail!("{other:?}"),
        }
    })
    .await
}

async fn refuse_no_port(sandbox: &Sandbox<'_>) -> Result<()> {
    let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(sandbox.client());
    let policies: Api<ValidatingAdmissionPolicy> = Api::all(sandbox.client());
    bindings.delete(&sandbox.name, &DeleteParams::default()).await?;
    policies.delete(&sandbox.name, &DeleteParams::default()).await?;
    Ok(())
}

pub async fn a_port_that_a_policy_refuses(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let sandbox = Sandbox::new(bed, "policy").await?;
    refuse_a_port(&sandbox).await?;
    sandbox.headless_without_selector("user", 80).await?;
    sandbox.register("user", json!({})).await?;
    let (refused, first, second) = (vm(22623), vm(9000), vm(9000));
    sandbox.put("user", refused).await?;
    sandbox.put("user", first).await?;
    sandbox.imports_become("user", &[first]).await?;
    eventually("skipped names the policy", SOON, || async {
        let status = sandbox.registered().get("user").await?.status.unwrap_or_default();
        let named = status.differences.iter().any(|skipped| {
            let words = skipped.message.as_deref().unwrap_or_default();
            skipped.instance == refused.to_string()
                && skipped.reason == "RefusedByCluster"
                && words.contains("not 22623")
        });
        ensure!(named, "{status:?}");
        Ok(())
    })
    .await?;
    sandbox.condition("user", "Imported", "False", "RefusedByCluster").await?;
    sandbox.put("user", second).await?;
    sandbox.imports_become_within("user", &[first, second], AT_ONCE).await?;
    sandbox.registry.delete(&sandbox.key("user", first)).await?;
    sandbox.imports_become_within("user", &[second], AT_ONCE).await?;

    refuse_no_port(&sandbox).await?;
    sandbox.imports_become_within("user", &[refused, second], TRIED_AGAIN).await?;
    sandbox.condition("user", "Ready", "True", "Synced").await?;
    sandbox.nothing_foreign_was_touched().await
}

pub async fn a_service_that_a_quota_refuses(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let sandbox = Sandbox::new(bed, "quota").await?;
    let quotas: Api<ResourceQuota> = Api::namespaced(sandbox.client(), &sandbox.name);
    let quota: ResourceQuota = serde_json::from_value(json!({
        "metadata": {"name": "small"}, "spec": {"hard": {"count/services": "0"}},
        "status": {"hard": {"count/services": "0"}, "used": {"count/services": "0"}},
    }))?;
    quotas.create(&PostParams::default(), &quota).await?;
    // No controller of the bed counts; admission takes the status.
    quotas.patch_status("small", &PatchParams::default(), &Patch::Merge(json!({"status": quota.status}))).await?;
    let address = vm(9000);
    sandbox.put("user", address).await?;
    let ports = json!([{"name": "rpc", "number": 80}]);
    sandbox.register("user", json!({"service": {"create": "Headless", "ports": ports}})).await?;
    let object = sandbox.condition("user", "Ready", "False", "RefusedByCluster").await?;
    let conditions = object.status.unwrap_or_default().conditions;
    let ready = conditions.iter().find(|condition| condition.type_ == "Ready").map(|c| c.message.as_str());
    let message = ready.unwrap_or_default();
    ensure!(message.contains("exceeded quota: small") && !message.contains("chart"), "{message}");
    quotas.delete("small", &DeleteParams::default()).await?;
    sandbox.imports_become_within("user", &[address], TRIED_AGAIN).await?;
    sandbox.condition("user", "Ready", "True", "Synced").await?;
    sandbox.nothing_foreign_was_touched().await
}

/// The Service's ports are renamed, then all its pods are replaced and a server on a VM goes.
pub async fn a_renamed_port_keeps_no_dead_instance(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let sandbox = Sandbox::new(bed, "renamed").await?;
    sandbox.headless_on("echo", 8888).await?;
    sandbox.register("echo", json!({"service": {"ports": [{"name": "rpc"}]}})).await?;
    let pod = |name: &'static str| {
        let (pods, ip) = (sandbox.pods.clone(), next_v4());
        async move {
            pods.run(name, &BTreeMap::from([("app".to_owned(), "echo".to_owned())]), &[ip.into()]).await?;
            pods.set_ready(name, true).await?;
            Ok::<_, anyhow::Error>(SocketAddr::from((ip, 8888)))
        }
    };
    let (a, b) = (pod("a").await?, pod("b").await?);
    let (stays, leaves) = (vm(9000), vm(9000));
    sandbox.put("echo", stays).await?;
    sandbox.put("echo", leaves).await?;
    sandbox.records_become("echo", &[a, b, stays, leaves]).await?;
    sandbox.imports_become("echo", &[stays, leaves]).await?;
    let ports = json!({"spec": {"ports": [{"name": "grpc", "port": 8888}]}});
    // A strategic patch would merge the ports.
    sandbox.services().patch("echo", &PatchParams::default(), &Patch::Merge(ports)).await?;
    sandbox.condition("echo", "Accepted", "False", "PortNotFound").await?;
    sandbox.records_become("echo", &[a, b, stays, leaves]).await?;

    let c = pod("c").await?;
    sandbox.pods.remove("a").await?;
    sandbox.pods.remove("b").await?;
    sandbox.registry.delete(&sandbox.key("echo", leaves)).await?;
    sandbox.records_become_within("echo", &[stays], ENDED).await?;
    sandbox.imports_become_within("echo", &[stays], ENDED).await?;
    sandbox.patch("echo", json!({"service": {"ports": [{"name": "grpc"}]}})).await?;
    sandbox.records_become("echo", &[c, stays]).await?;
    sandbox.imports_become("echo", &[stays]).await?;
    sandbox.nothing_foreign_was_touched().await
}

/// Neither `suspend` nor a spec that the format cannot carry keeps a name that its administrator took back.
pub async fn a_name_that_was_taken_back(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let sandbox = Sandbox::new(bed, "takenback").await?;
    let unsupported = json!({"service": {"ports": [{"name": "rpc", "scheme": "http"}]}});
    let tenants =
        [("suspended", json!({"suspend": true})), ("observing", json!({"policy": "Observe"})), ("odd", unsupported)];
    for (name, spec) in &tenants {
        sandbox.headless_on(name, 8888).await?;
        sandbox.register(name, json!({})).await?;
        let ip = next_v4();
        sandbox.pods.run(name, &BTreeMap::from([("app".to_owned(), (*name).to_owned())]), &[ip.into()]).await?;
        sandbox.pods.set_ready(name, true).await?;
        let address = SocketAddr::from((ip, 8888));
        sandbox.records_become(name, &[address]).await?;
        sandbox.patch(name, spec.clone()).await?;
        sandbox.seen(name).await?;
        sandbox.records_become(name, &[address]).await?;
    }
    let nobody = json!({"spec": {"allowed": [{"namespaceSelector": {}, "registryNames": ["other"]}]}});
    sandbox.registries().patch(&sandbox.name, &PatchParams::default(), &Patch::Merge(nobody)).await?;
    for (name, _) in tenants {
        sandbox.records_become(name, &[]).await?;
        sandbox.condition(name, "Accepted", "False", "NotAllowed").await?;
    }
    sandbox.nothing_foreign_was_touched().await
}
