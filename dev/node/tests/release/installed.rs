//! On the node: the chart from the registry, without a value, and the image that containerd pulled for it.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use twinspan_image::binary;
use twinspan_node::{Images, Node};
use twinspan_release::layout::Layout;
use twinspan_release::{Promise, layout_of};
use twinspan_testbed::OPERATOR_NAMESPACE;

use crate::directory;

pub async fn without_values(node: &Node, images: &Images) -> Result<()> {
    let directory = directory()?;
    let promise = Promise::read(&directory)?;
    let chart = format!("oci://{}", promise.chart.repository);
    let version = promise.chart.tag.as_str();
    let to = node.dir().display().to_string();
    node.helm(&["pull", &chart, "--version", version, "--plain-http", "--destination", &to]).await?;
    let file = format!("twinspan-{version}.tgz");
    let pulled = std::fs::read(node.dir().join(&file)).context("helm pulled nothing")?;
    ensure!(pulled == std::fs::read(directory.join(&file))?, "helm pulled another chart");

    let place = ["--namespace", OPERATOR_NAMESPACE, "--create-namespace", "--wait", "--timeout", "3m"];
    let install = ["install", "twinspan", &chart, "--version", version, "--plain-http"];
    node.helm(&[&install[..], &place].concat()).await?;

    let pods = ["get", "pods", "-n", OPERATOR_NAMESPACE, "-l", "app.kubernetes.io/name=twinspan", "-o", "json"];
    let pods: Value = serde_json::from_str(&node.kubectl(&pods).await?)?;
    let pods = pods["items"].as_array().context("no list")?;
    ensure!(!pods.is_empty(), "no pod");
    for pod in pods {
        let container = &pod["status"]["containerStatuses"][0];
        ensure!(container["image"] == promise.image.tagged(), "{container}");
        let wanted = format!("{}@{}", promise.image.repository, promise.image.digest);
        ensure!(container["imageID"] == wanted, "{container}, want {wanted}");
    }
    let here = &promise.image.platforms[binary::architecture(&binary::target()?)?];
    let manifest: Value = serde_json::from_slice(&Layout::open(&layout_of(&directory))?.read(&here.manifest)?)?;
    images.pulled_by_containerd(manifest["layers"][0]["digest"].as_str().context("no layer")?)?;

    let exec = ["exec", "-n", OPERATOR_NAMESPACE, "deployment/twinspan", "--", "twinspan", "--version"];
    let said = node.kubectl(&exec).await?;
    ensure!(said.contains(&promise.version), "it says {said}");
    Ok(())
}
