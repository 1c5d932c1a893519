//! A small shop in a real cluster and a real registry, with every trouble that the page shows.
//!
//! Owns its objects and records. Refuses to look at the page.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use kube::api::PostParams;
use serde_json::json;
use tokio::net::TcpListener;
use twinspan_testbed::{Bed, Server, eventually, next_v4};

use crate::harness::{SOON, Sandbox, record};

/// Markup in a key, a tag and a value: it would run if a page took it for more than a text.
pub const HOSTILE: &str = "<img src=x onerror=alert(1)>";
/// The same in a name that the API admits, which has no blanks.
pub const HOSTILE_NAME: &str = "<img>review";
/// Services in which all is well.
const WELL: [&str; 8] = ["cart", "feed", "gift", "login", "mail", "price", "rank", "stock"];
/// etcd ends a lease of few seconds late.
const EXPIRED: Duration = Duration::from_secs(40);

pub struct Scene<'a> {
    pub sandbox: Sandbox<'a>,
    /// The pod of `user` that is not ready.
    pub not_ready: SocketAddr,
    /// The servers of `order`, which are only records.
    pub order: Vec<SocketAddr>,
    _servers: Vec<Server>,
    _alive: TcpListener,
}

impl<'a> Scene<'a> {
    pub async fn set(bed: &'a Bed) -> Result<Self> {
        let sandbox = Sandbox::new(bed, "shop").await?;
        let mut servers = Vec::new();
        // Lost: the record ends, and the server still accepts connections.
        let alive = TcpListener::bind(SocketAddr::from((next_v4(), 9000))).await?;
        imports(&sandbox, "search", json!({})).await?;
        sandbox.put("search", SocketAddr::from((next_v4(), 9000))).await?;
        sandbox.put_for("search", alive.local_addr()?, 2).await?;
        for name in WELL {
            imports(&sandbox, name, json!({})).await?;
            for _ in 0..name.len() - 2 {
                sandbox.put(name, SocketAddr::from((next_v4(), 9000))).await?;
            }
        }
        // Differs: a pod that is not ready, and a record that no Service may have.
        sandbox.headless_on("user", 8888).await?;
        sandbox.register("user", json!({"registryName": "douyinec.user"})).await?;
        for pod in ["user-7c8f-a", "user-7c8f-b", "user-7c8f-c"] {
            servers.push(sandbox.pod("user", pod, 8888).await?);
        }
        let not_ready = servers[2].address();
        sandbox.pods.set_ready("user-7c8f-a", true).await?;
        sandbox.pods.set_ready("user-7c8f-b", true).await?;
        sandbox.put("douyinec.user", SocketAddr::from((next_v4(), 9000))).await?;
        sandbox.put("douyinec.user", record("127.0.0.1:8888")).await?;
        // Texts of strangers.
        imports(&sandbox, "review", json!({"registryName": HOSTILE_NAME})).await?;
        let tagged = record(SocketAddr::from((next_v4(), 9000))).tags(json!({HOSTILE: HOSTILE}));
        sandbox.put(HOSTILE_NAME, tagged).await?;
        sandbox.registry.put(&sandbox.key(HOSTILE_NAME, HOSTILE), HOSTILE).await?;
        // Refused: there is no such Service.
        sandbox.register("refund", json!({"service": {"name": "refund"}})).await?;
        // Unknown: nobody answers.
        let elsewhere = silent_registry(&sandbox).await?;
        sandbox.headless_without_selector("coupon", 80).await?;
        sandbox.register("coupon", json!({"registryRef": {"name": elsewhere}})).await?;
        let order = instances(&sandbox, "order", json!({}), 3).await?;
        held(&sandbox).await?;
        lost(&sandbox).await?;
        Ok(Self { sandbox, not_ready, order, _servers: servers, _alive: alive })
    }
}

/// A ServiceRegistry at whose address nobody is; returns its name.
async fn silent_registry(sandbox: &Sandbox<'_>) -> Result<String> {
    let name = format!("{}-legacy", sandbox.name);
    let object = serde_json::from_value(json!({
        "apiVersion": "twinspan.dev/v1alpha1", "kind": "ServiceRegistry", "metadata": {"name": name},
        "spec": {
            "etcd": {"endpoints": [format!("http://{}:2379", next_v4())]},
            "format": "Kratos",
            "allowed": [{"namespaceSelector": {}, "registryNames": ["*"]}],
        },
    }))?;
    sandbox.registries().create(&PostParams::default(), &object).await?;
    Ok(name)
}

/// A Service for imports.
async fn imports(sandbox: &Sandbox<'_>, name: &str, extra: serde_json::Value) -> Result<()> {
    sandbox.headless_without_selector(name, 80).await?;
    sandbox.register(name, extra).await
}

async fn instances(
    sandbox: &Sandbox<'_>,
    name: &str,
    extra: serde_json::Value,
    count: usize,
) -> Result<Vec<SocketAddr>> {
    imports(sandbox, name, extra).await?;
    let mut all = Vec::new();
    for _ in 0..count {
        let address = SocketAddr::from((next_v4(), 9000));
        sandbox.put(name, address).await?;
        all.push(address);
    }
    sandbox.imports_become(name, &all).await?;
    Ok(all)
}

/// Held: two of four records of `payment` are deleted at once.
async fn held(sandbox: &Sandbox<'_>) -> Result<()> {
    let guard = json!({"deletionGuard": {"minInstances": 2, "maxDeletePercent": 10, "holdSeconds": 3600}});
    let payment = instances(sandbox, "payment", guard, 4).await?;
    let keys: Vec<String> = payment[..2].iter().map(|address| sandbox.key("payment", address)).collect();
    sandbox.registry.delete_at_once(&keys).await?;
    sandbox.condition("payment", "DeletionsHeld", "True", "Held").await.map(drop)
}

async fn lost(sandbox: &Sandbox<'_>) -> Result<()> {
    eventually("search has lost one", EXPIRED, || async {
        let counts = sandbox.counts("search").await?;
        ensure!(counts.lost == 1, "{counts:?}");
        Ok(())
    })
    .await
}

/// Waits until a Service has an instance.
pub async fn imported(sandbox: &Sandbox<'_>, service: &str, address: SocketAddr) -> Result<()> {
    eventually("the instance is imported", SOON, || async {
        let found = sandbox.imported(service).await?;
        ensure!(found.contains(&address), "{found:?}");
        Ok(())
    })
    .await
}
