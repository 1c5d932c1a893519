//! The way to the cluster: proxies, credential plugins, and an API server that does not answer.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use twinspan_testbed::{Bed, ConnectProxy, TwinspanOptions, next_v4};

use super::{EVERY_COMMAND, run_in, run_with};
use crate::harness::{Suite, TWINSPAN};

/// The administrator's kubeconfig with a change.
fn changed(bed: &Bed, name: &str, change: impl FnOnce(&mut Value)) -> Result<PathBuf> {
    let mut file: Value = serde_yaml::from_slice(&std::fs::read(&bed.cluster.admin.path)?)?;
    change(&mut file);
    let path = bed.dir().join(format!("{name}.kubeconfig"));
    std::fs::write(&path, file.to_string())?;
    Ok(path)
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

pub async fn a_proxy_is_used_as_kubectl_uses_it(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let proxy = ConnectProxy::start(SocketAddr::from((next_v4(), 3128))).await?;
    let (url, admin) = (proxy.url(), text(&bed.cluster.admin.path));
    let dead = format!("http://{}:3128", next_v4());
    let by_url = |name: &str, url: &str| {
        changed(bed, name, |file| file["clusters"][0]["cluster"]["proxy-url"] = json!(url)).map(|path| text(&path))
    };
    let (through, beside) = (by_url("bastion", &url)?, by_url("dead-bastion", &dead)?);
    for (variables, code, tunnel) in [
        (&[("HTTPS_PROXY", url.as_str())][..], 0, true),
        (&[("https_proxy", url.strip_prefix("http://").context("a scheme")?)], 0, true),
        (&[("HTTPS_PROXY", &dead), ("NO_PROXY", "10.77.0.0/16,")], 0, false),
        (&[("HTTPS_PROXY", &dead), ("NO_PROXY", "127.0.0.0/8")], 1, false),
        (&[("HTTPS_PROXY", &url), ("NO_PROXY", "127.0.0.0/8")], 0, true),
        (&[("KUBECONFIG", &through)], 0, true),
        // The kubeconfig goes before the environment, in both directions.
        (&[("KUBECONFIG", &through), ("NO_PROXY", "*"), ("HTTPS_PROXY", &dead)], 0, true),
        (&[("KUBECONFIG", &beside), ("HTTPS_PROXY", &url)], 1, false),
    ] {
        let all = [&[("KUBECONFIG", admin.as_str())], variables].concat();
        let (found, out, errors) = run_in(&all, &["status", "-o", "name", "-n", "nowhere"]).await?;
        // Nothing is there, and somebody leads or not: both are answers.
        let answered = found != 1;
        ensure!(answered == (code == 0), "{variables:?}: exit code {found}, {out}{errors}");
        ensure!(proxy.asked().is_empty() != tunnel, "{variables:?}: a tunnel or none");
    }

    // The operator itself takes the same way.
    let options = TwinspanOptions { env: vec![("HTTPS_PROXY".to_owned(), url.clone())], ..TwinspanOptions::default() };
    let own = &suite.own_bed().await?;
    let twinspan = own.start_twinspan(TWINSPAN, &options)?;
    twinspan.ready().await?;
    ensure!(!proxy.asked().is_empty(), "the operator asked the proxy");

    // And so does every command, with one run of the plugin for all of its requests.
    let (program, runs) = plugin(own)?;
    let both = changed(own, "both", |file| {
        file["clusters"][0]["cluster"]["proxy-url"] = json!(url);
        file["users"][0]["user"] = exec(&text(&program));
    })?;
    twinspan.part().kill().await?;
    for args in EVERY_COMMAND {
        std::fs::write(&runs, "")?;
        proxy.asked();
        let (code, out, errors) = run_with("KUBECONFIG", &both, args).await?;
        ensure!(!errors.contains("cannot reach the API server"), "{args:?}: {code}, {out}{errors}");
        ensure!(!proxy.asked().is_empty(), "{args:?} went past the proxy: {code}, {out}{errors}");
        let count = std::fs::read_to_string(&runs)?.lines().count();
        ensure!(count == 1, "{args:?} ran the plugin {count} times: {out}{errors}");
    }
    Ok(())
}

/// A credential plugin that gives the administrator's token, and the file with a line for each of its runs.
fn plugin(bed: &Bed) -> Result<(PathBuf, PathBuf)> {
    let (program, runs) = (bed.dir().join("plugin"), bed.dir().join("plugin-runs"));
    let file: Value = serde_yaml::from_slice(&std::fs::read(&bed.cluster.admin.path)?)?;
    let token = file["users"][0]["user"]["token"].as_str().context("a token")?;
    let status = json!({"token": token, "expirationTimestamp": "2099-01-01T00:00:00Z"});
    let credential =
        json!({"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": status});
    let script = format!("#!/bin/sh\necho run >> {}\necho '{credential}'\n", text(&runs));
    std::fs::write(&program, script)?;
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755))?;
    Ok((program, runs))
}

