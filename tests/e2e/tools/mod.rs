//! The commands for people: `plan` tells what would be written, `status` what is, and `approve` releases what is held.
//!
//! - [`reasons`]: each reason why an instance is missing is provoked, and named by `explain` and `parity`.
//! - [`contexts`]: a kubeconfig's contexts say which cluster and which namespace.
//! - [`recording`]: what four commands say of a fixed scene is what they said when it was recorded.
//! - [`ports`]: a service with an address for each of several schemes, and a DNS server that is not the cluster's.
//! - [`roles`]: the operator's own roles are enough for all that read.

mod contexts;
mod ports;
mod reasons;
mod recording;
mod roles;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use serde_json::{Value, json};
use tokio::process::Command;
use twinspan_bed::{Bed, Etcd, TwinspanOptions, eventually, next_v4};

use crate::harness::{Corner, SOON, Suite, TWINSPAN};

pub fn stories(suite: &Arc<Suite>) -> Vec<Trial> {
    vec![
        suite.story("tools::every_reason_is_named", reasons::every_reason),
        suite.story("tools::a_context_names_cluster_and_namespace", contexts::are_followed),
        suite.story("tools::parity_knows_ports_and_schemes", ports::parity),
        suite.story("tools::recording_is_as_before", recording::is_as_before),
        suite.story("tools::the_operators_roles_are_enough", roles::are_enough),
        suite.story("tools::plan_and_status", plan_and_status),
        suite.story("tools::approve_releases", approve),
    ]
}

/// Exit code, standard output and standard error of a command, as an administrator runs it.
async fn run(bed: &Bed, args: &[&str]) -> Result<(i32, String, String)> {
    run_with("TWINSPAN_KUBECONFIG", &bed.cluster.admin.path, args).await
}

/// The same with another kubeconfig, in a variable.
async fn run_with(variable: &str, kubeconfig: &Path, args: &[&str]) -> Result<(i32, String, String)> {
    let output = Command::new(TWINSPAN).args(args).env(variable, kubeconfig).output().await.context("cannot run it")?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok((output.status.code().context("no exit code")?, text(&output.stdout), text(&output.stderr)))
}

async fn json_of(bed: &Bed, args: &[&str]) -> Result<(i32, Value)> {
    let (code, out, errors) = run(bed, &[args, &["-o", "json"]].concat()).await?;
    Ok((code, serde_json::from_str(&out).with_context(|| format!("{args:?}: {out}{errors}"))?))
}

fn value(address: impl std::fmt::Display, tags: &Value) -> String {
    json!({"network": "tcp", "address": address.to_string(), "weight": 10, "tags": tags}).to_string()
}

async fn pod(corner: &Corner<'_>, name: &str, ready: bool) -> Result<SocketAddr> {
    let address = SocketAddr::from((next_v4(), 80));
    corner.pods.run(name, &BTreeMap::from([("app".to_owned(), "echo".to_owned())]), &[address.ip()]).await?;
    corner.pods.set_ready(name, ready).await?;
    Ok(address)
}

async fn echo(corner: &Corner<'_>, extra: Value) -> Result<()> {
    let ports = json!([{"name": "rpc", "port": 80}, {"name": "metrics", "port": 9090}]);
    corner.service("echo", json!({"clusterIP": "None", "selector": {"app": "echo"}, "ports": ports})).await?;
    let mut spec = json!({"service": {"ports": [{"name": "rpc"}]}});
    crate::harness::merge(&mut spec, extra);
    corner.register("echo", spec).await
}

async fn put(corner: &Corner<'_>, registry: &Etcd, address: impl std::fmt::Display, tags: Value) -> Result<String> {
    let key = corner.key("echo", &address);
    registry.put_leased(&key, &value(&address, &tags), 600).await?;
    Ok(key)
}

