//! `twinspan status --open` against a real API server, as far as that goes without a kubelet: a person learns what is
//! missing. The way to a pod is part of the story of the real node.

use std::sync::Arc;

use anyhow::{Result, ensure};
use kube::api::{Api, PostParams};
use serde_json::json;
use tokio::process::Command;
use twinspan_testbed::{OPERATOR_NAMESPACE, TwinspanOptions, eventually};

use crate::harness::{SOON, Suite, TWINSPAN, stories};

stories![what_is_missing_is_said];

async fn what_is_missing_is_said(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.own_bed().await?;
    let open = async |more: &[&str]| {
        let mut command = Command::new(TWINSPAN);
        command.args(["status", "--open", "--no-browser"]).args(more).kill_on_drop(true);
        let output = command.env("TWINSPAN_KUBECONFIG", &bed.cluster.admin.path).output().await?;
        anyhow::Ok((output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned()))
    };
    let (code, errors) = open(&[]).await?;
    ensure!(code == Some(1) && errors.contains("no leader in namespace"), "{errors}");

    let twinspan = bed.start_twinspan(TWINSPAN, &TwinspanOptions::default())?;
    twinspan.ready().await?;
    eventually("it leads", SOON, || async {
        ensure!(twinspan.metric("twinspan_leader").await? == Some(1.0));
        Ok(())
    })
    .await?;
    // The harness runs it outside a pod.
    let (code, errors) = open(&[]).await?;
    ensure!(code == Some(1) && errors.contains("is no pod of namespace"), "{errors}");

    // A person who may read the Lease and nothing else.
    let client = bed.client();
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
        "metadata": {"name": "looks"},
        "rules": [{"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get"]}]});
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "metadata": {"name": "looks"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "looks"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "onlooker"}]});
    let roles: Api<k8s_openapi::api::rbac::v1::Role> = Api::namespaced(client.clone(), OPERATOR_NAMESPACE);
    roles.create(&PostParams::default(), &serde_json::from_value(role)?).await?;
    let bindings: Api<k8s_openapi::api::rbac::v1::RoleBinding> = Api::namespaced(client, OPERATOR_NAMESPACE);
    bindings.create(&PostParams::default(), &serde_json::from_value(binding)?).await?;
    eventually("the right that is missing is named", SOON, || async {
        let (code, errors) = open(&["--as", "onlooker"]).await?;
        let named = errors.contains("pods/portforward in namespace twinspan-system");
        ensure!(code == Some(1) && named, "{errors}");
        Ok(())
    })
    .await
}
