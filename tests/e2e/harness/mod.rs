//! What stories share: the bed, and a namespace and a registry of their own.

mod bystanders;
mod trials;

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Client;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use libtest_mimic::{Failed, Trial};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::sync::OnceCell;
use twinspan::api::{Counts, RegisteredService, ServiceRegistry};
use twinspan_testbed::{
    Bed, Caller, Etcd, Framework, OPERATOR_NAMESPACE, Pods, Server, ServerOptions, Twinspan, TwinspanOptions,
    eventually, next_v4,
};

pub(crate) use trials::{stories, story_name};

/// The binary under test.
pub const TWINSPAN: &str = env!("CARGO_BIN_EXE_twinspan");
/// How long a story waits for something that happens at once on a quiet machine.
pub const SOON: Duration = Duration::from_secs(30);

type Story = Pin<Box<dyn Future<Output = Result<()>> + Send>>;

/// The parts that stories share, started by the first that needs them.
pub struct Shared {
    pub bed: Bed,
    pub twinspan: Twinspan,
}

pub struct Suite {
    runtime: Runtime,
    shared: OnceCell<Shared>,
    dir: PathBuf,
    beds: AtomicU32,
}

impl Suite {
    pub fn new() -> Arc<Self> {
        let runtime = Runtime::new().expect("a tokio runtime");
        let dir = std::env::temp_dir().join(format!("twinspan-e2e-{}", namespace_pid()));
        Arc::new(Self { runtime, shared: OnceCell::new(), dir, beds: AtomicU32::new(0) })
    }

    /// A story in the normal run.
    pub fn story<F, Fut>(self: &Arc<Self>, name: &str, story: F) -> Trial
    where
        F: FnOnce(Arc<Suite>) -> Fut + Send + 'static,
        Fut: Future<Output = Result<()>> + Send + 'static,
    {
        let suite = self.clone();
        Trial::test(name, move || suite.clone().run(Box::pin(story(suite))))
    }

    /// A story that takes minutes by its nature.
    pub fn long_story<F, Fut>(self: &Arc<Self>, name: &str, story: F) -> Trial
    where
        F: FnOnce(Arc<Suite>) -> Fut + Send + 'static,
        Fut: Future<Output = Result<()>> + Send + 'static,
    {
        self.story(name, story).with_ignored_flag(true)
    }

    fn run(self: Arc<Self>, story: Story) -> Result<(), Failed> {
        self.runtime.block_on(story).map_err(|error| Failed::from(format!("{error:#}")))
    }

    /// The shared bed with one Twinspan.
    pub async fn shared(&self) -> Result<&Shared> {
        self.shared
            .get_or_try_init(|| async {
                let bed = Bed::start(&self.dir.join("shared")).await?;
                let twinspan = bed.start_twinspan(TWINSPAN, &TwinspanOptions::default())?;
                twinspan.ready().await?;
                Ok(Shared { bed, twinspan })
            })
            .await
    }

    /// A bed that the story may break, without a Twinspan.
    pub async fn own_bed(&self) -> Result<Bed> {
        let number = self.beds.fetch_add(1, Ordering::Relaxed);
        Bed::start(&self.dir.join(format!("own-{number}"))).await
    }

    /// Where every bed keeps its files.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Takes everything down, and keeps the logs where something failed.
    pub fn finish(&self, failed: bool) {
        if failed {
            eprintln!("e2e: logs are kept in {}", self.dir.display());
        } else {
            // What is left there is of no use to anybody.
            let _ = std::fs::remove_dir_all(&self.dir);
        }
    }
}

fn namespace_pid() -> u32 {
    twinspan_testbed::namespace::outer_pid().unwrap_or_else(|_| std::process::id())
}

