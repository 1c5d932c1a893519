//! The commands in the pod of an operator: they ask it over its socket, and list nothing themselves.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use twinspan_testbed::{OPERATOR_NAMESPACE, TwinspanOptions, eventually, next_v4};

use super::roles::{ACCOUNT, account};
use super::{echo, pod, run_in, run_with};
use crate::harness::{SOON, Sandbox, Suite, TWINSPAN};
use crate::safety::audit::audited_as;

pub async fn commands_in_the_pod_ask_the_running_operator(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.own_bed().await?;
    let kubeconfig = account(bed).await?;
    let socket = bed.dir().join("operator.sock").display().to_string();
    let env = vec![("TWINSPAN_SOCKET".to_owned(), socket.clone())];
    let twinspan = bed.start_twinspan(TWINSPAN, &TwinspanOptions { env, ..TwinspanOptions::default() })?;
    twinspan.ready().await?;
    let sandbox = Sandbox::new(bed, "inside").await?;
    echo(&sandbox, json!({})).await?;
    let (_, vm) = (pod(&sandbox, "pod", true).await?, SocketAddr::from((next_v4(), 9000)));
    sandbox.put("echo", vm).await?;
    sandbox.imports_become("echo", &[vm]).await?;
    sandbox.condition("echo", "Ready", "True", "Synced").await?;

    let dns = bed.dns.address().to_string();
    let account = format!("system:serviceaccount:{OPERATOR_NAMESPACE}:{ACCOUNT}");
    let here = kubeconfig.path.display().to_string();
    let inside = [("KUBECONFIG", here.as_str()), ("TWINSPAN_SOCKET", &socket)];
    let vm = vm.to_string();
    let questions: [&[&str]; 5] = [
        &["plan", "-n", &sandbox.name],
        &["plan", "-n", &sandbox.name, "nobody"],
        &["explain", &vm],
        &["explain", "192.0.2.77"],
        &["parity", "echo", "-n", &sandbox.name, "--dns", &dns],
    ];
    for question in questions {
        eventually(&format!("{question:?} has one answer"), SOON, || async {
            let args = [question, &["-o", "json"]].concat();
            let asked = run_in(&inside, &args).await?;
            let seen = run_with("TWINSPAN_KUBECONFIG", &bed.cluster.admin.path, &args).await?;
            ensure!(asked == seen, "the operator says {asked:?}, a view of the command's own {seen:?}");
            Ok(())
        })
        .await?;
    }
    let (code, out, errors) = run_in(&inside, &["doctor", "--audit"]).await?;
    ensure!(code == 0 && out.contains("1 RegisteredServices are as they should be"), "exit code {code}: {out}{errors}");

    // Reading one object, and asking about one's own rights, is all that was asked of the API server.
    let asked = audited_as(bed, &account)?;
    let whole = |event: &&Value| {
        let object = &event["objectRef"];
        ["pods", "nodes", "endpointslices", "namespaces", "services"].iter().any(|kind| object["resource"] == *kind)
            && object["namespace"].is_null()
            // One name is asked for by a list, for which the operator has the right.
            && !event["requestURI"].as_str().unwrap_or_default().contains("fieldSelector=metadata.name")
            && (event["verb"] == "list" || event["verb"] == "watch")
    };
    ensure!(!asked.is_empty(), "the audit log shows the commands");
    let lists: Vec<&Value> = asked.iter().filter(whole).collect();
    ensure!(lists.is_empty(), "a command listed the cluster: {lists:?}");

    // A kubeconfig that is given leads somewhere else, which the operator in the pod knows nothing about.
    twinspan.part().kill().await?;
    let (code, _, errors) = run_in(&inside, &["plan"]).await?;
    ensure!(code == 1 && errors.contains("the operator in this pod does not answer"), "exit code {code}: {errors}");
    let (code, _, errors) = run_in(&inside, &["plan", "--kubeconfig", &here]).await?;
    ensure!(code == 0, "exit code {code}: {errors}");
    sandbox.nothing_foreign_was_touched().await
}
