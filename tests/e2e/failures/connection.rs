//! Connecting to a registry: TLS, client certificates and passwords, from Secrets in the operator's namespace.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use twinspan_testbed::{Link, eventually, next_v4, next_v6};

use crate::harness::{SOON, Sandbox, Suite, stories};

stories![
    tls_and_password,
    a_user_of_some_names_only,
    a_name_that_is_lost_takes_no_other_along,
    ipv6_and_endpoints_that_do_not_answer
];

/// One endpoint refuses, one has a name that does not resolve, and one is IPv6.
async fn ipv6_and_endpoints_that_do_not_answer(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let registry = bed.start_registry("registry-ipv6").await?;
    let beyond: SocketAddr = registry.endpoint().trim_start_matches("http://").parse()?;
    let link = Link::start(SocketAddr::from((next_v6()?, 2379)), beyond).await?;
    let sandbox = Sandbox::without_registry_object(bed, "ipv6", &registry).await?;
    let refuses = SocketAddr::from((next_v4(), 2379));
    let endpoints =
        [format!("http://{refuses}"), "http://nobody.invalid:2379".to_owned(), format!("http://{}", link.address())];
    sandbox.create_registry(json!({"etcd": {"endpoints": endpoints}})).await?;
    sandbox.registry_condition("Ready", "True", "Connected").await?;
    sandbox.selector_service("echo", 80).await?;
    let pod = sandbox.pod("echo", "pod", 80).await?;
    sandbox.pods.set_ready("pod", true).await?;
    sandbox.register("echo", json!({})).await?;
    sandbox.records_become("echo", &[pod.address()]).await?;
    sandbox.nothing_foreign_was_touched().await
}

/// Without a common root, a user may be granted names one by one, beside keys of other programs. A RegisteredService
/// with another name reports it in a condition, and the others go on.
async fn a_user_of_some_names_only(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let registry = bed.start_registry("registry-some-names").await?;
    let sandbox = Sandbox::without_registry_object(bed, "some-names", &registry).await?;
    registry.put_leased("elsewhere/1", "what another program keeps", 600).await?;
    registry.require_password("twinspan", "secret", &["user/", "twinspan/"]).await?;
    let user = json!({"username": "twinspan", "password": "secret"});
    create_secret(&sandbox, "user", "kubernetes.io/basic-auth", user).await?;
    let auth = json!({"secretRef": {"name": format!("{}-user", sandbox.name)}});
    sandbox.create_registry(json!({"format": "GoZero", "prefix": null, "etcd": {"auth": auth}})).await?;
    sandbox.selector_service("user", 80).await?;
    let pod = sandbox.pod("user", "pod", 80).await?;
    sandbox.pods.set_ready("pod", true).await?;
    sandbox.register("user", json!({})).await?;
    let exported = || async {
        let found: Vec<_> =
            registry.dump("user/").await?.into_values().filter(|r| r.0 == pod.address().to_string()).collect();
        ensure!(found.len() == 1, "{found:?}");
        Ok(found)
    };
    let before = eventually("the export", SOON, exported).await?;

    sandbox.selector_service("payment", 80).await?;
    sandbox.register("payment", json!({})).await?;
    let object = sandbox.condition("payment", "Imported", "Unknown", "RegistryUnavailable").await?;
    let ready =
        object.status.unwrap_or_default().conditions.into_iter().find(|c| c.type_ == "Ready").context("Ready")?;
    ensure!(ready.status == "False" && ready.message.contains("payment/"), "{ready:?}");
    let vm = SocketAddr::from((next_v4(), 9000));
    registry.put_leased("user/7", &vm.to_string(), 600).await?;
    sandbox.imports_become("user", &[vm]).await?;
    // A session that starts sees the same.
    registry.part().kill().await?;
    sandbox.registry_condition("Connected", "False", "Unreachable").await?;
    registry.start_again().await?;
    sandbox.registry_condition("Ready", "True", "Connected").await?;
    sandbox.registry_condition("Synced", "True", "PermissionDenied").await?;
    sandbox.condition("user", "Ready", "True", "Synced").await?;
    ensure!(exported().await? == before, "what did not change was written");

    // The user is granted the name.
    registry.permit("payment/").await?;
    let payment = SocketAddr::from((next_v4(), 9000));
    registry.put_leased("payment/1", &payment.to_string(), 600).await?;
    sandbox.imports_become_within("payment", &[payment], 3 * SOON).await?;
    sandbox.registry_condition("Synced", "True", "Synced").await?;
    sandbox.nothing_foreign_was_touched().await
}

