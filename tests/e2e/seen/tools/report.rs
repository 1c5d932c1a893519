//! `report`: a bundle of a real cluster, in which no secret is.

use std::collections::BTreeMap;
use std::io::Read;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use flate2::read::GzDecoder;
use k8s_openapi::api::core::v1::Secret;
use kube::api::PostParams;
use serde_json::json;
use twinspan_testbed::{TwinspanOptions, next_v4};

use super::{echo, run};
use crate::harness::{Sandbox, Suite, TWINSPAN, record};

const PASSWORD: &str = "Tr0ub4dor-3";
const TAG: &str = "tag-value-of-somebody";

fn unpacked(path: &Path) -> Result<BTreeMap<String, String>> {
    let mut archive = tar::Archive::new(GzDecoder::new(std::fs::File::open(path)?));
    let mut files = BTreeMap::new();
    for entry in archive.entries()? {
        let mut entry = entry?;
        let name = entry.path()?.display().to_string();
        let mut text = String::new();
        entry.read_to_string(&mut text)?;
        files.insert(name.trim_start_matches("twinspan-report/").to_owned(), text);
    }
    Ok(files)
}

pub async fn a_bundle_without_secrets(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.own_bed().await?;
    let twinspan = bed.start_twinspan(TWINSPAN, &TwinspanOptions::default())?;
    twinspan.ready().await?;
    let registry = bed.start_registry("registry-report").await?;
    let sandbox = Sandbox::without_registry_object(bed, "report", &registry).await?;
    registry.require_password("twinspan", PASSWORD, &[&sandbox.name, "twinspan/"]).await?;
    let secret: Secret = serde_json::from_value(json!({
        "metadata": {"name": sandbox.name}, "stringData": {"username": "twinspan", "password": PASSWORD}
    }))?;
    sandbox.secrets().create(&PostParams::default(), &secret).await?;
    sandbox.create_registry(json!({"etcd": {"auth": {"secretRef": {"name": sandbox.name}}}})).await?;
    echo(&sandbox, json!({"export": {"tags": {"lane": TAG}}})).await?;
    let vm = SocketAddr::from((next_v4(), 9000));
    sandbox.put("echo", record(vm).tags(json!({"lane": TAG}))).await?;
    sandbox.imports_become("echo", &[vm]).await?;
    sandbox.condition("echo", "Ready", "True", "Synced").await?;

    let file = bed.dir().join("report.tar.gz");
    let path = file.display().to_string();
    // No pod of the operator runs in this cluster, which is no fault: there are no logs.
    let (code, out, errors) = run(bed, &["report", "--output", &path]).await?;
    ensure!(code == 0 && out.contains(&path), "{code}: {out}{errors}");
    let files = unpacked(&file)?;
    for (name, wanted) in [
        ("registeredservices.yaml", "name: echo"),
        ("serviceregistries.yaml", "secretRef"),
        ("endpointslices.yaml", "managed-by: twinspan.dev"),
        ("services.yaml", "name: echo"),
        ("lease.yaml", "holderIdentity"),
        ("events.yaml", "RegisteredService"),
        ("status.txt", " leads"),
        ("doctor.txt", "may write"),
        ("instances.json", &vm.to_string()),
        ("version.json", "\"operator\""),
    ] {
        let text = files.get(name).with_context(|| format!("no {name} in {:?}", files.keys()))?;
        ensure!(text.contains(wanted), "no {wanted:?} in {name}:\n{text}");
    }
    for (name, text) in &files {
        ensure!(!text.contains(PASSWORD) && !text.contains(TAG), "{name}:\n{text}");
    }
    let folder = bed.dir().join("report");
    let (code, out, _) = run(bed, &["report", "--output", &folder.display().to_string(), "--with-values"]).await?;
    ensure!(code == 0, "{code}: {out}");
    for name in ["instances.json", "registeredservices.yaml"] {
        let text = std::fs::read_to_string(folder.join(name))?;
        ensure!(text.contains(TAG) && !text.contains(PASSWORD), "{name}:\n{text}");
    }
    sandbox.nothing_foreign_was_touched().await
}
