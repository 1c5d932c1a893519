//! The scene of discovery: a control plane whose operator may write RegisteredServices, a namespace with Services and
//! their pods, and one for what is imported.
//!
//! Owns the reading of what discovery made. Refuses to judge it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Mutex;

use anyhow::{Context, Result, ensure};
use etcd_client::{PutOptions, Txn, TxnOp};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tokio::process::Command;
use twinspan::api::discovered::discovered_by;
use twinspan::api::{DiscoveryStatus, RegisteredService};
use twinspan_testbed::{Bed, Twinspan, TwinspanOptions, apply_file, discovery_manifest, eventually, next_v4};

use crate::harness::{SOON, Sandbox, TWINSPAN, record};
use crate::safety::audit;

pub struct Scene<'a> {
    pub sandbox: Sandbox<'a>,
    /// The namespace of imports.
    pub vms: String,
    pods: Mutex<BTreeMap<usize, Ipv4Addr>>,
    twinspan: Twinspan,
}

impl<'a> Scene<'a> {
    pub async fn new(bed: &'a Bed) -> Result<Scene<'a>> {
        apply_file(&bed.client(), &discovery_manifest()).await?;
        let twinspan = bed.start_twinspan(TWINSPAN, &TwinspanOptions::default())?;
        twinspan.ready().await?;
        let sandbox = Sandbox::new(bed, "discovery").await?;
        let vms = format!("{}-vms", sandbox.name);
        bed.create_namespace(&vms, &BTreeMap::from([("story".to_owned(), sandbox.name.clone())])).await?;
        Ok(Self { sandbox, vms, pods: Mutex::default(), twinspan })
    }

    pub fn bed(&self) -> &'a Bed {
        self.sandbox.bed
    }

    /// Merges into `spec.discovery`.
    pub async fn discovery(&self, discovery: Value) -> Result<()> {
        self.registry_spec(json!({"discovery": discovery})).await
    }

    /// Merges into the spec of the ServiceRegistry.
    pub async fn registry_spec(&self, spec: Value) -> Result<()> {
        let patch = Patch::Merge(json!({"spec": spec}));
        self.sandbox.registries().patch(&self.sandbox.name, &PatchParams::default(), &patch).await?;
        Ok(())
    }

    /// Services `s-00` and so on, each with a ready pod.
    pub async fn services(&self, count: usize) -> Result<()> {
        for n in 0..count {
            self.service(n).await?;
        }
        Ok(())
    }

    pub async fn service(&self, n: usize) -> Result<()> {
        let name = format!("s-{n:02}");
        self.sandbox.headless(&name).await?;
        let ip = next_v4();
        self.pods.lock().expect("no panic").insert(n, ip);
        // Nobody calls it, so nothing runs there.
        self.sandbox.pods.run(&name, &BTreeMap::from([("app".to_owned(), name.clone())]), &[IpAddr::V4(ip)]).await?;
        self.sandbox.pods.set_ready(&name, true).await
    }

    /// A Service in another namespace, whose one endpoint a person wrote.
    pub async fn service_in(
        &self,
        namespace: &str,
        name: &str,
        labels: Value,
        annotations: Value,
    ) -> Result<SocketAddr> {
        let (client, ip) = (self.sandbox.client(), next_v4());
        let service: Service = serde_json::from_value(json!({
            "metadata": {"name": name, "labels": labels, "annotations": annotations},
            "spec": {"clusterIP": "None", "ports": [{"name": "rpc", "port": 80}]},
        }))?;
        Api::namespaced(client.clone(), namespace).create(&PostParams::default(), &service).await?;
        let slice: EndpointSlice = serde_json::from_value(json!({
            "metadata": {"name": name, "labels": {"kubernetes.io/service-name": name,
                "endpointslice.kubernetes.io/managed-by": "by-hand.example"}},
            "addressType": "IPv4", "ports": [{"name": "rpc", "port": 80}], "endpoints": [{"addresses": [ip]}],
        }))?;
        Api::namespaced(client, namespace).create(&PostParams::default(), &slice).await?;
        Ok(SocketAddr::from((ip, 80)))
    }

    /// The operator is killed, and another process takes over.
    pub async fn restart(&self) -> Result<()> {
        self.twinspan.part().kill().await?;
        self.twinspan.part().start_again()?;
        self.twinspan.ready().await?;
        eventually("it leads", SOON, || async {
            ensure!(self.twinspan.metric("twinspan_leader").await? == Some(1.0));
            Ok(())
        })
        .await
    }

    /// The RegisteredServices that Twinspan created or deleted, once for each time.
    pub fn written_objects(&self, verb: &str) -> Result<Vec<String>> {
        let done = |event: &Value| {
            let (object, code) = (&event["objectRef"], event["responseStatus"]["code"].as_u64().unwrap_or_default());
            let is_done = event["verb"] == verb && object["resource"] == "registeredservices" && code < 300;
            let name = |field: &str| object[field].as_str().unwrap_or_default().to_owned();
            is_done.then(|| format!("{}/{}", name("namespace"), name("name")))
        };
        Ok(audit::audited(self.bed())?.iter().filter_map(done).collect())
    }

