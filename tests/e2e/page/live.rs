//! The sights of people: an instance that comes, a hold with its command, and the page of a replica that stands by.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokio::process::Command;
use twinspan_testbed::{Bed, TwinspanOptions, eventually, next_v4};

use super::reader::{self, Changes};
use crate::harness::{SOON, Sandbox, Suite, TWINSPAN, stories};

stories![a_new_instance_is_seen_within_a_second, a_hold_is_shown_with_its_command_and_only_by_the_leader];

async fn a_new_instance_is_seen_within_a_second(suite: Arc<Suite>) -> Result<()> {
    let shared = suite.shared().await?;
    let (bed, twinspan) = (&shared.bed, &shared.twinspan);
    let sandbox = Sandbox::new(bed, "page").await?;
    sandbox.headless("echo").await?;
    sandbox.register("echo", json!({})).await?;
    sandbox.condition("echo", "Ready", "True", "Synced").await?;
    let key = format!("{}/echo", sandbox.name);
    let mut changes = Changes::follow(twinspan).await?;
    let vm = SocketAddr::from((next_v4(), 9000));
    sandbox.put("echo", vm).await?;
    let seen = async {
        let row = changes.row(&key, |row| row["imported"] == 1).await?;
        anyhow::Ok((row, Instant::now()))
    };
    let vms = [vm];
    let written = async {
        sandbox.imports_become("echo", &vms).await?;
        anyhow::Ok(Instant::now())
    };
    let ((row, seen), written) = tokio::try_join!(seen, written)?;
    let after = seen.saturating_duration_since(written);
    // A second, doubled for a busy machine.
    ensure!(after < Duration::from_secs(2), "the page shows it {after:?} after the cluster has it");
    for (field, value) in [
        ("state", json!("InSync")),
        ("registry", json!(sandbox.name)),
        ("registryName", json!("echo")),
        ("service", json!("echo")),
        ("registryInstances", json!(1)),
    ] {
        ensure!(row[field] == value, "{field} of {row}");
    }
    ensure!(row["latency"].as_array().is_some_and(|all| !all.is_empty()), "{row}");
    let full = reader::json(twinspan, &format!("/service/{key}")).await?;
    let instance = &full["instances"][0];
    let record = json!([sandbox.key("echo", vm)]);
    ensure!(
        (&instance["instance"], &instance["cluster"], &instance["registry"], &instance["state"], &instance["records"])
            == (&json!(vm.to_string()), &json!(true), &json!(true), &json!("Imported"), &record),
        "{full}"
    );

    // An instance that is left out comes with its reason.
    let loopback = "127.0.0.1:9000";
    sandbox.put("echo", loopback.parse::<SocketAddr>()?).await?;
    changes.row(&key, |row| row["state"] == "Differs" && row["skipped"] == 1).await?;
    let full = reader::json(twinspan, &format!("/service/{key}")).await?;
    let mut instances = full["instances"].as_array().context("instances")?.iter();
    let left_out = instances.find(|instance| instance["instance"] == loopback).context("the instance")?;
    ensure!(
        (&left_out["state"], &left_out["cluster"], &left_out["registry"])
            == (&json!("LoopbackAddress"), &json!(false), &json!(true)),
        "{left_out}"
    );

    sandbox.unregister("echo").await?;
    eventually("the row goes with its object", SOON, || async {
        let row = reader::row(twinspan, &key).await?;
        ensure!(row.is_null(), "{row}");
        Ok(())
    })
    .await?;
    sandbox.nothing_foreign_was_touched().await
}

/// Runs a command that the page shows.
async fn obey(bed: &Bed, command: &Value) -> Result<()> {
    let mut words = command.as_str().context("a command")?.split(' ');
    ensure!(words.next() == Some("twinspan"), "{command}");
    let kubeconfig = &bed.cluster.admin.path;
    let output = Command::new(TWINSPAN).args(words).env("TWINSPAN_KUBECONFIG", kubeconfig).output().await?;
    ensure!(output.status.success(), "{command}: {output:?}");
    Ok(())
}

async fn a_hold_is_shown_with_its_command_and_only_by_the_leader(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.own_bed().await?;
    let leader = bed.start_twinspan(TWINSPAN, &TwinspanOptions::default())?;
    leader.ready().await?;
    eventually("the first leads", SOON, || async {
        ensure!(leader.metric("twinspan_leader").await? == Some(1.0));
        Ok(())
    })
    .await?;
    let standby = bed.start_twinspan(TWINSPAN, &TwinspanOptions::default())?;
    standby.ready().await?;
    let sandbox = Sandbox::new(bed, "held").await?;
    sandbox.headless("echo").await?;
    sandbox.register("echo", json!({"import": {"onExpiry": "Remove"}})).await?;
    let mut vms = Vec::new();
    for _ in 0..12 {
        let address = SocketAddr::from((next_v4(), 9000));
        sandbox.put("echo", address).await?;
        vms.push(address);
    }
    sandbox.imports_become("echo", &vms).await?;
    let key = format!("{}/echo", sandbox.name);
    eventually("the standby shows its views", SOON, || async {
        let state = reader::json(&standby, "/state").await?;
        let row = reader::row(&standby, &key).await?;
        ensure!(state["leader"] == false && row["registryInstances"] == 12, "{state}");
        Ok(())
    })
    .await?;

    bed.registry.delete_prefix(&sandbox.key("echo", "")).await?;
    let full = eventually("the page shows the hold", SOON, || async {
        let full = reader::json(&leader, &format!("/service/{key}")).await?;
        ensure!(full["hold"]["held"] == 12 && full["row"]["state"] == "Held", "{full}");
        ensure!(full["instances"][0]["until"].is_string() && full["instances"][0]["state"] == "Held", "{full}");
        Ok(full)
    })
    .await?;
    // The conditions are those of the row, although the API server has them only later.
    let mut conditions = full["conditions"].as_array().context("conditions")?.iter();
    ensure!(conditions.any(|it| it["type"] == "DeletionsHeld" && it["status"] == "True"), "{full}");
    let hold = &full["hold"];
    let state = reader::json(&leader, "/state").await?;
    ensure!(state["leader"] == true, "{state}");
    for path in ["/state".to_owned(), format!("/service/{key}")] {
        let text = reader::text(standby.page(), &path).await?;
        let hash = hold["hash"].as_str().context("a hash")?;
        ensure!(!text.contains(hash) && !text.contains("twinspan approve"), "the standby shows a hold: {text}");
    }
    // The page tells of a hold before the API server does, and the command asks there.
    eventually("the command releases the hold", SOON, || obey(bed, &hold["command"])).await?;
    eventually("what was approved is gone, and the page says so", SOON, || async {
        // Twelve of twelve are many for the registry as well.
        let state = reader::json(&leader, "/state").await?;
        let of_registry = &state["registries"][0]["hold"]["command"];
        if of_registry.is_string() {
            obey(bed, of_registry).await?;
        }
        let row = reader::row(&leader, &key).await?;
        ensure!(row["held"] == 0 && row["imported"] == 0 && row["state"] == "InSync", "{row}");
        Ok(())
    })
    .await?;
    sandbox.nothing_foreign_was_touched().await
}
