//! Older servers: one smoke story for each pair of a Kubernetes release and a registry's etcd.
//!
//! - [`table`]: the table of `docs/compatibility.md`, which each story confirms with the versions that it met.
//!
//! The pairs with the oldest API server run only where a filter names them (`make compat`): its build takes minutes.

mod table;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, PostParams};
use libtest_mimic::Arguments;
use serde_json::json;
use tokio::process::Command;
use twinspan_testbed::{Bed, NEWEST, Releases, Twinspan, TwinspanOptions, eventually, next_v4};

use crate::chart::Cluster;
use crate::harness::{SOON, Sandbox, Suite, TWINSPAN, record, stories};

pub const EARLIER_API_SERVER: &str = "controlplane131";
pub const EARLIER_ETCD: &str = "etcd35";
/// A free address of the bed's Service range, and the ClusterIP of the Service `kubernetes`.
const IN_RANGE: &str = "10.96.77.77:80";
const IN_USE: &str = "10.96.0.1:80";

stories![
    table::the_table_has_the_releases_of_the_suite
    ; long: kubernetes_1_31_with_etcd_3_5, kubernetes_1_31_with_etcd_3_7, kubernetes_1_37_with_etcd_3_5,
    kubernetes_1_37_with_etcd_3_7
];

/// Whether somebody asks for the stories of this module.
pub fn asked(arguments: &Arguments) -> bool {
    let long = arguments.ignored || arguments.include_ignored;
    long && arguments.filter.as_deref().is_some_and(|filter| filter.starts_with("compat::"))
}

pub fn needs_earlier_api_server(story: &str) -> bool {
    story.starts_with("compat::kubernetes_1_31")
}

async fn kubernetes_1_31_with_etcd_3_5(suite: Arc<Suite>) -> Result<()> {
    smoke(suite, Releases { apiserver: EARLIER_API_SERVER, registry: EARLIER_ETCD }).await
}

async fn kubernetes_1_31_with_etcd_3_7(suite: Arc<Suite>) -> Result<()> {
    smoke(suite, Releases { apiserver: EARLIER_API_SERVER, registry: NEWEST }).await
}

async fn kubernetes_1_37_with_etcd_3_5(suite: Arc<Suite>) -> Result<()> {
    smoke(suite, Releases { apiserver: NEWEST, registry: EARLIER_ETCD }).await
}

async fn kubernetes_1_37_with_etcd_3_7(suite: Arc<Suite>) -> Result<()> {
    smoke(suite, Releases::NEWEST).await
}

