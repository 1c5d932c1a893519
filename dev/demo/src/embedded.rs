//! The API server and the etcd of the simulation, behind sockets: a first look without a build of Kubernetes.
//!
//! Owns the sockets, and the objects that a kube-apiserver makes of itself. Refuses the rules of the servers: they are
//! those of `sim/kube` and `sim/etcd`, which tests compare with Kubernetes v1.37.2 and etcd 3.7.3 request by request.
//! RBAC, CEL rules and disks are missing here; `make demo REAL=1` has all of it.

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use sim_kube::Cluster;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tower::Service;
use twinspan_testbed::{Dns, Kubeconfig, OPERATOR_NAMESPACE, repository};

const API_SERVER: (Ipv4Addr, u16) = (Ipv4Addr::new(10, 77, 0, 1), 8080);
const REGISTRY: (Ipv4Addr, u16) = (Ipv4Addr::new(10, 77, 0, 3), 2379);
const DNS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 4);
const AUTHOR: &str = "kube-apiserver";
/// The controllers act so long after a change.
const DELAY: Duration = Duration::from_millis(20);

pub struct Embedded {
    dir: PathBuf,
    client: Client,
    dns: Dns,
    registry: String,
    kubeconfig: Kubeconfig,
    /// The servers end with this value.
    _tasks: JoinSet<()>,
}

impl Embedded {
    /// Starts everything below `dir`.
    pub async fn start(dir: &Path) -> Result<Self> {
        let mut tasks = JoinSet::new();
        let cluster = cluster()?;
        for controller in controllers(&cluster) {
            tasks.spawn(controller);
        }
        let api = cluster.server(0);
        listen(&mut tasks, API_SERVER.into(), move |request: http::Request<Incoming>| {
            let mut api = api.clone();
            async move {
                let (parts, body) = request.into_parts();
                let body = Body::from(body.collect().await?.to_bytes());
                api.call(http::Request::from_parts(parts, body)).await
            }
        })
        .await?;
        let member = sim_etcd::Etcd::new(sim_etcd::Options::default()).member(0);
        listen(&mut tasks, REGISTRY.into(), move |request: http::Request<Incoming>| {
            member.clone().call(request.map(tonic::body::Body::new))
        })
        .await?;

        let server = format!("http://{}:{}", API_SERVER.0, API_SERVER.1);
        let kubeconfig = Kubeconfig::without_tls(dir, "anybody", &server)?;
        let client = kubeconfig.client().await?;
        let dns = Dns::start_as(dir, DNS, &kubeconfig)?;
        dns.ready().await?;
        let registry = format!("http://{}:{}", REGISTRY.0, REGISTRY.1);
        Ok(Self { dir: dir.to_owned(), client, dns, registry, kubeconfig, _tasks: tasks })
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn client(&self) -> Client {
        self.client.clone()
    }

    pub fn dns(&self) -> &Dns {
        &self.dns
    }

    pub fn registry(&self) -> &str {
        &self.registry
    }

    pub fn kubeconfig(&self) -> &Kubeconfig {
        &self.kubeconfig
    }
}

/// A cluster with Twinspan's CRDs and what every cluster has.
fn cluster() -> Result<Cluster> {
    let mut crds = Vec::new();
    for file in ["crds/serviceregistries.yaml", "crds/registeredservices.yaml"] {
        let text = std::fs::read_to_string(repository().join(file)).with_context(|| format!("no {file}"))?;
        crds.extend(sim_kube::read_yaml(&text)?);
    }
    let cluster = Cluster::new(sim_kube::Options { crds, base: Timestamp::now(), ..sim_kube::Options::default() });
    for object in objects() {
        cluster.create(AUTHOR, object).map_err(|status| anyhow::anyhow!("{status:?}"))?;
    }
    Ok(cluster)
}

/// The API server's own Service, whose name CoreDNS has to know, the range of Services, and the operator's namespace.
fn objects() -> [Value; 4] {
    let (ip, port) = API_SERVER;
    [
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "kubernetes", "namespace": "default"},
            "spec": {"clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1"], "ipFamilies": ["IPv4"],
                "ports": [{"name": "http", "port": port, "targetPort": port, "protocol": "TCP"}]},
        }),
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": "kubernetes", "namespace": "default",
                "labels": {"kubernetes.io/service-name": "kubernetes"}},
            "endpoints": [{"addresses": [ip], "conditions": {"ready": true}}],
            "ports": [{"name": "http", "port": port, "protocol": "TCP"}],
        }),
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": "kubernetes"},
            "spec": {"cidrs": ["10.96.0.0/16"]},
        }),
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": OPERATOR_NAMESPACE}}),
    ]
}

/// The controllers of kube-controller-manager that the story needs.
fn controllers(cluster: &Cluster) -> [futures::future::BoxFuture<'static, ()>; 3] {
    [
        Box::pin(cluster.endpoint_slice_controller(DELAY, 0)),
        Box::pin(cluster.garbage_collector(DELAY)),
        Box::pin(cluster.namespace_controller(DELAY)),
    ]
}

/// Serves HTTP/1 and HTTP/2 without TLS.
async fn listen<A, B, E>(
    tasks: &mut JoinSet<()>,
    address: SocketAddr,
    answer: impl Fn(http::Request<Incoming>) -> A + Clone + Send + Sync + 'static,
) -> Result<()>
where
    A: Future<Output = Result<http::Response<B>, E>> + Send + 'static,
    B: http_body::Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    E: Into<Box<dyn std::error::Error + Send + Sync>> + 'static,
{
    let listener = TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
    tasks.spawn(async move {
        // A socket that accepts no more ends the story at its next step.
        while let Ok((stream, _)) = listener.accept().await {
            let answer = answer.clone();
            tokio::spawn(async move {
                let service = service_fn(answer);
                // A client that goes away is no fault.
                let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    Ok(())
}
