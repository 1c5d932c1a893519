//! Passwords, tokens and certificates that change or expire.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use twinspan_testbed::Etcd;

use super::Scene;
use crate::harness::{Sandbox, Suite};

async fn secret(sandbox: &Sandbox<'_>, suffix: &str, kind: &str, data: Value) -> Result<String> {
    let name = format!("{}-{suffix}", sandbox.name);
    let secret: Secret = serde_json::from_value(json!({"metadata": {"name": name}, "type": kind, "stringData": data}))?;
    sandbox.secrets().create(&PostParams::default(), &secret).await?;
    Ok(name)
}

async fn change_secret(sandbox: &Sandbox<'_>, name: &str, data: Value) -> Result<()> {
    let patch = Patch::Merge(json!({"stringData": data}));
    sandbox.secrets().patch(name, &PatchParams::default(), &patch).await?;
    Ok(())
}

/// A scene whose registry needs a user and a password.
async fn with_password<'a>(
    bed: &'a twinspan_testbed::Bed,
    name: &str,
    registry: &'a Etcd,
) -> Result<(Scene<'a>, String)> {
    let sandbox = Sandbox::without_registry_object(bed, name, registry).await?;
    registry.require_password("twinspan", "first", &[&sandbox.name, "twinspan/"]).await?;
    let user = json!({"username": "twinspan", "password": "first"});
    let secret = secret(&sandbox, "user", "kubernetes.io/basic-auth", user).await?;
    sandbox.create_registry(json!({"etcd": {"auth": {"secretRef": {"name": secret}}}})).await?;
    Ok((Scene::set(sandbox).await?, secret))
}

pub async fn the_password_changes(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let registry = bed.start_registry("registry-password").await?;
    let (mut scene, secret) = with_password(bed, "password", &registry).await?;
    let before = scene.own_record().await?;
    registry.change_password("twinspan", "second").await?;
    // etcd invalidates our token: open watches go on, and the next request is refused.
    let pod = scene.add_pod("second").await?;
    scene.sandbox.condition("echo", "Exported", "False", "AuthFailed").await?;
    scene.nothing_is_lost(Duration::from_secs(5)).await?;
    registry.part().kill().await?;
    registry.start_again().await?;
    scene.sandbox.registry_condition("Connected", "False", "AuthFailed").await?;
    change_secret(&scene.sandbox, &secret, json!({"password": "second"})).await?;
    scene.sandbox.registry_condition("Ready", "True", "Connected").await?;
    scene.sandbox.records_become("echo", &[&scene.vms[..], &[scene.pod, pod]].concat()).await?;
    scene.sandbox.pods.remove("second").await?;
    ensure!(scene.own_record().await? == before, "the record was written again");
    scene.goes_on().await?;

    // The other way round: the Secret changes first, and the open session goes on.
    let before = scene.own_record().await?;
    change_secret(&scene.sandbox, &secret, json!({"password": "third"})).await?;
    registry.change_password("twinspan", "third").await?;
    scene.sandbox.registry_condition("Ready", "True", "Connected").await?;
    ensure!(scene.own_record().await? == before, "the record was written again");
    scene.goes_on().await?;
    scene.sandbox.nothing_foreign_was_touched().await
}

pub async fn tokens_expire(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let registry = bed.start_registry_with("registry-tokens", &["--auth-token-ttl=2"]).await?;
    let (mut scene, _) = with_password(bed, "tokens", &registry).await?;
    let before = scene.own_record().await?;
    for _ in 0..3 {
        scene.nothing_is_lost(Duration::from_secs(5)).await?;
        ensure!(scene.own_record().await? == before, "the record was written again");
        // The token has expired; the write needs a new one.
        let pod = scene.add_pod("second").await?;
        let all = [&scene.vms[..], &[scene.pod, pod]].concat();
        scene.sandbox.records_become("echo", &all).await?;
        scene.sandbox.pods.remove("second").await?;
        scene.add_vm().await?;
        scene.synced().await?;
    }
    scene.sandbox.registry_condition("Ready", "True", "Connected").await?;
    scene.sandbox.nothing_foreign_was_touched().await
}

pub async fn certificates_expire_and_are_rotated(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let (registry, tls) = bed.start_tls_registry("registry-certificates").await?;
    let sandbox = Sandbox::without_registry_object(bed, "certificates", &registry).await?;
    let ca = secret(&sandbox, "ca", "Opaque", json!({"ca.crt": tls.ca()?})).await?;
    let brief = Duration::from_secs(30);
    let pem = |(cert, key): (String, String)| json!({"tls.crt": cert, "tls.key": key});
    let client = pem(tls.client_certificate("brief", Some(brief))?);
    let issued = Instant::now();
    let client = secret(&sandbox, "client", "kubernetes.io/tls", client).await?;
    let tls_of = json!({"caSecretRef": {"name": ca}, "clientCertSecretRef": {"name": client}});
    sandbox.create_registry(json!({"etcd": {"tls": tls_of}})).await?;
    let mut scene = Scene::set(sandbox).await?;
    let before = scene.own_record().await?;

    // Our certificate expires. The open connection stays; the next one is refused.
    scene.nothing_is_lost((brief + Duration::from_secs(1)).saturating_sub(issued.elapsed())).await?;
    registry.part().kill().await?;
    registry.start_again().await?;
    scene.sandbox.registry_condition("Connected", "False", "TLSFailed").await?;
    scene.nothing_is_lost(Duration::from_secs(3)).await?;
    change_secret(&scene.sandbox, &client, pem(tls.client_certificate("lasting", None)?)).await?;
    scene.sandbox.registry_condition("Ready", "True", "Connected").await?;
    ensure!(scene.own_record().await? == before, "the record was written again");
    // A new certificate while connected: no gap.
    change_secret(&scene.sandbox, &client, pem(tls.client_certificate("rotated", None)?)).await?;
    scene.goes_on().await?;

    // The server's certificate expires.
    let before = scene.own_record().await?;
    tls.replace_server_certificate(Some(Duration::from_secs(1)))?;
    let replaced = Instant::now();
    scene.nothing_is_lost(Duration::from_secs(2).saturating_sub(replaced.elapsed())).await?;
    registry.part().kill().await?;
    registry.part().start_again()?;
    scene.sandbox.registry_condition("Connected", "False", "TLSFailed").await?;
    scene.nothing_is_lost(Duration::from_secs(3)).await?;
    tls.replace_server_certificate(None)?;
    scene.sandbox.registry_condition("Ready", "True", "Connected").await?;
    ensure!(scene.own_record().await? == before, "the record was written again");
    scene.goes_on().await?;
    scene.sandbox.nothing_foreign_was_touched().await
}
