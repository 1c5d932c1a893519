//! The Service itself: its selector, its ports, its owner, and one that Twinspan creates.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Service;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use twinspan_testbed::{eventually, holds, next_v4};

use crate::harness::{SOON, Sandbox, Suite};

pub async fn selector_and_back(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let sandbox = Sandbox::new(bed, "selector").await?;
    sandbox.headless("echo").await?;
    sandbox.register("echo", json!({})).await?;
    let pod = sandbox.pod("echo", "pod", 80).await?;
    sandbox.pods.set_ready("pod", true).await?;
    let vm = SocketAddr::from((next_v4(), 9000));
    sandbox.put("echo", vm).await?;
    sandbox.records_become("echo", &[pod.address(), vm]).await?;
    sandbox.imports_become("echo", &[vm]).await?;

    let selector = |selector: Value| {
        let (api, body) = (sandbox.services(), json!({"spec": {"selector": selector}}));
        async move { api.patch("echo", &PatchParams::default(), &Patch::Merge(body)).await }
    };
    selector(Value::Null).await?;
    // The built-in controller leaves its slice behind and no longer updates it, so the slice is not evidence.
    sandbox.records_become("echo", &[vm]).await?;
    let left = sandbox.slices().list(&ListParams::default().labels("kubernetes.io/service-name=echo")).await?;
    ensure!(
        left.items.len() == 2,
        "the built-in controller's slice is still there, and was not touched: {}",
        left.items.len()
    );
    sandbox.imports_become("echo", &[vm]).await?;
    selector(json!({"app": "echo"})).await?;
    sandbox.records_become("echo", &[pod.address(), vm]).await?;
    sandbox.imports_become("echo", &[vm]).await?;

    // A Service that is deleted and created again has another UID: nothing is adopted and nothing is lost.
    sandbox.services().delete("echo", &DeleteParams::default()).await?;
    sandbox.headless("echo").await?;
    sandbox.records_become("echo", &[pod.address(), vm]).await?;
    sandbox.imports_become("echo", &[vm]).await?;
    sandbox.dns_becomes("echo", &[pod.address(), vm]).await?;
    sandbox.nothing_foreign_was_touched().await
}

pub async fn services_of_others_are_never_changed(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let sandbox = Sandbox::new(bed, "others").await?;
    sandbox.service("there", json!({"ports": [{"name": "rpc", "port": 80}]})).await?;
    let before = sandbox.services().get("there").await?;
    let create = json!({"service": {"create": "Headless", "ports": [{"name": "rpc", "number": 8888}]}});
    sandbox.register("there", create.clone()).await?;
    sandbox.condition("there", "Ready", "True", "Synced").await?;
    // A Service that we created, then another name for it: the old Service is deleted, because we created it.
    sandbox.register("ours", create).await?;
    sandbox.condition("ours", "Ready", "True", "Synced").await?;
    let vm = SocketAddr::from((next_v4(), 9000));
    sandbox.put("ours", vm).await?;
    sandbox.imports_become("ours", &[vm]).await?;
    sandbox.patch("ours", json!({"service": {"name": "renamed"}})).await?;
    sandbox.imports_become("renamed", &[vm]).await?;
    eventually("the Service that we made under the old name is gone", SOON, || async {
        ensure!(sandbox.services().get_opt("ours").await?.is_none());
        ensure!(sandbox.our_slices("ours").await?.is_empty());
        Ok(())
    })
    .await?;
    sandbox.unregister("there").await?;
    holds("the Service of others", Duration::from_secs(2), || async {
        Ok(sandbox.services().get("there").await?.metadata.resource_version)
    })
    .await?;
    let after: Service = sandbox.services().get("there").await?;
    ensure!(after == before, "{after:?}\nwas\n{before:?}");
    sandbox.nothing_foreign_was_touched().await
}

