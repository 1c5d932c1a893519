//! The bed of a run: every part on a host of its own.
//!
//! Owns which part is where, its start, and its files. Refuses to change anything while it runs.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Namespace, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Client;
use kube::api::{Api, PostParams};
use serde_json::{Value, json};
use twinspan::api::{RegisteredService, ServiceRegistry};
use twinspan_testbed::{
    Caller, ControlPlane, Dns, Etcd, Framework, Host, Kind, OPERATOR_NAMESPACE, Part, Place, Places, Pods, Server,
    ServerOptions, Twinspan, TwinspanOptions, apply_file, eventually, twinspan_manifest,
};

use crate::fault::{MEMBERS, PODS, REPLICAS, SMALL_DISK, Target, VMS};
use crate::second::Second;

pub const NAMESPACE: &str = "shop";
/// The service that is synced, with servers on both sides; its name is the same on both.
pub const SYNCED: &str = "user";
/// The name that only servers on VMs have, and no RegisteredService.
pub const CONTROL: &str = "control";
/// Services whose pods and servers are objects and records without processes.
pub const CHURNED: [&str; 3] = ["churn-0", "churn-1", "churn-2"];
/// The default prefix of Kitex.
pub const PREFIX: &str = "kitex/registry-etcd/";
pub const PORT: u16 = 9000;
const CONTROL_PORT: u16 = 9001;
/// The lease of a server on a VM, in seconds. Kitex' own default is 60, longer than any fault here.
pub const TTL: u32 = 20;
/// Twice the segments of a write-ahead log (64 MiB each, etcd wal/wal.go), the database, and room.
const DISK: &str = "size=256m,mode=700";
const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";
const INTERVAL: Duration = Duration::from_millis(20);

#[derive(Debug)]
pub struct Vm {
    pub synced: Server,
    pub control: Server,
}

#[derive(Debug)]
pub struct Bed {
    pub dir: PathBuf,
    pub hosts: BTreeMap<Target, Host>,
    pub cluster: ControlPlane,
    pub dns: Dns,
    pub members: Vec<Etcd>,
    pub replicas: Vec<Twinspan>,
    pub vms: Vec<Vm>,
    pub pods: Vec<Server>,
    /// The client of the synced service, and of the control.
    pub clients: [Caller; 2],
    pub pod_objects: Pods,
    pub second: Option<Second>,
}

/// Every host, with the end of its address in `10.77.0.0/16`.
fn addresses() -> BTreeMap<Target, (u8, u8)> {
    let byte = |n: usize| u8::try_from(n).unwrap_or(u8::MAX);
    let single = [
        (Target::ApiServer, (1, 30)),
        (Target::Store, (1, 31)),
        (Target::ControllerManager, (1, 32)),
        (Target::Dns, (1, 33)),
        (Target::Client, (1, 40)),
    ];
    single
        .into_iter()
        .chain((0..REPLICAS).map(|n| (Target::Replica(n), (1, 10 + byte(n)))))
        .chain((0..MEMBERS).map(|n| (Target::Member(n), (1, 20 + byte(n)))))
        .chain((0..VMS).map(|n| (Target::Vm(n), (2, 1 + byte(n)))))
        .chain((0..PODS).map(|n| (Target::Pod(n), (3, 1 + byte(n)))))
        .collect()
}

/// The name of a host; an interface's name has at most 15 letters.
fn host_name(target: Target) -> String {
    match target {
        Target::Replica(n) => format!("replica{n}"),
        Target::Member(n) => format!("member{n}"),
        Target::ApiServer => "api".to_owned(),
        Target::Store => "store".to_owned(),
        Target::ControllerManager => "kcm".to_owned(),
        Target::Dns => "dns".to_owned(),
        Target::Client => "client".to_owned(),
        Target::Vm(n) => format!("vm{n}"),
        Target::Pod(n) => format!("pod{n}"),
    }
}

/// True if the clock of a replica can be moved.
pub fn has_faketime() -> bool {
    Path::new(FAKETIME).exists()
}

/// The file that says how far the clock of a replica is moved.
pub fn clock_file(dir: &Path, replica: usize) -> PathBuf {
    dir.join(format!("clock-{replica}"))
}

