//! `instances`: names with and without a RegisteredService, in registries with a prefix, without one, and with a
//! leading slash; changes as they come; a registry that is away.

use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use twinspan_testbed::{Framework, Server, ServerOptions, TwinspanOptions, eventually, next_v4};

use super::{echo, json_of, pod, run};
use crate::harness::{SOON, Sandbox, Suite, TWINSPAN};

/// The answer's entry of a name.
fn name<'a>(answer: &'a Value, registry: &str, name: &str) -> Result<&'a Value> {
    let all = answer["names"].as_array().context("names")?;
    let found = all.iter().find(|it| it["registry"] == registry && it["name"] == name);
    found.with_context(|| format!("no {name} of {registry} in {answer:#}"))
}

pub async fn every_name_is_listed_and_followed(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.own_bed().await?;
    let twinspan = bed.start_twinspan(TWINSPAN, &TwinspanOptions::default())?;
    twinspan.ready().await?;
    let sandbox = Sandbox::new(bed, "instances").await?;
    let registry = sandbox.name.as_str();
    echo(&sandbox, json!({})).await?;
    let (pod, vm) = (pod(&sandbox, "pod", true).await?, SocketAddr::from((next_v4(), 9000)));
    sandbox.put("echo", vm).await?;
    let kitex = sandbox.vm("lonely", SocketAddr::from((next_v4(), 9001)), None).await?;
    sandbox.records_become("echo", &[pod, vm]).await?;

    let (code, answer) = eventually("the server registers itself", SOON, || async {
        let (code, answer) = json_of(bed, &["instances", "--registry", registry]).await?;
        name(&answer, registry, "lonely")?;
        Ok((code, answer))
    })
    .await?;
    let found = name(&answer, registry, "echo")?;
    ensure!(found["own"] == 1 && found["foreign"] == 1, "{found:#}");
    ensure!(found["registeredServices"] == json!([format!("{registry}/echo")]), "{found:#}");
    let lonely = name(&answer, registry, "lonely")?;
    ensure!(lonely["foreign"] == 1 && lonely["registeredServices"] == json!([]), "{lonely:#}");
    ensure!(lonely["instances"][0]["address"] == kitex.address().to_string(), "{lonely:#}");
    ensure!(code == 0, "exit code {code}");
    let (_, table, _) = run(bed, &["instances", "-A"]).await?;
    ensure!(table.contains("1 own, 1 foreign") && table.lines().any(|line| line.ends_with("  -")), "{table}");
    let (_, wide, _) = run(bed, &["instances", "echo", "-n", registry]).await?;
    ensure!(wide.contains(&format!("own, of {registry}/echo")) && wide.contains(&vm.to_string()), "{wide}");
    ensure!(!wide.contains("lonely"), "{wide}");

    // Without a prefix, among keys of other programs: go-zero.
    let bare = bed.start_registry("registry-bare").await?;
    let zero = Sandbox::without_registry_object(bed, "zero", &bare).await?;
    zero.create_registry(json!({"format": "GoZero", "prefix": null})).await?;
    let address = SocketAddr::from((next_v4(), 9100));
    let options = ServerOptions { framework: Framework::GoZero, ..ServerOptions::default() };
    let _server = Server::start(bed.dir(), bare.endpoint(), "user.rpc", address, &options).await?;
    let unread = "only the names of RegisteredServices were read";
    let (_, table, _) = run(bed, &["instances", "--registry", &zero.name]).await?;
    ensure!(!table.contains("user.rpc") && table.contains(unread), "{table}");
    eventually("a name that is named is read", SOON, || async {
        let (_, answer) = json_of(bed, &["instances", "user.rpc", "--registry", &zero.name]).await?;
        let found = name(&answer, &zero.name, "user.rpc")?;
        ensure!(found["instances"][0]["address"] == address.to_string(), "{found:#}");
        Ok(())
    })
    .await?;
    zero.headless_without_selector("user", 9100).await?;
    zero.register("user", json!({"registryName": "user.rpc"})).await?;
    let (_, answer) = json_of(bed, &["instances", "--registry", &zero.name]).await?;
    ensure!(name(&answer, &zero.name, "user.rpc")?["foreign"] == 1, "{answer:#}");

    // Keys that begin with a slash.
    let slash = Sandbox::without_registry_object(bed, "slash", &bed.registry).await?;
    slash.create_registry(json!({"leadingSlash": true})).await?;
    bed.registry.put(&format!("/{}/user/{vm}", slash.name), &crate::harness::record(vm).to_string()).await?;
    let (_, answer) = json_of(bed, &["instances", "--registry", &slash.name]).await?;
    ensure!(name(&answer, &slash.name, "user")?["foreign"] == 1, "{answer:#}");

    follows(&sandbox).await?;

    // A registry that is away is a line.
    bare.part().kill().await?;
    let (code, table, _) = run(bed, &["instances", "--within", "10"]).await?;
    ensure!(code == 3 && table.contains(&format!("registry {}: not read", zero.name)), "{code}: {table}");
    ensure!(table.contains("lonely"), "{table}");
    let (code, version, _) = run(bed, &["version"]).await?;
    ensure!(code == 0 && version.contains(" leads)") && version.contains("kubernetes: v1."), "{code}: {version}");
    Ok(())
}

/// Changes are lines, as they come.
async fn follows(sandbox: &Sandbox<'_>) -> Result<()> {
    let mut command = Command::new(TWINSPAN);
    command.args(["instances", "--registry", &sandbox.name, "--watch"]);
    command.env("TWINSPAN_KUBECONFIG", &sandbox.bed.cluster.admin.path);
    let mut child = command.stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
    let mut lines = BufReader::new(child.stdout.take().context("its output")?).lines();
    let mut until = async |wanted: &[&str]| -> Result<()> {
        let reading = async {
            while let Some(line) = lines.next_line().await? {
                if wanted.iter().all(|text| line.contains(text)) {
                    return Ok(());
                }
            }
            anyhow::bail!("it ended before {wanted:?}")
        };
        tokio::time::timeout(SOON + Duration::from_secs(10), reading).await.with_context(|| format!("no {wanted:?}"))?
    };
    until(&["lonely", "foreign"]).await?;
    let new = SocketAddr::from((next_v4(), 9002));
    sandbox.put("late", new).await?;
    until(&["ADDED", "late", &new.to_string()]).await?;
    sandbox.registry.delete(&sandbox.key("late", new)).await?;
    until(&["DELETED", "late", &new.to_string()]).await?;
    child.kill().await?;
    Ok(())
}
