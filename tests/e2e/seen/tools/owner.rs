//! The commands as the owner of one namespace runs them: an account with the role `edit` there, and nothing else.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::Api;
use kube::api::PostParams;
use serde_json::{Value, json};
use twinspan_testbed::{Bed, Kubeconfig, eventually, next_v4};

use super::{echo, pod, run_with};
use crate::harness::{SOON, Sandbox, Suite};
use crate::safety::audit::audited_as;

const ACCOUNT: &str = "owner";

async fn account(bed: &Bed, namespace: &str) -> Result<Kubeconfig> {
    let named: ServiceAccount = serde_json::from_value(json!({"metadata": {"name": ACCOUNT}}))?;
    Api::namespaced(bed.client(), namespace).create(&PostParams::default(), &named).await?;
    let binding: RoleBinding = serde_json::from_value(json!({
        "metadata": {"name": ACCOUNT},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "edit"},
        "subjects": [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": namespace}],
    }))?;
    Api::namespaced(bed.client(), namespace).create(&PostParams::default(), &binding).await?;
    bed.cluster.account(&bed.dir().join(namespace), namespace, ACCOUNT).await
}

pub async fn an_owner_finds_her_reason(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let sandbox = Sandbox::new(bed, "owner").await?;
    std::fs::create_dir_all(bed.dir().join(&sandbox.name))?;
    let kubeconfig = account(bed, &sandbox.name).await?;
    // Somebody else's, of which she sees nothing.
    let other = Sandbox::new(bed, "not-hers").await?;
    echo(&other, json!({})).await?;
    let theirs = SocketAddr::from((next_v4(), 9000));
    other.put("echo", theirs).await?;
    other.imports_become("echo", &[theirs]).await?;

    echo(&sandbox, json!({})).await?;
    let (ready, waiting) = (pod(&sandbox, "ready", true).await?, pod(&sandbox, "waiting", false).await?);
    let vm = SocketAddr::from((next_v4(), 9000));
    sandbox.put("echo", vm).await?;
    sandbox.put("echo", SocketAddr::from(([127, 0, 0, 1], 80))).await?;
    sandbox.imports_become("echo", &[vm]).await?;
    eventually("the status names what is left out", SOON, || async {
        let status = sandbox.registered().get("echo").await?.status.context("no status")?;
        ensure!(status.differences.iter().any(|d| d.reason == "LoopbackAddress"), "{status:?}");
        ensure!(status.instances.exported == 1, "{status:?}");
        Ok(())
    })
    .await?;

    let namespace = ["-n", sandbox.name.as_str()];
    let [ready, waiting, vm] = [ready, waiting, vm].map(|address| address.to_string());
    let note = "note: you may not list what the operator lists";
    let dns = bed.dns.address().to_string();
    for (args, code, wanted) in [
        (vec!["status"], 0, vec!["echo", "True", "note: leader: unknown", "note: you may not list ServiceRegistries"]),
        (vec!["explain", &vm], 0, vec!["Imported", note]),
        (vec!["explain", &ready], 0, vec!["Exported", "the status counts 1 exported", "pod ready", note]),
        (vec!["explain", &waiting], 0, vec!["NotReady", "readiness probe"]),
        (vec!["explain", "127.0.0.1:80"], 0, vec!["LoopbackAddress", "leads every client to itself", "so since 20"]),
        (vec!["parity", "echo", "--dns", &dns], 3, vec![&vm, "imported", "127.0.0.1:80", "LoopbackAddress", note]),
        (vec!["plan"], 0, vec!["nothing to write", note]),
        (vec!["plan", "echo"], 0, vec!["nothing to write", note]),
        (vec!["plan", "-l", "app=nothing"], 0, vec!["No resources found"]),
    ] {
        let args = [&args[..], &namespace].concat();
        let (found, out, errors) = run_with("TWINSPAN_KUBECONFIG", &kubeconfig.path, &args).await?;
        ensure!(found == code, "{args:?}: exit code {found}, want {code}: {out}{errors}");
        for part in wanted {
            ensure!(out.contains(part), "{args:?} does not say {part:?}: {out}{errors}");
        }
        for foreign in [&other.name, &theirs.to_string()] {
            ensure!(!out.contains(foreign.as_str()), "{args:?} tells of {foreign}: {out}");
        }
    }
    // Of the operator she sees nothing, which is no fault.
    let (code, out, errors) = run_with("TWINSPAN_KUBECONFIG", &kubeconfig.path, &["doctor"]).await?;
    ensure!(code == 0 && !out.contains("FAIL"), "{code}: {out}{errors}");
    ensure!(out.contains("ServiceRegistries were not looked at"), "{out}");
    // An address of another namespace is as unknown to her as one that nobody has.
    let args = ["explain", &theirs.to_string(), "-n", &sandbox.name];
    let (code, out, errors) = run_with("TWINSPAN_KUBECONFIG", &kubeconfig.path, &args).await?;
    ensure!(code == 1 && errors.contains("nothing is known of it"), "{code}: {out}{errors}");
    for args in [vec!["status"], vec!["plan"], vec!["parity", "echo"], vec!["explain", &vm]] {
        let args = [&args[..], &["-n", &other.name]].concat();
        let (code, out, errors) = run_with("TWINSPAN_KUBECONFIG", &kubeconfig.path, &args).await?;
        ensure!(code == 1 && errors.contains("forbidden"), "{args:?}: {code}: {out}{errors}");
    }
    lists_only_in(bed, &sandbox.name, &other.name)
}

/// She listed pods in her namespace, and nothing that was answered lies outside of it.
fn lists_only_in(bed: &Bed, namespace: &str, other: &str) -> Result<()> {
    let asked = audited_as(bed, &format!("system:serviceaccount:{namespace}:{ACCOUNT}"))?;
    let lists: Vec<&Value> =
        asked.iter().filter(|event| ["list", "watch"].iter().any(|v| event["verb"] == *v)).collect();
    let of_pods: Vec<&&Value> = lists.iter().filter(|event| event["objectRef"]["resource"] == "pods").collect();
    ensure!(!of_pods.is_empty(), "the audit log shows what she listed");
    for event in &of_pods {
        let place = event["objectRef"]["namespace"].as_str().unwrap_or_default();
        ensure!(place == namespace || place == other, "a list of pods outside of her namespace: {event}");
    }
    for event in lists.iter().filter(|event| event["responseStatus"]["code"] == 200) {
        ensure!(event["objectRef"]["namespace"] == namespace, "a list outside of her namespace: {event}");
    }
    Ok(())
}
