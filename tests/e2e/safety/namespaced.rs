//! Namespaced mode: two releases side by side, each with its namespace, its ServiceRegistry and no more of the cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt;
use kube::api::{Api, ListParams, Patch, PatchParams};
use serde_json::json;
use twinspan_chart::chart;
use twinspan_chart::helm::Helm;
use twinspan_testbed::{Bed, Twinspan, TwinspanOptions, eventually, holds, next_v4};

use super::audit::{audited_as, nothing_is_denied};
use crate::harness::{SOON, Sandbox, Suite, TWINSPAN, record, stories};

stories![two_releases_side_by_side];

const POD_CIDR: &str = "10.244.0.0/16";
const NODE_CIDR: &str = "192.168.77.0/24";
const SERVICE_CIDRS: [&str; 2] = ["10.96.0.0/12", "fd96::/108"];

/// Installs the chart, and starts the operator as its Deployment would.
async fn release(bed: &Bed, namespace: &str, watched: &str, registries: &str) -> Result<Twinspan> {
    let values = [
        "crds.install=false".to_owned(),
        "namespaced.enabled=true".to_owned(),
        "discovery.enabled=true".to_owned(),
        format!("namespaced.namespaces={{{watched}}}"),
        format!("servedRegistries={{{registries}}}"),
        format!("namespaced.clusterID={namespace}"),
        format!("namespaced.podCIDRs={{{POD_CIDR}}}"),
        format!("serviceCIDRs={{{}}}", SERVICE_CIDRS.join(",")),
        format!("namespaced.nodeCIDRs={{{NODE_CIDR}}}"),
    ];
    let helm = Helm::find()?.on(&bed.cluster.admin.path);
    let mut args = vec!["upgrade".to_owned(), "--install".to_owned(), "twinspan".to_owned()];
    args.extend([chart().display().to_string(), format!("--namespace={namespace}"), "--create-namespace".to_owned()]);
    args.extend(values.iter().map(|value| format!("--set={value}")));
    tokio::task::spawn_blocking(move || helm.succeed(&args.iter().map(String::as_str).collect::<Vec<_>>())).await??;
    let env = [
        ("TWINSPAN_REGISTRIES", registries.to_owned()),
        ("TWINSPAN_WATCH_NAMESPACES", watched.to_owned()),
        ("TWINSPAN_CLUSTER_ID", namespace.to_owned()),
        ("TWINSPAN_POD_CIDRS", POD_CIDR.to_owned()),
        ("TWINSPAN_SERVICE_CIDRS", SERVICE_CIDRS.join(",")),
        ("TWINSPAN_NODE_CIDRS", NODE_CIDR.to_owned()),
    ];
    let options = TwinspanOptions {
        namespace: Some(namespace.to_owned()),
        kubeconfig: Some(bed.account_in(namespace, "twinspan").await?),
        env: env.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
        ..TwinspanOptions::default()
    };
    bed.start_twinspan(TWINSPAN, &options)
}

/// A ready pod of `echo` in the network of pods.
async fn pod(sandbox: &Sandbox<'_>, address: &str) -> Result<SocketAddr> {
    let address: SocketAddr = address.parse()?;
    sandbox.run("a", &BTreeMap::from([("app".to_owned(), "echo".to_owned())]), address.ip()).await?;
    sandbox.pods.set_ready("a", true).await?;
    Ok(address)
}

