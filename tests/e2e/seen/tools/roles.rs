//! The commands as they run in a pod of the operator: as an account with exactly the operator's roles.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use k8s_openapi::api::rbac::v1::{ClusterRoleBinding, RoleBinding};
use kube::Api;
use kube::api::PostParams;
use serde_json::json;
use twinspan_testbed::{Bed, Kubeconfig, OPERATOR_NAMESPACE, eventually, next_v4};

use super::{echo, pod, run_with};
use crate::harness::{SOON, Sandbox, Suite};
use crate::safety::audit::{audited_as, nothing_is_denied};

/// A second account with the operator's roles: this story judges its requests, the whole run those of the operator.
pub const ACCOUNT: &str = "like-the-operator";

pub async fn account(bed: &Bed) -> Result<Kubeconfig> {
    let named: ServiceAccount = serde_json::from_value(json!({"metadata": {"name": ACCOUNT}}))?;
    Api::namespaced(bed.client(), OPERATOR_NAMESPACE).create(&PostParams::default(), &named).await?;
    let binding = |kind: &str| {
        json!({
            "metadata": {"name": ACCOUNT},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": "twinspan"},
            "subjects": [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": OPERATOR_NAMESPACE}],
        })
    };
    let everywhere: ClusterRoleBinding = serde_json::from_value(binding("ClusterRole"))?;
    Api::all(bed.client()).create(&PostParams::default(), &everywhere).await?;
    let here: RoleBinding = serde_json::from_value(binding("Role"))?;
    Api::namespaced(bed.client(), OPERATOR_NAMESPACE).create(&PostParams::default(), &here).await?;
    bed.account(ACCOUNT).await
}

pub async fn the_operators_roles_are_enough(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let kubeconfig = account(bed).await?;
    // A registry with a password, so that a Secret has to be read.
    let registry = bed.start_registry("registry-roles").await?;
    let sandbox = Sandbox::without_registry_object(bed, "roles", &registry).await?;
    registry.require_password("twinspan", "secret", &[&sandbox.name, "twinspan/"]).await?;
    let secret: Secret = serde_json::from_value(json!({
        "metadata": {"name": sandbox.name}, "stringData": {"username": "twinspan", "password": "secret"}
    }))?;
    sandbox.secrets().create(&PostParams::default(), &secret).await?;
    sandbox.create_registry(json!({"etcd": {"auth": {"secretRef": {"name": sandbox.name}}}})).await?;
    echo(&sandbox, json!({})).await?;
    let (pod, vm) = (pod(&sandbox, "pod", true).await?, SocketAddr::from((next_v4(), 9000)));
    sandbox.put("echo", vm).await?;
    sandbox.imports_become("echo", &[vm]).await?;
    sandbox.dns_becomes("echo", &[pod, vm]).await?;
    sandbox.condition("echo", "Ready", "True", "Synced").await?;

    let (dns, namespace) = (bed.dns.address().to_string(), ["-n", sandbox.name.as_str()]);
    let vm = vm.to_string();
    for (args, wanted) in [
        ([&["status"][..], &namespace].concat(), "True"),
        (vec!["explain", &vm], "Imported"),
        ([&["plan"][..], &namespace].concat(), "nothing to write"),
        (vec!["instances", "--registry", &sandbox.name], "1 own, 1 foreign"),
        ([&["generate", "--registry", &sandbox.name][..], &namespace].concat(), "nothing to generate"),
        (vec!["version"], " leads)"),
        ([&["parity", "echo", "--dns", &dns][..], &namespace].concat(), &vm),
        (
            vec!["doctor", &sandbox.name],
            "which may not ask about system:serviceaccount:twinspan-system:twinspan, is allowed all",
        ),
    ] {
        eventually(&format!("{args:?} as the operator"), SOON, || async {
            let (code, out, errors) = run_with("TWINSPAN_KUBECONFIG", &kubeconfig.path, &args).await?;
            // Status also shows the registries of other stories.
            let well = code == 0 || (code == 3 && args[0] == "status");
            ensure!(well && out.contains(wanted), "exit code {code}: {out}{errors}");
            Ok(())
        })
        .await?;
    }
    nothing_is_denied(&audited_as(bed, &format!("system:serviceaccount:{OPERATOR_NAMESPACE}:{ACCOUNT}"))?)?;
    sandbox.nothing_foreign_was_touched().await
}