/// One story's corner of a cluster: a namespace, a ServiceRegistry with a prefix of its own, and foreign things beside it that
/// nobody may touch.
pub struct Corner<'a> {
    pub bed: &'a Bed,
    /// Namespace, ServiceRegistry and prefix are named so.
    pub name: String,
    /// What the keys of its services begin with: the prefix, which may be empty, and a slash.
    root: String,
    /// The registry that the ServiceRegistry points to.
    pub etcd: String,
    pub pods: Pods,
    foreign_records: BTreeMap<String, (String, i64, i64)>,
    foreign_slices: BTreeMap<String, Value>,
}

static CORNERS: AtomicU32 = AtomicU32::new(0);

impl<'a> Corner<'a> {
    /// With the bed's own registry.
    pub async fn new(bed: &'a Bed, name: &str) -> Result<Corner<'a>> {
        Self::with_registry(bed, name, &bed.registry).await
    }

    pub async fn with_registry(bed: &'a Bed, name: &str, registry: &Etcd) -> Result<Corner<'a>> {
        let corner = Self::without_registry_object(bed, name, registry).await?;
        corner.create_registry(json!({})).await?;
        Ok(corner)
    }

    /// With an empty prefix, so that each service has a range of its own. The registry is the corner's alone.
    pub async fn without_prefix(bed: &'a Bed, name: &str, registry: &Etcd) -> Result<Corner<'a>> {
        let mut corner = Self::without_registry_object(bed, name, registry).await?;
        corner.root = "/".to_owned();
        corner.create_registry(json!({"prefix": ""})).await?;
        Ok(corner)
    }

    /// Without the ServiceRegistry, for a story that says itself how to connect.
    pub async fn without_registry_object(bed: &'a Bed, name: &str, registry: &Etcd) -> Result<Corner<'a>> {
        let number = CORNERS.fetch_add(1, Ordering::Relaxed);
        let name = format!("{name}-{number}");
        bed.create_namespace(&name, &BTreeMap::from([("story".to_owned(), name.clone())])).await?;
        let pods = Pods::in_namespace(&bed.client(), &name).await?;
        let mut corner = Self {
            bed,
            root: format!("{name}/"),
            name,
            etcd: registry.endpoint().to_owned(),
            pods,
            foreign_records: BTreeMap::new(),
            foreign_slices: BTreeMap::new(),
        };
        corner.plant_foreign(registry).await?;
        Ok(corner)
    }

    /// A corner of the same name in another cluster, with the same registry and nothing in it yet.
    pub async fn twin<'b>(&self, bed: &'b Bed, registry: &Etcd) -> Result<Corner<'b>> {
        bed.create_namespace(&self.name, &BTreeMap::from([("story".to_owned(), self.name.clone())])).await?;
        let pods = Pods::in_namespace(&bed.client(), &self.name).await?;
        let foreign_records = self.foreign(registry).await?;
        let (name, root, etcd) = (self.name.clone(), self.root.clone(), self.etcd.clone());
        Ok(Corner { bed, name, root, etcd, pods, foreign_records, foreign_slices: BTreeMap::new() })
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

    /// Creates the ServiceRegistry of the corner; `extra` is merged into its spec.
    pub async fn create_registry(&self, extra: Value) -> Result<()> {
        let mut spec = json!({
            "etcd": {"endpoints": [self.etcd]},
            "format": "Kitex",
            "prefix": self.name,
            "lease": {"ttlSeconds": 60},
            "allowed": [{"namespaceSelector": {"matchLabels": {"story": self.name}}, "registryNames": ["*"]}],
        });
        merge(&mut spec, extra);
        let object: ServiceRegistry = serde_json::from_value(json!({
            "apiVersion": "twinspan.dev/v1alpha1", "kind": "ServiceRegistry", "metadata": {"name": self.name}, "spec": spec,
        }))?;
        self.registries().create(&PostParams::default(), &object).await?;
        Ok(())
    }

    /// Creates a RegisteredService in the corner's registry; `extra` is merged into its spec.
    pub async fn register(&self, name: &str, extra: Value) -> Result<()> {
        let mut spec = json!({"registryRef": {"name": self.name}});
        merge(&mut spec, extra);
        let object: RegisteredService = serde_json::from_value(json!({
            "apiVersion": "twinspan.dev/v1alpha1", "kind": "RegisteredService", "metadata": {"name": name}, "spec": spec,
        }))?;
        self.registered().create(&PostParams::default(), &object).await?;
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
        self.service(name, json!({"selector": {"app": name}, "ports": [{"name": "rpc", "port": port}]})).await
    }

    /// Starts a pod of a Service, with a real Kitex server in it that does not know the registry, not ready yet.
    pub async fn pod(&self, service: &str, pod: &str, port: u16) -> Result<Server> {
        let ip = next_v4();
        let address = SocketAddr::from((ip, port));
        let options = ServerOptions { silent: true, ..ServerOptions::default() };
        let server = Server::start(self.bed.dir(), &self.etcd, service, address, &options).await?;
        let labels = BTreeMap::from([("app".to_owned(), service.to_owned())]);
        self.pods.run(pod, &labels, &[IpAddr::V4(ip)]).await?;
        Ok(server)
    }

    /// A real Kitex server "on a VM" that registers itself.
    pub async fn vm(&self, service: &str, address: SocketAddr, ttl: Option<u32>) -> Result<Server> {
        let options = ServerOptions { prefix: Some(self.name.clone()), ttl, ..ServerOptions::default() };
        Server::start(self.bed.dir(), &self.etcd, service, address, &options).await
    }

    pub fn kitex_client(&self, service: &str) -> Result<Caller> {
        Caller::start(self.bed.dir(), Framework::Kitex, &self.etcd, service, Some(&self.name))
    }

    /// Every record under a service's name.
    pub async fn records(&self, registry: &Etcd, service: &str) -> Result<BTreeMap<String, (String, i64, i64)>> {
        registry.dump(&self.key(service, "")).await
    }

    /// The addresses under which a service is registered.
    pub async fn registered_addresses(&self, registry: &Etcd, service: &str) -> Result<BTreeSet<String>> {
        let prefix = self.key(service, "");
        Ok(self.records(registry, service).await?.keys().map(|k| k.trim_start_matches(&prefix).to_owned()).collect())
    }

    /// Slices of a Service that Twinspan manages, by name.
    pub async fn our_slices(&self, service: &str) -> Result<Vec<EndpointSlice>> {
        let labels =
            format!("kubernetes.io/service-name={service},endpointslice.kubernetes.io/managed-by=twinspan.dev");
        Ok(self.slices().list(&ListParams::default().labels(&labels)).await?.items)
    }

    /// `ip:port` of every endpoint that Twinspan imported for a Service.
    pub async fn imported(&self, service: &str) -> Result<BTreeSet<SocketAddr>> {
        let mut found = BTreeSet::new();
        for slice in self.our_slices(service).await? {
            for port in slice.ports.iter().flatten().filter_map(|p| p.port) {
                for address in slice.endpoints.iter().flat_map(|e| &e.addresses) {
                    let new = found.insert(SocketAddr::new(address.parse()?, u16::try_from(port)?));
                    ensure!(new, "{address}:{port} is in two slices");
                }
            }
        }
        Ok(found)
    }

    pub async fn imports_become(&self, service: &str, expected: &[SocketAddr]) -> Result<()> {
        self.imports_become_within(service, expected, SOON).await
    }

    /// The same where something is waited for on purpose.
    pub async fn imports_become_within(&self, service: &str, expected: &[SocketAddr], within: Duration) -> Result<()> {
        let expected: BTreeSet<SocketAddr> = expected.iter().copied().collect();
        eventually("the imported endpoints", within, || async {
            let found = self.imported(service).await?;
            ensure!(found == expected, "imported {found:?}, want {expected:?}");
            Ok(())
        })
        .await
    }

    pub async fn records_become(&self, registry: &Etcd, service: &str, expected: &[SocketAddr]) -> Result<()> {
        let expected: BTreeSet<String> = expected.iter().map(ToString::to_string).collect();
        eventually("the registered addresses", SOON, || async {
            let found = self.registered_addresses(registry, service).await?;
            ensure!(found == expected, "registered {found:?}, want {expected:?}");
            Ok(())
        })
        .await
    }

    /// The name of a Service in DNS.
    pub fn dns_name(&self, service: &str) -> String {
        format!("{service}.{}.svc.cluster.local.", self.name)
    }

    pub fn srv_name(&self, service: &str) -> String {
        format!("_rpc._tcp.{}", self.dns_name(service))
    }

    /// The SRV answers of a headless Service become these addresses.
    pub async fn dns_becomes(&self, service: &str, expected: &[SocketAddr]) -> Result<()> {
        let expected: BTreeSet<SocketAddr> = expected.iter().copied().collect();
        eventually("the SRV answers", SOON, || async {
            let found = self.bed.dns.srv_addresses(&self.srv_name(service)).await?;
            ensure!(found == expected, "DNS answers {found:?}, want {expected:?}");
            Ok(())
        })
        .await
    }

    /// `status.instances` of a RegisteredService.
    pub async fn counts(&self, name: &str) -> Result<Counts> {
        Ok(self.registered().get(name).await?.status.unwrap_or_default().instances)
    }

    /// Waits for a condition of a RegisteredService with status and reason.
    pub async fn condition(&self, name: &str, kind: &str, status: &str, reason: &str) -> Result<RegisteredService> {
        eventually(&format!("RegisteredService {name}: {kind}={status} {reason}"), SOON, || async {
            let object = self.registered().get(name).await?;
            let conditions = object.status.as_ref().map(|s| s.conditions.clone()).unwrap_or_default();
            let found = conditions
                .iter()
                .find(|c| c.type_ == kind)
                .with_context(|| format!("no condition {kind}: {conditions:?}"))?;
            ensure!(found.status == status && found.reason == reason, "{found:?}");
            Ok(object)
        })
        .await
    }

    /// Waits until a pass has seen the spec as it is.
    pub async fn seen(&self, name: &str) -> Result<()> {
        eventually(&format!("RegisteredService {name} is seen"), SOON, || async {
            let object = self.registered().get(name).await?;
            let seen = object.status.as_ref().and_then(|status| status.observed_generation);
            ensure!(seen.is_some() && seen == object.metadata.generation, "{seen:?}");
            Ok(())
        })
        .await
    }

    /// Waits for a condition of the corner's ServiceRegistry.
    pub async fn registry_condition(&self, kind: &str, status: &str, reason: &str) -> Result<ServiceRegistry> {
        eventually(&format!("ServiceRegistry {}: {kind}={status} {reason}", self.name), SOON, || async {
            let object = self.registries().get(&self.name).await?;
            let conditions = object.status.as_ref().map(|s| s.conditions.clone()).unwrap_or_default();
            let found = conditions
                .iter()
                .find(|c| c.type_ == kind)
                .with_context(|| format!("no condition {kind}: {conditions:?}"))?;
            ensure!(found.status == status && found.reason == reason, "{found:?}");
            Ok(object)
        })
        .await
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

    /// Reasons and notes of the Events about a RegisteredService.
    pub async fn events(&self, name: &str) -> Result<BTreeSet<(String, String)>> {
        let events: Api<k8s_openapi::api::events::v1::Event> = Api::namespaced(self.client(), &self.name);
        let all = events.list(&ListParams::default()).await?;
        Ok(all
            .items
            .into_iter()
            .filter(|e| e.regarding.as_ref().and_then(|r| r.name.as_deref()) == Some(name))
            .map(|e| (e.reason.unwrap_or_default(), e.note.unwrap_or_default()))
            .collect())
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
