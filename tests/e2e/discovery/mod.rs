//! Discovery: RegisteredServices that a ServiceRegistry makes for Services and names, from the first look to the sweep.
//!
//! - [`scene`]: a cluster whose operator may write RegisteredServices, and the objects that discovery made.
//! - [`choices`]: what people say for one Service, and what they write by hand. [`sweeps`]: what goes, and is held.
//! - [`relabelling`]: labels of Services and namespaces, and a namespace without a grant.
//! - [`many`]: hundreds of Services and names.

mod choices;
mod many;
mod relabelling;
mod scene;
mod sweeps;

use std::sync::Arc;

use anyhow::{Result, ensure};
use serde_json::json;
use twinspan_testbed::eventually;

use self::scene::{Scene, plan};
use crate::harness::{SOON, Suite, stories};

stories![
    from_the_first_look_to_the_sweep;
    long: many::five_hundred_of_each,
];

/// Names that a stranger writes.
const HOSTILE: usize = 3_000;
/// The most objects for names.
const MOST: usize = 4;

/// One control plane for all: each step begins where the one before ended.
async fn from_the_first_look_to_the_sweep(suite: Arc<Suite>) -> Result<()> {
    let bed = suite.own_bed().await?;
    let scene = Scene::new(&bed).await?;
    observe_writes_nothing(&scene).await?;
    sync_makes_them(&scene).await?;
    choices::all(&scene).await?;
    relabelling::all(&scene).await?;
    sweeps::held_and_approved(&scene).await?;
    // All Services are selected again, and the names of no stranger, which would take the place of one that went.
    scene
        .discovery(json!({
            "export": {"serviceSelector": {"matchExpressions": null}},
            "import": {"namespace": scene.vms, "maxServices": MOST, "exclude": ["zz-*"]},
        }))
        .await?;
    choices::what_is_written_by_hand_wins(&scene).await?;
    scene.sandbox.nothing_foreign_was_touched().await
}

async fn observe_writes_nothing(scene: &Scene<'_>) -> Result<()> {
    scene.services(3).await?;
    scene.foreign_names("zz-hostile", HOSTILE).await?;
    scene.foreign_names("vm", 2).await?;
    let before = scene.written().await?;
    scene
        .discovery(json!({
            "export": {"namespaceSelector": {"matchLabels": {"story": scene.sandbox.name}}, "serviceSelector": {}},
            "import": {"namespace": scene.vms, "maxServices": MOST},
        }))
        .await?;
    // Three Services, and as many names as there may be.
    let pending = i64::try_from(3 + MOST)?;
    let status = scene.status(|status| status.pending == pending).await?;
    ensure!((status.exports, status.imports) == (0, 0), "{status:?}");
    let (code, text) = plan(scene.bed(), &[]).await?;
    for line in ["s-00 (Export s-00)", "/vm-0 (Import vm-0)", "spec.discovery.policy is Observe", "DiscoveryLimited"] {
        ensure!(text.contains(line), "no {line:?} in\n{text}");
    }
    ensure!(code == 2, "something would be written: {code}");
    ensure!(scene.written().await? == before, "nothing was written");
    ensure!(scene.made().await?.is_empty());
    Ok(())
}

async fn sync_makes_them(scene: &Scene<'_>) -> Result<()> {
    scene.discovery(json!({"policy": "Sync"})).await?;
    for n in 0..3 {
        scene.sandbox.records_become(&format!("s-{n:02}"), &[scene.pod(n)]).await?;
    }
    scene.status(|status| status.exports == 3 && status.imports == MOST as i64 && status.pending == 0).await?;
    scene.condition("False", "DiscoveryLimited").await?;
    let made = scene.made().await?;
    ensure!(made.len() == 3 + MOST && made.contains(&format!("{}/vm-0", scene.vms)), "{made:?}");
    // A new Service needs no object.
    scene.service(3).await?;
    scene.sandbox.records_become("s-03", &[scene.pod(3)]).await?;
    // An object for a name has a Service with it.
    eventually("the Service of a name", SOON, || async {
        let services = scene.vm_services().await?;
        ensure!(services.contains("vm-1"), "{services:?}");
        Ok(())
    })
    .await
}
