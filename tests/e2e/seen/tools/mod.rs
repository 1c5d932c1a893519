//! The commands for people: `plan` shows pending writes, `status` shows the current state, and `approve` releases held
//! deletions.
//!
//! - [`reasons`]: `explain` and `parity` name each reason for a missing instance.
//! - [`contexts`]: the contexts of a kubeconfig choose the cluster and the namespace.
//! - [`recording`]: the answers of four commands for a fixed scene equal the recorded ones.
//! - [`generate`]: RegisteredServices for what exists. [`instances`]: every name in every registry.
//! - [`etcd`]: an etcd by itself.
//! - [`ports`]: a service with an address for each of several schemes, and a DNS server outside of the cluster.
//! - [`owner`]: the owner of a namespace, who may read no other.
//! - [`report`]: a support bundle. [`reach`]: proxies, credential plugins, and an API server that does not answer.
//! - [`terminal`]: options, texts of strangers, readers that go away.
//! - [`roles`]: the operator's own roles are enough for all commands that read. [`inside`]: commands in its pod.

mod contexts;
mod etcd;
mod generate;
mod inside;
mod instances;
mod owner;
mod ports;
mod reach;
mod reasons;
mod recording;
mod report;
mod roles;
mod terminal;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokio::process::Command;
use twinspan_testbed::{Bed, TwinspanOptions, eventually, next_v4};

use crate::harness::{SOON, Sandbox, Suite, TWINSPAN, stories};

stories![
    reasons::every_reason_is_named,
    reasons::a_pod_that_others_registered,
    contexts::a_context_names_cluster_and_namespace,
    instances::every_name_is_listed_and_followed,
    generate::what_is_generated_can_be_applied,
    etcd::an_etcd_by_itself,
    ports::parity_knows_ports_and_schemes,
    reach::a_proxy_is_used_as_kubectl_uses_it,
    reach::a_credential_plugin_runs_once_for_a_command,
    reach::what_cannot_be_reached_is_told_at_once_and_in_words,
    recording::recording_is_as_before,
    terminal::options_stand_before_or_after_the_command,
    terminal::strangers_move_no_cursor_and_forge_no_line,
    terminal::a_reader_that_goes_away_is_no_failure,
    report::a_bundle_without_secrets,
    owner::an_owner_finds_her_reason,
    roles::the_operators_roles_are_enough,
    inside::commands_in_the_pod_ask_the_running_operator,
    plan_and_status,
    approve_releases,
];

/// Every command that goes to a cluster. Nothing that they name is there.
const EVERY_COMMAND: [&[&str]; 10] = [
    &["status"],
    &["instances"],
    &["parity", "nobody", "-n", "nowhere", "--dns", "127.0.0.1"],
    &["explain", "192.0.2.1"],
    &["plan"],
    &["generate", "-n", "nowhere"],
    &["doctor"],
    &["report", "--output", "/dev/null/report"],
    &["version"],
    &["approve", "nobody", "-n", "nowhere"],
];

/// Exit code, standard output and standard error of a command, as an administrator runs it.
async fn run(bed: &Bed, args: &[&str]) -> Result<(i32, String, String)> {
    run_with("TWINSPAN_KUBECONFIG", &bed.cluster.admin.path, args).await
}

/// Runs a command with another kubeconfig, from a variable.
async fn run_with(variable: &str, kubeconfig: &Path, args: &[&str]) -> Result<(i32, String, String)> {
    run_in(&[(variable, &kubeconfig.display().to_string())], args).await
}

/// Runs a command with these variables, and none that lead to another cluster.
async fn run_in(variables: &[(&str, &str)], args: &[&str]) -> Result<(i32, String, String)> {
    let mut command = Command::new(TWINSPAN);
    for other in ["HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy", "KUBECONFIG"] {
        command.env_remove(other);
    }
    let variables = variables.iter().copied();
    let output = command.args(args).envs(variables).output().await.context("cannot run it")?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok((output.status.code().context("no exit code")?, text(&output.stdout), text(&output.stderr)))
}

async fn json_of(bed: &Bed, args: &[&str]) -> Result<(i32, Value)> {
    let (code, out, errors) = run(bed, &[args, &["-o", "json"]].concat()).await?;
    Ok((code, serde_json::from_str(&out).with_context(|| format!("{args:?}: {out}{errors}"))?))
}