/// A user of a kubeconfig whose credentials come from a program.
fn exec(program: &str) -> Value {
    let exec = json!({"apiVersion": "client.authentication.k8s.io/v1", "interactiveMode": "Never", "command": program});
    json!({"exec": exec})
}

pub async fn a_credential_plugin_runs_once_for_a_command(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let (program, runs) = plugin(bed)?;
    let with = |name: &str, command: &str| changed(bed, name, |file| file["users"][0]["user"] = exec(command));
    let path = with("plugin", &text(&program))?;
    for args in [&["status"][..], &["plan"], &["doctor"]] {
        std::fs::write(&runs, "")?;
        let (code, out, errors) = run_with("KUBECONFIG", &path, args).await?;
        ensure!(code != 1, "{args:?}: {out}{errors}");
        let count = std::fs::read_to_string(&runs)?.lines().count();
        ensure!(count == 1, "{args:?} ran the plugin {count} times");
    }
    // A token of OpenID Connect that still holds is used as it is.
    let account = bed.account("twinspan").await?;
    let theirs: Value = serde_yaml::from_slice(&std::fs::read(&account.path)?)?;
    let token = theirs["users"][0]["user"]["token"].clone();
    let oidc = changed(bed, "oidc", |file| {
        let config = json!({"idp-issuer-url": "https://issuer.example", "client-id": "kubernetes", "id-token": token});
        file["users"][0]["user"] = json!({"auth-provider": {"name": "oidc", "config": config}});
    })?;
    let (code, out, errors) = run_with("KUBECONFIG", &oidc, &["version"]).await?;
    ensure!(code == 0 && out.contains(" leads)"), "{code}: {out}{errors}");

    let (code, _, errors) = run_with("KUBECONFIG", &with("failing-plugin", "false")?, &["plan"]).await?;
    ensure!(code == 1 && errors.contains("the credential plugin false failed (exit status: 1)"), "{errors}");
    ensure!(!errors.contains("unix_wait_status") && !errors.contains('{'), "{errors}");
    Ok(())
}

pub async fn what_cannot_be_reached_is_told_at_once_and_in_words(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    // Nothing listens there, so the connection is refused.
    let server = format!("https://{}:6443", next_v4());
    let path = changed(bed, "refuses", |file| file["clusters"][0]["cluster"]["server"] = json!(server))?;
    let refused = format!("twinspan: cannot reach the API server at {server}: ");
    for args in [&["status"][..], &["plan"], &["explain", "10.0.0.1"], &["approve", "echo"]] {
        let began = Instant::now();
        let (code, out, errors) = run_with("KUBECONFIG", &path, args).await?;
        ensure!(code == 1 && out.is_empty(), "{args:?}: {code}, {out}");
        ensure!(errors.starts_with(&refused) && errors.contains("Connection refused"), "{args:?}: {errors}");
        ensure!(errors.lines().count() == 1, "{args:?}: {errors}");
        ensure!(began.elapsed() < Duration::from_secs(10), "{args:?} waited {:?}", began.elapsed());
    }
    let (code, out, _) = run_with("KUBECONFIG", &path, &["doctor"]).await?;
    ensure!(code == 1 && out.matches("FAIL").count() == 1, "one cause, one finding: {code}, {out}");
    ensure!(out.contains(&format!("the API server at {server} does not answer: ")), "{out}");
    ensure!(out.ends_with("\n0 passed, 0 warnings, 1 failed\n"), "{out}");

    // A server that takes the connection and says nothing has as long as it is given.
    let silent = tokio::net::TcpListener::bind((next_v4(), 6443)).await?;
    let server = format!("https://{}", silent.local_addr()?);
    let path = changed(bed, "silent", |file| file["clusters"][0]["cluster"]["server"] = json!(server))?;
    let began = Instant::now();
    let (code, _, errors) = run_with("KUBECONFIG", &path, &["status", "--request-timeout", "3s"]).await?;
    ensure!(code == 1 && errors.contains(&format!("cannot reach the API server at {server}")), "{code}: {errors}");
    ensure!(errors.contains(&format!("waiting for the API server at {server}")), "{errors}");
    ensure!(began.elapsed() < Duration::from_secs(20), "it waited {:?}", began.elapsed());

    let (code, _, errors) = run_with("KUBECONFIG", Path::new("/nope"), &["status"]).await?;
    let wanted = "twinspan: no kubeconfig at /nope (KUBECONFIG, --kubeconfig); not in a cluster either\n";
    ensure!(code == 1 && errors == wanted, "{errors}");

    // A refusal is the API server's own words, once.
    let nobody = bed.account("default").await?;
    let (code, _, errors) = run_with("KUBECONFIG", &nobody.path, &["approve", "echo", "-n", "shop"]).await?;
    ensure!(code == 1 && errors.contains("is forbidden: User \"system:serviceaccount:"), "{errors}");
    ensure!(errors.matches("is forbidden").count() == 1 && !errors.contains("Some("), "{errors}");
    Ok(())
}
