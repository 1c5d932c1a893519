//! The way into a registry: its order, what it refuses, and what it leaves alone.

use axum::body::Bytes;
use oci_client::secrets::RegistryAuth;
use serde_json::{Value, json};
use twinspan_release::{Registry as Client, verify};

use crate::made::{Fault, Release, source};
use crate::registry::Registry;

fn anonymous() -> Client {
    Client::with(RegistryAuth::Anonymous, true).unwrap()
}

#[tokio::test]
async fn the_tags_of_the_version_come_last_and_a_second_push_changes_nothing() {
    let registry = Registry::start().await;
    let release = Release::new(&registry.host, Fault::default());
    let promise = verify(&release.path()).unwrap();
    let client = anonymous();
    assert!(client.check(&release.path()).await.is_err(), "everything is there before the push");
    client.push(&release.path()).await.unwrap();
    client.check(&release.path()).await.unwrap();
    let tags = registry.content.lock().unwrap().tags.clone();
    assert_eq!(tags[tags.len() - 2..], ["twinspan:0.1.0".to_owned(), format!("charts/twinspan:{}", promise.chart.tag)]);
    let signature = format!("twinspan:{}.sig", promise.image.digest.replace(':', "-"));
    assert!(tags.contains(&signature), "{tags:?}");

    let before = registry.content.lock().unwrap().manifests.clone();
    client.push(&release.path()).await.unwrap();
    assert_eq!(registry.content.lock().unwrap().manifests, before);
    client.check(&release.path()).await.unwrap();
}

#[tokio::test]
async fn nothing_is_pushed_of_a_directory_that_does_not_verify() {
    let registry = Registry::start().await;
    let release = Release::new(&registry.host, Fault { no_crates: true, ..Fault::default() });
    let error = anonymous().push(&release.path()).await.unwrap_err();
    assert!(error.to_string().contains("nothing is pushed"), "{error:#}");
    assert_eq!(registry.content.lock().unwrap().writes, 0);
}

#[tokio::test]
async fn another_signature_in_the_registry_is_found() {
    let registry = Registry::start().await;
    let release = Release::new(&registry.host, Fault::default());
    let client = anonymous();
    client.push(&release.path()).await.unwrap();
    {
        let mut content = registry.content.lock().unwrap();
        let signed: Vec<String> = content.manifests.keys().filter(|name| name.ends_with(".sig")).cloned().collect();
        let other = content.manifests[&signed[1]].clone();
        content.manifests.insert(signed[0].clone(), other);
    }
    let error = format!("{:#}", client.check(&release.path()).await.unwrap_err());
    assert!(error.contains(".sig"), "{error}");
}

#[tokio::test]
async fn a_version_is_released_once() {
    let registry = Registry::start().await;
    let first = Release::new(&registry.host, Fault::default());
    let client = anonymous();
    client.push(&first.path()).await.unwrap();
    client.prepare(&first.options(&registry.host, Fault::default()), &source(0)).await.unwrap();

    let second = Release::new(&registry.host, Fault { revision: 1, ..Fault::default() });
    let before = registry.content.lock().unwrap().manifests.clone();
    let error = client.push(&second.path()).await.unwrap_err();
    assert!(error.to_string().contains("a version is released once"), "{error:#}");
    let options = second.options(&registry.host, Fault::default());
    let error = client.prepare(&options, &source(1)).await.unwrap_err();
    assert!(error.to_string().contains("a version is released once"), "{error:#}");
    assert_eq!(registry.content.lock().unwrap().manifests, before);
}

#[tokio::test]
async fn a_first_release_needs_no_right_to_pull() {
    let registry = Registry::start().await;
    registry.content.lock().unwrap().tokens = true;
    let release = Release::new(&registry.host, Fault::default());
    let client = anonymous();
    client.prepare(&release.options(&registry.host, Fault::default()), &source(0)).await.unwrap();
    client.push(&release.path()).await.unwrap();
    client.check(&release.path()).await.unwrap();
}

#[tokio::test]
async fn a_registry_that_gives_no_right_to_push_says_so_before_a_build() {
    let registry = Registry::start().await;
    let release = Release::new(&registry.host, Fault::default());
    let options = release.options(&registry.host, Fault::default());
    for (closed, read_only) in [(true, false), (false, true)] {
        {
            let mut content = registry.content.lock().unwrap();
            (content.tokens, content.closed, content.read_only) = (true, closed, read_only);
        }
        let error = format!("{:#}", anonymous().prepare(&options, &source(0)).await.unwrap_err());
        assert!(error.contains("docker login"), "{error}");
        assert!(error.contains(if closed { "DENIED" } else { "403" }), "{error}");
    }
    let error = anonymous().prepare(&release.options("127.0.0.1:1", Fault::default()), &source(0)).await.unwrap_err();
    assert!(!error.to_string().contains("docker login"), "nobody answers, and a login is missed: {error:#}");
}

#[tokio::test]
async fn the_referrers_of_others_stay_even_while_their_list_cannot_be_read() {
    let registry = Registry::start().await;
    let release = Release::new(&registry.host, Fault::default());
    let promise = verify(&release.path()).unwrap();
    let list = format!("twinspan:{}", promise.image.platforms["amd64"].manifest.replace(':', "-"));
    let theirs = format!("sha256:{}", "0".repeat(64));
    let kind = "application/vnd.oci.image.index.v1+json";
    let entry = json!({"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": theirs, "size": 2});
    let index = json!({"schemaVersion": 2, "mediaType": kind, "manifests": [entry]}).to_string();
    {
        let mut content = registry.content.lock().unwrap();
        content.manifests.insert(list.clone(), (kind.to_owned(), Bytes::from(index)));
        content.lists_fail = true;
    }
    let client = anonymous();
    assert!(client.push(&release.path()).await.is_err(), "the list was overwritten");
    registry.content.lock().unwrap().lists_fail = false;
    client.push(&release.path()).await.unwrap();
    client.check(&release.path()).await.unwrap();
    let found: Value = serde_json::from_slice(&registry.content.lock().unwrap().manifests[&list].1).unwrap();
    let digests: Vec<&str> =
        found["manifests"].as_array().unwrap().iter().map(|it| it["digest"].as_str().unwrap()).collect();
    assert!(digests.len() == 2 && digests.contains(&theirs.as_str()), "{digests:?}");
}
