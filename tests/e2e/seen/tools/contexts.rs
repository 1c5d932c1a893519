//! Contexts: as with `kubectl`, the current context of a kubeconfig, or a named one, decides the cluster and the
//! namespace.

use std::sync::Arc;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::{echo, run_with};
use crate::harness::{Sandbox, Suite};

pub async fn a_context_names_cluster_and_namespace(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let sandbox = Sandbox::new(bed, "contexts").await?;
    echo(&sandbox, json!({})).await?;
    sandbox.condition("echo", "Ready", "True", "Synced").await?;

    let mut file: Value = serde_yaml::from_slice(&std::fs::read(&bed.cluster.admin.path)?)?;
    let mut away = file["clusters"][0].clone();
    away["name"] = json!("away");
    away["cluster"]["server"] = json!("https://10.77.250.99:6443");
    file["clusters"].as_array_mut().into_iter().for_each(|clusters| clusters.push(away.clone()));
    let bed_context = file["contexts"][0]["context"].clone();
    let context = |name: &str, change: Value| {
        let mut context = json!({"name": name, "context": bed_context});
        crate::harness::merge(&mut context["context"], change);
        context
    };
    file["contexts"] = json!([
        context("here", json!({"namespace": sandbox.name})),
        context("beside", json!({"namespace": "beside"})),
        context("nowhere", json!({"cluster": "away"})),
    ]);
    file["current-context"] = json!("here");
    let path = bed.dir().join("contexts.kubeconfig");
    std::fs::write(&path, file.to_string())?;

    let dns = bed.dns.address().to_string();
    let absent = "there is no RegisteredService beside/echo";
    for (args, code, text) in [
        (&["plan", "echo"][..], 0, "nothing to write"),
        (&["parity", "echo", "--dns", &dns], 0, "No resources found"),
        (&["approve", "echo"], 1, "nothing waits for approval"),
        (&["parity", "echo", "--context", "beside"], 1, absent),
        (&["plan", "echo", "--context", "beside"], 1, absent),
        (&["plan", "echo", "--context", "beside", "-n", &sandbox.name], 0, "nothing to write"),
        (&["approve", "echo", "--context", "beside"], 1, "beside"),
        (&["status", "--context", "nowhere"], 1, "cannot reach the API server at https://10.77.250.99:6443"),
        (&["status", "--context", "nobody"], 1, "the kubeconfig has no context \"nobody\""),
    ] {
        for variable in ["TWINSPAN_KUBECONFIG", "KUBECONFIG"] {
            let (found, out, errors) = run_with(variable, &path, args).await?;
            let said = format!("{out}{errors}");
            ensure!(found == code && said.contains(text), "{variable} {args:?}: exit code {found}, {said}");
        }
    }
    sandbox.nothing_foreign_was_touched().await
}