impl Bed {
    /// Starts everything below `dir`, with a second cluster if it is wanted.
    pub async fn start(dir: &Path, binary: &str, second: bool) -> Result<Self> {
        std::fs::create_dir_all(dir)?;
        let mut hosts = BTreeMap::new();
        for (target, (net, host)) in addresses() {
            hosts.insert(target, Host::create(&host_name(target), Ipv4Addr::new(10, 77, net, host))?);
        }
        let place = |target: Target| -> Place { hosts[&target].place(dir) };
        let ip = |target: Target| hosts[&target].address();

        mount_small_disk(&dir.join(Target::Member(SMALL_DISK).to_string()))?;
        let peers: Vec<(String, Ipv4Addr)> =
            (0..MEMBERS).map(Target::Member).map(|member| (member.to_string(), ip(member))).collect();
        let members: Vec<Etcd> = (0..MEMBERS)
            .map(|n| {
                let member = Target::Member(n);
                Etcd::spawn_member(&member.to_string(), place(member), ip(member), &peers, &["--log-level=debug"])
            })
            .collect::<Result<_>>()?;
        let places = Places {
            etcd: place(Target::Store),
            apiserver: place(Target::ApiServer),
            controller_manager: place(Target::ControllerManager),
        };
        let (api, store) = (ip(Target::ApiServer), ip(Target::Store));
        let cluster = ControlPlane::start_on(dir, places, api, store, Kind::WITHOUT_NODES).await?;
        let dns = Dns::start(place(Target::Dns), ip(Target::Dns), &cluster).await?;
        apply_file(&cluster.client, &twinspan_manifest()).await?;
        let operator = cluster.account(dir, OPERATOR_NAMESPACE, "twinspan").await?;
        for member in &members {
            member.ready().await?;
        }
        cluster.controllers_ready().await?;
        dns.ready().await?;

        let replicas: Vec<Twinspan> = (0..REPLICAS)
            .map(|n| {
                let replica = Target::Replica(n);
                let options = TwinspanOptions { env: clock(dir, n)?, ..TwinspanOptions::default() };
                Twinspan::start(place(replica), ip(replica), binary, &operator, &options)
            })
            .collect::<Result<_>>()?;

        create_objects(&cluster.client, &endpoints(&members), &json!({})).await?;
        plant_foreign(&cluster.client, &members).await?;
        let pod_objects = Pods::in_namespace(&cluster.client, NAMESPACE).await?;
        let second = match second {
            true => Some(Second::start(&dir.join("second"), binary, &endpoints(&members)).await?),
            false => None,
        };
        let endpoints = endpoints(&members).join(",");
        let registered = ServerOptions { ttl: Some(TTL), ..ServerOptions::default() };
        let mut vms = Vec::new();
        for vm in (0..VMS).map(Target::Vm) {
            let server = async |name: &str, port: u16| {
                Server::start(place(vm), &endpoints, name, SocketAddr::from((ip(vm), port)), &registered).await
            };
            vms.push(Vm { synced: server(SYNCED, PORT).await?, control: server(CONTROL, CONTROL_PORT).await? });
        }
        let silent = ServerOptions { silent: true, ..ServerOptions::default() };
        let labels = BTreeMap::from([("app".to_owned(), SYNCED.to_owned())]);
        let mut pods = Vec::new();
        for pod in (0..PODS).map(Target::Pod) {
            let address = SocketAddr::from((ip(pod), PORT));
            pods.push(Server::start(place(pod), &endpoints, SYNCED, address, &silent).await?);
            pod_objects.run(&pod.to_string(), &labels, &[address.ip()]).await?;
            pod_objects.set_ready(&pod.to_string(), true).await?;
        }
        for replica in &replicas {
            replica.ready().await?;
        }
        let caller = |name: &str| {
            Caller::start_every(place(Target::Client), Framework::Kitex, &endpoints, name, None, Some(INTERVAL))
        };
        let clients = [caller(SYNCED)?, caller(CONTROL)?];
        let dir = dir.to_owned();
        Ok(Self { dir, hosts, cluster, dns, members, replicas, vms, pods, clients, pod_objects, second })
    }

    pub fn client(&self) -> Client {
        self.cluster.client.clone()
    }

    pub fn host(&self, target: Target) -> Result<&Host> {
        self.hosts.get(&target).with_context(|| format!("no host {target}"))
    }

    /// The processes of a host.
    pub fn parts(&self, target: Target) -> Vec<&Part> {
        match target {
            Target::Replica(n) => vec![self.replicas[n].part()],
            Target::Member(n) => vec![self.members[n].part()],
            Target::ApiServer => vec![&self.cluster.apiserver],
            Target::Store => vec![self.cluster.etcd.part()],
            Target::ControllerManager => vec![&self.cluster.controller_manager],
            Target::Dns => vec![self.dns.part()],
            Target::Client => self.clients.iter().map(Caller::part).collect(),
            Target::Vm(n) => vec![self.vms[n].synced.part(), self.vms[n].control.part()],
            Target::Pod(n) => vec![self.pods[n].part()],
        }
    }

