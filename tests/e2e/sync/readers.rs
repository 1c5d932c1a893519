//! The readers in the cluster: the instances that each real one sees of a Service with pods and imports.
//!
//! Owns the comparison with the table in `docs/clients.md`. kuberesolver v6.0.1, go-zero v1.10.3, resolver-dns v0.1.0,
//! grpc-go and Kratos' registry of Kubernetes, as `dev/parts/interop` has them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::json;
use twinspan_testbed::{NODE, Reader, eventually, holds, next_v4, repository};

use crate::harness::{SOON, Sandbox, Suite, record, stories};

stories![every_reader_sees_what_the_document_says];

pub const PORT: u16 = 8888;
/// The port of a server on a VM, where it is another one.
const OTHER_PORT: u16 = 9999;
/// A reader that polls has had two turns by then, and its list stays the same.
const STAYS: Duration = Duration::from_secs(3);

/// The readers in the order of the document.
pub const READERS: [&str; 7] = ["go-srv", "go-a", "grpc-dns", "kitex-dns", "gozero-k8s", "kuberesolver", "kratos-kube"];

/// Starts a reader of a Service. Kratos' registry finds the pods that have the Service's name in a label.
pub fn start(sandbox: &Sandbox<'_>, kind: &str, service: &str) -> Result<Reader> {
    let (namespace, name) = (&sandbox.name, sandbox.dns_name(service));
    let target = match kind {
        "go-srv" => sandbox.srv_name(service),
        "grpc-dns" => format!("dns:///{name}:{PORT}"),
        "gozero-k8s" => format!("k8s://{namespace}/{service}:{PORT}"),
        "kuberesolver" => format!("kubernetes://{namespace}/{service}:{PORT}"),
        "kratos-kube" => format!("{namespace}/{service}"),
        _ => format!("{name}:{PORT}"),
    };
    Reader::start(sandbox.bed, namespace, kind, &target)
}

/// Runs a pod of a Service that every reader finds once it is ready.
pub async fn run_pod(sandbox: &Sandbox<'_>, service: &str, name: &str) -> Result<SocketAddr> {
    let ip = next_v4();
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": name, "labels": {"app": service, "kratos-service-app": service}},
        "spec": {"nodeName": NODE, "containers": [
            {"name": "main", "image": "none", "ports": [{"name": "grpc", "containerPort": PORT}]},
        ]},
    }))?;
    let pods: Api<Pod> = Api::namespaced(sandbox.client(), &sandbox.name);
    pods.create(&PostParams::default(), &pod).await?;
    let status = json!({"status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}]}});
    pods.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await?;
    sandbox.pods.set_ready(name, true).await?;
    Ok(SocketAddr::from((ip, PORT)))
}

/// The instances at one moment.
#[derive(Clone, Debug, Default)]
struct Truth {
    pods: BTreeSet<SocketAddr>,
    imports: BTreeSet<SocketAddr>,
    /// Pods that are not ready.
    unready: BTreeSet<SocketAddr>,
}

/// A list in the words of the document.
fn verdict(sees: &BTreeSet<SocketAddr>, truth: &Truth) -> String {
    let ips = |of: &BTreeSet<SocketAddr>| of.iter().map(SocketAddr::ip).collect::<BTreeSet<IpAddr>>();
    let (pods, imports, unready) = (ips(&truth.pods), ips(&truth.imports), ips(&truth.unready));
    let all: BTreeSet<IpAddr> = pods.union(&imports).copied().collect();
    let seen: BTreeSet<IpAddr> = ips(sees).difference(&unready).copied().collect();
    let mut text = match &seen {
        seen if *seen == all => "all".to_owned(),
        seen if seen.is_empty() => "none".to_owned(),
        seen if *seen == pods => "pods alone".to_owned(),
        seen if *seen == imports => "imports alone".to_owned(),
        seen => format!("{} of {}", seen.intersection(&all).count(), all.len()),
    };
    let known = |at: &&SocketAddr| all.contains(&at.ip());
    if sees.iter().filter(known).any(|at| !truth.pods.contains(at) && !truth.imports.contains(at)) {
        text += ", imports at the pods' port";
    }
    if sees.iter().any(|at| unready.contains(&at.ip())) {
        text += ", and the pod that is not ready";
    }
    text
}

/// The table of the document: the verdicts of each reader, in the order of the columns.
fn documented() -> Result<BTreeMap<String, Vec<String>>> {
    let text = std::fs::read_to_string(repository().join("docs/clients.md"))?;
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `")?.strip_suffix(" |"));
    let cells = rows.map(|row| row.split(" | ").map(|cell| cell.trim_end_matches('`').to_owned()).collect::<Vec<_>>());
    let table: BTreeMap<String, Vec<String>> =
        cells.filter_map(|row| Some((row.first()?.clone(), row.get(2..)?.to_vec()))).collect();
    for kind in READERS {
        ensure!(table.contains_key(kind), "docs/clients.md has no row for {kind}");
    }
    Ok(table)
}

/// One Service, all readers, and the columns of the table so far.
struct Scene<'a> {
    sandbox: Sandbox<'a>,
    readers: BTreeMap<&'static str, Reader>,
    table: BTreeMap<String, Vec<String>>,
    column: usize,
    faults: Vec<String>,
}