async fn pod(sandbox: &Sandbox<'_>, name: &str, ready: bool) -> Result<SocketAddr> {
    let address = SocketAddr::from((next_v4(), 80));
    sandbox.pods.run(name, &BTreeMap::from([("app".to_owned(), "echo".to_owned())]), &[address.ip()]).await?;
    sandbox.pods.set_ready(name, ready).await?;
    Ok(address)
}

async fn echo(sandbox: &Sandbox<'_>, extra: Value) -> Result<()> {
    let ports = json!([{"name": "rpc", "port": 80}, {"name": "metrics", "port": 9090}]);
    sandbox.service("echo", json!({"clusterIP": "None", "selector": {"app": "echo"}, "ports": ports})).await?;
    let mut spec = json!({"service": {"ports": [{"name": "rpc"}]}});
    crate::harness::merge(&mut spec, extra);
    sandbox.register("echo", spec).await
}

async fn plan_and_status(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.own_bed().await?;
    let twinspan = bed.start_twinspan(TWINSPAN, &TwinspanOptions::default())?;
    twinspan.ready().await?;
    let sandbox = Sandbox::new(bed, "planned").await?;
    echo(&sandbox, json!({"policy": "Observe"})).await?;
    let pod = pod(&sandbox, "pod", true).await?;
    let vm = SocketAddr::from((next_v4(), 9000));
    sandbox.put("echo", vm).await?;
    sandbox.condition("echo", "Exported", "False", "NotWritten").await?;
    sandbox.condition("echo", "Ready", "True", "Observing").await?;
    let (code, text, _) = run(bed, &["status"]).await?;
    ensure!(code == 0 && text.contains("Observing"), "it is as somebody wants it: {code}, {text}");
    let (_, answer) = json_of(bed, &["explain", &pod.to_string()]).await?;
    let by = &answer["services"][0];
    ensure!(by["state"] == "ToBeExported" && by["text"].as_str().is_some_and(|t| t.contains("Observe")), "{answer:#}");

    let (code, plan) = eventually("the plan is what would be written", SOON, || async {
        let (code, plan) = json_of(bed, &["plan", "-n", &sandbox.name]).await?;
        let changes = &plan["services"][0]["changes"];
        ensure!(changes["records"].as_array().is_some_and(|r| r.len() == 1), "{plan:#}");
        ensure!(changes["slices"].as_array().is_some_and(|s| s.len() == 1), "{plan:#}");
        Ok((code, plan))
    })
    .await?;
    ensure!(code == 2, "something would be written: {code}");
    let changes = &plan["services"][0]["changes"];
    let (record, slice) = (&changes["records"][0], &changes["slices"][0]);
    ensure!(record["op"] == "create" && record["key"] == sandbox.key("echo", pod), "{plan:#}");
    ensure!(slice["op"] == "create" && slice["added"] == json!([vm.to_string()]), "{plan:#}");
    let (_, text, _) = run(bed, &["plan", "-n", &sandbox.name, "echo"]).await?;
    for line in [
        format!("+ {} in registry {}", sandbox.key("echo", pod), sandbox.name),
        format!("+ {vm}"),
        "Observe".to_owned(),
    ] {
        ensure!(text.contains(&line), "no {line:?} in\n{text}");
    }
    ensure!(!text.contains('\u{1b}'), "no colours but on a terminal: {text:?}");
    ensure!(sandbox.records_become("echo", &[vm]).await.is_ok(), "plan writes nothing");

    // The writes are those that the plan showed.
    let planned = record["after"].as_str().context("a value")?.to_owned();
    sandbox.patch("echo", json!({"policy": "Sync"})).await?;
    sandbox.records_become("echo", &[pod, vm]).await?;
    let (written, ..) = sandbox.records("echo").await?.remove(&sandbox.key("echo", pod)).context("it")?;
    ensure!(written == planned, "planned {planned}, written {written}");
    sandbox.imports_become("echo", &[vm]).await?;
    sandbox.condition("echo", "Ready", "True", "Synced").await?;
    let (code, text, _) = run(bed, &["plan"]).await?;
    ensure!(code == 0 && text.trim_end() == "nothing to write", "{code}: {text}");
    // A missing object has no plan, and an invalid argument has none of the documented exit codes.
    for (args, wanted, text) in [
        (&["plan", "-n", &sandbox.name, "ehco"][..], 1, "there is no RegisteredService planned"),
        (&["plan", "-n", "nowhere"], 1, "there is no RegisteredService in namespace nowhere"),
        (&["plan", "--nonsense"], 64, "--nonsense"),
        (&["plan", "--within", "soon"], 64, "soon"),
        (&["nonsense"], 64, "nonsense"),
    ] {
        let (code, out, errors) = run(bed, args).await?;
        ensure!(code == wanted && out.is_empty() && errors.contains(text), "{args:?}: {code}, {out}{errors}");
    }

    let (code, status) = eventually("status counts both", SOON, || async {
        let (code, status) = json_of(bed, &["status", "-n", &sandbox.name]).await?;
        let counts = &status["services"][0]["instances"];
        ensure!(counts["exported"] == 1 && counts["imported"] == 1, "{status:#}");
        Ok((code, status))
    })
    .await?;
    ensure!(code == 0 && status["registries"][0]["ready"]["status"] == "True", "{status:#}");
    ensure!(status["leader"].as_str().is_some_and(|leader| leader.starts_with("twinspan-")), "{status:#}");
    let (_, yaml, _) = run(bed, &["status", "-o", "yaml"]).await?;
    ensure!(serde_yaml::from_str::<Value>(&yaml)? == json_of(bed, &["status"]).await?.1, "YAML and JSON say the same");
    sandbox.registries().delete(&sandbox.name, &Default::default()).await?;
    sandbox.condition("echo", "Accepted", "False", "RegistryNotFound").await?;
    let (code, text, _) = run(bed, &["status"]).await?;
    ensure!(code == 3 && text.contains("RegistryNotFound"), "{code}: {text}");

    // Help has examples, and completions know the commands and the names in the cluster.
    for command in ["status", "parity", "explain", "plan", "approve", "doctor"] {
        let (code, help, _) = run(bed, &[command, "--help"]).await?;
        ensure!(code == 0 && help.contains("Example") && help.contains("Exit code"), "{command}: {help}");
    }
    let (_, bash, _) = run(bed, &["completions", "bash"]).await?;
    ensure!(bash.contains("COMPLETE=") && bash.contains("complete "), "{bash}");
    let complete = async |words: &[&str]| run(bed, &[&["__complete"], words].concat()).await;
    let (code, names, _) = complete(&["parity", "-n", &sandbox.name, "ec"]).await?;
    ensure!(code == 0 && names == "echo\n:4\n", "{code}: {names}");
    let (_, commands, _) = complete(&["expl"]).await?;
    ensure!(commands.starts_with("explain\t") && commands.ends_with("\n:4\n"), "{commands}");
    Ok(())
}