/// The only port needs no name, its target port may differ, and the chosen port may change at any time.
pub async fn a_port_without_a_name_and_another_port(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let sandbox = Sandbox::new(bed, "whichport").await?;
    sandbox.service("echo", json!({"selector": {"app": "echo"}, "ports": [{"port": 80, "targetPort": 8080}]})).await?;
    sandbox.register("echo", json!({})).await?;
    let ip = next_v4();
    sandbox.pods.run("pod", &BTreeMap::from([("app".to_owned(), "echo".to_owned())]), &[ip.into()]).await?;
    sandbox.pods.set_ready("pod", true).await?;
    let at = |port: u16| SocketAddr::from((ip, port));
    sandbox.records_become("echo", &[at(8080)]).await?;
    let vm = SocketAddr::from((next_v4(), 9000));
    sandbox.put("echo", vm).await?;
    let imported_as = |name: &'static str| {
        let sandbox = &sandbox;
        async move {
            sandbox.imports_become("echo", &[vm]).await?;
            eventually("the port name of the slice", SOON, || async {
                let slice = sandbox.our_slices("echo").await?.pop().context("a slice")?;
                let port = slice.ports.unwrap_or_default().pop().context("a port")?;
                ensure!(port.name.as_deref().unwrap_or_default() == name, "{port:?}");
                Ok(())
            })
            .await
        }
    };
    imported_as("").await?;
    let two = json!([{"name": "web", "port": 80, "targetPort": 8080}, {"name": "rpc", "port": 81, "targetPort": 8081}]);
    sandbox.services().patch("echo", &PatchParams::default(), &Patch::Merge(json!({"spec": {"ports": two}}))).await?;
    sandbox.condition("echo", "Accepted", "False", "PortAmbiguous").await?;
    // A port that is not understood is not a deletion: the imported endpoints stay.
    sandbox.records_become("echo", &[at(8080), vm]).await?;
    for (name, number) in [("rpc", 8081), ("web", 8080)] {
        sandbox.patch("echo", json!({"service": {"ports": [{"name": name}]}})).await?;
        sandbox.records_become("echo", &[at(number), vm]).await?;
        imported_as(name).await?;
    }
    sandbox.nothing_foreign_was_touched().await
}

pub async fn a_created_service_follows_its_spec(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let sandbox = Sandbox::new(bed, "follows").await?;
    let create = |how: &str, name: &str, number: u16| json!({"service": {"create": how, "ports": [{"name": name, "number": number}]}});
    sandbox.register("user", create("ClusterIP", "rpc", 8888)).await?;
    let vm = SocketAddr::from((next_v4(), 9000));
    sandbox.put("user", vm).await?;
    let becomes = |what: &'static str, headless: bool, name: &'static str, number: i32| {
        let sandbox = &sandbox;
        async move {
            eventually(what, SOON, || async {
                let service = sandbox.services().get("user").await?;
                let spec = service.spec.context("a spec")?;
                ensure!((spec.cluster_ip.as_deref() == Some("None")) == headless, "{:?}", spec.cluster_ip);
                let ports = spec.ports.unwrap_or_default();
                ensure!(
                    ports.len() == 1 && ports[0].name.as_deref() == Some(name) && ports[0].port == number,
                    "{ports:?}"
                );
                let slice = sandbox.our_slices("user").await?.pop().context("a slice")?;
                let port = slice.ports.unwrap_or_default().pop().context("a port")?;
                ensure!(port.name.as_deref() == Some(name), "{port:?}");
                Ok(service.metadata.uid)
            })
            .await
        }
    };
    let first = becomes("it is created", false, "rpc", 8888).await?;
    sandbox.patch("user", create("ClusterIP", "grpc", 8889)).await?;
    let second = becomes("its port follows", false, "grpc", 8889).await?;
    ensure!(first == second, "the Service keeps its address");
    sandbox.imports_become("user", &[vm]).await?;
    sandbox.patch("user", create("Headless", "grpc", 8889)).await?;
    let third = becomes("it is made anew", true, "grpc", 8889).await?;
    ensure!(third != second);
    sandbox.imports_become("user", &[vm]).await?;
    // Without `create` the Service stays: the rule is only about a missing Service.
    sandbox.patch("user", json!({"service": {"create": "Never", "ports": [{"name": "grpc", "number": null}]}})).await?;
    sandbox.condition("user", "Ready", "True", "Synced").await?;
    ensure!(sandbox.services().get("user").await?.metadata.uid == third);
    sandbox.nothing_foreign_was_touched().await
}
