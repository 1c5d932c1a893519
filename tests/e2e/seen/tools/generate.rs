//! `generate`: the output is accepted by the API server, and does what its comments say.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Result, ensure};
use serde_json::json;
use twinspan_testbed::{TwinspanOptions, apply_file, eventually, next_v4};

use super::{pod, run};
use crate::harness::{SOON, Sandbox, Suite, TWINSPAN};

pub async fn what_is_generated_can_be_applied(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.own_bed().await?;
    let twinspan = bed.start_twinspan(TWINSPAN, &TwinspanOptions::default())?;
    twinspan.ready().await?;
    let sandbox = Sandbox::new(bed, "generate").await?;
    let namespace = sandbox.name.as_str();
    let ports = json!([{"name": "metrics", "port": 9090}, {"name": "rpc", "port": 80}]);
    // Pods of "echo" and two servers on VMs, one under a name with a dot.
    sandbox.service("echo", json!({"clusterIP": "None", "selector": {"app": "echo"}, "ports": ports})).await?;
    sandbox.headless_without_selector("billing", 9000).await?;
    sandbox.headless_without_selector("nobody", 9000).await?;
    sandbox.selector_service("pods", 80).await?;
    let pod = pod(&sandbox, "pod", true).await?;
    let (vm, biller) = (SocketAddr::from((next_v4(), 80)), SocketAddr::from((next_v4(), 9000)));
    sandbox.put("team.echo", vm).await?;
    let _server = sandbox.vm("billing", biller, None).await?;

    let (code, yaml, errors) = eventually("the server registers itself", SOON, || async {
        let answer = run(bed, &["generate", "-n", namespace]).await?;
        ensure!(answer.1.contains("# Import: "), "{}", answer.1);
        Ok(answer)
    })
    .await?;
    ensure!(code == 0, "{code}: {yaml}{errors}");
    for wanted in [
        "# Both: Service echo selects pods, and registry",
        "# of the ports metrics, rpc it takes rpc, by its name; check it",
        "# Export: Service pods selects pods, and nobody else has its name",
        "# Import: Service billing selects no pods, and registry",
        "# Service nobody is left out: it has no selector",
        "registryName: team.echo",
    ] {
        ensure!(yaml.contains(wanted), "no {wanted:?} in\n{yaml}");
    }
    let file = bed.dir().join("generated.yaml");
    std::fs::write(&file, &yaml)?;
    apply_file(&bed.client(), &file).await?;
    for name in ["echo", "billing", "pods"] {
        sandbox.condition(name, "Ready", "True", "Synced").await?;
    }
    sandbox.records_become("team.echo", &[pod, vm]).await?;
    sandbox.imports_become("billing", &[biller]).await?;

    // Names that are registered now are not generated again.
    let (code, yaml, _) = run(bed, &["generate", "-n", namespace]).await?;
    ensure!(code == 0 && yaml.starts_with("# nothing to generate\n") && !yaml.contains("kind:"), "{code}: {yaml}");
    let (code, _, errors) = run(bed, &["generate", "-n", "nowhere"]).await?;
    ensure!(code == 1 && errors.contains("there is no namespace nowhere"), "{code}: {errors}");
    sandbox.nothing_foreign_was_touched().await
}