/// The user loses one of two names whose records are on one lease: etcd refuses each keepalive of it, and the record of
/// the other name moves to another lease before it ends.
async fn a_name_that_is_lost_takes_no_other_along(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let registry = bed.start_registry("registry-lost-name").await?;
    let sandbox = Sandbox::without_registry_object(bed, "lost-name", &registry).await?;
    registry.require_password("twinspan", "secret", &["user/", "payment/", "twinspan/"]).await?;
    let user = json!({"username": "twinspan", "password": "secret"});
    create_secret(&sandbox, "user", "kubernetes.io/basic-auth", user).await?;
    let auth = json!({"secretRef": {"name": format!("{}-user", sandbox.name)}});
    sandbox.create_registry(json!({"format": "GoZero", "prefix": null, "etcd": {"auth": auth}})).await?;
    for name in ["user", "payment"] {
        sandbox.selector_service(name, 80).await?;
        sandbox.pod(name, name, 80).await?;
        sandbox.pods.set_ready(name, true).await?;
        sandbox.register(name, json!({})).await?;
    }
    let own = |name: &'static str| {
        let registry = &registry;
        move || async move {
            let found = registry.dump(&format!("{name}/")).await?;
            found.into_iter().next().with_context(|| format!("no record of {name}"))
        }
    };
    let (_, (_, _, payments)) = eventually("payment is exported", SOON, own("payment")).await?;
    let (key, (value, _, lease)) = eventually("user is exported", SOON, own("user")).await?;
    ensure!(lease == payments, "both are on one lease");
    let created = registry.created_at(&key).await?;

    registry.forbid("payment/").await?;
    let moved = eventually("the other record moves", Duration::from_secs(60), || async {
        let (_, (now, _, moved)) = own("user")().await?;
        ensure!(moved != lease, "still on the lease that etcd refuses");
        ensure!(now == value, "it has the same value");
        Ok(moved)
    });
    let moved = moved.await?;
    let gone = || async {
        ensure!(own("payment")().await.is_err(), "the lease still lives");
        Ok(())
    };
    eventually("the lease ends, and with it the name that was lost", Duration::from_secs(120), gone).await?;
    let (_, (_, _, lease)) = own("user")().await?;
    ensure!(lease == moved && registry.created_at(&key).await? == created, "its record lived on without a break");
    // The name is granted again.
    registry.permit("payment/").await?;
    eventually("payment is exported again", Duration::from_secs(60), own("payment")).await?;
    sandbox.nothing_foreign_was_touched().await
}

async fn create_secret(sandbox: &Sandbox<'_>, suffix: &str, kind: &str, data: Value) -> Result<()> {
    let name = format!("{}-{suffix}", sandbox.name);
    let secret: Secret = serde_json::from_value(json!({"metadata": {"name": name}, "type": kind, "stringData": data}))?;
    sandbox.secrets().create(&PostParams::default(), &secret).await?;
    Ok(())
}

async fn tls_and_password(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let (registry, tls) = bed.start_tls_registry("registry-tls").await?;
    let sandbox = Sandbox::without_registry_object(bed, "tls", &registry).await?;
    registry.require_password("twinspan", "secret", &[&sandbox.name]).await?;
    let secret = |suffix: &str| format!("{}-{suffix}", sandbox.name);
    create_secret(&sandbox, "ca", "Opaque", json!({"ca.crt": tls.ca()?})).await?;
    let (cert, key) = tls.client_certificate("client", None)?;
    create_secret(&sandbox, "client", "kubernetes.io/tls", json!({"tls.crt": cert, "tls.key": key})).await?;
    create_secret(&sandbox, "user", "kubernetes.io/basic-auth", json!({"username": "twinspan", "password": "wrong"}))
        .await?;

    // An unknown authority, then no client certificate, then a wrong password: each has its reason.
    sandbox.create_registry(json!({"etcd": {"endpoints": [registry.endpoint()]}})).await?;
    sandbox.registry_condition("Connected", "False", "TLSFailed").await?;
    let patch = |etcd: Value| {
        let body = Patch::Merge(json!({"spec": {"etcd": etcd}}));
        let (registries, name) = (sandbox.registries(), sandbox.name.clone());
        async move { registries.patch(&name, &PatchParams::default(), &body).await }
    };
    patch(json!({"tls": {"caSecretRef": {"name": secret("ca")}}})).await?;
    eventually("the condition says what the server wants to see", SOON, || async {
        let conditions = sandbox.registries().get(&sandbox.name).await?.status.unwrap_or_default().conditions;
        let connected = conditions.iter().find(|c| c.type_ == "Connected").context("the condition")?;
        ensure!(connected.reason == "TLSFailed" && connected.message.contains("CertificateRequired"), "{connected:?}");
        Ok(())
    })
    .await?;
    patch(json!({"tls": {"clientCertSecretRef": {"name": secret("client")}}, "auth": {"secretRef": {"name": secret("user")}}})).await?;
    sandbox.registry_condition("Connected", "False", "AuthFailed").await?;

    // The Secret is corrected: no restart, no change of the ServiceRegistry.
    let password = Patch::Merge(json!({"stringData": {"password": "secret"}}));
    sandbox.secrets().patch(&secret("user"), &PatchParams::default(), &password).await?;
    // The user may read the prefix, but not the fence, and Twinspan writes nothing without the fence.
    sandbox.registry_condition("Connected", "True", "Connected").await?;
    sandbox.registry_condition("Ready", "False", "PermissionDenied").await?;
    registry.permit("twinspan/").await?;
    sandbox.registry_condition("Ready", "True", "Connected").await?;

    sandbox.selector_service("echo", 80).await?;
    let pod = sandbox.pod("echo", "pod", 80).await?;
    sandbox.pods.set_ready("pod", true).await?;
    sandbox.register("echo", json!({})).await?;
    sandbox.records_become("echo", &[pod.address()]).await?;
    let vm = SocketAddr::from((next_v4(), 9000));
    sandbox.put("echo", vm).await?;
    sandbox.imports_become("echo", &[vm]).await?;
    sandbox.nothing_foreign_was_touched().await
}