async fn two_releases_side_by_side(suite: Arc<Suite>) -> Result<()> {
    let bed = suite.own_bed().await?;
    let (one, two) = (Sandbox::new(&bed, "teama").await?, Sandbox::new(&bed, "teamb").await?);
    let first = release(&bed, "team-a", &one.name, &one.name).await?;
    let second = release(&bed, "team-b", &two.name, &two.name).await?;
    first.ready().await?;
    second.ready().await?;

    let mut sides = Vec::new();
    for (sandbox, address) in [(&one, "10.244.1.1:80"), (&two, "10.244.2.1:80")] {
        sandbox.headless("echo").await?;
        sandbox.register("echo", json!({})).await?;
        let pod = pod(sandbox, address).await?;
        let vm = SocketAddr::from((next_v4(), 9000));
        sandbox.put("echo", vm).await?;
        sides.push((sandbox, pod, vm));
    }
    for (sandbox, pod, vm) in &sides {
        sandbox.imports_become("echo", &[*vm]).await?;
        sandbox.records_become("echo", &[*pod, *vm]).await?;
        sandbox.dns_becomes("echo", &[*pod, *vm]).await?;
        sandbox.condition("echo", "Ready", "True", "Synced").await?;
    }
    let status = |sandbox: &Sandbox<'_>| {
        let (registries, name) = (sandbox.registries(), sandbox.name.clone());
        async move { Ok::<_, anyhow::Error>(registries.get(&name).await?.status.unwrap_or_default()) }
    };
    for (sandbox, namespace) in [(&one, "team-a"), (&two, "team-b")] {
        eventually("the status names the release", SOON, || async {
            let status = status(sandbox).await?;
            ensure!((status.holder.as_deref(), status.cluster_id.as_deref()) == (Some(namespace), Some(namespace)));
            Ok(())
        })
        .await?;
    }

    forbidden_addresses(&one, sides[1].1).await.context("addresses that the registry may not name")?;

    // A mistake in its list takes the first release's namespace out of sight. Its records stay, and the status says so.
    first.part().stop().await?;
    let mistaken = release(&bed, "team-a", &two.name, &one.name).await?;
    mistaken.ready().await?;
    eventually("the status names the namespace", SOON, || async {
        let conditions = status(&one).await?.conditions;
        let ready = conditions.iter().find(|condition| condition.type_ == "Ready").context("no Ready")?;
        ensure!(
            ready.status == "True" && ready.message.contains(&format!("does not look there: {}", one.name)),
            "{ready:?}"
        );
        Ok(())
    })
    .await?;
    let kept = || async { one.records("echo").await };
    holds("the records of a namespace out of sight", std::time::Duration::from_secs(5), kept).await?;
    one.records_become("echo", &[sides[0].1, sides[0].2]).await?;
    mistaken.part().stop().await?;
    let first = release(&bed, "team-a", &one.name, &one.name).await?;
    first.ready().await?;
    one.records_become("echo", &[sides[0].1, sides[0].2]).await?;

    // The second release is told to serve the ServiceRegistry of the first one too. It touches neither that one nor
    // what refers to it, until an administrator hands it over; nor does its discovery make anything for it.
    two.headless("found").await?;
    let discovery = json!({"policy": "Sync", "export": {"namespaceSelector": {}, "serviceSelector": {}}});
    let patch = Patch::Merge(json!({"spec": {"discovery": discovery}}));
    one.registries().patch(&one.name, &PatchParams::default(), &patch).await?;
    second.part().stop().await?;
    let second = release(&bed, "team-b", &two.name, &format!("{},{}", one.name, two.name)).await?;
    second.ready().await?;
    two.register("theirs", json!({"registryRef": {"name": one.name}})).await?;
    eventually("it says whose the ServiceRegistry is", SOON, || async {
        let log = std::fs::read_to_string(second.part().log())?;
        ensure!(log.contains(&format!("the release in namespace team-a serves ServiceRegistry {}", one.name)));
        Ok(())
    })
    .await?;
    let untouched = || async {
        let theirs = two.registered().get("theirs").await?;
        let all =
            two.registered().list(&ListParams::default()).await?.items.iter().map(ResourceExt::name_any).collect();
        let all: BTreeSet<String> = all;
        Ok((theirs.resource_version(), status(&one).await?.holder, one.records("echo").await?, all))
    };
    holds("what the first release serves", std::time::Duration::from_secs(5), untouched).await?;
    let patch = Patch::Merge(json!({"metadata": {"annotations": {"twinspan.dev/approve-holder": "team-b"}}}));
    one.registries().patch(&one.name, &PatchParams::default(), &patch).await?;
    eventually("the second release holds it", SOON, || async {
        let status = status(&one).await?;
        ensure!(
            (status.holder.as_deref(), status.cluster_id.as_deref()) == (Some("team-b"), Some("team-b")),
            "{status:?}"
        );
        Ok(())
    })
    .await?;
    eventually("its discovery does now", SOON, || async {
        let found = two.registered().get_opt("found").await?.context("nothing is made for the Service found")?;
        ensure!(found.spec.registry_ref.name == one.name, "{found:?}");
        Ok(())
    })
    .await?;
    // Imports of the first release stay as they are: nobody says that they ended.
    one.imports_become("echo", &[sides[0].2]).await?;

    for namespace in ["team-a", "team-b"] {
        nothing_of_the_whole_cluster(&bed, namespace).with_context(|| format!("the audit log of {namespace}"))?;
    }
    first.part().check_running()?;
    second.part().check_running()
}

/// A pod of another namespace, a ClusterIP and an address of a node are refused; nothing but what the administrator
/// said shows that they are.
async fn forbidden_addresses(sandbox: &Sandbox<'_>, anothers: SocketAddr) -> Result<()> {
    let services: Api<Service> = Api::namespaced(sandbox.client(), "default");
    let cluster_ip = services.get("kubernetes").await?.spec.and_then(|spec| spec.cluster_ip).context("no ClusterIP")?;
    sandbox.headless_without_selector("target", 80).await?;
    sandbox.register("target", json!({})).await?;
    let cases = BTreeMap::from([
        (format!("{}:80", anothers.ip()), "NoSuchPod"),
        (format!("{cluster_ip}:443"), "ServiceAddress"),
        ("192.168.77.5:10250".to_owned(), "NodeAddress"),
        // Nobody said which IPv6 addresses pods have.
        ("[2001:db8::5]:80".to_owned(), "NoSuchPod"),
    ]);
    let good = SocketAddr::from((next_v4(), 9000));
    for address in cases.keys().cloned().chain([good.to_string()]) {
        sandbox.registry.put(&sandbox.key("target", &address), &record(&address).to_string()).await?;
    }
    sandbox.imports_become("target", &[good]).await?;
    eventually("each refusal has its reason", SOON, || async {
        let status = sandbox.registered().get("target").await?.status.unwrap_or_default();
        let found: BTreeMap<String, String> =
            status.differences.iter().map(|shown| (shown.instance.clone(), shown.reason.clone())).collect();
        let wanted = cases.iter().map(|(address, reason)| (address.clone(), (*reason).to_owned())).collect();
        ensure!(found == wanted, "{found:?}");
        Ok(())
    })
    .await
}

/// The account listed and watched nothing of the whole cluster but ServiceRegistries, and namespaces by name.
fn nothing_of_the_whole_cluster(bed: &Bed, namespace: &str) -> Result<()> {
    let asked = audited_as(bed, &format!("system:serviceaccount:{namespace}:twinspan"))?;
    nothing_is_denied(&asked)?;
    let mut of_pods = 0;
    for event in &asked {
        let object = &event["objectRef"];
        let resource = object["resource"].as_str().unwrap_or_default();
        let is_in_namespace = object["namespace"].as_str().is_some_and(|namespace| !namespace.is_empty());
        let is_named = resource == "namespaces" && object["name"].is_string();
        ensure!(is_in_namespace || is_named || resource == "serviceregistries" || resource.is_empty(), "{event}");
        of_pods += usize::from(resource == "pods");
    }
    ensure!(of_pods > 0, "the audit log shows how it watches pods");
    Ok(())
}
