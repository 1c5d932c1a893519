//! A sandbox: one story's part of a cluster, with the objects and processes that the story puts into it.
//!
//! Owns its setup. Refuses to know records, which are in [`super::records`], waiting, which is in [`super::expect`],
//! and foreign objects, which are in [`super::bystanders`].

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::Result;
use k8s_openapi::api::core::v1::{Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Client;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use twinspan::api::{RegisteredService, ServiceRegistry};
use twinspan_testbed::{Bed, Caller, Etcd, Framework, OPERATOR_NAMESPACE, Pods, Server, ServerOptions, next_v4};

use super::leaving::Leaving;
use super::outside::is_outside;

/// The lease TTL of the ServiceRegistry of a sandbox: the shortest that is allowed.
pub const LEASE_TTL: Duration = Duration::from_secs(60);

/// A namespace, a ServiceRegistry with a prefix of its own, and foreign records and slices beside them that Twinspan
/// must not touch.
pub struct Sandbox<'a> {
    pub bed: &'a Bed,
    /// The etcd that the ServiceRegistry points to, and in which the story looks for records.
    pub registry: &'a Etcd,
    /// The name of the namespace, the ServiceRegistry and the prefix.
    pub name: String,
    /// The beginning of the keys of every service: the prefix, which may be empty, and a slash.
    root: String,
    pub pods: Pods,
    pub(super) foreign_records: BTreeMap<String, (String, i64, i64)>,
    pub(super) foreign_slices: BTreeMap<String, Value>,
    _leaving: Option<Leaving>,
}

static SANDBOXES: AtomicU32 = AtomicU32::new(0);

impl<'a> Sandbox<'a> {
    /// A sandbox with the registry of the test bed.
    pub async fn new(bed: &'a Bed, name: &str) -> Result<Sandbox<'a>> {
        Self::with_registry(bed, name, &bed.registry).await
    }

    pub async fn with_registry(bed: &'a Bed, name: &str, registry: &'a Etcd) -> Result<Sandbox<'a>> {
        let sandbox = Self::without_registry_object(bed, name, registry).await?;
        sandbox.create_registry(json!({})).await?;
        Ok(sandbox)
    }