async fn plan_and_status(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.own_bed().await?;
    let twinspan = bed.start_twinspan(TWINSPAN, &TwinspanOptions::default())?;
    twinspan.ready().await?;
    let corner = Corner::new(bed, "planned").await?;
    echo(&corner, json!({"policy": "Observe"})).await?;
    let pod = pod(&corner, "pod", true).await?;
    let vm = SocketAddr::from((next_v4(), 9000));
    put(&corner, &bed.registry, vm, Value::Null).await?;
    corner.condition("echo", "Exported", "False", "NotWritten").await?;
    corner.condition("echo", "Ready", "False", "NotWritten").await?;
    let (code, text, _) = run(bed, &["status"]).await?;
    ensure!(code == 0 && text.contains("NotWritten"), "it is as somebody wants it: {code}, {text}");
    let (_, answer) = json_of(bed, &["explain", &pod.to_string()]).await?;
    let by = &answer["services"][0];
    ensure!(by["state"] == "ToBeExported" && by["text"].as_str().is_some_and(|t| t.contains("Observe")), "{answer:#}");

    let (code, plan) = eventually("the plan is what would be written", SOON, || async {
        let (code, plan) = json_of(bed, &["plan", "-n", &corner.name]).await?;
        let changes = &plan["services"][0]["changes"];
        ensure!(changes["records"].as_array().is_some_and(|r| r.len() == 1), "{plan:#}");
        ensure!(changes["slices"].as_array().is_some_and(|s| s.len() == 1), "{plan:#}");
        Ok((code, plan))
    })
    .await?;
    ensure!(code == 2, "something would be written: {code}");
    let changes = &plan["services"][0]["changes"];
    let (record, slice) = (&changes["records"][0], &changes["slices"][0]);
    ensure!(record["op"] == "create" && record["key"] == corner.key("echo", pod), "{plan:#}");
    ensure!(slice["op"] == "create" && slice["added"] == json!([vm.to_string()]), "{plan:#}");
    let (_, text, _) = run(bed, &["plan", "-n", &corner.name, "echo"]).await?;
    for line in
        [format!("+ {} in registry {}", corner.key("echo", pod), corner.name), format!("+ {vm}"), "Observe".to_owned()]
    {
        ensure!(text.contains(&line), "no {line:?} in\n{text}");
    }
    ensure!(!text.contains('\u{1b}'), "no colours but on a terminal: {text:?}");
    ensure!(corner.records_become(&bed.registry, "echo", &[vm]).await.is_ok(), "plan writes nothing");

    // What is said before it is written is what is written.
    let planned = record["after"].as_str().context("a value")?.to_owned();
    corner.patch("echo", json!({"policy": "Sync"})).await?;
    corner.records_become(&bed.registry, "echo", &[pod, vm]).await?;
    let (written, ..) = corner.records(&bed.registry, "echo").await?.remove(&corner.key("echo", pod)).context("it")?;
    ensure!(written == planned, "planned {planned}, written {written}");
    corner.imports_become("echo", &[vm]).await?;
    corner.condition("echo", "Ready", "True", "Synced").await?;
    let (code, text, _) = run(bed, &["plan"]).await?;
    ensure!(code == 0 && text.trim_end() == "nothing to write", "{code}: {text}");
    // What is not there is no plan, and what is not understood is none of the answers.
    for (args, wanted, text) in [
        (&["plan", "-n", &corner.name, "ehco"][..], 1, "there is no RegisteredService planned"),
        (&["plan", "-n", "nowhere"], 1, "there is no RegisteredService in namespace nowhere"),
        (&["plan", "--nonsense"], 64, "--nonsense"),
        (&["plan", "--within", "soon"], 64, "soon"),
        (&["nonsense"], 64, "nonsense"),
    ] {
        let (code, out, errors) = run(bed, args).await?;
        ensure!(code == wanted && out.is_empty() && errors.contains(text), "{args:?}: {code}, {out}{errors}");
    }

    let (code, status) = eventually("status counts both", SOON, || async {
        let (code, status) = json_of(bed, &["status", "-n", &corner.name]).await?;
        let counts = &status["services"][0]["instances"];
        ensure!(counts["exported"] == 1 && counts["imported"] == 1, "{status:#}");
        Ok((code, status))
    })
    .await?;
    ensure!(code == 0 && status["registries"][0]["ready"]["status"] == "True", "{status:#}");
    ensure!(status["leader"].as_str().is_some_and(|leader| leader.starts_with("twinspan-")), "{status:#}");
    let (_, yaml, _) = run(bed, &["status", "-o", "yaml"]).await?;
    ensure!(serde_yaml::from_str::<Value>(&yaml)? == json_of(bed, &["status"]).await?.1, "YAML and JSON say the same");
    corner.registries().delete(&corner.name, &Default::default()).await?;
    corner.condition("echo", "Accepted", "False", "RegistryNotFound").await?;
    let (code, text, _) = run(bed, &["status"]).await?;
    ensure!(code == 3 && text.contains("RegistryNotFound"), "{code}: {text}");

    // Help has examples, and completions name the commands.
    for command in ["status", "parity", "explain", "plan", "approve", "doctor"] {
        let (code, help, _) = run(bed, &[command, "--help"]).await?;
        ensure!(code == 0 && help.contains("Example") && help.contains("Exit code"), "{command}: {help}");
    }
    let (_, bash, _) = run(bed, &["completions", "bash"]).await?;
    ensure!(bash.contains("explain") && bash.contains("approve"), "{bash}");
    Ok(())
}

async fn approve(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let corner = Corner::new(bed, "approve").await?;
    echo(&corner, json!({})).await?;
    let mut all = Vec::new();
    for _ in 0..3 {
        let address = SocketAddr::from((next_v4(), 9000));
        put(&corner, &bed.registry, address, Value::Null).await?;
        all.push(address);
    }
    corner.imports_become("echo", &all).await?;
    let (code, _, errors) = run(bed, &["approve", "echo", "-n", &corner.name]).await?;
    ensure!(code == 1 && errors.contains("nothing waits for approval"), "{code}: {errors}");
    bed.registry.delete_prefix(&corner.key("echo", "")).await?;
    corner.condition("echo", "DeletionsHeld", "True", "Held").await?;
    let (code, _, errors) = run(bed, &["approve", "echo", "-n", &corner.name, "--only", "000000000000"]).await?;
    ensure!(code == 1 && errors.contains("look again"), "{code}: {errors}");
    ensure!(corner.imported("echo").await?.len() == 3);
    let (code, out, errors) = run(bed, &["approve", "echo", "-n", &corner.name]).await?;
    ensure!(code == 0 && out.contains("3 imported"), "{code}: {out}{errors}");
    corner.imports_become("echo", &[]).await?;
    corner.nothing_foreign_was_touched(&bed.registry).await
}
