//! Options as kubectl has them, texts of strangers, and readers that go away.

use std::process::Stdio;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use kube::api::{Patch, PatchParams};
use serde_json::json;
use tokio::process::Command;
use twinspan_testbed::Bed;

use super::{EVERY_COMMAND, echo, json_of, run, run_in};
use crate::harness::{Sandbox, Suite, TWINSPAN};

pub async fn options_stand_before_or_after_the_command(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let sandbox = Sandbox::new(bed, "options").await?;
    echo(&sandbox, json!({})).await?;
    let labels = Patch::Merge(json!({"metadata": {"labels": {"app": "chosen"}}}));
    sandbox.registered().patch("echo", &PatchParams::default(), &labels).await?;
    let (code, out, errors) = run(bed, &["status", "-n", &sandbox.name, "--wait", "--timeout", "60s"]).await?;
    ensure!(code == 0, "{code}: {out}{errors}");
    let names = format!("serviceregistry.twinspan.dev/{}\nregisteredservice.twinspan.dev/echo\n", sandbox.name);
    let path = bed.cluster.admin.path.display().to_string();
    let chosen = format!("app=chosen,kubernetes.io/metadata.name!={}", sandbox.name);
    for args in [
        &["status", "-n", &sandbox.name, "-o", "name"][..],
        &["-n", &sandbox.name, "status", "-o", "name"],
        &["--kubeconfig", &path, "status", "-n", &sandbox.name, "-o", "name", "--request-timeout", "20s"],
        &["--namespace", &sandbox.name, "--as", "system:admin", "--as-group", "system:masters", "status", "-o", "name"],
        &["status", "-A", "-l", &chosen, "-o", "name"],
    ] {
        let (code, out, errors) = run(bed, args).await?;
        ensure!(code != 1 && out == names, "{args:?}: {code}, {out}{errors}");
    }
    let (_, wide, _) = run(bed, &["status", "-n", &sandbox.name, "-o", "wide"]).await?;
    ensure!(wide.contains("NAME IN REGISTRY") && wide.contains(bed.registry.endpoint()), "{wide}");
    let (code, plan, _) = run(bed, &["plan", "-l", "app=chosen", "--within", "20", "-o", "name"]).await?;
    ensure!(code == 0 && plan == "registeredservice.twinspan.dev/echo\n", "{code}: {plan}");
    // A person who may not do it is told so in the API server's words.
    let (code, _, errors) = run(bed, &["status", "--as", "nobody"]).await?;
    ensure!(code == 1 && errors.contains("User \"nobody\" cannot"), "{errors}");
    for (args, wanted) in [
        (&["status", "-n", "nowhere"][..], "\n\nNo resources found\n"),
        (&["plan", "-l", "app=nowhere"], "No resources found\n"),
    ] {
        let (_, out, _) = run(bed, args).await?;
        ensure!(out.ends_with(wanted), "{args:?}: {out}");
    }
    let (code, _, errors) = run(bed, &["explain", "10.0.0.1", "-o", "name"]).await?;
    ensure!(code == 64 && errors.contains("[possible values: table, wide, json, yaml]"), "{code}: {errors}");
    let link = bed.dir().join("kubectl-twinspan");
    std::os::unix::fs::symlink(TWINSPAN, &link)?;
    let help = Command::new(&link).args(["plan", "--help"]).output().await?;
    ensure!(String::from_utf8_lossy(&help.stdout).contains("Usage: kubectl twinspan plan"), "{help:?}");
    let (code, out, _) = run(bed, &["status", "-n", &sandbox.name, "--color", "always"]).await?;
    ensure!(code == 0 && !out.contains("\u{1b}[31m"), "nothing is wrong: {out}");
    let (_, coloured, _) = run(bed, &["doctor", &sandbox.name, "--color", "always"]).await?;
    ensure!(coloured.contains("\u{1b}["), "what is fine is green: {coloured}");
    let (_, plain, _) = run(bed, &["doctor", &sandbox.name]).await?;
    ensure!(!plain.contains('\u{1b}'), "no colours for a pipe: {plain:?}");
    let admin = ("TWINSPAN_KUBECONFIG", path.as_str());
    for (variable, colours) in [("NO_COLOR", false), ("CLICOLOR_FORCE", true)] {
        let (_, out, _) = run_in(&[admin, (variable, "1")], &["doctor", &sandbox.name]).await?;
        ensure!(out.contains('\u{1b}') == colours, "{variable}: {out:?}");
    }
    sandbox.nothing_foreign_was_touched().await
}