async fn approve_releases(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let sandbox = Sandbox::new(bed, "approve").await?;
    echo(&sandbox, json!({})).await?;
    let mut all = Vec::new();
    for _ in 0..3 {
        let address = SocketAddr::from((next_v4(), 9000));
        sandbox.put("echo", address).await?;
        all.push(address);
    }
    sandbox.imports_become("echo", &all).await?;
    let (code, _, errors) = run(bed, &["approve", "echo", "-n", &sandbox.name]).await?;
    ensure!(code == 1 && errors.contains("nothing waits for approval"), "{code}: {errors}");
    bed.registry.delete_prefix(&sandbox.key("echo", "")).await?;
    sandbox.condition("echo", "DeletionsHeld", "True", "Held").await?;
    let (code, _, errors) = run(bed, &["approve", "echo", "-n", &sandbox.name, "--only", "000000000000"]).await?;
    ensure!(code == 1 && errors.contains("look again"), "{code}: {errors}");
    ensure!(sandbox.imported("echo").await?.len() == 3);
    let (code, out, errors) = run(bed, &["approve", "echo", "-n", &sandbox.name]).await?;
    ensure!(code == 0 && out.contains("3 imported"), "{code}: {out}{errors}");
    sandbox.imports_become("echo", &[]).await?;
    sandbox.nothing_foreign_was_touched().await
}