impl Scene<'_> {
    /// Waits until each reader sees what its cell says, and keeps to it.
    async fn column(&mut self, about: &str, truth: &Truth) -> Result<()> {
        for (kind, reader) in &self.readers {
            let cell = self.table.get(*kind).and_then(|cells| cells.get(self.column));
            let expected = cell.with_context(|| format!("docs/clients.md: {kind} has no cell for {about:?}"))?;
            let as_expected = || async {
                let found = verdict(&reader.sees()?, truth);
                ensure!(found == *expected, "{kind}, {about}: {found:?}, and docs/clients.md says {expected:?}");
                Ok(())
            };
            let outcome = async {
                eventually("the reader sees what the document says", SOON, as_expected).await?;
                holds("it stays so", STAYS, as_expected).await
            };
            if let Err(error) = outcome.await {
                self.faults.push(format!("{error:#}"));
            }
        }
        self.column += 1;
        Ok(())
    }

    /// A server on a VM that registers itself, and what the readers then have to find in the cluster.
    async fn import(&self, truth: &mut Truth, port: u16) -> Result<SocketAddr> {
        let vm = SocketAddr::from((next_v4(), port));
        self.sandbox.put("echo", record(vm)).await?;
        truth.imports.insert(vm);
        self.imported(truth).await?;
        Ok(vm)
    }

    async fn imported(&self, truth: &Truth) -> Result<()> {
        let imports: Vec<SocketAddr> = truth.imports.iter().copied().collect();
        self.sandbox.imports_become("echo", &imports).await?;
        let all: Vec<SocketAddr> = truth.pods.iter().copied().chain(imports).collect();
        self.sandbox.dns_becomes("echo", &all).await
    }
}

async fn every_reader_sees_what_the_document_says(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let sandbox = Sandbox::new(bed, "readers").await?;
    sandbox.headless_on("echo", PORT).await?;
    sandbox.register("echo", json!({"direction": "Import"})).await?;
    let mut scene = Scene { sandbox, readers: BTreeMap::new(), table: documented()?, column: 0, faults: Vec::new() };
    let mut truth = Truth::default();
    for n in 0..4 {
        truth.pods.insert(run_pod(&scene.sandbox, "echo", &format!("pod-{n}")).await?);
    }
    scene.imported(&truth).await?;
    for kind in READERS {
        let reader = start(&scene.sandbox, kind, "echo")?;
        scene.readers.insert(kind, reader);
    }
    scene.column("one slice", &truth).await?;

    let first = scene.import(&mut truth, PORT).await?;
    scene.import(&mut truth, PORT).await?;
    scene.column("a second slice", &truth).await?;

    truth.pods.insert(run_pod(&scene.sandbox, "echo", "pod-4").await?);
    scene.imported(&truth).await?;
    scene.column("then a pod comes", &truth).await?;

    scene.sandbox.registry.delete(&scene.sandbox.key("echo", first)).await?;
    truth.imports.remove(&first);
    scene.imported(&truth).await?;
    scene.column("then an import goes", &truth).await?;

    scene.import(&mut truth, OTHER_PORT).await?;
    scene.column("an import on another port", &truth).await?;

    let unready = truth.pods.pop_first().context("a pod")?;
    let name = pod_at(&scene.sandbox, unready.ip()).await?;
    scene.sandbox.pods.set_ready(&name, false).await?;
    truth.unready.insert(unready);
    scene.imported(&truth).await?;
    scene.column("a pod is not ready", &truth).await?;

    ensure!(scene.faults.is_empty(), "{}", scene.faults.join("\n"));
    scene.sandbox.nothing_foreign_was_touched().await
}

async fn pod_at(sandbox: &Sandbox<'_>, ip: IpAddr) -> Result<String> {
    let pods: Api<Pod> = Api::namespaced(sandbox.client(), &sandbox.name);
    let at = |pod: &Pod| pod.status.as_ref().and_then(|status| status.pod_ip.clone()) == Some(ip.to_string());
    let found = pods.list(&Default::default()).await?.items.into_iter().find(at);
    found.and_then(|pod| pod.metadata.name).context("no pod has the address")
}