pub async fn strangers_move_no_cursor_and_forge_no_line(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let sandbox = Sandbox::new(bed, "strangers").await?;
    echo(&sandbox, json!({})).await?;
    let odd = "\u{1b}]0;title\u{7}\u{1b}[2J\r\u{9b}1A\u{202e}\nnote: all is well";
    let key = sandbox.key("echo", odd);
    bed.registry.put(&key, "no json").await?;
    sandbox.condition("echo", "Ready", "True", "Synced").await?;
    let (dns, report) = (bed.dns.address().to_string(), bed.dir().join("strangers").display().to_string());
    for args in [
        &["parity", "echo", "-n", &sandbox.name, "--dns", &dns][..],
        &["explain", &key],
        &["plan", "echo", "-n", &sandbox.name],
        &["status", "-n", &sandbox.name, "--color", "always"],
        &["explain", &key, "-o", "json"],
        &["explain", &key, "-o", "yaml"],
        &["instances", "echo", "--registry", &sandbox.name, "-o", "wide"],
        &["generate", "-n", &sandbox.name, "--registry", &sandbox.name],
        &["instances", "--registry", &sandbox.name, "-o", "json"],
        &["doctor", &sandbox.name],
        &["version"],
        &["approve", odd, "-n", &sandbox.name],
        &["report", "--output", &report],
    ] {
        let (_, out, errors) = run(bed, args).await?;
        for harm in ["\u{1b}]", "\u{1b}[2", "\u{7}", "\r", "\u{9b}"] {
            ensure!(!out.contains(harm) && !errors.contains(harm), "{args:?} prints {harm:?}: {out:?}{errors:?}");
        }
        ensure!(!out.lines().any(|line| line == "note: all is well"), "{args:?} has a forged line: {out}");
    }
    let (_, answer) = json_of(bed, &["explain", &key]).await?;
    ensure!(answer["asked"] == key, "JSON says what is there: {answer:#}");
    let (_, text, _) = run(bed, &["explain", &key]).await?;
    ensure!(text.contains(r"\u{1b}]0;title\u{7}"), "{text}");
    sandbox.nothing_foreign_was_touched().await
}

/// Exit code and standard error of a command whose standard output is a file.
async fn into(bed: &Bed, command: &str, out: Stdio) -> Result<(Option<i32>, String)> {
    // `output` would capture standard output, whatever was said.
    let child = Command::new(TWINSPAN)
        .args(command.split(' '))
        .env("KUBECONFIG", &bed.cluster.admin.path)
        .stdout(out)
        .stderr(Stdio::piped())
        .spawn()?;
    let output = child.wait_with_output().await?;
    Ok((output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned()))
}

pub async fn a_reader_that_goes_away_is_no_failure(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    for args in EVERY_COMMAND {
        let (reader, writer) = std::io::pipe()?;
        drop(reader);
        let (_, errors) = into(bed, &args.join(" "), writer.into()).await?;
        ensure!(!errors.contains("cannot print") && !errors.contains("panicked"), "{args:?}: {errors}");
    }
    let quick = ["crds", "status", "plan", "completions zsh", "version", "generate -n default"];
    for command in quick {
        // The reader is gone before the first byte.
        let (reader, writer) = std::io::pipe()?;
        drop(reader);
        let (code, errors) = into(bed, command, writer.into()).await?;
        ensure!(code == Some(0) && !errors.contains("cannot print"), "{command}: {code:?}, {errors}");
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").context("no /dev/full")?;
        let (code, errors) = into(bed, command, full.into()).await?;
        let told = errors.contains("twinspan: cannot print: No space left on device");
        ensure!(code == Some(1) && told, "{command}: {code:?}, {errors}");
    }
    Ok(())
}
