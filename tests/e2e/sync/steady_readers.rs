//! Readers of a Service whose imports are Apart or Together: through 50 changes on each side, no real program hears a
//! list without an instance that lives.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use anyhow::{Result, ensure};
use kube::api::ListParams;
use serde_json::json;
use twinspan_testbed::{Reader, eventually, next_v4};

use super::readers::{PORT, READERS, run_pod, start};
use crate::harness::{SOON, Sandbox, Suite, record, stories};

stories![every_reader_of_apart_imports, every_reader_of_pods_and_imports_together];

/// Kratos' registry of Kubernetes lists pods, so it sees no import, whatever Service has it.
const SEES_PODS_ALONE: &str = "kratos-kube";
/// Two changes on each side.
const ROUNDS: usize = 25;

async fn every_reader_of_apart_imports(suite: Arc<Suite>) -> Result<()> {
    steady(&suite, "steadyapart", "Apart", "echo-imported").await
}

async fn every_reader_of_pods_and_imports_together(suite: Arc<Suite>) -> Result<()> {
    steady(&suite, "steadytogether", "Together", "echo-all").await
}

/// A reader, and the instances that every list of it has to have.
struct Watched {
    kind: &'static str,
    reader: Reader,
    lives: BTreeSet<SocketAddr>,
    mark: usize,
}

impl Watched {
    async fn sees_all(&self) -> Result<()> {
        eventually("the reader sees what lives", SOON, || async {
            let found = self.reader.sees()?;
            ensure!(self.lives.is_subset(&found), "{} sees {found:?}, want {:?}", self.kind, self.lives);
            Ok(())
        })
        .await
    }
}

async fn steady(suite: &Suite, name: &str, into: &str, service: &str) -> Result<()> {
    let sandbox = Sandbox::new(&suite.shared().await?.bed, name).await?;
    sandbox.headless_on("echo", PORT).await?;
    sandbox.register("echo", json!({"import": {"into": into}})).await?;
    let (mut pods, mut vms) = (BTreeSet::new(), BTreeSet::new());
    for n in 0..3 {
        pods.insert(run_pod(&sandbox, "echo", &format!("pod-{n}")).await?);
        vms.insert(server(&sandbox).await?);
    }
    let changing = run_pod(&sandbox, "echo", "changing").await?;
    let held: Vec<SocketAddr> = match into {
        "Together" => pods.iter().chain(&vms).copied().chain([changing]).collect(),
        _ => vms.iter().copied().collect(),
    };
    sandbox.imports_become(service, &held).await?;
    let mut watched = Vec::new();
    for kind in READERS {
        let (of, lives) = match kind {
            SEES_PODS_ALONE => ("echo", pods.clone()),
            _ if into == "Together" => (service, pods.union(&vms).copied().collect()),
            _ => (service, vms.clone()),
        };
        let mut reader = Watched { kind, reader: start(&sandbox, kind, of)?, lives, mark: 0 };
        reader.sees_all().await?;
        reader.mark = reader.reader.part().line_count();
        watched.push(reader);
    }
    let pods_are_in = if into == "Together" { service } else { "echo" };
    for _ in 0..ROUNDS {
        for ready in [false, true] {
            sandbox.pods.set_ready("changing", ready).await?;
            becomes_ready(&sandbox, pods_are_in, changing.ip(), ready).await?;
        }
        let comes = server(&sandbox).await?;
        sandbox.imports_become(service, &[&held[..], &[comes]].concat()).await?;
        sandbox.registry.delete(&sandbox.key("echo", comes)).await?;
        sandbox.imports_become(service, &held).await?;
    }
    for Watched { kind, reader, lives, mark } in &watched {
        let lists = reader.lists_since(*mark)?;
        for list in &lists {
            ensure!(lives.is_subset(list), "{kind} saw {list:?} without one of {lives:?}");
        }
        // Readers that poll hear some of the changes. To Kratos' registry a pod that is not ready is an instance too.
        ensure!(!lists.is_empty() || *kind == SEES_PODS_ALONE, "{kind} heard of no change");
    }
    for reader in &watched {
        reader.sees_all().await?;
    }
    sandbox.nothing_foreign_was_touched().await
}

async fn server(sandbox: &Sandbox<'_>) -> Result<SocketAddr> {
    let vm = SocketAddr::from((next_v4(), PORT));
    sandbox.put("echo", record(vm)).await?;
    Ok(vm)
}

async fn becomes_ready(sandbox: &Sandbox<'_>, service: &str, ip: IpAddr, ready: bool) -> Result<()> {
    let of = ListParams::default().labels(&format!("kubernetes.io/service-name={service}"));
    eventually("the endpoint's readiness changes", SOON, || async {
        let slices = sandbox.slices().list(&of).await?.items;
        let mut endpoints = slices.iter().flat_map(|slice| &slice.endpoints);
        let found = endpoints.find(|endpoint| endpoint.addresses.contains(&ip.to_string()));
        let found = found.and_then(|endpoint| endpoint.conditions.as_ref()?.ready);
        ensure!(found == Some(ready), "{found:?}, want {ready}");
        Ok(())
    })
    .await
}