    /// Waits until the client of each name is answered by all of its servers.
    pub async fn serves(&self) -> Result<()> {
        let vms = || self.vms.iter();
        let synced = vms().map(|vm| vm.synced.address()).chain(self.pods.iter().map(Server::address)).collect();
        let control = vms().map(|vm| vm.control.address()).collect();
        self.clients[0].answered_by(&synced, Duration::from_secs(60)).await?;
        self.clients[1].answered_by(&control, Duration::from_secs(60)).await
    }
}

/// The client URLs of the members.
pub fn endpoints(members: &[Etcd]) -> Vec<String> {
    members.iter().map(|member| member.endpoint().to_owned()).collect()
}

fn mount_small_disk(data: &Path) -> Result<()> {
    std::fs::create_dir_all(data)?;
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", DISK, "tmpfs"]).arg(data).status()?;
    ensure!(mounted.success(), "cannot mount a tmpfs on {}", data.display());
    Ok(())
}

/// Removes all files of a bed that is no longer up.
pub fn remove(dir: &Path) -> Result<()> {
    let disk = dir.join(Target::Member(SMALL_DISK).to_string());
    let unmounted = Command::new("umount").arg("--lazy").arg(&disk).status()?;
    ensure!(unmounted.success(), "cannot unmount {}", disk.display());
    std::fs::remove_dir_all(dir).with_context(|| format!("cannot remove {}", dir.display()))
}

/// The variables by which a replica's clock can be moved while it runs; libfaketime(1).
fn clock(dir: &Path, replica: usize) -> Result<Vec<(String, String)>> {
    if !has_faketime() {
        return Ok(Vec::new());
    }
    let file = clock_file(dir, replica);
    std::fs::write(&file, "+0")?;
    let pairs = [
        ("LD_PRELOAD", FAKETIME),
        ("FAKETIME_TIMESTAMP_FILE", &file.display().to_string()),
        ("FAKETIME_CACHE_DURATION", "1"),
        // Both spellings: the older one is not read by newer versions.
        ("DONT_FAKE_MONOTONIC", "1"),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
    ];
    Ok(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).into())
}

/// Creates what a user would: a ServiceRegistry at these URLs, and for each name a Service and a RegisteredService with
/// this `spec.import`.
pub async fn create_objects(client: &Client, endpoints: &[String], import: &Value) -> Result<()> {
    let once = PostParams::default();
    let namespace: Namespace = serde_json::from_value(json!({"metadata": {"name": NAMESPACE}}))?;
    Api::all(client.clone()).create(&once, &namespace).await?;
    let registry: ServiceRegistry = serde_json::from_value(json!({
        "apiVersion": "twinspan.dev/v1alpha1", "kind": "ServiceRegistry", "metadata": {"name": "main"},
        "spec": {"etcd": {"endpoints": endpoints}, "format": "Kitex",
            "allowed": [{"namespaceSelector": {}, "registryNames": ["*"]}]},
    }))?;
    Api::all(client.clone()).create(&once, &registry).await?;
    for name in CHURNED.into_iter().chain([SYNCED]) {
        let ports = json!([{"name": "rpc", "port": PORT}]);
        let service: Service = serde_json::from_value(json!({
            "metadata": {"name": name},
            "spec": {"clusterIP": "None", "selector": {"app": name}, "ports": ports},
        }))?;
        Api::namespaced(client.clone(), NAMESPACE).create(&once, &service).await?;
        // A short hold lets a run end soon.
        let registered: RegisteredService = serde_json::from_value(json!({
            "apiVersion": "twinspan.dev/v1alpha1", "kind": "RegisteredService", "metadata": {"name": name},
            "spec": {"registryRef": {"name": "main"}, "import": import, "deletionGuard": {"holdSeconds": 60}},
        }))?;
        Api::namespaced(client.clone(), NAMESPACE).create(&once, &registered).await?;
    }
    Ok(())
}

async fn plant_foreign(client: &Client, members: &[Etcd]) -> Result<()> {
    let slices: Api<EndpointSlice> = Api::namespaced(client.clone(), NAMESPACE);
    slices.create(&PostParams::default(), &serde_json::from_value(bystander())?).await?;
    eventually("foreign records are planted", Duration::from_secs(20), || async {
        for key in [format!("{PREFIX}{SYNCED}/no-json"), format!("{PREFIX}bystander/10.77.250.1:7000")] {
            members[0].put(&key, "{").await?;
        }
        Ok(())
    })
    .await
}

/// A slice of somebody else.
fn bystander() -> Value {
    json!({
        "metadata": {"name": "bystander", "labels": {
            "kubernetes.io/service-name": "bystander", "endpointslice.kubernetes.io/managed-by": "somebody-else.example",
        }},
        "addressType": "IPv4",
        "ports": [{"name": "rpc", "port": 7000}],
        "endpoints": [{"addresses": ["10.77.250.2"]}],
    })
}
