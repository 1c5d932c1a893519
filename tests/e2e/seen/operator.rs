//! A running Twinspan from outside: probes, metrics, log lines, parity.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tokio::process::Command;
use twinspan_testbed::{OPERATOR_NAMESPACE, Server, ServerOptions, eventually, next_v4};

use crate::harness::{SOON, Sandbox, Suite, TWINSPAN, stories};

stories![probes_metrics_and_log, parity];

async fn probes_metrics_and_log(suite: Arc<Suite>) -> Result<()> {
    let shared = suite.shared().await?;
    let (bed, twinspan) = (&shared.bed, &shared.twinspan);
    for page in ["/livez", "/readyz"] {
        ensure!(twinspan.get(page).await? == (200, "ok".to_owned()), "{page}");
    }
    let sandbox = Sandbox::new(bed, "seen").await?;
    sandbox.selector_service("echo", 80).await?;
    let pod = sandbox.pod("echo", "pod", 80).await?;
    sandbox.pods.set_ready("pod", true).await?;
    sandbox.register("echo", json!({})).await?;
    sandbox.records_become("echo", &[pod.address()]).await?;
    let vm = sandbox.vm("echo", (next_v4(), 9000).into(), None).await?;
    sandbox.imports_become("echo", &[vm.address()]).await?;

    let registry = &sandbox.name;
    for (line, least) in [
        ("twinspan_leader".to_owned(), 1.0),
        (format!("twinspan_session_state{{registry=\"{registry}\",state=\"watching\"}}"), 1.0),
        ("twinspan_reconcile_total{outcome=\"synced\"}".to_owned(), 2.0),
        ("twinspan_writes_total{side=\"registry\",op=\"create\",result=\"ok\"}".to_owned(), 1.0),
        ("twinspan_writes_total{side=\"cluster\",op=\"create\",result=\"ok\"}".to_owned(), 1.0),
        ("twinspan_propagation_seconds_count{direction=\"import\"}".to_owned(), 1.0),
        ("twinspan_propagation_seconds_count{direction=\"export\"}".to_owned(), 1.0),
        (format!("twinspan_records{{registry=\"{registry}\",kind=\"own\"}}"), 1.0),
        (format!("twinspan_registry_ready{{registry=\"{registry}\"}}"), 1.0),
        ("twinspan_services{state=\"synced\"}".to_owned(), 1.0),
        (format!("twinspan_records{{registry=\"{registry}\",kind=\"undecodable\"}}"), 1.0),
    ] {
        eventually(&line, SOON, || async {
            let value = twinspan.metric(&line).await?.context("no such line")?;
            ensure!(value >= least, "{value}");
            Ok(())
        })
        .await?;
    }
    ensure!(twinspan.metric("twinspan_held_deletions").await?.is_some());
    let (code, page) = twinspan.get("/readyz?verbose").await?;
    ensure!(code == 200 && page.ends_with("\nready\n"), "{page}");
    for line in
        ["[+] list of Pods", "[i] leadership: this replica writes", &format!("[i] registry {registry}: watching")]
    {
        ensure!(page.lines().any(|l| l == line), "{line} is not in\n{page}");
    }

    // One readable line for each applied plan.
    let log = std::fs::read_to_string(twinspan.part().log())?;
    let synced = format!("synced {registry}/echo: ");
    let lines: Vec<&str> = log.lines().filter_map(|line| line.split_once(&synced).map(|(_, rest)| rest)).collect();
    for wanted in ["exported +1 -0, imported +0 -0, registry rev ", "exported +0 -0, imported +1 -0, registry rev "] {
        ensure!(
            lines.iter().any(|l| l.starts_with(wanted) && l.contains(" ms registry=")),
            "no {wanted:?} in {lines:?}"
        );
    }
    sandbox.nothing_foreign_was_touched().await
}

/// `twinspan parity` as an administrator would run it.
async fn parity(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let sandbox = Sandbox::new(bed, "parity").await?;
    sandbox.headless("echo").await?;
    let pod = sandbox.pod("echo", "pod", 80).await?;
    sandbox.pods.set_ready("pod", true).await?;
    sandbox.register("echo", json!({})).await?;
    let vm = sandbox.vm("echo", (next_v4(), 9000).into(), None).await?;
    sandbox.dns_becomes("echo", &[pod.address(), vm.address()]).await?;
    sandbox.records_become("echo", &[pod.address(), vm.address()]).await?;

    let run = || async {
        let output = Command::new(TWINSPAN)
            .args(["parity", "echo", "--namespace", &sandbox.name, "--operator-namespace", OPERATOR_NAMESPACE])
            .arg(format!("--kubeconfig={}", bed.cluster.admin.path.display()))
            .arg(format!("--dns={}", bed.dns.address()))
            .output()
            .await?;
        Ok::<_, anyhow::Error>((
            output.status.code(),
            String::from_utf8(output.stdout)?,
            String::from_utf8(output.stderr)?,
        ))
    };
    let (code, table, errors) = run().await?;
    let row = |instance: &Server, rest: [&str; 4]| {
        let wanted = [&[instance.address().to_string().as_str()][..], &rest].concat().join(" ");
        table.lines().any(|line| line.split_whitespace().collect::<Vec<_>>().join(" ") == wanted)
    };
    ensure!(code == Some(0), "{code:?}\n{table}{errors}");
    ensure!(row(&pod, ["pod", "exported", "yes", "yes"]), "{table}");
    ensure!(row(&vm, ["imported", "registered", "yes", "yes"]), "{table}");

    // A record that no slice can hold is a difference, with an exit code for scripts.
    let options = ServerOptions { prefix: Some(sandbox.name.clone()), ..ServerOptions::default() };
    let odd = Server::start(bed.dir(), sandbox.registry.endpoint(), "echo", (next_v4(), 9000).into(), &options).await?;
    sandbox.imports_become("echo", &[vm.address(), odd.address()]).await?;
    sandbox.patch("echo", json!({"suspend": true})).await?;
    sandbox.seen("echo").await?;
    odd.part().stop().await?;
    let (code, table, _) = run().await?;
    ensure!(code == Some(3), "{code:?}\n{table}");
    ensure!(
        table.lines().any(|l| l.starts_with(&odd.address().to_string()) && l.contains("  differs, Waiting: ")),
        "{table}"
    );
    sandbox.nothing_foreign_was_touched().await
}
