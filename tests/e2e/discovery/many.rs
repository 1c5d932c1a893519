//! Hundreds of Services and names from one object.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, ListParams};
use serde_json::json;
use twinspan_testbed::{Framework, eventually, resolve};

use super::scene::Scene;
use crate::harness::{SOON, Suite};

const NAMESPACES: usize = 50;
const IN_EACH: usize = 10;
const NAMES: usize = 500;
/// Ten names a second are made.
const MADE: Duration = Duration::from_secs(180);
/// The operator ends once so many objects are made.
const MIDWAY: usize = 600;

pub async fn five_hundred_of_each(suite: Arc<Suite>) -> Result<()> {
    let bed = suite.own_bed().await?;
    let scene = Scene::new(&bed).await?;
    let sandbox = &scene.sandbox;
    let story = BTreeMap::from([("story".to_owned(), sandbox.name.clone())]);
    let namespace = |n: usize| format!("{}-{n}", sandbox.name);
    let mut expected = BTreeSet::new();
    for n in 0..NAMESPACES {
        let namespace = namespace(n);
        bed.create_namespace(&namespace, &story).await?;
        for service in 0..IN_EACH {
            let name = format!("s-{service}");
            let address = scene.service_in(&namespace, &name, json!({}), json!({})).await?;
            expected.insert(sandbox.key(&format!("{namespace}.{name}"), address));
        }
    }
    scene.foreign_names("vm", NAMES).await?;
    scene
        .discovery(json!({
            "policy": "Sync",
            "export": {
                "namespaceSelector": {"matchLabels": story}, "serviceSelector": {}, "nameTemplate": "{namespace}.{name}",
            },
            "import": {"namespace": scene.vms, "exclude": ["bystander"]},
        }))
        .await?;
    // Another process goes on in the middle.
    made_become(&scene, MIDWAY, |made| made >= MIDWAY).await?;
    scene.restart().await?;
    let all = NAMESPACES * IN_EACH + NAMES;
    made_become(&scene, all, |made| made == all).await?;
    scene.condition("True", "AllDiscovered").await?;
    let created = scene.written_objects("create")?;
    let once: BTreeSet<&String> = created.iter().collect();
    ensure!((created.len(), once.len()) == (all, all), "{} creations of {}", created.len(), once.len());
    ensure!(scene.written_objects("delete")?.is_empty(), "nothing is deleted");

    both_sides_have_them(&scene, &expected).await?;
    // A client of each side sees one.
    let name = format!("{}.s-0", namespace(7));
    let registry = sandbox.registry.endpoint();
    let found = resolve(Framework::Kitex, registry, &name, Some(&sandbox.name), &[]).await?;
    let key = |address: &str| sandbox.key(&name, address);
    ensure!(found.len() == 1 && expected.contains(&key(&found[0].address)), "{found:?}");
    let found = bed.dns.addresses(&format!("vm-7.{}.svc.cluster.local.", scene.vms)).await?;
    ensure!(found == BTreeSet::from(["192.0.2.1".parse()?]), "{found:?}");
    // A new Service needs no object.
    let address = scene.service_in(&namespace(0), "new", json!({}), json!({})).await?;
    sandbox.records_become(&format!("{}.new", namespace(0)), &[address]).await?;
    sandbox.nothing_foreign_was_touched().await
}

async fn made_become(scene: &Scene<'_>, count: usize, enough: impl Fn(usize) -> bool) -> Result<()> {
    eventually(&format!("{count} RegisteredServices"), MADE, || async {
        let made = scene.made().await?.len();
        ensure!(enough(made), "{made} are made");
        Ok(())
    })
    .await
}

/// A record for each Service, and an endpoint for each name.
async fn both_sides_have_them(scene: &Scene<'_>, expected: &BTreeSet<String>) -> Result<()> {
    let sandbox = &scene.sandbox;
    let exported = sandbox.key(&format!("{}-", sandbox.name), "");
    let exported = exported.trim_end_matches('/');
    eventually("a record for each Service", SOON * 2, || async {
        let found: BTreeSet<String> = sandbox.registry.dump(exported).await?.into_keys().collect();
        ensure!(found == *expected, "{} of {}", found.len(), expected.len());
        Ok(())
    })
    .await?;
    let slices: Api<EndpointSlice> = Api::namespaced(sandbox.client(), &scene.vms);
    let ours = ListParams::default().labels("endpointslice.kubernetes.io/managed-by=twinspan.dev");
    let names: BTreeSet<String> = (0..NAMES).map(|n| format!("vm-{n}")).collect();
    eventually("an endpoint for each name", SOON * 2, || async {
        let service =
            |slice: &EndpointSlice| slice.metadata.labels.as_ref()?.get("kubernetes.io/service-name").cloned();
        let all = slices.list(&ours).await?.items;
        let full = all.iter().filter(|slice| slice.endpoints.len() == 1);
        let found: BTreeSet<String> = full.filter_map(service).collect();
        ensure!(found == names, "{} of {}", found.len(), names.len());
        Ok(())
    })
    .await
}