    pub fn pod(&self, n: usize) -> SocketAddr {
        SocketAddr::from((self.pods.lock().expect("no panic")[&n], 80))
    }

    pub async fn annotate(&self, service: &str, annotations: Value) -> Result<()> {
        let patch = Patch::Merge(json!({"metadata": {"annotations": annotations}}));
        self.sandbox.services().patch(service, &PatchParams::default(), &patch).await?;
        Ok(())
    }

    /// Writes a record under each of so many names, as a server would.
    pub async fn foreign_names(&self, start: &str, count: usize) -> Result<()> {
        let (mut client, value) = (self.sandbox.registry.client().await?, record("192.0.2.1:80").to_string());
        for hundred in (0..count).collect::<Vec<_>>().chunks(100) {
            let put = |n: &usize| {
                let key = self.sandbox.key(&format!("{start}-{n}"), "192.0.2.1:80");
                TxnOp::put(key, value.clone(), None::<PutOptions>)
            };
            client.txn(Txn::new().and_then(hundred.iter().map(put).collect::<Vec<_>>())).await.context("names")?;
        }
        Ok(())
    }

    /// All keys of the registry with their revisions, and how often Twinspan wrote a RegisteredService or a Service.
    pub async fn written(&self) -> Result<(BTreeMap<String, i64>, usize)> {
        let prefix = format!("{}/", self.sandbox.name);
        let keys = self.sandbox.registry.dump(&prefix).await?;
        let keys = keys.into_iter().map(|(key, (_, revision, _))| (key, revision)).collect();
        let writes = audit::audited(self.bed())?;
        let is_write = |event: &&Value| {
            let of = |resource: &str| event["objectRef"]["resource"] == resource;
            let writes = ["create", "update", "patch", "delete"].iter().any(|verb| event["verb"] == *verb);
            writes && event["objectRef"].get("subresource").is_none() && (of("registeredservices") || of("services"))
        };
        Ok((keys, writes.iter().filter(is_write).count()))
    }

    pub fn all(&self) -> Api<RegisteredService> {
        Api::all(self.sandbox.client())
    }

    /// The RegisteredServices that discovery made.
    pub async fn made(&self) -> Result<BTreeSet<String>> {
        let all = self.all().list(&ListParams::default()).await?.items;
        Ok(all.iter().filter(|object| discovered_by(object).is_some()).map(|object| object.key().to_string()).collect())
    }

    pub async fn made_become(&self, count: usize) -> Result<()> {
        eventually(&format!("{count} RegisteredServices of discovery"), SOON * 2, || async {
            let made = self.made().await?;
            ensure!(made.len() == count, "{made:?}");
            Ok(())
        })
        .await
    }

    /// Whether discovery made the object of a Service.
    pub async fn is_made(&self, name: &str) -> Result<bool> {
        Ok(self.made().await?.contains(&format!("{}/{name}", self.sandbox.name)))
    }

    /// The RegisteredService that was made for a name.
    pub async fn import(&self, name: &str) -> Result<RegisteredService> {
        Ok(Api::namespaced(self.sandbox.client(), &self.vms).get(name).await?)
    }

    pub async fn vm_services(&self) -> Result<BTreeSet<String>> {
        let services: Api<Service> = Api::namespaced(self.sandbox.client(), &self.vms);
        Ok(services.list(&ListParams::default()).await?.items.iter().map(ResourceExt::name_any).collect())
    }

    /// Waits for `status.discovery`.
    pub async fn status(&self, wanted: impl Fn(&DiscoveryStatus) -> bool) -> Result<DiscoveryStatus> {
        eventually("status.discovery", SOON, || async {
            let object = self.sandbox.registries().get(&self.sandbox.name).await?;
            let status = object.status.and_then(|status| status.discovery).context("no status.discovery")?;
            ensure!(wanted(&status), "{status:?}");
            Ok(status)
        })
        .await
    }

    pub async fn condition(&self, status: &str, reason: &str) -> Result<()> {
        self.sandbox.registry_condition("Discovered", status, reason).await?;
        Ok(())
    }
}

/// Exit code and text of `twinspan plan`.
pub async fn plan(bed: &Bed, args: &[&str]) -> Result<(i32, String)> {
    let mut command = Command::new(TWINSPAN);
    command.env("TWINSPAN_KUBECONFIG", &bed.cluster.admin.path).env_remove("KUBECONFIG").arg("plan").args(args);
    let output = command.output().await.context("cannot run it")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    Ok((output.status.code().context("no exit code")?, text))
}