/// The chart is taken, one instance crosses in each direction and goes again, and addresses of Services are refused.
async fn smoke(suite: Arc<Suite>, releases: Releases) -> Result<()> {
    let bed = &suite.own_bed_of(releases).await?;
    let group = bed.client().list_api_group_resources("networking.k8s.io/v1").await?;
    let has_service_cidrs = group.resources.iter().any(|resource| resource.name == "servicecidrs");
    ensure!(has_service_cidrs == (releases.apiserver == NEWEST), "ServiceCIDRs: {has_service_cidrs}");
    let cluster = Cluster::of(bed)?;
    let ranges = ["--set-json", r#"serviceCIDRs=["10.96.0.0/16","fd96::/108"]"#];
    let set = if has_service_cidrs { &[][..] } else { &ranges };
    cluster.succeed("install", &[&["--take-ownership", "--force-conflicts"], set].concat()).await?;
    only_slices_of_its_own(bed).await?;

    let twinspan = bed.start_twinspan(TWINSPAN, &TwinspanOptions::default())?;
    twinspan.ready().await?;
    let sandbox = Sandbox::new(bed, "compat").await?;
    sandbox.registry_condition("Ready", "True", "Connected").await?;
    let vm = SocketAddr::from((next_v4(), 9000));
    for address in [vm, IN_RANGE.parse()?, IN_USE.parse()?] {
        sandbox.put("vms", record(address)).await?;
    }
    sandbox.headless_without_selector("vms", 80).await?;
    sandbox.register("vms", json!({})).await?;
    // Without ServiceCIDRs and settings an address is known once a Service has it.
    let free = if has_service_cidrs { None } else { Some(IN_RANGE.parse()?) };
    sandbox.imports_become("vms", &[vm].into_iter().chain(free).collect::<Vec<_>>()).await?;
    sandbox.dns_becomes("vms", &[vm].into_iter().chain(free).collect::<Vec<_>>()).await?;
    refused(&sandbox, if has_service_cidrs { &[IN_RANGE, IN_USE] } else { &[IN_USE] }).await?;
    doctor(bed, &sandbox, &[], (!has_service_cidrs).then_some("no range of IPv4 ClusterIPs is set")).await?;

    let pod = SocketAddr::from((next_v4(), 80));
    sandbox.selector_service("pods", 80).await?;
    sandbox.pods.run("pod", &BTreeMap::from([("app".to_owned(), "pods".to_owned())]), &[pod.ip()]).await?;
    sandbox.pods.set_ready("pod", true).await?;
    sandbox.register("pods", json!({})).await?;
    sandbox.records_become("pods", &[pod]).await?;
    for name in ["pods", "vms"] {
        sandbox.condition(name, "Ready", "True", "Synced").await?;
    }

    // The range of the settings is refused whole, whatever told of it before.
    let set = ("TWINSPAN_SERVICE_CIDRS".to_owned(), "10.96.0.0/16,fd96::/108".to_owned());
    let twinspan = restarted(bed, &twinspan, TwinspanOptions { env: vec![set], ..TwinspanOptions::default() }).await?;
    sandbox.imports_become("vms", &[vm]).await?;
    refused(&sandbox, &[IN_RANGE, IN_USE]).await?;
    let flag = ["--service-cidrs=10.96.0.0/16,fd96::/108"];
    doctor(bed, &sandbox, &flag, (!has_service_cidrs).then_some("known by the ranges that are set")).await?;

    sandbox.pods.remove("pod").await?;
    sandbox.records_become("pods", &[]).await?;
    bed.registry.delete(&sandbox.key("vms", vm)).await?;
    sandbox.imports_become("vms", &[]).await?;
    for name in ["pods", "vms"] {
        sandbox.unregister(name).await?;
    }
    eventually("no slice of ours is left", SOON, || async {
        ensure!(sandbox.our_slices("vms").await?.is_empty());
        Ok(())
    })
    .await?;
    sandbox.nothing_foreign_was_touched().await?;
    let log = std::fs::read_to_string(twinspan.part().log())?;
    let complaints = log.lines().filter(|line| line.contains("ServiceCIDR") && line.contains("WARN")).count();
    ensure!(complaints == 0, "{complaints} warnings about ServiceCIDRs in {}", twinspan.part().log().display());
    twinspan.part().stop().await?;
    cluster.succeed("uninstall", &[]).await?;
    let kubernetes = bed.client().apiserver_version().await?.git_version;
    let etcd = bed.registry.client().await?.status().await?.version().to_owned();
    table::confirm(&table::Row { kubernetes, etcd, has_service_cidrs })
}

async fn restarted(bed: &Bed, twinspan: &Twinspan, options: TwinspanOptions) -> Result<Twinspan> {
    twinspan.part().stop().await?;
    let again = bed.start_twinspan(TWINSPAN, &options)?;
    again.ready().await?;
    Ok(again)
}

/// The rules of the chart's policy mean the same to this API server.
async fn only_slices_of_its_own(bed: &Bed) -> Result<()> {
    let operator: Api<EndpointSlice> = Api::namespaced(bed.operator().client().await?, "default");
    let slice = |manager: &str| {
        serde_json::from_value::<EndpointSlice>(json!({
            "metadata": {"name": "compat", "labels": {
                "kubernetes.io/service-name": "x", "endpointslice.kubernetes.io/managed-by": manager}},
            "addressType": "IPv4", "endpoints": [], "ports": [],
        }))
    };
    let (theirs, ours) = (slice("somebody-else.example")?, slice("twinspan.dev")?);
    let dry_run = PostParams { dry_run: true, ..PostParams::default() };
    eventually("the policy is in force", SOON, || async {
        let refused = operator.create(&dry_run, &theirs).await.err().context("another manager's slice was taken")?;
        ensure!(refused.to_string().contains("managed-by"), "{refused}");
        Ok(())
    })
    .await?;
    operator.create(&dry_run, &ours).await.context("a slice of its own")?;
    Ok(())
}

/// Exactly these records of `vms` are refused as addresses of Services.
async fn refused(sandbox: &Sandbox<'_>, addresses: &[&str]) -> Result<()> {
    eventually("addresses of Services are refused", SOON, || async {
        let status = sandbox.registered().get("vms").await?.status.context("no status")?;
        let mut found: Vec<_> =
            status.differences.iter().map(|it| (it.instance.as_str(), it.reason.as_str())).collect();
        found.sort_unstable();
        let mut wanted: Vec<_> = addresses.iter().map(|address| (*address, "ServiceAddress")).collect();
        wanted.sort_unstable();
        ensure!(found == wanted, "{found:?}, want {wanted:?}");
        Ok(())
    })
    .await
}

/// The doctor finds nothing wrong but the ranges that it lacks, and says this.
async fn doctor(bed: &Bed, sandbox: &Sandbox<'_>, more: &[&str], says: Option<&str>) -> Result<()> {
    let kubeconfig = format!("--kubeconfig={}", bed.cluster.admin.path.display());
    let output =
        Command::new(TWINSPAN).args(["doctor", &sandbox.name, "--audit", &kubeconfig]).args(more).output().await?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let warnings = if says.is_some() && more.is_empty() { "1 warning" } else { "0 warnings" };
    ensure!(output.status.success() && text.contains(&format!(" {warnings}, 0 failed")), "{text}");
    ensure!(text.contains("has no ServiceCIDRs") == says.is_some(), "{text}");
    ensure!(says.is_none_or(|says| text.contains(says)), "nothing about {says:?} in:\n{text}");
    Ok(())
}
