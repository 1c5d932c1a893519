//! Each reason why an instance is missing is provoked, and named by `explain` and `parity`.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tokio::net::TcpListener;
use twinspan_bed::{Bed, TwinspanOptions, eventually, next_v4};

use super::{echo, json_of, pod, put, value};
use crate::harness::{Corner, SOON, Suite, TWINSPAN};

/// What `explain` says of an address or a key, once it says it.
async fn explained(bed: &Bed, about: &str, state: &str, text: &str) -> Result<()> {
    eventually(&format!("{about} is {state}"), SOON, || async {
        let (code, answer) = json_of(bed, &["explain", about]).await?;
        let services = answer["services"].as_array().context("services")?;
        let found =
            services.iter().any(|by| by["state"] == state && by["text"].as_str().is_some_and(|t| t.contains(text)));
        ensure!(code == 0 && found, "exit code {code}, {answer:#}");
        Ok(())
    })
    .await
}

pub async fn every_reason(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.own_bed().await?;
    let twinspan = bed.start_twinspan(TWINSPAN, &TwinspanOptions::default())?;
    twinspan.ready().await?;
    let corner = Corner::new(bed, "reasons").await?;
    let registry = &bed.registry;
    echo(&corner, json!({"import": {"tagSelector": {"matchLabels": {"lane": "blue"}}, "keepLostSeconds": 3600}}))
        .await?;
    let blue = || json!({"lane": "blue"});

    // In the cluster.
    let ready = pod(&corner, "ready", true).await?;
    explained(bed, &ready.to_string(), "Exported", "as reasons").await?;
    let not_ready = pod(&corner, "not-ready", false).await?;
    explained(bed, &not_ready.ip().to_string(), "NotReady", "readiness probe").await?;
    explained(bed, &SocketAddr::new(ready.ip(), 9090).to_string(), "WrongPort", "metrics").await?;
    let terminating = pod(&corner, "terminating", true).await?;
    explained(bed, &terminating.to_string(), "Exported", "as reasons").await?;
    corner.pods.terminate("terminating").await?;
    explained(bed, &terminating.to_string(), "Terminating", "not exported any more").await?;
    let doubled = pod(&corner, "doubled", true).await?;
    put(&corner, registry, doubled, blue()).await?;
    explained(bed, &doubled.to_string(), "SelfRegistered", "double its traffic").await?;

    // In the registry.
    let vm = SocketAddr::from((next_v4(), 9000));
    let key = put(&corner, registry, vm, blue()).await?;
    explained(bed, &vm.to_string(), "Imported", "endpoint of the Service").await?;
    explained(bed, &key, "Imported", "endpoint of the Service").await?;
    let unwanted = SocketAddr::from((next_v4(), 9000));
    put(&corner, registry, unwanted, json!({"lane": "green"})).await?;
    explained(bed, &unwanted.to_string(), "NotSelected", "tagSelector").await?;
    put(&corner, registry, "127.0.0.1:9000", blue()).await?;
    explained(bed, "127.0.0.1:9000", "LoopbackAddress", "leads every client to itself").await?;
    let service = SocketAddr::from(([10, 96, 200, 200], 80));
    put(&corner, registry, service, blue()).await?;
    explained(bed, &service.to_string(), "ServiceAddress", "in a circle").await?;
    let undecodable = corner.key("echo", "nonsense");
    registry.put(&undecodable, "{").await?;
    explained(bed, &undecodable, "Undecodable", "none of the registry's format").await?;
    let (one, another) = (SocketAddr::from((next_v4(), 9000)), SocketAddr::from((next_v4(), 9000)));
    registry.put_leased(&corner.key("echo", one), &value(another, &blue()), 600).await?;
    explained(bed, &corner.key("echo", one), "KeyValueMismatch", "another address").await?;
    let other = corner.key("echo", "10.77.249.1:80");
    let owner = json!({"lane": "blue", "twinspan.dev/owner": "another-cluster/shop/echo"});
    registry.put_leased(&other, &value("10.77.249.1:80", &owner), 600).await?;
    explained(bed, "10.77.249.1:80", "OtherCluster", "otherClusters All").await?;
    let stranger = Corner::new(bed, "stranger").await?;
    let theirs = pod(&stranger, "theirs", true).await?;
    put(&corner, registry, theirs, blue()).await?;
    explained(bed, &theirs.to_string(), "OtherNamespacesPod", "another namespace").await?;

    // Its lease ends while it lives.
    let lives = SocketAddr::from((next_v4(), 9000));
    let _listener = TcpListener::bind(lives).await?;
    let lease = registry.put_leased(&corner.key("echo", lives), &value(lives, &blue()), 600).await?;
    explained(bed, &lives.to_string(), "Imported", "").await?;
    registry.revoke(lease).await?;
    explained(bed, &lives.to_string(), "Lost", "Restart it").await?;

    // The same words in parity, beside who sees what.
    let dns = bed.dns.address().to_string();
    let (code, table) = json_of(bed, &["parity", "echo", "-n", &corner.name, "--dns", &dns]).await?;
    ensure!(code == 3, "{code}: {table:#}");
    let rows = table["rows"].as_array().context("rows")?;
    let left_out = table["leftOut"].as_array().context("leftOut")?;
    for (instance, state) in [
        (ready.to_string(), "Exported"),
        (vm.to_string(), "Imported"),
        (unwanted.to_string(), "NotSelected"),
        (theirs.to_string(), "OtherNamespacesPod"),
        (lives.to_string(), "Lost"),
        (doubled.to_string(), "SelfRegistered"),
    ] {
        ensure!(
            rows.iter().any(|row| row["instance"] == *instance && row["why"]["state"] == state),
            "{instance} {state}: {table:#}"
        );
    }
    for (instance, state) in
        [(not_ready.to_string(), "NotReady"), (terminating.to_string(), "Terminating"), (undecodable, "Undecodable")]
    {
        ensure!(
            left_out.iter().any(|a| a["instance"] == *instance && a["state"] == state),
            "{instance} {state}: {table:#}"
        );
    }

    // Two leave at once, of few: held, because they are the last.
    let held = Corner::new(bed, "reasonsheld").await?;
    echo(&held, json!({})).await?;
    let mut keys = Vec::new();
    let mut last = SocketAddr::from((next_v4(), 9000));
    for _ in 0..2 {
        last = SocketAddr::from((next_v4(), 9000));
        keys.push(put(&held, registry, last, blue()).await?);
    }
    explained(bed, &last.to_string(), "Imported", "").await?;
    registry.delete_at_once(&keys).await?;
    held.condition("echo", "DeletionsHeld", "True", "Held").await?;
    explained(bed, &last.to_string(), "Held", "approve-deletions=").await?;

    // A name that is not given to the namespace.
    let patch = json!({"spec": {"allowed": [{"namespaceSelector": {}, "registryNames": ["other-*"]}]}});
    corner.registries().patch(&corner.name, &Default::default(), &kube::api::Patch::Merge(patch)).await?;
    remarked(bed, &not_ready.to_string(), "NotAllowed").await?;

    // Nobody leads: killed, it could not give its Lease back. And the registry cannot be reached.
    twinspan.part().kill().await?;
    remarked(bed, &vm.to_string(), "nobody leads").await?;
    registry.part().kill().await?;
    remarked(bed, &last.to_string(), "no endpoint of the registry answers").await?;
    Ok(())
}

/// What `explain` adds where nothing else explains it.
async fn remarked(bed: &Bed, about: &str, text: &str) -> Result<()> {
    eventually(&format!("a remark about {about}: {text}"), SOON * 3, || async {
        let (_, answer) = json_of(bed, &["explain", about]).await?;
        let remarks = answer["remarks"].as_array().context("remarks")?;
        ensure!(remarks.iter().any(|r| r.as_str().is_some_and(|r| r.contains(text))), "{answer:#}");
        Ok(())
    })
    .await
}