    /// A sandbox with an empty prefix, so that each service has a range of its own. No other sandbox may use the
    /// registry.
    pub async fn without_prefix(bed: &'a Bed, name: &str, registry: &'a Etcd) -> Result<Sandbox<'a>> {
        let mut sandbox = Self::without_registry_object(bed, name, registry).await?;
        sandbox.root = "/".to_owned();
        sandbox.create_registry(json!({"prefix": ""})).await?;
        Ok(sandbox)
    }

    /// A sandbox without a ServiceRegistry, for a story that connects in another way.
    pub async fn without_registry_object(bed: &'a Bed, name: &str, registry: &'a Etcd) -> Result<Sandbox<'a>> {
        let number = SANDBOXES.fetch_add(1, Ordering::Relaxed);
        let name = format!("{name}-{number}");
        bed.create_namespace(&name, &BTreeMap::from([("story".to_owned(), name.clone())])).await?;
        let pods = Pods::in_namespace(&bed.client(), &name).await?;
        let mut sandbox = Self {
            bed,
            registry,
            root: format!("{name}/"),
            _leaving: Leaving::of(bed, &name),
            name,
            pods,
            foreign_records: BTreeMap::new(),
            foreign_slices: BTreeMap::new(),
        };
        sandbox.plant_foreign().await?;
        Ok(sandbox)
    }

    /// A sandbox of the same name in another cluster, with the same registry and no objects yet.
    pub async fn twin<'b>(&self, bed: &'b Bed) -> Result<Sandbox<'b>>
    where
        'a: 'b,
    {
        bed.create_namespace(&self.name, &BTreeMap::from([("story".to_owned(), self.name.clone())])).await?;
        let pods = Pods::in_namespace(&bed.client(), &self.name).await?;
        let foreign_records = self.foreign().await?;
        let (registry, name, root) = (self.registry, self.name.clone(), self.root.clone());
        let _leaving = Leaving::of(bed, &name);
        Ok(Sandbox { bed, registry, name, root, pods, foreign_records, foreign_slices: BTreeMap::new(), _leaving })
    }

    /// From now on the story looks for records in another member of the same etcd.
    pub fn look_through(&mut self, member: &'a Etcd) {
        self.registry = member;
    }

    pub fn client(&self) -> Client {
        self.bed.client()
    }

    pub fn services(&self) -> Api<Service> {
        Api::namespaced(self.client(), &self.name)
    }

    pub fn slices(&self) -> Api<EndpointSlice> {
        Api::namespaced(self.client(), &self.name)
    }

    pub fn registered(&self) -> Api<RegisteredService> {
        Api::namespaced(self.client(), &self.name)
    }

    pub fn registries(&self) -> Api<ServiceRegistry> {
        Api::all(self.client())
    }

    pub fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.client(), OPERATOR_NAMESPACE)
    }

    /// The key of a record.
    pub fn key(&self, service: &str, address: impl std::fmt::Display) -> String {
        format!("{}{service}/{address}", self.root)
    }

    /// Creates the ServiceRegistry of the sandbox; `extra` is merged into its spec.
    pub async fn create_registry(&self, extra: Value) -> Result<()> {
        let mut spec = json!({
            "etcd": {"endpoints": [self.registry.endpoint()]},
            "format": "Kitex",
            "prefix": self.name,
            "lease": {"ttlSeconds": LEASE_TTL.as_secs()},
            "allowed": [{"namespaceSelector": {"matchLabels": {"story": self.name}}, "registryNames": ["*"]}],
        });
        merge(&mut spec, extra);
        let object: ServiceRegistry = serde_json::from_value(json!({
            "apiVersion": "twinspan.dev/v1alpha1", "kind": "ServiceRegistry", "metadata": {"name": self.name}, "spec": spec,
        }))?;
        self.registries().create(&PostParams::default(), &object).await?;
        Ok(())
    }

    /// Creates a RegisteredService in the sandbox's registry; `extra` is merged into its spec.
    pub async fn register(&self, name: &str, extra: Value) -> Result<()> {
        let mut spec = json!({"registryRef": {"name": self.name}});
        if is_outside() {
            spec["export"] = json!({"address": "Node"});
        }
        merge(&mut spec, extra);
        let object: RegisteredService = serde_json::from_value(json!({
            "apiVersion": "twinspan.dev/v1alpha1", "kind": "RegisteredService", "metadata": {"name": name}, "spec": spec,
        }))?;
        self.registered().create(&PostParams::default(), &object).await?;
        Ok(())
    }

    /// Merges into the spec of a RegisteredService.
    pub async fn patch(&self, name: &str, spec: Value) -> Result<()> {
        self.registered().patch(name, &PatchParams::default(), &Patch::Merge(json!({"spec": spec}))).await?;
        Ok(())
    }

    pub async fn unregister(&self, name: &str) -> Result<()> {
        self.registered().delete(name, &DeleteParams::default()).await?;
        Ok(())
    }

    /// Creates a Service; `spec` is all of its spec.
    pub async fn service(&self, name: &str, spec: Value) -> Result<()> {
        let object: Service = serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec}))?;
        self.services().create(&PostParams::default(), &object).await?;
        Ok(())
    }

    /// A Service that selects `app: <name>`, with one port.
    pub async fn selector_service(&self, name: &str, port: u16) -> Result<()> {
        let kind = if is_outside() { "NodePort" } else { "ClusterIP" };
        let ports = json!([{"name": "rpc", "port": port}]);
        self.service(name, json!({"type": kind, "selector": {"app": name}, "ports": ports})).await
    }

    /// A headless Service that selects `app: <name>`, with port 80.
    pub async fn headless(&self, name: &str) -> Result<()> {
        self.headless_on(name, 80).await
    }

    pub async fn headless_on(&self, name: &str, port: u16) -> Result<()> {
        let ports = json!([{"name": "rpc", "port": port}]);
        self.service(name, json!({"clusterIP": "None", "selector": {"app": name}, "ports": ports})).await
    }

    /// A headless Service whose endpoints Kubernetes does not manage.
    pub async fn headless_without_selector(&self, name: &str, port: u16) -> Result<()> {
        let ports = json!([{"name": "rpc", "port": port}]);
        let spec = if is_outside() {
            // Only a Service with nodePorts, or with pods, has addresses of Nodes.
            json!({"type": "NodePort", "ports": ports})
        } else {
            json!({"clusterIP": "None", "ports": ports})
        };
        self.service(name, spec).await
    }

    /// Starts a pod of a Service, not ready yet, with a real Kitex server in it that does not register itself.
    pub async fn pod(&self, service: &str, pod: &str, port: u16) -> Result<Server> {
        let ip = next_v4();
        let address = SocketAddr::from((ip, port));
        let options = ServerOptions { silent: true, ..ServerOptions::default() };
        let server = Server::start(self.bed.dir(), self.registry.endpoint(), service, address, &options).await?;
        let labels = BTreeMap::from([("app".to_owned(), service.to_owned())]);
        self.run(pod, &labels, IpAddr::V4(ip)).await?;
        Ok(server)
    }

    /// A real Kitex server "on a VM" that registers itself.
    pub async fn vm(&self, service: &str, address: SocketAddr, ttl: Option<u32>) -> Result<Server> {
        let options = ServerOptions { prefix: Some(self.name.clone()), ttl, ..ServerOptions::default() };
        Server::start(self.bed.dir(), self.registry.endpoint(), service, address, &options).await
    }

    pub fn kitex_client(&self, service: &str) -> Result<Caller> {
        Caller::start(self.bed.dir(), Framework::Kitex, self.registry.endpoint(), service, Some(&self.name))
    }
}

/// Objects are merged, everything else is replaced.
pub fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}
