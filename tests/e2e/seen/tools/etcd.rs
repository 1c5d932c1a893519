//! `doctor --etcd`: an etcd by itself, in plain and with TLS, before anything is installed.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use tokio::process::Command;
use twinspan_testbed::{Framework, Server, ServerOptions, next_v4};

use crate::harness::{Suite, TWINSPAN};

/// The exit code and the output, of a process that knows no cluster.
async fn ask(args: &[&str]) -> Result<(i32, String)> {
    let output = Command::new(TWINSPAN).arg("doctor").args(args).env("KUBECONFIG", "/nonexistent").output().await?;
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    Ok((output.status.code().context("no exit code")?, text))
}

fn tells(text: &str, wanted: &[&str]) -> Result<()> {
    for wanted in wanted {
        ensure!(text.contains(wanted), "nothing about {wanted:?} in:\n{text}");
    }
    Ok(())
}

pub async fn an_etcd_by_itself(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let plain = bed.start_registry("registry-alone").await?;
    let (kitex, kratos) = (SocketAddr::from((next_v4(), 9000)), SocketAddr::from((next_v4(), 9001)));
    let of = |framework| ServerOptions { framework, ..ServerOptions::default() };
    let _kitex = Server::start(bed.dir(), plain.endpoint(), "user", kitex, &of(Framework::Kitex)).await?;
    let _kratos = Server::start(bed.dir(), plain.endpoint(), "cart", kratos, &of(Framework::Kratos)).await?;
    plain.put("/kitex/registry-etcd/old/x", "{").await?;
    let url = plain.endpoint();
    let before = plain.dump("").await?;
    let (code, text) = twinspan_testbed::eventually("both servers register", crate::harness::SOON, || async {
        let (code, text) = ask(&["--etcd", url]).await?;
        tells(&text, &["of user", "of cart"])?;
        Ok((code, text))
    })
    .await?;
    tells(
        &text,
        &[
            "not encrypted",
            "etcd 3.7.3 answers in",
            "Kitex: 1 keys under \"kitex/registry-etcd/\", of user",
            "Kratos: 1 keys under \"/microservices/\", of cart",
            "; set spec.leadingSlash; 1 of the first 1 cannot be parsed",
            "% of its quota of",
            "may write \"twinspan/twinspan-doctor\"",
        ],
    )?;
    ensure!(code == 0, "warnings are no failure: {code}");
    let written: Vec<String> = plain.dump("").await?.into_keys().filter(|key| !before.contains_key(key)).collect();
    ensure!(written.iter().all(|key| key.contains("/cart/") || key.contains("/user/")), "it wrote {written:?}");

    // A user, and a password that is wrong.
    plain.require_password("twinspan", "hush-hush", &["kitex/registry-etcd/", "twinspan/"]).await?;
    let (good, wrong) = (bed.dir().join("password"), bed.dir().join("wrong"));
    std::fs::write(&good, "hush-hush\n")?;
    std::fs::write(&wrong, "guess")?;
    let with = async |file: &std::path::Path| {
        ask(&["--etcd", url, "--etcd-user", "twinspan", "--password-file", &file.display().to_string()]).await
    };
    let (code, text) = with(&good).await?;
    tells(&text, &["accepts user twinspan", "the password goes in clear", "may not read \"/hertz", "Kitex: 1 keys"])?;
    ensure!(code == 0 && !text.contains("hush-hush"), "{code}: {text}");
    let (code, text) = with(&wrong).await?;
    tells(&text, &["FAIL", "check --etcd-user and --password-file"])?;
    ensure!(code == 3, "{code}: {text}");

    // TLS, for clients with a certificate.
    let (secure, tls) = bed.start_tls_registry("registry-alone-tls").await?;
    let (cert, key) = tls.client_certificate("doctor", None)?;
    let file = |name: &str, text: &str| -> Result<String> {
        let path = bed.dir().join(name);
        std::fs::write(&path, text)?;
        Ok(path.display().to_string())
    };
    let (ca, cert, key) = (file("alone.ca", &tls.ca()?)?, file("alone.crt", &cert)?, file("alone.key", &key)?);
    let (code, text) = ask(&["--etcd", secure.endpoint(), "--ca", &ca, "--cert", &cert, "--key", &key]).await?;
    tells(&text, &["https://", "ok    TLS", "its certificate is accepted", "no keys under"])?;
    ensure!(code == 0, "{code}: {text}");
    let (code, text) = ask(&["--etcd", secure.endpoint(), "--ca", &ca]).await?;
    tells(&text, &["FAIL", "TLS failed", "--cert, --key"])?;
    ensure!(code == 3, "{code}: {text}");
    let (code, text) = ask(&["--etcd", secure.endpoint()]).await?;
    tells(&text, &["FAIL", "TLS failed", "--ca"])?;
    ensure!(code == 3, "{code}: {text}");
    let (code, text) = ask(&["--etcd", url, "main"]).await?;
    ensure!(code == 64, "{code}: {text}");
    Ok(())
}
