//! A reader of the page learns nothing by which the registry could be reached or written.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, PostParams};
use serde_json::{Value, json};
use twinspan_testbed::{Bed, Etcd, Twinspan, TwinspanOptions, eventually, next_v4};

use super::reader::{self, Changes};
use crate::harness::{SOON, Sandbox, Suite, TWINSPAN, stories};

stories![no_secret_is_on_the_page];

const USER: &str = "registry-user-4711";
const PASSWORD: &str = "hunter2-in-the-secret";
const CHANGED: &str = "changed-4712";

async fn no_secret_is_on_the_page(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.own_bed().await?;
    let twinspan = bed.start_twinspan(TWINSPAN, &TwinspanOptions::default())?;
    twinspan.ready().await?;
    let (secure, tls) = bed.start_tls_registry("registry-page-tls").await?;
    let sandbox = Sandbox::without_registry_object(bed, "secrets", &secure).await?;
    let secret = async |suffix: &str, kind: &str, data: Value| {
        let name = format!("{}-{suffix}", sandbox.name);
        let object: Secret =
            serde_json::from_value(json!({"metadata": {"name": name}, "type": kind, "stringData": data}))?;
        sandbox.secrets().create(&PostParams::default(), &object).await?;
        anyhow::Ok(name)
    };
    let (cert, key) = tls.client_certificate("client", None)?;
    let ca = secret("ca", "Opaque", json!({"ca.crt": tls.ca()?})).await?;
    let client = secret("client", "kubernetes.io/tls", json!({"tls.crt": cert, "tls.key": key})).await?;
    secure.require_password(USER, PASSWORD, &[&sandbox.name, "twinspan/"]).await?;
    let user = secret("user", "kubernetes.io/basic-auth", json!({"username": USER, "password": PASSWORD})).await?;
    sandbox
        .create_registry(json!({"etcd": {
            "tls": {"caSecretRef": {"name": ca}, "clientCertSecretRef": {"name": client}},
            "auth": {"secretRef": {"name": user}},
        }}))
        .await?;
    sandbox.headless("echo").await?;
    sandbox.register("echo", json!({})).await?;
    let pod = sandbox.pod("echo", "a", 80).await?;
    sandbox.condition("echo", "Ready", "True", "Synced").await?;
    let row_key = format!("{}/echo", sandbox.name);
    let mut changes = Changes::follow(&twinspan).await?;
    let vm = SocketAddr::from((next_v4(), 9000));
    sandbox.put("echo", vm).await?;
    sandbox.pods.set_ready("a", true).await?;
    let row = changes.row(&row_key, |row| row["imported"] == 1 && row["exported"] == 1).await?;
    drop(pod);

    let mut texts = vec![
        row.to_string(),
        reader::text(twinspan.page(), "/state").await?,
        reader::text(twinspan.page(), &format!("/service/{row_key}")).await?,
    ];
    // Errors of the registry tell what is wrong, and not who we are.
    secure.change_password(USER, CHANGED).await?;
    secure.part().kill().await?;
    secure.start_again().await?;
    sandbox.registry_condition("Connected", "False", "AuthFailed").await?;
    texts.push(reader::text(twinspan.page(), "/state").await?);
    texts.push(reader::text(twinspan.page(), &format!("/service/{row_key}")).await?);
    // The status names the Secret that is missing; the page leads there.
    sandbox.secrets().delete(&user, &DeleteParams::default()).await?;
    let missing = sandbox.registry_condition("Connected", "False", "SecretNotFound").await?;
    let named = missing.status.is_some_and(|status| status.conditions.iter().any(|c| c.message.contains(&user)));
    ensure!(named, "no condition names the Secret {user}");
    let state = eventually("the page says that a Secret is missing", SOON, || async {
        let state = reader::json(&twinspan, "/state").await?;
        let ready = &state["registries"][0]["ready"];
        ensure!(ready["reason"] == "SecretNotFound", "{ready}");
        Ok(state)
    });
    texts.push(state.await?.to_string());
    texts.push(reader::text(twinspan.page(), &format!("/service/{row_key}")).await?);

    let bare = bed.start_registry("registry-page-zero").await?;
    let (zero, leases) = go_zero(bed, &bare, &twinspan, &mut texts).await?;

    let pem = |text: &str| text.lines().nth(1).map(str::to_owned).context("a line of PEM");
    let mut hidden = vec![
        USER.to_owned(),
        PASSWORD.to_owned(),
        CHANGED.to_owned(),
        "BEGIN ".to_owned(),
        secure.endpoint().to_owned(),
        pem(&cert)?,
        pem(&key)?,
        pem(&tls.ca()?)?,
    ];
    hidden.extend([&ca, &client, &user].map(ToOwned::to_owned));
    for (_, _, lease) in secure.dump(&sandbox.name).await?.into_values().filter(|(_, _, lease)| *lease != 0) {
        hidden.extend([lease.to_string(), format!("{lease:x}")]);
    }
    hidden.extend(leases);
    for text in &texts {
        for secret in &hidden {
            ensure!(!text.contains(secret.as_str()), "{secret} is on the page: {text}");
        }
    }
    zero.nothing_foreign_was_touched().await?;
    sandbox.nothing_foreign_was_touched().await
}

/// Texts of the page about a go-zero registry, whose keys end with the IDs of leases, and these IDs.
async fn go_zero<'a>(
    bed: &'a Bed,
    bare: &'a Etcd,
    twinspan: &Twinspan,
    texts: &mut Vec<String>,
) -> Result<(Sandbox<'a>, Vec<String>)> {
    let zero = Sandbox::without_registry_object(bed, "zero", bare).await?;
    zero.create_registry(json!({"format": "GoZero", "prefix": null})).await?;
    let name = format!("{}.rpc", zero.name);
    zero.headless_without_selector("user", 8888).await?;
    zero.register("user", json!({"registryName": name})).await?;
    let mut leases = Vec::new();
    let vm = SocketAddr::from((next_v4(), 8888)).to_string();
    for (n, value) in [vm.as_str(), "127.0.0.1:8888", "no address"].into_iter().enumerate() {
        // The key of a server ends with the ID of its lease; any number of that length serves here.
        let id = format!("758786209471044762{n}");
        let lease = bare.put_leased(&format!("{name}/{id}"), value, 600).await?;
        leases.extend([id, lease.to_string(), format!("{lease:x}")]);
    }
    let row_key = format!("{}/user", zero.name);
    let all = eventually("the page shows them", SOON, || async {
        let full = reader::json(twinspan, &format!("/service/{row_key}")).await?;
        ensure!(full["instancesTotal"] == 3 && full["row"]["imported"] == 1, "{full}");
        Ok(full)
    });
    let all = all.await?.to_string();
    ensure!(all.contains(&format!("{name}/…")), "no key is shown: {all}");
    texts.extend([all, reader::text(twinspan.page(), "/state").await?]);
    Ok((zero, leases))
}
