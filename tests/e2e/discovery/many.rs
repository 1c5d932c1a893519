//! Hundreds of Services and names from one object.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::Service;
use kube::api::{Api, PostParams};
use serde_json::json;
use twinspan_testbed::eventually;

use super::scene::Scene;
use crate::harness::Suite;

const NAMESPACES: usize = 50;
const IN_EACH: usize = 10;
const NAMES: usize = 500;
/// Ten names a second are made.
const MADE: Duration = Duration::from_secs(180);

pub async fn five_hundred_of_each(suite: Arc<Suite>) -> Result<()> {
    let bed = suite.own_bed().await?;
    let scene = Scene::new(&bed).await?;
    let story = BTreeMap::from([("story".to_owned(), scene.sandbox.name.clone())]);
    for namespace in 0..NAMESPACES {
        let name = format!("{}-{namespace}", scene.sandbox.name);
        bed.create_namespace(&name, &story).await?;
        let api: Api<Service> = Api::namespaced(bed.client(), &name);
        for service in 0..IN_EACH {
            let object: Service = serde_json::from_value(json!({
                "metadata": {"name": format!("s-{service}")},
                "spec": {"clusterIP": "None", "ports": [{"name": "rpc", "port": 80}]},
            }))?;
            api.create(&PostParams::default(), &object).await?;
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
    eventually("a RegisteredService for each", MADE, || async {
        let made = scene.made().await?;
        ensure!(made.len() == NAMESPACES * IN_EACH + NAMES, "{} are made", made.len());
        Ok(())
    })
    .await?;
    scene.condition("True", "AllDiscovered").await?;
    scene.sandbox.nothing_foreign_was_touched().await
}
