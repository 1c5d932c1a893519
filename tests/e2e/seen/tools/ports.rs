//! `parity` of a Kratos service: a record has an address for each scheme, and only the chosen schemes count.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use twinspan_testbed::{Framework, Server, ServerOptions, eventually, next_v4};

use super::json_of;
use crate::harness::{SOON, Sandbox, Suite};
use crate::sync::formats::sandbox_of;

pub async fn parity_knows_ports_and_schemes(suite: Arc<Suite>) -> Result<()> {
    let bed = &suite.shared().await?.bed;
    let etcd = bed.start_registry("registry-parity-ports").await?;
    let sandbox = sandbox_of(bed, "parityports", &etcd, Framework::Kratos, json!({})).await?;
    let ports = json!([{"name": "rpc", "port": 9000}, {"name": "web", "port": 8000}]);
    sandbox.service("echo", json!({"clusterIP": "None", "selector": {"app": "echo"}, "ports": ports})).await?;
    sandbox.register("echo", json!({"service": {"ports": [{"name": "rpc"}]}})).await?;
    let ip = next_v4();
    sandbox.pods.run("pod", &BTreeMap::from([("app".to_owned(), "echo".to_owned())]), &[ip.into()]).await?;
    sandbox.pods.set_ready("pod", true).await?;
    let (rpc, web) = (SocketAddr::from((next_v4(), 9100)), SocketAddr::from((next_v4(), 8100)));
    let options = ServerOptions { framework: Framework::Kratos, http: Some(web), ..ServerOptions::default() };
    let _server = Server::start(bed.dir(), sandbox.registry.endpoint(), "echo", rpc, &options).await?;

    // The server also registers http, which the RegisteredService does not ask for.
    let (grpc, http) = ([SocketAddr::from((ip, 9000)), rpc], [SocketAddr::from((ip, 8000)), web]);
    agrees(&sandbox, &["--dns", &bed.dns.address().to_string()], &grpc, "seen").await?;
    sandbox.patch("echo", json!({"service": {"ports": [{"name": "rpc"}, {"name": "web", "scheme": "http"}]}})).await?;
    let all = [grpc, http].concat();
    agrees(&sandbox, &["--dns", &bed.dns.address().to_string()], &all, "seen").await?;
    // The machine's own DNS knows no cluster names, and that is not a difference.
    let table = agrees(&sandbox, &[], &all, "notAsked").await?;
    ensure!(table["remarks"][0].as_str().is_some_and(|remark| remark.contains("--dns")), "{table:#}");
    sandbox.nothing_foreign_was_touched().await
}

/// Both sides have exactly these addresses; DNS has them too, or is not asked.
async fn agrees(sandbox: &Sandbox<'_>, args: &[&str], expected: &[SocketAddr], dns: &str) -> Result<Value> {
    let expected: BTreeSet<String> = expected.iter().map(ToString::to_string).collect();
    eventually("both sides agree", SOON, || async {
        let args = [&["parity", "echo", "-n", &sandbox.name][..], args].concat();
        let (code, table) = json_of(sandbox.bed, &args).await?;
        let rows = table["rows"].as_array().context("rows")?;
        let found: BTreeSet<String> = rows.iter().filter_map(|row| row["instance"].as_str().map(Into::into)).collect();
        ensure!(code == 0 && found == expected, "{code}, {found:?}, want {expected:?}: {table:#}");
        ensure!(rows.iter().all(|row| row["dns"] == dns), "{table:#}");
        Ok(table)
    })
    .await
}
